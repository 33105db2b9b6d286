/* SPDX-License-Identifier: Apache-2.0 */
/* The journal as a master sees it, over its socket: real core, real log, real loop; the master is made of plain calls.
 * RocksDB: not for the thread sanitizer. */
#include "raft/journal.h"
#include "tests/link_client.h"
#include "tests/unit/journal_log.h"

enum { WAIT_MS = 20000 };

static struct journal_options options;
static char socket_path[200];

static void format_single(void)
{
    struct raft_conf conf = {.count = 1};
    conf.members[0] = (struct raft_member){.id = TEST_NODE, .role = RAFT_VOTER, .raft_address = "h:1"};
    uint8_t encoded[RAFT_CONF_ENCODED_MAX];
    struct journal_format format = {.cluster = test_cluster, .node = TEST_NODE, .conf = encoded};
    format.conf_size = (uint32_t)raft_conf_encode(&conf, encoded);
    ck_assert_int_eq(journal_store_format(test_dir("j"), &format, NULL), 0);
}

static void set_options(void)
{
    snprintf(socket_path, sizeof(socket_path), "%s", test_dir("sock"));
    options = (struct journal_options){
        .listen = (char *)(uintptr_t) "127.0.0.1",
        .dir = (char *)(uintptr_t)test_dir("j"),
        .socket = socket_path,
        .tick_ms = 10,
        .heartbeat_ms = 50,
        .election_ms = 500,
        .uncommitted_bytes = 64 << 20,
        .cache_bytes = 64 << 20,
        .keep_entries = 100,
        .log_bytes_max = 16ull << 30,
    };
}

static struct journal *start(void)
{
    struct journal_config config = {.options = &options, .run_dir = "/nonexistent"};
    struct journal *j = NULL;
    ck_assert_int_eq(journal_start(&config, &j), 0);
    return j;
}

static struct journal *format_and_start(void)
{
    set_options();
    format_single();
    return start();
}

/* A master that is attached and may propose. */
static struct link_client attach(uint64_t applied)
{
    struct link_client c;
    ck_assert_int_eq(link_client_attach(&c, socket_path, test_cluster, applied), 0);
    ck_assert_uint_eq(c.welcome.error, 0);
    int r = link_client_lead(&c, WAIT_MS, NULL, NULL);
    ck_assert_msg(r == 0, "lead: %s", cv_error_text(r));
    return c;
}

static void propose(struct link_client *c, uint64_t sequence, uint32_t n)
{
    static uint8_t data[LINK_PAYLOAD_MAX + 1];
    memset(data, (int)(sequence & 0xff), n);
    ck_assert_int_eq(link_client_propose(c, c->role.term, sequence, data, n, 7), 0);
}

static void wait_committed(struct link_client *c, uint64_t index)
{
    int r = link_client_wait(c, &c->committed, index, WAIT_MS, NULL, NULL);
    ck_assert_msg(r == 0, "waiting for %llu, at %llu: %s", (unsigned long long)index, (unsigned long long)c->committed,
                  cv_error_text(r));
}

/* The journal ends this connection. */
static void expect_end(struct link_client *c)
{
    struct link_frame f;
    int r;
    while ((r = link_client_receive(c, WAIT_MS, &f)) == 0)
        ck_assert_int_eq(link_client_take(c, &f, NULL, NULL), 0);
    ck_assert_int_eq(r, -CV_CLOSED);
    link_client_close(c);
}

TEST(a_master_is_welcomed_and_told_what_it_lacks)
{
    struct journal *j = format_and_start();
    struct link_client c = attach(0);
    ck_assert_uint_eq(c.welcome.node, TEST_NODE);
    ck_assert_uint_eq(c.welcome.incarnation, 1);
    ck_assert_uint_eq(c.role.leader, TEST_NODE);
    ck_assert_uint_eq(c.role.lease_until_ns, UINT64_MAX);
    ck_assert_uint_ge(c.credit_bytes, LINK_PAYLOAD_MAX);
    ck_assert_uint_eq(c.role.start_index, 2); /* the configuration, the no-op */
    link_client_close(&c);
    j = journal_stop(j);
}

