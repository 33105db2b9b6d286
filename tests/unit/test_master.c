/* SPDX-License-Identifier: Apache-2.0 */
/* A whole master: real loops, sockets, scribe and database, over a journal in memory (not for the thread sanitizer). */
#include "tests/unit/master_test.h"

#include <grp.h>
#include <sys/stat.h>
#include <sys/wait.h>

TEST(master_serves_a_name_space)
{
    struct cluster k;
    cluster_init(&k);
    cluster_start(&k);
    ck_assert_int_eq(lookup(k.c, "a"), -ENOENT);
    ck_assert_int_eq(create(k.c, "a"), 0);
    ck_assert_int_eq(create(k.c, "b"), 0);
    struct asked *a = ask_lookup(k.c, "a");
    ck_assert_int_eq(asked_wait(a), 0);
    struct msg_lookup_answer answer;
    ck_assert_int_eq(msg_lookup_answer_decode(a->body, a->n, &answer), 0);
    ck_assert(S_ISREG(answer.attr.mode));
    ck_assert_uint_ge(a->index, 3); /* no-op, root, session, the two */
    asked_free(a);
    ck_assert_int_eq(unlink_name(k.c, "a"), 0);
    ck_assert_int_eq(lookup(k.c, "a"), -ENOENT);
    ck_assert_int_eq(unlink_name(k.c, "a"), -ENOENT);
    until(k.journal->health > 2);
    cluster_fini(&k);
}

TEST(master_keeps_its_state_over_a_restart)
{
    struct cluster k;
    cluster_init(&k);
    cluster_start(&k);
    for (int i = 0; i < 300; i++) {
        char name[16];
        snprintf(name, sizeof(name), "f%d", i);
        ck_assert_int_eq(create(k.c, name), 0);
    }
    k.master = master_free(k.master);
    ck_assert_uint_eq(k.journal->flushed, k.journal->last); /* a clean stop leaves nothing to replay */
    ck_assert_int_eq(k.journal->can_lead, 0);
    cluster_start_master(&k);
    until(lookup(k.c, "f299") == 0);
    ck_assert_int_eq(lookup(k.c, "f300"), -ENOENT);
    ck_assert_int_eq(unlink_name(k.c, "f0"), 0); /* the session lives on */
    cluster_fini(&k);
}

/* Also errors and "no such name" wait for what they rest on. */
TEST(master_answers_nothing_that_may_still_vanish)
{
    struct cluster k;
    cluster_init(&k);
    cluster_start(&k);
    ck_assert_int_eq(create(k.c, "old"), 0);
    fake_journal_hold(k.journal, true);
    struct asked *a[5];
    a[0] = ask_create(k.c, "new", 0);
    until(k.journal->last > k.journal->commit);
    uint64_t ops = k.journal->ops;
    struct msg_unlink m = {.head = head_of(k.c, 1), .parent = META_ROOT, .name = TEXT("old")};
    a[1] = ask(k.c, MSG_unlink, &m);
    until(k.journal->ops > ops);      /* the master has executed it */
    a[2] = ask_create(k.c, "new", 2); /* opens what the first made */
    a[3] = ask_lookup(k.c, "new");
    a[4] = ask_lookup(k.c, "old");
    usleep(50000);
    for (int i = 0; i < 5; i++)
        ck_assert_msg(!is_answered(a[i]), "%d was answered", i);
    fake_journal_hold(k.journal, false);
    const int expected[5] = {0, 0, 0, 0, -ENOENT};
    for (int i = 0; i < 5; i++)
        ck_assert_int_eq(finish(a[i]), expected[i]);
    cluster_fini(&k);
}

TEST(master_takes_back_what_a_lost_link_leaves_unknown)
{
    struct cluster k;
    cluster_init(&k);
    cluster_start(&k);
    fake_journal_hold(k.journal, true);
    struct rec_op_head head = head_of(k.c, 0);
    struct asked *a = ask_create_with(k.c, "x", head), *b = NULL;
    until(k.journal->last > k.journal->commit);
    b = ask_lookup(k.c, "x");
    usleep(20000);
    ck_assert(!is_answered(a) && !is_answered(b));
    fake_journal_disconnect(k.journal, true); /* and the journal has lost it */
    ck_assert_int_eq(finish(a), -CV_UNKNOWN_OUTCOME);
    fake_journal_hold(k.journal, false);
    int r = finish(b);
    ck_assert_msg(r == -CV_NOT_LEADER || r == -ENOENT, "%d", r);
    until((r = lookup(k.c, "x")) != -CV_NOT_LEADER);
    ck_assert_int_eq(r, -ENOENT);
    ck_assert_int_eq(finish(ask_create_with(k.c, "x", head)), 0); /* the same slot and sequence */
    ck_assert_int_eq(lookup(k.c, "x"), 0);
    cluster_fini(&k);
}

