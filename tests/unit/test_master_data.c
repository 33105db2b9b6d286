/* SPDX-License-Identifier: Apache-2.0 */
/* Workers, mounts and what comes from under file systems, at a whole master (not for the thread sanitizer). */
#include <fcntl.h>
#include <sys/stat.h>

#include "base/bytes.h"
#include "meta/master_mounts.h"
#include "tests/unit/master_test.h"
#include "wire/meta_flags.h"

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

static struct rec_worker map_row(struct caller *c, uint64_t id)
{
    struct msg_workers m = {0};
    struct msg_workers_answer map;
    struct rec_worker found = {0};
    struct asked *a = ask(c, MSG_workers, &m);
    if (asked_wait(a) == 0) {
        ck_assert_int_eq(msg_workers_answer_decode(a->body, a->n, &map), 0);
        rec_for_each (worker, w, &map.workers)
            found = w.worker == id ? w : found;
    }
    found.address = found.socket = found.host = found.boot = (struct text){0};
    asked_free(a);
    return found;
}

/* The journal has what a master proposes of its own when it begins to lead: the next entry is of what is asked. */
static void settle(struct cluster *k)
{
    until(create(k->c, "settled") == 0);
    ck_assert_int_eq(unlink_name(k->c, "settled"), 0);
}

static void register_and_store(struct cluster *k, struct caller *worker)
{
    settle(k);
    uint64_t last = k->journal->last;
    ck_assert_int_eq(register_worker(worker, 77), 0);
    until(k->journal->last > last); /* its row */
}

TEST(master_that_leads_anew_asks_workers_to_register_again)
{
    struct cluster k;
    cluster_init(&k);
    cluster_start(&k);
    struct caller *worker = caller_new_as(k.socket, RPC_WORKER);
    struct msg_worker_heartbeat_answer b;
    register_and_store(&k, worker);
    uint64_t before = renewed_map_version(k.c);
    asked_free(heartbeat(worker, 77, 0, &b));
    ck_assert_uint_eq(b.register_again, 0);
    fake_journal_follow(k.journal);
    until(register_worker(worker, 77) == -CV_NOT_LEADER);
    fake_journal_lead(k.journal);
    until(lookup(k.c, "x") == -ENOENT);
    ck_assert(map_row(k.c, 77).up && map_row(k.c, 77).in); /* from its row */
    asked_free(heartbeat(worker, 77, 0, &b));
    ck_assert_uint_eq(b.register_again, 1);
    ck_assert_uint_gt(b.map_version, before);
    ck_assert_int_eq(register_worker(worker, 77), 0);
    asked_free(heartbeat(worker, 77, 0, &b));
    ck_assert_uint_eq(b.register_again, 0);
    caller_free(worker);
    cluster_fini(&k);
}

TEST(master_remembers_workers_over_a_restart_and_lets_silent_ones_go)
{
    struct cluster k;
    cluster_init(&k);
    k.options.worker_down_ms = k.options.worker_out_ms = 600000;
    cluster_start(&k);
    struct caller *worker = caller_new_as(k.socket, RPC_WORKER);
    register_and_store(&k, worker);
    caller_free(worker);
    k.master = master_free(k.master);
    cluster_start_master(&k);
    until(lookup(k.c, "x") == -ENOENT);
    struct rec_worker row = map_row(k.c, 77);
    ck_assert(row.in && row.up && row.weight == 10);
    uint64_t last = k.journal->last;
    k.options.worker_down_ms = 1;
    until(!map_row(k.c, 77).up);
    ck_assert(map_row(k.c, 77).in);
    k.options.worker_out_ms = 1;
    until(!map_row(k.c, 77).in);
    until(k.journal->last > last); /* which is stored, too */
    /* Whether that entry was the row or something else: soon it is, and then the next one knows it. */
    const uint64_t deadline = clock_ns() + 60 * NS_PER_S;
    while (row.in) {
        ck_assert_uint_lt(clock_ns(), deadline);
        k.options.worker_out_ms = 600000;
        k.master = master_free(k.master);
        cluster_start_master(&k);
        until(lookup(k.c, "x") == -ENOENT);
        row = map_row(k.c, 77);
        ck_assert_uint_eq(row.worker, 77);
        k.options.worker_out_ms = 1;
        until(!map_row(k.c, 77).in);
        usleep(100000);
    }
    cluster_fini(&k);
}

