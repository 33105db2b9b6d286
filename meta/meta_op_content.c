/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Content: where it is, who may write which block, and what was written.
 *
 * A grant gives each block a row with a new version and the file's next epoch, unless the session has it already. What the
 * session has is kept with its open handles: rows from an epoch on are its own, until another session is granted anything
 * of the file or the size is set; so an epoch that was undone and is given to another is no danger. That is less than the
 * truth, never more: whoever asks in vain for what he has gets a new epoch, and workers refuse older ones.
 */
#include "meta/meta_op.h"
#include "wire/meta_flags.h"

#define GRANT_BLOCKS_MAX 64u

int op_layout(struct run *u)
{
    const struct msg_layout *msg = &u->q->message.layout;
    struct msg_layout_answer *a = &u->q->answer.layout;
    struct meta_inode i;
    int r = see_target(u, msg->inode, &i);
    if (r == 0)
        r = layout_see(u, &i, msg->first_block, msg->count ? min(msg->count, EXTENTS_PAGE) : EXTENTS_PAGE, true,
                       &a->layout);
    if (r < 0)
        return r;
    attr_fill(&a->attr, &i);
    a->lease_ms = u->m->options.lease_ms;
    return 0;
}

/* --- grants --------------------------------------------------------------------------------------------------------------- */

struct grant {
    struct run *u;
    struct meta_inode inode;
    struct text inlined;
    struct {
        uint32_t block;
        bool old, ours; /* there is a row; and it may stay as it is */
        struct meta_extent row;
    } blocks[GRANT_BLOCKS_MAX + 1];
    uint32_t count, fresh; /* fresh: those that get a new row */
};

static int grant_see_block(struct grant *g, uint32_t block)
{
    uint32_t n = g->count++;
    g->blocks[n].block = block;
    g->blocks[n].ours = false;
    int r = g->inode.flags & INODE_HAS_EXTENTS ? extent_see(g->u, g->inode.id, block, &g->blocks[n].row) : -ENOENT;
    g->blocks[n].old = r == 0;
    return r == -ENOENT ? 0 : r;
}

static int grant_see(struct grant *g, struct run *u, const struct msg_write_grant *msg)
{
    g->u = u;
    g->count = g->fresh = 0;
    g->inlined = (struct text){NULL, 0};
    int r = see_target(u, msg->inode, &g->inode), missing = 0;
    if (r < 0)
        return r;
    if (!S_ISREG(g->inode.mode))
        return S_ISDIR(g->inode.mode) ? -EISDIR : -EINVAL;
    if (!msg->count || msg->count > GRANT_BLOCKS_MAX || (uint64_t)msg->first_block + msg->count > 1ull << 32)
        return -EINVAL;
    if (read_only(u, g->inode.mount))
        return -CV_READ_ONLY_MOUNT;
    r = inline_see(u, &g->inode, &g->inlined);
    if (r < 0)
        return r;
    if (g->inlined.n && msg->first_block) /* what is inline is to be written there */
        missing = grant_see_block(g, 0);
    for (uint32_t k = 0; k < msg->count; k++) {
        r = grant_see_block(g, msg->first_block + k);
        if (r < 0 && r != -CV_NOT_PREPARED)
            return r;
        missing = r < 0 ? r : missing; /* ask for all at once */
    }
    return missing;
}

/* Who keeps the blocks that have no row yet; nothing is changed here. */
static int grant_place(struct grant *g, uint64_t near)
{
    struct meta *m = g->u->m;
    uint32_t wanted = g->inode.replicas ? g->inode.replicas : m->options.replicas;
    wanted = min(wanted, (uint32_t)META_REPLICAS_MAX);
    for (uint32_t k = 0; k < g->count; k++) {
        struct meta_extent *row = &g->blocks[k].row;
        if (g->blocks[k].old)
            continue;
        *row = (struct meta_extent){.valid_length = base_length_of(&g->inode, g->blocks[k].block)};
        if (m->place)
            row->replica_count = m->place(m->place_arg, g->inode.id, g->blocks[k].block, near, wanted, row->replicas);
        assert(row->replica_count <= wanted);
        if (!row->replica_count)
            return -CV_NO_SPACE;
    }
    return 0;
}

