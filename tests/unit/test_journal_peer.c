/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The network between voters: three real drivers with logs of their own, on one loop, over TCP on loopback; and a client
 * that says what no journal says. RocksDB: not for the thread sanitizer.
 */
#include "raft/journal_peer_internal.h"
#include "tests/unit/journal_voters.h"
#include "tests/unit/raw_frame.h"

#include <arpa/inet.h>
#include <sys/socket.h>

#include "base/clock.h"

static struct uuid cluster_of[NODES_MAX];

/* ---- life: everything on the loop ---- */

static uint16_t free_port(void)
{
    struct sockaddr_in a = {.sin_family = AF_INET, .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
    socklen_t n = sizeof(a);
    int fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0), on = 1;
    ck_assert_int_eq(setsockopt(fd, SOL_SOCKET, SO_REUSEADDR, &on, sizeof(on)), 0);
    ck_assert_int_eq(bind(fd, (struct sockaddr *)&a, sizeof(a)), 0);
    ck_assert_int_eq(getsockname(fd, (struct sockaddr *)&a, &n), 0);
    close(fd);
    return ntohs(a.sin_port);
}

static int start_node(void *arg)
{
    struct node *n = arg;
    n->store = open_log(n->dir);
    n->stopped = false;
    const struct journal_state *t = journal_store_state(n->store);
    struct journal_peers_options peers = {
        .loop = loop,
        .self = {.cluster = t->cluster, .node = t->node, .incarnation = t->incarnation},
        .listen = "127.0.0.1",
        .port = n->port,
        .election_ms = 600,
    };
    ck_assert_int_eq(journal_peers_new(&peers, &n->peers), 0);
    struct journal_driver_options options = {
        .loop = loop,
        .store = n->store,
        .transport = &journal_peers_transport,
        .transport_arg = n->peers,
        .seed = 7 + n->at,
        .cache_bytes = cache_bytes,
        .tick_ms = 10,
        .heartbeat_ms = 30,
        .election_ms = 600,
        .keep_entries = 1000000,
        .log_bytes_max = 1ull << 40,
    };
    ck_assert_int_eq(journal_driver_new(&options, &n->driver), 0);
    ck_assert_int_eq(journal_driver_start(n->driver), 0);
    ck_assert_int_eq(journal_driver_applied(n->driver, 0, 0, true), 0);
    ck_assert_int_eq(journal_peers_start(n->peers, n->driver), 0);
    return 0;
}

static int stop_peers(void *arg)
{
    struct node *n = arg;
    journal_peers_stop(n->peers, node_stopped, n);
    return 0;
}

static int stop_driver(void *arg)
{
    struct node *n = arg;
    n->stopped = false;
    journal_driver_stop(n->driver, node_stopped, n);
    return 0;
}

static int free_node(void *arg)
{
    struct node *n = arg;
    n->driver = journal_driver_free(n->driver);
    n->peers = journal_peers_free(n->peers);
    n->store = journal_store_free(n->store);
    return 0;
}

static void kill_node(struct node *n)
{
    (void)loop_call(loop, stop_peers, n);
    wait_until(is_stopped, n, "peers stop");
    (void)loop_call(loop, stop_driver, n);
    wait_until(is_stopped, n, "driver stops");
    (void)loop_call(loop, free_node, n);
}

/* members: of the founding configuration; the nodes behind them wait to be added. */
static void format_all(uint32_t members)
{
    struct raft_conf conf = {.count = 0};
    for (uint32_t i = 0; i < node_count; i++) {
        nodes[i].at = i;
        nodes[i].port = free_port();
        snprintf(nodes[i].dir, sizeof(nodes[i].dir), "%s/n%u", unit_tempdir(), i);
        struct raft_member member = {.id = id_of(i), .role = RAFT_VOTER};
        snprintf(member.raft_address, sizeof(member.raft_address), "%s:%u", i == 1 ? "localhost" : "127.0.0.1",
                 nodes[i].port);
        if (i < members)
            ck_assert_int_eq(raft_conf_put(&conf, &member), 0);
    }
    uint8_t encoded[RAFT_CONF_ENCODED_MAX];
    uint32_t size = (uint32_t)raft_conf_encode(&conf, encoded);
    for (uint32_t i = 0; i < node_count; i++) {
        struct journal_format format = {.cluster = uuid_is_none(cluster_of[i]) ? test_cluster : cluster_of[i],
                                        .node = id_of(i)};
        if (i < members) {
            format.conf = encoded;
            format.conf_size = size;
        }
        ck_assert_int_eq(journal_store_format(nodes[i].dir, &format, NULL), 0);
    }
}

