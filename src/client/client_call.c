/* SPDX-License-Identifier: Apache-2.0 */
/*
 * A request on its way.
 *
 *      curvine_submit (any thread: encode) -> loop: slot -> sent -> answered -> done
 *                                                ^            |
 *                                                +-- waiting, or pausing: not the leader, connection lost, busy
 *
 * A mutation holds a slot from its first sending to its end; sent again it carries the same (session, slot, sequence), so
 * the master executes it once and answers both times alike. Reads need no slot and are simply asked again.
 */
#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <unistd.h>

#include "base/bytes.h"
#include "base/cleanup.h"
#include "base/clock.h"
#include "base/error.h"
#include "client/client_file.h"

#define NO_SLOT     UINT32_MAX
#define BUSY_MIN_MS 2
#define BUSY_MAX_MS 200

static void start(struct client_call *call);

/* ---- slots ------------------------------------------------------------------------------------------------------------ */

uint32_t client_slot_take(struct curvine *cv)
{
    uint32_t slot = cv->free_slot;
    if (slot != NO_SLOT)
        cv->free_slot = cv->slots[slot].next_free;
    return slot;
}

static void slot_release(struct client_call *call)
{
    struct curvine *cv = call->cv;
    if (call->slot == NO_SLOT)
        return;
    if (call->session == cv->session) { /* slots of a session that ended are gone with it */
        cv->slots[call->slot].next_free = cv->free_slot;
        cv->free_slot = call->slot;
    }
    call->slot = NO_SLOT;
    struct list *next = cv->state == CLIENT_OPEN ? list_pop_front(&cv->slot_waiting) : NULL;
    if (next)
        start(list_entry(next, struct client_call, link));
}

/* ---- the end ------------------------------------------------------------------------------------------------------------ */

static void finish(struct client_call *call, int result)
{
    struct curvine_request *q = call->request;
    list_remove(&call->link);
    loop_timer_stop(call->cv->loop, &call->timer);
    buf_fini(&call->body);
    q->result = result;
    call->cv->changes += call->once && result == 0;
    slot_release(call);
    if (call->exclusive)
        client_truncate_ended(call);
    const struct curvine_dirent *entries = q->entries;
    q->done(q);
    free((void *)(uintptr_t)entries);
}

static void on_timer(struct loop_timer *timer)
{
    struct client_call *call = container_of(timer, struct client_call, timer);
    if (call->pausing && clock_ns() < call->deadline_ns) {
        call->pausing = false;
        list_remove(&call->link);
        start(call);
        return;
    }
    finish(call, -CV_DEADLINE);
}

/* Until the session is open, or the deadline. */
static void wait_on(struct client_call *call, struct list *list)
{
    list_remove(&call->link);
    list_push_back(list, &call->link);
    loop_timer_start(call->cv->loop, &call->timer, call->deadline_ns);
}

static void pause_call(struct client_call *call)
{
    struct curvine *cv = call->cv;
    uint32_t pause_ms = min(BUSY_MIN_MS << min(call->retries, 8u), BUSY_MAX_MS);
    call->retries++;
    call->pausing = true;
    list_remove(&call->link);
    list_push_back(&cv->pausing, &call->link);
    loop_timer_start(cv->loop, &call->timer, min(clock_ns() + pause_ms * NS_PER_MS, call->deadline_ns));
}

static bool opens(const struct curvine_request *q)
{
    return q->op == CURVINE_OPEN || q->op == CURVINE_CREATE;
}

/* ---- answers -------------------------------------------------------------------------------------------------------------- */

static void take_answer(struct client_call *call, int result, const struct rpc_frame *f)
{
    struct curvine_request *q = call->request;
    if (f) {
        q->index = f->header.index;
        call->cv->index_seen = max(call->cv->index_seen, q->index);
    }
    if (result == 0 && call->answer)
        result = buf_append(call->answer, f->body, f->header.body_len);
    else if (result == 0 && q->op == CURVINE_FSYNC)
        result = client_sync_decode(call, f->body, f->header.body_len);
    else if (result == 0 && call->op->decode)
        result = call->op->decode(q, f->body, f->header.body_len);
    if (result == 0 && !call->answer)
        result = client_answered(call, f->body, f->header.body_len);
    if (result < 0 && opens(q) && q->handle) /* it is open, but not here */
        client_handle_back(call->cv, q->attr.inode, q->handle);
    finish(call, result);
}

