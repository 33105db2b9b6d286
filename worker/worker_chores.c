/* SPDX-License-Identifier: Apache-2.0 */
#include "worker/worker_chores.h"

#include <errno.h>
#include <inttypes.h>

#include "base/bytes.h"
#include "base/clock.h"
#include "base/error.h"
#include "base/log.h"
#include "wire/data_flags.h"
#include "worker/worker_exports.h"

#define SESSIONS_EVERY 4   /* heartbeats */
#define SWEEP_EVERY    200 /* heartbeats between the ends and beginnings of sweeps */
#define SESSIONS_MAX   1024
#define PAGE           512
#define ASK_MS         10000

struct worker_chores {
    struct loop *loop;
    struct worker_core *core;
    struct worker_master *master;
    struct worker_metrics *metrics;
    uint32_t beats, rest; /* rest: heartbeats until the next sweep */

    struct worker_call sessions_call;
    struct io_op sessions_op;
    uint64_t sessions[SESSIONS_MAX], after;
    uint32_t session_count;
    bool asking_sessions;

    struct worker_call blocks_call;
    struct io_op blocks_op;
    struct block_cursor cursor;
    struct block_info page[PAGE];
    uint8_t verdicts[PAGE];
    int found;
    uint32_t dropped, given_up;
    bool sweeping, asking_blocks;
    uint32_t sweeping_in; /* incarnation the sweep began in */
    bool unfinished;      /* something of it could not be done as told */

    void (*stopped)(void *arg);
    void *stopped_arg;
};

static void stopped_when_quiet(struct worker_chores *c)
{
    if (!c->stopped || c->asking_sessions || c->asking_blocks)
        return;
    void (*stopped)(void *) = take(c->stopped);
    stopped(c->stopped_arg);
}

/* ---- sessions --------------------------------------------------------------------------------------------------- */

static int release_work(void *arg)
{
    struct worker_chores *c = arg;
    int r = 0;
    for (uint32_t i = 0; r == 0 && i < c->session_count; i++)
        r = worker_exports_release(c->core->exports, c->sessions[i], 0);
    return r;
}

static void sessions_over(struct worker_chores *c)
{
    c->asking_sessions = false;
    stopped_when_quiet(c);
}

static void released(struct io_op *op, int result)
{
    struct worker_chores *c = container_of(op, struct worker_chores, sessions_op);
    if (result < 0)
        log_warn(result, "releasing files of sessions that ended");
    sessions_over(c);
}

static void sessions_answered(struct worker_call *call, int result, const struct rpc_frame *f)
{
    struct worker_chores *c = container_of(call, struct worker_chores, sessions_call);
    struct msg_sessions_check_answer a;
    if (result == 0)
        result = msg_sessions_check_answer_decode(f->body, f->header.body_len, &a);
    c->session_count = result == 0 ? min(a.ended.n / 8, (uint32_t)SESSIONS_MAX) : 0;
    if (!c->session_count || c->stopped) {
        sessions_over(c);
        return;
    }
    for (uint32_t i = 0; i < c->session_count; i++)
        c->sessions[i] = get_le64(a.ended.p + 8 * (size_t)i);
    WORKER_COUNT(c->metrics, sessions_ended, c->session_count);
    io_work(c->loop, &c->sessions_op, release_work, c, released);
}

static void ask_sessions(struct worker_chores *c)
{
    uint8_t ids[8 * SESSIONS_MAX];
    uint32_t n = worker_exports_sessions(c->core->exports, c->after, c->sessions, SESSIONS_MAX);
    c->after = n == SESSIONS_MAX ? c->sessions[n - 1] : 0;
    if (n == 0)
        return;
    for (uint32_t i = 0; i < n; i++)
        put_le64(ids + 8 * (size_t)i, c->sessions[i]);
    struct msg_sessions_check q = {.sessions = {(const char *)ids, 8 * n}};
    c->asking_sessions = true;
    c->sessions_call.done = sessions_answered;
    worker_master_call(c->master, &c->sessions_call, MSG_sessions_check, msg_sessions_check_desc(), &q,
                       clock_ns() + ASK_MS * NS_PER_MS);
}

/* ---- orphans ---------------------------------------------------------------------------------------------------- */

static void next_page(struct worker_chores *c);

/* A later incarnation has begun since all was asked about: what was given up with the log of the former one must be found
 * before anybody writes on it, so there are no pauses (the master waits for that with new grants). */
static bool is_urgent(const struct worker_chores *c)
{
    return c->core->incarnation > 1 && c->core->checked < c->core->incarnation;
}

static void begin_sweep(struct worker_chores *c)
{
    c->sweeping = true;
    c->unfinished = false;
    c->sweeping_in = c->core->incarnation;
    c->cursor = (struct block_cursor){0};
}

static void page_over(struct worker_chores *c, bool go_on)
{
    c->asking_blocks = false;
    if (!go_on) {
        c->sweeping = false;
        c->rest = SWEEP_EVERY;
    }
    if (c->stopped)
        stopped_when_quiet(c);
    else if (c->sweeping && is_urgent(c))
        next_page(c);
}

/* There is no page more. */
static void sweep_over(struct worker_chores *c)
{
    if (!c->unfinished && c->core->checked < c->sweeping_in) {
        c->core->checked = c->sweeping_in;
        if (c->sweeping_in > 1)
            log_info("all blocks here were asked about in incarnation %" PRIu32, c->sweeping_in);
    }
    page_over(c, false);
}