TEST(master_stores_a_worker_again_when_its_batch_was_refused)
{
    struct cluster k;
    cluster_init(&k);
    cluster_start(&k);
    struct caller *worker = caller_new_as(k.socket, RPC_WORKER);
    settle(&k);
    uint64_t before = k.journal->ops;
    fake_journal_refuse(k.journal, CV_BUSY);
    ck_assert_int_eq(register_worker(worker, 77), 0);
    until(k.journal->ops > before);
    caller_free(worker);
    k.master = master_free(k.master);
    cluster_start_master(&k);
    until(lookup(k.c, "x") == -ENOENT);
    ck_assert(map_row(k.c, 77).in);
    cluster_fini(&k);
}

/* ---- writing ---------------------------------------------------------------------------------------------------------- */

static int grant(struct caller *c, uint64_t inode, uint64_t handle, uint64_t *replica)
{
    struct msg_write_grant m = {.head = head_of(c, 1), .inode = inode, .handle = handle, .count = 2, .near = 77};
    struct msg_write_grant_answer answer;
    struct asked *a = ask(c, MSG_write_grant, &m);
    int r = asked_wait(a);
    if (r == 0) {
        ck_assert_int_eq(msg_write_grant_answer_decode(a->body, a->n, &answer), 0);
        ck_assert_uint_eq(answer.layout.extents.count, 2);
        rec_for_each (extent, e, &answer.layout.extents) {
            ck_assert_uint_eq(e.replicas.n, 8);
            *replica = get_le64((const uint8_t *)e.replicas.p);
        }
    }
    asked_free(a);
    return r;
}

/* As libcurvine does: the same session, slot and sequence until somebody takes data. */
TEST(master_grants_what_is_asked_again_under_the_same_number_once_a_worker_is_there)
{
    struct cluster k;
    cluster_init(&k);
    k.options.worker_down_ms = 60000;
    cluster_start(&k);
    struct caller *worker = caller_new_as(k.socket, RPC_WORKER);
    struct asked *a = ask_create(k.c, "f", 0);
    struct msg_create_answer created;
    ck_assert_int_eq(asked_wait(a), 0);
    ck_assert_int_eq(msg_create_answer_decode(a->body, a->n, &created), 0);
    struct msg_write_grant m = {
        .head = head_of(k.c, 1), .inode = created.attr.inode, .handle = created.handle, .count = 1};
    for (int i = 0; i < 3; i++)
        ck_assert_int_eq(finish(ask(k.c, MSG_write_grant, &m)), -CV_NO_WORKER);
    ck_assert_int_eq(register_worker(worker, 77), 0);
    ck_assert_int_eq(finish(ask(k.c, MSG_write_grant, &m)), 0);
    ck_assert_int_eq(finish(ask(k.c, MSG_write_grant, &m)), 0); /* this one is remembered */
    asked_free(a);
    caller_free(worker);
    cluster_fini(&k);
}

TEST(master_places_new_blocks_and_tells_what_to_drop)
{
    struct cluster k;
    cluster_init(&k);
    k.options.worker_down_ms = 60000;
    cluster_start(&k);
    struct caller *worker = caller_new_as(k.socket, RPC_WORKER);
    struct asked *a = ask_create(k.c, "f", 0);
    struct msg_create_answer created;
    uint64_t replica = 0;
    ck_assert_int_eq(asked_wait(a), 0);
    ck_assert_int_eq(msg_create_answer_decode(a->body, a->n, &created), 0);
    ck_assert_int_eq(grant(k.c, created.attr.inode, created.handle, &replica), -CV_NO_WORKER);
    ck_assert_int_eq(register_worker(worker, 76), 0);
    ck_assert_int_eq(register_worker(worker, 77), 0);
    ck_assert_int_eq(grant(k.c, created.attr.inode, created.handle, &replica), 0);
    ck_assert_uint_eq(replica, 77);
    struct msg_close close = {.head = head_of(k.c, 0), .inode = created.attr.inode, .handle = created.handle};
    ck_assert_int_eq(finish(ask(k.c, MSG_close, &close)), 0);
    ck_assert_int_eq(unlink_name(k.c, "f"), 0);
    struct msg_worker_heartbeat_answer b = {0};
    uint64_t sequence = 0;
    for (uint64_t until_ns = clock_ns() + 20 * NS_PER_S; !sequence && clock_ns() < until_ns; usleep(1000)) {
        struct asked *h = heartbeat(worker, 77, 0, &b);
        rec_for_each (worker_drop, d, &b.drops) {
            ck_assert(d.inode == created.attr.inode && d.size == 0);
            sequence = d.sequence;
        }
        asked_free(h);
    }
    ck_assert_uint_ne(sequence, 0);
    asked_free(heartbeat(worker, 77, sequence, &b));
    ck_assert_uint_eq(b.drops.count, 0);
    asked_free(a);
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
    struct asked *a = NULL;
    /* Answered is committed, and a moment later this reads it. */
    for (uint64_t until_ns = clock_ns() + 20 * NS_PER_S; !a || (answer.ended.n < 16 && clock_ns() < until_ns);
         usleep(1000)) {
        if (a)
            asked_free(a);
        a = ask(worker, MSG_sessions_check, &m);
        ck_assert_int_eq(asked_wait(a), 0);
        ck_assert_int_eq(msg_sessions_check_answer_decode(a->body, a->n, &answer), 0);
    }
    ck_assert_uint_eq(answer.ended.n, 16);
    ck_assert(!memcmp(answer.ended.p, &sessions[1], 16));
    asked_free(a);
    m.sessions.n = 7;
    ck_assert_int_eq(finish(ask(worker, MSG_sessions_check, &m)), -CV_BAD_MESSAGE);
    caller_free(other);
    caller_free(worker);
    cluster_fini(&k);
}