static void start_loop(enum loop_backend backend)
{
    struct loop_options options = {.name = "test", .backend = backend};
    ck_assert_int_eq(loop_new(&options, &loop), 0);
    ck_assert_int_eq(loop_start(loop), 0);
}

static void start_all(enum loop_backend backend)
{
    format_all(node_count);
    start_loop(backend);
    for (uint32_t i = 0; i < node_count; i++)
        (void)loop_call(loop, start_node, &nodes[i]);
}

static void stop_all(void)
{
    for (uint32_t i = 0; i < node_count; i++)
        if (nodes[i].driver)
            kill_node(&nodes[i]);
    loop_stop(loop);
    ck_assert_int_eq(loop_join(loop), 0);
    loop = loop_free(loop);
}

/* ---- what the tests ask ---- */

static struct node *leader_now;

static int find_leader(void *arg)
{
    leader_now = NULL;
    for (uint32_t i = 0; i < node_count; i++)
        if (nodes[i].driver && journal_driver_view(nodes[i].driver)->role == RAFT_LEADER)
            leader_now = leader_now ? NULL : &nodes[i];
    return leader_now != NULL && journal_driver_view(leader_now->driver)->commit > 1;
}

static struct node *wait_leader(void)
{
    wait_until(find_leader, NULL, "a leader");
    return leader_now;
}

/* The status as text, until the next call. */
static struct buf status_buf;

static int write_status(void *arg)
{
    struct node *n = arg;
    status_buf.n = 0;
    ck_assert_int_eq(journal_driver_status(n->driver, &status_buf), 0);
    return buf_append(&status_buf, "", 1);
}

static const char *wanted_text;

static int status_says(void *arg)
{
    (void)write_status(arg);
    return strstr((const char *)status_buf.p, wanted_text) != NULL;
}

static void wait_status(struct node *n, const char *text)
{
    wanted_text = text;
    uint64_t until = clock_ms() + WAIT_MS;
    while (!loop_call(loop, status_says, n)) {
        ck_assert_msg(clock_ms() < until, "'%s' not in time in %s", text, (const char *)status_buf.p);
        usleep(2000);
    }
}

/* ---- a client that is no journal ---- */

