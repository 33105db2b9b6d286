/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The core as the daemon uses it: readers under a shared lock, a scribe that takes it exclusively for a group, a thread
 * that writes deltas to the base beside them. The scribe makes and removes names in pairs within one group: a listing
 * shows both of a pair or neither. For the thread sanitizer above all.
 */
#include "tests/unit/meta_rig.h"

#include <pthread.h>

#define READERS 3
#define DIRS    8
#define NAMES   40

struct shared {
    struct meta *m;
    struct store store;
    struct meta_base base; /* takes store_lock around the store's functions */
    pthread_rwlock_t lock, store_lock;
    uint64_t dirs[DIRS], session;
    bool stop; /* atomic */
    uint64_t lists, looks, fetched;
};

static struct shared s;

static int locked_get(void *context, enum meta_family family, struct text key, bool memory, struct buf *value)
{
    pthread_rwlock_rdlock(&s.store_lock);
    size_t at = store_seek(&s.store, (uint8_t)family, key);
    int r = -ENOENT;
    if (at < s.store.count && cell_compare((uint8_t)family, key, &s.store.cells[at]) == 0)
        r = buf_append(value, s.store.cells[at].key + 1 + s.store.cells[at].key_n, s.store.cells[at].value_n);
    pthread_rwlock_unlock(&s.store_lock);
    return r;
}

static int locked_scan(void *context, enum meta_family family, struct text prefix, struct text from, bool memory,
                       bool (*each)(void *arg, struct text key, struct text value), void *arg)
{
    pthread_rwlock_rdlock(&s.store_lock);
    for (size_t at = store_seek(&s.store, (uint8_t)family, from); at < s.store.count; at++) {
        const struct cell *c = &s.store.cells[at];
        if (c->key[0] != family || c->key_n < prefix.n || memcmp(c->key + 1, prefix.p, prefix.n) != 0 ||
            !each(arg, key_of(c->key + 1, c->key_n), key_of(c->key + 1 + c->key_n, c->value_n)))
            break;
    }
    pthread_rwlock_unlock(&s.store_lock);
    return 0;
}

static bool stopped(void)
{
    return __atomic_load_n(&s.stop, __ATOMIC_ACQUIRE);
}

static void encode(struct meta_request *q, struct buf *body, uint16_t type, void *msg)
{
    body->n = 0;
    ck_assert_int_eq(wire_encode(message_desc(type), msg, body), 0);
    meta_request_reset(q);
    ck_assert_int_eq(meta_request_decode(q, type, body->p, body->n), 0);
}

static void read_all_the_way(struct meta_request *q)
{
    bool fetched = false;
    for (;;) {
        pthread_rwlock_rdlock(&s.lock);
        int r = meta_read(s.m, q);
        pthread_rwlock_unlock(&s.lock);
        if (r == 0)
            break;
        ck_assert_int_eq(meta_fetch(&s.base, q, false), 0);
        fetched = true;
    }
    if (!fetched)
        return;
    __atomic_add_fetch(&s.fetched, 1, __ATOMIC_RELAXED);
    pthread_rwlock_wrlock(&s.lock);
    meta_install(s.m, q);
    pthread_rwlock_unlock(&s.lock);
}

static void *reader(void *arg)
{
    struct prng prng = {(uint64_t)(uintptr_t)arg};
    struct meta_request q;
    struct buf body = {0};
    meta_request_init(&q);
    while (!stopped()) {
        const struct rec_op_head head = {.session = s.session};
        uint64_t dir = s.dirs[prng_below(&prng, DIRS)];
        char name[16];
        snprintf(name, sizeof(name), "%02u.a", prng_below(&prng, NAMES));
        if (prng_below(&prng, 2)) {
            encode(&q, &body, MSG_lookup, &(struct msg_lookup){.head = head, .parent = dir, .name = text_of(name)});
            read_all_the_way(&q);
            ck_assert(q.error == 0 || q.error == -ENOENT);
            __atomic_add_fetch(&s.looks, 1, __ATOMIC_RELAXED);
            continue;
        }
        encode(&q, &body, MSG_readdir, &(struct msg_readdir){.head = head, .inode = dir, .flags = READDIR_ATTR});
        read_all_the_way(&q);
        ck_assert_int_eq(q.error, 0);
        int halves[NAMES] = {0};
        rec_for_each (dir_entry, e, &q.answer.readdir.entries) {
            ck_assert_uint_eq(e.attr.inode, e.inode);
            halves[atoi(e.name.p)]++;
        }
        for (int i = 0; i < NAMES; i++)
            ck_assert(halves[i] == 0 || halves[i] == 2);
        __atomic_add_fetch(&s.lists, 1, __ATOMIC_RELAXED);
    }
    meta_request_fini(&q);
    buf_fini(&body);
    return NULL;
}