/* ---- mounts ------------------------------------------------------------------------------------------------------------- */

struct mounted {
    int result; /* of the call */
    uint32_t mount, error;
    uint64_t inode;
    char reason[400];
};

static struct mounted mount_on(struct caller *c, const char *name, const char *uri, uint32_t flags)
{
    struct buf params = {0};
    struct mounted ret = {0};
    struct msg_mount_add_answer answer;
    if (!strncmp(uri, "s3:", 3)) {
        const struct rec_mount_param secret = {.name = TEXT("secret_key"), .value = TEXT("xyzzy")};
        const struct rec_mount_param open = {.name = TEXT("endpoint"), .value = TEXT("http://127.0.0.1:1")};
        ck_assert_int_eq(rec_mount_param_append(&params, &secret), 0);
        ck_assert_int_eq(rec_mount_param_append(&params, &open), 0);
    }
    struct msg_mount_add m = {
        .head = head_of(c, 2),
        .parent = META_ROOT,
        .name = text_of(name),
        .path = text_of(name),
        .uri = text_of(uri),
        .mode = uri[0] ? MOUNT_CACHE : MOUNT_SCRATCH,
        .flags = flags,
        .params = wire_list_of(&params, params.n ? 2 : 0),
    };
    struct asked *a = ask(c, MSG_mount_add, &m);
    ret.result = asked_wait(a);
    if (ret.result == 0) {
        ck_assert_int_eq(msg_mount_add_answer_decode(a->body, a->n, &answer), 0);
        ret.mount = answer.mount;
        ret.error = answer.error;
        ret.inode = answer.attr.inode;
        snprintf(ret.reason, sizeof(ret.reason), TEXT_FMT, TEXT_ARG(answer.reason));
    }
    asked_free(a);
    buf_fini(&params);
    return ret;
}

static char *file_uri(char *uri, size_t size)
{
    snprintf(uri, size, "file://%s", unit_tempdir());
    return uri;
}

static uint32_t mount_count(struct caller *c)
{
    struct msg_mount_list m = {.head = {.session = c->session}};
    struct msg_mount_list_answer answer;
    struct asked *a = ask(c, MSG_mount_list, &m);
    ck_assert_int_eq(asked_wait(a), 0);
    ck_assert_int_eq(msg_mount_list_answer_decode(a->body, a->n, &answer), 0);
    asked_free(a);
    return answer.mounts.count;
}

static int mount_remove(struct caller *c, uint32_t mount)
{
    struct msg_mount_remove m = {.head = head_of(c, 2), .mount = mount};
    return finish(ask(c, MSG_mount_remove, &m));
}

