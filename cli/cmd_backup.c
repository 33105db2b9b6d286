/* SPDX-License-Identifier: Apache-2.0 */
/*
 * cv backup, cv restore: the namespace as a directory of files with checksums, from a running cluster; and a new cluster
 * with the names of a backup.
 */
#include <dirent.h>
#include <errno.h>
#include <inttypes.h>
#include <jansson.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/clock.h"
#include "base/error.h"
#include "base/random.h"
#include "cli/connect.h"
#include "cli/process.h"
#include "cli/progress.h"
#include "cli/raft_view.h"
#include "conf/common_options.h"
#include "wire/manifest.h"

#define BACKUP_MS (10u * 60 * 1000)
#define SETS_MAX  32 /* --set given on, to who formats the log */

/* 0: not there, or nothing is in it. Errors: -ENOTEMPTY; errno. */
static int check_empty(const char *dir)
{
    DIR *d = opendir(dir);
    if (!d)
        return errno == ENOENT ? 0 : -errno;
    int r = 0;
    for (struct dirent *e; r == 0 && (e = readdir(d));)
        if (strcmp(e->d_name, ".") != 0 && strcmp(e->d_name, "..") != 0 && strcmp(e->d_name, "lost+found") != 0)
            r = -ENOTEMPTY;
    closedir(d);
    return r;
}

static struct out *describe(const char *dir, const struct manifest *m, const char *master)
{
    static const struct out_column columns[] = {{"directory", OUT_TEXT}, {"cluster", OUT_TEXT}, {"entry", OUT_NUMBER},
                                                {"made", OUT_TIME},      {"files", OUT_NUMBER}, {"bytes", OUT_SIZE},
                                                {"master", OUT_TEXT}};
    char cluster[UUID_STRING];
    struct out *o = out_record(columns, array_size(columns));
    out_text(o, dir);
    out_text(o, uuid_format(m->cluster, cluster));
    out_number(o, m->index);
    out_number(o, m->created_ns);
    out_number(o, m->file_count);
    out_number(o, manifest_bytes(m));
    out_text(o, master);
    return o;
}

/* ---- backup -------------------------------------------------------------------------------------------------------------- */

/* A checkpoint that a master on this host made for us. */
struct checkpoint {
    struct raft_view *view;
    uint32_t master;
    uint64_t id;
    char host[256], directory[4300];
};

static int ask(struct checkpoint *c, const char *command, struct buf *text)
{
    struct msg_raft_admin m = {
        .head = cli_head(), .command = text_of(command), .node = c->id, .address = text_of(c->host)};
    return raft_view_ask(c->view, c->master, &m, clock_ns() + BACKUP_MS * NS_PER_MS, text);
}

static void checkpoint_end(struct checkpoint *c)
{
    struct buf text cleanup(buf_fini) = {0};
    if (c->directory[0])
        (void)ask(c, "backup-end", &text);
    if (c->view)
        raft_view_close(c->view);
}

/* One master: 0, or why not, in words too. */
static int try_master(struct checkpoint *c, uint32_t master, struct buf *why)
{
    struct buf text cleanup(buf_fini) = {0};
    c->master = master;
    int r = ask(c, "backup", &text);
    json_t *said = r == 0 ? json_loads((const char *)text.p, 0, NULL) : NULL;
    const char *directory = json_string_value(json_object_get(said, "directory"));
    if (directory)
        snprintf(c->directory, sizeof(c->directory), "%s", directory);
    else
        (void)buf_printf(why, "%s%s: %s", why->n ? "; " : "", c->view->masters[master].address,
                         r == -EXDEV || !text.n || text.p[0] == 0 ? cv_error_text(r < 0 ? r : -CV_BAD_MESSAGE)
                                                                  : (const char *)text.p);
    json_decref(said);
    return r < 0 ? r : directory ? 0 : -CV_BAD_MESSAGE;
}

/* Followers first: they have time. */
static int find_master(struct checkpoint *c, struct buf *why)
{
    int r = raft_view_look(c->view, clock_ns() + 5000 * NS_PER_MS), worst = r < 0 ? r : -CV_UNREACHABLE;
    for (int leads = 0; leads < 2; leads++) {
        for (uint32_t i = 0; i < c->view->master_count; i++) {
            bool is_leader = c->view->leader && i == c->view->leader_master;
            if (is_leader != (leads == 1))
                continue;
            r = try_master(c, i, why);
            if (r == 0)
                return 0;
            if (r != -CV_UNREACHABLE)
                worst = r;
        }
    }
    return worst;
}

