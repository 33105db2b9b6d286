/* SPDX-License-Identifier: Apache-2.0 */
#include "cli/raft_view.h"

#include <errno.h>
#include <inttypes.h>
#include <jansson.h>
#include <semaphore.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>
#include <unistd.h>

#include "base/clock.h"
#include "base/error.h"
#include "cli/connect.h"
#include "conf/common_options.h"
#include "io/loop.h"
#include "rpc/rpc_client.h"

#define ONE_MS    3000 /* for the status of one master */
#define GRACE_MS  700  /* and for that of others when the leader's is there */
#define LOOK_US   1000
#define SILENT_MS 3000 /* a pause of the machine is shorter */

/* One question, on the loop while it is under way. */
struct question {
    struct raft_view *v;
    uint32_t master;
    const struct msg_raft_admin *message;
    uint64_t deadline_ns;
    struct rpc_call call;
    sem_t ended;
    int result;
    struct buf text;
    uint64_t node;
    bool there;
};

struct raft_view_private {
    struct cli *cli;
    struct loop *loop;
    bool running;
    struct rpc_client *clients[RAFT_VIEW_MASTERS];
    sem_t closed;
};

char *raft_node_text(uint64_t node, char out[17])
{
    snprintf(out, 17, "%016" PRIx64, node);
    return out;
}

/* ---- connections ---------------------------------------------------------------------------------------------------- */

static void add_master(struct raft_view *v, const char *address, bool named)
{
    for (uint32_t i = 0; i < v->master_count; i++)
        if (strcmp(v->masters[i].address, address) == 0)
            return;
    if (v->master_count == RAFT_VIEW_MASTERS || !*address)
        return;
    struct raft_view_master *m = &v->masters[v->master_count++];
    *m = (struct raft_view_master){.named = named};
    snprintf(m->address, sizeof(m->address), "%s", address);
}

int raft_view_open(struct cli *cli, struct raft_view **ret)
{
    const struct config *config;
    if (cli_config(cli, &config) < 0)
        return CLI_USAGE;
    struct raft_view *v cleanup(raft_view_closep) = calloc(1, sizeof(*v));
    if (v)
        v->private = calloc(1, sizeof(*v->private));
    if (!v || !v->private)
        return cli_fail(cli, -ENOMEM, NULL, "connect");
    const struct cluster_options *o = config_options(config, cluster);
    for (uint32_t i = 0; i < o->masters.n; i++)
        add_master(v, o->masters.items[i], true);
    sem_init(&v->private->closed, 0, 0);
    v->private->cli = cli;
    int r = loop_new(NULL, &v->private->loop);
    if (r == 0)
        r = loop_start(v->private->loop);
    if (r < 0)
        return cli_fail(cli, r, NULL, "make an event loop");
    v->private->running = true;
    *ret = take(v);
    return CLI_OK;
}

static void client_closed(void *arg)
{
    struct raft_view_private *p = arg;
    sem_post(&p->closed);
}

static int close_clients(void *arg)
{
    struct raft_view *v = arg;
    int n = 0;
    for (uint32_t i = 0; i < v->master_count; i++) {
        if (!v->private->clients[i])
            continue;
        rpc_client_close(v->private->clients[i], client_closed, v->private);
        n++;
    }
    return n;
}

void raft_view_close(struct raft_view *v)
{
    struct raft_view_private *p = v->private;
    if (p && p->running) {
        for (int n = loop_call(p->loop, close_clients, v); n > 0; n--)
            while (sem_wait(&p->closed) < 0)
                ;
        loop_stop(p->loop);
        loop_join(p->loop);
    }
    if (p) {
        loop_free(p->loop);
        sem_destroy(&p->closed);
    }
    free(p);
    free(v);
}

/* ---- asking ------------------------------------------------------------------------------------------------------------ */

static void on_state(struct rpc_client *c, int error, const struct msg_hello_answer *answer, const char *reason,
                     void *user)
{
    struct raft_view_master *m = user;
    snprintf(m->reason, sizeof(m->reason), "%s", error < 0 && reason ? reason : "");
}

static void on_answer(struct rpc_call *call, int result, const struct rpc_frame *f)
{
    struct question *q = container_of(call, struct question, call);
    struct msg_raft_admin_answer a;
    if (result == 0)
        result = msg_raft_admin_answer_decode(f->body, f->header.body_len, &a);
    if (result == 0) {
        q->there = true;
        q->node = a.node;
        result = buf_append(&q->text, a.text.p, a.text.n);
    }
    if (result == 0 && a.error)
        result = -(int)(a.error & INT32_MAX);
    q->result = result;
    sem_post(&q->ended);
}