static uint64_t inodes(struct caller *c)
{
    struct msg_cluster_status m = {0};
    struct msg_cluster_status_answer s;
    struct asked *a = ask(c, MSG_cluster_status, &m);
    ck_assert_int_eq(asked_wait(a), 0);
    ck_assert_int_eq(msg_cluster_status_answer_decode(a->body, a->n, &s), 0);
    asked_free(a);
    return s.inodes;
}

TEST(master_executes_once_what_a_lost_link_kept)
{
    struct cluster k;
    cluster_init(&k);
    cluster_start(&k);
    fake_journal_hold(k.journal, true);
    struct rec_op_head head = head_of(k.c, 0);
    struct asked *a = ask_create_with(k.c, "x", head);
    until(k.journal->last > k.journal->commit);
    fake_journal_disconnect(k.journal, false); /* the journal has it, and commits it */
    ck_assert_int_eq(finish(a), -CV_UNKNOWN_OUTCOME);
    fake_journal_hold(k.journal, false);
    int r;
    until((r = lookup(k.c, "x")) != -CV_NOT_LEADER);
    ck_assert_int_eq(r, 0);
    a = ask_create_with(k.c, "x", head);
    ck_assert_int_eq(asked_wait(a), 0);
    struct msg_create_answer answer;
    ck_assert_int_eq(msg_create_answer_decode(a->body, a->n, &answer), 0);
    ck_assert_uint_eq(answer.created, 1);
    asked_free(a);
    until(inodes(k.c) == 2); /* nothing was executed again */
    cluster_fini(&k);
}

TEST(master_that_loses_the_lead_refuses_until_it_leads_again)
{
    struct cluster k;
    cluster_init(&k);
    cluster_start(&k);
    fake_journal_hold(k.journal, true);
    struct asked *a = ask_create(k.c, "kept", 0);
    until(k.journal->last > k.journal->commit);
    fake_journal_follow(k.journal);
    ck_assert_int_eq(finish(a), -CV_UNKNOWN_OUTCOME);
    ck_assert_int_eq(lookup(k.c, "kept"), -CV_NOT_LEADER);
    ck_assert_int_eq(create(k.c, "no"), -CV_NOT_LEADER);
    fake_journal_hold(k.journal, false); /* it was committed after all */
    fake_journal_lead(k.journal);
    int r;
    until((r = lookup(k.c, "kept")) != -CV_NOT_LEADER);
    ck_assert_int_eq(r, 0);
    ck_assert_int_eq(lookup(k.c, "no"), -ENOENT);

    until((r = create(k.c, "next")) != -CV_BUSY); /* until the new leader has its ids */
    ck_assert_int_eq(r, 0);
    fake_journal_hold(k.journal, true); /* and now one that is cut */
    a = ask_create(k.c, "cut", 3);
    until(k.journal->last > k.journal->commit);
    fake_journal_follow(k.journal);
    ck_assert_int_eq(finish(a), -CV_UNKNOWN_OUTCOME);
    fake_journal_truncate(k.journal);
    fake_journal_hold(k.journal, false);
    fake_journal_lead(k.journal);
    until((r = lookup(k.c, "cut")) != -CV_NOT_LEADER);
    ck_assert_int_eq(r, -ENOENT);
    until((r = create(k.c, "after")) != -CV_BUSY);
    ck_assert_int_eq(r, 0);
    ck_assert_int_eq(k.failed, 0);
    cluster_fini(&k);
}

TEST(master_whose_proposal_is_refused_takes_it_back)
{
    struct cluster k;
    cluster_init(&k);
    cluster_start(&k);
    fake_journal_refuse(k.journal, CV_BUSY);
    struct rec_op_head head = head_of(k.c, 0);
    ck_assert_int_eq(finish(ask_create_with(k.c, "x", head)), -CV_BUSY);
    ck_assert_int_eq(lookup(k.c, "x"), -ENOENT);
    ck_assert_int_eq(finish(ask_create_with(k.c, "x", head)), 0);
    cluster_fini(&k);
}

