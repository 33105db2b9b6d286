/* SPDX-License-Identifier: Apache-2.0 */
/*
 * cv-master. Its threads:
 *
 *      cv-master    main: signals, watchdog, starting and stopping
 *      net0..       network loops: requests in, answers out, reads, preparing mutations
 *      scribe       changes the namespace: executes, proposes, commits, applies
 *      writer       brings committed rows to the metadata database
 *      ufs          asks under file systems: preflights, listings
 *      keeper       makes the master anew on a state that came from another one, or when its disk has room again
 *      health       tells the journal every 100 ms that this process runs
 *      file threads of the loops (rows from disk), RocksDB's (flush, compaction), one of the HTTP port
 */
#include <getopt.h>
#include <stdio.h>
#include <string.h>

#include "base/error.h"
#include "base/uuid.h"
#include "bin/healthy.h"
#include "bin/sections.h"
#include "conf/daemon.h"
#include "conf/dir_lock.h"
#include "meta/master_abort.h"
#include "meta/master_dir.h"
#include "meta/master_keeper.h"

#define READY_WAIT_MS 3000 /* say READY when serving, if that is soon */

static int is_ready(void *arg, char *why, size_t why_size)
{
    return master_keeper_ready(arg, why, why_size);
}

static int status_page(void *arg, struct buf *out)
{
    return master_keeper_status_page(arg, out);
}

static void has_failed(void *arg, int error)
{
    daemon_fail(arg);
}

static const struct option_section *const own_sections[] = {&cluster_section, &master_section, &log_section, NULL};

static const char *commands(void)
{
    return "  cv-master format --cluster UUID|new [--dir DIR]\n"
           "      make an empty directory a master's; new: of a new cluster, whose id is printed\n"
           "  cv-master restore --cluster UUID --from BACKUP [--dir DIR]\n"
           "      the same with the names of a backup (cv restore does this and the journal's part)\n"
           "  cv-master rejoin [--yes UUID] [--dir DIR]\n"
           "      throw its state away: the journal beside it, a new member, brings another\n";
}

static const struct daemon_program program = {
    .name = "cv-master",
    .summary = "the namespace of a Curvine cluster",
    .sections = curvine_sections,
    .own = own_sections,
    .healthy = loops_turn,
    .arguments = "[COMMAND ...]",
    .commands = commands,
    .ready = is_ready,
    .status = status_page,
};

static int usage(void)
{
    fprintf(stderr, "usage: cv-master [options] [COMMAND ...], where there are\n%s", commands());
    return DAEMON_USAGE;
}

/* restore --cluster UUID --from BACKUP [--dir DIR]: the same with the names of a backup. Prints the log entry the journal
 * goes on behind. */
static int restore(const struct master_options *o, int count, char **arguments)
{
    static const struct option names[] = {{"cluster", required_argument, NULL, 'C'},
                                          {"from", required_argument, NULL, 'f'},
                                          {"dir", required_argument, NULL, 'd'},
                                          {0}};
    const char *dir = o->dir, *id = NULL, *from = NULL;
    optind = 0; /* begin anew: daemon_new() has used it */
    for (int c; (c = getopt_long(count, arguments, "d:", names, NULL)) != -1;) {
        if (c == '?')
            return usage();
        *(c == 'd' ? &dir : c == 'f' ? &from : &id) = optarg;
    }
    struct uuid cluster;
    if (arguments[optind] || !id || !from || uuid_parse(id, &cluster) < 0)
        return usage();
    struct buf why cleanup(buf_fini) = {0};
    uint64_t index = 0;
    int r = master_dir_restore(dir, cluster, from, &why, &index);
    if (r < 0) {
        fprintf(stderr, "cv-master: cannot restore '%s' from '%s': %.*s%s (%s)\n", dir, from, (int)why.n,
                why.n ? (const char *)why.p : "", cv_error_text(r), cv_error_name(r));
        return DAEMON_FAILED;
    }
    printf("%llu\n", (unsigned long long)index);
    return DAEMON_OK;
}