static int begin(void *arg)
{
    struct question *q = arg;
    struct raft_view_private *p = q->v->private;
    struct rpc_client_options options = {
        .address = q->v->masters[q->master].address,
        .default_port = MASTER_PORT,
        .self = {.role = RPC_CLIENT, .program = "cv " CV_VERSION},
        .state = on_state,
        .user = &q->v->masters[q->master],
    };
    if (!p->clients[q->master]) {
        int r = rpc_client_new(p->loop, &options, &p->clients[q->master]);
        if (r < 0)
            return r;
    }
    q->call.done = on_answer;
    rpc_client_call(p->clients[q->master], &q->call, MSG_raft_admin, msg_raft_admin_desc(), q->message, q->deadline_ns);
    return 0;
}

static void question_start(struct question *q, struct raft_view *v, uint32_t master, const struct msg_raft_admin *m,
                           uint64_t deadline_ns)
{
    *q = (struct question){.v = v, .master = master, .message = m, .deadline_ns = deadline_ns};
    sem_init(&q->ended, 0, 0);
    int r = loop_call(v->private->loop, begin, q);
    if (r < 0) {
        q->result = r;
        sem_post(&q->ended);
    }
}

/* Note what came, which has. */
static int question_end(struct question *q)
{
    sem_destroy(&q->ended);
    if (q->result == -CV_CANCELLED)
        q->result = -CV_DEADLINE;
    struct raft_view_master *m = &q->v->masters[q->master];
    m->error = q->result;
    m->node = q->node;
    m->there = q->there;
    int r = buf_append(&q->text, "", 1);
    if (q->result < 0 && q->text.n > 1) /* it answers, with why it cannot say more */
        snprintf(m->reason, sizeof(m->reason), "%s", (const char *)q->text.p);
    return q->result < 0 ? q->result : r;
}

static int question_wait(struct question *q)
{
    while (sem_wait(&q->ended) < 0)
        ;
    return question_end(q);
}

static int cancel(void *arg)
{
    rpc_client_cancel(&((struct question *)arg)->call);
    return 0;
}

int raft_view_ask(struct raft_view *v, uint32_t master, const struct msg_raft_admin *m, uint64_t deadline_ns,
                  struct buf *ret_text)
{
    struct question q;
    question_start(&q, v, master, m, deadline_ns);
    int r = question_wait(&q);
    *ret_text = q.text;
    return r;
}

int raft_view_who_serves(struct raft_view *v, const char *address, uint64_t deadline_ns, uint64_t *ret_node)
{
    struct msg_raft_admin m = {.head = cli_head(), .command = TEXT("status")};
    struct buf text cleanup(buf_fini) = {0};
    uint32_t i = 0;
    add_master(v, address, false);
    while (i < v->master_count && strcmp(v->masters[i].address, address) != 0)
        i++;
    if (i == v->master_count)
        return -ENOSPC;
    int r = raft_view_ask(v, i, &m, min(deadline_ns, clock_ns() + ONE_MS * NS_PER_MS), &text);
    *ret_node = v->masters[i].node;
    return r;
}

/* ---- what they say ------------------------------------------------------------------------------------------------------ */

static uint64_t number(const json_t *o, const char *key)
{
    return (uint64_t)json_integer_value(json_object_get(o, key));
}

static uint64_t node_of(const json_t *o, const char *key)
{
    const char *s = json_string_value(json_object_get(o, key));
    return s ? strtoull(s, NULL, 16) : 0;
}

static void string(const json_t *o, const char *key, char *out, size_t size)
{
    const char *s = json_string_value(json_object_get(o, key));
    snprintf(out, size, "%s", s ? s : "");
}

static bool truth(const json_t *o, const char *key)
{
    return json_is_true(json_object_get(o, key));
}

const struct raft_view_member *raft_view_find(const struct raft_view *v, uint64_t id)
{
    for (uint32_t i = 0; i < v->count; i++)
        if (v->members[i].id == id)
            return &v->members[i];
    return NULL;
}

bool raft_view_silent(const struct raft_view *v, const struct raft_view_member *m)
{
    return v->leader && m->id != v->leader && (m->heard_ago_ms < 0 || m->heard_ago_ms > SILENT_MS);
}

static struct raft_view_member *find(struct raft_view *v, uint64_t id)
{
    return (struct raft_view_member *)(uintptr_t)raft_view_find(v, id);
}

uint32_t raft_view_voters(const struct raft_view *v, bool full_only)
{
    uint32_t n = 0;
    for (uint32_t i = 0; i < v->count; i++)
        n += v->members[i].voter && !(full_only && v->members[i].journal_only);
    return n;
}

