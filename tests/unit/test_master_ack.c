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
    until(k.journal->last > k.journal->commit); /* proposed after they were answered */

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

/* ---- modes of mounts ------------------------------------------------------------------------------------------------- */

struct space {
    uint64_t inode;
    uint32_t mount;
};

static struct space attach(struct cluster *k, const char *name, enum mount_ack ack)
{
    struct msg_mount_add m = {.head = head_of(k->c, 2),
                              .parent = META_ROOT,
                              .name = text_of(name),
                              .path = text_of(name),
                              .mode = MOUNT_SCRATCH,
                              .ack_mode = (uint8_t)ack};
    struct msg_mount_add_answer answer;
    struct asked *a = ask(k->c, MSG_mount_add, &m);
    ck_assert_int_eq(asked_wait(a), 0);
    ck_assert_int_eq(msg_mount_add_answer_decode(a->body, a->n, &answer), 0);
    struct space s = {answer.attr.inode, answer.mount};
    asked_free(a);
    return s;
}

static struct asked *ask_create_in(struct cluster *k, uint64_t parent, const char *name, uint32_t slot)
{
    struct msg_create m = {
        .head = head_of(k->c, slot), .parent = parent, .name = text_of(name), .mode = 0644, .flags = 2};
    return ask(k->c, MSG_create, &m);
}

static int lookup_in(struct cluster *k, uint64_t parent, const char *name)
{
    struct msg_lookup m = {.head = {.session = k->c->session}, .parent = parent, .name = text_of(name)};
    return finish(ask(k->c, MSG_lookup, &m));
}

static int set_ack(struct cluster *k, uint32_t mount, uint8_t ack)
{
    struct msg_mount_set m = {.head = head_of(k->c, 2), .mount = mount, .ack_mode = ack};
    return finish(ask(k->c, MSG_mount_set, &m));
}

/* Until it counts below this one: sessions are told first. */
static void until_early(struct cluster *k, uint64_t parent)
{
    static int n;
    uint64_t before = metric(k, "curvine_master_acked_early_total");
    char name[32];
    do {
        snprintf(name, sizeof(name), "try%d", n++);
        ck_assert_int_eq(finish(ask_create_in(k, parent, name, 0)), 0);
    } while (metric(k, "curvine_master_acked_early_total") == before);
    uint64_t last = k->journal->last;
    until(k->journal->commit >= last);
}

struct synced {
    int result;
    uint64_t generation;
    bool early;
};

static struct asked *ask_sync(struct cluster *k, uint64_t inode)
{
    struct msg_sync m = {.head = {.session = k->c->session}, .inode = inode};
    return ask(k->c, MSG_sync, &m);
}

static struct synced finish_sync(struct asked *a)
{
    struct synced s = {.result = asked_wait(a)};
    struct msg_sync_answer answer;
    if (s.result == 0) {
        ck_assert_int_eq(msg_sync_answer_decode(a->body, a->n, &answer), 0);
        s.generation = answer.generation;
        s.early = answer.early;
    }
    asked_free(a);
    return s;
}

static void begin_mounts(struct cluster *k, enum ack_mode mode)
{
    cluster_init(k);
    k->options.ack_mode = mode;
    k->options.max_unreplicated_ms = 3000;
    k->options.lease_ms = 100;
    cluster_start(k);
}

TEST(ack_mode_of_a_mount_counts_below_it_only)
{
    struct cluster k;
    begin_mounts(&k, ACK_QUORUM);
    struct space fast = attach(&k, "fast", MOUNT_ACK_APPLIED), plain = attach(&k, "plain", MOUNT_ACK_CLUSTER);
    until_early(&k, fast.inode);
    ck_assert(finish_sync(ask_sync(&k, 0)).early);
    fake_journal_hold(k.journal, true);
    ck_assert_int_eq(finish(ask_create_in(&k, fast.inode, "a", 0)), 0);
    ck_assert_int_eq(lookup_in(&k, fast.inode, "a"), 0);
    ck_assert_int_eq(lookup_in(&k, fast.inode, "no"), -ENOENT);
    struct asked *waiting[] = {ask_create(k.c, "top", 3), ask_create_in(&k, plain.inode, "a", 4), ask_sync(&k, 0),
                               ask_sync(&k, plain.inode)};
    ck_assert_int_eq(finish(ask_create_in(&k, fast.inode, "b", 5)), 0); /* behind them */
    for (size_t i = 0; i < array_size(waiting); i++)
        ck_assert_msg(!is_answered(waiting[i]), "%zu was answered", i);
    fake_journal_hold(k.journal, false);
    ck_assert_int_eq(finish(waiting[0]), 0);
    ck_assert_int_eq(finish(waiting[1]), 0);
    ck_assert_int_eq(finish_sync(waiting[2]).result, 0);
    ck_assert_int_eq(finish_sync(waiting[3]).result, 0);
    cluster_fini(&k);
}

