/* SPDX-License-Identifier: Apache-2.0 */
/* Workers, mounts and what comes from under file systems, at a whole master (not for the thread sanitizer). */
#include "tests/unit/master_test.h"

/* ---- a worker's side -------------------------------------------------------------------------------------------------- */

static int register_worker(struct caller *c, uint64_t id)
{
    struct buf dirs = {0};
    struct rec_worker_dir d = {.id = 1, .path = TEXT("/d"), .capacity = 10ull << 30};
    ck_assert_int_eq(rec_worker_dir_append(&dirs, &d), 0);
    struct msg_worker_register m = {.worker = id,
                                    .address = TEXT("127.0.0.1:8997"),
                                    .host = TEXT("h"),
                                    .version = TEXT("0.1"),
                                    .dirs = wire_list_of(&dirs, 1)};
    int r = finish(ask(c, MSG_worker_register, &m));
    buf_fini(&dirs);
    return r;
}

/* Free the answer with asked_free(). */
static struct asked *heartbeat(struct caller *c, uint64_t id, uint64_t dropped, struct msg_worker_heartbeat_answer *ret)
{
    struct msg_worker_heartbeat m = {.worker = id, .dropped = dropped};
    struct asked *a = ask(c, MSG_worker_heartbeat, &m);
    ck_assert_int_eq(asked_wait(a), 0);
    ck_assert_int_eq(msg_worker_heartbeat_answer_decode(a->body, a->n, ret), 0);
    return a;
}

static uint64_t renewed_map_version(struct caller *c)
{
    struct msg_session_renew m = {.session = c->session};
    struct msg_session_renew_answer answer;
    struct asked *a = ask(c, MSG_session_renew, &m);
    ck_assert_int_eq(asked_wait(a), 0);
    ck_assert_int_eq(msg_session_renew_answer_decode(a->body, a->n, &answer), 0);
    asked_free(a);
    return answer.map_version;
}

TEST(master_knows_its_workers_and_tells_clients)
{
    struct cluster k;
    cluster_init(&k);
    cluster_start(&k);
    struct caller *worker = caller_new_as(k.socket, RPC_WORKER);
    ck_assert_int_eq(register_worker(k.c, 77), -EPERM); /* a client is no worker */
    uint64_t before = renewed_map_version(k.c);
    ck_assert_int_eq(register_worker(worker, 77), 0);
    ck_assert_uint_gt(renewed_map_version(k.c), before);

    struct msg_workers m = {0};
    struct msg_workers_answer map;
    struct asked *a = ask(k.c, MSG_workers, &m);
    ck_assert_int_eq(asked_wait(a), 0);
    ck_assert_int_eq(msg_workers_answer_decode(a->body, a->n, &map), 0);
    ck_assert_uint_eq(map.map_version, renewed_map_version(k.c));
    ck_assert_uint_eq(map.workers.count, 1);
    rec_for_each (worker, w, &map.workers) {
        ck_assert(w.worker == 77 && w.in && w.up && text_equal(w.address, TEXT("127.0.0.1:8997")));
    }
    asked_free(a);

    struct msg_cluster_status sm = {0};
    struct msg_cluster_status_answer s;
    a = ask(k.c, MSG_cluster_status, &sm);
    ck_assert_int_eq(asked_wait(a), 0);
    ck_assert_int_eq(msg_cluster_status_answer_decode(a->body, a->n, &s), 0);
    const char *roles[] = {"master", "journal", "worker"};
    unsigned i = 0;
    ck_assert_uint_eq(s.nodes.count, 3);
    rec_for_each (node_info, node, &s.nodes)
        ck_assert(text_equal(node.role, text_of(roles[i++])));
    asked_free(a);

    struct msg_statfs fm = {.head = {.session = k.c->session}, .inode = META_ROOT};
    struct msg_statfs_answer f;
    a = ask(k.c, MSG_statfs, &fm);
    ck_assert_int_eq(asked_wait(a), 0);
    ck_assert_int_eq(msg_statfs_answer_decode(a->body, a->n, &f), 0);
    ck_assert_uint_eq(f.total_bytes, 10ull << 30);
    asked_free(a);
    caller_free(worker);
    cluster_fini(&k);
}

TEST(master_that_leads_anew_asks_workers_to_register_again)
{
    struct cluster k;
    cluster_init(&k);
    cluster_start(&k);
    struct caller *worker = caller_new_as(k.socket, RPC_WORKER);
    struct msg_worker_heartbeat_answer b;
    ck_assert_int_eq(register_worker(worker, 77), 0);
    uint64_t before = renewed_map_version(k.c);
    asked_free(heartbeat(worker, 77, 0, &b));
    ck_assert_uint_eq(b.register_again, 0);
    fake_journal_follow(k.journal);
    until(register_worker(worker, 77) == -CV_NOT_LEADER);
    fake_journal_lead(k.journal);
    until(lookup(k.c, "x") == -ENOENT);
    asked_free(heartbeat(worker, 77, 0, &b));
    ck_assert_uint_eq(b.register_again, 1);
    ck_assert_uint_gt(b.map_version, before);
    ck_assert_int_eq(register_worker(worker, 77), 0);
    asked_free(heartbeat(worker, 77, 0, &b));
    ck_assert_uint_eq(b.register_again, 0);
    caller_free(worker);
    cluster_fini(&k);
}

TEST(master_says_which_sessions_have_ended)
{
    struct cluster k;
    cluster_init(&k);
    cluster_start(&k);
    struct caller *worker = caller_new_as(k.socket, RPC_WORKER), *other = caller_new(k.socket);
    open_session(other);
    uint64_t sessions[3] = {k.c->session, other->session, 0x123456789};
    struct msg_session_close close = {.session = other->session};
    ck_assert_int_eq(finish(ask(other, MSG_session_close, &close)), 0);
    struct msg_sessions_check m = {.sessions = {(const char *)sessions, sizeof(sessions)}};
    struct msg_sessions_check_answer answer;
    struct asked *a = ask(worker, MSG_sessions_check, &m);
    ck_assert_int_eq(asked_wait(a), 0);
    ck_assert_int_eq(msg_sessions_check_answer_decode(a->body, a->n, &answer), 0);
    ck_assert_uint_eq(answer.ended.n, 16);
    ck_assert(!memcmp(answer.ended.p, &sessions[1], 16));
    asked_free(a);
    m.sessions.n = 7;
    ck_assert_int_eq(finish(ask(worker, MSG_sessions_check, &m)), -CV_BAD_MESSAGE);
    caller_free(other);
    caller_free(worker);
    cluster_fini(&k);
}
