/* SPDX-License-Identifier: Apache-2.0 */
/* cv umount: a path of the namespace is detached, for all hosts; a local directory is unmounted, here. */
#include <errno.h>
#include <stdio.h>
#include <string.h>

#include "base/clock.h"
#include "base/error.h"
#include "cli/connect.h"
#include "cli/mount.h"
#include "cli/mounts.h"
#include "cli/process.h"
#include "cli/unmount.h"
#include "client/client_ask.h"
#include "wire/meta_flags.h"

#define DETACH_MS  60000
#define UNMOUNT_MS 30000
#define LOOK_MS    2000 /* a cv-fuse that takes longer may be held by a mount elsewhere */

/* ---- here --------------------------------------------------------------------------------------------------------------- */

static int report_busy(const struct cli *cli, const char *point)
{
    struct buf holders cleanup(buf_fini) = {0};
    unsigned n = mounts_holders(point, &holders);
    fprintf(stderr, "cv %s: '%s' is in use", cli->command->name, point);
    if (n)
        fprintf(stderr, " by\n%.*s", (int)holders.n, (char *)holders.p);
    else
        fprintf(stderr, "; by whom is seen by root only\n");
    fprintf(stderr, "  try: end them, or cv umount --lazy %s: away now, gone when they are\n", point);
    return CLI_FAILED;
}

/* A copy of the mount in another mount namespace (made with propagation off: unshare --mount, a container) keeps its super
 * block, so the kernel tells cv-fuse nothing of an unmount here. */
static int report_elsewhere(const struct cli *cli, const char *point, pid_t other, pid_t pid)
{
    fprintf(
        stderr,
        "cv %s: '%s' is not mounted here any more, but another mount namespace has it too, that of process %d, and\n"
        "cv-fuse (pid %d) goes on to serve it\n"
        "  try: end that process (a container? a service with mounts of its own?), or let it have errors:\n"
        "       cv umount --force %s\n",
        cli->command->name, point, (int)other, (int)pid, point);
    return CLI_FAILED;
}

/* It is unmounted, and what was written is in the cluster when cv-fuse has ended. */
static int wait_for_server(struct cli *cli, const char *point, const struct host_mount *m, pid_t pid,
                           enum unmount_how how, uint64_t until)
{
    int r = how == UNMOUNT_NORMAL ? process_wait(pid, min(until, clock_ns() + LOOK_MS * NS_PER_MS)) : -CV_DEADLINE;
    pid_t other = r < 0 && how == UNMOUNT_NORMAL ? mounts_elsewhere(m) : 0;
    if (other)
        return report_elsewhere(cli, point, other, pid);
    /* Nobody has it any more as far as we see, yet the kernel has not told cv-fuse (a namespace on its way out, held by a
     * descriptor only): it commits what was written and ends when asked, too. */
    if (r < 0)
        r = process_stop(pid, until);
    if (r < 0)
        return cli_fail(cli, r, "look at its log; it ends when what was written is in the cluster",
                        "'%s' is unmounted, but cv-fuse (pid %d) still works", point, (int)pid);
    return CLI_OK;
}

int unmount_here(struct cli *cli, const char *point, const struct host_mount *m, enum unmount_how how)
{
    uint64_t until = clock_ns() + cli_timeout_ms(cli, UNMOUNT_MS) * NS_PER_MS;
    pid_t pid = mounts_server(point, NULL, NULL, 0);
    if (how == UNMOUNT_FORCE) {
        int r = mounts_abort(m);
        if (r < 0 && r != -ENOENT)
            return cli_fail(cli, r, "be root, or the user who mounted it", "end what waits for '%s'", point);
    }
    int r = mounts_unmount(point, how != UNMOUNT_NORMAL);
    if (r == -EBUSY)
        return report_busy(cli, point);
    if (r == -EIO)
        return cli_fail(
            cli, r, strstr(mounts_helper_said(), "/etc/mtab") ? "as root: ln -s ../proc/self/mounts /etc/mtab" : NULL,
            "unmount '%s': %s", point, mounts_helper_said());
    if (r < 0)
        return cli_fail(cli, r, r == -EPERM ? "be root, or the user who mounted it" : NULL, "unmount '%s'", point);
    return pid && how != UNMOUNT_LAZY ? wait_for_server(cli, point, m, pid, how, until) : CLI_OK;
}

int unmount_elsewhere(struct cli *cli, const char *point, pid_t pid, enum unmount_how how)
{
    uint64_t until = clock_ns() + cli_timeout_ms(cli, UNMOUNT_MS) * NS_PER_MS;
    struct host_mount m = {.minor = 0};
    snprintf(m.point, sizeof(m.point), "%s", point);
    pid_t other = mounts_elsewhere(&m);
    if (other && how != UNMOUNT_FORCE)
        return report_elsewhere(cli, point, other, pid);
    int status = wait_for_server(cli, point, &m, pid, UNMOUNT_FORCE, until);
    if (status == CLI_OK)
        printf("ended what served %s, which was not mounted here any more\n", point);
    return status;
}

