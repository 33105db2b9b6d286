/* SPDX-License-Identifier: Apache-2.0 */
#include "cli/cluster_map.h"

#include <errno.h>
#include <string.h>

#include "base/bytes.h"
#include "base/error.h"
#include "cli/connect.h"
#include "client/client_ask.h"

int cluster_map_get(struct curvine *cv, struct cluster_map *ret)
{
    struct cluster_map m = {0};
    struct msg_workers ask = {0};
    int r = client_ask(cv, MSG_workers, msg_workers_desc(), &ask, 0, &m.body);
    if (r == 0)
        r = msg_workers_answer_decode(m.body.p, m.body.n, &m.answer);
    if (r == 0) {
        m.members = calloc(m.answer.workers.count + 1, sizeof(*m.members));
        m.workers = calloc(m.answer.workers.count + 1, sizeof(*m.workers));
        r = m.members && m.workers ? 0 : -ENOMEM;
    }
    if (r < 0) {
        cluster_map_fini(&m);
        return r;
    }
    rec_for_each (worker, w, &m.answer.workers) {
        m.members[m.count] = (struct place_member){.worker = w.worker, .weight = w.weight, .in = w.in, .up = w.up};
        m.workers[m.count++] = w;
    }
    *ret = m;
    return 0;
}

void cluster_map_fini(struct cluster_map *m)
{
    buf_fini(&m->body);
    free(m->members);
    free(m->workers);
    memset(m, 0, sizeof(*m));
}

/* Bytes of [0, total) that lie in block index. */
static uint32_t share(uint64_t total, uint32_t index, uint32_t block_bytes)
{
    uint64_t start = (uint64_t)index * block_bytes;
    return total <= start ? 0 : (uint32_t)min(total - start, (uint64_t)block_bytes);
}

struct blocks {
    struct curvine *cv;
    const struct cluster_map *map;
    int (*each)(const struct block_place *b, void *arg);
    void *arg;
    uint64_t inode;
    struct rec_attr attr;
    struct rec_layout layout;
    uint32_t block_bytes;
};

static struct block_place place_of(const struct blocks *b, uint32_t index, const struct rec_extent *e)
{
    struct block_place p = {
        .block =
            {
                .inode = b->inode,
                .index = index,
                .version = e ? e->version : b->layout.base_version,
                .epoch = e ? e->epoch : 0,
                .valid_length = e ? e->valid_length : 0,
                .base_version = b->layout.base_version,
                .base_length = share(b->layout.base_bytes, index, b->block_bytes),
                .block_bytes = b->block_bytes,
                .file_bytes = b->attr.size,
                .mount = b->layout.mount,
            },
        .written = e != NULL,
    };
    if (e && e->replicas.n >= 8)
        p.worker = get_le64((const uint8_t *)e->replicas.p);
    else if (!e && place_order(b->map->members, b->map->count, b->inode, index, 1, &p.worker) == 0)
        p.worker = 0;
    return p;
}

/* Blocks of the under file system in [from, to) that have no row. */
static int base_blocks(const struct blocks *b, uint32_t from, uint32_t to)
{
    int r = 0;
    for (uint32_t i = from; r == 0 && i < to && share(b->layout.base_bytes, i, b->block_bytes); i++) {
        struct block_place p = place_of(b, i, NULL);
        r = b->each(&p, b->arg);
    }
    return r;
}

int cluster_each_block(struct curvine *cv, const struct cluster_map *m, uint64_t inode,
                       int (*each)(const struct block_place *b, void *arg), void *arg)
{
    struct blocks b = {.cv = cv, .map = m, .each = each, .arg = arg, .inode = inode};
    uint32_t next = 0;
    for (;;) {
        struct buf body cleanup(buf_fini) = {0};
        struct msg_layout ask = {.head = cli_head(), .inode = inode, .first_block = next};
        struct msg_layout_answer answer;
        int r = client_ask(cv, MSG_layout, msg_layout_desc(), &ask, 0, &body);
        if (r == 0)
            r = msg_layout_answer_decode(body.p, body.n, &answer);
        if (r < 0)
            return r;
        b.attr = answer.attr;
        b.layout = answer.layout;
        if (b.layout.inline_data.n)
            return 0;
        if (b.layout.block_shift < 12 || b.layout.block_shift > 31)
            return b.attr.size ? -CV_BAD_MESSAGE : 0;
        b.block_bytes = 1u << b.layout.block_shift;
        rec_for_each (extent, e, &b.layout.extents) {
            r = base_blocks(&b, next, e.block);
            if (r == 0) {
                struct block_place p = place_of(&b, e.block, &e);
                r = each(&p, arg);
            }
            if (r < 0)
                return r;
            next = e.block + 1;
        }
        if (b.layout.next_block == 0)
            return base_blocks(&b, next, UINT32_MAX);
        if (b.layout.next_block < next)
            return -CV_BAD_MESSAGE;
        r = base_blocks(&b, next, b.layout.next_block);
        if (r < 0)
            return r;
        next = b.layout.next_block;
    }
}

int cluster_held(struct curvine *cv, const struct cluster_map *m, const uint64_t *inodes, unsigned n, struct held *sums)
{
    uint8_t packed[PRESENCE_MAX * 8];
    memset(sums, 0, n * sizeof(*sums));
    for (unsigned i = 0; i < n; i++)
        put_le64(packed + 8 * i, inodes[i]);
    struct msg_presence ask = {.inodes = {(char *)packed, n * 8}};
    for (unsigned w = 0; w < m->count; w++) {
        struct buf body cleanup(buf_fini) = {0};
        struct msg_presence_answer answer;
        if (!m->workers[w].up)
            continue;
        int r = client_ask_worker(cv, m->workers[w].worker, MSG_presence, msg_presence_desc(), &ask, NULL, 0, 0, &body);
        if (r == 0)
            r = msg_presence_answer_decode(body.p, body.n, &answer);
        if (r < 0)
            return r;
        unsigned i = 0;
        rec_for_each (presence, p, &answer.inodes) {
            if (i == n || p.inode != inodes[i])
                return -CV_BAD_MESSAGE;
            sums[i].cached += p.cached_bytes;
            sums[i].dirty += p.dirty_bytes;
            sums[i++].blocks += p.blocks;
        }
    }
    return 0;
}
