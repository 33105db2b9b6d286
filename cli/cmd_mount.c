/* SPDX-License-Identifier: Apache-2.0 */
/*
 * cv mount: which of three it is follows from the forms of its arguments (design section 10).
 *
 *      cv mount s3://b :/data        attach: the bucket's names appear in the namespace, for all hosts
 *      cv mount :/data /mnt/d        mount: the namespace appears on this host
 *      cv mount s3://b /mnt/d        both, under a name taken from the bucket
 *      cv mount --ack-mode M :/data  change what is attached
 *      cv mount                      list both kinds
 */
#include <errno.h>
#include <stdio.h>
#include <string.h>

#include "base/error.h"
#include "cli/connect.h"
#include "cli/mount.h"
#include "cli/mounts.h"
#include "wire/meta_flags.h"

/* ---- list ----------------------------------------------------------------------------------------------------------------- */

static int list_attached(struct cli *cli, struct out *o)
{
    struct curvine *cv cleanup(curvine_closep) = NULL;
    struct buf body cleanup(buf_fini) = {0};
    struct msg_mount_list_answer list;
    int status = cli_connect(cli, &cv);
    if (status != CLI_OK)
        return status;
    int r = cli_mount_list(cv, &body, &list);
    if (r < 0)
        return cli_fail(cli, r, NULL, "list what is attached");
    rec_for_each (mount, m, &list.mounts) {
        char path[4096], mode[32];
        snprintf(path, sizeof(path), ":" TEXT_FMT, TEXT_ARG(m.path));
        snprintf(mode, sizeof(mode), "%s%s", mount_mode_name(m.mode),
                 m.mode == MOUNT_CACHE && !(m.flags & MOUNT_WRITABLE) ? ", read-only" : "");
        out_text(o, "attached");
        out_text(o, path);
        out_text_of(o, m.uri.n ? m.uri : TEXT("-"));
        out_text(o, mode);
        out_text(o, mount_ack_name(m.ack_mode));
        if (m.failed.n)
            out_text_of(o, m.failed);
        else
            out_text(o, "ok");
        out_colour(o, m.failed.n ? OUT_BAD : OUT_GOOD);
        out_text(o, NULL);
    }
    return CLI_OK;
}

static int add_mounted(const struct host_mount *m, void *arg)
{
    struct out *o = arg;
    char path[4096];
    if (!m->ours)
        return 0;
    pid_t pid = mounts_server(m->point, path, NULL, sizeof(path));
    const char *colon = strchr(m->source, ':');
    out_text(o, "mounted");
    out_text(o, path[0] ? path : colon ? colon : "?");
    out_text(o, m->point);
    out_text(o, m->options);
    out_text(o, NULL);
    out_text(o, pid ? "ok" : "dead: nobody serves it; cv umount --lazy DIR");
    out_colour(o, pid ? OUT_GOOD : OUT_BAD);
    if (pid)
        out_number(o, (uint64_t)pid);
    else
        out_text(o, NULL);
    return 0;
}

static int list_mounts(struct cli *cli)
{
    static const struct out_column columns[] = {
        {"kind", OUT_TEXT},
        {"path", OUT_TEXT},
        {"where", OUT_TEXT},
        {"mode", OUT_TEXT},
        {"ack_mode", OUT_TEXT},
        {"state", OUT_TEXT},
        {"pid", OUT_NUMBER, .wide = true},
    };
    struct out *o = out_table(columns, array_size(columns));
    int attached = list_attached(cli, o); /* without a master what is mounted here is still shown */
    if (attached == CLI_USAGE) {
        out_free(o);
        return attached;
    }
    mounts_each(add_mounted, o);
    int status = cli_print(cli, o);
    return status != CLI_OK ? status : attached;
}

/* ---- attach, mount ------------------------------------------------------------------------------------------------------------ */

enum { OPTION_PARAM_FILE = 1, OPTION_CHECK, OPTION_OVER, OPTION_ALLOW_OTHER };
#define SETTINGS_MAX 64

struct wish {
    const char *uri, *path, *point; /* NULL: not given */
    const char *settings[SETTINGS_MAX], *file;
    unsigned n_settings;
    bool check, over, allow_other, mode_given, ack_given;
    uint8_t mode, ack;
};

static int parse_mode(const char *name, uint8_t *ret)
{
    for (int mode = MOUNT_CACHE; mode <= MOUNT_SCRATCH; mode++)
        if (strcmp(mount_mode_name((uint8_t)mode), name) == 0) {
            *ret = (uint8_t)mode;
            return 0;
        }
    return -EINVAL;
}