TEST(master_batches_within_its_limits_and_pushes_back)
{
    struct cluster k;
    cluster_init(&k);
    k.options.batches_in_flight_max = 4;
    k.options.batch_ops = 10;
    cluster_start(&k);
    fake_journal_hold(k.journal, true);
    uint64_t before = k.journal->last;
    struct caller *others[4];
    struct asked *a[256];
    int n = 0;
    for (int i = 0; i < 4; i++) {
        others[i] = caller_new(k.socket);
        fake_journal_hold(k.journal, false);
        open_session(others[i]);
        fake_journal_hold(k.journal, true);
    }
    before = k.journal->last;
    for (int i = 0; i < 4; i++)
        for (uint32_t slot = 0; slot < 64; slot++) {
            char name[32];
            snprintf(name, sizeof(name), "n%d-%u", i, slot);
            a[n++] = ask_create(others[i], name, slot);
        }
    until(k.journal->last - before == 4);
    usleep(50000);
    ck_assert_uint_eq(k.journal->last - before, 4);
    fake_journal_hold(k.journal, false);
    for (int i = 0; i < n; i++)
        ck_assert_int_eq(finish(a[i]), 0);
    ck_assert_uint_ge(k.journal->last - before, 256 / 10);
    ck_assert_uint_le(k.journal->largest, 11); /* a grant of ids may come with the last */
    for (int i = 0; i < 4; i++)
        caller_free(others[i]);
    cluster_fini(&k);
}

TEST(master_sends_a_lone_request_at_once)
{
    struct cluster k;
    cluster_init(&k);
    k.options.batch_window_ms = 1000; /* would show */
    cluster_start(&k);
    uint64_t began = clock_ns();
    for (int i = 0; i < 20; i++) {
        char name[16];
        snprintf(name, sizeof(name), "f%d", i);
        ck_assert_int_eq(create(k.c, name), 0);
    }
    ck_assert_uint_lt(clock_ns() - began, 5 * NS_PER_S);
    cluster_fini(&k);
}

TEST(master_ends_sessions_that_do_not_renew)
{
    struct cluster k;
    cluster_init(&k);
    k.options.session_timeout_ms = 1500;
    cluster_start(&k);
    struct caller *silent = caller_new(k.socket);
    open_session(silent);
    uint64_t began = clock_ns();
    int r = 0;
    while (r != -CV_SESSION_ENDED) {
        ck_assert_uint_lt(clock_ns() - began, 20 * NS_PER_S);
        struct msg_session_renew m = {.session = k.c->session, .lease_epoch = 5};
        struct asked *a = ask(k.c, MSG_session_renew, &m);
        ck_assert_int_eq(asked_wait(a), 0);
        struct msg_session_renew_answer answer;
        ck_assert_int_eq(msg_session_renew_answer_decode(a->body, a->n, &answer), 0);
        ck_assert_uint_eq(answer.lease_epoch, 5);
        ck_assert_uint_ne(answer.lease_ms, 0);
        asked_free(a);
        usleep(200000);
        r = lookup(silent, "x");
    }
    ck_assert_uint_gt(clock_ns() - began, 1000 * NS_PER_MS);
    ck_assert_int_eq(create(silent, "x"), -CV_SESSION_ENDED);
    ck_assert_int_eq(create(k.c, "x"), 0);
    caller_free(silent);
    cluster_fini(&k);
}

static void as_nobody(const char *socket, uint64_t session)
{
    if (setgroups(0, NULL) < 0 || setgid(65534) < 0 || setuid(65534) < 0)
        _exit(3);
    struct caller *c = caller_new(socket);
    struct msg_getattr m = {.head = {.session = session, .uid = 0, .gid = 0}, .inode = META_ROOT};
    if (finish(ask(c, MSG_getattr, &m)) != -EPERM)
        _exit(1);
    m.head.uid = 65534;
    if (finish(ask(c, MSG_getattr, &m)) != -EPERM) /* the group is not his */
        _exit(2);
    m.head.gid = 65534;
    if (finish(ask(c, MSG_getattr, &m)) != 0)
        _exit(4);
    m.head.groups = (struct text){"\0\0\0\0", 4}; /* root's group */
    if (finish(ask(c, MSG_getattr, &m)) != -EPERM)
        _exit(5);
    caller_free(c);
    _exit(0);
}

