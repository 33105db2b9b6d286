/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The driver with several voters in one process: real cores, logs and writers, and a transport made of encoded messages
 * handed from one to another on their common loop. RocksDB: not for the thread sanitizer.
 */
#include "tests/unit/journal_voters.h"

enum { NODES = 3, MESSAGE_MAX = 3 << 20 };

struct wire_message {
    struct loop_job job;
    uint32_t to;
    size_t n;
    uint8_t bytes[];
};

static uint64_t keep_entries = 1000000;

/* ---- the transport ---- */

static void deliver(struct loop_job *job)
{
    struct wire_message *w = container_of(job, struct wire_message, job);
    struct node *n = &nodes[w->to];
    struct raft_entry entries[RAFT_APPEND_ENTRIES_MAX];
    struct raft_message m;
    if (n->driver && !n->cut && !n->stopped) {
        ck_assert_int_eq(raft_message_decode(w->bytes, w->n, entries, &m), 0);
        int r = journal_driver_message(n->driver, &m);
        ck_assert_msg(r == 0 || r == -CV_BUSY || r == -CV_STOPPING, "%d", r);
    }
    free(w);
}

static void append_entries(uint8_t **at, const struct journal_entry *const *entries, uint32_t count)
{
    for (uint32_t i = 0; i < count; i++) {
        struct raft_entry e = {.term = entries[i]->term, .size = entries[i]->size, .type = entries[i]->type};
        raft_entry_header_encode(&e, *at);
        *at += RAFT_ENTRY_HEADER_SIZE;
    }
    for (uint32_t i = 0; i < count; i++) {
        memcpy(*at, entries[i]->data, entries[i]->size);
        *at += entries[i]->size;
    }
}

static void transport_send(void *arg, const struct raft_message *message)
{
    struct node *n = arg;
    struct raft_message m = *message;
    uint32_t to = (uint32_t)(m.to - id_of(0));
    if (n->cut || to >= NODES || nodes[to].cut)
        return;
    /* What it promises is on disk. */
    const struct journal_view *v = journal_driver_view(n->driver);
    if (m.type == RAFT_MSG_APPEND_REPLY && !m.append_reply.rejected)
        ck_assert_uint_le(m.append_reply.index, v->durable);
    struct journal_record *records[RAFT_APPEND_ENTRIES_MAX];
    const struct journal_entry *entries[RAFT_APPEND_ENTRIES_MAX];
    struct journal_read read = {.count = 0};
    int count = 0;
    if (m.type == RAFT_MSG_APPEND) {
        count = journal_driver_attach(n->driver, &m, 1 << 20, records);
        if (count == -ENOENT)
            return;
        for (int i = 0; i < count; i++)
            entries[i] = &records[i]->entry;
        if (count == -EAGAIN) {
            uint64_t from = m.append.prev_index + 1;
            if (journal_store_read(n->store, from, from + m.append.count - 1, 1 << 20, &read) < 0)
                return;
            n->from_disk++;
            m.append.count = read.count;
            m.append.last_term = read.entries[read.count - 1].term;
            for (uint32_t i = 0; i < read.count; i++)
                entries[i] = &read.entries[i];
        }
    }
    struct wire_message *w = malloc(sizeof(*w) + MESSAGE_MAX);
    *w = (struct wire_message){.job.run = deliver, .to = to};
    uint8_t *at = w->bytes + raft_message_encode(&m, w->bytes);
    if (m.type == RAFT_MSG_APPEND)
        append_entries(&at, entries, m.append.count);
    w->n = (size_t)(at - w->bytes);
    ck_assert_uint_le(w->n, MESSAGE_MAX);
    for (int i = 0; i < count; i++)
        journal_ring_unpin(journal_driver_ring(n->driver), records[i]);
    journal_read_fini(&read);
    loop_post(loop, &w->job);
}

static void transport_members(void *arg, const struct raft_conf *conf)
{
    ck_assert_uint_eq(conf->count, NODES);
}