static int parse_ack(const char *name, uint8_t *ret)
{
    for (int ack = MOUNT_ACK_CLUSTER; ack <= MOUNT_ACK_APPLIED; ack++)
        if (strcmp(mount_ack_name((uint8_t)ack), name) == 0) {
            *ret = (uint8_t)ack;
            return 0;
        }
    return -EINVAL;
}

/* Sort the arguments by their form. */
static int parse_arguments(struct cli *cli, int n, char **arguments, struct wish *w)
{
    if (n > 2)
        return cli_usage(cli, "takes what to mount and where: two arguments");
    for (int i = 0; i < n; i++) {
        const char *a = arguments[i], **to = &w->point;
        if (strstr(a, "://") && a[0] != ':' && a[0] != '/')
            to = &w->uri;
        else if (a[0] == ':' && a[1] == '/')
            to = &w->path;
        else if (a[0] == ':')
            return cli_usage(cli, "'%s' is no namespace path: expected e.g. :/data", a);
        if (*to || (to == &w->uri && i > 0))
            return cli_usage(cli, "'%s %s': expected URI :/PATH, :/PATH DIR or URI DIR", arguments[0], arguments[1]);
        *to = a;
    }
    if (n == 2 && w->point == arguments[0])
        return cli_usage(cli, "'%s' is a local directory; to attach it: cv mount file://%s %s", w->point,
                         w->point[0] == '/' ? w->point : "/…", w->path ? w->path : ":/NAME");
    if (n == 1 && w->path && w->mode != MOUNT_SCRATCH && !w->ack_given)
        return cli_usage(cli, "where shall :%s go? cv mount %s DIR, or cv mount --mode scratch %s", w->path + 1,
                         w->path, w->path);
    if (n == 1 && w->path == NULL)
        return cli_usage(cli, "'%s' where? :/PATH attaches, DIR attaches and mounts", arguments[0]);
    return CLI_OK;
}

static int parse_options(struct cli *cli, int argc, char **argv, struct wish *w)
{
    static const struct option options[] = {
        {"mode", required_argument, NULL, 'm'},
        {"ack-mode", required_argument, NULL, 'a'},
        {"param", required_argument, NULL, 'p'},
        {"param-file", required_argument, NULL, OPTION_PARAM_FILE},
        {"check", no_argument, NULL, OPTION_CHECK},
        {"over", no_argument, NULL, OPTION_OVER},
        {"allow-other", no_argument, NULL, OPTION_ALLOW_OTHER},
        {0},
    };
    w->mode = MOUNT_CACHE;
    for (int c; (c = cli_option(cli, argc, argv, "a:m:p:", options)) != -1;)
        switch (c) {
        case 'm':
            w->mode_given = true;
            if (parse_mode(optarg, &w->mode) < 0)
                return cli_usage(cli, "--mode %s: expected cache, fs or scratch", optarg);
            break;
        case 'a':
            w->ack_given = true;
            if (parse_ack(optarg, &w->ack) < 0)
                return cli_usage(cli, "--ack-mode %s: expected quorum, local, applied or cluster", optarg);
            break;
        case 'p':
            if (w->n_settings == SETTINGS_MAX)
                return cli_usage(cli, "too many --param");
            w->settings[w->n_settings++] = optarg;
            break;
        case OPTION_PARAM_FILE: w->file = optarg; break;
        case OPTION_CHECK: w->check = true; break;
        case OPTION_OVER: w->over = true; break;
        case OPTION_ALLOW_OTHER: w->allow_other = true; break;
        default: return cli_option_status() == CLI_OK ? -1 : cli_option_status();
        }
    return CLI_OK;
}

/* Everything that can be known without asking anybody. */
static int fill_attachment(struct cli *cli, struct wish *w, struct attachment *a)
{
    char scheme[16] = "", why[512];
    a->uri = w->uri ? w->uri : "";
    a->path = w->path ? w->path + 1 : NULL;
    a->mode = w->mode;
    a->ack_mode = w->ack;
    a->flags = w->check ? MOUNT_CHECK : 0;
    if (w->mode == MOUNT_SCRATCH) {
        if (w->uri)
            return cli_usage(cli, "--mode scratch is space of the cache alone, without %s", w->uri);
        return w->n_settings || w->file ? cli_usage(cli, "--mode scratch takes no parameters") : CLI_OK;
    }
    if (mount_uri_check(w->uri, scheme, sizeof(scheme), why, sizeof(why)) < 0)
        return cli_usage(cli, "%s", why);
    for (unsigned i = 0; i < w->n_settings; i++)
        if (mount_params_add(&a->params, scheme, w->settings[i], "--param", why, sizeof(why)) < 0)
            return cli_usage(cli, "%s", why);
    if (w->file && mount_params_read(&a->params, scheme, w->file, why, sizeof(why)) < 0)
        return cli_usage(cli, "%s", why);
    mount_params_environment(&a->params, scheme);
    return CLI_OK;
}

