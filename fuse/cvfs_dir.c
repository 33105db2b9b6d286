/* SPDX-License-Identifier: Apache-2.0 */
#include "fuse/cvfs_dir.h"

#include <errno.h>
#include <stdlib.h>

#include "base/cleanup.h"

#define MARK_EVERY 64

int cvfs_dir_new(struct cvfs_dir **ret)
{
    struct cvfs_dir *d = calloc(1, sizeof(*d));
    if (!d)
        return -ENOMEM;
    pthread_mutex_init(&d->lock, NULL);
    list_init(&d->waiting);
    d->last = CVFS_DOT_COOKIE;
    d->log_bytes_max = CVFS_DIR_LOG_BYTES;
    *ret = d;
    return 0;
}

struct cvfs_dir *cvfs_dir_free(struct cvfs_dir *d)
{
    if (!d)
        return NULL;
    free(d->entries);
    free(d->marks);
    buf_fini(&d->names);
    buf_fini(&d->log);
    pthread_mutex_destroy(&d->lock);
    free(d);
    return NULL;
}

/* ---- the log ----------------------------------------------------------------------------------------------------------- */

static void log_clear(struct cvfs_dir *d)
{
    d->log.n = 0;
    d->mark_count = 0;
    d->since_mark = 0;
    d->last = CVFS_DOT_COOKIE;
}

static int mark(struct cvfs_dir *d, uint64_t cookie)
{
    if (d->mark_count == d->mark_room) {
        uint32_t room = max(d->mark_room * 2, 64u);
        struct cvfs_dir_mark *marks = realloc(d->marks, room * sizeof(*marks));
        if (!marks)
            return -ENOMEM;
        d->marks = marks;
        d->mark_room = room;
    }
    d->marks[d->mark_count++] = (struct cvfs_dir_mark){cookie, d->log.n};
    d->since_mark = 0;
    return 0;
}

/* Keep the name behind which cookie is. Names of a segment (mark to mark) have consecutive cookies. */
static int log_name(struct cvfs_dir *d, uint64_t cookie, struct curvine_text name, bool follows)
{
    uint8_t n = (uint8_t)name.n;
    int r = !follows || d->mark_count == 0 || d->since_mark >= MARK_EVERY ? mark(d, cookie) : 0;
    if (r == 0)
        r = buf_reserve(&d->log, 1 + (size_t)n);
    if (r < 0)
        return r;
    buf_append(&d->log, &n, 1);
    buf_append(&d->log, name.p, n);
    d->since_mark++;
    return 0;
}

static const struct cvfs_dir_mark *mark_before(const struct cvfs_dir *d, uint64_t cookie)
{
    uint32_t low = 0, high = d->mark_count;
    while (low < high) {
        uint32_t middle = (low + high) / 2;
        if (d->marks[middle].cookie <= cookie)
            low = middle + 1;
        else
            high = middle;
    }
    return low ? &d->marks[low - 1] : NULL;
}

/* The kept name whose cookie is nearest before or at cookie. NULL: none. */
static bool log_find(const struct cvfs_dir *d, uint64_t cookie, uint64_t *ret_cookie, struct curvine_text *ret)
{
    const struct cvfs_dir_mark *m = mark_before(d, cookie);
    if (!m)
        return false;
    size_t at = m->at, end = m + 1 < d->marks + d->mark_count ? m[1].at : d->log.n;
    uint64_t here = m->cookie;
    while (here < cookie && at + 1 + d->log.p[at] < end) {
        at += 1 + (size_t)d->log.p[at];
        here++;
    }
    *ret = (struct curvine_text){(const char *)d->log.p + at + 1, d->log.p[at]};
    *ret_cookie = here;
    return true;
}

/* ---- the page -------------------------------------------------------------------------------------------------------------- */

int64_t cvfs_dir_find(const struct cvfs_dir *d, uint64_t cookie)
{
    int64_t index = -1;
    if (!d->valid || cookie == 0)
        return -1;
    cookie = max(cookie, (uint64_t)CVFS_DOT_COOKIE);
    if (cookie == d->from)
        index = d->skip;
    else if (cookie >= d->cookie && cookie - d->cookie <= d->count && cookie > CVFS_DOT_COOKIE)
        index = (int64_t)(cookie - d->cookie);
    return index == (int64_t)d->count && !d->end ? -1 : index;
}

int cvfs_dir_after(struct cvfs_dir *d, uint64_t cookie, struct curvine_text *after)
{
    uint64_t kept;
    *after = (struct curvine_text){"", 0};
    if (cookie == 0) {
        log_clear(d);
        d->valid = false;
    }
    if (cookie <= CVFS_DOT_COOKIE)
        return 0;
    if (cookie > d->last)
        return -EINVAL;
    log_find(d, cookie, &kept, after); /* none: from the start */
    return 0;
}

static int take_entry(struct cvfs_dir *d, const struct curvine_dirent *e)
{
    struct cvfs_dir_entry *to = &d->entries[d->count];
    *to = (struct cvfs_dir_entry){
        .inode = e->inode,
        .type = e->type,
        .name_at = (uint32_t)d->names.n,
        .name_bytes = e->name.n,
        .attr = e->attr,
    };
    d->count++;
    return buf_append(&d->names, e->name.p, e->name.n);
}

static int take_entries(struct cvfs_dir *d, const struct curvine_request *q)
{
    if (q->entry_count > d->room) {
        struct cvfs_dir_entry *entries = realloc(d->entries, q->entry_count * sizeof(*entries));
        if (!entries)
            return -ENOMEM;
        d->entries = entries;
        d->room = q->entry_count;
    }
    d->count = 0;
    d->names.n = 0;
    int r = 0;
    for (uint32_t i = 0; r == 0 && i < q->entry_count; i++)
        r = take_entry(d, &q->entries[i]);
    return r;
}

/* All names of the page, or, when the log is full, the last one. */
static int log_page(struct cvfs_dir *d, bool follows)
{
    bool full = d->log.n >= d->log_bytes_max;
    int r = 0;
    for (uint32_t i = full && d->count ? d->count - 1 : 0; r == 0 && i < d->count; i++) {
        const struct cvfs_dir_entry *e = &d->entries[i];
        struct curvine_text name = {(const char *)d->names.p + e->name_at, e->name_bytes};
        r = log_name(d, d->cookie + 1 + i, name, follows && !full);
        follows = true;
    }
    return r;
}

int cvfs_dir_take(struct cvfs_dir *d, uint64_t cookie, const struct curvine_request *q, uint64_t asked_ns)
{
    uint64_t kept = CVFS_DOT_COOKIE;
    struct curvine_text after;
    cookie = max(cookie, (uint64_t)CVFS_DOT_COOKIE);
    if (cookie > CVFS_DOT_COOKIE && !log_find(d, cookie, &kept, &after))
        kept = CVFS_DOT_COOKIE;
    d->valid = false;
    int r = take_entries(d, q);
    if (r < 0)
        return r;
    bool follows = cookie == d->last;
    d->cookie = d->last;
    d->from = cookie;
    d->skip = (uint32_t)min(cookie - kept, (uint64_t)d->count);
    d->end = q->end;
    d->asked_ns = asked_ns;
    d->lease_ms = q->lease_ms;
    r = log_page(d, follows);
    if (r < 0)
        return r;
    d->last += d->count;
    d->valid = true;
    return 0;
}
