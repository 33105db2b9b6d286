/* SPDX-License-Identifier: Apache-2.0 */
#include <errno.h>
#include <stdio.h>
#include <string.h>

#include "base/error.h"
#include "cli/connect.h"
#include "cli/mount.h"
#include "client/client_ask.h"
#include "wire/meta_flags.h"

#define SET_MS    10000
#define ATTACH_MS 60000 /* the store is asked, perhaps more than once */

const char *mount_mode_name(uint8_t mode)
{
    static const char *const names[] = {[MOUNT_CACHE] = "cache", [MOUNT_FS] = "fs", [MOUNT_SCRATCH] = "scratch"};
    return mode < array_size(names) && names[mode] ? names[mode] : "?";
}

static const char *hint_for(int r);

const char *mount_ack_name(uint8_t ack)
{
    static const char *const names[] = {[MOUNT_ACK_CLUSTER] = "cluster",
                                        [MOUNT_ACK_QUORUM] = "quorum",
                                        [MOUNT_ACK_LOCAL] = "local",
                                        [MOUNT_ACK_APPLIED] = "applied"};
    return ack < array_size(names) ? names[ack] : "?";
}

int mount_set_ack(struct cli *cli, struct curvine *cv, const char *path, uint8_t ack)
{
    struct buf body cleanup(buf_fini) = {0}, none cleanup(buf_fini) = {0};
    struct msg_mount_list_answer list;
    int r = cli_mount_list(cv, &body, &list);
    if (r < 0)
        return cli_fail(cli, r, NULL, "list what is attached");
    rec_for_each (mount, m, &list.mounts) {
        if (!text_equal(m.path, text_of(path)))
            continue;
        struct msg_mount_set set = {.head = cli_head(), .mount = m.mount, .ack_mode = ack};
        r = client_ask(cv, MSG_mount_set, msg_mount_set_desc(), &set, cli_timeout_ms(cli, SET_MS), &none);
        if (r < 0)
            return cli_fail(cli, r, hint_for(r), "set the ack mode of :%s", path);
        if (cli->form == OUT_TABLE)
            printf("changes below :%s are answered by mode %s%s\n", path, mount_ack_name(ack),
                   ack == m.ack_mode ? " already" : "");
        return CLI_OK;
    }
    fprintf(stderr, "cv mount: nothing is attached at ':%s'\n  try: cv mount, which lists what is\n", path);
    return CLI_FAILED;
}

/* What to do about a refusal. */
static const char *hint_for(int r)
{
    switch (-r) {
    case EBUSY: return "mounts cannot lie within one another: cv mount lists them, cv umount :/PATH detaches one";
    case EEXIST: return "something is at that path: choose another, or see what: cv fs stat :/PATH";
    case ENOTEMPTY: return "attach at an empty or new directory: its names would be hidden behind the bucket's";
    case ENOENT: return "make the directory above it first: cv fs mkdir -p :/PATH";
    case EACCES:
    case EPERM: return "attaching and its settings take the rights of root or of the owner of the directory above";
    case CV_LEVEL_TOO_LOW: return "cv upgrade status says which masters are behind";
    default: return NULL;
    }
}

/* One that is there already, with the same URI? Returns CLI_OK, CLI_DEGRADED for "no", or reports. */
static int is_attached(struct cli *cli, struct curvine *cv, const struct attachment *a)
{
    struct buf body cleanup(buf_fini) = {0};
    struct msg_mount_list_answer list;
    int r = cli_mount_list(cv, &body, &list);
    if (r < 0)
        return cli_fail(cli, r, NULL, "list what is attached");
    rec_for_each (mount, m, &list.mounts) {
        if (!text_equal(m.path, text_of(a->path)))
            continue;
        if (text_equal(m.uri, text_of(a->uri)))
            return CLI_OK;
        fprintf(stderr, "cv mount: ':%s' is " TEXT_FMT " already, not %s\n  try: cv mount %s :/OTHER\n", a->path,
                TEXT_ARG(m.uri), a->uri, a->uri);
        return CLI_FAILED;
    }
    return CLI_DEGRADED;
}

static bool is_below(struct text path, struct text top)
{
    return path.n >= top.n && memcmp(path.p, top.p, top.n) == 0 && (path.n == top.n || path.p[top.n] == '/');
}