TEST(ack_mode_of_a_mount_may_be_stricter_and_be_changed)
{
    struct cluster k;
    begin_mounts(&k, ACK_APPLIED);
    struct space safe = attach(&k, "safe", MOUNT_ACK_QUORUM);
    fake_journal_hold(k.journal, true);
    ck_assert_int_eq(create(k.c, "top"), 0);
    struct asked *a = ask_create_in(&k, safe.inode, "a", 3);
    ck_assert_int_eq(create(k.c, "top2"), 0);
    ck_assert(!is_answered(a));
    fake_journal_hold(k.journal, false);
    ck_assert_int_eq(finish(a), 0);
    ck_assert_int_eq(set_ack(&k, safe.mount, 9), -EINVAL);
    ck_assert_int_eq(set_ack(&k, 99, MOUNT_ACK_LOCAL), -ENOENT);
    ck_assert_int_eq(set_ack(&k, safe.mount, MOUNT_ACK_CLUSTER), 0);
    ck_assert_int_eq(set_ack(&k, safe.mount, MOUNT_ACK_CLUSTER), 0);
    until_early(&k, safe.inode);
    ck_assert_int_eq(set_ack(&k, safe.mount, MOUNT_ACK_LOCAL), 0);
    fake_journal_hold(k.journal, true);
    a = ask_create_in(&k, safe.inode, "b", 3);
    ck_assert_int_eq(create(k.c, "top3"), 0);
    until(k.journal->last > k.journal->commit);
    ck_assert(!is_answered(a));
    fake_journal_durable(k.journal);
    ck_assert_int_eq(finish(a), 0); /* on our disk, with nobody else */
    struct asked *sync = ask_sync(&k, safe.inode);
    ck_assert_int_eq(lookup_in(&k, safe.inode, "b"), 0);
    ck_assert(!is_answered(sync));
    fake_journal_hold(k.journal, false);
    ck_assert_int_eq(finish_sync(sync).result, 0);
    cluster_fini(&k);
}

/* The window of max_unreplicated_ms, and the count of what was lost, are the same below a mount. */
TEST(ack_mode_of_a_mount_keeps_the_window_and_counts_losses)
{
    struct cluster k;
    begin_mounts(&k, ACK_QUORUM);
    struct space fast = attach(&k, "fast", MOUNT_ACK_APPLIED);
    until_early(&k, fast.inode);
    uint64_t generation = finish_sync(ask_sync(&k, fast.inode)).generation;
    ck_assert_uint_ne(generation, 0);
    ck_assert_uint_eq(finish_sync(ask_sync(&k, fast.inode)).generation, generation);
    k.options.max_unreplicated_ms = 100;
    fake_journal_hold(k.journal, true);
    struct asked *others[] = {ask_create(k.c, "top", 3)};
    ck_assert_int_eq(finish(ask_create_in(&k, fast.inode, "a", 0)), 0);
    ck_assert_int_eq(finish(ask_create_in(&k, fast.inode, "b", 0)), 0);
    until(k.journal->last > k.journal->commit);
    usleep(150000);
    struct asked *late = ask_create_in(&k, fast.inode, "c", 1), *sync = ask_sync(&k, fast.inode);
    usleep(30000);
    ck_assert(!is_answered(late) && !is_answered(sync) && !is_answered(others[0]));
    fake_journal_follow(k.journal);
    ck_assert_int_ne(finish_sync(sync).result, 0);
    ck_assert_int_ne(finish(late), 0);
    ck_assert_int_ne(finish(others[0]), 0);
    fake_journal_truncate(k.journal);
    until(lost(&k) == 2);
    fake_journal_hold(k.journal, false);
    fake_journal_lead(k.journal);
    int r;
    until((r = lookup_in(&k, fast.inode, "a")) != -CV_NOT_LEADER);
    ck_assert_int_eq(r, -ENOENT);
    ck_assert_uint_ne(finish_sync(ask_sync(&k, fast.inode)).generation, generation);
    cluster_fini(&k);
}
