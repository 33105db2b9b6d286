/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Calls by path. The master walks plain components in one request and stops at a symlink; "." and ".." and the
 * symlinks are resolved here, on a canonical path that holds neither, so that taking a name off its end is "..".
 */
#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

#include "base/cleanup.h"
#include "base/error.h"
#include "base/text.h"
#include "client/curvine.h"

#define SYMLINKS_MAX   40
#define PATH_BYTES_MAX (64u << 10) /* what symlinks may make of a path */

/* A walk in progress: done + "/" + rest is the path asked for, done being canonical ("" or "a/b"). */
struct walk {
    struct buf done, rest;
    int symlinks;
};

static void walk_fini(struct walk *w)
{
    buf_fini(&w->done);
    buf_fini(&w->rest);
}

static struct text skip_slashes(struct text t)
{
    while (t.n && *t.p == '/')
        t = (struct text){t.p + 1, t.n - 1};
    return t;
}

/* The first component, behind slashes; empty at the end. */
static struct text first_component(struct text path)
{
    path = skip_slashes(path);
    uint32_t n = 0;
    while (n < path.n && path.p[n] != '/')
        n++;
    return (struct text){path.p, n};
}

static void drop_last(struct buf *path)
{
    while (path->n && path->p[path->n - 1] != '/')
        path->n--;
    if (path->n)
        path->n--;
}

static int append_component(struct buf *path, struct text c)
{
    if (path->n + c.n + 1 > PATH_BYTES_MAX)
        return -ENAMETOOLONG;
    int r = path->n ? buf_append(path, "/", 1) : 0;
    return r ? r : buf_append(path, c.p, c.n);
}

/* Move components from rest to done up to the next "." or "..", which are dealt with when they come first. */
static int take_components(struct walk *w)
{
    struct text left = {(const char *)w->rest.p, (uint32_t)w->rest.n};
    bool took = false;
    int r = 0;
    while (r == 0) {
        struct text c = first_component(left);
        bool up = text_equal(c, TEXT("..")), here = text_equal(c, TEXT("."));
        if (c.n == 0)
            left = c; /* nothing but slashes was left */
        if (c.n == 0 || (up && took))
            break;
        if (up)
            drop_last(&w->done);
        else if (!here) {
            if (c.n > 255)
                return -ENAMETOOLONG;
            r = append_component(&w->done, c);
            took = true;
        }
        left = (struct text){c.p + c.n, (uint32_t)((const char *)w->rest.p + w->rest.n - (c.p + c.n))};
    }
    memmove(w->rest.p, left.p, left.n);
    w->rest.n = left.n;
    return r;
}

/* done ends (behind unwalked) with a symlink: put its target in front of what is left. */
static int follow(struct walk *w, struct curvine_text unwalked, struct curvine_text target)
{
    if (++w->symlinks > SYMLINKS_MAX)
        return -ELOOP;
    if (target.n == 0)
        return -ENOENT;
    struct buf rest = {0};
    int r = buf_append(&rest, target.p, target.n);
    r = r ? r : buf_append(&rest, "/", 1);
    r = r ? r : buf_append(&rest, unwalked.p, unwalked.n);
    r = r ? r : buf_append(&rest, "/", 1);
    r = r ? r : buf_append(&rest, w->rest.p, w->rest.n);
    if (r == 0 && rest.n > PATH_BYTES_MAX)
        r = -ENAMETOOLONG;
    if (r < 0) {
        buf_fini(&rest);
        return r;
    }
    uint32_t behind = unwalked.n ? unwalked.n + 1 : 0;
    w->done.n -= min((size_t)behind, w->done.n);
    drop_last(&w->done);
    if (target.p[0] == '/')
        w->done.n = 0;
    buf_fini(&w->rest);
    w->rest = rest;
    return 0;
}

/* One request for what done holds; follows a symlink it met. Returns 1 when there is more to do. */
static int walk_step(struct curvine *cv, struct walk *w, bool follow_last, struct curvine_attr *ret)
{
    struct curvine_request q = {
        .op = CURVINE_WALK, .inode = CURVINE_ROOT, .name = {(const char *)w->done.p, (uint32_t)w->done.n}};
    int r = curvine_run(cv, &q);
    if (r == 0 && S_ISLNK(q.attr.mode) && (q.rest.n || w->rest.n || follow_last)) {
        r = follow(w, q.rest, q.data);
        r = r < 0 ? r : 1;
    } else if (r == 0) {
        *ret = q.attr;
        r = w->rest.n > 0;
        if (r && !S_ISDIR(q.attr.mode))
            r = -ENOTDIR;
    }
    curvine_request_free(&q);
    return r;
}