static const struct journal_transport_ops transport = {.send = transport_send, .members = transport_members};

/* ---- the application ---- */

static void on_role(void *arg)
{
    ((struct node *)arg)->roles++;
}

static void on_truncated(void *arg, uint64_t from)
{
    ((struct node *)arg)->truncated = from;
}

/* A follower's master: applies what is committed, and is always able. */
static void on_progress(void *arg)
{
}

static void on_read(void *arg, uint64_t context, uint64_t index, int result)
{
    struct node *n = arg;
    ck_assert_uint_eq(context, 5);
    n->read_index = result < 0 ? UINT64_MAX : index;
}

static const struct journal_app app = {on_role, on_truncated, on_progress, on_read};

/* ---- who moves snapshots: the tests ---- */

static void on_want(void *arg, const struct raft_snapshot_want *want)
{
    ((struct node *)arg)->want = *want;
}

static void on_offer(void *arg, const struct raft_snapshot_offer *offer)
{
    ((struct node *)arg)->offer = *offer;
}

static void on_installed(void *arg)
{
    ((struct node *)arg)->installed++;
}

static int on_snapshot_status(void *arg, struct buf *out)
{
    return 0;
}

static const struct journal_snapshot_ops snapshots = {on_want, on_offer, on_installed, on_snapshot_status};

/* ---- life: everything on the loop ---- */

static int start_node(void *arg)
{
    struct node *n = arg;
    n->store = open_log(n->dir);
    n->cut = n->stopped = false;
    struct journal_driver_options options = {
        .loop = loop,
        .store = n->store,
        .app = &app,
        .app_arg = n,
        .transport = &transport,
        .transport_arg = n,
        .seed = 7 + n->at,
        .cache_bytes = cache_bytes,
        .tick_ms = 10,
        .heartbeat_ms = 30,
        .election_ms = 300,
        .keep_entries = keep_entries,
        .compact_entries = 1,
        .snapshots = &snapshots,
        .snapshots_arg = n,
        .log_bytes_max = 1ull << 40,
    };
    ck_assert_int_eq(journal_driver_new(&options, &n->driver), 0);
    ck_assert_int_eq(journal_driver_start(n->driver), 0);
    ck_assert_int_eq(journal_driver_applied(n->driver, 0, 0, true), 0);
    return 0;
}

static int stop_node(void *arg)
{
    struct node *n = arg;
    journal_driver_stop(n->driver, node_stopped, n);
    return 0;
}

static int free_node(void *arg)
{
    struct node *n = arg;
    n->driver = journal_driver_free(n->driver);
    n->store = journal_store_free(n->store);
    return 0;
}

static void kill_node(struct node *n)
{
    (void)loop_call(loop, stop_node, n);
    wait_until(is_stopped, n, "stop");
    (void)loop_call(loop, free_node, n);
}

static void start_all(void)
{
    struct raft_conf conf = {.count = 0};
    for (uint32_t i = 0; i < NODES; i++) {
        struct raft_member member = {.id = id_of(i), .role = RAFT_VOTER, .raft_address = "x:1"};
        ck_assert_int_eq(raft_conf_put(&conf, &member), 0);
    }
    uint8_t encoded[RAFT_CONF_ENCODED_MAX];
    struct journal_format format = {.cluster = test_cluster, .conf = encoded};
    format.conf_size = (uint32_t)raft_conf_encode(&conf, encoded);
    struct loop_options options = {.name = "test"};
    ck_assert_int_eq(loop_new(&options, &loop), 0);
    for (uint32_t i = 0; i < NODES; i++) {
        nodes[i].at = i;
        snprintf(nodes[i].dir, sizeof(nodes[i].dir), "%s/n%u", unit_tempdir(), i);
        format.node = id_of(i);
        ck_assert_int_eq(journal_store_format(nodes[i].dir, &format, NULL), 0);
        start_node(&nodes[i]);
    }
    ck_assert_int_eq(loop_start(loop), 0);
}