static void take_members(struct raft_view *v, const json_t *status)
{
    size_t i;
    json_t *m;
    v->count = 0;
    v->conf_index = number(status, "conf_index");
    v->conf_committed = truth(status, "conf_committed");
    json_array_foreach(json_object_get(status, "members"), i, m)
    {
        if (v->count == RAFT_VIEW_MEMBERS)
            break;
        struct raft_view_member *to = &v->members[v->count++];
        *to = (struct raft_view_member){.id = node_of(m, "id"), .heard_ago_ms = -1};
        const char *role = json_string_value(json_object_get(m, "role"));
        to->voter = role && strcmp(role, "voter") == 0;
        to->journal_only = truth(m, "journal_only");
        string(m, "address", to->address, sizeof(to->address));
        string(m, "client_address", to->client_address, sizeof(to->client_address));
    }
}

static void take_peers(struct raft_view *v, const json_t *status)
{
    size_t i;
    json_t *p;
    json_array_foreach(json_object_get(status, "peers"), i, p)
    {
        struct raft_view_member *to = find(v, node_of(p, "id"));
        if (!to)
            continue;
        json_t *heard = json_object_get(p, "heard_ago_ms");
        to->followed = true;
        string(p, "state", to->progress, sizeof(to->progress));
        to->match = number(p, "match");
        to->flushed = number(p, "flushed");
        to->lag = v->last > to->match ? v->last - to->match : 0;
        to->heard_ago_ms = json_is_integer(heard) ? json_integer_value(heard) : -1;
        to->snapshot_index = number(p, "snapshot_index");
        to->caught_up = truth(p, "caught_up");
        to->can_lead = truth(p, "can_lead");
    }
    json_array_foreach(json_object_get(json_object_get(status, "transport"), "peers"), i, p)
    {
        struct raft_view_member *to = find(v, node_of(p, "id"));
        if (to) {
            string(p, "reason", to->reason, sizeof(to->reason));
            string(p, "error", to->error, sizeof(to->error));
        }
    }
}

static void take_leader(struct raft_view *v, const json_t *status)
{
    struct raft_view_member *self = find(v, v->leader);
    v->commit = number(status, "commit");
    v->last = number(status, "last");
    v->transfer_to = node_of(status, "transfer_to");
    v->warnings = (uint32_t)number(status, "warnings");
    take_peers(v, status);
    if (!self)
        return; /* it is being removed */
    self->followed = self->caught_up = true;
    self->match = v->last;
    self->flushed = number(status, "flushed");
    self->heard_ago_ms = 0;
    self->can_lead = !self->journal_only;
}

/* Whose word counts: a leader's, of the latest term; without one, of who has heard of the latest configuration. */
static bool counts_more(const json_t *a, const json_t *b)
{
    const char *ra = json_string_value(json_object_get(a, "role")), *rb = json_string_value(json_object_get(b, "role"));
    bool la = ra && strcmp(ra, "leader") == 0, lb = rb && strcmp(rb, "leader") == 0;
    if (la != lb)
        return la;
    if (la)
        return number(a, "term") > number(b, "term");
    return number(a, "conf_index") > number(b, "conf_index");
}

static void take_all(struct raft_view *v, json_t *const *said, uint32_t n)
{
    const json_t *best = NULL;
    v->leader = v->term = v->commit = v->last = v->transfer_to = 0;
    v->warnings = 0;
    v->count = 0;
    for (uint32_t i = 0; i < n; i++) {
        if (!said[i])
            continue;
        v->term = max(v->term, number(said[i], "term"));
        if (best && !counts_more(said[i], best))
            continue;
        best = said[i];
        v->leader_master = i;
    }
    if (!best)
        return;
    take_members(v, best);
    string(best, "cluster", v->cluster, sizeof(v->cluster));
    v->incarnation = (uint32_t)number(best, "incarnation");
    const char *role = json_string_value(json_object_get(best, "role"));
    if (role && strcmp(role, "leader") == 0) {
        v->leader = node_of(best, "id");
        take_leader(v, best);
    } else {
        v->last = number(best, "last");
        v->commit = number(best, "commit");
    }
    for (uint32_t i = 0; i < n; i++) {
        struct raft_view_member *m = said[i] ? find(v, node_of(said[i], "id")) : NULL;
        if (!m)
            continue;
        m->answered = true;
        string(said[i], "role", m->role, sizeof(m->role));
        m->term = number(said[i], "term");
        m->commit = number(said[i], "commit");
        if (!m->followed)
            m->match = number(said[i], "last");
    }
}

static bool is_leader(const json_t *status)
{
    const char *role = json_string_value(json_object_get(status, "role"));
    return role && strcmp(role, "leader") == 0;
}

/* Ask masters from..to at the same time. What the leader says is enough: who has not answered soon after it is not waited for
 * (a process that is stopped keeps its connections, and says nothing). */
