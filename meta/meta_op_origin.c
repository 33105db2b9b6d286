/* SPDX-License-Identifier: Apache-2.0 */
/* What workers ask: where the content of a file comes from, and whether what they hold is still anybody's. */
#include "meta/meta_op.h"

#define CHECK_BLOCKS_MAX 2048u
#define YOUNG_NS         (3600ll * 1000000000)

int op_origin(struct run *u)
{
    struct msg_origin_answer *a = &u->q->answer.origin;
    struct meta_inode i;
    struct text at;
    char key[META_ORIGIN_KEY_MAX];
    int r = see_inode(u, u->q->message.origin.inode, &i);
    if (r < 0)
        return r;
    if (!S_ISDIR(i.mode) && (!S_ISREG(i.mode) || !i.base_version)) /* of a directory: what its names' keys begin with */
        return -ENODATA;
    *a = (struct msg_origin_answer){.mount = i.mount,
                                    .version = i.base_version,
                                    .base_bytes = i.base_bytes,
                                    .mtime_ns = i.ufs_mtime_ns,
                                    .size = i.ufs_length,
                                    .parent = i.parent};
    uint32_t etag = i.ufs_etag.n;
    r = origin_key(u, &i, key, &at);
    if (r == 0)
        r = buf_append(&u->q->data, i.ufs_etag.p, etag);
    if (r == 0)
        r = buf_append(&u->q->data, at.p, at.n);
    bool below = r == 0 && S_ISDIR(i.mode) && i.id != kept_find(&u->m->mounts, i.mount)->mount.inode;
    if (below) {
        r = buf_append(&u->q->data, "/", 1);
        at.n++;
    }
    if (r < 0)
        return r;
    a->etag = key_of(u->q->data.p, etag);
    a->key = key_of(u->q->data.p + etag, at.n);
    return 0;
}

/* --- blocks nobody may want any more ------------------------------------------------------------------------------------------ */

static bool keeps(const struct meta_extent *row, uint64_t worker)
{
    for (uint32_t k = 0; k < row->replica_count; k++)
        if (row->replicas[k] == worker)
            return true;
    return false;
}

/* Of an earlier incarnation, and newer than what we know: given out in the part of the log that was given up. */
static bool given_up(const struct meta *m, uint64_t held, uint64_t known)
{
    return held > known && held < incarnation_base(m->incarnation);
}

/* The same of a block that has a row. Its epoch alone does not tell any more once it was raised in our time, by the end of a
 * session or by a cut; the version is still that of the last grant then. (A grant raises both: it waits, grant_unchecked().) */
static bool is_given_up(const struct meta *m, const struct rec_held_block *h, const struct meta_extent *row)
{
    return given_up(m, h->epoch, row->epoch) || (given_up(m, h->epoch, 0) && given_up(m, h->version, row->version));
}

static int judge(struct run *u, uint64_t worker, const struct rec_held_block *h, uint8_t *ret)
{
    const struct meta *m = u->m;
    struct meta_inode i;
    struct meta_extent row;
    uint32_t mark = see_mark(u);
    *ret = BLOCK_KEEP;
    if (h->inode >= max(m->next_id, m->id_limit)) /* of a time that was undone: not ours to judge */
        return 0;
    int r = see_inode(u, h->inode, &i);
    see_release(u, mark);
    if (r == -ENOENT || (r == 0 && !S_ISREG(i.mode))) {
        *ret = BLOCK_DROP;
        return 0;
    }
    if (r < 0)
        return r;
    bool young = i.ctime_ns + YOUNG_NS > (int64_t)m->time_ns;
    if (!h->epoch) {
        bool wanted = h->version == i.base_version && base_length_of(&i, h->index);
        *ret = wanted || (young && !given_up(m, h->version, i.base_version)) ? BLOCK_KEEP : BLOCK_DROP;
        return 0;
    }
    if (young && !given_up(m, h->epoch, 0)) /* nothing of this incarnation is judged yet */
        return 0;
    r = i.flags & INODE_HAS_EXTENTS ? extent_see(u, h->inode, h->index, &row) : -ENOENT;
    if (r == -ENOENT)
        *ret = young && !given_up(m, h->epoch, i.epoch) ? BLOCK_KEEP : BLOCK_DROP;
    else if (r == 0 && is_given_up(m, h, &row))
        *ret = BLOCK_GIVEN_UP;
    else if (r == 0)
        *ret = young || h->epoch >= row.epoch || keeps(&row, worker) ? BLOCK_KEEP : BLOCK_DROP;
    return r == -ENOENT ? 0 : r;
}

int op_blocks_check(struct run *u)
{
    const struct msg_blocks_check *msg = &u->q->message.blocks_check;
    struct buf *data = &u->q->data;
    int missing = 0;
    if (msg->blocks.count > CHECK_BLOCKS_MAX)
        return -E2BIG;
    rec_for_each (held_block, h, &msg->blocks) {
        uint8_t verdict;
        int r = judge(u, msg->worker, &h, &verdict);
        missing = r == -CV_NOT_PREPARED ? r : missing;
        if (r == 0)
            r = buf_append(data, &verdict, 1);
        if (r < 0 && r != -CV_NOT_PREPARED)
            return r;
    }
    u->q->answer.blocks_check.verdicts = key_of(data->p, (uint32_t)data->n);
    return missing;
}