static void stop_all(void)
{
    for (uint32_t i = 0; i < NODES; i++) {
        if (nodes[i].driver)
            kill_node(&nodes[i]);
    }
    loop_stop(loop);
    ck_assert_int_eq(loop_join(loop), 0);
    loop = loop_free(loop);
}

/* ---- what the tests ask ---- */

static struct node *leader_now; /* of the highest term among those that are reachable */

static int find_leader(void *arg)
{
    leader_now = NULL;
    uint64_t term = 0;
    for (uint32_t i = 0; i < NODES; i++) {
        struct node *n = &nodes[i];
        const struct journal_view *v = n->driver && !n->cut ? journal_driver_view(n->driver) : NULL;
        if (v && v->role == RAFT_LEADER && v->term > term) {
            term = v->term;
            leader_now = n;
        }
    }
    return leader_now != NULL && leader_now != arg;
}

static struct node *wait_leader(struct node *other_than)
{
    wait_until(find_leader, other_than, "a leader");
    return leader_now;
}

static int set_cut(void *arg)
{
    ((struct node *)arg)->cut = true;
    return 0;
}

static int set_joined(void *arg)
{
    ((struct node *)arg)->cut = false;
    return 0;
}

/* ---- tests ---- */

TEST(three_voters_elect_one_and_replicate)
{
    start_all();
    struct node *l = wait_leader(NULL);
    uint64_t last = 0;
    for (int i = 0; i < 50; i++)
        last = propose(l, 1 + (uint32_t)i % 7, 3000);
    wait_all(last);
    stop_all();
    compare_logs(last);
}

/* A shorter prefix names its own last term. */
static int attach_short(void *arg)
{
    struct node *n = arg;
    const struct journal_view *v = journal_driver_view(n->driver);
    struct journal_record *records[RAFT_APPEND_ENTRIES_MAX];
    struct raft_message m = {.type = RAFT_MSG_APPEND, .append = {.prev_index = v->last - 60, .count = 60}};
    uint64_t term;
    ck_assert_int_eq(journal_driver_term(n->driver, v->last, &m.append.last_term), 0);
    ck_assert_int_eq(journal_driver_term(n->driver, v->last - 59, &term), 0);
    ck_assert_uint_ne(term, m.append.last_term);
    ck_assert_int_eq(journal_driver_attach(n->driver, &m, 1, records), 1);
    ck_assert_uint_eq(m.append.count, 1);
    ck_assert_uint_eq(m.append.last_term, term);
    journal_ring_unpin(journal_driver_ring(n->driver), records[0]);
    m.append.count = 60;
    m.append.last_term = v->term + 1; /* not what is there: the log changed since the message was made */
    ck_assert_int_eq(journal_driver_attach(n->driver, &m, 1, records), -ENOENT);
    return 0;
}

TEST(a_dead_leader_is_replaced_and_comes_back_as_follower)
{
    start_all();
    uint64_t last = 0;
    struct node *l = NULL;
    for (int round = 0; round < 3; round++) {
        l = wait_leader(NULL);
        for (int i = 0; i < 20; i++)
            last = propose(l, 5, 500);
        wait_all(last - 30); /* some of it is everywhere: attach_short looks back further than what the next one adds */
        kill_node(l);
        struct node *next = wait_leader(NULL);
        ck_assert_ptr_ne(next, l);
        last = propose(next, 10, 100);
        wait_all(last);
        (void)loop_call(loop, attach_short, next);
        (void)loop_call(loop, start_node, l);
        wait_all(last);
    }
    stop_all();
    compare_logs(last);
}

TEST(a_voter_that_was_away_is_fed_from_disk)
{
    cache_bytes = 4 << 20;
    start_all();
    struct node *l = wait_leader(NULL);
    struct node *away = &nodes[(l->at + 1) % NODES];
    kill_node(away);
    uint64_t last = 0;
    for (int i = 0; i < 60; i++)
        last = propose(l, 4, 60000); /* 14 MiB through a cache of 4 */
    wait_all(last);
    (void)loop_call(loop, start_node, away);
    wait_all(last);
    uint32_t from_disk = 0;
    for (uint32_t i = 0; i < NODES; i++)
        from_disk += nodes[i].from_disk;
    ck_assert_uint_gt(from_disk, 0);
    stop_all();
    compare_logs(last);
}

