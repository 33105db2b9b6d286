/* SPDX-License-Identifier: Apache-2.0 */
/*
 * cv-journal: one Raft voter. Threads:
 *
 *      main         signals, service manager                        (conf/daemon.h)
 *      journal      the loop: master's link, timer, the core        (raft/journal_driver.h, raft/journal_link.h)
 *      log-writer   batches and syncs the log                       (raft/journal_writer.h)
 *      file threads of the loop, at most 4: reading old entries for a master that is far behind
 *      HTTP         metrics, health, status                         (conf/http.h)
 *      RocksDB's own: flush and compaction, two
 *
 * cv-journal format, join, check, dump, compare, rejoin, force-new-cluster are tools for its directory: raft/journal_tool.h.
 */
#include "bin/healthy.h"
#include <stdio.h>

#include "bin/sections.h"
#include "conf/daemon.h"
#include "raft/journal.h"
#include "raft/journal_tool.h"

static int is_ready(void *arg, char *why, size_t why_size)
{
    return journal_ready(arg, why, why_size);
}

static int write_status(void *arg, struct buf *out)
{
    return journal_status(arg, out);
}

static void reload(void *arg, const struct config *config)
{
    journal_reload(arg, config_options(config, journal));
}

static const struct option_section *const own_sections[] = {&cluster_section, &journal_section, &log_section, NULL};

static const struct daemon_program program = {
    .name = "cv-journal",
    .summary = "one voter of the replicated log",
    .sections = curvine_sections,
    .own = own_sections,
    .healthy = loops_turn,
    .arguments = "[COMMAND ...]",
    .commands = journal_tool_commands,
    .ready = is_ready,
    .status = write_status,
    .reload = reload,
};

static enum loop_backend backend(enum io_choice io)
{
    return io == IO_URING ? LOOP_URING : io == IO_EPOLL ? LOOP_EPOLL : LOOP_AUTO;
}

int main(int argc, char **argv)
{
    if (journal_tool_is(argc, argv))
        return journal_tool_main(argc, argv, curvine_sections);
    struct daemon *d cleanup(daemon_free_p) = NULL;
    int status = daemon_new(&program, argc, argv, &d);
    if (!d)
        return status;
    if (daemon_arguments(d)[0]) {
        fprintf(stderr, "cv-journal: unknown command '%s'\nTry: cv-journal --help\n", daemon_arguments(d)[0]);
        return DAEMON_USAGE;
    }
    const struct journal_options *o = config_options(daemon_config(d), journal);
    const struct cluster_options *cluster = config_options(daemon_config(d), cluster);
    struct journal_config config = {
        .options = o, .run_dir = cluster->run_dir, .io = backend(cluster->io), .metrics = daemon_metrics(d)};
    struct journal *j cleanup(journal_stop_p) = NULL;
    int r = journal_start(&config, &j);
    if (r < 0)
        return daemon_status_of(r);
    daemon_set_arg(d, j);
    if (daemon_http(d, o->http_listen, o->http_port) < 0)
        return DAEMON_FAILED;
    return daemon_run(d);
}
