/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The handle: which master leads, and the session with the cluster.
 *
 *      FINDING --leader found--> OPENING --session--> OPEN --renew every lease/3--> OPEN
 *         ^  (rpc_leader.h)        |                   |
 *         +---- lost, not the leader any more ---------+      (the session lives on)
 *
 * The session outlives connections and masters: after a failover requests go out again under the same session, slots
 * and numbers. Only when the master says that it has ended a new one is opened.
 */
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/cleanup.h"
#include "base/clock.h"
#include "base/error.h"
#include "base/log.h"
#include "client/client_file.h"

#define DEFAULT_TIMEOUT_MS 30000

static void open_session(struct curvine *cv);
static void ready(struct curvine *cv);

/* ---- finding the leader ---------------------------------------------------------------------------------------------- */

static struct rpc_client *current(struct curvine *cv)
{
    return rpc_leader_client(cv->leader);
}

static void on_found(struct rpc_client *c, void *user)
{
    struct curvine *cv = user;
    if (cv->state == CLIENT_CLOSING)
        return;
    if (cv->session)
        ready(cv);
    else
        open_session(cv);
}

static void on_lost(int error, void *user)
{
    struct curvine *cv = user;
    if (cv->state == CLIENT_CLOSING)
        return;
    cv->last_error = error;
    cv->state = CLIENT_FINDING;
}

static void on_missed(const char *address, int error, const char *reason, void *user)
{
    struct curvine *cv = user;
    cv->last_error = error;
}

void client_lost_leader(struct curvine *cv, int error)
{
    if (cv->state == CLIENT_CLOSING || cv->state == CLIENT_FINDING)
        return;
    on_lost(error, cv);
    rpc_leader_lost(cv->leader, error);
}

void client_want(struct curvine *cv)
{
    if (cv->state != CLIENT_IDLE)
        return;
    cv->state = CLIENT_FINDING;
    rpc_leader_find(cv->leader);
}

/* ---- the session --------------------------------------------------------------------------------------------------------- */

static void reset_slots(struct curvine *cv, uint32_t count)
{
    cv->slot_count = min(max(count, 1u), (uint32_t)CLIENT_SLOTS_MAX);
    for (uint32_t i = 0; i < cv->slot_count; i++)
        cv->slots[i] = (struct client_slot){.next_free = i + 1 < cv->slot_count ? i + 1 : UINT32_MAX};
    cv->free_slot = 0;
}

static bool leadership_error(int r)
{
    return r == -CV_NOT_LEADER || r == -CV_CLOSED || r == -CV_UNREACHABLE || r == -CV_STOPPING ||
           r == -CV_UNKNOWN_OUTCOME || r == -CV_BUSY || r == -CV_DEADLINE;
}

/* A master heard of it, by what was sent at sent_ns. */
static void session_good(struct curvine *cv, uint64_t sent_ns)
{
    cv->session_until_ns = cv->session_timeout_ms ? sent_ns + cv->session_timeout_ms * NS_PER_MS : UINT64_MAX;
}

static void on_session(struct rpc_call *call, int result, const struct rpc_frame *f)
{
    struct curvine *cv = container_of(call, struct curvine, session_call);
    struct msg_session_open_answer a;
    if (cv->state == CLIENT_CLOSING)
        return;
    if (result == 0)
        result = msg_session_open_answer_decode(f->body, f->header.body_len, &a);
    if (result == 0 && a.session == 0)
        result = -CV_BAD_MESSAGE;
    if (result < 0 && cv->state == CLIENT_FINDING) { /* of a leader that was lost meanwhile */
        if (current(cv))
            open_session(cv);
        return;
    }
    if (result < 0) {
        if (!leadership_error(result))
            log_warn(result, "open a session");
        client_lost_leader(cv, result);
        return;
    }
    cv->session = a.session;
    cv->session_timeout_ms = a.timeout_ms;
    session_good(cv, cv->session_sent_ns);
    client_workers_let_go(cv); /* their connections speak for the session that was */
    cv->lease_ms = max(a.lease_ms, 30u);
    client_acks_told(cv, a.acks_early, a.generation, cv->session_sent_ns);
    reset_slots(cv, a.slots);
    ready(cv);
}