static uint32_t ask_some(struct raft_view *v, uint32_t from, uint32_t to, uint64_t deadline_ns, json_t **said)
{
    struct question questions[RAFT_VIEW_MASTERS];
    struct msg_raft_admin m = {.head = cli_head(), .command = TEXT("status")};
    bool ended[RAFT_VIEW_MASTERS] = {false};
    uint32_t answers = 0, left = to - from;
    deadline_ns = min(deadline_ns, clock_ns() + ONE_MS * NS_PER_MS);
    uint64_t leave_ns = v->leader ? clock_ns() + GRACE_MS * NS_PER_MS : UINT64_MAX;
    for (uint32_t i = from; i < to; i++)
        question_start(&questions[i], v, i, &m, deadline_ns);
    for (bool cancelled = false; left; usleep(left ? LOOK_US : 0)) {
        if (!cancelled && clock_ns() > leave_ns) {
            for (uint32_t i = from; i < to; i++)
                if (!ended[i])
                    (void)loop_call(v->private->loop, cancel, &questions[i]);
            cancelled = true;
        }
        for (uint32_t i = from; i < to; i++) {
            struct question *q = &questions[i];
            if (ended[i] || sem_trywait(&q->ended) < 0)
                continue;
            ended[i] = true;
            left--;
            if (question_end(q) == 0)
                said[i] = json_loads((const char *)q->text.p, 0, NULL);
            buf_fini(&q->text);
            answers += said[i] != NULL;
            if (said[i] && is_leader(said[i]))
                leave_ns = min(leave_ns, clock_ns() + GRACE_MS * NS_PER_MS);
        }
    }
    return answers;
}

int raft_view_look(struct raft_view *v, uint64_t deadline_ns)
{
    json_t *said[RAFT_VIEW_MASTERS] = {NULL};
    uint32_t asked = v->master_count;
    v->looked_ns = clock_ns();
    v->leader = 0;
    v->answers = ask_some(v, 0, asked, deadline_ns, said);
    take_all(v, said, asked);
    for (uint32_t i = 0; i < v->count && v->answers; i++)
        if (!v->members[i].answered && (v->count > 1))
            add_master(v, v->members[i].client_address, false);
    if (v->answers && v->master_count > asked) {
        v->answers += ask_some(v, asked, v->master_count, deadline_ns, said);
        take_all(v, said, v->master_count);
    }
    int error = v->masters[0].error;
    for (uint32_t i = 0; i < v->master_count; i++)
        json_decref(said[i]);
    return v->answers ? 0 : error < 0 ? error : -CV_BAD_MESSAGE;
}

int raft_view_fail(const struct raft_view *v, int r)
{
    const struct raft_view_master *m = &v->masters[0];
    for (uint32_t i = 0; i < v->master_count; i++)
        if (v->masters[i].there)
            return cli_fail(v->private->cli, v->masters[i].error,
                            "on that host: systemctl status cv-journal, journalctl -u cv-journal -n 20",
                            "no journal answers (master %s: %s)", v->masters[i].address, v->masters[i].reason);
    return cli_fail(v->private->cli, r, cli_start_hint(v->private->cli), "no master answers (%s%s%s)", m->address,
                    *m->reason ? ": " : "", m->reason);
}

/* ---- names ---------------------------------------------------------------------------------------------------------------- */

static bool is_host_of(const char *name, const char *address)
{
    const char *colon = strrchr(address, ':');
    return colon && strlen(name) == (size_t)(colon - address) && memcmp(name, address, strlen(name)) == 0;
}

int raft_view_resolve(const struct raft_view *v, const char *name, const struct raft_view_member **ret,
                      uint64_t *ret_id)
{
    const struct raft_view_member *found = NULL;
    size_t n = strlen(name);
    bool hex = n >= 4 && n <= 16 && strspn(name, "0123456789abcdefABCDEF") == n;
    *ret_id = hex && n == 16 ? strtoull(name, NULL, 16) : 0;
    for (uint32_t i = 0; i < v->count; i++) {
        const struct raft_view_member *m = &v->members[i];
        char id[17];
        bool is = (hex && strncasecmp(raft_node_text(m->id, id), name, n) == 0) || strcmp(m->address, name) == 0 ||
                  strcmp(m->client_address, name) == 0 || is_host_of(name, m->address);
        if (is && found)
            return -ENOTUNIQ;
        if (is)
            found = m;
    }
    if (!found)
        return -ENOENT;
    *ret = found;
    *ret_id = found->id;
    return 0;
}

int raft_view_fail_name(const struct raft_view *v, int r, const char *name)
{
    fprintf(stderr, "cv %s: '%s' %s\n  try: cv raft status lists the members\n", v->private->cli->command->name, name,
            r == -ENOTUNIQ ? "names more than one member" : "is no member");
    return CLI_FAILED;
}
