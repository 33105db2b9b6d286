/* SPDX-License-Identifier: Apache-2.0 */
#include "cli/masters.h"

#include <errno.h>
#include <semaphore.h>
#include <stdio.h>
#include <string.h>

#include "base/clock.h"
#include "base/error.h"
#include "cli/connect.h"
#include "conf/common_options.h"
#include "io/loop.h"
#include "rpc/rpc_client.h"

#define ONE_MS    2000 /* for one answer */
#define GLANCE_MS 500
#define AGAIN_MS  100

/* One round of questions, on a loop of its own. */
struct round {
    struct masters *masters;
    struct loop *loop;
    uint64_t deadline_ns;
    struct seat {
        struct round *round;
        struct master_says *says;
        struct rpc_client *client;
        struct rpc_call call;
    } seats[MASTERS_MAX];
    sem_t ended;
};

static void on_state(struct rpc_client *c, int error, const struct msg_hello_answer *answer, const char *reason,
                     void *user)
{
    struct seat *s = user;
    snprintf(s->says->reason, sizeof(s->says->reason), "%s", error < 0 && reason ? reason : "");
}

static void on_closed(void *arg)
{
    struct round *r = arg;
    sem_post(&r->ended);
}

static void on_answer(struct rpc_call *call, int result, const struct rpc_frame *f)
{
    struct seat *s = container_of(call, struct seat, call);
    s->says->body.n = 0;
    if (result == 0)
        result = buf_append(&s->says->body, f->body, f->header.body_len);
    s->says->error = result;
    rpc_client_close(s->client, on_closed, s->round);
}

static int ask_here(void *arg)
{
    struct round *r = arg;
    const struct msg_cluster_status m = {0};
    int n = 0;
    for (uint32_t i = 0; i < r->masters->count; i++) {
        struct seat *s = &r->seats[i];
        *s = (struct seat){.round = r, .says = &r->masters->list[i]};
        struct rpc_client_options o = {.address = s->says->address,
                                       .default_port = MASTER_PORT,
                                       .self = {.role = RPC_CLIENT, .program = "cv " CV_VERSION},
                                       .state = on_state,
                                       .user = s};
        s->says->error = rpc_client_new(r->loop, &o, &s->client);
        if (s->says->error < 0)
            continue;
        s->call.done = on_answer;
        rpc_client_call(s->client, &s->call, MSG_cluster_status, msg_cluster_status_desc(), &m, r->deadline_ns);
        n++;
    }
    return n;
}

bool master_self(const struct master_says *m, struct rec_node_info *ret)
{
    if (m->error < 0)
        return false;
    rec_for_each (node_info, n, &m->answer.nodes)
        if (text_equal(n.role, TEXT("master"))) {
            *ret = n;
            return true;
        }
    return false;
}

/* The journal beside it leads, and it is attached to it. */
static bool says_leads(const struct master_says *m)
{
    if (m->error < 0 || !m->answer.leader)
        return false;
    rec_for_each (node_info, n, &m->answer.nodes)
        if (n.node == m->answer.leader && text_equal(n.state, TEXT("leader")))
            return true;
    return false;
}

static void understand(struct masters *m)
{
    m->answers = 0;
    m->leader = NULL;
    for (uint32_t i = 0; i < m->count; i++) {
        struct master_says *s = &m->list[i];
        if (s->error == 0)
            s->error = msg_cluster_status_answer_decode(s->body.p, s->body.n, &s->answer);
        m->answers += s->error == 0;
        s->leads = says_leads(s);
        if (s->leads && (!m->leader || s->answer.term > m->leader->answer.term))
            m->leader = s;
    }
}

static int ask_once(struct masters *m, uint32_t timeout_ms)
{
    struct round r = {.masters = m, .deadline_ns = clock_ns() + timeout_ms * NS_PER_MS};
    int error = loop_new(NULL, &r.loop);
    if (error == 0)
        error = loop_start(r.loop);
    if (error < 0) {
        loop_free(r.loop);
        return error;
    }
    sem_init(&r.ended, 0, 0);
    for (int n = loop_call(r.loop, ask_here, &r); n > 0; n--)
        while (sem_wait(&r.ended) < 0)
            ;
    loop_stop(r.loop);
    loop_join(r.loop);
    loop_free(r.loop);
    sem_destroy(&r.ended);
    understand(m);
    return 0;
}

static int name_all(struct cli *cli, struct masters *ret)
{
    const struct config *config;
    *ret = (struct masters){.count = 0};
    if (cli_config(cli, &config) < 0)
        return CLI_USAGE;
    const struct cluster_options *o = config_options(config, cluster);
    for (uint32_t i = 0; i < o->masters.n && i < MASTERS_MAX; i++)
        snprintf(ret->list[ret->count++].address, sizeof(ret->list[0].address), "%s", o->masters.items[i]);
    return CLI_OK;
}

int masters_ask_once(struct cli *cli, struct masters *ret)
{
    int status = name_all(cli, ret);
    if (status != CLI_OK)
        return status;
    int r = ask_once(ret, GLANCE_MS);
    return r < 0 ? cli_fail(cli, r, NULL, "ask the masters") : CLI_OK;
}

int masters_ask(struct cli *cli, uint32_t patience_ms, struct masters *ret)
{
    int status = name_all(cli, ret);
    if (status != CLI_OK)
        return status;
    uint32_t timeout_ms = cli_timeout_ms(cli, patience_ms);
    uint64_t end = clock_ns() + timeout_ms * NS_PER_MS;
    for (;;) {
        int r = ask_once(ret, min(timeout_ms, (uint32_t)ONE_MS));
        if (r < 0)
            return cli_fail(cli, r, NULL, "ask the masters");
        if (ret->leader || clock_ns() + AGAIN_MS * NS_PER_MS >= end)
            return CLI_OK;
        usleep(AGAIN_MS * 1000);
    }
}

void masters_ask_also(struct cli *cli, struct masters *m, const char *address)
{
    if (m->count == MASTERS_MAX)
        return;
    m->list[m->count] = (struct master_says){0};
    snprintf(m->list[m->count++].address, sizeof(m->list[0].address), "%s", address);
    (void)ask_once(m, min(cli_timeout_ms(cli, ONE_MS), (uint32_t)ONE_MS));
}

void masters_fini(struct masters *m)
{
    for (uint32_t i = 0; i < m->count; i++)
        buf_fini(&m->list[i].body);
    m->count = 0;
}
