/* SPDX-License-Identifier: Apache-2.0 */
/* When a mutation is answered, in each ack mode, and what becomes of what was answered early (not for the thread sanitizer). */
#include "tests/unit/master_test.h"

#include "conf/metrics.h"
#include "wire/meta_flags.h"

static void begin(struct cluster *k, enum ack_mode mode)
{
    cluster_init(k);
    k->options.ack_mode = mode;
    k->options.max_unreplicated_ms = 3000; /* machines may be slow */
    cluster_start(k);
}

static struct rec_op_head durable(struct rec_op_head head)
{
    head.flags = OP_DURABLE;
    return head;
}

static struct asked *ask_lookup_durable(struct caller *c, const char *name)
{
    struct msg_lookup m = {
        .head = durable((struct rec_op_head){.session = c->session}), .parent = META_ROOT, .name = text_of(name)};
    return ask(c, MSG_lookup, &m);
}

static uint64_t metric(struct cluster *k, const char *name)
{
    struct buf text = {0};
    char line[100];
    ck_assert_int_eq(metrics_write_text(k->metrics, &text), 0);
    ck_assert_int_eq(buf_append(&text, "", 1), 0);
    snprintf(line, sizeof(line), "\n%s ", name);
    const char *at = strstr((const char *)text.p, line);
    ck_assert_msg(at != NULL, "no metric %s", name);
    uint64_t value = strtoull(at + strlen(line), NULL, 10);
    buf_fini(&text);
    return value;
}

static uint64_t lost(struct cluster *k)
{
    return metric(k, "curvine_master_lost_acked_ops_total");
}

TEST(ack_applied_answers_at_once_but_what_asks_for_more)
{
    struct cluster k;
    begin(&k, ACK_APPLIED);
    ck_assert_int_eq(create(k.c, "old"), 0);
    uint64_t last = k.journal->last;
    until(k.journal->commit >= last);
    fake_journal_hold(k.journal, true);
    ck_assert_int_eq(create(k.c, "new"), 0);
    ck_assert_int_eq(lookup(k.c, "new"), 0);
    ck_assert_int_eq(unlink_name(k.c, "old"), 0);
    ck_assert_int_eq(lookup(k.c, "old"), -ENOENT);
    ck_assert_uint_gt(k.journal->last, k.journal->commit);

    struct msg_create m = {.head = durable(head_of(k.c, 5)), .parent = META_ROOT, .name = TEXT("sure"), .mode = 0644};
    struct asked *a[4] = {
        ask(k.c, MSG_create, &m), ask_lookup_durable(k.c, "new"), /* fsync of what is answered already */
        ask_lookup_durable(k.c, "old"),                           /* "no such name", for sure */
        ask_create(k.c, "new", 7),                                /* was there: the answer tells where its content is */
    };
    ck_assert_int_eq(create(k.c, "behind"), 0);
    for (int i = 0; i < 4; i++)
        ck_assert_msg(!is_answered(a[i]), "%d was answered", i);
    fake_journal_hold(k.journal, false);
    const int expected[4] = {0, 0, -ENOENT, 0};
    for (int i = 0; i < 4; i++)
        ck_assert_int_eq(finish(a[i]), expected[i]);
    ck_assert_uint_ge(metric(&k, "curvine_master_acked_early_total"), 4);
    ck_assert_uint_eq(lost(&k), 0);
    cluster_fini(&k);
}

/* Nothing was replicated for long: perhaps nobody follows any more. */
TEST(ack_applied_waits_when_what_is_older_waits)
{
    struct cluster k;
    cluster_init(&k);
    k.options.ack_mode = ACK_APPLIED;
    k.options.max_unreplicated_ms = 20;
    cluster_start(&k);
    fake_journal_hold(k.journal, true);
    struct asked *first = ask_create(k.c, "first", 0);
    until(k.journal->last > k.journal->commit);
    usleep(30000);
    struct asked *a = ask_create(k.c, "second", 1);
    usleep(30000);
    ck_assert(!is_answered(a));
    fake_journal_hold(k.journal, false);
    ck_assert_int_eq(finish(first), 0);
    ck_assert_int_eq(finish(a), 0);
    ck_assert_int_eq(create(k.c, "third"), 0);
    cluster_fini(&k);
}

/* A leader that may be none any more answers nothing early. */
TEST(ack_applied_needs_a_lease)
{
    struct cluster k;
    begin(&k, ACK_APPLIED);
    fake_journal_lease(k.journal, 0);
    until(lookup(k.c, "no") == -ENOENT && k.journal->reads > 0);
    fake_journal_hold(k.journal, true);
    struct asked *a = ask_create(k.c, "x", 0);
    until(k.journal->last > k.journal->commit);
    usleep(20000);
    ck_assert(!is_answered(a));
    fake_journal_hold(k.journal, false);
    ck_assert_int_eq(finish(a), 0);
    cluster_fini(&k);
}

