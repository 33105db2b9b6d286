/* SPDX-License-Identifier: Apache-2.0 */
/* libcurvine against a master that misbehaves: it is not the leader, breaks connections, is busy, ends sessions. */
#include "tests/unit/unit.h"

#include <fcntl.h>
#include <semaphore.h>
#include <stdatomic.h>
#include <stdio.h>
#include <sys/stat.h>

#include "base/cleanup.h"
#include "base/clock.h"
#include "base/error.h"
#include "base/log.h"
#include "client/curvine.h"
#include "rpc/rpc_server.h"

enum trouble { NONE, NOT_LEADER, BUSY, BREAK_BEFORE, BREAK_AFTER, END_SESSION, SILENT };

#define EXECUTED_MAX 4096

struct master {
    struct loop *loop;
    struct rpc_server *server;
    char address[160];
    _Atomic int trouble, times; /* do this to the next mutations, so many times */
    _Atomic int sessions, executed, asked;
    _Atomic bool follows; /* does not lead */
    _Atomic uint64_t session;
    struct {
        uint32_t slot;
        uint64_t sequence, session;
    } seen[EXECUTED_MAX]; /* what was executed */
    struct rpc_request *held;
    _Atomic bool hold_opens;
    struct rpc_request *held_opens[8];
    _Atomic int opens_held, handles; /* handles: open ones */
};

static bool repeated(struct master *m, const struct rec_op_head *h)
{
    for (int i = 0; i < atomic_load(&m->executed); i++)
        if (m->seen[i].slot == h->slot && m->seen[i].sequence == h->sequence && m->seen[i].session == h->session)
            return true;
    return false;
}

static void execute(struct master *m, const struct rec_op_head *h)
{
    if (repeated(m, h))
        return;
    int i = atomic_load(&m->executed);
    ck_assert_int_lt(i, EXECUTED_MAX);
    m->seen[i].slot = h->slot;
    m->seen[i].sequence = h->sequence;
    m->seen[i].session = h->session;
    atomic_store(&m->executed, i + 1);
}

static void on_mkdir(struct master *m, struct rpc_request *q)
{
    struct msg_mkdir in;
    ck_assert_int_eq(msg_mkdir_decode(q->body, q->header.body_len, &in), 0);
    atomic_fetch_add(&m->asked, 1);
    ck_assert_uint_gt(in.head.sequence, 0);
    int trouble = atomic_load(&m->times) > 0 ? atomic_load(&m->trouble) : NONE;
    if (trouble != NONE)
        atomic_fetch_sub(&m->times, 1);
    if (in.head.session != atomic_load(&m->session)) {
        rpc_answer(q, -CV_SESSION_ENDED, 0, NULL, NULL);
        return;
    }
    switch (trouble) {
    case NOT_LEADER: rpc_answer(q, -CV_NOT_LEADER, 0, NULL, NULL); return;
    case BUSY: rpc_answer(q, -CV_BUSY, 0, NULL, NULL); return;
    case BREAK_AFTER: execute(m, &in.head); /* fallthrough */
    case BREAK_BEFORE:
        rpc_conn_close(rpc_peer_conn(q->peer), -CV_CLOSED);
        rpc_answer(q, 0, 0, NULL, NULL);
        return;
    case END_SESSION:
        atomic_store(&m->session, 0);
        rpc_answer(q, -CV_SESSION_ENDED, 0, NULL, NULL);
        return;
    case SILENT: m->held = q; return;
    default: break;
    }
    execute(m, &in.head);
    struct msg_mkdir_answer a = {
        .attr = {.inode = 100, .mode = S_IFDIR | 0755}, .parent = {.inode = in.parent}, .lease_ms = 5};
    rpc_answer(q, 0, 42, msg_mkdir_answer_desc(), &a);
}

static void answer_open(struct master *m, struct rpc_request *q)
{
    uint64_t handle = 1000 + (uint64_t)atomic_fetch_add(&m->handles, 1);
    struct rec_attr attr = {.inode = 100, .mode = S_IFREG | 0644, .nlink = 1};
    struct msg_open_answer opened = {.attr = attr, .handle = handle, .layout = {.block_shift = 26}};
    struct msg_create_answer made = {.attr = attr, .handle = handle, .created = 1, .layout = {.block_shift = 26}};
    if (q->header.type == MSG_open)
        rpc_answer(q, 0, 0, msg_open_answer_desc(), &opened);
    else
        rpc_answer(q, 0, 0, msg_create_answer_desc(), &made);
}