static uint64_t told[1000], told_bytes;
static uint32_t told_count;

static void note_entry(void *arg, const struct rec_link_entry *e, const uint8_t *data)
{
    ck_assert_uint_lt(told_count, 1000);
    told_bytes += e->length;
    told[told_count++] = e->index;
    if (e->type == LINK_BATCH && e->length) {
        ck_assert_uint_eq(data[0], data[e->length - 1]);
        ck_assert_uint_eq(e->op_count, 7);
    }
}

TEST(proposals_are_numbered_made_durable_and_told_again_to_the_next_master)
{
    struct journal *j = format_and_start();
    struct link_client c = attach(0);
    for (uint64_t i = 1; i <= 300; i++)
        propose(&c, i, (uint32_t)(i % 7 == 0 ? 0 : i * 40));
    uint64_t next = 1, index = 3;
    while (next <= 300) {
        struct link_frame f;
        struct msg_link_proposed m;
        ck_assert_int_eq(link_client_receive(&c, WAIT_MS, &f), 0);
        ck_assert_int_eq(link_client_take(&c, &f, NULL, NULL), 0);
        if (f.header.type != MSG_link_proposed)
            continue;
        ck_assert_int_eq(msg_link_proposed_decode(f.body, f.header.body_len, &m), 0);
        ck_assert_uint_eq(m.first_sequence, next);
        ck_assert_uint_eq(m.first_index, index);
        ck_assert_uint_eq(m.term, c.role.term);
        next += m.count;
        index += m.count;
    }
    wait_committed(&c, 302);
    ck_assert_uint_eq(c.committed, 302);
    link_client_close(&c);

    ck_assert_int_eq(link_client_attach(&c, socket_path, test_cluster, 100), 0);
    ck_assert_uint_eq(c.welcome.last, 302);
    ck_assert_int_eq(link_client_lead(&c, WAIT_MS, note_entry, NULL), 0);
    ck_assert_uint_eq(c.role.start_index, 302); /* not only the no-op: what an earlier master proposed */
    ck_assert_uint_eq(told_count, 202);
    for (uint32_t i = 0; i < told_count; i++)
        ck_assert_uint_eq(told[i], 101 + i);
    propose(&c, 1, 10);
    wait_committed(&c, 303);
    ck_assert_uint_eq(told_count, 202); /* its own came as a watermark */
    link_client_close(&c);
    j = journal_stop(j);

    struct journal_store *s = open_log(options.dir);
    ck_assert_uint_eq(journal_store_state(s)->last, 303);
    struct journal_read read = {.count = 0};
    ck_assert_int_eq(journal_store_read(s, 300, 300, 1000, &read), 0);
    ck_assert_uint_eq(read.entries[0].op_count, 7);
    ck_assert_uint_eq(read.entries[0].size, 298 * 40);
    journal_read_fini(&read);
    s = journal_store_free(s);
}

TEST(a_restarted_journal_keeps_everything_and_begins_a_new_term)
{
    struct journal *j = format_and_start();
    struct link_client c = attach(0);
    propose(&c, 1, 1000);
    wait_committed(&c, 3);
    uint64_t term = c.role.term;
    j = journal_stop(j);
    expect_end(&c);
    j = start();
    c = attach(3); /* applied more than the journal's hint says is committed */
    ck_assert_uint_gt(c.role.term, term);
    ck_assert_uint_eq(c.role.start_index, 4);
    propose(&c, 1, 10);
    wait_committed(&c, 5);
    link_client_close(&c);
    j = journal_stop(j);
}

static void expect_rejected(struct link_client *c, uint64_t from, uint32_t error)
{
    c->rejected_from = 0;
    ck_assert_int_eq(link_client_wait(c, &c->rejected_from, 1, WAIT_MS, NULL, NULL), 0);
    ck_assert_uint_eq(c->rejected_from, from);
    ck_assert_uint_eq(c->rejected_error, error);
}