/* A worker may hold newer bytes of a block from the part of the log that was given up, and what tells them from what we know
 * is the row as it is. So it stays until each worker in it has asked about all it holds. */
static bool grant_unchecked(const struct grant *g)
{
    const struct meta *m = g->u->m;
    for (uint32_t k = 0; k < g->count && m->checked; k++) {
        const struct meta_extent *row = &g->blocks[k].row;
        if (!g->blocks[k].old || g->blocks[k].ours || row->version >= incarnation_base(m->incarnation))
            continue;
        for (uint32_t w = 0; w < row->replica_count; w++)
            if (!m->checked(m->place_arg, row->replicas[w]))
                return true;
    }
    return false;
}

static void grant_put(struct grant *g, struct handle *h, uint64_t from)
{
    struct run *u = g->u;
    struct meta_inode *i = &g->inode;
    i->epoch = next_epoch(u, i);
    for (uint32_t k = 0; k < g->count; k++) {
        if (g->blocks[k].ours)
            continue;
        g->blocks[k].row.version = g->blocks[k].row.epoch = i->epoch;
        extent_put(u, i->id, g->blocks[k].block, &g->blocks[k].row);
    }
    i->flags |= INODE_HAS_EXTENTS | (i->mount ? INODE_DIRTY : 0);
    if (i->mount)
        mount_written(u, i->mount);
    put_inode(u, i);
    put_op(u, REDO_write_grant, i->id, u->q->message.write_grant.first_block, i->epoch);
    handle_end_grants(&u->m->sessions, i->id, u->q->caller.session);
    h->granted = from ? from : i->epoch;
    h->granted_to = i->epoch;
}

static int grant_answer(struct grant *g)
{
    struct msg_write_grant_answer *a = &g->u->q->answer.write_grant;
    struct buf *data = &g->u->q->data;
    layout_head(g->u, &g->inode, true, &a->layout);
    a->layout.first_block = g->u->q->message.write_grant.first_block;
    data->n = 0;
    int r = 0;
    for (uint32_t k = 0; k < g->count && r == 0; k++)
        r = extent_append(g->u, g->blocks[k].block, &g->blocks[k].row);
    size_t at = data->n;
    if (r == 0 && g->inlined.n)
        r = buf_append(data, g->inlined.p, g->inlined.n);
    if (r < 0)
        return r;
    a->layout.extents = (struct wire_list){data->p, (uint32_t)at, g->count};
    a->layout.inline_data = key_of(data->p + at, g->inlined.n);
    attr_fill(&a->attr, &g->inode);
    return 0;
}

int op_write_grant(struct run *u)
{
    const struct msg_write_grant *msg = &u->q->message.write_grant;
    struct grant g; /* large: only what is used is set */
    int r = grant_see(&g, u, msg);
    if (r < 0)
        return r;
    struct handle *h = write_handle(u, msg->handle, msg->inode);
    if (!h)
        return -EBADF;
    if (u->dry)
        return 0;
    uint64_t from = handle_granted(&u->m->sessions, msg->inode, u->q->caller.session);
    for (uint32_t k = 0; k < g.count; k++) {
        g.blocks[k].ours = g.blocks[k].old && from && g.blocks[k].row.epoch >= from;
        g.fresh += !g.blocks[k].ours;
    }
    if (g.fresh) {
        r = grant_unchecked(&g) ? -CV_NO_SPACE : grant_place(&g, msg->near);
        if (r == 0)
            r = put_reserve(u, g.fresh + 1, PUT_INODE_BYTES + (uint64_t)g.fresh * EXTENT_BYTES);
        if (r < 0)
            return r;
        grant_put(&g, h, from);
    }
    u->result.inode = msg->inode;
    u->result.other = g.inode.epoch;
    return grant_answer(&g);
}

/* The same request came again: its rows, unless somebody else was given one of them meanwhile. */
int write_grant_again(struct run *u)
{
    const struct msg_write_grant *msg = &u->q->message.write_grant;
    struct grant g; /* large: only what is used is set */
    int r = grant_see(&g, u, msg);
    if (r < 0)
        return r == -ESTALE ? -CV_STALE_EPOCH : r;
    for (uint32_t k = 0; k < g.count; k++)
        if (!g.blocks[k].old || g.blocks[k].row.epoch > u->result.other)
            return -CV_STALE_EPOCH;
    return grant_answer(&g);
}

