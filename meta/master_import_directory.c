/* SPDX-License-Identifier: Apache-2.0 */
/* Directories somebody waits for, those who wait, and batches of names on their way to the sink. */
#include <assert.h>
#include <errno.h>
#include <stdlib.h>

#include "base/clock.h"
#include "base/error.h"
#include "base/hash.h"
#include "meta/master_import_internal.h"

#define IDLE_MAX 1024u /* directories kept for their counters */

/* ---- those who wait ------------------------------------------------------------------------------------------- */

void import_wait_end(struct master_import_wait *w, int result)
{
    struct master_import *m = w->import;
    list_remove(&w->link);
    list_remove(&w->all);
    w->result = result;
    struct loop *loop = w->loop;
    loop_post(loop, &w->job);
    atomic_fetch_sub(&m->waiting, 1);
}

void import_waits_end(struct list *waits, int result)
{
    while (!list_empty(waits))
        import_wait_end(list_entry(waits->next, struct master_import_wait, link), result);
}

int import_said(int result)
{
    if (result >= 0 || result == -ENOENT || result == -ECANCELED || result == -ENOMEM)
        return result;
    return result == -ENOTDIR ? -ENOENT : -CV_UFS_FAILED;
}

int import_result_of(const struct master_import *m, int result)
{
    return result != -ECANCELED ? result : m->stopping ? -CV_STOPPING : 0;
}

/* ---- directories ---------------------------------------------------------------------------------------------- */

void import_directory_free(struct import_directory *d)
{
    list_remove(&d->link);
    list_remove(&d->idle);
    buf_fini(&d->prefix);
    free(d);
}

static struct list *bucket_of(struct master_import *m, uint64_t inode)
{
    return &m->buckets[hash_u64(inode) % IMPORT_BUCKETS];
}

struct import_directory *import_find(struct master_import *m, uint64_t inode)
{
    list_for_each (e, bucket_of(m, inode)) {
        struct import_directory *d = list_entry(e, struct import_directory, link);
        if (d->inode == inode)
            return d;
    }
    return NULL;
}

struct import_directory *import_find_or_add(struct master_import *m, uint64_t inode)
{
    struct import_directory *d = import_find(m, inode);
    if (d) {
        if (!list_empty(&d->idle))
            m->idle_count--;
        list_remove(&d->idle);
        return d;
    }
    d = calloc(1, sizeof(*d));
    if (!d)
        return NULL;
    d->import = m;
    d->inode = inode;
    list_init(&d->idle);
    list_init(&d->parked);
    list_init(&d->looks);
    list_init(&d->waits);
    list_push_back(bucket_of(m, d->inode), &d->link);
    return d;
}

void import_idle(struct import_directory *d)
{
    struct master_import *m = d->import;
    if (d->listing || d->placing || !list_empty(&d->looks) || !list_empty(&d->idle))
        return;
    assert(list_empty(&d->waits) && list_empty(&d->parked));
    list_push_back(&m->idle, &d->idle);
    if (++m->idle_count <= IDLE_MAX || m->stopping)
        return;
    m->idle_count--;
    import_directory_free(list_entry(m->idle.next, struct import_directory, idle));
}

struct text import_prefix_of(const struct import_directory *d)
{
    return (struct text){(const char *)d->prefix.p, (uint32_t)d->prefix.n};
}

/* ---- batches -------------------------------------------------------------------------------------------------- */

struct master_import_batch *import_batch_new(struct import_directory *d, uint32_t room)
{
    struct master_import_batch *b = malloc(sizeof(*b) + room * sizeof(b->names[0]));
    if (b)
        *b = (struct master_import_batch){.directory = d->inode, .of = d, .room = room};
    return b;
}

void import_batch_free(struct master_import_batch *b)
{
    if (!b)
        return;
    buf_fini(&b->texts);
    free(b);
}

int import_batch_add(struct master_import_batch *b, struct text name, struct text key, const struct ufs_entry *e)
{
    if (text_equal(name, key))
        key.n = 0;
    else if (key.n == 0)
        key = TEXT("/");
    int r = buf_reserve(&b->texts, name.n + key.n);
    if (r < 0)
        return r;
    buf_append(&b->texts, name.p, name.n);
    if (key.n)
        buf_append(&b->texts, key.p, key.n);
    b->names[b->count++] = (struct master_import_name){.name.n = name.n,
                                                       .key.n = key.n,
                                                       .type = e->type,
                                                       .identity = e->identity,
                                                       .mode = e->mode,
                                                       .uid = e->uid,
                                                       .gid = e->gid};
    return 0;
}

/* Nothing is added any more: names find their texts. */
void import_batch_seal(struct master_import_batch *b)
{
    const char *p = (const char *)b->texts.p;
    for (uint32_t i = 0; i < b->count; i++) {
        b->names[i].name.p = p;
        b->names[i].key.p = p += b->names[i].name.n;
        p += b->names[i].key.n;
    }
}

void import_batch_give(struct master_import_batch *b)
{
    struct master_import *m = b->of->import;
    b->began_ns = clock_ns();
    atomic_fetch_add(&m->names, b->count);
    m->sink.import(m->sink.arg, b);
}