static int unmount_directory(struct cli *cli, const char *directory, enum unmount_how how)
{
    char point[4096];
    struct host_mount m;
    int r = mounts_absolute(directory, point, sizeof(point));
    if (r < 0)
        return cli_fail(cli, r, "what is mounted: cv mount", "unmount '%s'", directory);
    r = mounts_find(point, &m);
    pid_t pid = r == -ENOENT ? mounts_server(point, NULL, NULL, 0) : 0;
    if (pid)
        return unmount_elsewhere(cli, point, pid, how);
    if (r == -ENOENT) {
        fprintf(stderr, "cv umount: nothing is mounted at '%s'\n  try: cv mount, which lists what is\n", point);
        return CLI_FAILED;
    }
    if (r < 0)
        return cli_fail(cli, r, NULL, "read the list of mounts");
    if (!m.ours) {
        fprintf(stderr, "cv umount: '%s' is none of ours: %s (%s)\n  try: umount %s\n", point, m.source, m.type, point);
        return CLI_FAILED;
    }
    int status = unmount_here(cli, point, &m, how);
    if (status == CLI_OK)
        printf("unmounted %s%s\n", point, how == UNMOUNT_LAZY ? "; it goes for good when nobody uses it" : "");
    return status;
}

/* ---- detach ---------------------------------------------------------------------------------------------------------------- */

/* Those of other hosts are known to the master only. */
static int tell_mounted(const struct host_mount *m, void *arg)
{
    const char *path = arg;
    size_t n = strlen(path);
    char served[4096];
    if (m->ours && mounts_server(m->point, served, NULL, sizeof(served)) &&
        (strcmp(served, ":/") == 0 ||
         (strncmp(served + 1, path, n) == 0 && (served[n + 1] == '\0' || served[n + 1] == '/'))))
        fprintf(stderr, "It is mounted here: %s shows %s.\n", m->point, served);
    return 0;
}

static int ask_user(const char *path, struct text uri)
{
    char answer[16];
    mounts_each(tell_mounted, (void *)(uintptr_t)path);
    fprintf(stderr,
            "Detach :%s (" TEXT_FMT ")? Its names go away for everybody, here only: nothing is removed in the\n"
            "under file system. [y/N] ",
            path, TEXT_ARG(uri));
    if (!fgets(answer, sizeof(answer), stdin))
        return false;
    return answer[0] == 'y' || answer[0] == 'Y';
}

static int remove_mount(struct cli *cli, struct curvine *cv, uint32_t id, const char *path, bool force)
{
    struct msg_mount_remove m = {.head = cli_head(), .mount = id, .flags = force ? MOUNT_FORCE : 0};
    struct msg_mount_remove_answer answer = {0};
    struct buf body cleanup(buf_fini) = {0};
    int r = client_ask(cv, MSG_mount_remove, msg_mount_remove_desc(), &m, cli_timeout_ms(cli, DETACH_MS), &body);
    if (r == 0)
        r = msg_mount_remove_answer_decode(body.p, body.n, &answer);
    if (r == 0 && answer.error)
        r = -(int)answer.error;
    if (r == -CV_DIRTY)
        return cli_fail(cli, r, "--force, if that data may be lost", "detach :%s", path);
    if (r < 0 && answer.reason.n) {
        fprintf(stderr, "cv umount: cannot detach :%s: " TEXT_FMT " (%s)\n", path, TEXT_ARG(answer.reason),
                cv_error_name(r));
        return CLI_FAILED;
    }
    return r < 0 ? cli_fail(cli, r, NULL, "detach :%s", path) : CLI_OK;
}

static int detach(struct cli *cli, const char *path, bool force, bool yes)
{
    struct curvine *cv cleanup(curvine_closep) = NULL;
    struct buf body cleanup(buf_fini) = {0};
    struct msg_mount_list_answer list;
    size_t n = strlen(path);
    int status = cli_connect(cli, &cv);
    if (status != CLI_OK)
        return status;
    while (n > 1 && path[n - 1] == '/')
        n--;
    int r = cli_mount_list(cv, &body, &list);
    if (r < 0)
        return cli_fail(cli, r, NULL, "list what is attached");
    rec_for_each (mount, m, &list.mounts) {
        if (!text_equal(m.path, (struct text){path, (uint32_t)n}))
            continue;
        if (!yes && isatty(STDIN_FILENO) && !ask_user(path, m.uri)) {
            fprintf(stderr, "nothing was changed\n");
            return CLI_FAILED;
        }
        status = remove_mount(cli, cv, m.mount, path, force);
        if (status == CLI_OK)
            printf("detached :%.*s (" TEXT_FMT ")\n", (int)n, path, TEXT_ARG(m.uri));
        return status;
    }
    fprintf(stderr, "cv umount: nothing is attached at ':%s'\n  try: cv mount, which lists what is\n", path);
    return CLI_FAILED;
}

int cmd_umount(struct cli *cli, int argc, char **argv)
{
    static const struct option options[] = {
        {"force", no_argument, NULL, 'f'}, {"lazy", no_argument, NULL, 'l'}, {"yes", no_argument, NULL, 'y'}, {0}};
    enum unmount_how how = UNMOUNT_NORMAL;
    bool yes = false;
    for (int c; (c = cli_option(cli, argc, argv, "fly", options)) != -1;)
        switch (c) {
        case 'f': how = UNMOUNT_FORCE; break;
        case 'l': how = how == UNMOUNT_FORCE ? how : UNMOUNT_LAZY; break;
        case 'y': yes = true; break;
        default: return cli_option_status();
        }
    if (argc - optind != 1)
        return cli_usage(cli, "expected :/PATH to detach, or DIR to unmount here");
    const char *what = argv[optind];
    if (strstr(what, "://"))
        return cli_usage(cli, "name the path it is attached at (cv mount shows it), not %s", what);
    return what[0] == ':' && what[1] == '/' ? detach(cli, what + 1, how == UNMOUNT_FORCE, yes)
                                            : unmount_directory(cli, what, how);
}
