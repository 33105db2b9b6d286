/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The worker daemon and clients on its host: descriptors, who holds them; what is listed, dropped, removed. RocksDB inside,
 * so not for the thread sanitizer.
 */
#include "tests/unit/worker_test.h"

#include <sys/mman.h>

TEST(worker_gives_descriptors_to_local_clients)
{
    struct rig g;
    struct peer p, far;
    struct msg_block_fill_answer f;
    uint8_t data[8192];
    rig_begin(&g, "256MiB", "");
    peer_begin(&p, g.socket, SESSION);
    peer_begin(&far, g.address, SESSION);
    ufs_file(&g, 5, BASE, 3 * MIB + 500);
    struct rec_block b = clean_block(5, 0, 3 * MIB + 500);
    ck_error(open_block(&p, &b, 0).result, -ENODATA);
    ck_ok(fill(&p, &b, 0, 2, 0, &f));
    ck_assert_uint_eq(f.readable, 3);
    ck_assert_uint_eq(f.filled, 2 * MIB);
    struct opened o = open_block(&p, &b, 0);
    ck_ok(o.result);
    ck_assert_int_ge(o.fd, 0);
    ck_assert_uint_eq(o.m.readable, 3);
    ck_assert_uint_eq(o.m.flags, 0);
    ck_assert_int_eq(pread(o.fd, data, sizeof(data), (off_t)o.m.fd_offset + MIB - 4096), sizeof(data));
    ck_pattern(5, BASE, MIB - 4096, data, sizeof(data));
    ck_assert_int_lt(write(o.fd, "x", 1), 0);
    ck_ok(fill(&p, &b, 0, 64, 0, &f));
    struct opened again = open_block(&p, &b, o.m.file);
    ck_ok(again.result);
    ck_assert_int_eq(again.fd, -1); /* it has one */
    ck_assert_uint_eq(again.m.readable, 15);
    ck_assert_uint_eq(again.m.flags, BLOCK_WHOLE);
    ck_assert_int_eq(pread(o.fd, data, 500, (off_t)o.m.fd_offset + 3 * MIB), 500);
    ck_pattern(5, BASE, 3 * MIB, data, 500);
    ck_error(open_block(&far, &b, 0).result, -ENOTSUP);
    close(o.fd);
    ck_ok(release_file(&p, o.m.file));
    peer_end(&p);
    peer_begin(&p, g.socket, 0);
    ck_error(open_block(&p, &b, 0).result, -CV_SESSION_UNKNOWN);
    peer_end(&p);
    peer_end(&far);
    rig_end(&g);
}

TEST(worker_gives_descriptors_of_segments)
{
    struct rig g;
    struct peer p;
    struct msg_block_fill_answer f;
    uint8_t data[8192];
    rig_begin(&g, "256MiB", "");
    peer_begin(&p, g.socket, SESSION);
    for (uint64_t i = 5; i < 8; i++) {
        ufs_file(&g, i, BASE, 5000);
        struct rec_block b = clean_block(i, 0, 5000);
        ck_ok(fill(&p, &b, 0, 1, 0, &f));
        struct opened o = open_block(&p, &b, 0);
        ck_ok(o.result);
        ck_assert_uint_eq(o.m.flags, BLOCK_SEGMENT | BLOCK_WHOLE);
        ck_assert_uint_eq(o.m.length, 5000);
        ck_assert_int_eq(pread(o.fd, data, 5000, (off_t)o.m.fd_offset), 5000);
        ck_pattern(i, BASE, 0, data, 5000);
        close(o.fd);
    }
    peer_end(&p);
    rig_end(&g);
}

/* Bytes of a removed file stay charged until the session closed its descriptor, or ended; a lost connection and a restart
 * of the worker are neither. */
TEST_TIMEOUT(worker_charges_removed_files_until_their_sessions_are_over, 60)
{
    struct rig g;
    struct peer p;
    struct msg_block_fill_answer f;
    uint8_t data[4096];
    rig_begin(&g, "256MiB", "");
    peer_begin(&p, g.socket, SESSION);
    ufs_file(&g, 5, BASE, 3 * MIB);
    struct rec_block b = clean_block(5, 0, 3 * MIB);
    ck_ok(fill(&p, &b, 0, 3, 0, &f));
    struct opened o = open_block(&p, &b, 0);
    ck_ok(o.result);
    g.master.drop = (struct rec_worker_drop){.sequence = 9, .inode = 5, .epoch = UINT64_MAX};
    g.master.has_drop = true;
    until(g.master.dropped == 9);
    ck_assert_uint_eq(presence(&p, 5).blocks, 0);
    ck_assert_uint_ge((uint64_t)rig_metric(&g, "left_bytes"), 3 * MIB);
    ck_assert_int_eq(pread(o.fd, data, sizeof(data), (off_t)o.m.fd_offset + MIB), sizeof(data));
    ck_pattern(5, BASE, MIB, data, sizeof(data));
    peer_end(&p);
    g.master.has_drop = false;
    rig_stop(&g);
    rig_start(&g);
    until(g.master.sessions_asked > 2);
    ck_assert_uint_ge((uint64_t)rig_metric(&g, "left_bytes"), 3 * MIB);
    g.master.session_ended = SESSION;
    until(rig_metric(&g, "left_bytes") == 0);
    ck_assert_uint_eq((uint64_t)rig_metric(&g, "used_bytes"), 0);
    close(o.fd);
    rig_end(&g);
}