/* --- grants of sessions that ended ------------------------------------------------------------------------------------- */

#define FENCE_ROWS 1000u

/* See, or if `put` put under a new epoch, the rows of an ended session. */
static int fence_rows(struct run *u, const struct meta_inode *i, bool put, uint32_t *rows)
{
    const struct meta_fence *f = &u->q->fence;
    struct scan s;
    uint8_t key[META_KEY_MAX];
    struct text k, value;
    struct meta_extent e;
    *rows = 0;
    int r = scan_init(&s, u, META_TABLE_extent, key_of(key, meta_key_inode(i->id, key)), 8, FENCE_ROWS, false);
    while (r == 0 && *rows < FENCE_ROWS && (r = scan_next(&s, &k, &value)) == 0) {
        uint32_t block = get_be32(k.p + 8);
        r = meta_extent_decode(value, &e);
        if (r < 0 || e.epoch < f->from || e.epoch > f->to)
            continue;
        e.epoch = i->epoch;
        if (put)
            extent_put(u, i->id, block, &e);
        ++*rows;
    }
    scan_fini(&s);
    return r == -ENODATA ? 0 : r;
}

/* What it still writes is refused from the first contact of anybody else on. */
int inner_fence(struct run *u)
{
    struct meta_inode i;
    uint32_t rows;
    int r = see_inode(u, u->q->fence.inode, &i);
    if (r == -ENOENT || (r == 0 && !(i.flags & INODE_HAS_EXTENTS)))
        return 0;
    if (r == 0)
        r = fence_rows(u, &i, false, &rows);
    if (r < 0 || u->dry || !rows)
        return r;
    r = put_reserve(u, rows + 1, PUT_INODE_BYTES + (uint64_t)rows * EXTENT_BYTES);
    if (r == 0 && rows == FENCE_ROWS) /* there may be more */
        r = buf_append(&u->m->fences, &u->q->fence, sizeof(u->q->fence));
    if (r < 0)
        return r;
    i.epoch = next_epoch(u, &i);
    r = fence_rows(u, &i, true, &rows);
    assert(r == 0);
    put_inode(u, &i);
    put_op(u, REDO_fence, i.id, rows, i.epoch);
    return 0;
}

/* --- commits -------------------------------------------------------------------------------------------------------------- */

/* All rows there, with the versions and epochs they were written under. */
static int lengths_see(struct run *u, const struct meta_inode *i, const struct msg_write_commit *msg)
{
    bool block_0 = false;
    int missing = 0;
    if (msg->lengths.count > COMMIT_LENGTHS_MAX || msg->valid & COMMIT_INLINE)
        return -EINVAL;
    rec_for_each (written_length, w, &msg->lengths) {
        struct meta_extent row;
        block_0 |= w.block == 0;
        if (w.valid_length > 1u << block_shift_of(i))
            return -EINVAL;
        int r = i->flags & INODE_HAS_EXTENTS ? extent_see(u, i->id, w.block, &row) : -ENOENT;
        if (r == -CV_NOT_PREPARED) {
            missing = r;
            continue;
        }
        if (r == -ENOENT || (r == 0 && (row.version != w.version || row.epoch != w.epoch)))
            return -CV_STALE_EPOCH;
        if (r < 0)
            return r;
    }
    return missing < 0 ? missing : i->flags & INODE_HAS_INLINE && !block_0 ? -EINVAL : 0;
}

static int commit_see(struct run *u, const struct meta_inode *i, const struct msg_write_commit *msg)
{
    uint32_t v = msg->valid;
    if (v & COMMIT_SIZE && msg->size > FILE_BYTES_MAX)
        return -EFBIG;
    if (v & COMMIT_INLINE) {
        if (msg->inline_data.n > INLINE_MAX)
            return -EINVAL;
        if (i->base_bytes || i->flags & INODE_HAS_EXTENTS)
            return -CV_STALE_EPOCH;
    }
    return v & COMMIT_LENGTHS ? lengths_see(u, i, msg) : 0;
}