int curvine_resolve(struct curvine *cv, const char *path, int flags, uint64_t *ret_inode, struct curvine_attr *ret_attr)
{
    if (path[0] != '/')
        return -EINVAL;
    size_t n = strlen(path);
    if (n > PATH_BYTES_MAX)
        return -ENAMETOOLONG;
    struct walk w cleanup(walk_fini) = {0};
    int r = buf_append(&w.rest, path, n);
    if (r < 0)
        return r;
    bool want_directory = n > 1 && path[n - 1] == '/';
    struct curvine_attr attr;
    do {
        r = take_components(&w);
        if (r == 0)
            r = walk_step(cv, &w, flags & CURVINE_FOLLOW || want_directory, &attr);
    } while (r > 0);
    if (r < 0)
        return r;
    if (want_directory && !S_ISDIR(attr.mode))
        return -ENOTDIR;
    if (ret_inode)
        *ret_inode = attr.inode;
    if (ret_attr)
        *ret_attr = attr;
    return 0;
}

int curvine_resolve_parent(struct curvine *cv, const char *path, uint64_t *ret_inode, struct curvine_text *ret_name)
{
    size_t n = strlen(path);
    while (n > 1 && path[n - 1] == '/')
        n--;
    size_t start = n;
    while (start > 0 && path[start - 1] != '/')
        start--;
    struct text name = {path + start, (uint32_t)(n - start)};
    if (path[0] != '/')
        return -EINVAL;
    if (name.n == 0)
        return -EBUSY;
    if (text_equal(name, TEXT(".")) || text_equal(name, TEXT("..")))
        return -EINVAL;
    if (name.n > 255)
        return -ENAMETOOLONG;
    char *directory cleanup(freep) = strndup(path, start);
    if (!directory)
        return -ENOMEM;
    struct curvine_attr attr;
    int r = curvine_resolve(cv, directory, CURVINE_FOLLOW, ret_inode, &attr);
    if (r == 0 && !S_ISDIR(attr.mode))
        r = -ENOTDIR;
    if (r == 0)
        *ret_name = (struct curvine_text){name.p, name.n};
    return r;
}

int curvine_stat(struct curvine *cv, const char *path, int flags, struct curvine_attr *ret)
{
    return curvine_resolve(cv, path, flags, NULL, ret);
}

/* Run a request whose inode and name are a path's parent and last name. */
static int run_at(struct curvine *cv, const char *path, struct curvine_request *q)
{
    int r = curvine_resolve_parent(cv, path, &q->inode, &q->name);
    if (r == 0)
        r = curvine_run(cv, q);
    curvine_request_free(q);
    return r;
}

/* Run a request whose inode is a path's. */
static int run_on(struct curvine *cv, const char *path, int flags, struct curvine_request *q)
{
    int r = curvine_resolve(cv, path, flags, &q->inode, NULL);
    if (r == 0)
        r = curvine_run(cv, q);
    curvine_request_free(q);
    return r;
}

int curvine_mkdir(struct curvine *cv, const char *path, uint32_t mode)
{
    return run_at(cv, path, &(struct curvine_request){.op = CURVINE_MKDIR, .mode = mode});
}

int curvine_mkdirs(struct curvine *cv, const char *path, uint32_t mode)
{
    struct curvine_attr attr;
    int r = curvine_stat(cv, path, CURVINE_FOLLOW, &attr);
    if (r == 0)
        return S_ISDIR(attr.mode) ? 0 : -ENOTDIR;
    if (r != -ENOENT)
        return r;
    char *partial cleanup(freep) = strdup(path);
    if (!partial)
        return -ENOMEM;
    for (char *p = partial + 1;; p++) {
        if (*p != '/' && *p)
            continue;
        char was = *p;
        *p = '\0';
        r = p[-1] == '/' ? 0 : curvine_mkdir(cv, partial, mode);
        if (r < 0 && r != -EEXIST && r != -EBUSY && r != -EINVAL)
            return r;
        if (!was)
            break;
        *p = was;
    }
    r = curvine_stat(cv, path, CURVINE_FOLLOW, &attr);
    return r < 0 ? r : S_ISDIR(attr.mode) ? 0 : -ENOTDIR;
}