static void copied(void *arg, uint64_t bytes)
{
    progress_add(arg, 0, bytes);
}

static int copy(struct cli *cli, const char *from, const char *to, const struct manifest *m)
{
    struct progress p;
    const char *bad = "";
    progress_start(&p, cli, "copied", stderr);
    progress_expect(&p, m->file_count, manifest_bytes(m));
    progress_counted(&p);
    int r = manifest_copy(from, to, m, copied, &p, &bad);
    if (r < 0)
        progress_fail(&p, r, bad, NULL);
    else
        progress_add(&p, m->file_count, 0);
    (void)progress_end(&p);
    return r;
}

int cmd_backup(struct cli *cli, int argc, char **argv)
{
    static const struct option options[] = {{"dry-run", no_argument, NULL, 'n'}, {0}};
    bool dry_run = false;
    for (int o; (o = cli_option(cli, argc, argv, "n", options)) != -1;) {
        if (o != 'n')
            return cli_option_status();
        dry_run = true;
    }
    if (argc - optind != 1 || argv[optind][0] == ':')
        return cli_usage(cli, "needs the local directory the backup goes to");
    const char *to = argv[optind];
    int r = check_empty(to);
    if (r < 0)
        return cli_fail(cli, r, "choose a directory that is empty or not there yet", "back up to '%s'", to);
    struct checkpoint c cleanup(checkpoint_end) = {.id = random_u64() | 1};
    (void)gethostname(c.host, sizeof(c.host) - 1);
    int status = raft_view_open(cli, &c.view);
    if (status != CLI_OK)
        return status;
    struct buf why cleanup(buf_fini) = {0};
    r = find_master(&c, &why);
    if (r < 0)
        return cli_fail(cli, r, "run it on the host of a master, as root or the user the master runs as",
                        "back up: no master made a checkpoint here (%.*s)", (int)why.n, (const char *)why.p);
    struct manifest m cleanup(manifest_fini) = {.id = 0};
    r = manifest_read(c.directory, &m);
    if (r == 0 && dry_run)
        return cli_print(cli, describe(to, &m, c.view->masters[c.master].address));
    if (r == 0 && mkdir(to, 0700) < 0 && errno != EEXIST)
        return cli_fail(cli, -errno, "the directory it shall be in must be there: mkdir -p", "make '%s'", to);
    if (r == 0)
        r = copy(cli, c.directory, to, &m);
    if (r < 0)
        return cli_fail(cli, r, "what is in it is no backup: remove it", "back up '%s' to '%s'", c.directory, to);
    return cli_print(cli, describe(to, &m, c.view->masters[c.master].address));
}

/* ---- restore ------------------------------------------------------------------------------------------------------------- */

/* Directories of the new cluster's first node, as the configuration says. */
struct node_dirs {
    char master[4100], journal[4100];
};

static int found_node(struct cli *cli, const char *from, const struct node_dirs *d, const char *cluster,
                      const struct manifest *m, const char *self)
{
    char master[4100], journal[4100], behind[24], incarnation[16];
    process_path("cv-master", master, sizeof(master));
    process_path("cv-journal", journal, sizeof(journal));
    snprintf(behind, sizeof(behind), "%" PRIu64, m->index);
    snprintf(incarnation, sizeof(incarnation), "%u", max(m->incarnation, 1u)); /* not before the state's */
    const char *config = cli_config_path(cli);
    const char *restore[] = {master,   "--set", "log.level=warn", "restore", "--cluster", cluster,
                             "--from", from,    "--dir",          d->master, NULL};
    const char *format[SETS_MAX * 2 + 16] = {journal, "format", "--cluster", cluster,         "--single", "--behind",
                                             behind,  "--dir",  d->journal,  "--incarnation", incarnation};
    uint32_t n = 11;
    if (config) {
        format[n++] = "--config";
        format[n++] = config;
    }
    if (self) {
        format[n++] = "--self";
        format[n++] = self;
    }
    for (uint32_t i = 0; i < min(cli->n_sets, (uint32_t)SETS_MAX); i++) {
        format[n++] = "--set";
        format[n++] = cli->sets[i];
    }
    int r = process_run(restore);
    return r < 0 ? r : process_run(format);
}

