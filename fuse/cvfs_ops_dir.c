/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Listing. READDIRPLUS entries carry attributes that the kernel believes like those of a look-up, so they go out only while
 * they may be believed: younger than the lease, and older than nothing that was changed through this mount (an unlink or a
 * write that finished after the page was asked for). Else the entry goes out without: node 0.
 */
#include <dirent.h>
#include <errno.h>

#include "base/clock.h"
#include "base/error.h"
#include "fuse/cvfs_dir.h"
#include "fuse/cvfs_internal.h"

#define PAGE_ENTRIES 1000
#define PAGE_BYTES   (256u << 10)

void cvfs_op_opendir(struct cvfs_request *r)
{
    struct fuse_open_out out = {0};
    struct cvfs_handle *h;
    struct cvfs_dir *d;
    int error = cvfs_dir_new(&d);
    if (error == 0 && (error = cvfs_handle_new(&r->fs->handles, &out.fh, &h)) < 0)
        cvfs_dir_free(d);
    if (error < 0) {
        cvfs_reply_error(r, error);
        return;
    }
    h->inode = cvfs_inode_of(r->fs, r->in->nodeid);
    h->dir = d;
    cvfs_reply_data(r, &out, sizeof(out));
}

void cvfs_op_releasedir(struct cvfs_request *r)
{
    uint64_t number = ((const struct fuse_release_in *)r->arg)->fh;
    struct cvfs_handle *h = cvfs_handle_get(&r->fs->handles, number);
    if (!h || !h->dir) {
        cvfs_reply_error(r, -EBADF);
        return;
    }
    cvfs_dir_free(h->dir);
    cvfs_handle_release(&r->fs->handles, number);
    cvfs_reply_error(r, 0);
}

static void synced(struct cvfs_request *r)
{
    cvfs_reply_error(r, r->q.result);
}

/* The names, and all else that was acknowledged before. */
void cvfs_op_fsyncdir(struct cvfs_request *r)
{
    r->q.op = CURVINE_FSYNC;
    r->q.inode = cvfs_inode_of(r->fs, r->in->nodeid);
    cvfs_submit(r, synced);
}

/* ---- filling an answer ----------------------------------------------------------------------------------------------------- */

struct listing {
    struct cvfs_request *r;
    uint8_t *p;
    size_t n, room;
    bool plus;
    uint64_t now, changed_ns; /* changed_ns: the directory itself */
};

/* False: it does not fit any more. */
static bool add(struct listing *l, const char *name, uint32_t name_bytes, uint64_t inode, uint32_t type,
                uint64_t cookie, const struct fuse_entry_out *entry)
{
    size_t head = l->plus ? sizeof(struct fuse_entry_out) : 0;
    size_t bytes = FUSE_DIRENT_ALIGN(head + FUSE_NAME_OFFSET + name_bytes);
    if (bytes > l->room - l->n)
        return false;
    uint8_t *p = l->p + l->n;
    memset(p, 0, bytes);
    if (l->plus && entry)
        memcpy(p, entry, sizeof(*entry));
    struct fuse_dirent dirent = {.ino = inode, .off = cookie, .namelen = name_bytes, .type = type};
    memcpy(p + head, &dirent, FUSE_NAME_OFFSET);
    memcpy(p + head + FUSE_NAME_OFFSET, name, name_bytes);
    l->n += bytes;
    return true;
}

static bool add_entry(struct listing *l, const struct cvfs_dir *d, uint32_t i)
{
    const struct cvfs_dir_entry *e = &d->entries[i];
    struct cvfs *fs = l->r->fs;
    struct fuse_entry_out out;
    uint64_t age_ms = (l->now - d->asked_ns) / NS_PER_MS;
    bool good = l->plus && e->attr.inode && age_ms < d->lease_ms && l->changed_ns < d->asked_ns &&
                cvfs_touched_ns(fs, e->inode) < d->asked_ns;
    if (good)
        cvfs_fill_entry(fs, &e->attr, d->lease_ms - (uint32_t)age_ms, &out);
    return add(l, (const char *)d->names.p + e->name_at, e->name_bytes, e->inode, e->type, d->cookie + 1 + i,
               good ? &out : NULL);
}

