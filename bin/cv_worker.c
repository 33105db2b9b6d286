/* SPDX-License-Identifier: Apache-2.0 */
/*
 * cv-worker. Its threads:
 *
 *      cv-worker    main: signals, watchdog, starting and stopping
 *      net0..       network loops: requests in, answers out, what is in memory and page cache
 *      back         the master's and the under file systems' connections; fills
 *      keeper       housekeeping of the block store, each second
 *      file threads of the loops (what may block in the store), RocksDB's (flush, compaction), one of the HTTP port
 */
#include <stdio.h>
#include <string.h>

#include "base/error.h"
#include "base/uuid.h"
#include "bin/healthy.h"
#include "bin/sections.h"
#include "conf/daemon.h"
#include "worker/worker_daemon.h"
#include "worker/worker_dir.h"

static int is_ready(void *arg, char *why, size_t why_size)
{
    return worker_ready(arg, why, why_size);
}

static int status_page(void *arg, struct buf *out)
{
    return worker_status_page(arg, out);
}

static const struct option_section *const own_sections[] = {&cluster_section, &worker_section, &log_section, NULL};

static const struct daemon_program program = {
    .name = "cv-worker",
    .summary = "the data cached on this host",
    .sections = curvine_sections,
    .own = own_sections,
    .healthy = loops_turn,
    .arguments = "[format --cluster UUID [--dir DIR]]",
    .ready = is_ready,
    .status = status_page,
};

static int usage(void)
{
    fprintf(stderr, "usage: cv-worker [OPTIONS] [format --cluster UUID [--dir [KIND:SIZE]DIR]]\n");
    return DAEMON_USAGE;
}

/* Make a data directory of a worker of this cluster. Prints the worker's id. */
static int format(const struct worker_options *o, int count, char **arguments)
{
    const char *dir = NULL, *id;
    if (daemon_format_arguments(count, arguments, &id, &dir) < 0)
        return usage();
    struct uuid cluster;
    struct worker_dir d;
    uint64_t worker;
    if (uuid_parse(id, &cluster) < 0) {
        fprintf(stderr, "cv-worker: '%s' is not a cluster id\n", id);
        return DAEMON_USAGE;
    }
    if (worker_dir_choose(o, dir, &d) < 0)
        return DAEMON_FAILED;
    int r = worker_dir_format(&d, cluster, &worker);
    if (r < 0) {
        fprintf(stderr, "cv-worker: cannot format '%s': %s (%s)\n", d.path, cv_error_text(r), cv_error_name(r));
        return DAEMON_FAILED;
    }
    printf("%016llx\n", (unsigned long long)worker);
    return DAEMON_OK;
}

int main(int argc, char **argv)
{
    struct daemon *d cleanup(daemon_free_p) = NULL;
    int status = daemon_new(&program, argc, argv, &d);
    if (!d)
        return status;
    const struct worker_options *o = config_options(daemon_config(d), worker);
    char **arguments = daemon_arguments(d);
    if (arguments[0])
        return format(o, (int)(argv + argc - arguments), arguments);

    struct worker_config config = {
        .options = o,
        .cluster = config_options(daemon_config(d), cluster),
        .metrics = daemon_metrics(d),
    };
    struct worker *w cleanup(worker_free_p) = NULL;
    int r = worker_new(&config, &w);
    if (r < 0)
        return daemon_status_of(r);
    daemon_set_arg(d, w);
    if (worker_start(w) < 0 || daemon_http(d, o->http_listen, o->http_port) < 0)
        return DAEMON_FAILED;
    status = daemon_run(d);
    worker_stop(w);
    return status;
}