TEST(master_mounts_what_answers_and_says_why_not)
{
    struct cluster k;
    char uri[200];
    cluster_init(&k);
    cluster_start(&k);
    snprintf(uri, sizeof(uri), "file://%s/nowhere/at/all", unit_tempdir());
    struct mounted m = mount_on(k.c, "m", uri, 0);
    ck_assert(m.result == 0 && m.error == ENOENT && m.mount == 0);
    ck_assert_ptr_nonnull(strstr(m.reason, "/nowhere/at/all"));
    m = mount_on(k.c, "m", "gopher://x", 0);
    ck_assert(m.error == EPROTONOSUPPORT && strstr(m.reason, "gopher"));
    m = mount_on(k.c, "m", file_uri(uri, sizeof(uri)), MOUNT_CHECK);
    ck_assert(m.result == 0 && m.error == 0 && m.mount == 0);
    ck_assert_int_eq(lookup(k.c, "m"), -ENOENT); /* only asked */
    m = mount_on(k.c, "m", uri, 0);
    ck_assert(m.result == 0 && m.error == 0 && m.mount != 0 && m.inode != 0);
    ck_assert_int_eq(lookup(k.c, "m"), 0);
    ck_assert_int_eq(mount_on(k.c, "m", uri, 0).result, -EBUSY);
    ck_assert_uint_ne(mount_on(k.c, "scratch", "", 0).mount, 0);
    uint64_t session = k.c->session; /* a command of an administrator has none */
    k.c->session = k.c->sequence[2] = 0;
    struct mounted again = mount_on(k.c, "again", "", 0);
    ck_assert_uint_ne(again.mount, 0);
    ck_assert_int_eq(mount_on(k.c, "again", "", 0).result, -EBUSY);
    ck_assert_int_eq(mount_remove(k.c, again.mount), 0);
    k.c->session = session;
    k.c->sequence[2] = 1000;
    ck_assert_uint_eq(mount_count(k.c), 2);
    ck_assert_int_eq(mount_remove(k.c, m.mount), 0);
    ck_assert_int_eq(mount_remove(k.c, m.mount), -ENOENT);
    ck_assert_uint_eq(mount_count(k.c), 1);
    cluster_fini(&k);
}

TEST(master_tells_workers_where_data_comes_from_and_clients_no_secrets)
{
    struct cluster k;
    char uri[200];
    cluster_init(&k);
    cluster_start(&k);
    struct caller *worker = caller_new_as(k.socket, RPC_WORKER);
    struct msg_worker_heartbeat_answer b;
    ck_assert_int_eq(register_worker(worker, 77), 0);
    asked_free(heartbeat(worker, 77, 0, &b));
    uint64_t version = b.mounts_version;
    ck_assert_uint_ne(mount_on(k.c, "m", file_uri(uri, sizeof(uri)), 0).mount, 0);
    uint64_t told = version;
    until((asked_free(heartbeat(worker, 77, 0, &b)), told = b.mounts_version, told > version));

    struct msg_worker_mounts m = {0};
    struct msg_worker_mounts_answer answer;
    ck_assert_int_eq(finish(ask(k.c, MSG_worker_mounts, &m)), -EPERM);
    struct asked *a = ask(worker, MSG_worker_mounts, &m);
    ck_assert_int_eq(asked_wait(a), 0);
    ck_assert_int_eq(msg_worker_mounts_answer_decode(a->body, a->n, &answer), 0);
    ck_assert_uint_eq(answer.mounts_version, b.mounts_version);
    ck_assert_uint_eq(answer.mounts.count, 1);
    rec_for_each (mount, e, &answer.mounts)
        ck_assert(text_equal(e.uri, text_of(uri)));
    asked_free(a);

    ck_assert(master_mounts_is_secret(TEXT("secret_key")) && master_mounts_is_secret(TEXT("whatever")));
    ck_assert(!master_mounts_is_secret(TEXT("endpoint")));
    struct master_ufs *ufs;
    struct buf params = {0}, list = {0}, masked = {0};
    const struct rec_mount_param p[2] = {{TEXT("secret_key"), TEXT("xyzzy")}, {TEXT("endpoint"), TEXT("http://e")}};
    rec_mount_param_append(&params, &p[0]);
    rec_mount_param_append(&params, &p[1]);
    const struct rec_mount row = {.mount = 1, .uri = TEXT("s3://b"), .params = wire_list_of(&params, 2)};
    ck_assert_int_eq(rec_mount_append(&list, &row), 0);
    const struct wire_list all = wire_list_of(&list, 1);
    struct wire_list out;
    ck_assert_int_eq(master_ufs_new(LOOP_AUTO, &ufs), 0);
    ck_assert_int_eq(master_mounts_mask(ufs, &all, &masked, &out), 0);
    ck_assert_ptr_null(memmem(masked.p, masked.n, "xyzzy", 5));
    ck_assert_ptr_nonnull(memmem(masked.p, masked.n, "***", 3));
    ck_assert_ptr_nonnull(memmem(masked.p, masked.n, "http://e", 8));
    master_ufs_free(ufs);
    buf_fini(&params);
    buf_fini(&list);
    buf_fini(&masked);
    caller_free(worker);
    cluster_fini(&k);
}