static void on_answer(struct rpc_call *rpc, int result, const struct rpc_frame *f)
{
    struct client_call *call = container_of(rpc, struct client_call, rpc);
    struct curvine *cv = call->cv;
    if (cv->state == CLIENT_CLOSING)
        result = result < 0 ? result : 0;
    switch (cv->state == CLIENT_CLOSING ? 0 : result) {
    case -CV_CLOSED:
    case -CV_UNKNOWN_OUTCOME: call->sent = true; /* fallthrough */
    case -CV_UNREACHABLE:
    case -CV_NOT_LEADER:
    case -CV_STOPPING:
        if (cv->state == CLIENT_OPEN && rpc_call_client(rpc) != rpc_leader_client(cv->leader)) {
            list_remove(&call->link); /* another one leads by now */
            start(call);
            return;
        }
        wait_on(call, &cv->waiting);
        if (cv->state == CLIENT_OPEN)
            client_lost_leader(cv, result);
        return;
    case -CV_NO_WORKER: /* one may be coming back, or the master has just begun to lead: within the deadline */
    case -CV_BUSY: pause_call(call); return;
    case -CV_SESSION_ENDED:
    case -CV_SESSION_UNKNOWN:
        if (call->session == cv->session)
            client_lost_session(cv);
        if (call->sent) { /* it may have been executed under the session that is gone: nobody can tell */
            finish(call, -CV_SESSION_ENDED);
            return;
        }
        call->slot = NO_SLOT;
        list_remove(&call->link);
        if (cv->state == CLIENT_OPEN)
            start(call);
        else
            wait_on(call, &cv->waiting);
        return;
    default: take_answer(call, result, f);
    }
}

/* ---- sending ---------------------------------------------------------------------------------------------------------------- */

/* On the loop, on no list: send, or wait for what is missing. */
static void start(struct client_call *call)
{
    struct curvine *cv = call->cv;
    if (cv->state != CLIENT_OPEN) {
        wait_on(call, &cv->waiting);
        client_want(cv);
        return;
    }
    if (call->once && call->slot != NO_SLOT && call->session != cv->session) {
        if (call->sent) {
            finish(call, -CV_SESSION_ENDED);
            return;
        }
        call->slot = NO_SLOT;
    }
    if (call->once && call->slot == NO_SLOT) {
        call->slot = client_slot_take(cv);
        if (call->slot == NO_SLOT) {
            wait_on(call, &cv->slot_waiting);
            return;
        }
        call->session = cv->session;
        call->sequence = ++cv->slots[call->slot].sequence;
    }
    if (!call->plain)
        client_head_patch(&call->body, cv->session, call->once ? call->slot : 0, call->sequence);
    loop_timer_stop(cv->loop, &call->timer);
    list_push_back(&cv->in_flight, &call->link);
    call->rpc.done = on_answer;
    call->rpc.late = !call->answer && opens(call->request);
    call->sent_ns = clock_ns();
    call->changes = cv->changes;
    rpc_client_call_body(rpc_leader_client(cv->leader), &call->rpc, call->op->type, cv->index_seen, call->body.p,
                         (uint32_t)call->body.n, NULL, 0, call->deadline_ns);
}

void client_calls_send(struct curvine *cv)
{
    struct list calls = LIST_INIT(calls);
    list_append_all(&calls, &cv->slot_waiting);
    list_append_all(&calls, &cv->waiting);
    for (struct list *e; (e = list_pop_front(&calls));)
        start(list_entry(e, struct client_call, link));
}

void client_calls_fail(struct curvine *cv, int result)
{
    struct list *lists[] = {&cv->waiting, &cv->slot_waiting, &cv->pausing};
    for (size_t i = 0; i < array_size(lists); i++)
        while (!list_empty(lists[i]))
            finish(list_entry(lists[i]->next, struct client_call, link), result);
}