static void on_open(struct master *m, struct rpc_request *q)
{
    if (!m->hold_opens) {
        answer_open(m, q);
        return;
    }
    m->held_opens[m->opens_held] = q;
    m->opens_held++;
}

static int answer_held_opens(void *arg)
{
    struct master *m = arg;
    for (int i = 0; i < m->opens_held; i++)
        answer_open(m, m->held_opens[i]);
    m->opens_held = 0;
    return 0;
}

/* Two pages of names. */
static void on_readdir(struct rpc_request *q)
{
    struct msg_readdir in;
    struct buf b = {0};
    ck_assert_int_eq(msg_readdir_decode(q->body, q->header.body_len, &in), 0);
    bool second = in.after.n > 0;
    for (uint64_t i = 0; i < 3; i++) {
        char name[8];
        snprintf(name, sizeof(name), "%c%d", second ? 'b' : 'a', (int)i);
        struct rec_dir_entry e = {.inode = 10 + i, .name = text_of(name), .attr = {.inode = 10 + i, .mode = S_IFREG}};
        ck_assert_int_eq(rec_dir_entry_append(&b, &e), 0);
    }
    struct msg_readdir_answer a = {.entries = wire_list_of(&b, 3), .end = second};
    rpc_answer(q, 0, 0, msg_readdir_answer_desc(), &a);
    buf_fini(&b);
}

/* A small tree for walks: /d (10), /d/f (11), /l -> d, /abs -> /d/f, /loop -> loop. */
static void on_walk(struct rpc_request *q)
{
    struct msg_walk in;
    ck_assert_int_eq(msg_walk_decode(q->body, q->header.body_len, &in), 0);
    static const struct {
        const char *path, *target;
        uint64_t inode;
        uint32_t mode;
    } nodes[] = {
        {"", "", 1, S_IFDIR},          {"d", "", 10, S_IFDIR},       {"d/f", "", 11, S_IFREG},
        {"l", "d", 12, S_IFLNK},       {"abs", "/d/f", 13, S_IFLNK}, {"loop", "loop", 14, S_IFLNK},
        {"d/up", "../d", 15, S_IFLNK},
    };
    struct msg_walk_answer a = {0};
    int r = -ENOENT;
    for (size_t i = 0; i < array_size(nodes); i++) {
        struct text p = text_of(nodes[i].path);
        bool whole = text_equal(in.path, p);
        bool middle =
            nodes[i].mode == S_IFLNK && in.path.n > p.n && memcmp(in.path.p, p.p, p.n) == 0 && in.path.p[p.n] == '/';
        if (!whole && !middle)
            continue;
        r = 0;
        a.attr.inode = nodes[i].inode;
        a.attr.mode = nodes[i].mode;
        a.target = text_of(nodes[i].target);
        if (middle)
            a.rest = (struct text){in.path.p + p.n + 1, in.path.n - p.n - 1};
    }
    rpc_answer(q, r, 0, msg_walk_answer_desc(), &a);
}

static void on_request(struct rpc_request *q, void *user)
{
    struct master *m = user;
    struct msg_session_open_answer opened = {
        .session = 1000 + (uint64_t)atomic_load(&m->sessions), .slots = 4, .lease_ms = 3000};
    const struct msg_leader_answer leader = {.serving = !atomic_load(&m->follows)};
    switch (q->header.type) {
    case MSG_leader: rpc_answer(q, 0, 0, msg_leader_answer_desc(), &leader); return;
    case MSG_session_open:
        atomic_fetch_add(&m->sessions, 1);
        atomic_store(&m->session, opened.session);
        rpc_answer(q, 0, 0, msg_session_open_answer_desc(), &opened);
        return;
    case MSG_mkdir: on_mkdir(m, q); return;
    case MSG_open:
    case MSG_create: on_open(m, q); return;
    case MSG_close:
        atomic_fetch_sub(&m->handles, 1);
        rpc_answer(q, 0, 0, NULL, NULL);
        return;
    case MSG_readdir: on_readdir(q); return;
    case MSG_walk: on_walk(q); return;
    default: rpc_answer(q, 0, 0, NULL, NULL);
    }
}

static void master_start_at(struct master *m, const char *name)
{
    memset(m, 0, sizeof(*m));
    snprintf(m->address, sizeof(m->address), "unix:%s/%s", unit_tempdir(), name);
    ck_assert_int_eq(loop_new(&(struct loop_options){.name = "master"}, &m->loop), 0);
    struct rpc_server_options o = {.self = {.role = RPC_MASTER, .program = "test"}, .request = on_request, .user = m};
    ck_assert_int_eq(rpc_server_new(m->loop, &o, &m->server), 0);
    ck_assert_int_eq(rpc_server_listen(m->server, m->address, 0, 0600), 0);
    ck_assert_int_eq(loop_start(m->loop), 0);
}