TEST(master_stops_while_an_under_file_system_does_not_answer)
{
    struct cluster k;
    cluster_init(&k);
    cluster_start(&k);
    struct msg_mount_add m = {.head = head_of(k.c, 2), .parent = META_ROOT, .name = TEXT("m"), .mode = MOUNT_CACHE};
    m.uri = TEXT("s3://bucket");
    struct buf params = {0};
    const struct rec_mount_param p = {TEXT("endpoint"), TEXT("http://192.0.2.1:9")}; /* nobody's (RFC 5737) */
    ck_assert_int_eq(rec_mount_param_append(&params, &p), 0);
    m.params = wire_list_of(&params, 1);
    struct asked *a = ask(k.c, MSG_mount_add, &m);
    usleep(50000);
    uint64_t began = clock_ns();
    master_stop(k.master);
    ck_assert_uint_lt(clock_ns() - began, 10 * NS_PER_S);
    finish(a);
    buf_fini(&params);
    cluster_fini(&k);
}

/* ---- names of an under file system --------------------------------------------------------------------------------------- */

struct ufs_dir {
    char dir[150], uri[170];
};

static void make_path(const struct ufs_dir *u, const char *path, const char *content)
{
    char full[500];
    snprintf(full, sizeof(full), "%s/%s", u->dir, path);
    if (!content) {
        ck_assert_int_eq(mkdir(full, 0750), 0);
        return;
    }
    int fd = open(full, O_CREAT | O_WRONLY | O_EXCL, 0640);
    ck_assert_int_ge(fd, 0);
    ck_assert_int_eq(write(fd, content, strlen(content)), (ssize_t)strlen(content));
    close(fd);
}

static struct mounted mount_dir(struct caller *c, struct ufs_dir *u, uint32_t flags)
{
    snprintf(u->dir, sizeof(u->dir), "%s/ufs", unit_tempdir());
    ck_assert_int_eq(mkdir(u->dir, 0755), 0);
    snprintf(u->uri, sizeof(u->uri), "file://%s", u->dir);
    struct mounted m = mount_on(c, "m", u->uri, flags);
    ck_assert(m.result == 0 && m.mount != 0);
    return m;
}

static int lookup_in(struct caller *c, uint64_t parent, const char *name, struct rec_attr *ret)
{
    struct msg_lookup m = {.head = {.session = c->session}, .parent = parent, .name = text_of(name)};
    struct msg_lookup_answer answer;
    struct asked *a = ask(c, MSG_lookup, &m);
    int r = asked_wait(a);
    if (r == 0) {
        ck_assert_int_eq(msg_lookup_answer_decode(a->body, a->n, &answer), 0);
        *ret = answer.attr;
    }
    asked_free(a);
    return r;
}

/* The names of a directory, in pages of the size the test's answers hold. Negative: an error. */
static int readdir_count(struct caller *c, uint64_t inode)
{
    char after[256] = "";
    int n = 0;
    for (bool end = false; !end;) {
        struct msg_readdir m = {.head = {.session = c->session}, .inode = inode, .after = text_of(after)};
        struct msg_readdir_answer answer;
        m.max_bytes = 60000;
        struct asked *a = ask(c, MSG_readdir, &m);
        int r = asked_wait(a);
        if (r < 0) {
            asked_free(a);
            return r;
        }
        ck_assert_int_eq(msg_readdir_answer_decode(a->body, a->n, &answer), 0);
        end = answer.end;
        rec_for_each (dir_entry, e, &answer.entries) {
            snprintf(after, sizeof(after), TEXT_FMT, TEXT_ARG(e.name));
            n++;
        }
        asked_free(a);
    }
    return n;
}

static int walk_to(struct caller *c, const char *path, struct rec_attr *ret)
{
    struct msg_walk m = {.head = {.session = c->session}, .start = META_ROOT, .path = text_of(path)};
    struct msg_walk_answer answer;
    struct asked *a = ask(c, MSG_walk, &m);
    int r = asked_wait(a);
    if (r == 0) {
        ck_assert_int_eq(msg_walk_answer_decode(a->body, a->n, &answer), 0);
        *ret = answer.attr;
    }
    asked_free(a);
    return r;
}

