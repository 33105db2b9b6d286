/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The main thread sleeps in poll() on two descriptors: a signalfd, and an eventfd by which other threads end it. Only
 * there, and in the pages (daemon_http.c), are the program's functions called, and only while phase says RUNNING.
 */
#include "conf/daemon.h"

#include <errno.h>
#include <getopt.h>
#include <poll.h>
#include <signal.h>
#include <stdio.h>
#include <sys/eventfd.h>
#include <sys/signalfd.h>
#include <sys/stat.h>
#include <systemd/sd-daemon.h>

#include "base/clock.h"
#include "base/error.h"
#include "base/log.h"
#include "conf/common_options.h"
#include "conf/daemon_internal.h"
#include "conf/dir_lock.h"
#include "conf/man.h"
#include "conf/options_doc.h"

struct daemon *daemon_free(struct daemon *d)
{
    if (!d)
        return NULL;
    d->http = http_stop(d->http);
    d->metrics = metrics_free(d->metrics);
    d->latest = config_free(d->latest);
    d->config = config_free(d->config);
    closep(&d->signal_fd);
    closep(&d->stop_fd);
    closep(&d->lock_fd);
    pthread_mutex_destroy(&d->lock);
    free(d->sets);
    free(d);
    return NULL;
}

/* All messages of a configuration, one log line each. */
static void log_problems(struct config *c)
{
    char *all cleanup(freep) = strdup(config_errors(c));
    for (char *rest = all, *line; rest && (line = strsep(&rest, "\n"));)
        if (*line)
            log_line(LOG_LEVEL_ERROR, 0, "configuration: %s", line);
}

/* Defaults, file, --set, checks. Reports what is wrong. */
static int read_config(const struct daemon *d, struct config **ret)
{
    struct config *c cleanup(config_free_p) = NULL;
    int r = config_new(d->program->sections, &c);
    if (r < 0)
        return log_error(r, "configuration");
    if (d->path)
        r = config_load(c, d->path);
    for (uint32_t i = 0; i < d->n_sets; i++) {
        int set = config_set(c, d->sets[i]);
        r = r < 0 ? r : set;
    }
    if (r == 0)
        r = config_check(c);
    if (r < 0) {
        log_problems(c);
        return r;
    }
    *ret = take(c);
    return 0;
}

static const char usual_options[] =
    "  -c, --config FILE        read FILE (else $CURVINE_CONFIG, else /etc/curvine/curvine.yaml if it is there)\n"
    "  -s, --set SECTION.KEY=V  set one option, over what the file says; may be repeated\n"
    "      --check-config       read the configuration, say what is wrong with it, exit 0 or 2\n"
    "  -h, --help               this text; --man: the same as a manual page\n"
    "  -V, --version            the version\n";
static const char usual_signals[] = "SIGTERM, SIGINT drain and stop; SIGHUP re-reads the configuration.";
static const char usual_statuses[] =
    "0 stopped when told to, 1 failed, 2 wrong usage or configuration, or a data directory that is not formatted.";

static void print_help(const struct daemon_program *p)
{
    printf("%s: %s\n\nUsage: %s [options]%s%s\n%s\n", p->name, p->summary, p->name, p->arguments ? " " : "",
           p->arguments ? p->arguments : "", usual_options);
    if (p->commands)
        printf("Commands, for its data directory while it does not run; options before or behind:\n%s\n",
               p->commands());
    printf("Signals: %s\nExit status: %s\n", usual_signals, usual_statuses);
    struct buf out cleanup(buf_fini) = {0};
    int r = 0;
    for (uint32_t i = 0; r == 0 && p->own[i]; i++) {
        r = buf_append(&out, "\n", 1);
        if (r == 0)
            r = options_help(p->own[i], &out);
    }
    fwrite(out.p, 1, out.n, stdout);
}

