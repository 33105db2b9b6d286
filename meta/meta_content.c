/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Where content lies: layouts, extent rows, inline rows, and what a new size does to them.
 *
 *      inline row          the whole content, up to INLINE_MAX bytes, as long as no block was committed
 *      extent row          a written block: version, epoch, valid length, replicas
 *      neither             bytes [0, base_bytes) are the under file system's, everything else zeros
 *
 * Setting the size ends every grant of the file: rows behind the new end go, the row the end lies in gets a new epoch, so
 * that a worker or writer that knows it by the old one is refused. That is done whichever way the size moves, since
 * blocks may be granted, and written, far behind the size known here.
 */
#include "meta/meta_core.h"
#include "wire/meta_flags.h"

uint32_t base_length_of(const struct meta_inode *i, uint32_t block)
{
    uint64_t from = (uint64_t)block << block_shift_of(i), most = 1ull << block_shift_of(i);
    return i->base_bytes > from ? (uint32_t)min(i->base_bytes - from, most) : 0;
}

void layout_head(const struct run *u, const struct meta_inode *i, bool writer, struct rec_layout *ret)
{
    *ret = (struct rec_layout){
        .base_version = i->base_version,
        .base_bytes = i->base_bytes,
        .block_shift = (uint8_t)block_shift_of(i),
        .replicas = i->replicas ? i->replicas : (uint8_t)u->m->options.replicas,
        .mount = i->mount,
    };
    if (read_only(u, i->mount))
        ret->flags |= LAYOUT_READ_ONLY;
    if (writer && handle_shared(&u->m->sessions, i->id, u->q->caller.session))
        ret->flags |= LAYOUT_SHARED;
}

/* --- rows ----------------------------------------------------------------------------------------------------------------- */

int extent_see(struct run *u, uint64_t inode, uint32_t block, struct meta_extent *ret)
{
    uint8_t key[META_KEY_MAX];
    struct text value;
    int r = see_row(u, META_TABLE_extent, key_of(key, meta_key_extent(inode, block, key)), &value);
    return r < 0 ? r : meta_extent_decode(value, ret);
}

void extent_put(struct run *u, uint64_t inode, uint32_t block, const struct meta_extent *e)
{
    uint8_t key[META_KEY_MAX], value[128];
    struct text row = key_of(value, meta_extent_encode(e, value));
    put_row(u, META_TABLE_extent, key_of(key, meta_key_extent(inode, block, key)), row);
}

int extent_append(struct run *u, uint32_t block, const struct meta_extent *e)
{
    uint8_t replicas[META_REPLICAS_MAX * 8];
    for (uint32_t i = 0; i < e->replica_count; i++)
        put_le64(replicas + 8ul * i, e->replicas[i]);
    const struct rec_extent x = {.block = block,
                                 .version = e->version,
                                 .epoch = e->epoch,
                                 .valid_length = e->valid_length,
                                 .replicas = key_of(replicas, 8 * e->replica_count)};
    return rec_extent_append(&u->q->data, &x);
}

int inline_see(struct run *u, const struct meta_inode *i, struct text *ret)
{
    uint8_t key[META_KEY_MAX];
    *ret = (struct text){NULL, 0};
    if (!(i->flags & INODE_HAS_INLINE))
        return 0;
    int r = see_row(u, META_TABLE_inline, key_of(key, meta_key_id(META_TABLE_inline, i->id, key)), ret);
    if (r < 0)
        return r == -ENOENT ? -CV_BAD_FORMAT : r;
    if (ret->n == 0 || (uint8_t)ret->p[0] != META_ROW_VERSION)
        return ret->n && (uint8_t)ret->p[0] > META_ROW_VERSION ? -CV_FORMAT_TOO_NEW : -CV_BAD_FORMAT;
    *ret = (struct text){ret->p + 1, ret->n - 1};
    return ret->n > INLINE_MAX ? -CV_BAD_FORMAT : 0;
}

void inline_drop(struct run *u, struct meta_inode *i)
{
    uint8_t key[META_KEY_MAX];
    put_no_row(u, META_TABLE_inline, key_of(key, meta_key_id(META_TABLE_inline, i->id, key)));
    i->flags &= ~(uint32_t)INODE_HAS_INLINE;
}

static int extents_see(struct run *u, uint64_t inode, uint32_t first, uint32_t most, struct rec_layout *ret)
{
    struct scan s;
    uint8_t key[META_KEY_MAX];
    struct text k, value;
    struct meta_extent e;
    uint32_t n = 0;
    int r = scan_init(&s, u, META_TABLE_extent, key_of(key, meta_key_extent(inode, first, key)), 8, most + 1, false);
    while (r == 0 && (r = scan_next(&s, &k, &value)) == 0) {
        uint32_t block = get_be32(k.p + 8);
        if (n == most) {
            ret->next_block = block;
            break;
        }
        r = meta_extent_decode(value, &e);
        if (r == 0)
            r = extent_append(u, block, &e);
        n++;
    }
    scan_fini(&s);
    ret->extents = wire_list_of(&u->q->data, n);
    return r == -ENODATA ? 0 : r;
}