static struct rec_mount only_mount(struct caller *c, char *failed, size_t size)
{
    struct msg_mount_list m = {.head = {.session = c->session}};
    struct msg_mount_list_answer answer;
    struct rec_mount ret = {0};
    struct asked *a = ask(c, MSG_mount_list, &m);
    ck_assert_int_eq(asked_wait(a), 0);
    ck_assert_int_eq(msg_mount_list_answer_decode(a->body, a->n, &answer), 0);
    rec_for_each (mount, e, &answer.mounts)
        ret = e;
    snprintf(failed, size, TEXT_FMT, TEXT_ARG(ret.failed));
    asked_free(a);
    return ret;
}

TEST(master_finds_names_of_an_under_file_system)
{
    struct cluster k;
    struct ufs_dir u;
    struct rec_attr attr;
    cluster_init(&k);
    cluster_start(&k);
    struct mounted m = mount_dir(k.c, &u, 0);
    make_path(&u, "a", "hello");
    make_path(&u, "d", NULL);
    make_path(&u, "d/e", NULL);
    make_path(&u, "d/e/f", "content");
    make_path(&u, "d/e/g", "");
    make_path(&u, "%~x", "");
    ck_assert_int_eq(lookup_in(k.c, m.inode, "a", &attr), 0);
    ck_assert(S_ISREG(attr.mode) && attr.size == 5 && (attr.mode & 0777) == 0640);
    ck_assert_int_eq(lookup_in(k.c, m.inode, "no", &attr), -ENOENT);
    make_path(&u, "no", ""); /* one name was asked for, not all of them */
    ck_assert_int_eq(lookup_in(k.c, m.inode, "no", &attr), 0);
    ck_assert_int_eq(lookup_in(k.c, m.inode, "%~x", &attr), -ENOENT); /* it has another name here */
    ck_assert_int_eq(lookup_in(k.c, m.inode, "%~%%~x", &attr), 0);
    ck_assert_int_eq(walk_to(k.c, "m/d/e/f", &attr), 0);
    ck_assert(S_ISREG(attr.mode) && attr.size == 7);
    ck_assert_int_eq(walk_to(k.c, "m/d/no/f", &attr), -ENOENT);
    ck_assert_int_eq(readdir_count(k.c, m.inode), 4);
    ck_assert_int_eq(walk_to(k.c, "m/d/e", &attr), 0);
    ck_assert(S_ISDIR(attr.mode) && (attr.mode & 0777) == 0750);
    ck_assert_int_eq(readdir_count(k.c, attr.inode), 2);
    ck_assert_int_eq(readdir_count(k.c, m.inode), 4);
    make_path(&u, "later", "");
    ck_assert_int_eq(lookup_in(k.c, m.inode, "later", &attr), -ENOENT); /* listed: we know better, until it is old */

    struct caller *worker = caller_new_as(k.socket, RPC_WORKER);
    ck_assert_int_eq(walk_to(k.c, "m/d/e/f", &attr), 0);
    struct msg_origin om = {.inode = attr.inode};
    struct msg_origin_answer origin;
    ck_assert_int_eq(finish(ask(k.c, MSG_origin, &om)), -EPERM);
    struct asked *a = ask(worker, MSG_origin, &om);
    ck_assert_int_eq(asked_wait(a), 0);
    ck_assert_int_eq(msg_origin_answer_decode(a->body, a->n, &origin), 0);
    ck_assert(origin.mount == m.mount && text_equal(origin.key, TEXT("d/e/f")) && origin.size == 7);
    ck_assert(origin.base_bytes == 7 && origin.version != 0 && origin.etag.n > 0);
    asked_free(a);
    ck_assert_int_eq(walk_to(k.c, "m/%~%%~x", &attr), 0);
    om.inode = attr.inode;
    a = ask(worker, MSG_origin, &om);
    ck_assert_int_eq(asked_wait(a), 0);
    ck_assert_int_eq(msg_origin_answer_decode(a->body, a->n, &origin), 0);
    ck_assert(text_equal(origin.key, TEXT("%~x")));
    asked_free(a);
    caller_free(worker);
    cluster_fini(&k);
}