TEST(master_lets_local_users_speak_for_themselves_only)
{
    if (geteuid() != 0)
        return; /* there is nobody else to be */
    char socket[120];
    snprintf(socket, sizeof(socket), "%s/master.sock", unit_tempdir());
    ck_assert_int_eq(chmod(unit_tempdir(), 0755), 0);
    int go[2];
    ck_assert_int_eq(pipe(go), 0);
    pid_t pid = fork(); /* before there are threads */
    if (pid == 0) {
        uint64_t session;
        if (read(go[0], &session, sizeof(session)) != sizeof(session))
            _exit(9);
        as_nobody(socket, session);
    }
    struct cluster k;
    cluster_init(&k);
    cluster_start(&k);
    ck_assert_int_eq(write(go[1], &k.c->session, 8), 8);
    int status;
    waitpid(pid, &status, 0);
    ck_assert_int_eq(status, 0);
    cluster_fini(&k);
}

TEST(master_stops_although_nothing_is_committed_any_more)
{
    struct cluster k;
    cluster_init(&k);
    cluster_start(&k);
    ck_assert_int_eq(create(k.c, "safe"), 0);
    fake_journal_hold(k.journal, true);
    struct asked *a = ask_create(k.c, "x", 0);
    until(k.journal->last > k.journal->commit);
    uint64_t began = clock_ns();
    k.master = master_free(k.master);
    ck_assert_uint_lt(clock_ns() - began, 10 * NS_PER_S);
    int r = finish(a);
    ck_assert_msg(r == -CV_UNKNOWN_OUTCOME || r == -CV_CLOSED, "%d", r);
    fake_journal_hold(k.journal, false);
    cluster_start_master(&k);
    until((r = lookup(k.c, "safe")) != -CV_NOT_LEADER && r != -CV_CLOSED && r != -CV_UNREACHABLE);
    ck_assert_int_eq(r, 0);
    cluster_fini(&k);
}

static uint64_t metric_of(struct cluster *k, const char *name)
{
    char line[100];
    snprintf(line, sizeof(line), "\ncurvine_master_%s ", name);
    struct buf page = {0};
    ck_assert_int_eq(metrics_write_text(k->metrics, &page), 0);
    ck_assert_int_eq(buf_append(&page, "", 1), 0);
    const char *at = strstr((char *)page.p, line);
    ck_assert_msg(at != NULL, "no %s", name);
    uint64_t value = strtoull(at + strlen(line), NULL, 10);
    buf_fini(&page);
    return value;
}

/* 64 requests in flight over names 0..count-1. */
static void each_name(struct cluster *k, int count, struct asked *(*ask_one)(struct caller *c, int i, uint32_t slot),
                      int expected)
{
    struct asked *a[64] = {0};
    for (int i = 0; i < count + 64; i++) {
        if (a[i % 64])
            ck_assert_int_eq(finish(a[i % 64]), expected);
        a[i % 64] = i < count ? ask_one(k->c, i, (uint32_t)i % 64) : NULL;
    }
}

static char *file_name(int i)
{
    static char name[32];
    snprintf(name, sizeof(name), "a-name-of-some-length-%06d", i);
    return name;
}

static struct asked *create_one(struct caller *c, int i, uint32_t slot)
{
    struct msg_mknod m = {
        .head = head_of(c, slot), .parent = META_ROOT, .name = text_of(file_name(i)), .mode = S_IFREG | 0644};
    return ask(c, MSG_mknod, &m);
}

static struct asked *lookup_one(struct caller *c, int i, uint32_t slot)
{
    return ask_lookup(c, file_name(i));
}

static struct asked *unlink_one(struct caller *c, int i, uint32_t slot)
{
    struct msg_unlink m = {.head = head_of(c, slot), .parent = META_ROOT, .name = text_of(file_name(i))};
    return ask(c, MSG_unlink, &m);
}