static void master_start(struct master *m)
{
    master_start_at(m, "m");
}

static void on_stopped(void *arg)
{
    loop_stop(((struct master *)arg)->loop);
}

static int stop_here(void *arg)
{
    struct master *m = arg;
    if (m->held)
        rpc_answer(m->held, 0, 0, NULL, NULL);
    m->held = NULL;
    rpc_server_stop(m->server, 100, on_stopped, m);
    return 0;
}

static void master_stop(struct master *m)
{
    loop_call(m->loop, stop_here, m);
    loop_join(m->loop);
    rpc_server_free(m->server);
    loop_free(m->loop);
}

static struct master master;
static struct curvine *cv;

static void open_both(void)
{
    log_set_level(LOG_LEVEL_ERROR);
    master_start(&master);
    ck_assert_int_eq(curvine_open(&(struct curvine_options){.masters = master.address, .timeout_ms = 10000}, &cv), 0);
}

static void close_both(void)
{
    curvine_close(cv);
    master_stop(&master);
}

static int make(const char *name)
{
    struct curvine_request q = {.op = CURVINE_MKDIR, .inode = 1, .name = {name, (uint32_t)strlen(name)}, .mode = 0755};
    int r = curvine_run(cv, &q);
    if (r == 0) {
        ck_assert_uint_eq(q.attr.inode, 100);
        ck_assert_uint_eq(q.index, 42);
    }
    curvine_request_free(&q);
    return r;
}

static void with_trouble(enum trouble trouble, int times, int executed)
{
    open_both();
    atomic_store(&master.trouble, trouble);
    atomic_store(&master.times, times);
    for (int i = 0; i < 10; i++)
        ck_assert_int_eq(make("x"), 0);
    ck_assert_int_eq(master.executed, executed);
    ck_assert_int_eq(master.sessions, 1);
    ck_assert_int_eq(master.asked, 10 + times);
    close_both();
}

TEST(a_mutation_is_executed_once)
{
    with_trouble(NONE, 0, 10);
}

TEST(who_does_not_lead_is_asked_again)
{
    with_trouble(NOT_LEADER, 3, 10);
}

TEST(who_is_busy_is_asked_again)
{
    with_trouble(BUSY, 5, 10);
}

TEST(a_connection_that_breaks_before_the_execution_is_survived)
{
    with_trouble(BREAK_BEFORE, 3, 10);
}

TEST(a_connection_that_breaks_after_the_execution_does_not_double_it)
{
    with_trouble(BREAK_AFTER, 3, 10);
}

TEST(a_session_that_ended_is_replaced)
{
    open_both();
    ck_assert_int_eq(make("x"), 0);
    atomic_store(&master.trouble, END_SESSION);
    atomic_store(&master.times, 1);
    ck_assert_int_eq(make("x"), 0);
    ck_assert_int_eq(master.sessions, 2);
    ck_assert_int_eq(master.executed, 2);
    close_both();
}

TEST(a_call_ends_at_its_deadline)
{
    open_both();
    atomic_store(&master.trouble, SILENT);
    atomic_store(&master.times, 1);
    struct curvine_request q = {.op = CURVINE_MKDIR, .inode = 1, .name = {"x", 1}, .timeout_ms = 50};
    uint64_t start = clock_ns();
    ck_assert_int_eq(curvine_run(cv, &q), -CV_DEADLINE);
    ck_assert_uint_ge(clock_ns() - start, 50 * NS_PER_MS);
    curvine_request_free(&q);
    ck_assert_int_eq(make("x"), 0); /* the slot serves on, with the next number */
    close_both();
}

static void on_opened(struct curvine_request *q)
{
    sem_post(q->user);
}

static int open_and_give_up(enum curvine_op op, bool cancel)
{
    sem_t done;
    int before = master.opens_held;
    struct curvine_request q = {
        .op = op, .inode = op == CURVINE_OPEN ? 100 : 1, .name = {"f", 1}, .timeout_ms = cancel ? 10000 : 50};
    q.done = on_opened;
    q.user = &done;
    sem_init(&done, 0, 0);
    curvine_submit(cv, &q);
    until(master.opens_held > before);
    if (cancel)
        curvine_cancel(cv, &q);
    while (sem_wait(&done) < 0)
        ;
    ck_assert_ptr_null(q.file);
    int r = q.result;
    curvine_request_free(&q);
    return r;
}

