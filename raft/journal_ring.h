/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Ring: the newest entries of the log in memory. Every entry passes through here once: its payload is copied in when
 * it arrives, the log writer reads it from here, and so do the master and the peers; the disk is read only for who
 * lags further behind.
 *
 *      bytes    [ oldest ... newest |  free  ]   one circular region; the oldest record gives way to a new one,
 *                                                unless it is pinned (being written or sent)
 *      index    a table of the indexes that are in it, always one contiguous range up to the newest entry
 *
 * Memory: the bytes asked for, touched as they are used, and 1 MiB of table. Owner: one loop, but for the payload and
 * the entry of a pinned record, which the log writer reads and whose chain it sets.
 */
#pragma once

#include "raft/journal_store.h"

enum { JOURNAL_RING_ENTRIES_MAX = 1 << 17 };

struct journal_ring;

struct journal_record {
    struct journal_entry entry; /* data is behind this struct; index 0: none given yet */
    uint32_t pins;
    uint32_t room; /* bytes of the region it takes; 0: memory of its own */
    uint64_t tag;  /* the user's */
    uint8_t data[];
};

/* bytes: of the region; at most bytes_max later. Errors: -ENOMEM. */
int journal_ring_new(uint64_t bytes, uint64_t bytes_max, struct journal_ring **ret);
struct journal_ring *journal_ring_free(struct journal_ring *r);

/* Another size, at most bytes_max; takes effect as the ring turns. */
void journal_ring_resize(struct journal_ring *r, uint64_t bytes);

/* A record for a payload of size bytes, pinned once, without an index: data, op_count, data_crc and type are the
 * caller's to fill in. Errors: -CV_BUSY everything is pinned: push back. */
int journal_ring_alloc(struct journal_ring *r, uint32_t size, struct journal_record **ret);

/* The same for what must not be refused (the core's own entries, few and small): memory of its own if need be.
 * Errors: -ENOMEM. */
int journal_ring_alloc_always(struct journal_ring *r, uint32_t size, struct journal_record **ret);

/* Give a record its place in the log: the next index. */
void journal_ring_add(struct journal_ring *r, struct journal_record *record, uint64_t index, uint64_t term);

/* Entries from here on are gone. Records that are pinned stay readable for who pinned them. */
void journal_ring_truncate(struct journal_ring *r, uint64_t from);

/* The record of an index, or NULL: not (any more) in memory. Pin it to keep it beyond this call. */
struct journal_record *journal_ring_find(const struct journal_ring *r, uint64_t index);

void journal_ring_pin(struct journal_ring *r, struct journal_record *record);
void journal_ring_unpin(struct journal_ring *r, struct journal_record *record);

/* Bytes that records take; that pinned ones take. */
uint64_t journal_ring_used(const struct journal_ring *r);
uint64_t journal_ring_pinned(const struct journal_ring *r);