/* Which mount is in the way; false: none that is known. */
static bool tell_overlap(struct curvine *cv, const struct attachment *a)
{
    struct buf body cleanup(buf_fini) = {0};
    struct msg_mount_list_answer list;
    struct text path = text_of(a->path);
    if (cli_mount_list(cv, &body, &list) < 0)
        return false;
    rec_for_each (mount, m, &list.mounts) {
        if (!is_below(path, m.path) && !is_below(m.path, path))
            continue;
        fprintf(stderr,
                "cv mount: cannot attach %s at :%s: " TEXT_FMT " is attached at :" TEXT_FMT
                ", and mounts do not lie within one another\n  try: another path, or cv umount :" TEXT_FMT " first\n",
                *a->uri ? a->uri : "scratch space", a->path, TEXT_ARG(m.uri), TEXT_ARG(m.path), TEXT_ARG(m.path));
        return true;
    }
    return false;
}

static void tell_origin(const struct mount_params *p)
{
    for (uint32_t i = 0; i < p->n; i++)
        if (strncmp(p->from[i], "AWS_", 4) == 0)
            fprintf(stderr, "%s taken from %s\n", p->name[i], p->from[i]);
}

int mount_attach(struct cli *cli, struct curvine *cv, const struct attachment *a)
{
    if (a->may_be_there) {
        int status = is_attached(cli, cv, a);
        if (status == CLI_OK && cli->form == OUT_TABLE)
            printf("%s is attached at :%s already\n", a->uri, a->path);
        if (status != CLI_DEGRADED)
            return status;
    }
    struct buf params cleanup(buf_fini) = {0}, body cleanup(buf_fini) = {0};
    struct msg_mount_add m = {
        .head = cli_head(),
        .path = text_of(a->path),
        .uri = text_of(a->uri),
        .mode = a->mode,
        .flags = a->flags,
        .ack_mode = a->ack_mode,
    };
    struct curvine_text name = {0};
    int r = curvine_resolve_parent(cv, a->path, &m.parent, &name);
    if (r == -EBUSY)
        return cli_usage(cli, "':/' itself cannot be a mount: choose a directory of it, such as :/data");
    m.name = (struct text){name.p, name.n};
    for (uint32_t i = 0; r == 0 && i < a->params.n; i++)
        r = rec_mount_param_append(&params,
                                   &(struct rec_mount_param){text_of(a->params.name[i]), text_of(a->params.value[i])});
    m.params = wire_list_of(&params, a->params.n);
    if (cli->form == OUT_TABLE)
        tell_origin(&a->params);
    if (r == 0)
        r = client_ask(cv, MSG_mount_add, msg_mount_add_desc(), &m, cli_timeout_ms(cli, ATTACH_MS), &body);
    explicit_bzero(params.p, params.n);
    struct msg_mount_add_answer answer = {0};
    if (r == 0)
        r = msg_mount_add_answer_decode(body.p, body.n, &answer);
    if (r == 0 && answer.error)
        r = -(int)answer.error;
    if (r < 0 && answer.reason.n) { /* the store's words, or the master's: they name the call and the fix */
        fprintf(stderr, "cv mount: cannot attach %s: " TEXT_FMT " (%s)\n  nothing was changed\n", a->uri,
                TEXT_ARG(answer.reason), cv_error_name(r));
        return CLI_FAILED;
    }
    if (r == -EBUSY && tell_overlap(cv, a))
        return CLI_FAILED;
    if (r < 0)
        return cli_fail(cli, r, hint_for(r), "attach %s at :%s", a->uri, a->path);
    if (cli->form == OUT_TABLE && (a->flags & MOUNT_CHECK))
        printf("%s can be attached at :%s; nothing was changed\n", a->uri, a->path);
    else if (cli->form == OUT_TABLE)
        printf("attached %s at :%s (%s%s)\n", *a->uri ? a->uri : "scratch space", a->path, mount_mode_name(a->mode),
               a->mode == MOUNT_CACHE && !(a->flags & MOUNT_WRITABLE) ? ", read-only"
               : a->mode == MOUNT_FS ? ": what is written stays in the cache, nothing goes back to the bucket yet"
                                     : "");
    return CLI_OK;
}