TEST(worker_truncates_when_told)
{
    struct rig g;
    struct peer p;
    rig_begin(&g, "256MiB", "");
    peer_begin(&p, g.socket, SESSION);
    for (uint32_t i = 0; i < 3; i++) {
        struct rec_block b = written_block(7, 20 + i, 0);
        b.index = i;
        ck_ok(put(&p, &b, 0, 100000, 1));
    }
    ck_assert_uint_eq(presence(&p, 7).blocks, 3);
    ck_assert_uint_eq(presence(&p, 7).dirty_bytes, 300000);
    g.master.drop = (struct rec_worker_drop){.sequence = 1, .inode = 7, .size = TEST_BLOCK + 10, .epoch = 30};
    g.master.has_drop = true;
    until(g.master.dropped == 1);
    ck_assert_uint_eq(presence(&p, 7).blocks, 2);
    peer_end(&p);
    rig_end(&g);
}

TEST(worker_lists_and_frees_what_is_clean)
{
    struct rig g;
    struct peer p;
    struct msg_block_fill_answer f;
    uint8_t ids[16];
    rig_begin(&g, "256MiB", "");
    peer_begin(&p, g.address, 0);
    ufs_file(&g, 5, BASE, 6 * MIB);
    for (uint32_t i = 0; i < 2; i++) {
        struct rec_block b = clean_block(5, i, 6 * MIB);
        ck_ok(fill(&p, &b, 0, 64, 0, &f));
    }
    struct rec_block w = written_block(7, 20, 0);
    ck_ok(put(&p, &w, 0, 5000, 1));
    struct msg_block_list l = {.inode = 5, .first = 1};
    struct answer a = ask(&p, MSG_block_list, msg_block_list_desc(), &l, NULL, 0);
    struct msg_block_list_answer la;
    ck_ok(a.result);
    ck_ok(msg_block_list_answer_decode(a.body, a.body_n, &la));
    ck_assert_uint_eq(la.blocks.count, 1);
    ck_assert_uint_eq(la.next, 0);
    rec_for_each (block_state, s, &la.blocks) {
        ck_assert_uint_eq(s.index, 1);
        ck_assert_uint_eq(s.version, BASE);
        ck_assert_uint_eq(s.cached_bytes, 2 * MIB);
        ck_assert_uint_eq(s.readable, 3);
    }
    answer_free(&a);
    put_le64(ids, 5);
    put_le64(ids + 8, 7);
    struct msg_free fr = {.inodes = {(const char *)ids, 16}};
    struct msg_free_answer fa;
    a = ask(&p, MSG_free, msg_free_desc(), &fr, NULL, 0);
    ck_ok(a.result);
    ck_ok(msg_free_answer_decode(a.body, a.body_n, &fa));
    ck_assert_uint_eq(fa.freed_bytes, 6 * MIB);
    ck_assert_uint_eq(fa.dirty_bytes, 5000);
    ck_assert_uint_eq(fa.busy, 0);
    answer_free(&a);
    ck_assert_uint_eq(presence(&p, 5).cached_bytes, 0);
    ck_assert_uint_eq(presence(&p, 7).cached_bytes, 5000);
    w.valid_length = 5000;
    ck_assert_int_eq(get_checked(&p, &w, 0, 5000, 1), 5000);
    peer_end(&p);
    rig_end(&g);
}

TEST(worker_drops_what_is_nobodys)
{
    struct rig g;
    struct peer p;
    rig_begin(&g, "256MiB", "");
    peer_begin(&p, g.address, 0);
    until(g.master.beats > 2);
    struct rec_block a = written_block(7, 20, 0), b = written_block(8, 20, 0);
    ck_ok(put(&p, &a, 0, 5000, 1));
    ck_ok(put(&p, &b, 0, 5000, 1));
    ck_ok(put_sync(&p, 7));
    g.master.orphan = 8;
    rig_stop(&g); /* a sweep begins with the first heartbeat */
    rig_start(&g);
    peer_end(&p);
    peer_begin(&p, g.address, 0);
    until(rig_metric(&g, "orphans_total") == 1);
    ck_assert_uint_eq(presence(&p, 7).blocks, 1);
    ck_assert_uint_eq(presence(&p, 8).blocks, 0);
    peer_end(&p);
    rig_end(&g);
}