TEST(a_handle_whose_answer_came_too_late_is_given_back)
{
    open_both();
    atomic_store(&master.hold_opens, true);
    ck_error(open_and_give_up(CURVINE_OPEN, false), -CV_DEADLINE);
    ck_error(open_and_give_up(CURVINE_CREATE, false), -CV_DEADLINE);
    ck_error(open_and_give_up(CURVINE_OPEN, true), -CV_CANCELLED);
    ck_error(open_and_give_up(CURVINE_CREATE, true), -CV_CANCELLED);
    loop_call(master.loop, answer_held_opens, &master);
    until(master.handles == 0);
    atomic_store(&master.hold_opens, false);
    struct curvine_request q = {.op = CURVINE_OPEN, .inode = 100};
    ck_ok(curvine_run(cv, &q)); /* one that somebody has stays open */
    ck_assert_int_eq(master.handles, 1);
    struct curvine_request release = {.op = CURVINE_RELEASE, .file = q.file};
    ck_ok(curvine_run(cv, &release));
    ck_assert_int_eq(master.handles, 0);
    close_both();
}

TEST(a_master_that_comes_back_finds_its_calls_waiting)
{
    open_both();
    ck_assert_int_eq(make("x"), 0);
    master_stop(&master);
    struct master gone = master;
    struct curvine_request q = {.op = CURVINE_MKDIR, .inode = 1, .name = {"x", 1}, .timeout_ms = 100};
    ck_assert_int_eq(curvine_run(cv, &q), -CV_DEADLINE);
    curvine_request_free(&q);
    master_start(&master);
    atomic_store(&master.session, atomic_load(&gone.session));
    ck_assert_int_eq(make("x"), 0);
    ck_assert_int_eq(master.sessions, 0); /* the same session */
    close_both();
}

/* ---- several masters ------------------------------------------------------------------------------------------------- */

static struct master second;

/* Both, the first leads; the session is known to both. */
static void open_two(void)
{
    char both[400];
    log_set_level(LOG_LEVEL_ERROR);
    master_start(&master);
    master_start_at(&second, "n");
    atomic_store(&second.follows, true);
    snprintf(both, sizeof(both), "%s, %s", second.address, master.address);
    ck_assert_int_eq(curvine_open(&(struct curvine_options){.masters = both, .timeout_ms = 10000}, &cv), 0);
    ck_assert_int_eq(make("x"), 0);
    ck_assert_int_eq(master.executed, 1);
    atomic_store(&second.session, atomic_load(&master.session));
}

static void close_two(void)
{
    ck_assert_int_eq(second.sessions, 0);
    close_both();
    master_stop(&second);
}

TEST(another_leader_is_found_and_asked_under_the_same_session)
{
    open_two();
    for (int i = 0; i < 6; i++) { /* each is silent once */
        struct master *next = i % 2 ? &master : &second, *last = i % 2 ? &second : &master;
        atomic_store(&next->follows, false);
        atomic_store(&last->follows, true);
        atomic_store(&last->trouble, i % 3 == 0 ? NOT_LEADER : i % 3 == 1 ? BREAK_BEFORE : SILENT);
        atomic_store(&last->times, 1);
        ck_assert_int_eq(make("x"), 0);
        ck_assert_int_eq(next->executed, i / 2 + 1 + (next == &master));
    }
    close_two();
}

TEST(a_mutation_a_silent_leader_has_is_sent_to_the_next_one_with_the_same_number)
{
    open_two();
    atomic_store(&master.trouble, SILENT);
    atomic_store(&master.times, 1);
    atomic_store(&second.follows, false);
    ck_assert_int_eq(make("x"), 0);
    ck_assert_int_eq(master.executed, 1);
    ck_assert_int_eq(second.executed, 1);
    ck_assert_uint_eq(second.seen[0].session, master.seen[0].session);
    ck_assert_uint_eq(second.seen[0].slot, master.seen[0].slot);
    ck_assert_uint_eq(second.seen[0].sequence, master.seen[0].sequence + 1);
    close_two();
}

