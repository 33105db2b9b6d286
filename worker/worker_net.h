/* SPDX-License-Identifier: Apache-2.0 */
/*
 * One network loop of a worker and the requests on it. What is in memory is answered on the loop; what may block runs on
 * one of the loop's file threads and comes back; what is not here waits for the back loop (worker_fill.h).
 *
 *      request ──► begin ──► answered
 *                  │   ▲
 *                  ▼   │ result (and again after a pause when something was busy)
 *                file thread ──► missing chunks ──► back loop ──► file thread or loop again
 *
 * worker_net.c takes them from the network and gives them to worker_read.c, worker_open.c, worker_write.c or worker_list.c;
 * worker_request.c has what all of those share.
 */
#pragma once

#include "io/loop.h"
#include "rpc/rpc_server.h"
#include "wire/data_flags.h"
#include "worker/worker_core.h"
#include "worker/worker_fill.h"
#include "worker/worker_memory.h"

#define WORKER_READ_MAX  FRAME_DATA_MAX
#define WORKER_SMALL_MAX BLOCK_UNIT_BYTES /* up to this, content is copied into the answer */
#define WORKER_TRIES_MAX 64               /* rounds of a request that keeps losing what it fetched */

struct worker_net {
    struct worker_core *core;
    struct loop *loop;
    struct rpc_server *rpc;
    struct worker_metrics *metrics;
    struct rpc_metrics *rpc_metrics;
    struct list spare; /* requests for reuse */
    uint32_t spare_count;
    struct buf out;
    char name[16];
    bool listens, stopped;
    uint8_t scratch[WORKER_SMALL_MAX];
};

/* What is kept of a connection: rpc_peer_user(). */
struct worker_peer {
    uint64_t session;             /* it speaks for */
    struct worker_memory *memory; /* NULL: it has none */
};

struct worker_request {
    struct rpc_request *rpc;
    struct worker_net *net;
    enum worker_op op;
    uint64_t started_ns;
    struct list link; /* spare */

    /* On a file thread, then back on the loop. */
    struct io_op io;
    int (*work)(struct worker_request *q);
    void (*back)(struct worker_request *q, int result);
    struct loop_timer again; /* something was busy */
    uint32_t tries, pauses;

    /* From the message. */
    struct rec_block block;
    uint32_t content; /* bytes of the block that are content */
    uint32_t offset, length, flags;
    uint32_t first, count; /* fill */
    uint64_t session;      /* of the connection */
    uint64_t have;         /* open */
    uint32_t crc;          /* write */
    const uint8_t *data;   /* write: behind the message, or in memory */
    struct worker_memory *memory;

    /* What was found. */
    uint64_t missing; /* chunks to be fetched before it can go on */
    struct block_read read;
    struct block_export export;
    struct block_presence presence;
    struct fill_wait wait;
    uint64_t fetched;
    uint8_t *buffer; /* of rpc_buffer_new() */
    uint32_t buffer_n, buffer_crc;
    bool plain; /* read: no checksums of units */
    bool whole;
    struct rpc_release release;
    struct buf out; /* an answer encoded on a file thread */
};

int worker_net_init(struct worker_net *n, uint32_t number, struct worker_core *core, enum loop_backend backend);
void worker_net_fini(struct worker_net *n);

/* ---- worker_request.c ---- */

/* NULL: no memory. Ends with worker_request_done(). */
struct worker_request *worker_request_new(struct worker_net *n);

/* Run work on a file thread, then back on the loop. -CV_BUSY: again after a pause, for 30 s or until the deadline. */
void worker_request_work(struct worker_request *q, int (*work)(struct worker_request *),
                         void (*back)(struct worker_request *, int));

/* Have q->missing fetched, then back on the loop with the result. */
void worker_request_fetch(struct worker_request *q, bool ahead, void (*back)(struct worker_request *, int));

/* Answer, count, forget. desc NULL or error < 0: no body. */
void worker_request_end(struct worker_request *q, int error, const struct wire_desc *desc, const void *record);

/* For answers given by other functions of rpc_server.h: counts, and forgets q, whose rpc is gone. */
void worker_request_done(struct worker_request *q, int error);

/* Nobody waits any more, or nobody will when it is done. */
bool worker_request_dead(const struct worker_request *q);

/* Check the block of a request and set q->content. Errors: -EINVAL. */
int worker_block_check(struct worker_request *q);
struct block_key worker_block_key(const struct rec_block *b);

/* First contact under the block's epoch, if there was none; nothing for blocks never written. On a file thread.
 * Errors: -CV_DATA_DAMAGED its content should be here and is not; -CV_STALE_EPOCH; -CV_BUSY; -CV_NO_SPACE. */
int worker_block_contact(struct worker_core *c, const struct rec_block *b);

/* Which of the chunks are missing and can be fetched. Fast. Errors: -CV_NOT_PREPARED: block_prepare(); -CV_DATA_DAMAGED;
 * -CV_STALE_EPOCH a newer version is here. */
int worker_block_missing(struct worker_core *c, const struct rec_block *b, uint64_t chunks, uint64_t *ret);
/* The same where a disk may be waited for: reads the block's row when it has to. */
int worker_block_missing_prepared(struct worker_core *c, const struct rec_block *b, uint64_t chunks, uint64_t *ret);

/* Chunks touched by [offset, offset + n) of a block. */
static inline uint64_t worker_chunks(uint32_t offset, uint32_t n)
{
    if (n == 0)
        return 0;
    uint32_t first = offset / BLOCK_CHUNK_BYTES, last = (offset + n - 1) / BLOCK_CHUNK_BYTES;
    uint64_t to_last = last >= 63 ? ~0ull : (1ull << (last + 1)) - 1;
    return to_last & ~((1ull << first) - 1);
}

/* --- one kind each: the message is decoded and checked there --- */
void worker_read_begin(struct worker_request *q);
void worker_open_begin(struct worker_request *q);
void worker_release_begin(struct worker_request *q);
void worker_fill_begin(struct worker_request *q);
void worker_write_begin(struct worker_request *q);
void worker_sync_begin(struct worker_request *q);
void worker_memory_begin(struct worker_request *q);
void worker_presence_begin(struct worker_request *q);
void worker_list_begin(struct worker_request *q);
void worker_free_begin(struct worker_request *q);