static void lengths_put(struct run *u, struct meta_inode *i, const struct msg_write_commit *msg)
{
    rec_for_each (written_length, w, &msg->lengths) {
        struct meta_extent row;
        int r = extent_see(u, i->id, w.block, &row); /* again: one block may be named twice */
        assert(r == 0);
        if (w.valid_length <= row.valid_length)
            continue;
        row.valid_length = w.valid_length;
        extent_put(u, i->id, w.block, &row);
    }
    if (i->flags & INODE_HAS_INLINE)
        inline_drop(u, i);
}

static void inline_put(struct run *u, struct meta_inode *i, struct text data)
{
    uint8_t key[META_KEY_MAX], value[INLINE_MAX + 1] = {META_ROW_VERSION};
    if (!data.n) {
        if (i->flags & INODE_HAS_INLINE)
            inline_drop(u, i);
        return;
    }
    memcpy(value + 1, data.p, data.n);
    put_row(u, META_TABLE_inline, key_of(key, meta_key_id(META_TABLE_inline, i->id, key)), key_of(value, data.n + 1));
    i->flags |= INODE_HAS_INLINE;
}

static void commit_put(struct run *u, struct meta_inode *i, const struct msg_write_commit *msg, bool capability)
{
    uint32_t v = msg->valid;
    uint64_t size = v & COMMIT_INLINE ? msg->inline_data.n : i->size;
    if (v & COMMIT_SIZE)
        size = max(size, msg->size);
    content_changed(u, i); /* always: what was written over what was there says nothing but when */
    if (v & COMMIT_LENGTHS)
        lengths_put(u, i, msg);
    if (v & COMMIT_INLINE)
        inline_put(u, i, msg->inline_data);
    if (v & COMMIT_MTIME) {
        i->mtime_ns = (int64_t)msg->mtime_ns;
        i->ctime_ns = (int64_t)u->now_ns;
    }
    if (capability)
        put_no_capability(u, i);
    u->m->now.bytes += size - i->size;
    i->size = size;
    put_inode(u, i);
    put_op(u, REDO_write_commit, i->id, size, v);
}

int op_write_commit(struct run *u)
{
    const struct msg_write_commit *msg = &u->q->message.write_commit;
    struct msg_write_commit_answer *a = &u->q->answer.write_commit;
    const uint32_t all = COMMIT_SIZE | COMMIT_MTIME | COMMIT_LENGTHS | COMMIT_INLINE;
    struct meta_inode i;
    if (msg->valid & ~(all | COMMIT_CLOSE))
        return -EINVAL;
    int r = see_target(u, msg->inode, &i);
    if (r < 0)
        return r;
    struct handle *h = write_handle(u, msg->handle, i.id);
    if (!h && msg->valid != COMMIT_CLOSE)
        return -EBADF;
    if (msg->valid & all && read_only(u, i.mount))
        return -CV_READ_ONLY_MOUNT;
    r = commit_see(u, &i, msg);
    if (r < 0)
        return r;
    int capability = msg->valid & all ? see_capability(u, &i) : -ENOENT;
    if (capability < 0 && capability != -ENOENT)
        return capability;
    if (u->dry)
        return 0;
    if (msg->valid & all) {
        r = put_reserve(u, msg->lengths.count + 3,
                        PUT_INODE_BYTES + PUT_NAME_BYTES + INLINE_MAX + 32 +
                            (uint64_t)msg->lengths.count * EXTENT_BYTES);
        if (r < 0)
            return r;
        commit_put(u, &i, msg, capability == 0);
    }
    if (h && msg->valid & COMMIT_CLOSE)
        close_handle(u, h);
    u->result.inode = i.id;
    attr_fill(&a->attr, &i);
    a->lease_ms = u->m->options.lease_ms;
    return 0;
}

/* The first time may have been under another leader, to whom the handle was closed but not to us. */
void write_commit_again(struct run *u)
{
    const struct msg_write_commit *msg = &u->q->message.write_commit;
    struct handle *h = write_handle(u, msg->handle, msg->inode);
    if (!u->dry && h && msg->valid & COMMIT_CLOSE)
        close_handle(u, h);
}
