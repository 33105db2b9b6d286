/* SPDX-License-Identifier: Apache-2.0 */
/*
 * cv cluster init: give the daemons that are installed on this host their data directories, of one cluster. The formats
 * run as the user of the services. Its id is in /var/lib/curvine/cluster-id before anything is formatted, so that the
 * command may be run again: after a failure, and for a daemon that was installed later.
 */
#include <errno.h>
#include <pwd.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/error.h"
#include "base/uuid.h"
#include "cli/host.h"
#include "cli/process.h"

#define ID_FILE "/var/lib/curvine/cluster-id"
#define USER    "curvine"

struct plan {
    const char *peers, *self, *cluster;
    bool single;
    char id[UUID_STRING];
    const struct passwd *user; /* NULL: we are not root, or there is no such user: formats run as who we are */
};

static int read_id(char id[UUID_STRING])
{
    struct uuid u;
    FILE *f = fopen(ID_FILE, "re");
    if (!f)
        return -errno;
    int r = fscanf(f, "%36s", id) == 1 && uuid_parse(id, &u) == 0 ? 0 : -EINVAL;
    fclose(f);
    return r;
}

static int write_id(const struct plan *p)
{
    FILE *f = fopen(ID_FILE ".new", "we");
    if (!f)
        return -errno;
    fprintf(f, "%s\n", p->id);
    int r = ferror(f) || fflush(f) != 0 || fsync(fileno(f)) < 0 ? -EIO : 0;
    fclose(f);
    return r == 0 && rename(ID_FILE ".new", ID_FILE) < 0 ? -errno : r;
}

/* Which cluster: as told, as begun here before, or a new one. */
static int choose_id(struct cli *cli, struct plan *p)
{
    char known[UUID_STRING];
    struct uuid u;
    int r = read_id(known);
    if (p->cluster && uuid_parse(p->cluster, &u) < 0)
        return cli_usage(cli, "--cluster-id %s: expected an id such as cv cluster init prints", p->cluster);
    if (r == 0 && p->cluster && strcmp(known, p->cluster) != 0)
        return cli_usage(cli, "this host belongs to cluster %s already (" ID_FILE ")", known);
    if (r < 0 && r != -ENOENT)
        return cli_fail(cli, r, NULL, "read '" ID_FILE "'");
    if (r == 0)
        memcpy(p->id, known, sizeof(p->id));
    else if (p->cluster)
        snprintf(p->id, sizeof(p->id), "%s", p->cluster);
    else
        uuid_format(uuid_new(), p->id);
    r = r == 0 ? 0 : write_id(p);
    return r < 0 ? cli_fail(cli, r, "be root: sudo cv cluster init", "write '" ID_FILE "'") : CLI_OK;
}

/* A directory that is not there yet is made for the services' user, with those above it. */
static int make_dir(const struct plan *p, const char *dir)
{
    char part[4096];
    struct stat st;
    if (stat(dir, &st) == 0 && !(p->user && st.st_uid == 0))
        return 0; /* somebody's: the format finds out whether it may */
    for (const char *c = dir + 1;; c++)
        if (*c == '/' || !*c) {
            snprintf(part, sizeof(part), "%.*s", (int)(c - dir), dir);
            if (mkdir(part, *c ? 0755 : 0700) < 0 && errno != EEXIST)
                return -errno;
            if (!*c)
                break;
        }
    return p->user && chown(dir, p->user->pw_uid, p->user->pw_gid) < 0 ? -errno : 0;
}

static int format(struct cli *cli, const struct plan *p, const struct host_daemon *d)
{
    const char *argv[24], *config = cli_config_path(cli);
    char path[4096];
    unsigned n = 0;
    bool journal = strcmp(d->name, "journal") == 0;
    int r = make_dir(p, d->dir);
    if (r < 0)
        return cli_fail(cli, r, "be root: sudo cv cluster init", "make '%s'", d->dir);
    process_path(d->program, path, sizeof(path));
    if (p->user) {
        const char *const as[] = {"runuser", "-u", USER, "--", path};
        for (size_t i = 0; i < array_size(as); i++)
            argv[n++] = as[i];
    } else {
        argv[n++] = path;
    }
    if (journal)
        argv[n++] = "format";
    if (config) {
        argv[n++] = "--config";
        argv[n++] = config;
    }
    if (!journal)
        argv[n++] = "format";
    argv[n++] = "--cluster";
    argv[n++] = p->id;
    if (journal && p->peers) {
        argv[n++] = "--peers";
        argv[n++] = p->peers;
    }
    if (journal && p->self) {
        argv[n++] = "--self";
        argv[n++] = p->self;
    }
    if (journal && p->single)
        argv[n++] = "--single";
    argv[n] = NULL;
    r = process_run(argv);
    if (r < 0)
        return cli_fail(cli, r, NULL, "format '%s' for %s", d->dir, d->program);
    fprintf(stderr, "%-10s  %s: formatted\n", d->program, d->dir);
    return CLI_OK;
}

static int init(struct cli *cli, struct plan *p)
{
    struct host_daemon daemons[HOST_DAEMONS];
    int status = host_look(cli, daemons);
    if (status != CLI_OK)
        return status;
    if (!host_is_one(cli, daemons)) {
        fprintf(stderr,
                "cv cluster init: no daemon is installed on this host\n"
                "  try: apt install curvine-journal curvine-master curvine-worker; without packages: cv local up\n");
        return CLI_FAILED;
    }
    if (daemons[0].state == HOST_UNFORMATTED && p->single == (p->peers != NULL))
        return cli_usage(cli, "a journal begins with --single (this host alone) or --peers A:8996,B:8996,C:8996 (the "
                              "same on each of them)");
    p->user = geteuid() == 0 ? getpwnam(USER) : NULL;
    status = choose_id(cli, p);
    for (size_t i = 0; status == CLI_OK && i < HOST_DAEMONS; i++) {
        if (daemons[i].state == HOST_UNFORMATTED)
            status = format(cli, p, &daemons[i]);
        else if (daemons[i].state != HOST_ABSENT)
            fprintf(stderr, "%-10s  %s: %s, left alone\n", daemons[i].program, daemons[i].dir,
                    host_state_name(daemons[i].state));
    }
    if (status != CLI_OK)
        return status;
    printf("cluster %s\n", p->id);
    if (p->peers)
        fprintf(stderr, "on the other hosts: cv cluster init --cluster-id %s --peers %s\n", p->id, p->peers);
    fprintf(stderr, "next: systemctl enable --now curvine.target");
    for (size_t i = 0; i < HOST_DAEMONS; i++)
        if (daemons[i].state == HOST_UNFORMATTED || daemons[i].state == HOST_STOPPED)
            fprintf(stderr, " %s", daemons[i].program);
    fprintf(stderr, "\n");
    return CLI_OK;
}

int cmd_cluster_init(struct cli *cli, int argc, char **argv)
{
    static const struct option options[] = {{"single", no_argument, NULL, '1'},
                                            {"peers", required_argument, NULL, 'p'},
                                            {"self", required_argument, NULL, 'S'},
                                            {"cluster-id", required_argument, NULL, 'I'},
                                            {0}};
    struct plan p = {0};
    for (int c; (c = cli_option(cli, argc, argv, "", options)) != -1;)
        switch (c) {
        case '1': p.single = true; break;
        case 'p': p.peers = optarg; break;
        case 'S': p.self = optarg; break;
        case 'I': p.cluster = optarg; break;
        default: return cli_option_status();
        }
    if (argc != optind)
        return cli_usage(cli, "takes no arguments");
    return init(cli, &p);
}