static void open_session(struct curvine *cv)
{
    if (rpc_call_busy(&cv->session_call))
        return;
    cv->state = CLIENT_OPENING;
    char host[64] = "";
    gethostname(host, sizeof(host) - 1);
    struct msg_session_open m = {
        .host = text_of(host),
        .pid = (uint32_t)getpid(),
        .program = text_of(cv->program),
        .mount_point = text_of(cv->mount_point ? cv->mount_point : ""),
    };
    cv->session_call.done = on_session;
    cv->session_sent_ns = clock_ns();
    rpc_client_call(current(cv), &cv->session_call, MSG_session_open, msg_session_open_desc(), &m,
                    clock_ns() + 5 * NS_PER_S);
}

static void renew_later(struct curvine *cv)
{
    loop_timer_start(cv->loop, &cv->renew, clock_ns() + cv->lease_ms * NS_PER_MS / 3);
}

static void on_renewed(struct rpc_call *call, int result, const struct rpc_frame *f)
{
    struct curvine *cv = container_of(call, struct curvine, renew_call);
    struct msg_session_renew_answer a;
    if (cv->state == CLIENT_CLOSING)
        return;
    if (result == 0)
        result = msg_session_renew_answer_decode(f->body, f->header.body_len, &a);
    if (result == 0) {
        session_good(cv, cv->renew_sent_ns);
        client_acks_told(cv, a.acks_early, a.generation, cv->renew_sent_ns);
        if (a.map_version > cv->content->map_version && cv->content->map_known)
            client_map_refresh(cv);
    }
    if (result == -CV_SESSION_ENDED || result == -CV_SESSION_UNKNOWN)
        client_lost_session(cv);
    else if (result < 0 && cv->state == CLIENT_OPEN && rpc_call_client(call) == current(cv))
        client_lost_leader(cv, result);
    renew_later(cv);
}

static void on_renew_time(struct loop_timer *timer)
{
    struct curvine *cv = container_of(timer, struct curvine, renew);
    if (cv->state != CLIENT_OPEN || rpc_call_busy(&cv->renew_call)) {
        renew_later(cv);
        return;
    }
    struct msg_session_renew m = {.session = cv->session};
    cv->renew_call.done = on_renewed;
    cv->renew_sent_ns = clock_ns();
    rpc_client_call(current(cv), &cv->renew_call, MSG_session_renew, msg_session_renew_desc(), &m,
                    clock_ns() + max(cv->lease_ms, 1000u) * NS_PER_MS);
}

void client_lost_session(struct curvine *cv)
{
    if (!cv->session || cv->state == CLIENT_CLOSING)
        return;
    log_warn(0, "session %llx has ended at the master: opening a new one", (unsigned long long)cv->session);
    cv->session = 0;
    client_workers_let_go(cv);
    if (cv->state == CLIENT_OPEN)
        open_session(cv);
}

static void ready(struct curvine *cv)
{
    cv->state = CLIENT_OPEN;
    cv->last_error = 0;
    if (!loop_timer_running(&cv->renew))
        renew_later(cv);
    if (!cv->opened_posted) {
        cv->opened_posted = true;
        sem_post(&cv->opened);
    } else {
        cv->acks_known_until_ns = 0; /* another master may have another mode: ask before anything else is sent */
        on_renew_time(&cv->renew);
        client_reopen_all(cv);
    }
    client_calls_send(cv);
}

/* ---- opening and closing ---------------------------------------------------------------------------------------------------- */

static int find_masters(struct curvine *cv, const char *masters)
{
    char *list cleanup(freep) = strdup(masters);
    char *addresses[RPC_LEADER_MAX];
    unsigned count = 0;
    if (!list)
        return -ENOMEM;
    for (char *rest = list, *address; (address = strsep(&rest, ","));) {
        if (count == RPC_LEADER_MAX)
            return -E2BIG;
        addresses[count++] = address + strspn(address, " ");
        if (!*addresses[count - 1])
            return -EINVAL;
    }
    const struct rpc_leader_options o = {
        .default_port = MASTER_PORT,
        .self = {.role = RPC_CLIENT, .program = cv->program},
        .found = on_found,
        .lost = on_lost,
        .missed = on_missed,
        .late = client_late_answer,
        .user = cv,
    };
    return rpc_leader_new(cv->loop, &o, addresses, count, &cv->leader, NULL);
}

static void on_client_closed(void *arg)
{
    struct curvine *cv = arg;
    if (--cv->open_clients == 0)
        loop_stop(cv->loop);
}

static void close_connections(struct curvine *cv)
{
    cv->state = CLIENT_CLOSING;
    loop_timer_stop(cv->loop, &cv->renew);
    loop_timer_stop(cv->loop, &cv->content->tick);
    client_calls_fail(cv, -CV_CANCELLED);
    cv->open_clients = (cv->leader != NULL) + client_workers_close(cv, on_client_closed, cv);
    if (cv->leader)
        rpc_leader_close(cv->leader, on_client_closed, cv);
    cv->leader = NULL;
    if (cv->open_clients == 0)
        loop_stop(cv->loop);
}