TEST(master_looks_anew_when_an_object_is_another_one)
{
    struct cluster k;
    struct ufs_dir u;
    struct rec_attr attr, now;
    cluster_init(&k);
    cluster_start(&k);
    struct mounted m = mount_dir(k.c, &u, 0);
    struct caller *worker = caller_new_as(k.socket, RPC_WORKER);
    make_path(&u, "d", NULL);
    make_path(&u, "d/%~f", "old");
    ck_assert_int_eq(walk_to(k.c, "m/d/%~%%~f", &attr), 0);
    struct msg_origin om = {.inode = attr.inode};
    struct msg_origin_answer origin;
    struct asked *a = ask(worker, MSG_origin, &om);
    ck_assert_int_eq(asked_wait(a), 0);
    ck_assert_int_eq(msg_origin_answer_decode(a->body, a->n, &origin), 0);
    asked_free(a);
    char path[300];
    snprintf(path, sizeof(path), "%s/d/%%~f", u.dir);
    ck_assert_int_eq(unlink(path), 0);
    make_path(&u, "d/%~f", "newer");
    ck_assert_int_eq(walk_to(k.c, "m/d/%~%%~f", &now), 0);
    ck_assert_uint_eq(now.inode, attr.inode); /* nobody has looked */
    struct msg_origin_changed cm = {.inode = attr.inode, .version = origin.version + 1};
    ck_assert_int_eq(finish(ask(k.c, MSG_origin_changed, &cm)), -EPERM);
    ck_assert_int_eq(finish(ask(worker, MSG_origin_changed, &cm)), 0); /* of another version: we know better */
    ck_assert_int_eq(walk_to(k.c, "m/d/%~%%~f", &now), 0);
    ck_assert_uint_eq(now.inode, attr.inode);
    cm.version = origin.version;
    ck_assert_int_eq(finish(ask(worker, MSG_origin_changed, &cm)), 0);
    ck_assert_int_eq(walk_to(k.c, "m/d/%~%%~f", &now), 0);
    ck_assert(now.inode != attr.inode && now.size == 5);
    ck_assert_int_lt(finish(ask(worker, MSG_origin_changed, &cm)), 0); /* the old one is gone */
    ck_assert_int_eq(mount_remove(k.c, m.mount), 0);
    caller_free(worker);
    cluster_fini(&k);
}

TEST(master_makes_new_names_beside_those_it_does_not_know)
{
    struct cluster k;
    struct ufs_dir u;
    struct rec_attr attr;
    cluster_init(&k);
    cluster_start(&k);
    struct mounted m = mount_dir(k.c, &u, MOUNT_WRITABLE);
    make_path(&u, "there", "x");
    struct msg_create c = {
        .head = head_of(k.c, 0), .parent = m.inode, .name = TEXT("new"), .mode = 0644, .flags = O_RDWR | O_EXCL};
    ck_assert_int_eq(finish(ask(k.c, MSG_create, &c)), 0);
    c.head = head_of(k.c, 0);
    c.name = TEXT("there");
    ck_assert_int_eq(finish(ask(k.c, MSG_create, &c)), -EEXIST);
    ck_assert_int_eq(lookup_in(k.c, m.inode, "there", &attr), 0);
    ck_assert_uint_eq(attr.size, 1);
    ck_assert_int_eq(readdir_count(k.c, m.inode), 2);
    cluster_fini(&k);
}

TEST(master_keeps_what_it_has_listed_over_a_restart)
{
    struct cluster k;
    struct ufs_dir u;
    struct rec_attr attr;
    char failed[400], name[20], away[200];
    cluster_init(&k);
    cluster_start(&k);
    struct mounted m = mount_dir(k.c, &u, 0);
    for (int i = 0; i < 700; i++) {
        snprintf(name, sizeof(name), "f%d", i);
        make_path(&u, name, "");
    }
    make_path(&u, "part", NULL);
    make_path(&u, "part/x", "");
    make_path(&u, "part/y", "");
    ck_assert_int_eq(readdir_count(k.c, m.inode), 701);
    ck_assert_int_eq(walk_to(k.c, "m/part/x", &attr), 0);
    k.master = master_free(k.master);
    snprintf(away, sizeof(away), "%s.away", u.dir);
    ck_assert_int_eq(rename(u.dir, away), 0);
    cluster_start_master(&k);
    int n;
    until((n = readdir_count(k.c, m.inode)) != -CV_NOT_LEADER);
    ck_assert_int_eq(n, 701); /* without asking */
    ck_assert_int_eq(walk_to(k.c, "m/part/x", &attr), 0);
    ck_assert_int_eq(walk_to(k.c, "m/part/y", &attr), -CV_UFS_FAILED); /* which only the under file system knows */
    ck_assert_int_eq(walk_to(k.c, "m/part", &attr), 0);
    ck_assert_int_eq(readdir_count(k.c, attr.inode), -CV_UFS_FAILED);
    only_mount(k.c, failed, sizeof(failed));
    ck_assert_ptr_nonnull(strstr(failed, u.dir));
    ck_assert_int_eq(rename(away, u.dir), 0);
    ck_assert_int_eq(readdir_count(k.c, attr.inode), 2);
    only_mount(k.c, failed, sizeof(failed));
    ck_assert_str_eq(failed, "");
    ck_assert_int_eq(mount_remove(k.c, m.mount), 0);
    ck_assert_int_eq(walk_to(k.c, "m/part/x", &attr), -ENOENT);
    cluster_fini(&k);
}