TEST(what_a_cut_off_leader_appended_is_truncated_and_told)
{
    start_all();
    struct node *old = wait_leader(NULL);
    uint64_t last = propose(old, 10, 100);
    wait_all(last);
    (void)loop_call(loop, set_cut, old);
    uint64_t lost = propose(old, 20, 100);
    ck_assert_uint_eq(lost, last + 20);
    struct node *l = wait_leader(old);
    last = propose(l, 3, 100);
    wait_all(last);
    (void)loop_call(loop, set_joined, old);
    last = propose(l, 30, 100);
    wait_all(last);
    ck_assert_uint_gt(old->truncated, 0);
    ck_assert_uint_le(old->truncated, lost);
    stop_all();
    compare_logs(last);
}

static int do_transfer(void *arg)
{
    return journal_driver_transfer(((struct node *)arg)->driver, 0);
}

static int do_read(void *arg)
{
    return journal_driver_read(((struct node *)arg)->driver, 5);
}

static int has_read(void *arg)
{
    return ((struct node *)arg)->read_index != 0;
}

TEST(leadership_is_handed_over_and_reads_are_answered)
{
    start_all();
    struct node *l = wait_leader(NULL);
    uint64_t last = propose(l, 10, 100);
    wait_all(last);
    uint64_t until = clock_ms() + WAIT_MS;
    int r;
    while ((r = loop_call(loop, do_transfer, l)) == -CV_UNREACHABLE && clock_ms() < until)
        usleep(1000);
    ck_assert_int_eq(r, 0);
    struct node *next = wait_leader(l);
    last = propose(next, 1, 10);
    wait_all(last);
    ck_assert_int_eq(loop_call(loop, do_read, next), 0);
    wait_until(has_read, next, "an answer to the read");
    ck_assert_uint_ge(next->read_index, last);
    ck_assert_int_eq(loop_call(loop, do_read, l), 0); /* a follower asks the leader */
    wait_until(has_read, l, "an answer to the follower's read");
    ck_assert_uint_ge(l->read_index, last);
    stop_all();
    compare_logs(last);
}

static int apply_too_much(void *arg)
{
    struct node *n = arg;
    return journal_driver_applied(n->driver, journal_driver_view(n->driver)->last + 100, 0, true);
}

TEST(a_state_ahead_of_the_log_is_refused)
{
    start_all();
    struct node *l = wait_leader(NULL);
    ck_assert_int_eq(loop_call(loop, apply_too_much, l), -CV_LOG_DAMAGED);
    ck_assert_int_eq(loop_call(loop, apply_too_much, &nodes[(l->at + 1) % NODES]), -CV_LOG_DAMAGED);
    stop_all();
}

/* ---- a snapshot in place of a log that went another way ---- */

static struct node *lagging;

/* The masters have all of it on disk. */
static int apply_all(void *arg)
{
    for (uint32_t i = 0; i < NODES; i++)
        if (!nodes[i].cut) {
            uint64_t to = journal_driver_view(nodes[i].driver)->apply_to;
            ck_assert_int_eq(journal_driver_applied(nodes[i].driver, to, to, true), 0);
        }
    return 0;
}

static int compacted(void *arg)
{
    (void)arg;
    (void)apply_all(NULL);
    for (uint32_t i = 0; i < NODES; i++)
        if (!nodes[i].cut && journal_driver_view(nodes[i].driver)->first <= wanted)
            return 0;
    return 1;
}

/* Whoever leads by then: on a busy machine that may be another one than before. */
static int is_wanted(void *arg)
{
    struct node **ret = arg;
    for (uint32_t i = 0; i < NODES; i++)
        if (nodes[i].want.peer == id_of(lagging->at))
            *ret = &nodes[i];
    return *ret != NULL;
}

