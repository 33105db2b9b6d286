/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What every daemon's main shares: command line, configuration, log, signals, the service manager, the HTTP port.
 *
 *     int main(int argc, char **argv)
 *     {
 *         struct daemon *d cleanup(daemon_free_p) = NULL;
 *         int status = daemon_new(&program, argc, argv, &d);       handles --help, --version, --check-config
 *         if (!d)
 *             return status;
 *         const struct worker_options *o = config_options(daemon_config(d), worker);
 *         if (daemon_lock(d, o->dir) < 0 || ...start the parts, which log why they cannot...)
 *             return DAEMON_FAILED;
 *         if (daemon_http(d, o->http_listen, o->http_port) < 0)
 *             return DAEMON_FAILED;
 *         status = daemon_run(d);                                  says READY; returns when it is time to stop
 *         ...stop the parts...
 *         return status;
 *     }
 *
 * Signals arrive on the main thread only, in daemon_run(): SIGTERM and SIGINT end it (the parts then drain; a second
 * one kills at once), SIGHUP re-reads the configuration. daemon_new() blocks them: call it before any thread is made.
 */
#pragma once

#include <stdint.h>

#include "conf/config.h"
#include "conf/http.h"
#include "conf/metrics.h"

/* Exit statuses of a daemon. A restart does not help against DAEMON_USAGE: units say RestartPreventExitStatus=2. */
enum daemon_status { DAEMON_OK = 0, DAEMON_FAILED = 1, DAEMON_USAGE = 2 };

/* The status to exit with when a part could not be made or started: DAEMON_USAGE for a data directory that is not
 * formatted, which waits for its administrator, else DAEMON_FAILED. */
int daemon_status_of(int error);

struct daemon;

struct daemon_program {
    const char *name;                             /* "cv-worker" */
    const char *summary;                          /* one line for --help */
    const struct option_section *const *sections; /* all of curvine.yaml */
    const struct option_section *const *own;      /* those this daemon reads, NULL-terminated: for --help */
    const char *arguments;         /* what follows the options, for --help: "PATH MOUNTPOINT"; NULL: nothing may */
    const char *(*commands)(void); /* the commands among these, lines for --help and the manual page; NULL: none */

    /* The functions below may be NULL. They are called while daemon_run() runs only, so they may use what is started
     * before it and stopped behind it; arg is what daemon_set_arg() said. */
    /* Options changed: apply what is live. Main thread; config is valid during the call only. */
    void (*reload)(void *arg, const struct config *config);
    /* Asked by the watchdog and /healthz, on either thread: 0, or a negative code when only a restart helps. */
    int (*healthy)(void *arg);
    /* Asked by /readyz, on the HTTP thread: 0, or a negative code with the reason in why ("no leader yet"). */
    int (*ready)(void *arg, char *why, size_t why_size);
    /* The page /status: one JSON value, appended on the HTTP thread. Returns 0 or a negative code. */
    int (*status)(void *arg, struct buf *out);
};

/* Read command line and configuration, set up log and signals. When there is nothing to run (--help, or a mistake,
 * which is reported), *ret stays NULL and the exit status is returned. */
int daemon_new(const struct daemon_program *program, int argc, char **argv, struct daemon **ret);

/* Stops the HTTP port and drops the lock. */
struct daemon *daemon_free(struct daemon *d);
DEFINE_CLEANUP(struct daemon *, daemon_free)

void daemon_set_arg(struct daemon *d, void *arg);

/* Bring --config and --set (-c, -s) to the front, in their order: before a command and behind it they are the same.
 * daemon_new() does it. */
void daemon_options_first(int argc, char **argv);

/* What followed the options on the command line, NULL-terminated. */
char **daemon_arguments(const struct daemon *d);

/* Those of a daemon that makes its own directory: "format --cluster ID [--dir DIR]", of daemon_arguments(), count with the
 * rest of argv. *ret_dir stays as it is without --dir. Errors: -EINVAL it is something else (getopt may have said what). */
int daemon_format_arguments(int count, char **arguments, const char **ret_cluster, const char **ret_dir);

/* The configuration the daemon started with: valid and unchanged until daemon_free(). */
const struct config *daemon_config(const struct daemon *d);

/* The registry its threads count in. */
struct metrics *daemon_metrics(const struct daemon *d);

/* Lock the data directory, made (mode 0700) if its parent exists, until daemon_free(). Logs, naming the pid that has it.
 * Errors: -CV_LOCKED, or errno. */
int daemon_lock(struct daemon *d, const char *dir);

/* Open the HTTP port with the pages /metrics /metrics.json /healthz /readyz /config /status; port 0: none. Logs errors. */
int daemon_http(struct daemon *d, const char *listen, uint32_t port);

/* 0 when there is none. */
uint16_t daemon_http_port(const struct daemon *d);

/* Tell the service manager we are ready, then wait: for a signal to stop (DAEMON_OK) or daemon_fail() (DAEMON_FAILED).
 * Meanwhile serves SIGHUP and the watchdog. */
int daemon_run(struct daemon *d);

/* Any thread: what the daemon lives from broke and has been logged; daemon_run() returns DAEMON_FAILED. */
void daemon_fail(struct daemon *d);

/* Any thread: end as SIGTERM does. */
void daemon_stop(struct daemon *d);