TEST(proposals_of_another_term_are_refused_with_all_that_follow)
{
    struct journal *j = format_and_start();
    struct link_client c;
    ck_assert_int_eq(link_client_attach(&c, socket_path, test_cluster, 0), 0);
    while (c.role.role != LINK_LEADER || c.committed < c.role.start_index) {
        struct link_frame f;
        ck_assert_int_eq(link_client_receive(&c, WAIT_MS, &f), 0);
        ck_assert_int_eq(link_client_take(&c, &f, NULL, NULL), 0);
        if (f.header.type == MSG_link_role && c.role.role != LINK_LEADER) {
            struct msg_link_role_seen other = {.term = c.role.term};
            ck_assert_int_eq(link_client_send(&c, MSG_link_role_seen, &other, NULL, 0), 0);
        }
    }
    propose(&c, 1, 10); /* the role was not answered */
    propose(&c, 2, 10);
    expect_rejected(&c, 1, ESTALE);
    struct msg_link_role_seen seen = {.term = c.role.term};
    ck_assert_int_eq(link_client_send(&c, MSG_link_role_seen, &seen, NULL, 0), 0);
    propose(&c, 1, 10);
    c.role.term--;
    propose(&c, 2, 10);
    c.role.term++;
    propose(&c, 3, 10);
    expect_rejected(&c, 2, ESTALE);
    wait_committed(&c, 3);
    ck_assert_uint_eq(c.committed, 3);
    link_client_close(&c);
    c = attach(3); /* nothing of it is in the log */
    ck_assert_uint_eq(c.role.start_index, 3);
    link_client_close(&c);
    j = journal_stop(j);
}

TEST(a_master_that_breaks_the_rules_is_disconnected)
{
    struct journal *j = format_and_start();
    uint8_t data[10] = {0};
    for (int rule = 0; rule < 8; rule++) {
        struct link_client c = attach(0);
        struct msg_link_propose m = {
            .term = c.role.term, .sequence = 1, .payload_crc = crc32c(0, data, sizeof(data)), .entry_type = LINK_BATCH};
        struct msg_link_role_seen seen = {.term = c.role.term};
        struct msg_link_applied applied = {.applied = c.committed + 1};
        switch (rule) {
        case 0: m.sequence = 2; break;
        case 1: m.payload_crc++; break;
        case 2: m.entry_type = LINK_CONF; break;
        case 3: m.entry_type = 77; break;
        case 4: link_client_send(&c, MSG_link_role_seen, &seen, NULL, 0); break;
        case 5: link_client_send(&c, MSG_link_applied, &applied, NULL, 0); break;
        case 6:
            applied.applied = 2;
            applied.flushed = 3;
            link_client_send(&c, MSG_link_applied, &applied, NULL, 0);
            break;
        default:
            ck_assert_int_eq(send(c.fd, "what is this? not a frame, for sure, not at all......", 50, 0), 50);
            break;
        }
        if (rule < 4)
            ck_assert_int_eq(link_client_send(&c, MSG_link_propose, &m, data, sizeof(data)), 0);
        expect_end(&c);
    }
    struct link_client c = attach(0);
    ck_assert_uint_eq(c.role.start_index, 2); /* nothing of it reached the log */
    link_client_close(&c);
    j = journal_stop(j);
}

TEST(a_payload_over_the_limit_is_refused_before_it_is_read)
{
    struct journal *j = format_and_start();
    struct link_client c = attach(0);
    propose(&c, 1, LINK_PAYLOAD_MAX);
    wait_committed(&c, 3);
    static uint8_t data[LINK_PAYLOAD_MAX + 1];
    (void)link_client_propose(&c, c.role.term, 2, data, sizeof(data), 1);
    struct link_frame f;
    int r;
    while ((r = link_client_receive(&c, WAIT_MS, &f)) == 0)
        ;
    ck_assert_int_eq(r, -CV_CLOSED);
    link_client_close(&c);
    j = journal_stop(j);
}