/* ---- memory for what is written -------------------------------------------------------------------------------------------- */

struct lent {
    int result;
    uint8_t *p;
    uint32_t n;
};

static struct lent lend(struct peer *p, uint32_t bytes)
{
    struct msg_block_memory q = {.bytes = bytes};
    struct answer a = ask(p, MSG_block_memory, msg_block_memory_desc(), &q, NULL, 0);
    struct lent m = {.result = a.result, .n = bytes};
    if (a.result == 0) {
        ck_assert_int_ge(a.fd, 0);
        ck_assert_int_lt(ftruncate(a.fd, 4096), 0); /* sealed: it cannot be taken away under the worker */
        m.p = mmap(NULL, bytes, PROT_READ | PROT_WRITE, MAP_SHARED, a.fd, 0);
        ck_assert_ptr_ne(m.p, MAP_FAILED);
    }
    answer_free(&a);
    return m;
}

/* [offset, offset + n) of the block, from at in the memory on. */
static int put_shared(struct peer *p, const struct lent *m, const struct rec_block *b, uint32_t offset, uint32_t at,
                      uint32_t n, uint64_t version)
{
    struct msg_block_write q = {.block = *b, .offset = offset, .shared_offset = at, .shared_length = n};
    if (m && (uint64_t)at + n <= m->n) {
        pattern(b->inode, version, offset, m->p + at, n);
        q.crc = crc32c(0, m->p + at, n);
    }
    struct answer a = ask(p, MSG_block_write, msg_block_write_desc(), &q, NULL, 0);
    answer_free(&a);
    return a.result;
}

TEST(worker_writes_from_memory_it_shares_with_a_client)
{
    struct rig g;
    struct peer p, far;
    rig_begin(&g, "256MiB", "");
    peer_begin(&p, g.socket, SESSION);
    peer_begin(&far, g.address, SESSION);
    struct rec_block b = written_block(9, 50, 0);
    ck_error(put_shared(&p, NULL, &b, 0, 0, 4096, 50), -EINVAL); /* it has none */
    ck_error(lend(&far, MIB).result, -ENOTSUP);
    ck_error(lend(&p, MIB - 1).result, -EINVAL);
    ck_error(lend(&p, 65 * MIB).result, -EINVAL);
    struct lent m = lend(&p, 2 * MIB);
    ck_ok(m.result);
    ck_ok(put_shared(&p, &m, &b, 0, MIB, MIB, 50));
    ck_ok(put_shared(&p, &m, &b, MIB, 12345, 300000, 50));
    ck_error(put_shared(&p, &m, &b, 0, 2 * MIB - 4095, 4096, 50), -EINVAL);
    ck_error(put_shared(&p, &m, &b, 0, UINT32_MAX, 2, 50), -EINVAL);
    ck_error(put_shared(&p, &m, &b, 0, 1, UINT32_MAX, 50), -EINVAL);
    struct msg_block_write wrong = {.block = b, .shared_length = 4096, .crc = 1};
    struct answer a = ask(&p, MSG_block_write, msg_block_write_desc(), &wrong, NULL, 0);
    ck_error(a.result, -CV_BAD_CHECKSUM);
    answer_free(&a);
    struct lent other = lend(&p, MIB); /* takes the place of the first */
    ck_ok(other.result);
    ck_error(put_shared(&p, &m, &b, 0, MIB, MIB, 50), -EINVAL);
    ck_ok(put_shared(&p, &other, &b, MIB + 300000, 0, 1000, 50));
    struct rec_block done = written_block(9, 50, MIB + 301000);
    ck_assert_int_eq(get_checked(&far, &done, 0, MIB + 301000, 50), MIB + 301000);
    munmap(m.p, m.n);
    munmap(other.p, other.n);
    peer_end(&p);
    peer_end(&far);
    rig_end(&g);
}

TEST(worker_lends_no_more_memory_than_it_may)
{
    struct rig g;
    struct peer p[17];
    struct lent m[17];
    rig_begin(&g, "256MiB", "");
    for (int i = 0; i < 17; i++) {
        peer_begin(&p[i], g.socket, SESSION);
        m[i] = lend(&p[i], 64 * MIB);
        ck_assert_int_eq(m[i].result, i < 16 ? 0 : -CV_BUSY);
    }
    peer_end(&p[0]);
    uint64_t until = clock_ns() + 10 * NS_PER_S;
    while ((m[16] = lend(&p[16], 64 * MIB)).result == -CV_BUSY) /* until it has seen that the first is gone */
        ck_assert_uint_lt(clock_ns(), until);
    ck_ok(m[16].result);
    for (int i = 0; i < 17; i++) {
        munmap(m[i].p, m[i].n);
        if (i > 0)
            peer_end(&p[i]);
    }
    rig_end(&g);
}