static int offer_snapshot(void *arg)
{
    struct node *n = arg;
    uint64_t commit = journal_driver_view(n->driver)->commit;
    ck_assert_uint_le(n->want.min_index, commit);
    ck_assert_int_eq(journal_driver_snapshot_ready(n->driver, n->want.peer, id_of(n->at), commit), 0);
    return 0;
}

static int is_offered(void *arg)
{
    return lagging->offer.index != 0;
}

static int install_snapshot(void *arg)
{
    struct node *from = arg;
    uint8_t encoded[RAFT_CONF_ENCODED_MAX];
    struct journal_install in = {.index = lagging->offer.index, .term = lagging->offer.term, .directory = "meta-1"};
    const struct raft_conf *conf = raft_conf_at(journal_driver_raft(from->driver), in.index, &in.conf_index);
    ck_assert_ptr_nonnull(conf);
    in.conf = encoded;
    in.conf_size = (uint32_t)raft_conf_encode(conf, encoded);
    ck_assert_int_eq(journal_store_chain(from->store, in.index, &in.chain), 0);
    ck_assert_int_eq(journal_driver_install(lagging->driver, &in, conf), 0);
    /* Nothing is left of what was never committed, also not in memory. */
    ck_assert_ptr_null(journal_ring_find(journal_driver_ring(lagging->driver), 15));
    ck_assert_uint_eq(journal_driver_view(lagging->driver)->first, in.index + 1);
    return 0;
}

static int is_installed(void *arg)
{
    const char *directory;
    return lagging->installed && journal_driver_installed(lagging->driver, &directory) && !strcmp(directory, "meta-1");
}

static int offer_again(void *arg)
{
    struct journal_install in = {.index = 1, .term = 1, .directory = ""};
    const struct raft_conf *conf = journal_driver_conf(lagging->driver);
    uint8_t encoded[RAFT_CONF_ENCODED_MAX];
    in.conf = encoded;
    in.conf_size = (uint32_t)raft_conf_encode(conf, encoded);
    in.conf_index = 1;
    ck_assert_int_eq(journal_driver_install(lagging->driver, &in, conf), -EALREADY);
    return 0;
}

TEST(a_snapshot_replaces_a_log_that_went_another_way_and_the_log_goes_on_behind_it)
{
    keep_entries = 0;
    start_all();
    lagging = wait_leader(NULL);
    uint64_t last = propose(lagging, 10, 100);
    wait_all(last);
    (void)loop_call(loop, set_cut, lagging);
    uint64_t lost = propose(lagging, 20, 100);
    struct node *l = wait_leader(lagging);
    last = propose(l, 60, 100);
    wait_all(last);
    wanted = lost + 1;
    wait_until(compacted, NULL, "compaction");
    for (uint32_t i = 0; i < NODES; i++)
        nodes[i].want.peer = 0;
    (void)loop_call(loop, set_joined, lagging);
    l = NULL;
    wait_until(is_wanted, &l, "the core wants a snapshot");
    (void)loop_call(loop, offer_snapshot, l);
    wait_until(is_offered, NULL, "the offer");
    (void)loop_call(loop, install_snapshot, l);
    wait_until(is_installed, NULL, "the switch");
    (void)loop_call(loop, offer_again, NULL);
    last = propose(l, 30, 100);
    wait_all(last);
    kill_node(lagging); /* and so it is after a restart */
    (void)loop_call(loop, start_node, lagging);
    last = propose(l, 3, 100);
    wait_all(last);
    stop_all();
    uint64_t chains[NODES];
    for (uint32_t i = 0; i < NODES; i++) {
        struct journal_store *s cleanup(journal_store_free_p) = open_log(nodes[i].dir);
        ck_assert_int_eq(journal_store_chain(s, last, &chains[i]), 0);
        ck_assert_uint_eq(chains[i], chains[0]);
    }
}