TEST(ack_applied_counts_what_a_new_leader_cut)
{
    struct cluster k;
    begin(&k, ACK_APPLIED);
    fake_journal_hold(k.journal, true);
    struct rec_op_head head = head_of(k.c, 3);
    for (int i = 0; i < 3; i++)
        ck_assert_int_eq(create(k.c, (const char *[]){"a", "b", "c"}[i]), 0);
    ck_assert_int_eq(finish(ask_create_with(k.c, "d\n", head)), 0);
    until(k.journal->last > k.journal->commit);
    fake_journal_follow(k.journal);
    until(lookup(k.c, "a") == -CV_NOT_LEADER);
    fake_journal_truncate(k.journal);
    until(lost(&k) == 4);
    fake_journal_hold(k.journal, false);
    fake_journal_lead(k.journal);
    int r;
    until((r = lookup(k.c, "a")) != -CV_NOT_LEADER);
    ck_assert_int_eq(r, -ENOENT);
    until((r = finish(ask_create_with(k.c, "d", head))) != -CV_BUSY); /* the slot has forgotten it, too */
    ck_assert_int_eq(r, 0);
    ck_assert_uint_eq(lost(&k), 4);
    cluster_fini(&k);
}

/* The link breaks: what was answered may be in the log. It counts when it is sure. */
TEST(ack_applied_counts_what_a_lost_link_lost)
{
    struct cluster k;
    begin(&k, ACK_APPLIED);
    fake_journal_hold(k.journal, true);
    ck_assert_int_eq(create(k.c, "a"), 0);
    ck_assert_int_eq(create(k.c, "b"), 0);
    until(k.journal->last > k.journal->commit);
    uint64_t attaches = k.journal->attaches;
    fake_journal_disconnect(k.journal, true);
    fake_journal_hold(k.journal, false);
    until(k.journal->attaches > attaches);
    int r;
    until((r = lookup(k.c, "a")) != -CV_NOT_LEADER);
    ck_assert_int_eq(r, -ENOENT);
    ck_assert_uint_eq(lost(&k), 2);
    cluster_fini(&k);
}

TEST(ack_applied_finds_in_the_log_what_a_lost_link_had_sent)
{
    struct cluster k;
    begin(&k, ACK_APPLIED);
    fake_journal_hold(k.journal, true);
    ck_assert_int_eq(create(k.c, "a"), 0);
    until(k.journal->last > k.journal->commit);
    uint64_t attaches = k.journal->attaches;
    fake_journal_disconnect(k.journal, false); /* not committed, and not told so: undone, then fed as an entry */
    until(k.journal->attaches > attaches);
    fake_journal_hold(k.journal, false);
    int r;
    until((r = lookup(k.c, "a")) != -CV_NOT_LEADER);
    ck_assert_int_eq(r, 0);
    ck_assert_uint_eq(lost(&k), 0);
    cluster_fini(&k);
}

TEST(ack_local_answers_when_our_disk_has_it_and_counts_losses)
{
    struct cluster k;
    begin(&k, ACK_LOCAL);
    fake_journal_hold(k.journal, true);
    struct asked *a = ask_create(k.c, "a", 0);
    until(k.journal->last > k.journal->commit);
    usleep(20000);
    ck_assert(!is_answered(a));
    fake_journal_durable(k.journal);
    ck_assert_int_eq(finish(a), 0);
    ck_assert_int_eq(lookup(k.c, "a"), 0);
    struct asked *b = ask_lookup_durable(k.c, "a");
    ck_assert_int_eq(lookup(k.c, "a"), 0);
    ck_assert(!is_answered(b));
    fake_journal_follow(k.journal);
    int r = finish(b);
    ck_assert_msg(r == -CV_NOT_LEADER, "%d", r);
    fake_journal_truncate(k.journal);
    until(lost(&k) == 1);
    fake_journal_hold(k.journal, false);
    cluster_fini(&k);
}

/* A hundred times answered early, told committed: nothing is lost, nothing stays behind. */
TEST(ack_early_answers_are_forgotten_when_they_are_committed)
{
    struct cluster k;
    begin(&k, ACK_APPLIED);
    for (int i = 0; i < 300; i++) {
        char name[16];
        snprintf(name, sizeof(name), "f%d", i);
        ck_assert_int_eq(create(k.c, name), 0);
    }
    uint64_t last = k.journal->last;
    until(k.journal->commit >= last);
    ck_assert_int_eq(finish(ask_lookup_durable(k.c, "f299")), 0);
    fake_journal_disconnect(k.journal, false);
    int r;
    until((r = lookup(k.c, "f299")) == 0);
    ck_assert_uint_eq(lost(&k), 0);
    cluster_fini(&k);
}
