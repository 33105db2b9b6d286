/* SPDX-License-Identifier: Apache-2.0 */
/* For tests of a whole master in this process: master, journal in memory, and a caller that waits for its answers. */
#pragma once

#include "tests/unit/fake_journal.h"

#include <pthread.h>

#include "conf/config.h"
#include "meta/master_daemon.h"
#include "meta/master_dir.h"
#include "meta/meta_format.h"
#include "rpc/rpc_client.h"

static const struct uuid CLUSTER = {{1, 2, 3}};

/* ---- calls ---------------------------------------------------------------------------------------------------------- */

struct caller {
    struct loop *loop;
    struct rpc_client *client;
    uint64_t session, sequence[64];
};

/* One call that somebody may wait for. */
struct asked {
    struct caller *c;
    struct rpc_call call;
    uint16_t type;
    const void *message;
    pthread_mutex_t lock;
    pthread_cond_t done;
    bool is_done;
    int result;
    uint64_t index;
    uint8_t body[65536];
    uint32_t n;
};

static void asked_done(struct rpc_call *call, int result, const struct rpc_frame *f)
{
    struct asked *a = container_of(call, struct asked, call);
    pthread_mutex_lock(&a->lock);
    a->result = result;
    if (f) {
        ck_assert_uint_le(f->header.body_len, sizeof(a->body));
        a->n = f->header.body_len;
        a->index = f->header.index;
        memcpy(a->body, f->body, a->n);
    }
    a->is_done = true;
    pthread_cond_signal(&a->done);
    pthread_mutex_unlock(&a->lock);
}

static int ask_on_loop(void *arg)
{
    struct asked *a = arg;
    rpc_client_call(a->c->client, &a->call, a->type, message_desc(a->type), a->message, clock_ns() + 60 * NS_PER_S);
    return 0;
}

/* Ask; free what it returns with asked_free(). The message is encoded before it returns. */
static struct asked *ask(struct caller *c, uint16_t type, const void *message)
{
    struct asked *a = calloc(1, sizeof(*a));
    *a = (struct asked){.c = c, .type = type, .message = message, .call.done = asked_done};
    pthread_mutex_init(&a->lock, NULL);
    pthread_cond_init(&a->done, NULL);
    loop_call(c->loop, ask_on_loop, a);
    return a;
}

static bool __attribute__((unused)) is_answered(struct asked *a)
{
    pthread_mutex_lock(&a->lock);
    bool done = a->is_done;
    pthread_mutex_unlock(&a->lock);
    return done;
}

static int asked_wait(struct asked *a)
{
    pthread_mutex_lock(&a->lock);
    while (!a->is_done)
        pthread_cond_wait(&a->done, &a->lock);
    pthread_mutex_unlock(&a->lock);
    return a->result;
}

static void asked_free(struct asked *a)
{
    asked_wait(a);
    pthread_mutex_destroy(&a->lock);
    pthread_cond_destroy(&a->done);
    free(a);
}

static struct caller *caller_new_as(const char *socket, enum rpc_role role)
{
    struct caller *c = calloc(1, sizeof(*c));
    ck_assert_int_eq(loop_new(&(struct loop_options){.name = "caller"}, &c->loop), 0);
    char address[200];
    snprintf(address, sizeof(address), "unix:%s", socket);
    struct rpc_client_options o = {.address = address, .self = {.role = role, .program = "test"}};
    ck_assert_int_eq(rpc_client_new(c->loop, &o, &c->client), 0);
    ck_assert_int_eq(loop_start(c->loop), 0);
    return c;
}

static struct caller *caller_new(const char *socket)
{
    return caller_new_as(socket, RPC_CLIENT);
}

static void caller_closed(void *arg)
{
    struct caller *c = arg;
    loop_stop(c->loop);
}

static int caller_close_on_loop(void *arg)
{
    struct caller *c = arg;
    rpc_client_close(c->client, caller_closed, c);
    return 0;
}

static void caller_free(struct caller *c)
{
    loop_call(c->loop, caller_close_on_loop, c);
    loop_join(c->loop);
    loop_free(c->loop);
    free(c);
}

static struct rec_op_head head_of(struct caller *c, uint32_t slot)
{
    return (struct rec_op_head){.session = c->session, .slot = slot, .sequence = ++c->sequence[slot]};
}

