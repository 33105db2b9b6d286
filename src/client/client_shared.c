/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Memory shared with a worker of this host: what is written to it goes into a slot there, and only a message goes through the
 * socket. The worker gives it (MSG block_memory), one for each connection; until it is here, when all slots are taken, and where
 * a worker gives none, content goes behind the message.
 *
 * A slot may be used again when the worker has answered, not when we stop waiting: else it would write what somebody else put
 * there. So after a write that ended without an answer (deadline, cancelled, connection lost) the whole memory is left: what is
 * in it changes no more, it goes when its last slot comes back, and the next write asks for another.
 */
#include <assert.h>
#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>

#include "base/clock.h"
#include "base/error.h"
#include "base/hash.h"
#include "base/log.h"
#include "client/client_file.h"

#define SLOT_BYTES CLIENT_IO_MAX
#define SLOTS      24          /* as much as is in flight at most */
#define SMALL      (16u << 10) /* less than this is not worth a slot */
#define AGAIN_MS   10000       /* after a worker gave none */
#define IDLE_MS    1000        /* then slots do without memory */
#define STEP       (64u << 10) /* copied and checksummed while it is in the processor's cache */

struct client_shared {
    uint8_t *p;
    uint32_t free[SLOTS], free_count; /* the last one given back is taken first: few slots ever get memory */
    uint32_t warm;                    /* slots [0, warm) may have memory */
    uint64_t used_ns;
    bool left; /* no slot is taken any more */
};

static void free_when_unused(struct client_shared *m)
{
    if (!m->left || m->free_count < SLOTS)
        return;
    munmap(m->p, (size_t)SLOTS * SLOT_BYTES);
    free(m);
}

static void leave(struct client_shared *m)
{
    m->left = true;
    free_when_unused(m);
}

void client_shared_leave(struct client_worker *w)
{
    if (w->shared)
        leave(take(w->shared));
}

static int map(const struct rpc_frame *f, struct client_shared **ret)
{
    struct msg_block_memory_answer a;
    int r = msg_block_memory_answer_decode(f->body, f->header.body_len, &a);
    if (r < 0)
        return r;
    if (!f->fd_count || a.bytes < SLOTS * SLOT_BYTES)
        return f->fd_count ? -CV_BAD_MESSAGE : -EMFILE;
    struct client_shared *m = calloc(1, sizeof(*m));
    void *p = m ? mmap(NULL, (size_t)SLOTS * SLOT_BYTES, PROT_READ | PROT_WRITE, MAP_SHARED, f->fds[0], 0) : MAP_FAILED;
    if (p == MAP_FAILED) {
        free(m);
        return -ENOMEM;
    }
    m->p = p;
    for (uint32_t i = 0; i < SLOTS; i++)
        m->free[i] = SLOTS - 1 - i;
    m->free_count = SLOTS;
    *ret = m;
    return 0;
}

static void on_memory(struct rpc_call *call, int result, const struct rpc_frame *f)
{
    struct client_worker *w = container_of(call, struct client_worker, memory_call);
    if (result == 0)
        result = map(f, &w->shared);
    if (result == 0)
        return;
    w->memory_again_ns = clock_ns() + AGAIN_MS * NS_PER_MS;
    if (!client_worker_error(result) && result != -CV_UNKNOWN_MESSAGE)
        log_warn(result, "memory shared with worker %016llx: content goes through the socket",
                 (unsigned long long)w->id);
}

static void ask(struct client_worker *w, struct rpc_client *conn)
{
    if (rpc_call_busy(&w->memory_call) || clock_ns() < w->memory_again_ns)
        return;
    struct msg_block_memory m = {.bytes = SLOTS * SLOT_BYTES};
    w->memory_call.done = on_memory;
    rpc_client_call(conn, &w->memory_call, MSG_block_memory, msg_block_memory_desc(), &m, UINT64_MAX);
}

bool client_shared_take(struct client_worker *w, struct rpc_client *conn, uint32_t n, struct client_shared_slot *ret)
{
    if (conn != w->unix_socket || n < SMALL || n > SLOT_BYTES || !rpc_client_connected(conn))
        return false;
    struct client_shared *m = w->shared;
    if (!m)
        ask(w, conn);
    if (!m || !m->free_count)
        return false;
    *ret = (struct client_shared_slot){.memory = m, .number = m->free[--m->free_count]};
    m->warm = max(m->warm, ret->number + 1);
    return true;
}

uint32_t client_shared_fill(const struct client_shared_slot *slot, const uint8_t *data, uint32_t n,
                            uint32_t *ret_offset)
{
    uint32_t crc = 0;
    uint8_t *to = slot->memory->p + (size_t)slot->number * SLOT_BYTES;
    for (uint32_t at = 0; at < n; at += STEP) {
        uint32_t step = min(n - at, STEP);
        memcpy(to + at, data + at, step);
        crc = crc32c(crc, to + at, step);
    }
    *ret_offset = slot->number * SLOT_BYTES;
    return crc;
}

void client_shared_give_back(struct client_worker *w, struct client_shared_slot *slot, bool answered)
{
    struct client_shared *m = take(slot->memory);
    if (!m)
        return;
    m->free[m->free_count++] = slot->number;
    m->used_ns = clock_ns();
    if (!answered && w->shared == m)
        w->shared = NULL;
    m->left |= !answered;
    free_when_unused(m);
}

/* Pages that were used go back to the system. */
static void cool(struct client_shared *m)
{
    if (madvise(m->p, (size_t)m->warm * SLOT_BYTES, MADV_REMOVE) == 0)
        m->warm = 0;
    else
        m->used_ns = clock_ns(); /* tried again later */
}

bool client_shared_tick(struct curvine *cv)
{
    bool warm = false;
    for (unsigned i = 0; i < cv->content->worker_count; i++) {
        struct client_shared *m = cv->content->workers[i]->shared;
        if (!m || !m->warm)
            continue;
        if (m->free_count == SLOTS && clock_ns() >= m->used_ns + IDLE_MS * NS_PER_MS)
            cool(m);
        warm |= m->warm > 0;
    }
    return warm;
}