int layout_see(struct run *u, const struct meta_inode *i, uint32_t first, uint32_t most, bool writer,
               struct rec_layout *ret)
{
    struct text data;
    layout_head(u, i, writer, ret);
    ret->first_block = first;
    u->q->data.n = 0;
    if (!S_ISREG(i->mode))
        return 0;
    int r = inline_see(u, i, &data);
    if (r == 0 && data.n) /* blocks that are granted do not count yet */
        r = buf_append(&u->q->data, data.p, data.n);
    if (r < 0)
        return r;
    ret->inline_data = key_of(u->q->data.p, data.n);
    return !data.n && i->flags & INODE_HAS_EXTENTS ? extents_see(u, i->id, first, most, ret) : 0;
}

/* --- a new size ----------------------------------------------------------------------------------------------------------- */

/* See, or if `remove` remove, the rows behind the new end. */
static int cut_rows(struct run *u, const struct meta_inode *i, struct cut *c, bool remove)
{
    struct scan s;
    uint8_t key[META_KEY_MAX];
    struct text k, value;
    uint32_t shift = block_shift_of(i), n = 0;
    bool inside = c->size & ((1ull << shift) - 1);
    if (c->size >> shift > UINT32_MAX)
        return 0;
    c->boundary = (uint32_t)(c->size >> shift);
    int r = scan_init(&s, u, META_TABLE_extent, key_of(key, meta_key_extent(i->id, c->boundary, key)), 8, 1024, false);
    while (r == 0 && (r = scan_next(&s, &k, &value)) == 0) {
        uint32_t block = get_be32(k.p + 8);
        if (inside && block == c->boundary) {
            if (!remove)
                r = meta_extent_decode(value, &c->extent);
            c->has_boundary = true;
            continue;
        }
        memcpy(key, k.p, k.n);
        if (remove)
            put_no_row(u, META_TABLE_extent, key_of(key, k.n));
        if (++n > CUT_ROWS_MAX)
            r = -EFBIG;
    }
    scan_fini(&s);
    c->rows = n;
    return r == -ENODATA ? 0 : r;
}

int cut_see(struct run *u, const struct meta_inode *i, uint64_t size, struct cut *ret)
{
    *ret = (struct cut){.size = size, .boundary = (uint32_t)min(size >> block_shift_of(i), (uint64_t)UINT32_MAX)};
    int r = see_capability(u, i);
    ret->capability = r == 0;
    if (r < 0 && r != -ENOENT)
        return r;
    r = inline_see(u, i, &ret->inlined);
    return r == 0 && i->flags & INODE_HAS_EXTENTS ? cut_rows(u, i, ret, false) : r;
}

int cut_reserve(struct run *u, const struct cut *c, uint32_t rows, uint64_t bytes)
{
    return put_reserve(u, rows + c->rows + 3,
                       bytes + 32ull * c->rows + EXTENT_BYTES + PUT_NAME_BYTES + INLINE_MAX + 32);
}

static void cut_inline(struct run *u, struct meta_inode *i, const struct cut *c)
{
    uint8_t key[META_KEY_MAX], value[INLINE_MAX + 1] = {META_ROW_VERSION};
    if (c->inlined.n <= c->size || !c->inlined.n)
        return;
    if (c->size == 0) {
        inline_drop(u, i);
        return;
    }
    memcpy(value + 1, c->inlined.p, c->size);
    put_row(u, META_TABLE_inline, key_of(key, meta_key_id(META_TABLE_inline, i->id, key)),
            key_of(value, (uint32_t)c->size + 1));
}

void cut_put(struct run *u, struct meta_inode *i, struct cut *c)
{
    uint32_t inside = (uint32_t)(c->size & ((1ull << block_shift_of(i)) - 1));
    cut_inline(u, i, c);
    if (i->flags & INODE_HAS_EXTENTS) {
        i->epoch = next_epoch(u, i);
        int r = c->rows ? cut_rows(u, i, c, true) : 0;
        assert(r == 0);
        if (c->has_boundary) {
            c->extent.epoch = i->epoch;
            c->extent.valid_length = min(c->extent.valid_length, inside);
            extent_put(u, i->id, c->boundary, &c->extent);
        }
        if (c->size == 0)
            i->flags &= ~(uint32_t)INODE_HAS_EXTENTS;
        handle_end_grants(&u->m->sessions, i->id, 0);
    }
    u->m->now.bytes += c->size - i->size;
    i->size = c->size;
    i->base_bytes = min(i->base_bytes, c->size);
    content_changed(u, i);
    if (c->capability)
        put_no_capability(u, i);
    put_op(u, REDO_truncate, i->id, c->size, i->epoch);
}

/* --- shared --------------------------------------------------------------------------------------------------------------- */

void content_changed(struct run *u, struct meta_inode *i)
{
    i->change++;
    i->mtime_ns = i->ctime_ns = (int64_t)u->now_ns;
    i->mode = mode_after_write(&u->q->caller, i);
    if (i->mount) {
        i->flags |= INODE_DIRTY;
        mount_written(u, i->mount);
    }
}

struct handle *write_handle(const struct run *u, uint64_t handle, uint64_t inode)
{
    struct handle *h = handle ? handle_find(&u->m->sessions, handle) : NULL;
    bool ours = h && h->by_inode.key == inode && h->session->link.key == u->q->caller.session;
    return ours && handle_writes(h) ? h : NULL;
}

void close_handle(struct run *u, struct handle *h)
{
    struct session_table *t = &u->m->sessions;
    uint64_t inode = h->by_inode.key;
    bool orphan = h->orphan;
    handle_remove(t, h);
    if (orphan && !handle_any(t, inode))
        purge_wanted(u->m, inode);
}
