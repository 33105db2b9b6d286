/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Voters in one process: drivers with logs of their own on one loop, which each test joins by a network of its own. What
 * they are asked goes over the loop.
 */
#pragma once

#include "base/clock.h"
#include "raft/journal_peer.h"
#include "tests/unit/journal_log.h"

enum { NODES_MAX = 4, WAIT_MS = 30000 };

struct node {
    uint32_t at; /* in nodes */
    char dir[200];
    struct journal_store *store;
    struct journal_driver *driver; /* NULL: it does not run */
    bool cut;                      /* nothing comes in or goes out */
    bool stopped;

    /* test_journal_peer.c */
    uint16_t port;
    struct journal_peers *peers;

    /* test_journal_driver.c */
    uint64_t truncated, roles, read_index;
    uint32_t from_disk; /* messages whose entries were read from disk */
    struct raft_snapshot_want want;
    struct raft_snapshot_offer offer;
    uint32_t installed;
};

static struct loop *loop;
static struct node nodes[NODES_MAX];
static uint32_t node_count = 3;
static uint64_t cache_bytes = 16 << 20;

static uint64_t id_of(uint32_t at)
{
    return 100 + at;
}

static void node_stopped(void *arg)
{
    ((struct node *)arg)->stopped = true;
}

static int is_stopped(void *arg)
{
    return ((struct node *)arg)->stopped;
}

static void wait_until(int (*condition)(void *arg), void *arg, const char *what)
{
    uint64_t until = clock_ms() + WAIT_MS;
    while (!loop_call(loop, condition, arg)) {
        ck_assert_msg(clock_ms() < until, "not in time: %s", what);
        usleep(2000);
    }
}

/* ---- proposals ---- */

static struct {
    struct node *node;
    uint32_t count, size;
    uint64_t first;
    int result;
} proposal;

static int do_propose(void *arg)
{
    struct journal_record *records[RAFT_APPEND_ENTRIES_MAX];
    struct journal_driver *d = proposal.node->driver;
    const struct journal_view *v = journal_driver_view(d);
    uint32_t made = 0;
    proposal.result = 0;
    for (uint32_t i = 0; i < proposal.count && proposal.result == 0; i++) {
        proposal.result = journal_ring_alloc(journal_driver_ring(d), proposal.size, &records[i]);
        if (proposal.result < 0)
            break;
        made++;
        memset(records[i]->data, (int)(v->last + i), proposal.size);
        records[i]->entry.type = RAFT_BATCH;
        records[i]->entry.data_crc = crc32c(0, records[i]->data, proposal.size);
    }
    if (proposal.result == 0)
        proposal.result = journal_driver_propose(d, v->term, records, proposal.count, &proposal.first);
    for (uint32_t i = 0; i < made && proposal.result < 0; i++)
        journal_ring_unpin(journal_driver_ring(d), records[i]);
    return 0;
}

/* Returns the last index proposed. */
static uint64_t propose(struct node *n, uint32_t count, uint32_t size)
{
    uint64_t until = clock_ms() + WAIT_MS;
    do {
        proposal.node = n;
        proposal.count = count;
        proposal.size = size;
        (void)loop_call(loop, do_propose, NULL);
        if (proposal.result == -CV_BUSY)
            usleep(1000);
    } while (proposal.result == -CV_BUSY && clock_ms() < until);
    ck_assert_msg(proposal.result == 0, "propose: %d", proposal.result);
    return proposal.first + count - 1;
}

static uint64_t wanted;

static int all_committed(void *arg)
{
    for (uint32_t i = 0; i < node_count; i++) {
        const struct node *n = &nodes[i];
        if (n->driver && !n->cut && journal_driver_view(n->driver)->apply_to < wanted)
            return 0;
    }
    return 1;
}

static void wait_all(uint64_t index)
{
    wanted = index;
    wait_until(all_committed, NULL, "committed everywhere");
}

/* The logs on disk are equal up to index, and sound. */
static void compare_logs(uint64_t index)
{
    uint64_t chain = 0;
    for (uint32_t i = 0; i < node_count; i++) {
        struct journal_store *s = open_log(nodes[i].dir);
        struct journal_read read = {.count = 0};
        struct journal_check check = {.problem = NULL};
        ck_assert_int_eq(journal_check_entries(journal_store_db(s), journal_store_state(s), 1, &check), 0);
        ck_assert_int_eq(journal_store_read(s, index, index, 1, &read), 0);
        if (i > 0)
            ck_assert_uint_eq(read.entries[0].chain, chain);
        chain = read.entries[0].chain;
        journal_read_fini(&read);
        s = journal_store_free(s);
    }
}