static int write_man(const struct daemon_program *p, struct buf *out)
{
    char usage[256];
    snprintf(usage, sizeof(usage), "%s [options]%s%s\n", p->name, p->arguments ? " " : "",
             p->arguments ? p->arguments : "");
    int r = man_head(out, p->name, 8, p->summary);
    r = r < 0 ? r : man_section(out, "SYNOPSIS");
    r = r < 0 ? r : man_lines(out, usage);
    r = r < 0 ? r : man_section(out, "OPTIONS");
    r = r < 0 ? r : man_terms(out, usual_options);
    if (p->commands) {
        r = r < 0 ? r : man_section(out, "COMMANDS");
        r = r < 0 ? r : man_text(out, "For its data directory, while it does not run. Options come before or behind.");
        r = r < 0 ? r : man_lines(out, p->commands());
    }
    r = r < 0 ? r : man_section(out, "CONFIGURATION");
    r = r < 0 ? r : man_text(out, "The sections of curvine.yaml this program reads:");
    r = r < 0 ? r : options_man(p->own, out);
    r = r < 0 ? r : man_section(out, "SIGNALS");
    r = r < 0 ? r : man_text(out, usual_signals);
    r = r < 0 ? r : man_section(out, "EXIT STATUS");
    r = r < 0 ? r : man_text(out, usual_statuses);
    r = r < 0 ? r : man_section(out, "SEE ALSO");
    return r < 0 ? r : man_text(out, "cv(1), curvine.yaml(5)");
}

static void print_man(const struct daemon_program *p)
{
    struct buf out cleanup(buf_fini) = {0};
    if (write_man(p, &out) == 0)
        fwrite(out.p, 1, out.n, stdout);
}

/* How many arguments the usual option at argv[i] takes up; 0: it is none. */
static int usual_option(int argc, char **argv, int i)
{
    static const char *const names[] = {"-c", "-s", "--config", "--set"};
    for (size_t k = 0; k < array_size(names); k++) {
        size_t n = strlen(names[k]);
        if (strcmp(argv[i], names[k]) == 0)
            return i + 1 < argc ? 2 : 1;
        if (strncmp(argv[i], names[k], n) == 0 && (n == 2 || argv[i][n] == '='))
            return 1;
    }
    return 0;
}

void daemon_options_first(int argc, char **argv)
{
    int end = 1; /* of the options in front */
    for (int i = 1, n; i < argc && strcmp(argv[i], "--") != 0; i += n ? n : 1) {
        n = usual_option(argc, argv, i);
        for (int k = 0; k < n; k++, end++) {
            char *moved = argv[i + k];
            memmove(&argv[end + 1], &argv[end], (size_t)(i + k - end) * sizeof(*argv));
            argv[end] = moved;
        }
    }
}

enum { OPTION_CHECK_CONFIG = 256, OPTION_MAN };

/* Returns false when there is nothing to run: *ret_status says how it ended. */
static bool parse_command_line(struct daemon *d, int argc, char **argv, bool *ret_check, int *ret_status)
{
    static const struct option names[] = {
        {"config", required_argument, NULL, 'c'},
        {"set", required_argument, NULL, 's'},
        {"check-config", no_argument, NULL, OPTION_CHECK_CONFIG},
        {"help", no_argument, NULL, 'h'},
        {"man", no_argument, NULL, OPTION_MAN},
        {"version", no_argument, NULL, 'V'},
        {0},
    };
    *ret_status = DAEMON_OK;
    daemon_options_first(argc, argv);
    for (int c; (c = getopt_long(argc, argv, "+c:s:hV", names, NULL)) != -1;)
        switch (c) {
        case 'c': d->path = optarg; break;
        case 's': d->sets[d->n_sets++] = optarg; break;
        case OPTION_CHECK_CONFIG: *ret_check = true; break;
        case 'h': print_help(d->program); return false;
        case OPTION_MAN: print_man(d->program); return false;
        case 'V': printf("%s " CV_VERSION "\n", d->program->name); return false;
        default: /* getopt has said what it does not know */
            fprintf(stderr, "Try '%s --help'.\n", d->program->name);
            *ret_status = DAEMON_USAGE;
            return false;
        }
    d->arguments = argv + optind;
    if (argv[optind] && !d->program->arguments) {
        fprintf(stderr, "%s: unexpected argument '%s'\nTry '%s --help'.\n", d->program->name, argv[optind],
                d->program->name);
        *ret_status = DAEMON_USAGE;
        return false;
    }
    return true;
}

/* A named file must be there; the one at the usual place need not. */
static const char *usual_config(void)
{
    const char *path = config_default_path();
    return getenv("CURVINE_CONFIG") || access(path, F_OK) == 0 ? path : NULL;
}

