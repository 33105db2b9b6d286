/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What all open files of one inode share: its layout and size as the master said, and as they have become by what was
 * written here. A layout is used for lease_ms from when it was asked for; while somebody reads it is asked for again
 * before that is over (the handle's tick), so readers do not wait for it.
 *
 * An answer may be older than what we know: it was asked for before a grant, commit or truncation of ours was answered.
 * "generation" counts those: a layout asked for under another one is not applied but asked for again.
 */
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "base/bytes.h"
#include "base/clock.h"
#include "base/error.h"
#include "base/hash.h"
#include "client/client_file.h"

#define SHIFT_MIN      12
#define SHIFT_MAX      30
#define SHIFT_DEFAULT  26
#define LEASE_MIN_MS   200
#define LAYOUT_TIME_MS 3000
#define ALONE_MS       5000 /* a layout is used on when no master answers */

/* ---- objects ---------------------------------------------------------------------------------------------------------- */

static struct list *bucket(struct curvine *cv, uint64_t inode)
{
    return &cv->content->inodes[hash_u64(inode) % array_size(cv->content->inodes)];
}

struct client_inode *client_inode_find(struct curvine *cv, uint64_t inode)
{
    list_for_each (e, bucket(cv, inode)) {
        struct client_inode *in = list_entry(e, struct client_inode, link);
        if (in->inode == inode)
            return in;
    }
    return NULL;
}

struct client_inode *client_inode_get(struct curvine *cv, uint64_t inode)
{
    struct client_inode *in = client_inode_find(cv, inode);
    if (in)
        return in;
    in = calloc(1, sizeof(*in));
    if (!in)
        return NULL;
    in->cv = cv;
    in->inode = inode;
    in->shift = SHIFT_DEFAULT;
    pthread_rwlock_init(&in->lock, NULL);
    struct list *lists[] = {&in->open_files,     &in->writes,       &in->layout_waiting, &in->chunks,
                            &in->pieces,         &in->room,         &in->write_waiting,  &in->drain_waiting,
                            &in->commit_waiting, &in->sync_waiting, &in->truncates};
    for (size_t i = 0; i < array_size(lists); i++)
        list_init(lists[i]);
    list_push_back(bucket(cv, inode), &in->link);
    cv->content->inode_count++;
    client_tick_start(cv);
    return in;
}

void client_inode_put(struct client_inode *in)
{
    if (in->files || in->ios || in->layout_call || in->grant_call || in->commit_call || in->sync || in->truncating ||
        !list_empty(&in->pieces) || !list_empty(&in->truncates))
        return;
    for (uint32_t i = 0; i < in->block_count; i++)
        if (in->blocks[i]->busy || in->blocks[i]->ahead_calls)
            return;
    list_for_each (e, &in->chunks)
        if (list_entry(e, struct client_chunk, of_inode)->fetch)
            return;
    list_remove(&in->link);
    list_remove(&in->room);
    in->cv->content->inode_count--;
    client_chunks_free(in);
    client_blocks_free(in);
    client_bytes_unref(in->inline_data);
    pthread_rwlock_destroy(&in->lock);
    free(in->extents);
    free(in->touched);
    free(in);
}

struct client_bytes *client_bytes_new(uint32_t n)
{
    struct client_bytes *b = malloc(sizeof(*b) + n);
    if (b) {
        b->refs = 1;
        b->n = n;
        memset(b->p, 0, n);
    }
    return b;
}

void client_bytes_unref(struct client_bytes *b)
{
    if (b && atomic_fetch_sub(&b->refs, 1) == 1)
        free(b);
}

void client_head(struct client_inode *in, struct rec_op_head *ret)
{
    *ret = (struct rec_op_head){.uid = in->uid, .gid = in->gid, .pid = (uint32_t)getpid()};
}

/* ---- extents ------------------------------------------------------------------------------------------------------------ */

/* The first with at least this block. */
static uint32_t extent_place(const struct client_inode *in, uint32_t block)
{
    uint32_t lo = 0, hi = in->extent_count;
    while (lo < hi) {
        uint32_t mid = lo + (hi - lo) / 2;
        if (in->extents[mid].block < block)
            lo = mid + 1;
        else
            hi = mid;
    }
    return lo;
}

struct client_extent *client_extent_find(const struct client_inode *in, uint32_t block)
{
    uint32_t i = extent_place(in, block);
    return i < in->extent_count && in->extents[i].block == block ? &in->extents[i] : NULL;
}

static int extent_make_room(struct client_inode *in)
{
    if (in->extent_count < in->extent_room)
        return 0;
    uint32_t room = in->extent_room ? in->extent_room * 2 : 4;
    struct client_extent *e = reallocarray(in->extents, room, sizeof(*e));
    if (!e)
        return -ENOMEM;
    in->extents = e;
    in->extent_room = room;
    return 0;
}

/* Under the lock. The same grant keeps what was written under it here. */
int client_extent_put(struct client_inode *in, const struct rec_extent *r, bool granted)
{
    uint32_t i = extent_place(in, r->block);
    bool there = i < in->extent_count && in->extents[i].block == r->block;
    if (r->valid_length > client_block_bytes(in) || r->replicas.n % 8 || !r->replicas.n)
        return -CV_BAD_MESSAGE;
    if (there && in->extents[i].epoch > r->epoch) /* older than what we have */
        return 0;
    if (!there) {
        int err = extent_make_room(in);
        if (err < 0)
            return err;
        memmove(&in->extents[i + 1], &in->extents[i], (in->extent_count - i) * sizeof(in->extents[0]));
        in->extent_count++;
        in->extents[i] = (struct client_extent){.block = r->block};
    }
    struct client_extent *e = &in->extents[i];
    bool same = there && e->version == r->version && e->epoch == r->epoch;
    e->granted = granted || (same && e->granted);
    e->ours = granted || (same && e->ours);
    e->valid = same ? max(e->valid, r->valid_length) : r->valid_length;
    e->committed = same ? max(e->committed, r->valid_length) : r->valid_length;
    e->version = r->version;
    e->epoch = r->epoch;
    e->replica_count = (uint8_t)min(r->replicas.n / 8, (uint32_t)CLIENT_REPLICAS_MAX);
    for (unsigned k = 0; k < e->replica_count; k++)
        e->replicas[k] = get_le64(r->replicas.p + (size_t)8 * k);
    return 0;
}

/* Those of [first, end) that the answer does not name are gone. */
static void drop_extents(struct client_inode *in, const struct rec_layout *l, uint32_t first, uint32_t end)
{
    uint32_t to = extent_place(in, first);
    for (uint32_t i = to; i < in->extent_count; i++) {
        bool named = in->extents[i].block >= end;
        rec_for_each (extent, r, &l->extents)
            named |= r.block == in->extents[i].block;
        if (named)
            in->extents[to++] = in->extents[i];
    }
    in->extent_count = to;
}

/* ---- layouts ------------------------------------------------------------------------------------------------------------- */

static int set_inline(struct client_inode *in, struct text data)
{
    if (in->inline_dirty) /* ours is newer */
        return 0;
    struct client_bytes *b = NULL;
    if (data.n) {
        b = client_bytes_new(data.n);
        if (!b)
            return -ENOMEM;
        memcpy(b->p, data.p, data.n);
    }
    client_bytes_unref(in->inline_data);
    in->inline_data = b;
    return 0;
}

int client_layout_apply(struct client_inode *in, const struct rec_layout *l, bool whole)
{
    if (l->block_shift && (l->block_shift < SHIFT_MIN || l->block_shift > SHIFT_MAX))
        return -CV_BAD_MESSAGE;
    int r = 0;
    pthread_rwlock_wrlock(&in->lock);
    if (l->block_shift)
        in->shift = l->block_shift;
    in->base_version = l->base_version;
    in->base_bytes = l->base_bytes;
    in->mount = l->mount;
    in->flags = l->flags;
    /* The content went to block 0 here and the master does not know it yet: it names the inline content alone. */
    bool converted = l->inline_data.n && in->extent_count && !in->inline_data && client_inode_dirty(in);
    uint32_t end = l->next_block ? l->next_block : UINT32_MAX;
    if (!converted)
        drop_extents(in, l, l->first_block, end);
    rec_for_each (extent, e, &l->extents)
        if (r == 0)
            r = client_extent_put(in, &e, false);
    if (whole || l->first_block <= in->known_end || !in->next_known) {
        in->next_known = l->next_block != 0;
        in->known_end = l->next_block ? l->next_block : 0;
    }
    if (r == 0 && l->first_block == 0 && !converted)
        r = set_inline(in, l->inline_data);
    pthread_rwlock_unlock(&in->lock);
    client_chunks_drop_stale(in);
    return r;
}

void client_attr_apply(struct client_inode *in, const struct curvine_attr *attr, uint32_t lease_ms, uint64_t sent_ns)
{
    in->lease_ms = max(lease_ms, (uint32_t)LEASE_MIN_MS);
    if (in->version && attr->version != in->version) /* written blocks may have been written again */
        client_chunks_drop(in, 0, 0, UINT32_MAX);
    in->version = attr->version;
    pthread_rwlock_wrlock(&in->lock);
    if (!client_inode_dirty(in)) {
        in->size = attr->size;
        in->size_next = list_empty(&in->writes) ? attr->size : max(in->size_next, attr->size);
        in->mtime_ns = attr->mtime_ns;
    }
    in->until_ns = min(sent_ns + in->lease_ms * NS_PER_MS, in->cv->session_until_ns);
    pthread_rwlock_unlock(&in->lock);
}

void client_layout_expire(struct client_inode *in)
{
    in->until_ns = 0;
}

bool client_layout_ready(struct client_inode *in, uint32_t block)
{
    return clock_ns() < in->until_ns && (!in->next_known || block < in->known_end);
}

static void on_layout(struct client_master_call *m, int result)
{
    struct client_inode *in = m->user;
    struct msg_layout_answer a;
    uint64_t sent_ns = m->q.offset;
    if (result == 0)
        result = msg_layout_answer_decode(m->answer.p, m->answer.n, &a);
    if (result == 0 && in->layout_generation == in->generation) {
        struct curvine_attr attr = {.size = a.attr.size, .mtime_ns = a.attr.mtime_ns, .version = a.attr.version};
        result = client_layout_apply(in, &a.layout, false);
        if (result == 0)
            client_attr_apply(in, &attr, a.lease_ms, sent_ns);
        in->index = max(in->index, m->q.index);
    }
    client_master_call_fini(m);
    free(m);
    in->layout_call = NULL;
    bool alone = result < 0 && client_worker_error(result) && in->until_ns; /* what is cached stays readable */
    if (alone)
        in->until_ns = clock_ns() + ALONE_MS * NS_PER_MS;
    in->ios++;
    if (result < 0 && !alone)
        client_io_wake_error(&in->layout_waiting, result);
    else
        client_io_wake(&in->layout_waiting);
    in->ios--;
    client_inode_put(in);
}

void client_layout_want(struct client_inode *in, uint32_t block, uint64_t deadline_ns)
{
    if (in->layout_call || in->cv->state == CLIENT_CLOSING)
        return;
    struct client_master_call *m = calloc(1, sizeof(*m));
    if (!m)
        return; /* the next tick or the deadline */
    m->user = in;
    in->layout_call = m;
    in->layout_generation = in->generation;
    bool more = in->next_known && block >= in->known_end && clock_ns() < in->until_ns;
    struct msg_layout q = {.inode = in->inode, .first_block = more ? in->known_end : 0};
    client_head(in, &q.head);
    m->q.offset = clock_ns();
    client_master_call(in->cv, m, MSG_layout, false, false, msg_layout_desc(), &q,
                       min(deadline_ns, clock_ns() + LAYOUT_TIME_MS * NS_PER_MS), on_layout);
}

/* ---- blocks as messages name them ---------------------------------------------------------------------------------------------- */

uint32_t client_base_length(const struct client_inode *in, uint32_t block)
{
    uint64_t start = (uint64_t)block << in->shift;
    return in->base_bytes > start ? (uint32_t)min(in->base_bytes - start, (uint64_t)client_block_bytes(in)) : 0;
}

void client_block_desc(const struct client_inode *in, uint32_t block, struct rec_block *ret)
{
    const struct client_extent *e = client_extent_find(in, block);
    uint32_t base = client_base_length(in, block);
    *ret = (struct rec_block){
        .inode = in->inode,
        .index = block,
        .version = e ? e->version : in->base_version,
        .epoch = e ? e->epoch : 0,
        .valid_length = e ? e->valid : base,
        .base_version = in->base_version,
        .base_length = base,
        .block_bytes = client_block_bytes(in),
        .file_bytes = max(in->size, in->base_bytes),
        .mount = in->mount,
    };
}

/* Written: its replicas, one of this host first. Otherwise the block's own order, those that are up first, and then anybody. */
unsigned client_block_owners(struct client_inode *in, uint32_t block, uint64_t ret[CLIENT_OWNERS_MAX])
{
    struct client_content *c = in->cv->content;
    const struct client_extent *e = client_extent_find(in, block);
    unsigned n = 0;
    if (e) {
        for (unsigned local = 2; local-- > 0;)
            for (unsigned i = 0; i < e->replica_count; i++) {
                struct client_worker *w = client_worker_find(in->cv, e->replicas[i]);
                if ((w && client_worker_is_local(w)) == !!local)
                    ret[n++] = e->replicas[i];
            }
        return n;
    }
    uint64_t order[CLIENT_OWNERS_MAX];
    unsigned count = place_order(c->members, c->worker_count, in->inode, block, CLIENT_OWNERS_MAX, order);
    for (unsigned up = 2; up-- > 0;)
        for (unsigned i = 0; i < count; i++) {
            struct client_worker *w = client_worker_find(in->cv, order[i]);
            if (w && w->up == !!up)
                ret[n++] = order[i];
        }
    return n;
}

/* ---- attributes in answers ---------------------------------------------------------------------------------------------------- */

/* Of an inode that is written here: the master does not know everything yet, or the answer is older than our commit. */
void client_attr_patch(struct curvine *cv, struct curvine_attr *attr, uint64_t index)
{
    struct client_inode *in = attr->inode && cv->content->inode_count ? client_inode_find(cv, attr->inode) : NULL;
    if (!in)
        return;
    if (client_inode_dirty(in) || (index && index < in->index)) {
        attr->size = in->size;
        attr->blocks = (in->size + 511) / 512;
        attr->mtime_ns = max(attr->mtime_ns, in->mtime_ns);
        attr->ctime_ns = max(attr->ctime_ns, in->mtime_ns);
    } else if (attr->version != in->version && in->version)
        client_layout_expire(in); /* somebody else changed it */
}