TEST(a_second_master_takes_the_place_of_the_first)
{
    struct journal *j = format_and_start();
    struct link_client a = attach(0);
    for (uint64_t i = 1; i <= 50; i++)
        propose(&a, i, 5000);
    struct link_client b = attach(2);
    expect_end(&a);
    ck_assert_uint_ge(b.committed, b.role.start_index);
    propose(&b, 1, 10);
    wait_committed(&b, b.role.start_index + 1);
    link_client_close(&b);
    j = journal_stop(j);
}

static void expect_refused(struct uuid cluster, uint64_t applied, uint32_t error, const char *text)
{
    struct link_client c;
    ck_assert_int_eq(link_client_attach(&c, socket_path, cluster, applied), 0);
    ck_assert_uint_eq(c.welcome.error, error);
    char reason[500];
    snprintf(reason, sizeof(reason), TEXT_FMT, TEXT_ARG(c.welcome.reason));
    ck_assert_msg(strstr(reason, text) != NULL, "no '%s' in: %s", text, reason);
    expect_end(&c);
}

TEST(a_master_of_another_cluster_or_of_another_log_is_refused)
{
    struct journal *j = format_and_start();
    struct link_client c = attach(0);
    expect_refused((struct uuid){{9}}, 0, CV_WRONG_CLUSTER, "cluster 0900");
    expect_refused(test_cluster, 500, CV_LOG_DAMAGED, "the log ends at 2");
    propose(&c, 1, 10); /* the attached one was not disturbed */
    wait_committed(&c, 3);
    link_client_close(&c);
    struct link_client fresh; /* one that knows no cluster yet learns it */
    ck_assert_int_eq(link_client_attach(&fresh, socket_path, (struct uuid){{0}}, 0), 0);
    ck_assert_uint_eq(fresh.welcome.error, 0);
    ck_assert_int_eq(memcmp(fresh.welcome.cluster.p, test_cluster.b, 16), 0);
    link_client_close(&fresh);
    j = journal_stop(j);
}

TEST(a_slow_master_gets_no_more_than_the_window_and_old_entries_come_from_disk)
{
    struct journal *j = format_and_start();
    struct link_client c = attach(0);
    for (uint64_t i = 1; i <= 60; i++) {
        propose(&c, i, 1 << 20); /* 60 MiB through a ring of 16 */
        wait_committed(&c, i + 1);
    }
    wait_committed(&c, 62);
    link_client_close(&c);
    ck_assert_int_eq(link_client_attach(&c, socket_path, test_cluster, 0), 0);
    struct link_frame f;
    int r;
    while ((r = link_client_receive(&c, 1000, &f)) == 0)
        ck_assert_int_eq(link_client_take(&c, &f, note_entry, NULL), 0);
    ck_assert_int_eq(r, -ETIMEDOUT);
    ck_assert_uint_ge(told_bytes, LINK_ENTRIES_WINDOW - (2 << 20));
    ck_assert_uint_le(told_bytes, LINK_ENTRIES_WINDOW + (2 << 20));
    ck_assert_int_eq(link_client_applied(&c, c.committed, 0), 0);
    while (c.committed < 62) {
        ck_assert_int_eq(link_client_receive(&c, WAIT_MS, &f), 0);
        ck_assert_int_eq(link_client_take(&c, &f, note_entry, NULL), 0);
        ck_assert_int_eq(link_client_applied(&c, c.committed, 0), 0);
    }
    ck_assert_uint_eq(told_count, 62);
    for (uint32_t i = 0; i < told_count; i++)
        ck_assert_uint_eq(told[i], i + 1);
    link_client_close(&c);
    j = journal_stop(j);
}

TEST(a_master_behind_the_beginning_of_the_log_is_told_that_it_needs_a_state)
{
    set_options();
    format_single();
    struct journal_store *s = open_log(options.dir);
    append(s, 1, 50, 10);
    ck_assert_int_eq(journal_store_compact(s, 40), 0);
    s = journal_store_free(s);
    struct journal *j = start();
    expect_refused(test_cluster, 38, CV_LOG_DAMAGED, "begins at 40");
    struct link_client c = attach(39);
    link_client_close(&c);
    j = journal_stop(j);
}