static int open_descriptors(struct daemon *d)
{
    sigset_t set;
    sigemptyset(&set);
    sigaddset(&set, SIGTERM);
    sigaddset(&set, SIGINT);
    sigaddset(&set, SIGHUP);
    int r = pthread_sigmask(SIG_BLOCK, &set, NULL);
    if (r)
        return -r;
    signal(SIGPIPE, SIG_IGN);
    d->signal_fd = signalfd(-1, &set, SFD_CLOEXEC | SFD_NONBLOCK);
    d->stop_fd = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
    return d->signal_fd < 0 || d->stop_fd < 0 ? -errno : 0;
}

int daemon_new(const struct daemon_program *program, int argc, char **argv, struct daemon **ret)
{
    log_set_name(program->name);
    struct daemon *d cleanup(daemon_free_p) = calloc(1, sizeof(*d));
    if (!d)
        return DAEMON_FAILED;
    *d = (struct daemon){.program = program, .signal_fd = -1, .stop_fd = -1, .lock_fd = -1};
    pthread_mutex_init(&d->lock, NULL);
    d->sets = calloc((size_t)argc + 1, sizeof(*d->sets));
    if (!d->sets)
        return DAEMON_FAILED;

    int status;
    bool check = false;
    if (!parse_command_line(d, argc, argv, &check, &status))
        return status;
    if (!d->path)
        d->path = usual_config();
    if (read_config(d, &d->config) < 0)
        return DAEMON_USAGE;
    if (check) {
        printf("%s: the configuration is valid\n", d->path ? d->path : "no file, all defaults");
        return DAEMON_OK;
    }
    log_set_level(config_options(d->config, log)->level);
    int r = open_descriptors(d);
    if (r == 0)
        r = metrics_new(&d->metrics);
    if (r < 0) {
        log_error(r, "start");
        return DAEMON_FAILED;
    }
    if (!d->arguments[0]) /* it is going to run */
        log_info("%s " CV_VERSION ", configuration: %s", program->name, d->path ? d->path : "none, all defaults");
    *ret = take(d);
    return DAEMON_OK;
}

int daemon_status_of(int error)
{
    return error == -CV_NOT_FORMATTED ? DAEMON_USAGE : DAEMON_FAILED;
}

void daemon_set_arg(struct daemon *d, void *arg)
{
    d->arg = arg;
}

char **daemon_arguments(const struct daemon *d)
{
    return d->arguments;
}

int daemon_format_arguments(int count, char **arguments, const char **ret_cluster, const char **ret_dir)
{
    static const struct option names[] = {
        {"cluster", required_argument, NULL, 'C'}, {"dir", required_argument, NULL, 'd'}, {0}};
    *ret_cluster = NULL;
    optind = 0; /* begin anew: daemon_new() has used it */
    for (int c; (c = getopt_long(count, arguments, "d:", names, NULL)) != -1;) {
        if (c == '?')
            return -EINVAL;
        *(c == 'd' ? ret_dir : ret_cluster) = optarg;
    }
    return strcmp(arguments[0], "format") != 0 || arguments[optind] || !*ret_cluster ? -EINVAL : 0;
}

const struct config *daemon_config(const struct daemon *d)
{
    return d->config;
}

struct metrics *daemon_metrics(const struct daemon *d)
{
    return d->metrics;
}

int daemon_lock(struct daemon *d, const char *dir)
{
    pid_t holder = 0;
    if (mkdir(dir, 0700) < 0 && errno != EEXIST)
        return log_error(-errno, "make directory '%s'", dir);
    int r = dir_lock(dir, &d->lock_fd, &holder);
    if (r == -CV_LOCKED && holder)
        return log_error(r, "directory '%s' is held by process %ld", dir, (long)holder);
    return r < 0 ? log_error(r, "lock directory '%s'", dir) : 0;
}

/* What a reload found: live options are applied now, the others are named. */
struct reload {
    const struct config *running, *fresh;
    uint32_t live, waiting;
};