/* Where to, and what; both are as they must be. Returns CLI_OK, or reports. */
static int check_restore(struct cli *cli, const char *from, struct node_dirs *d, struct manifest *m)
{
    const struct config *config;
    const char *bad = MANIFEST_FILE;
    if (cli_config(cli, &config) < 0)
        return CLI_USAGE;
    int r = config_text(config, "master", "dir", d->master, sizeof(d->master));
    if (r == 0)
        r = config_text(config, "journal", "dir", d->journal, sizeof(d->journal));
    if (r == 0)
        r = manifest_read(from, m);
    if (r == 0)
        r = manifest_verify(from, m, &bad);
    if (r < 0)
        return cli_fail(cli, r, "take another backup; nothing was changed", "read the backup: %s/%s", from, bad);
    const char *const dirs[] = {d->master, d->journal};
    for (size_t i = 0; i < array_size(dirs); i++) {
        r = check_empty(dirs[i]);
        if (r < 0)
            return cli_fail(cli, r,
                            "restore makes a new cluster, in empty directories: move these away, or name others "
                            "(--set master.dir=..., --set journal.dir=...)",
                            "restore into '%s'", dirs[i]);
    }
    return CLI_OK;
}

/* cluster: the new one; NULL: a dry run. */
static struct out *describe_restored(const char *cluster, const struct manifest *m, const struct node_dirs *d)
{
    static const struct out_column columns[] = {
        {"cluster", OUT_TEXT}, {"entry", OUT_NUMBER},    {"bytes", OUT_SIZE},       {"of_cluster", OUT_TEXT},
        {"made", OUT_TIME},    {"master_dir", OUT_TEXT}, {"journal_dir", OUT_TEXT}, {"next", OUT_TEXT}};
    char old[UUID_STRING];
    struct out *o = out_record(columns, array_size(columns));
    out_text(o, cluster);
    out_number(o, m->index);
    out_number(o, manifest_bytes(m));
    out_text(o, uuid_format(m->cluster, old));
    out_number(o, m->created_ns);
    out_text(o, d->master);
    out_text(o, d->journal);
    out_text(o, cluster ? "start cv-journal and cv-master here, then cv raft add the others"
                        : "nothing was changed: without --dry-run this is done");
    return o;
}

int cmd_restore(struct cli *cli, int argc, char **argv)
{
    static const struct option options[] = {
        {"dry-run", no_argument, NULL, 'n'}, {"self", required_argument, NULL, 'S'}, {0}};
    bool dry_run = false;
    const char *self = NULL;
    for (int o; (o = cli_option(cli, argc, argv, "n", options)) != -1;)
        switch (o) {
        case 'n': dry_run = true; break;
        case 'S': self = optarg; break;
        default: return cli_option_status();
        }
    if (argc - optind != 1)
        return cli_usage(cli, "needs the directory of a backup");
    const char *colon = self ? strrchr(self, ':') : NULL;
    unsigned long port = colon ? strtoul(colon + 1, NULL, 10) : 0;
    if (self && (!colon || colon == self || port == 0 || port > 65535))
        return cli_usage(cli, "--self '%s': expected host:port, where others will reach this host's journal", self);
    struct node_dirs d;
    struct manifest m cleanup(manifest_fini) = {.id = 0};
    int status = check_restore(cli, argv[optind], &d, &m);
    if (status != CLI_OK)
        return status;
    char cluster[UUID_STRING];
    uuid_format(uuid_new(), cluster);
    int r = dry_run ? 0 : found_node(cli, argv[optind], &d, cluster, &m, self);
    if (r == -ECHILD) {
        fprintf(stderr,
                "cv restore: the tool above failed, and what is in '%s' and '%s' is no cluster\n"
                "  try: mend that, remove both, and type this again\n",
                d.master, d.journal);
        return CLI_FAILED;
    }
    if (r < 0)
        return cli_fail(cli, r, "remove what is in both directories and try again", "restore into '%s' and '%s'",
                        d.master, d.journal);
    return cli_print(cli, describe_restored(dry_run ? NULL : cluster, &m, &d));
}