/* Seal, write beside the others, tell. */
static void *writer(void *arg)
{
    while (!stopped()) {
        pthread_rwlock_wrlock(&s.lock);
        struct meta_delta *d = meta_delta_seal(s.m);
        pthread_rwlock_unlock(&s.lock);
        if (!d) {
            sched_yield();
            continue;
        }
        ck_assert_int_eq(meta_delta_sort(d), 0);
        pthread_rwlock_wrlock(&s.store_lock);
        store_write(&s.store, d);
        pthread_rwlock_unlock(&s.store_lock);
        pthread_rwlock_wrlock(&s.lock);
        meta_delta_written(s.m, d);
        tree_evict(&s.m->tree, 30);
        pthread_rwlock_unlock(&s.lock);
        meta_delta_free(d);
    }
    return NULL;
}

static void prepare_all_the_way(struct meta_request *q)
{
    for (;;) {
        pthread_rwlock_rdlock(&s.lock);
        int r = meta_prepare(s.m, q);
        pthread_rwlock_unlock(&s.lock);
        if (r == 0)
            return;
        ck_assert_int_eq(meta_fetch(&s.base, q, false), 0);
    }
}

static uint64_t next_index = 1;

static void commit_now(void)
{
    struct meta_payload *p = meta_batch_close(s.m);
    if (p)
        meta_batch_committed(s.m, p->batch, next_index++);
    meta_payload_unref(p);
}

static int execute(struct meta_request *q, uint64_t now)
{
    int r = meta_execute(s.m, q, now);
    if (r == -CV_BUSY) {
        commit_now();
        r = meta_execute(s.m, q, now);
    }
    return r;
}

/* Makes or removes both halves of a pair in one hold of the lock. */
static void scribe(int rounds)
{
    struct prng prng = {77};
    struct meta_request q[2];
    struct buf body[2] = {{0}, {0}};
    static bool there[DIRS][NAMES];
    uint64_t sequence = 0;
    for (int i = 0; i < 2; i++)
        meta_request_init(&q[i]);
    for (int round = 0; round < rounds; round++) {
        uint32_t d = prng_below(&prng, DIRS), n = prng_below(&prng, NAMES);
        char name[2][16];
        sequence++;
        for (uint32_t i = 0; i < 2; i++) {
            const struct rec_op_head head = {.session = s.session, .slot = 10 + i, .sequence = sequence};
            snprintf(name[i], sizeof(name[i]), "%02u.%c", n, 'a' + i);
            if (there[d][n])
                encode(&q[i], &body[i], MSG_unlink,
                       &(struct msg_unlink){.head = head, .parent = s.dirs[d], .name = text_of(name[i])});
            else
                encode(
                    &q[i], &body[i], MSG_mknod,
                    &(struct msg_mknod){.head = head, .parent = s.dirs[d], .name = text_of(name[i]), .mode = S_IFREG});
        }
        for (bool done = false; !done;) {
            prepare_all_the_way(&q[0]);
            prepare_all_the_way(&q[1]);
            pthread_rwlock_wrlock(&s.lock);
            if (execute(&q[0], 1) == 0) {
                ck_assert_int_eq(q[0].error, 0);
                while (execute(&q[1], 1) < 0) /* a real scribe would let go; here readers must not see half a pair */
                    if (meta_prepare(s.m, &q[1]) < 0)
                        ck_assert_int_eq(meta_fetch(&s.base, &q[1], false), 0);
                ck_assert_int_eq(q[1].error, 0);
                done = true;
            }
            if (prng_below(&prng, 3) == 0)
                commit_now();
            pthread_rwlock_unlock(&s.lock);
        }
        there[d][n] = !there[d][n];
    }
    for (int i = 0; i < 2; i++) {
        meta_request_fini(&q[i]);
        buf_fini(&body[i]);
    }
}

TEST_TIMEOUT(meta_threads_read_while_the_scribe_writes_and_the_delta_goes_out, 60)
{
    pthread_t threads[READERS + 1];
    struct rig g;
    const struct meta_options o = {.memory_bytes = 1 << 18, .whole_dir_names = 60, .id_grant = 1024};
    rig_init(&g, &o);
    for (int i = 0; i < DIRS; i++) {
        char name[16];
        snprintf(name, sizeof(name), "d%d", i);
        s.dirs[i] = make_dir(&g, META_ROOT, name);
    }
    rig_commit(&g);
    s.m = g.m;
    s.session = g.head.session;
    s.base = (struct meta_base){NULL, locked_get, locked_scan};
    next_index = meta_applied(g.m) + 1;
    pthread_rwlock_init(&s.lock, NULL);
    pthread_rwlock_init(&s.store_lock, NULL);
    for (intptr_t i = 0; i < READERS; i++)
        pthread_create(&threads[i], NULL, reader, (void *)(i + 1));
    pthread_create(&threads[READERS], NULL, writer, NULL);
    scribe(3000);
    __atomic_store_n(&s.stop, true, __ATOMIC_RELEASE);
    for (int i = 0; i <= READERS; i++)
        pthread_join(threads[i], NULL);
    ck_assert(s.lists && s.looks && s.fetched);
    pthread_rwlock_destroy(&s.lock);
    pthread_rwlock_destroy(&s.store_lock);
    store_free(&s.store);
    rig_fini(&g);
}