/* A tree and a block cache too small for the rows, deltas written all the time: every way a row can take. */
TEST_TIMEOUT(master_serves_rows_that_are_not_in_memory, 120)
{
    enum { FILES = 20000 };
    struct cluster k;
    cluster_init(&k);
    k.options.memory_bytes = 1 << 20;
    k.options.cache_bytes = 64 << 10;
    k.options.flush_interval_ms = 20;
    k.options.session_timeout_ms = 15000; /* until then a new leader keeps what lost its name */
    cluster_start(&k);
    each_name(&k, FILES, create_one, 0);
    each_name(&k, FILES, create_one, -EEXIST);
    master_free(k.master);
    cluster_start_master(&k);
    int r;
    until((r = lookup(k.c, file_name(0))) != -CV_NOT_LEADER && r != -CV_CLOSED && r != -CV_UNREACHABLE);
    uint64_t blocking = metric_of(&k, "fetches_blocking_total");
    each_name(&k, FILES, lookup_one, 0);
    ck_assert_uint_gt(metric_of(&k, "fetches_blocking_total"), blocking);
    ck_assert_uint_gt(metric_of(&k, "fetches_total"), metric_of(&k, "fetches_blocking_total"));
    each_name(&k, FILES, unlink_one, 0);
    each_name(&k, FILES, lookup_one, -ENOENT);
    until_within(40, inodes(k.c) == 1);
    printf("%llu fetched, %llu from disk, %llu executed before they were prepared\n",
           (unsigned long long)metric_of(&k, "fetches_total"),
           (unsigned long long)metric_of(&k, "fetches_blocking_total"),
           (unsigned long long)metric_of(&k, "not_prepared_total"));
    cluster_fini(&k);
}

TEST(master_refuses_the_journal_of_another_cluster)
{
    struct cluster k;
    cluster_init(&k);
    k.journal->cluster.b[0] ^= 1;
    cluster_start_master(&k);
    until(k.failed == -CV_WRONG_CLUSTER);
    cluster_fini(&k);
}

TEST(master_refuses_bad_requests_and_lives_on)
{
    struct cluster k;
    cluster_init(&k);
    cluster_start(&k);
    struct msg_link_health no = {0};
    ck_assert_int_eq(finish(ask(k.c, MSG_link_health, &no)), -CV_UNKNOWN_MESSAGE);
    struct msg_create m = {.parent = META_ROOT, .name = TEXT("a")};
    ck_assert_int_eq(finish(ask(k.c, MSG_create, &m)), -CV_SESSION_UNKNOWN);
    m.head.session = k.c->session;
    m.head.slot = 1000;
    m.head.sequence = 1;
    ck_assert_int_eq(finish(ask(k.c, MSG_create, &m)), -CV_SLOT_BAD);
    ck_assert_int_eq(create(k.c, "fine"), 0);
    cluster_fini(&k);
}

TEST(master_says_how_it_is)
{
    struct cluster k;
    cluster_init(&k);
    cluster_start(&k);
    ck_assert_int_eq(create(k.c, "a"), 0);
    until(inodes(k.c) == 2); /* answered when committed, counted a little later */
    struct msg_cluster_status m = {0};
    struct asked *a = ask(k.c, MSG_cluster_status, &m);
    ck_assert_int_eq(asked_wait(a), 0);
    struct msg_cluster_status_answer s;
    ck_assert_int_eq(msg_cluster_status_answer_decode(a->body, a->n, &s), 0);
    ck_assert(uuid_equal(uuid_from_bytes(s.cluster), CLUSTER));
    ck_assert_uint_eq(s.inodes, 2);
    ck_assert_uint_eq(s.sessions, 1);
    ck_assert_uint_eq(s.leader, 1);
    ck_assert(text_equal(s.ack_mode, TEXT("quorum")));
    rec_for_each (node_info, node, &s.nodes) {
        bool self = text_equal(node.role, TEXT("master"));
        ck_assert(text_equal(node.state, self ? TEXT("leading") : TEXT("leader")));
    }
    asked_free(a);
    struct buf page = {0};
    ck_assert_int_eq(master_status_page(k.master, &page), 0);
    ck_assert_int_eq(buf_append(&page, "", 1), 0);
    ck_assert_ptr_nonnull(strstr((char *)page.p, "\"state\": \"leading\""));
    page.n = 0;
    ck_assert_int_eq(metrics_write_text(k.metrics, &page), 0);
    ck_assert_int_eq(buf_append(&page, "", 1), 0);
    ck_assert_ptr_nonnull(strstr((char *)page.p, "curvine_master_leading 1"));
    ck_assert_ptr_nonnull(strstr((char *)page.p, "curvine_master_op_seconds"));
    buf_fini(&page);
    cluster_fini(&k);
}
