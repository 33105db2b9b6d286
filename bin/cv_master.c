/* SPDX-License-Identifier: Apache-2.0 */
/*
 * cv-master. Its threads:
 *
 *      cv-master    main: signals, watchdog, starting and stopping
 *      net0..       network loops: requests in, answers out, reads, preparing mutations
 *      scribe       changes the namespace: executes, proposes, commits, applies
 *      writer       brings committed rows to the metadata database
 *      health       tells the journal every 100 ms that this process runs
 *      file threads of the loops (rows from disk), RocksDB's (flush, compaction), one of the HTTP port
 */
#include <stdio.h>
#include <string.h>

#include "base/error.h"
#include "base/uuid.h"
#include "bin/sections.h"
#include "conf/daemon.h"
#include "meta/master_daemon.h"
#include "meta/master_dir.h"

#define READY_WAIT_MS 3000 /* say READY when serving, if that is soon */

static int is_ready(void *arg, char *why, size_t why_size)
{
    return master_ready(arg, why, why_size);
}

static int status_page(void *arg, struct buf *out)
{
    return master_status_page(arg, out);
}

static void has_failed(void *arg, int error)
{
    daemon_fail(arg);
}

static const struct option_section *const own_sections[] = {&cluster_section, &master_section, &log_section, NULL};

static const struct daemon_program program = {
    .name = "cv-master",
    .summary = "the namespace of a Curvine cluster",
    .sections = curvine_sections,
    .own = own_sections,
    .arguments = "[format [CLUSTER-ID]]",
    .ready = is_ready,
    .status = status_page,
};

/* cv-master format [CLUSTER-ID]: without an id a new cluster begins. */
static int format(const struct master_options *o, char **arguments)
{
    struct uuid cluster = uuid_new();
    char text[UUID_STRING];
    if (strcmp(arguments[0], "format") != 0 || (arguments[1] && arguments[2])) {
        fprintf(stderr, "usage: cv-master [OPTIONS] [format [CLUSTER-ID]]\n");
        return DAEMON_USAGE;
    }
    if (arguments[1] && uuid_parse(arguments[1], &cluster) < 0) {
        fprintf(stderr, "cv-master: '%s' is not a cluster id such as %s\n", arguments[1], uuid_format(cluster, text));
        return DAEMON_USAGE;
    }
    int r = master_dir_format(o->dir, cluster);
    if (r < 0) {
        fprintf(stderr, "cv-master: cannot format '%s': %s (%s)\n", o->dir, cv_error_text(r), cv_error_name(r));
        return DAEMON_FAILED;
    }
    printf("%s\n", uuid_format(cluster, text));
    return DAEMON_OK;
}

int main(int argc, char **argv)
{
    struct daemon *d cleanup(daemon_free_p) = NULL;
    int status = daemon_new(&program, argc, argv, &d);
    if (!d)
        return status;
    const struct master_options *o = config_options(daemon_config(d), master);
    if (daemon_arguments(d)[0])
        return format(o, daemon_arguments(d));

    struct master_config config = {
        .options = o,
        .cluster = config_options(daemon_config(d), cluster),
        .metrics = daemon_metrics(d),
        .failed = has_failed,
        .arg = d,
    };
    struct master *m cleanup(master_free_p) = NULL;
    if (master_new(&config, &m) < 0)
        return DAEMON_FAILED;
    daemon_set_arg(d, m);
    if (master_start(m) < 0 || daemon_http(d, o->http_listen, o->http_port) < 0)
        return DAEMON_FAILED;
    master_wait_ready(m, READY_WAIT_MS);
    status = daemon_run(d);
    master_stop(m);
    return status;
}