static void on_session_closed(struct rpc_call *call, int result, const struct rpc_frame *f)
{
    close_connections(container_of(call, struct curvine, session_call));
}

/* Say good-bye, if there is somebody to say it to: otherwise the session runs out by itself. */
static int close_here(void *arg)
{
    struct curvine *cv = arg;
    bool polite = cv->state == CLIENT_OPEN && !rpc_call_busy(&cv->session_call);
    cv->state = CLIENT_CLOSING;
    if (!polite) {
        close_connections(cv);
        return 0;
    }
    struct msg_session_close m = {.session = cv->session};
    cv->session_call.done = on_session_closed;
    rpc_client_call(current(cv), &cv->session_call, MSG_session_close, msg_session_close_desc(), &m,
                    clock_ns() + NS_PER_S);
    return 0;
}

void curvine_close(struct curvine *cv)
{
    if (!cv)
        return;
    loop_call(cv->loop, close_here, cv);
    loop_join(cv->loop);
    client_content_fini(cv);
    loop_free(cv->loop);
    sem_destroy(&cv->opened);
    free(cv->program);
    free(cv->mount_point);
    free(cv);
}

static int start_here(void *arg)
{
    client_want(arg);
    return 0;
}

static int wait_until_open(struct curvine *cv)
{
    struct timespec until;
    clock_gettime(CLOCK_MONOTONIC, &until);
    until.tv_sec += cv->options.timeout_ms / 1000;
    until.tv_nsec += (long)(cv->options.timeout_ms % 1000) * (long)NS_PER_MS;
    if (until.tv_nsec >= (long)NS_PER_S) {
        until.tv_sec++;
        until.tv_nsec -= (long)NS_PER_S;
    }
    while (sem_clockwait(&cv->opened, CLOCK_MONOTONIC, &until) < 0)
        if (errno == ETIMEDOUT)
            return -CV_UNREACHABLE;
    return 0;
}

static const char *own_name(void)
{
    return program_invocation_short_name ? program_invocation_short_name : "libcurvine";
}

int curvine_open(const struct curvine_options *options, struct curvine **ret)
{
    const char *masters = options->masters ? options->masters : getenv("CURVINE_MASTERS");
    if (!masters)
        return -EINVAL;
    struct curvine *cv = calloc(1, sizeof(*cv));
    if (!cv)
        return -ENOMEM;
    cv->options = *options;
    if (!cv->options.timeout_ms)
        cv->options.timeout_ms = DEFAULT_TIMEOUT_MS;
    cv->program = strdup(options->program ? options->program : own_name());
    cv->mount_point = options->mount_point ? strdup(options->mount_point) : NULL;
    struct list *lists[] = {&cv->waiting, &cv->slot_waiting, &cv->pausing, &cv->in_flight};
    for (size_t i = 0; i < array_size(lists); i++)
        list_init(lists[i]);
    loop_timer_init(&cv->renew, on_renew_time);
    sem_init(&cv->opened, 0, 0);
    int r = cv->program ? client_content_init(cv) : -ENOMEM;
    if (r == 0)
        r = loop_new(&(struct loop_options){.name = "curvine"}, &cv->loop);
    if (r < 0) {
        client_content_fini(cv);
        free(cv->program);
        free(cv->mount_point);
        free(cv);
        return r;
    }
    r = find_masters(cv, masters);
    if (r == 0)
        r = loop_start(cv->loop);
    if (r < 0) { /* the loop never ran: what was made on it goes with it */
        close_connections(cv);
        loop_run(cv->loop);
        client_content_fini(cv);
        loop_free(cv->loop);
        sem_destroy(&cv->opened);
        free(cv->program);
        free(cv->mount_point);
        free(cv);
        return r;
    }
    loop_call(cv->loop, start_here, cv);
    r = wait_until_open(cv);
    if (r < 0) {
        int why = cv->last_error;
        curvine_close(cv);
        return why == -CV_WRONG_CLUSTER || why == -CV_WRONG_INCARNATION || why == -EPROTONOSUPPORT ? why : r;
    }
    *ret = cv;
    return 0;
}

const char *curvine_strerror(int code)
{
    return cv_error_text(code);
}

int curvine_errno(int code)
{
    return cv_error_errno(code);
}