static void report_change(void *arg, struct option_ref ref)
{
    struct reload *reload = arg;
    struct buf from cleanup(buf_fini) = {0};
    struct buf to cleanup(buf_fini) = {0};
    if (option_format(ref.option, config_values(reload->running, ref.section), &from) < 0 ||
        option_format(ref.option, config_values(reload->fresh, ref.section), &to) < 0)
        return;
    if (ref.option->live) {
        reload->live++;
        log_info("reload: %s.%s is now %.*s", ref.section->name, ref.option->name, (int)to.n, (char *)to.p);
    } else {
        reload->waiting++;
        log_warn(0, "reload: %s.%s changed from %.*s to %.*s: takes a restart", ref.section->name, ref.option->name,
                 (int)from.n, (char *)from.p, (int)to.n, (char *)to.p);
    }
}

static void reload(struct daemon *d)
{
    sd_notifyf(0, "RELOADING=1\nMONOTONIC_USEC=%llu", (unsigned long long)(clock_read(CLOCK_MONOTONIC) / NS_PER_US));
    struct config *fresh = NULL;
    if (read_config(d, &fresh) < 0) {
        log_error(0, "reload: refused, going on with the configuration as it was");
    } else {
        struct reload change = {.running = d->config, .fresh = fresh};
        config_diff(d->config, fresh, report_change, &change);
        log_info("reload: %u options differ from the start: %u in effect, %u wait for a restart",
                 change.live + change.waiting, change.live, change.waiting);
        log_set_level(config_options(fresh, log)->level);
        if (d->program->reload)
            d->program->reload(d->arg, fresh);
        pthread_mutex_lock(&d->lock);
        config_free(d->latest);
        d->latest = fresh;
        pthread_mutex_unlock(&d->lock);
    }
    sd_notify(0, "READY=1");
}

/* Serve the signals that are there. Returns true when it is time to stop. */
static bool take_signals(struct daemon *d)
{
    struct signalfd_siginfo info;
    bool stop = false;
    while (!stop && read(d->signal_fd, &info, sizeof(info)) == sizeof(info)) {
        if (info.ssi_signo == SIGHUP) {
            reload(d);
        } else {
            log_info("stopping: signal %s", sigabbrev_np((int)info.ssi_signo));
            stop = true;
        }
    }
    return stop;
}

static void set_phase(struct daemon *d, enum daemon_phase phase)
{
    pthread_mutex_lock(&d->lock);
    d->phase = phase;
    pthread_mutex_unlock(&d->lock);
}

/* Ping the service manager's watchdog as long as the program says it is well. */
static void feed_watchdog(struct daemon *d)
{
    int r = d->program->healthy ? d->program->healthy(d->arg) : 0;
    if (r == 0)
        sd_notify(0, "WATCHDOG=1");
    else
        log_error(r, "not healthy: leaving the watchdog unfed");
}

/* A second signal must be able to end a drain that hangs. */
static void let_signals_kill(void)
{
    sigset_t set;
    sigemptyset(&set);
    sigaddset(&set, SIGTERM);
    sigaddset(&set, SIGINT);
    pthread_sigmask(SIG_UNBLOCK, &set, NULL);
}

int daemon_run(struct daemon *d)
{
    uint64_t watchdog_us = 0;
    int timeout_ms = sd_watchdog_enabled(0, &watchdog_us) > 0 ? (int)(watchdog_us / 3000) : -1;
    set_phase(d, DAEMON_RUNNING);
    sd_notify(0, "READY=1");
    log_info("ready");

    struct pollfd fds[] = {{.fd = d->signal_fd, .events = POLLIN}, {.fd = d->stop_fd, .events = POLLIN}};
    for (bool stop = false; !stop;) {
        if (timeout_ms >= 0)
            feed_watchdog(d);
        if (poll(fds, array_size(fds), timeout_ms) < 0 && errno != EINTR) {
            log_error(-errno, "poll");
            daemon_fail(d);
        }
        if (fds[0].revents)
            stop = take_signals(d);
        if (fds[1].revents)
            stop = true;
    }
    sd_notify(0, "STOPPING=1");
    set_phase(d, DAEMON_STOPPING);
    let_signals_kill();
    return atomic_load(&d->failed) ? DAEMON_FAILED : DAEMON_OK;
}

void daemon_stop(struct daemon *d)
{
    uint64_t one = 1;
    ssize_t written = write(d->stop_fd, &one, sizeof(one)); /* it can only be full, and then it is set */
    (void)written;
}

void daemon_fail(struct daemon *d)
{
    atomic_store(&d->failed, true);
    daemon_stop(d);
}
