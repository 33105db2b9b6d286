/* SPDX-License-Identifier: Apache-2.0 */
/* Finding the master that leads: three masters on one loop, of which none or one serves, is silent, refuses or is gone. */
#include "tests/unit/unit.h"

#include <errno.h>
#include <stdatomic.h>
#include <stdio.h>
#include <unistd.h>

#include "base/clock.h"
#include "base/error.h"
#include "base/log.h"
#include "rpc/rpc_leader.h"
#include "rpc/rpc_server.h"

#define MASTERS 3

struct master {
    struct rpc_server *server;
    char address[160];
    _Atomic bool stopped;
    _Atomic bool serves, silent; /* silent: answers nothing, like a stopped process */
    _Atomic int asked;
    const char *names; /* whom it names as the leader; NULL: nobody */
    struct list held;
};

static struct {
    struct loop *loop; /* of the masters */
    struct master masters[MASTERS];
    struct loop *own;
    struct rpc_leader *leader;
    bool tcp, watch;
    int told; /* how many of the masters we are told of; 0: all */
    _Atomic(struct rpc_client *) found;
    _Atomic int founds, losts, missed, ended, result;
    struct rpc_call call;
} t;

/* ---- masters ---------------------------------------------------------------------------------------------------------- */

static void on_request(struct rpc_request *q, void *user)
{
    struct master *m = user;
    const struct msg_leader_answer a = {.serving = m->serves, .address = text_of(m->names ? m->names : "")};
    if (q->header.type == MSG_leader)
        m->asked++;
    if (m->silent || q->header.type == MSG_session_renew)
        list_push_back(&m->held, &q->link);
    else
        rpc_answer(q, 0, 0, msg_leader_answer_desc(), &a);
}

static int start_master(void *arg)
{
    struct master *m = arg;
    const struct rpc_server_options o = {
        .self = {.role = RPC_MASTER, .program = "test"}, .request = on_request, .user = m};
    int r = rpc_server_new(t.loop, &o, &m->server);
    if (r == 0)
        r = rpc_server_listen(m->server, m->address, 0, 0600);
    if (r == 0 && t.tcp)
        snprintf(m->address, sizeof(m->address), "127.0.0.1:%u", rpc_server_port(m->server));
    return r;
}

static void master_stopped(void *arg)
{
    struct master *m = arg;
    m->server = rpc_server_free(m->server);
    m->stopped = true;
}

static int stop_master(void *arg)
{
    struct master *m = arg;
    for (struct list *e; (e = list_pop_front(&m->held));)
        rpc_answer(list_entry(e, struct rpc_request, link), -CV_CLOSED, 0, NULL, NULL);
    rpc_server_stop(m->server, 0, master_stopped, m);
    return 0;
}

/* ---- who looks -------------------------------------------------------------------------------------------------------- */

static void on_found(struct rpc_client *c, void *user)
{
    t.found = c;
    t.founds++;
}

static void on_lost(int error, void *user)
{
    t.found = NULL;
    t.losts++;
}

static void on_missed(const char *address, int error, const char *reason, void *user)
{
    t.missed++;
}

static int begin_here(void *arg)
{
    char *addresses[MASTERS];
    const struct rpc_leader_options o = {.self = {.role = RPC_CLIENT, .program = "test"},
                                         .watch = t.watch,
                                         .found = on_found,
                                         .lost = on_lost,
                                         .missed = on_missed};
    for (int i = 0; i < MASTERS; i++)
        addresses[i] = t.masters[i].address;
    int r = rpc_leader_new(t.own, &o, addresses, t.told ? (unsigned)t.told : MASTERS, &t.leader, NULL);
    if (r == 0)
        rpc_leader_find(t.leader);
    return r;
}

static void begin(int serving)
{
    log_set_level(LOG_LEVEL_ERROR);
    ck_assert_int_eq(loop_new(&(struct loop_options){.name = "masters"}, &t.loop), 0);
    ck_assert_int_eq(loop_start(t.loop), 0);
    for (int i = 0; i < MASTERS; i++) {
        struct master *m = &t.masters[i];
        if (t.tcp)
            snprintf(m->address, sizeof(m->address), "127.0.0.1:0");
        else
            snprintf(m->address, sizeof(m->address), "unix:%s/m%d", unit_tempdir(), i);
        m->names = t.told ? t.masters[MASTERS - 1].address : NULL;
        list_init(&m->held);
        m->serves = i == serving;
        ck_assert_int_eq(loop_call(t.loop, start_master, m), 0);
    }
    ck_assert_int_eq(loop_new(&(struct loop_options){.name = "looks"}, &t.own), 0);
    ck_assert_int_eq(loop_start(t.own), 0);
    ck_assert_int_eq(loop_call(t.own, begin_here, NULL), 0);
}

static void stop_own(void *arg)
{
    loop_stop(t.own);
}

static int end_here(void *arg)
{
    rpc_leader_close(t.leader, stop_own, NULL);
    return 0;
}

static int stop_masters(void *arg)
{
    loop_stop(t.loop);
    return 0;
}

static bool comes_true(bool (*is)(int), int arg)
{
    uint64_t end = clock_ns() + 15 * NS_PER_S;
    while (!is(arg) && clock_ns() < end)
        usleep(1000);
    return is(arg);
}

static bool is_stopped(int i)
{
    return t.masters[i].stopped;
}

static void end(void)
{
    loop_call(t.own, end_here, NULL);
    loop_join(t.own);
    loop_free(t.own);
    for (int i = 0; i < MASTERS; i++)
        if (!is_stopped(i)) {
            loop_call(t.loop, stop_master, &t.masters[i]);
            ck_assert(comes_true(is_stopped, i));
        }
    loop_call(t.loop, stop_masters, NULL);
    loop_join(t.loop);
    loop_free(t.loop);
}