static void open_session(struct caller *c)
{
    struct msg_session_open m = {.host = TEXT("here"), .program = TEXT("test")};
    struct asked *a = ask(c, MSG_session_open, &m);
    ck_assert_int_eq(asked_wait(a), 0);
    struct msg_session_open_answer answer;
    ck_assert_int_eq(msg_session_open_answer_decode(a->body, a->n, &answer), 0);
    ck_assert_uint_ne(answer.session, 0);
    ck_assert_uint_ne(answer.timeout_ms, 0);
    c->session = answer.session;
    memset(c->sequence, 0, sizeof(c->sequence));
    asked_free(a);
}

static struct asked *ask_create_with(struct caller *c, const char *name, struct rec_op_head head)
{
    struct msg_create m = {.head = head, .parent = META_ROOT, .name = text_of(name), .mode = 0644, .flags = 2};
    return ask(c, MSG_create, &m);
}

static struct asked *ask_create(struct caller *c, const char *name, uint32_t slot)
{
    return ask_create_with(c, name, head_of(c, slot));
}

static struct asked *ask_lookup(struct caller *c, const char *name)
{
    struct msg_lookup m = {.head = {.session = c->session}, .parent = META_ROOT, .name = text_of(name)};
    return ask(c, MSG_lookup, &m);
}

static int finish(struct asked *a)
{
    int r = asked_wait(a);
    asked_free(a);
    return r;
}

static int __attribute__((unused)) create(struct caller *c, const char *name)
{
    return finish(ask_create(c, name, 0));
}

static int __attribute__((unused)) lookup(struct caller *c, const char *name)
{
    return finish(ask_lookup(c, name));
}

static int __attribute__((unused)) unlink_name(struct caller *c, const char *name)
{
    struct msg_unlink m = {.head = head_of(c, 0), .parent = META_ROOT, .name = text_of(name)};
    return finish(ask(c, MSG_unlink, &m));
}

/* ---- a cluster of one in a temporary directory ---------------------------------------------------------------------- */

struct cluster {
    struct config *config;
    struct master_options options;
    struct cluster_options cluster;
    char dir[100], run_dir[90], socket[120], journal_socket[120];
    struct fake_journal *journal;
    struct master *master;
    struct metrics *metrics;
    struct caller *c;
    _Atomic int failed;
};

static void cluster_failed(void *arg, int error)
{
    struct cluster *k = arg;
    k->failed = error;
}

/* All set up, nothing running: change options, then cluster_start(). */
static void cluster_init(struct cluster *k)
{
    static const struct option_section *const sections[] = {&cluster_section, &master_section, NULL};
    memset(k, 0, sizeof(*k));
    ck_assert_int_eq(config_new(sections, &k->config), 0);
    k->options = *config_options(k->config, master);
    k->cluster = *config_options(k->config, cluster);
    snprintf(k->run_dir, sizeof(k->run_dir), "%s", unit_tempdir());
    snprintf(k->dir, sizeof(k->dir), "%s/m", k->run_dir);
    snprintf(k->socket, sizeof(k->socket), "%s/master.sock", k->run_dir);
    snprintf(k->journal_socket, sizeof(k->journal_socket), "%s/journal.sock", k->run_dir);
    k->options.dir = k->dir;
    k->options.listen = (char *)"127.0.0.1";
    k->options.port = 0;
    k->options.memory_bytes = 64 << 20;
    k->options.cache_bytes = 8 << 20;
    k->options.worker_down_ms = k->options.worker_out_ms = 600000; /* a busy machine is no reason */
    k->cluster.run_dir = k->run_dir;
    ck_assert_int_eq(metrics_new(&k->metrics), 0);
    ck_assert_int_eq(master_dir_format(k->dir, CLUSTER), 0);
    k->journal = fake_journal_new(k->journal_socket, CLUSTER);
}

static void cluster_start_master(struct cluster *k)
{
    struct master_config mc = {&k->options, &k->cluster, k->metrics, cluster_failed, k};
    ck_assert_int_eq(master_new(&mc, &k->master), 0);
    ck_assert_int_eq(master_start(k->master), 0);
}

static void cluster_start(struct cluster *k)
{
    cluster_start_master(k);
    ck_assert_int_eq(master_wait_ready(k->master, 20000), 0);
    k->c = caller_new(k->socket);
    open_session(k->c);
}

static void cluster_fini(struct cluster *k)
{
    if (k->c)
        caller_free(k->c);
    master_free(k->master);
    fake_journal_free(k->journal);
    metrics_free(k->metrics);
    config_free(k->config);
}