TEST(reads_and_administration_are_answered)
{
    struct journal *j = format_and_start();
    struct link_client c = attach(0);
    ck_assert_int_eq(link_client_applied(&c, 2, 0), 0);
    struct msg_link_read read = {.context = 0xabc};
    ck_assert_int_eq(link_client_send(&c, MSG_link_read, &read, NULL, 0), 0);
    struct link_frame f;
    do
        ck_assert_int_eq(link_client_receive(&c, WAIT_MS, &f), 0);
    while (f.header.type != MSG_link_read_index);
    struct msg_link_read_index index;
    ck_assert_int_eq(msg_link_read_index_decode(f.body, f.header.body_len, &index), 0);
    ck_assert_uint_eq(index.context, 0xabc);
    ck_assert_uint_eq(index.error, 0);
    ck_assert_uint_ge(index.index, 2);

    static const struct {
        const char *command, *text;
        uint32_t error;
        uint64_t node;
        const char *address;
    } cases[] = {{"status", "\"role\":\"leader\"", 0, 0, ""},
                 {"transfer", "", CV_UNREACHABLE, 0, ""},
                 {"add", "", EINVAL, 0, ""},
                 {"add", "", EINVAL, 0, "host:1"},
                 {"add", "", EINVAL, 5, ""},
                 {"promote", "no member", ENOENT, 5, ""},
                 {"remove", "no member", ENOENT, 5, ""},
                 {"set-addr", "no member", ENOENT, 5, "host:1"},
                 {"identify", "", EINVAL, 0, ""},
                 {"identify", "refused", ECONNREFUSED, 0, "127.0.0.1:1"},
                 {"dance", "", CV_UNKNOWN_MESSAGE, 0, ""}};
    for (uint32_t i = 0; i < array_size(cases); i++) {
        struct msg_link_admin m = {.context = i,
                                   .command = text_of(cases[i].command),
                                   .node = cases[i].node,
                                   .address = text_of(cases[i].address)};
        ck_assert_int_eq(link_client_send(&c, MSG_link_admin, &m, NULL, 0), 0);
        do
            ck_assert_int_eq(link_client_receive(&c, WAIT_MS, &f), 0);
        while (f.header.type != MSG_link_admin_answer);
        struct msg_link_admin_answer answer;
        ck_assert_int_eq(msg_link_admin_answer_decode(f.body, f.header.body_len, &answer), 0);
        ck_assert_uint_eq(answer.context, i);
        ck_assert_uint_eq(answer.error, cases[i].error);
        ck_assert(memmem(answer.text.p, answer.text.n, cases[i].text, strlen(cases[i].text)) != NULL ||
                  !*cases[i].text);
    }
    char why[200];
    ck_assert_int_eq(journal_ready(j, why, sizeof(why)), 0);
    struct buf status = {0};
    ck_assert_int_eq(journal_status(j, &status), 0);
    ck_assert(memmem(status.p, status.n, "\"members\":[{", 12) != NULL);
    buf_fini(&status);
    link_client_close(&c);
    j = journal_stop(j);
}

static void say_unfit(struct link_client *c, enum link_unfit unfit)
{
    struct msg_link_applied m = {.applied = c->committed, .can_lead = unfit == LINK_FIT, .unfit = (uint8_t)unfit};
    ck_assert_int_eq(link_client_send(c, MSG_link_applied, &m, NULL, 0), 0);
}

static void wait_disk(struct link_client *c, uint8_t flags)
{
    struct link_frame f;
    while (c->disk != flags) {
        ck_assert_int_eq(link_client_receive(c, WAIT_MS, &f), 0);
        ck_assert_int_eq(link_client_take(c, &f, NULL, NULL), 0);
    }
}