/* Make a data directory; "new" begins a cluster. Prints the cluster's id, for the other members. */
static int format(const struct master_options *o, int count, char **arguments)
{
    const char *dir = o->dir, *id;
    if (daemon_format_arguments(count, arguments, &id, &dir) < 0)
        return usage();
    struct uuid cluster = uuid_new();
    char text[UUID_STRING];
    if (strcmp(id, "new") != 0 && uuid_parse(id, &cluster) < 0) {
        fprintf(stderr, "cv-master: '%s' is not a cluster id such as %s\n", id, uuid_format(cluster, text));
        return DAEMON_USAGE;
    }
    int r = master_dir_format(dir, cluster);
    if (r < 0) {
        fprintf(stderr, "cv-master: cannot format '%s': %s (%s)%s\n", dir, cv_error_text(r), cv_error_name(r),
                r == -CV_LOCKED ? ": stop it first (systemctl stop cv-master)" : "");
        return DAEMON_FAILED;
    }
    printf("%s\n", uuid_format(cluster, text));
    return DAEMON_OK;
}

static bool confirmed(struct uuid cluster, const char *yes)
{
    char id[UUID_STRING], typed[128] = "";
    struct uuid u;
    uuid_format(cluster, id);
    if (!yes) {
        fprintf(stderr, "Type the id of the cluster to go on (%s): ", id);
        yes = fgets(typed, sizeof(typed), stdin) ? typed : "";
        typed[strcspn(typed, "\r\n")] = '\0';
    }
    if (uuid_parse(yes, &u) == 0 && uuid_equal(u, cluster))
        return true;
    fprintf(stderr, "\ncv-master: not confirmed, nothing was changed. Without a terminal: --yes %s\n", id);
    return false;
}

/* Throw this master's state away: it gets another one by its journal, which is a new member. */
static int rejoin(const struct master_options *o, int count, char **arguments)
{
    static const struct option names[] = {
        {"yes", required_argument, NULL, 'y'}, {"dir", required_argument, NULL, 'd'}, {0}};
    const char *dir = o->dir, *yes = NULL;
    int lock_fd cleanup(closep) = -1;
    pid_t holder = 0;
    struct uuid cluster;
    optind = 0;
    for (int c; (c = getopt_long(count, arguments, "d:y:", names, NULL)) != -1;) {
        if (c == '?')
            return usage();
        *(c == 'd' ? &dir : &yes) = optarg;
    }
    if (arguments[optind])
        return usage();
    if (dir_lock(dir, &lock_fd, &holder) == -CV_LOCKED) {
        fprintf(stderr, "cv-master: process %d works in %s: stop it first (systemctl stop cv-master)\n", (int)holder,
                dir);
        return DAEMON_FAILED;
    }
    closep(&lock_fd); /* for whom does it */
    int r = master_dir_cluster(dir, &cluster);
    if (r == 0) {
        fprintf(stderr,
                "%s: the namespace in it is thrown away. The others have it all if a majority of them runs (cv raft "
                "status says so);\notherwise it is LOST.\n",
                dir);
        if (!confirmed(cluster, yes))
            return DAEMON_FAILED;
        r = master_dir_rejoin(dir);
    }
    if (r < 0) {
        fprintf(stderr, "cv-master: cannot rejoin with '%s': %s (%s)%s\n", dir, cv_error_text(r), cv_error_name(r),
                r == -CV_LOCKED ? ": stop it first (systemctl stop cv-master)" : "");
        return DAEMON_FAILED;
    }
    printf("%s: empty, filled by the journal beside it when that is a member (cv raft add, replace)\n", dir);
    return DAEMON_OK;
}

int main(int argc, char **argv)
{
    struct daemon *d cleanup(daemon_free_p) = NULL;
    int status = daemon_new(&program, argc, argv, &d);
    if (!d)
        return status;
    const struct master_options *o = config_options(daemon_config(d), master);
    char **arguments = daemon_arguments(d);
    if (arguments[0])
        return (strcmp(arguments[0], "restore") == 0  ? restore
                : strcmp(arguments[0], "rejoin") == 0 ? rejoin
                                                      : format)(o, (int)(argv + argc - arguments), arguments);

    struct master_config config = {
        .options = o,
        .cluster = config_options(daemon_config(d), cluster),
        .metrics = daemon_metrics(d),
        .failed = has_failed,
        .arg = d,
    };
    master_abort_explain(o->dir);
    struct master_keeper *m cleanup(master_keeper_free_p) = NULL;
    int r = master_keeper_new(&config, &m);
    if (r < 0)
        return daemon_status_of(r);
    daemon_set_arg(d, m);
    if (master_keeper_start(m) < 0 || daemon_http(d, o->http_listen, o->http_port) < 0)
        return DAEMON_FAILED;
    master_keeper_wait_ready(m, READY_WAIT_MS);
    status = daemon_run(d);
    master_keeper_stop(m);
    return status;
}