int curvine_unlink(struct curvine *cv, const char *path)
{
    return run_at(cv, path, &(struct curvine_request){.op = CURVINE_UNLINK});
}

int curvine_rmdir(struct curvine *cv, const char *path)
{
    return run_at(cv, path, &(struct curvine_request){.op = CURVINE_RMDIR});
}

int curvine_symlink(struct curvine *cv, const char *target, const char *path)
{
    return run_at(cv, path,
                  &(struct curvine_request){.op = CURVINE_SYMLINK, .value = {target, (uint32_t)strlen(target)}});
}

int curvine_rename(struct curvine *cv, const char *from, const char *to, uint32_t flags)
{
    struct curvine_request q = {.op = CURVINE_RENAME, .flags = flags};
    int r = curvine_resolve_parent(cv, to, &q.inode2, &q.value);
    return r < 0 ? r : run_at(cv, from, &q);
}

int curvine_link(struct curvine *cv, const char *existing, const char *path)
{
    struct curvine_request q = {.op = CURVINE_LINK};
    int r = curvine_resolve(cv, existing, 0, &q.inode2, NULL);
    return r < 0 ? r : run_at(cv, path, &q);
}

int curvine_chmod(struct curvine *cv, const char *path, uint32_t mode)
{
    return run_on(cv, path, CURVINE_FOLLOW,
                  &(struct curvine_request){.op = CURVINE_SETATTR, .valid = CURVINE_SET_MODE, .mode = mode});
}

int curvine_chown(struct curvine *cv, const char *path, uint32_t uid, uint32_t gid, int flags)
{
    uint32_t valid = (uid != UINT32_MAX ? CURVINE_SET_UID : 0) | (gid != UINT32_MAX ? CURVINE_SET_GID : 0);
    return run_on(cv, path, flags,
                  &(struct curvine_request){.op = CURVINE_SETATTR, .valid = valid, .uid = uid, .gid = gid});
}

int curvine_truncate(struct curvine *cv, const char *path, uint64_t size)
{
    return run_on(cv, path, CURVINE_FOLLOW,
                  &(struct curvine_request){.op = CURVINE_SETATTR, .valid = CURVINE_SET_SIZE, .size = size});
}

int curvine_utimens(struct curvine *cv, const char *path, uint64_t atime_ns, uint64_t mtime_ns, int flags)
{
    return run_on(cv, path, flags,
                  &(struct curvine_request){.op = CURVINE_SETATTR,
                                            .valid = CURVINE_SET_ATIME | CURVINE_SET_MTIME,
                                            .atime_ns = atime_ns,
                                            .mtime_ns = mtime_ns});
}

int curvine_readlink(struct curvine *cv, const char *path, char *out, size_t size)
{
    struct curvine_request q = {.op = CURVINE_READLINK};
    int r = curvine_resolve(cv, path, 0, &q.inode, NULL);
    if (r == 0)
        r = curvine_run(cv, &q);
    if (r == 0 && q.data.n >= size)
        r = -ENAMETOOLONG;
    if (r == 0) {
        memcpy(out, q.data.p, q.data.n);
        out[q.data.n] = '\0';
    }
    curvine_request_free(&q);
    return r;
}

int curvine_list(struct curvine *cv, uint64_t inode, int (*each)(const struct curvine_dirent *entry, void *arg),
                 void *arg)
{
    char after[256];
    uint32_t after_n = 0;
    for (;;) {
        struct curvine_request q = {.op = CURVINE_READDIR, .inode = inode, .name = {after, after_n}, .flags = 1};
        int r = curvine_run(cv, &q);
        for (uint32_t i = 0; r == 0 && i < q.entry_count; i++)
            r = each(&q.entries[i], arg);
        bool more = r == 0 && !q.end && q.entry_count > 0;
        if (more) {
            struct curvine_text last = q.entries[q.entry_count - 1].name;
            after_n = min(last.n, (uint32_t)sizeof(after));
            memcpy(after, last.p, after_n);
        }
        curvine_request_free(&q);
        if (!more)
            return min(r, 0);
    }
}