/* The answer in the slot, from what the page has behind offset. Returns its bytes: none at the end. */
static size_t fill(struct cvfs_request *r, const struct cvfs_dir *d, uint64_t offset, uint32_t index)
{
    struct listing l = {
        .r = r,
        .p = r->slot + CVFS_DATA_AT,
        .room = r->q.length,
        .plus = r->in->opcode == FUSE_READDIRPLUS,
        .now = clock_ns(),
        .changed_ns = cvfs_touched_ns(r->fs, r->handle->inode),
    };
    bool room = true;
    if (offset < 1)
        room = add(&l, ".", 1, r->handle->inode, DT_DIR, 1, NULL);
    if (room && offset < CVFS_DOT_COOKIE)
        room = add(&l, "..", 2, CVFS_ROOT_NODE, DT_DIR, CVFS_DOT_COOKIE, NULL);
    for (; room && index < d->count; index++)
        room = add_entry(&l, d, index);
    return l.n;
}

/* ---- one at a time ------------------------------------------------------------------------------------------------------------- */

static void got_page(struct cvfs_request *r);

/* Errors: of cvfs_dir_after(). */
static int fetch(struct cvfs_request *r, struct cvfs_dir *d)
{
    struct curvine_text after;
    int error = cvfs_dir_after(d, r->scratch, &after);
    if (error < 0)
        return error;
    r->q.op = CURVINE_READDIR;
    r->q.inode = r->handle->inode;
    r->q.name = after;
    r->q.max = PAGE_ENTRIES;
    r->q.size = PAGE_BYTES;
    r->q.flags = r->in->opcode == FUSE_READDIRPLUS ? 1 : 0;
    r->asked_ns = clock_ns();
    cvfs_submit(r, got_page);
    return 0;
}

/* End r, and let the next in. Once r is answered the directory may be closed: it is left before. */
static struct cvfs_request *end(struct cvfs_request *r, struct cvfs_dir *d, int error, int64_t index)
{
    size_t n = error < 0 ? 0 : fill(r, d, r->scratch, (uint32_t)index);
    pthread_mutex_lock(&d->lock);
    struct list *e = list_pop_front(&d->waiting);
    d->busy = e != NULL;
    pthread_mutex_unlock(&d->lock);
    if (error < 0)
        cvfs_reply_error(r, error);
    else
        cvfs_reply_data(r, r->slot + CVFS_DATA_AT, n);
    return e ? list_entry(e, struct cvfs_request, link) : NULL;
}

/* Answer from the page, until one has to be fetched or nobody waits. */
static void serve(struct cvfs_request *r)
{
    while (r) {
        struct cvfs_dir *d = r->handle->dir;
        int64_t index = cvfs_dir_find(d, r->scratch);
        int error = index < 0 ? fetch(r, d) : 0;
        if (index < 0 && error == 0)
            return;
        r = end(r, d, error, index);
    }
}

static void got_page(struct cvfs_request *r)
{
    struct cvfs_dir *d = r->handle->dir;
    int error = r->q.result;
    if (error == 0)
        error = cvfs_dir_take(d, r->scratch, &r->q, r->asked_ns);
    serve(end(r, d, error, d->skip));
}

void cvfs_op_readdir(struct cvfs_request *r)
{
    const struct fuse_read_in *in = r->arg;
    struct cvfs_handle *h = cvfs_handle_get(&r->fs->handles, in->fh);
    if (!h || !h->dir || in->size > r->fs->write_max) {
        cvfs_reply_error(r, h && h->dir ? -EINVAL : -EBADF);
        return;
    }
    r->handle = h;
    r->scratch = in->offset;
    r->q.length = in->size;
    pthread_mutex_lock(&h->dir->lock);
    bool first = !h->dir->busy;
    if (first)
        h->dir->busy = true;
    else
        list_push_back(&h->dir->waiting, &r->link);
    pthread_mutex_unlock(&h->dir->lock);
    if (first)
        serve(r);
}

void cvfs_op_readdirplus(struct cvfs_request *r)
{
    cvfs_op_readdir(r);
}