static int carry_out(struct worker_chores *c, const struct block_info *b, enum block_verdict verdict)
{
    struct block_key key = {.inode = b->inode, .index = b->index, .version = b->version};
    if (verdict == BLOCK_DROP)
        return block_store_forget(c->core->store, &key, b->epoch);
    if (verdict != BLOCK_GIVEN_UP || b->lost)
        return -CV_BUSY; /* not now, or nothing more */
    int r = block_store_give_up(c->core->store, &key, b->epoch);
    if (r == 0)
        log_warn(0,
                 "block %" PRIu32 " of inode %" PRIu64
                 " was written under a grant that was given up with a part of the "
                 "journal (epoch %" PRIu64 "): it answers that it is damaged until the file is removed or replaced",
                 b->index, b->inode, b->epoch);
    return r;
}

static int drop_work(void *arg)
{
    struct worker_chores *c = arg;
    c->dropped = c->given_up = 0;
    for (int i = 0; i < c->found; i++) {
        enum block_verdict verdict = c->verdicts[i];
        if (verdict == BLOCK_KEEP)
            continue;
        int r = carry_out(c, &c->page[i], verdict);
        if (r < 0 && r != -ESTALE && r != -CV_BUSY)
            return r;
        c->unfinished |= r == -CV_BUSY && verdict == BLOCK_GIVEN_UP && !c->page[i].lost;
        c->dropped += r == 0 && verdict == BLOCK_DROP;
        c->given_up += r == 0 && verdict == BLOCK_GIVEN_UP;
    }
    return 0;
}

static void drop_done(struct io_op *op, int result)
{
    struct worker_chores *c = container_of(op, struct worker_chores, blocks_op);
    WORKER_COUNT(c->metrics, orphans, c->dropped);
    WORKER_COUNT(c->metrics, given_up, c->given_up);
    if (c->dropped)
        log_info("dropped %u blocks that nothing refers to", c->dropped);
    page_over(c, result == 0);
}

static void blocks_answered(struct worker_call *call, int result, const struct rpc_frame *f)
{
    struct worker_chores *c = container_of(call, struct worker_chores, blocks_call);
    struct msg_blocks_check_answer a;
    if (result == 0)
        result = msg_blocks_check_answer_decode(f->body, f->header.body_len, &a);
    if (result < 0 || a.verdicts.n != (uint32_t)c->found || c->stopped) {
        page_over(c, false);
        return;
    }
    memcpy(c->verdicts, a.verdicts.p, a.verdicts.n);
    io_work(c->loop, &c->blocks_op, drop_work, c, drop_done);
}

static int page_work(void *arg)
{
    struct worker_chores *c = arg;
    return block_store_list(c->core->store, &c->cursor, c->page, PAGE);
}

static void page_done(struct io_op *op, int result)
{
    struct worker_chores *c = container_of(op, struct worker_chores, blocks_op);
    struct msg_blocks_check q = {.worker = c->core->worker};
    struct buf list = {0};
    c->found = result;
    if (result == 0 && !c->stopped) {
        sweep_over(c);
        return;
    }
    if (result < 0 || c->stopped) {
        page_over(c, false);
        return;
    }
    uint32_t n = 0;
    for (int i = 0; i < result; i++) {
        const struct block_info *b = &c->page[i];
        struct rec_held_block one = {.inode = b->inode, .index = b->index, .version = b->version, .epoch = b->epoch};
        n += rec_held_block_append(&list, &one) == 0;
    }
    q.blocks = wire_list_of(&list, n);
    c->blocks_call.done = blocks_answered;
    worker_master_call(c->master, &c->blocks_call, MSG_blocks_check, msg_blocks_check_desc(), &q,
                       clock_ns() + ASK_MS * NS_PER_MS);
    buf_fini(&list);
}

static void next_page(struct worker_chores *c)
{
    c->asking_blocks = true;
    io_work(c->loop, &c->blocks_op, page_work, c, page_done);
}

/* ---- the beat --------------------------------------------------------------------------------------------------- */

void worker_chores_beat(struct worker_chores *c)
{
    if (c->stopped)
        return;
    if (c->beats++ % SESSIONS_EVERY == 0 && !c->asking_sessions)
        ask_sessions(c);
    if (!c->sweeping && (c->rest == 0 || --c->rest == 0 || is_urgent(c)))
        begin_sweep(c);
    if (c->sweeping && !c->asking_blocks)
        next_page(c);
}

void worker_chores_registered(struct worker_chores *c)
{
    if (!c->stopped && !c->sweeping && is_urgent(c)) {
        begin_sweep(c);
        next_page(c);
    }
}

int worker_chores_new(struct loop *loop, struct worker_core *core, struct worker_master *master,
                      struct worker_metrics *metrics, struct worker_chores **ret)
{
    struct worker_chores *c = calloc(1, sizeof(*c));
    if (!c)
        return -ENOMEM;
    c->loop = loop;
    c->core = core;
    c->master = master;
    c->metrics = metrics;
    *ret = c;
    return 0;
}

void worker_chores_stop(struct worker_chores *c, void (*stopped)(void *arg), void *arg)
{
    c->stopped = stopped;
    c->stopped_arg = arg;
    stopped_when_quiet(c);
}

struct worker_chores *worker_chores_free(struct worker_chores *c)
{
    free(c);
    return NULL;
}