/* A path of the namespace without doubled or final slashes, as the list shows it. */
static void tidy_path(char *p)
{
    char *to = p;
    for (const char *from = p; *from; from++)
        if (*from != '/' || to == p || to[-1] != '/')
            *to++ = *from;
    while (to > p + 1 && to[-1] == '/')
        to--;
    *to = '\0';
}

static int check_directory(struct cli *cli, struct curvine *cv, const char *path)
{
    struct curvine_attr attr;
    int r = curvine_stat(cv, path, CURVINE_FOLLOW, &attr);
    if (r == 0 && (attr.mode & 0170000) != 0040000)
        r = -ENOTDIR;
    return r < 0 ? cli_fail(cli, r, "what is there: cv fs ls :/; attach something: cv mount s3://BUCKET :/NAME",
                            "mount :%s", path)
                 : CLI_OK;
}

static int print_result(struct cli *cli, const struct wish *w, const char *path, const char *point)
{
    static const struct out_column columns[] = {
        {"path", OUT_TEXT}, {"uri", OUT_TEXT}, {"mode", OUT_TEXT}, {"mount_point", OUT_TEXT}};
    char shown[4096 + 1]; /* and the colon */
    if (cli->form == OUT_TABLE)
        return CLI_OK; /* told step by step */
    snprintf(shown, sizeof(shown), ":%s", path);
    struct out *o = out_record(columns, array_size(columns));
    out_text(o, shown);
    out_text(o, w->uri);
    out_text(o, w->uri || w->mode == MOUNT_SCRATCH ? mount_mode_name(w->mode) : NULL);
    out_text(o, *point ? point : NULL);
    return cli_print(cli, o);
}

static int change_ack(struct cli *cli, const struct wish *w)
{
    char path[4096];
    struct curvine *cv cleanup(curvine_closep) = NULL;
    snprintf(path, sizeof(path), "%s", w->path + 1);
    tidy_path(path);
    int status = cli_connect(cli, &cv);
    return status == CLI_OK ? mount_set_ack(cli, cv, path, w->ack) : status;
}

static int carry_out(struct cli *cli, struct wish *w, struct attachment *a)
{
    char path[4096], point[4096] = "";
    bool attach = w->uri || (w->mode == MOUNT_SCRATCH && w->mode_given);
    if (attach) {
        int status = fill_attachment(cli, w, a);
        if (status != CLI_OK)
            return status;
    } else if (w->ack_given && w->path && !w->point && !w->mode_given && !w->n_settings && !w->file && !w->check) {
        return change_ack(cli, w);
    } else if (w->ack_given || w->mode_given || w->n_settings || w->file || w->check) {
        return cli_usage(cli, "--mode, --ack-mode, --param and --check belong to attaching: cv mount URI :/PATH");
    }
    if (w->path) {
        snprintf(path, sizeof(path), "%s", w->path + 1);
    } else {
        path[0] = '/';
        if (mount_uri_name(w->uri, path + 1, sizeof(path) - 1) < 0)
            return cli_usage(cli, "'%s' has no name to use: say one: cv mount %s :/NAME", w->uri, w->uri);
        a->may_be_there = true;
    }
    tidy_path(path);
    a->path = path;
    struct host_mounting here = {.path = path, .point = w->point, .over = w->over, .allow_other = w->allow_other};
    struct curvine *cv cleanup(curvine_closep) = NULL;
    int status = w->point ? mount_point_check(cli, &here, point, sizeof(point)) : CLI_OK;
    if (status == CLI_OK)
        status = cli_connect(cli, &cv);
    if (status == CLI_OK)
        status = attach ? mount_attach(cli, cv, a) : check_directory(cli, cv, path);
    if (status == CLI_OK && w->point && !w->check)
        status = mount_here(cli, &here, point);
    return status != CLI_OK ? status : print_result(cli, w, path, w->check ? "" : point);
}

int cmd_mount(struct cli *cli, int argc, char **argv)
{
    struct wish w = {0};
    struct attachment a = {0};
    int status = parse_options(cli, argc, argv, &w);
    if (status != CLI_OK)
        return max(status, CLI_OK);
    if (optind == argc)
        return w.mode_given || w.ack_given || w.n_settings || w.check ? cli_usage(cli, "mount what?")
                                                                      : list_mounts(cli);
    status = parse_arguments(cli, argc - optind, argv + optind, &w);
    if (status == CLI_OK)
        status = carry_out(cli, &w, &a);
    mount_params_fini(&a.params);
    return status;
}