TEST(a_master_without_room_refuses_at_once_when_it_is_the_only_one_and_leads_on)
{
    struct journal *j = format_and_start();
    struct link_client c = attach(0);
    ck_assert_uint_eq(c.disk, 0);
    uint64_t began_ms = clock_ms();
    say_unfit(&c, LINK_UNFIT_DISK);
    wait_disk(&c, LINK_DISK_REFUSE);
    ck_assert_uint_lt(clock_ms() - began_ms, 2500);       /* it does not look for another one, for 3 s */
    ck_assert_uint_eq(c.role.lease_until_ns, UINT64_MAX); /* for ever, as before */
    propose(&c, 1, 10);
    wait_committed(&c, 3);
    say_unfit(&c, LINK_FIT);
    wait_disk(&c, 0);
    say_unfit(&c, LINK_UNFIT_DAMAGE); /* that is no reason to refuse */
    propose(&c, 2, 10);
    wait_committed(&c, 4);
    ck_assert_uint_eq(c.disk, 0);
    ck_assert_uint_eq(c.role.lease_until_ns, UINT64_MAX);
    link_client_close(&c);
    j = journal_stop(j);
}

TEST(health_has_a_connection_of_its_own)
{
    struct journal *j = format_and_start();
    struct link_client c = attach(0), health;
    ck_assert_int_eq(link_client_connect(&health, socket_path), 0);
    struct msg_link_health beat = {.beat = 1, .master = 1 + (uint64_t)getpid()};
    ck_assert_int_eq(link_client_send(&health, MSG_link_health, &beat, NULL, 0), 0);
    ck_assert_int_eq(link_client_send(&health, MSG_link_health, &beat, NULL, 0), 0);
    propose(&c, 1, 10);
    wait_committed(&c, 3);
    struct msg_link_applied m = {.applied = 3};
    ck_assert_int_eq(link_client_send(&health, MSG_link_applied, &m, NULL, 0), 0);
    expect_end(&health);
    ck_assert_int_eq(link_client_connect(&health, socket_path), 0);
    ck_assert_int_eq(link_client_send(&health, MSG_link_applied, &m, NULL, 0), 0); /* says not what it is */
    expect_end(&health);
    link_client_close(&c);
    j = journal_stop(j);
}

TEST(a_damaged_log_is_in_quarantine)
{
    set_options();
    format_single();
    struct journal_store *s = open_log(options.dir);
    append(s, 1, 60, 1000);
    append(s, 1, 60, 1000);
    s = journal_store_free(s);
    char wal[400];
    uint64_t size = newest_file(options.dir, ".log", wal, sizeof(wal));
    flip_byte(wal, size / 4);
    struct journal *j = start();
    expect_refused(test_cluster, 0, CV_LOG_DAMAGED, "cv-journal check");
    char why[500];
    ck_assert_int_eq(journal_ready(j, why, sizeof(why)), -CV_LOG_DAMAGED);
    struct buf status = {0};
    ck_assert_int_eq(journal_status(j, &status), 0);
    ck_assert(memmem(status.p, status.n, "quarantine", 10) != NULL);
    buf_fini(&status);
    j = journal_stop(j);
}

TEST(a_busy_socket_or_directory_fails_the_start)
{
    struct journal *j = format_and_start(), *other = NULL;
    struct journal_config config = {.options = &options, .run_dir = "/nonexistent"};
    ck_assert_int_eq(journal_start(&config, &other), -CV_LOCKED);
    struct journal_options more = options;
    more.dir = (char *)(uintptr_t)test_dir("k");
    config.options = &more;
    ck_assert_int_eq(journal_start(&config, &other), -CV_NOT_FORMATTED);
    struct journal_format format = {.cluster = test_cluster};
    ck_assert_int_eq(journal_store_format(more.dir, &format, NULL), 0);
    ck_assert_int_eq(journal_start(&config, &other), -EADDRINUSE);
    struct link_client c = attach(0);
    link_client_close(&c);
    j = journal_stop(j);
    ck_assert_int_eq(access(socket_path, F_OK), -1);
}