static bool is_found(int i)
{
    struct rpc_client *c = t.found;
    return c && strcmp(rpc_client_address(c), t.masters[i].address) == 0;
}

static bool has_missed(int n)
{
    return t.missed >= n;
}

static bool has_ended(int n)
{
    return t.ended >= n;
}

static void lead(int i)
{
    for (int k = 0; k < MASTERS; k++)
        t.masters[k].serves = false;
    if (i >= 0)
        t.masters[i].serves = true;
}

static int lost_here(void *arg)
{
    rpc_leader_lost(t.leader, -CV_NOT_LEADER);
    return 0;
}

/* Something in flight that nobody answers. */
static void on_ended(struct rpc_call *call, int result, const struct rpc_frame *f)
{
    t.result = result;
    t.ended++;
}

static int call_here(void *arg)
{
    const struct msg_session_renew m = {.session = 1};
    t.call.done = on_ended;
    rpc_client_call(t.found, &t.call, MSG_session_renew, msg_session_renew_desc(), &m, UINT64_MAX);
    return 0;
}

/* ---- tests ------------------------------------------------------------------------------------------------------------ */

TEST(whoever_serves_is_found)
{
    begin(2);
    ck_assert(comes_true(is_found, 2));
    ck_assert_int_eq(t.founds, 1);
    end();
}

TEST(who_serves_later_is_found_later)
{
    begin(-1);
    ck_assert(comes_true(has_missed, 6));
    ck_assert_int_eq(t.founds, 0);
    lead(0);
    ck_assert(comes_true(is_found, 0));
    end();
}

TEST(a_master_that_leads_no_more_is_left_for_the_one_that_does)
{
    begin(0);
    ck_assert(comes_true(is_found, 0));
    lead(1);
    loop_call(t.own, lost_here, NULL);
    ck_assert(comes_true(is_found, 1));
    ck_assert_int_eq(t.losts, 0); /* who said so knows it */
    end();
}

TEST(a_master_that_is_watched_is_left_without_being_asked_for_anything)
{
    t.watch = true;
    begin(0);
    ck_assert(comes_true(is_found, 0));
    lead(1);
    ck_assert(comes_true(is_found, 1));
    ck_assert_int_eq(t.losts, 1);
    end();
}

TEST(a_master_that_is_gone_is_left_for_another)
{
    begin(0);
    ck_assert(comes_true(is_found, 0));
    lead(1);
    loop_call(t.loop, stop_master, &t.masters[0]);
    ck_assert(comes_true(is_found, 1));
    ck_assert_int_eq(t.losts, 1);
    end();
}

TEST(a_leader_nobody_told_us_of_is_named_by_those_who_follow)
{
    t.tcp = true;
    t.told = 1;
    begin(2);
    ck_assert(comes_true(is_found, 2));
    lead(0); /* and still knows those it was told of */
    loop_call(t.own, lost_here, NULL);
    ck_assert(comes_true(is_found, 0));
    end();
}

TEST(a_silent_master_is_left_for_one_that_serves_and_its_calls_end)
{
    begin(0);
    ck_assert(comes_true(is_found, 0));
    t.masters[0].silent = true;
    loop_call(t.own, call_here, NULL);
    lead(1);
    ck_assert(comes_true(is_found, 1));
    ck_assert(comes_true(has_ended, 1));
    ck_assert_int_eq(t.result, -CV_CLOSED);
    ck_assert_int_eq(t.losts, 1);
    end();
}

TEST(a_silent_master_is_kept_when_no_other_serves)
{
    begin(0);
    ck_assert(comes_true(is_found, 0));
    loop_call(t.own, call_here, NULL); /* answered by nobody */
    int before = t.masters[1].asked;
    for (int i = 0; i < 2000 && t.masters[1].asked < before + 2; i++)
        usleep(5000);
    ck_assert_int_ge(t.masters[1].asked, before + 2);
    ck_assert_int_eq(t.losts, 0);
    ck_assert_int_eq(t.ended, 0);
    end();
}

TEST(a_master_that_serves_and_refuses_by_turns_is_not_asked_in_a_busy_loop)
{
    begin(0);
    ck_assert(comes_true(is_found, 0));
    int before = t.masters[0].asked;
    uint64_t stop = clock_ns() + NS_PER_S;
    for (int n = 0; clock_ns() < stop; n = t.founds) {
        loop_call(t.own, lost_here, NULL);
        while (t.founds == n && clock_ns() < stop)
            usleep(100);
    }
    ck_assert_int_lt(t.masters[0].asked - before, 60);
    end();
}

TEST(without_addresses_there_is_nobody_to_look_for)
{
    char name[] = "host:port:x", *bad[] = {name};
    const char *named = NULL;
    struct rpc_leader *l;
    struct loop *loop;
    ck_assert_int_eq(loop_new(&(struct loop_options){.name = "looks"}, &loop), 0);
    ck_assert_int_eq(rpc_leader_new(loop, &(struct rpc_leader_options){0}, bad, 0, &l, NULL), -EINVAL);
    ck_assert_int_eq(rpc_leader_new(loop, &(struct rpc_leader_options){0}, bad, RPC_LEADER_MAX + 1, &l, NULL), -E2BIG);
    ck_assert_int_eq(rpc_leader_new(loop, &(struct rpc_leader_options){0}, bad, 1, &l, &named), -EINVAL);
    ck_assert_str_eq(named, bad[0]);
    loop_free(loop);
}