TEST(nobody_there_is_an_error_at_the_deadline)
{
    char address[160];
    snprintf(address, sizeof(address), "unix:%s/none", unit_tempdir());
    struct curvine *none;
    ck_assert_int_eq(curvine_open(&(struct curvine_options){.masters = address, .timeout_ms = 100}, &none),
                     -CV_UNREACHABLE);
    ck_assert_int_eq(curvine_open(&(struct curvine_options){.masters = "host:port", .timeout_ms = 100}, &none),
                     -EINVAL);
    ck_assert_int_eq(curvine_open(&(struct curvine_options){.masters = "", .timeout_ms = 100}, &none), -EINVAL);
}

/* ---- many at once ---------------------------------------------------------------------------------------------------- */

#define MANY 200
static struct curvine_request many[MANY];
static _Atomic int many_done, many_ok;

static void on_many(struct curvine_request *q)
{
    atomic_fetch_add(&many_ok, q->result == 0);
    atomic_fetch_add(&many_done, 1);
}

TEST(more_mutations_than_slots_wait_their_turn)
{
    open_both();
    atomic_store(&master.trouble, BREAK_AFTER);
    atomic_store(&master.times, 5);
    for (int i = 0; i < MANY; i++) {
        many[i] = (struct curvine_request){.op = CURVINE_MKDIR, .inode = 1, .name = {"x", 1}, .done = on_many};
        curvine_submit(cv, &many[i]);
    }
    for (uint64_t start = clock_ns(); atomic_load(&many_done) < MANY;)
        ck_assert_uint_lt(clock_ns() - start, 20 * NS_PER_S);
    ck_assert_int_eq(many_ok, MANY);
    ck_assert_int_eq(master.executed, MANY);
    close_both();
}

/* ---- by path ------------------------------------------------------------------------------------------------------------ */

static int count_entry(const struct curvine_dirent *e, void *arg)
{
    static const char *const expected[] = {"a0", "a1", "a2", "b0", "b1", "b2"};
    int *n = arg;
    ck_assert_int_lt(*n, 6);
    ck_assert_uint_eq(e->name.n, 2);
    ck_assert_mem_eq(e->name.p, expected[*n], 2);
    ck_assert_uint_eq(e->attr.mode, S_IFREG);
    ++*n;
    return 0;
}

TEST(listings_go_on_page_by_page)
{
    open_both();
    int n = 0;
    ck_assert_int_eq(curvine_list(cv, 1, count_entry, &n), 0);
    ck_assert_int_eq(n, 6);
    close_both();
}

static void resolves(const char *path, int flags, int result, uint64_t inode)
{
    uint64_t got = 0;
    int r = curvine_resolve(cv, path, flags, &got, NULL);
    ck_assert_msg(r == result && got == inode, "'%s': %d, inode %d; expected %d, %d", path, r, (int)got, result,
                  (int)inode);
}

TEST(paths_are_resolved_with_dots_and_symlinks)
{
    open_both();
    resolves("/", 0, 0, 1);
    resolves("//", 0, 0, 1);
    resolves("/d", 0, 0, 10);
    resolves("/d/", 0, 0, 10);
    resolves("/d//f", 0, 0, 11);
    resolves("/d/./f", 0, 0, 11);
    resolves("/d/../d/f", 0, 0, 11);
    resolves("/../d", 0, 0, 10);
    resolves("/l", 0, 0, 12);
    resolves("/l", CURVINE_FOLLOW, 0, 10);
    resolves("/l/", 0, 0, 10);
    resolves("/l/f", 0, 0, 11);
    resolves("/l/..", 0, 0, 1);
    resolves("/abs", CURVINE_FOLLOW, 0, 11);
    resolves("/d/up/f", 0, 0, 11);
    resolves("/loop", CURVINE_FOLLOW, -ELOOP, 0);
    resolves("/loop", 0, 0, 14);
    resolves("/none", 0, -ENOENT, 0);
    resolves("/d/f/", 0, -ENOTDIR, 0);
    resolves("/d/f/..", 0, -ENOTDIR, 0);
    resolves("d", 0, -EINVAL, 0);
    uint64_t parent;
    struct curvine_text name;
    ck_assert_int_eq(curvine_resolve_parent(cv, "/l/new", &parent, &name), 0);
    ck_assert_uint_eq(parent, 10);
    ck_assert_mem_eq(name.p, "new", 3);
    ck_assert_int_eq(curvine_resolve_parent(cv, "/new/", &parent, &name), 0);
    ck_assert_uint_eq(parent, 1);
    ck_assert_int_eq(curvine_resolve_parent(cv, "/", &parent, &name), -EBUSY);
    ck_assert_int_eq(curvine_resolve_parent(cv, "/d/..", &parent, &name), -EINVAL);
    close_both();
}