static int raw_connect(const struct node *n)
{
    struct sockaddr_in a = {
        .sin_family = AF_INET, .sin_port = htons(n->port), .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
    int fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
    ck_assert_int_eq(connect(fd, (struct sockaddr *)&a, sizeof(a)), 0);
    return fd;
}

static struct msg_peer_hello good_hello(enum peer_channel channel, uint64_t from, uint64_t to)
{
    static struct journal_self self;
    self = (struct journal_self){.cluster = test_cluster, .node = from, .incarnation = 1, .address = "x:1"};
    struct msg_peer_hello m;
    journal_hello_fill(&self, channel, to, &m);
    return m;
}

/* Say hello and take the answer; returns its error, -1 when the connection ended without one. */
static int raw_hello(int fd, const struct msg_peer_hello *hello, char reason[200])
{
    struct buf body cleanup(buf_fini) = {0};
    uint8_t in[4096];
    struct frame_header h;
    ck_assert_int_eq(msg_peer_hello_encode(hello, &body), 0);
    raw_send(fd, MSG_peer_hello, body.p, body.n, NULL, 0);
    if (!raw_frame(fd, &h, in, sizeof(in), ENDS_MS))
        return -1;
    struct msg_peer_hello_answer answer;
    ck_assert_int_eq(h.type, MSG_peer_hello_answer);
    ck_assert_int_eq(msg_peer_hello_answer_decode(in, h.body_len, &answer), 0);
    snprintf(reason, 200, TEXT_FMT, TEXT_ARG(answer.reason));
    /* Who is refused is let go, who is not stays. */
    ck_assert_int_eq(raw_receive(fd, in, sizeof(in), answer.error ? ENDS_MS : STAYS_MS), answer.error ? 0 : -1);
    return (int)answer.error;
}

/* ---- tests ---- */

static void elect_and_replicate(enum loop_backend backend)
{
    start_all(backend);
    struct node *l = wait_leader();
    uint64_t last = 0;
    for (int i = 0; i < 40; i++)
        last = propose(l, 1 + (uint32_t)i % 9, i % 10 ? 3000 : 200000);
    wait_all(last);
    wait_status(l, "\"lag\":0");
    stop_all();
    compare_logs(last);
}

TEST(three_voters_over_tcp_elect_one_and_replicate)
{
    elect_and_replicate(LOOP_AUTO);
}

TEST(and_so_they_do_on_epoll)
{
    elect_and_replicate(LOOP_EPOLL);
}

static int break_connections(void *arg)
{
    for (uint32_t i = 0; i < node_count; i++) {
        list_for_each (e, &nodes[i].peers->in)
            rpc_conn_close(list_entry(e, struct peer_in, link)->conn, -ECONNRESET);
        list_for_each (e, &nodes[i].peers->peers) {
            struct peer *peer = list_entry(e, struct peer, link);
            for (int c = PEER_CONTROL; c <= PEER_ENTRIES; c++)
                if (peer->out[c].conn)
                    rpc_conn_close(peer->out[c].conn, -ECONNRESET);
        }
    }
    return 0;
}

static int messages_in(void *arg)
{
    uint64_t n = 0;
    list_for_each (e, &((struct node *)arg)->peers->peers)
        n += list_entry(e, struct peer, link)->figures.messages_in;
    return (int)n;
}

TEST(a_reset_of_every_connection_changes_neither_term_nor_leader)
{
    start_all(LOOP_AUTO);
    struct node *l = wait_leader();
    uint64_t term = journal_driver_view(l->driver)->term, last = 0;
    for (int i = 0; i < 20; i++) {
        (void)loop_call(loop, break_connections, NULL);
        last = propose(l, 3, 1000);
        wait_all(last);
        int before = loop_call(loop, messages_in, l);
        uint64_t until = clock_ms() + WAIT_MS;
        while (loop_call(loop, messages_in, l) < before + 2) { /* heartbeats flow again */
            ck_assert(clock_ms() < until);
            usleep(1000);
        }
    }
    ck_assert_uint_eq(journal_driver_view(l->driver)->term, term);
    stop_all();
    compare_logs(last);
}

static int disk_reads(void *arg)
{
    uint64_t n = 0;
    list_for_each (e, &((struct node *)arg)->peers->peers)
        n += list_entry(e, struct peer, link)->figures.disk_reads;
    return (int)n;
}

TEST_TIMEOUT(who_was_away_for_long_is_fed_from_disk, 60)
{
    cache_bytes = 1 << 20;
    start_all(LOOP_AUTO);
    struct node *l = wait_leader(), *away = &nodes[(l->at + 1) % 3];
    kill_node(away);
    uint64_t last = 0;
    for (int i = 0; i < 60; i++) {
        last = propose(l, 16, 8000);
        wait_all(last);
    }
    ck_assert_int_eq(loop_call(loop, disk_reads, l), 0);
    (void)loop_call(loop, start_node, away);
    wait_all(last);
    ck_assert_int_gt(loop_call(loop, disk_reads, l), 0);
    stop_all();
    compare_logs(last);
}

static struct {
    struct node *node;
    enum raft_conf_op op;
    const struct raft_member *member;
    uint64_t index;
} change;

static int do_change(void *arg)
{
    return journal_driver_change(change.node->driver, change.op, change.member, &change.index);
}

static int change_members(struct node *n, enum raft_conf_op op, const struct raft_member *member)
{
    change.node = n;
    change.op = op;
    change.member = member;
    return loop_call(loop, do_change, NULL);
}

/* Former members are let go after a while. */
static int is_forgotten(void *arg)
{
    return peers_find(((struct node *)arg)->peers, id_of(1)) == NULL;
}

TEST_TIMEOUT(a_single_voter_opens_no_port_until_it_grows, 60)
{
    node_count = 2;
    format_all(1);
    start_loop(LOOP_AUTO);
    (void)loop_call(loop, start_node, &nodes[0]);
    struct node *l = wait_leader();
    ck_assert_uint_eq(journal_peers_port(l->peers), 0);
    uint64_t last = propose(l, 30, 3000);
    (void)loop_call(loop, start_node, &nodes[1]);
    ck_assert_uint_eq(journal_peers_port(nodes[1].peers), nodes[1].port); /* waits to be added */
    struct raft_member member = {.id = id_of(1), .role = RAFT_LEARNER};
    snprintf(member.raft_address, sizeof(member.raft_address), "127.0.0.1:%u", nodes[1].port);
    ck_assert_int_eq(change_members(l, RAFT_ADD_LEARNER, &member), 0);
    wait_all(last + 1);
    ck_assert_uint_eq(journal_peers_port(l->peers), l->port);
    uint64_t until = clock_ms() + WAIT_MS;
    int r = -EAGAIN;
    while ((r == -EAGAIN || r == -EBUSY || r == -CV_UNREACHABLE) && clock_ms() < until) {
        r = change_members(l, RAFT_PROMOTE, &member);
        usleep(2000);
    }
    ck_assert_int_eq(r, 0);
    wait_all(change.index);
    /* Removed: it is told so, and refused when it comes back. */
    ck_assert_int_eq(change_members(l, RAFT_DEMOTE, &member), 0);
    wait_all(change.index);
    ck_assert_int_eq(change_members(l, RAFT_REMOVE, &member), 0);
    wait_until(is_forgotten, l, "forgotten");
    char reason[200];
    int fd = raw_connect(l);
    struct msg_peer_hello hello = good_hello(PEER_CONTROL, id_of(1), id_of(0));
    ck_assert_int_eq(raw_hello(fd, &hello, reason), EPERM);
    ck_assert_msg(strstr(reason, "removed") != NULL, "%s", reason);
    raw_ends(fd);
    stop_all();
}

TEST(another_cluster_is_refused_with_a_reason_both_ends_show)
{
    memset(cluster_of[2].b, 7, UUID_SIZE);
    start_all(LOOP_AUTO);
    struct node *l = wait_leader();
    wait_status(l, "\"reason\":\"this journal belongs to another cluster: check the address\"");
    wait_status(&nodes[2], "\"control\":\"refused\"");
    wait_status(&nodes[2], "\"error\":\"CV_WRONG_CLUSTER\"");
    wait_all(propose(l, 1, 10) * 0);
    stop_all();
}

TEST(hellos_that_do_not_fit_are_refused)
{
    start_all(LOOP_AUTO);
    struct node *l = wait_leader();
    uint64_t self = id_of(l->at), other = id_of((l->at + 1) % 3);
    char reason[200];
    struct {
        struct msg_peer_hello hello;
        int error;
        const char *reason;
    } cases[] = {
        {good_hello(PEER_CONTROL, 999, self), EPERM, "not a member"},
        {good_hello(PEER_CONTROL, other, 998), ENXIO, "another node"},
        {good_hello(PEER_CONTROL, self, 0), CV_BAD_MESSAGE, "runs twice"},
        {good_hello(PEER_CONTROL, 0, self), CV_BAD_MESSAGE, "malformed"},
        {good_hello((enum peer_channel)9, other, self), CV_BAD_MESSAGE, "malformed"},
        {good_hello(PEER_SNAPSHOT, other, self), EPROTONOSUPPORT, "no snapshots"},
        {good_hello(PEER_CONTROL, other, self), CV_WRONG_INCARNATION, "rejoin"},
        {good_hello(PEER_CONTROL, other, self), CV_WRONG_INCARNATION, "older incarnation"},
        {good_hello(PEER_CONTROL, other, self), EPROTONOSUPPORT, "upgrade"},
        {good_hello(PEER_CONTROL, other, self), CV_WRONG_CLUSTER, "another cluster"},
    };
    cases[6].hello.incarnation = 0;
    cases[7].hello.incarnation = 2;
    cases[8].hello.version_min = cases[8].hello.version_max = 77;
    cases[9].hello.cluster = TEXT("short");
    for (size_t i = 0; i < array_size(cases); i++) {
        int fd = raw_connect(l);
        ck_assert_int_eq(raw_hello(fd, &cases[i].hello, reason), cases[i].error);
        ck_assert_msg(strstr(reason, cases[i].reason) != NULL, "%zu: '%s'", i, reason);
        raw_ends(fd);
    }
    wait_status(l, "\"id\":\"00000000000003e7\"");
    wait_status(l, "\"error\":\"EPERM\"");
    stop_all();
}

static int open_connections(void *arg)
{
    return (int)((struct node *)arg)->peers->in_count;
}

TEST(what_is_no_hello_ends_the_connection_and_disturbs_nobody)
{
    start_all(LOOP_AUTO);
    struct node *l = wait_leader();
    static uint8_t junk[8192];
    uint64_t term = journal_driver_view(l->driver)->term;
    int fd = raw_connect(l);
    memset(junk, 'G', sizeof(junk));
    ck_assert_int_eq(write(fd, junk, 100), 100);
    raw_ends(fd);
    fd = raw_connect(l);
    raw_send(fd, MSG_peer_raft, junk, 40, NULL, 0); /* before hello */
    raw_ends(fd);
    fd = raw_connect(l);
    raw_send(fd, MSG_peer_hello, junk, sizeof(junk), NULL, 0); /* larger than any hello */
    raw_ends(fd);
    fd = raw_connect(l);
    raw_send(fd, MSG_peer_hello, junk, 30, NULL, 0);
    raw_ends(fd);
    fd = raw_connect(l); /* says nothing */
    raw_ends(fd);
    /* More connections than may wait for their hello. */
    int many[PEER_NEW_MAX + 4];
    for (size_t i = 0; i < array_size(many); i++)
        many[i] = raw_connect(l);
    for (size_t i = PEER_NEW_MAX; i < array_size(many); i++)
        raw_ends(many[i]);
    ck_assert_int_le(loop_call(loop, open_connections, l), PEER_NEW_MAX + 4);
    for (size_t i = 0; i < PEER_NEW_MAX; i++)
        close(many[i]);
    wait_all(propose(l, 5, 100));
    ck_assert_uint_eq(journal_driver_view(l->driver)->term, term);
    stop_all();
}

static void send_message(int fd, const struct raft_message *m, uint32_t extra)
{
    uint8_t head[PEER_HEAD_MAX], data[64] = {0};
    struct buf body cleanup(buf_fini) = {0};
    size_t n = raft_message_encode(m, head);
    struct msg_peer_raft raft = {.head = {(const char *)head, (uint32_t)n}};
    ck_assert_int_eq(msg_peer_raft_encode(&raft, &body), 0);
    raw_send(fd, MSG_peer_raft, body.p, body.n, data, extra);
}

static int hello_as(const struct node *to, uint64_t from, enum peer_channel channel)
{
    char reason[200];
    int fd = raw_connect(to);
    struct msg_peer_hello hello = good_hello(channel, from, id_of(to->at));
    ck_assert_int_eq(raw_hello(fd, &hello, reason), 0);
    return fd;
}

TEST(messages_that_no_member_sends_end_the_connection)
{
    start_all(LOOP_AUTO);
    struct node *l = wait_leader();
    struct node *f = &nodes[(l->at + 1) % 3];
    uint64_t other = 999, self = id_of(f->at); /* a follower cannot know that it is no member */
    uint64_t term = journal_driver_view(l->driver)->term;
    struct raft_message vote = {.type = RAFT_MSG_VOTE, .from = 55, .to = self, .term = term, .vote = {.last_index = 1}};

    int fd = hello_as(f, other, PEER_CONTROL);
    send_message(fd, &vote, 0); /* in another's name */
    raw_ends(fd);
    fd = hello_as(f, other, PEER_CONTROL);
    vote.from = other;
    vote.to = 77;
    send_message(fd, &vote, 0);
    raw_ends(fd);
    fd = hello_as(f, other, PEER_CONTROL);
    vote.to = self;
    send_message(fd, &vote, 1); /* bytes left over */
    raw_ends(fd);
    fd = hello_as(f, other, PEER_CONTROL);
    send_message(fd, &vote, 2); /* no data on this channel */
    raw_ends(fd);
    fd = hello_as(f, other, PEER_ENTRIES);
    struct raft_message append = {.type = RAFT_MSG_APPEND,
                                  .from = other,
                                  .to = self,
                                  .term = term,
                                  .append = {.prev_index = 1, .prev_term = 1, .last_term = 1, .count = 60}};
    send_message(fd, &append, 0); /* entries announced and not there */
    raw_ends(fd);
    fd = hello_as(f, other, PEER_ENTRIES);
    raw_damage = 1;
    append.append.count = 0; /* good but for the checksum of what follows */
    send_message(fd, &append, 0);
    raw_ends(fd);
    raw_damage = 0;
    fd = hello_as(f, other, PEER_ENTRIES);
    uint8_t head[FRAME_HEADER_SIZE];
    struct frame_header h = {
        .type = MSG_peer_raft, .flags = FRAME_ONE_WAY, .incarnation = 1, .data_len = JOURNAL_ENTRY_SIZE_MAX + 1};
    frame_encode(&h, head);
    ck_assert_int_eq(write(fd, head, sizeof(head)), sizeof(head)); /* refused by the header alone */
    raw_ends(fd);
    wait_all(propose(l, 5, 100));
    ck_assert_uint_eq(journal_driver_view(l->driver)->term, term);
    stop_all();
}

static int channel_names(void)
{
    return strcmp(peer_channel_name(PEER_CONTROL), "control") != 0 || strcmp(peer_channel_name(200), "unknown") != 0;
}

TEST(answers_that_do_not_fit_are_refused_by_the_dialer)
{
    struct journal_self self = {.cluster = test_cluster, .node = 5, .incarnation = 3, .address = "x:1"};
    struct journal_self there = {.cluster = test_cluster, .node = 6, .incarnation = 3, .address = "x:2"};
    struct msg_peer_hello hello;
    struct msg_peer_hello_answer answer, bad;
    struct text why;
    journal_hello_fill(&self, PEER_CONTROL, 6, &hello);
    ck_assert_int_eq(journal_hello_check(&there, &hello, &answer), 0);
    ck_assert_int_eq(journal_hello_accept(&self, 6, &answer, &why), 0);
    ck_assert_int_eq(journal_hello_accept(&self, 7, &answer, &why), -ENXIO);
    bad = answer;
    bad.incarnation = 2;
    ck_assert_int_eq(journal_hello_accept(&self, 6, &bad, &why), -CV_WRONG_INCARNATION);
    bad = answer;
    bad.cluster = TEXT("");
    ck_assert_int_eq(journal_hello_accept(&self, 6, &bad, &why), -CV_WRONG_CLUSTER);
    bad = answer;
    bad.version = 9;
    ck_assert_int_eq(journal_hello_accept(&self, 6, &bad, &why), -EPROTONOSUPPORT);
    bad = answer;
    bad.node = 5;
    ck_assert_int_eq(journal_hello_accept(&self, 0, &bad, &why), -ENXIO);
    bad = answer;
    bad.error = UINT32_MAX;
    ck_assert_int_eq(journal_hello_accept(&self, 6, &bad, &why), -CV_BAD_MESSAGE);
    journal_hello_refuse(&answer, -EPERM, "removed");
    ck_assert_int_eq(journal_hello_accept(&self, 6, &answer, &why), -EPERM);
    ck_assert(text_equal(why, TEXT("removed")));
    ck_assert_int_eq(channel_names(), 0);
}
