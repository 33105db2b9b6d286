/* SPDX-License-Identifier: Apache-2.0 */
/*
 * A master that stops gives its lease back, and its journal hands the lead over at once; one that only says that it cannot
 * lead may answer reads by the lease it was told, and the lead goes when that is over. Two true journals, connected over
 * loopback, with a master made of plain calls beside each. RocksDB: not for the thread sanitizer.
 */
#include <arpa/inet.h>

#include "raft/journal.h"
#include "tests/link_client.h"
#include "tests/unit/journal_log.h"

enum { NODES = 2, WAIT_MS = 30000, ELECTION_MS = 1500 };

static struct node {
    uint16_t port;
    char socket[200], dir[200], address[64];
    struct journal_options options;
    struct journal *journal;
    struct link_client master, health;
    struct msg_link_role seen;
    uint64_t lease_ns; /* the longest it was told in this term */
    bool can_lead;
} nodes[NODES];

static uint16_t free_port(void)
{
    struct sockaddr_in a = {.sin_family = AF_INET, .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
    socklen_t n = sizeof(a);
    int fd cleanup(closep) = socket(AF_INET, SOCK_STREAM, 0);
    ck_assert(bind(fd, (struct sockaddr *)&a, sizeof(a)) == 0 && getsockname(fd, (struct sockaddr *)&a, &n) == 0);
    return ntohs(a.sin_port);
}

static void format_node(int i)
{
    struct raft_conf conf = {.count = 0};
    uint8_t encoded[RAFT_CONF_ENCODED_MAX];
    for (int k = 0; k < NODES; k++) {
        struct raft_member m = {.id = TEST_NODE + (uint64_t)k, .role = RAFT_VOTER};
        snprintf(m.raft_address, sizeof(m.raft_address), "%s", nodes[k].address);
        ck_assert_int_eq(raft_conf_put(&conf, &m), 0);
    }
    struct journal_format format = {.cluster = test_cluster, .node = TEST_NODE + (uint64_t)i, .conf = encoded};
    format.conf_size = (uint32_t)raft_conf_encode(&conf, encoded);
    ck_assert_int_eq(journal_store_format(nodes[i].dir, &format, NULL), 0);
}

static void start_node(struct node *n)
{
    n->options = (struct journal_options){
        .listen = (char *)(uintptr_t) "127.0.0.1",
        .port = n->port,
        .dir = n->dir,
        .socket = n->socket,
        .tick_ms = 10,
        .heartbeat_ms = 50,
        .election_ms = ELECTION_MS,
        .uncommitted_bytes = 64 << 20,
        .cache_bytes = 64 << 20,
        .keep_entries = 100,
        .log_bytes_max = 16ull << 30,
    };
    struct journal_config config = {.options = &n->options, .run_dir = "/nonexistent"};
    ck_assert_int_eq(journal_start(&config, &n->journal), 0);
    ck_assert_int_eq(link_client_attach(&n->master, n->socket, test_cluster, 0), 0);
    ck_assert_int_eq(link_client_connect(&n->health, n->socket), 0);
    n->can_lead = true;
}

static void start_all(void)
{
    for (int i = 0; i < NODES; i++) {
        struct node *n = &nodes[i];
        n->port = free_port();
        snprintf(n->address, sizeof(n->address), "127.0.0.1:%u", n->port);
        snprintf(n->socket, sizeof(n->socket), "%s/s%d", unit_tempdir(), i);
        snprintf(n->dir, sizeof(n->dir), "%s/j%d", unit_tempdir(), i);
    }
    for (int i = 0; i < NODES; i++)
        format_node(i);
    for (int i = 0; i < NODES; i++)
        start_node(&nodes[i]);
}

static void stop_all(void)
{
    for (int i = 0; i < NODES; i++) {
        link_client_close(&nodes[i].master);
        link_client_close(&nodes[i].health);
        journal_stop(nodes[i].journal);
    }
}

static void say(struct node *n, bool can_lead, bool lease_back)
{
    struct msg_link_applied m = {.applied = n->master.committed, .can_lead = can_lead, .lease_back = lease_back};
    n->can_lead = can_lead;
    ck_assert_int_eq(link_client_send(&n->master, MSG_link_applied, &m, NULL, 0), 0);
}

/* What one master hears next, if anything does within a moment. */
static void hear(struct node *n)
{
    struct link_client *c = &n->master;
    struct link_frame f;
    int r = link_client_receive(c, 5, &f);
    if (r == -CV_DEADLINE || r == -ETIMEDOUT || r == -EAGAIN)
        return;
    ck_assert_int_eq(r, 0);
    ck_assert_int_eq(link_client_take(c, &f, NULL, NULL), 0);
    if (f.header.type == MSG_link_entries)
        say(n, n->can_lead, false);
    if (f.header.type != MSG_link_role)
        return;
    if (n->seen.term != c->role.term || n->seen.role != c->role.role) {
        struct msg_link_role_seen m = {.term = c->role.term};
        ck_assert_int_eq(link_client_send(c, MSG_link_role_seen, &m, NULL, 0), 0);
        n->lease_ns = 0;
    }
    n->seen = c->role;
    n->lease_ns = max(n->lease_ns, c->role.lease_until_ns);
}

static void hear_all(void)
{
    static uint64_t beat;
    struct msg_link_health m = {.beat = ++beat, .master = 1 + (uint64_t)getpid()};
    for (int i = 0; i < NODES; i++) {
        ck_assert_int_eq(link_client_send(&nodes[i].health, MSG_link_health, &m, NULL, 0), 0);
        hear(&nodes[i]);
    }
}

/* One leads by a lease that lasts for most of what it may, the other has all there is. */
static struct node *wait_lease(void)
{
    uint64_t until = clock_ms() + WAIT_MS;
    for (;;) {
        ck_assert_msg(clock_ms() < until, "nobody leads by a lease");
        hear_all();
        for (int i = 0; i < NODES; i++) {
            struct node *n = &nodes[i], *other = &nodes[1 - i];
            if (n->seen.role == LINK_LEADER && n->lease_ns > clock_ns() + ELECTION_MS / 2 * NS_PER_MS &&
                n->master.committed >= n->seen.start_index && other->master.committed >= n->seen.start_index &&
                other->can_lead)
                return n;
        }
    }
}

/* When it hears that it leads no more. */
static uint64_t wait_over(struct node *n)
{
    uint64_t until = clock_ms() + WAIT_MS;
    while (n->seen.role == LINK_LEADER) {
        ck_assert_msg(clock_ms() < until, "it leads on");
        hear_all();
    }
    return clock_ns();
}

TEST_TIMEOUT(a_lease_given_back_ends_the_lead_at_once_and_one_that_is_not_is_waited_for, 120)
{
    start_all();
    /* Once out of some times will do: a machine that does other things as well may need longer than a lease for it. */
    bool early = false;
    for (int tries = 0; !early && tries < 5; tries++) {
        struct node *n = wait_lease();
        uint64_t lease_ns = n->lease_ns;
        say(n, false, true);
        early = wait_over(n) < lease_ns;
        say(n, true, false); /* it may lead again */
    }
    ck_assert_msg(early, "the lease that was given back was waited for");

    /* The other one now says that it cannot, and keeps its lease. */
    struct node *next = wait_lease();
    uint64_t over_ns = 0, lease_ns = next->lease_ns;
    say(next, false, false);
    while (next->seen.role == LINK_LEADER) {
        hear_all();
        lease_ns = max(lease_ns, next->lease_ns);
        over_ns = clock_ns();
        ck_assert_msg(over_ns < lease_ns + (uint64_t)WAIT_MS * NS_PER_MS, "it leads on");
    }
    ck_assert_uint_gt(over_ns, lease_ns);
    stop_all();
}