/* ---- from any thread ------------------------------------------------------------------------------------------------------------ */

static void on_submitted(struct loop_job *job)
{
    struct client_call *call = container_of(job, struct client_call, job);
    bool durable = !call->answer && call->request->op == CURVINE_FSYNC && !client_acks_early(call->cv);
    if (call->result < 0 || durable)
        finish(call, call->result);
    else if (!client_truncate_hold(call))
        start(call);
}

/* The caller is who asks; without one, this process. */
static int encode(struct client_call *call, const struct curvine_request *q)
{
    struct rec_op_head head = {.uid = geteuid(), .gid = getegid(), .pid = (uint32_t)getpid()};
    uint8_t groups[4 * 64];
    if (q->caller) {
        uint32_t n = min(q->caller->group_count, 64u);
        for (uint32_t i = 0; i < n; i++)
            put_le32(groups + 4 * i, q->caller->groups[i]);
        head = (struct rec_op_head){
            .uid = q->caller->uid,
            .gid = q->caller->gid,
            .pid = q->caller->pid,
            .groups = {(const char *)groups, 4 * n},
        };
    }
    return call->op ? call->op->encode(q, &head, &call->body) : -EINVAL;
}

static struct client_call *call_init(struct curvine *cv, struct curvine_request *q, const struct client_op *op)
{
    struct client_call *call = call_of(q);
    *call = (struct client_call){.request = q, .cv = cv, .op = op, .slot = NO_SLOT};
    uint32_t timeout_ms = q->timeout_ms ? q->timeout_ms : cv->options.timeout_ms;
    call->deadline_ns = clock_ns() + timeout_ms * NS_PER_MS;
    call->job.run = on_submitted;
    list_init(&call->link);
    loop_timer_init(&call->timer, on_timer);
    q->entries = NULL;
    q->entry_count = 0;
    q->result = 0;
    return call;
}

/* Operations on an open file's content are not messages to the master. */
static bool is_content(const struct curvine_request *q)
{
    return q->file && ((q->op >= CURVINE_READ && q->op <= CURVINE_FLUSH) || q->op == CURVINE_RELEASE);
}

void curvine_submit(struct curvine *cv, struct curvine_request *q)
{
    if (is_content(q)) {
        client_io_start(cv, q);
        return;
    }
    if (q->op == CURVINE_GETATTR || q->op == CURVINE_SETATTR) {
        if (q->file) {
            q->inode = q->file->inode->inode;
            q->handle = q->file->handle;
        }
    } else if (opens(q)) {
        q->file = NULL;
        q->handle = 0;
    }
    struct client_call *call = call_init(cv, q, client_op_of(q->op));
    /* Opening changes nothing but by O_TRUNC. A handle that nobody waits for any more is given back when the answer comes; one
     * whose answer is lost with the connection goes with its session. */
    call->once = call->op && call->op->mutation && (q->op != CURVINE_OPEN || q->flags & O_TRUNC);
    call->result = encode(call, q);
    loop_post(cv->loop, &call->job);
}

void client_submit_encoded(struct curvine *cv, struct curvine_request *q, const struct client_op *op, struct buf *body,
                           struct buf *answer, bool plain, int error)
{
    struct client_call *call = call_init(cv, q, op);
    call->body = *body;
    *body = (struct buf){0};
    call->answer = answer;
    call->plain = plain;
    call->once = op->mutation;
    call->result = error;
    loop_post(cv->loop, &call->job);
}

void client_call_go(struct client_call *call)
{
    start(call);
}

void client_call_hold(struct client_call *call, struct list *where)
{
    wait_on(call, where);
}

static int cancel_here(void *arg)
{
    struct curvine_request *q = arg;
    struct client_call *call = call_of(q);
    if (is_content(q))
        client_io_cancel(io_of(q));
    else if (rpc_call_busy(&call->rpc))
        rpc_client_cancel(&call->rpc);
    else if (!list_empty(&call->link))
        finish(call, -CV_CANCELLED);
    return 0;
}

void curvine_cancel(struct curvine *cv, struct curvine_request *q)
{
    loop_call(cv->loop, cancel_here, q);
}