TEST(master_stops_with_a_listing_under_way)
{
    struct cluster k;
    struct ufs_dir u;
    char name[20];
    cluster_init(&k);
    cluster_start(&k);
    struct mounted m = mount_dir(k.c, &u, 0);
    for (int i = 0; i < 5000; i++) {
        snprintf(name, sizeof(name), "f%d", i);
        make_path(&u, name, "");
    }
    struct msg_readdir rm = {.head = {.session = k.c->session}, .inode = m.inode, .max_bytes = 60000};
    uint64_t last = k.journal->last;
    struct asked *a = ask(k.c, MSG_readdir, &rm);
    until(k.journal->last > last || is_answered(a)); /* the first names come */
    master_stop(k.master);
    int r = finish(a);
    ck_assert_msg(r == -CV_STOPPING || r == -CV_CLOSED || r == 0, "%d", r);
    k.master = master_free(k.master);
    cluster_start_master(&k);
    int n;
    until((n = readdir_count(k.c, m.inode)) != -CV_NOT_LEADER);
    ck_assert_int_eq(n, 5000);
    cluster_fini(&k);
}

TEST(master_lists_a_large_directory_beside_other_work)
{
    enum { NAMES = 100000 };
    struct cluster k;
    struct ufs_dir u;
    struct rec_attr attr;
    char name[20];
    cluster_init(&k);
    cluster_start(&k);
    struct mounted m = mount_dir(k.c, &u, 0);
    int dir = open(u.dir, O_RDONLY | O_DIRECTORY);
    for (int i = 0; i < NAMES; i++) {
        snprintf(name, sizeof(name), "file-%06d", i);
        close(openat(dir, name, O_CREAT | O_WRONLY, 0644));
    }
    close(dir);
    struct caller *other = caller_new(k.socket);
    open_session(other);
    struct msg_readdir rm = {.head = {.session = k.c->session}, .inode = m.inode, .max_bytes = 60000};
    uint64_t began = clock_ns(), longest = 0, sum = 0, n = 0;
    struct asked *a = ask(k.c, MSG_readdir, &rm);
    while (!is_answered(a)) {
        uint64_t now = clock_ns();
        snprintf(name, sizeof(name), "other%d", (int)n);
        ck_assert_int_eq(create(other, name), 0);
        ck_assert_int_eq(lookup(other, name), 0);
        longest = max(longest, clock_ns() - now);
        sum += clock_ns() - now;
        n++;
    }
    uint64_t took = clock_ns() - began;
    printf("%d names listed in %llu ms; beside it %llu creates and look-ups, %llu us on average, at most %llu us\n",
           NAMES, (unsigned long long)(took / NS_PER_MS), (unsigned long long)n, (unsigned long long)(sum / n / 1000),
           (unsigned long long)(longest / 1000));
    ck_assert_uint_gt(n, 5);
    ck_assert_uint_lt(longest,
                      max(2 * NS_PER_S, took / 2)); /* beside it, not behind it, on a machine that may be shared */
    ck_assert_int_eq(finish(a), 0);
    ck_assert_int_eq(readdir_count(k.c, m.inode), NAMES);
    ck_assert_int_eq(lookup_in(k.c, m.inode, "file-099999", &attr), 0);
    ck_assert_int_eq(lookup_in(k.c, m.inode, "file-100000", &attr), -ENOENT);
    caller_free(other);
    cluster_fini(&k);
}
