/* SPDX-License-Identifier: Apache-2.0 */
/*
 * A table of workers and per worker a ring of drops. Nothing runs by itself: whoever asks brings the time, and who is up
 * and in is worked out first (refresh), so a version of the map never lags behind what it says.
 */
#include "meta/master_workers.h"

#include <assert.h>
#include <errno.h>
#include <pthread.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/clock.h"
#include "base/error.h"
#include "base/log.h"

#define RING_FIRST 64u

struct drop {
    uint64_t inode, size, epoch;
};

struct worker {
    uint64_t id;
    char address[256], socket[256], host[256], boot[256], version[80], trouble[160];
    bool in, up, registered; /* registered: with us, in this term */
    bool stored;             /* what its row says is so */
    uint32_t weight;
    uint32_t checked; /* incarnation in which it has asked about all it holds; 0: none */
    uint64_t heard_ns;
    uint64_t started_ns; /* wall clock, its own */
    uint64_t capacity, used, dirty, damaged_chunks, lost_blocks;

    struct drop *ring; /* the oldest at head, count of them; sequences end at last */
    uint32_t room, head, count;
    uint64_t last; /* sequence of the newest */
};

struct master_workers {
    pthread_mutex_t lock; /* guards all below */
    const struct master_options *o;
    struct worker **list;         /* sorted by id */
    struct place_member *members; /* for placing: as many as list, as of members_version and not old */
    uint64_t members_version;
    bool members_old;
    uint32_t count;
    uint64_t version;
    uint64_t first_sequence; /* drops of this term come behind it */
    uint64_t drops_queued, drops_lost;
    _Atomic bool to_store; /* any thread: some are not stored */
};

int master_workers_new(const struct master_options *options, struct master_workers **ret)
{
    struct master_workers *w cleanup(master_workers_free_p) = calloc(1, sizeof(*w));
    if (!w)
        return -ENOMEM;
    pthread_mutex_init(&w->lock, NULL);
    w->o = options;
    w->list = calloc(MASTER_WORKERS_MAX, sizeof(*w->list));
    w->members = calloc(MASTER_WORKERS_MAX, sizeof(*w->members));
    if (!w->list || !w->members)
        return -ENOMEM;
    *ret = take(w);
    return 0;
}

static void forget_all(struct master_workers *w)
{
    for (uint32_t i = 0; i < w->count; i++) {
        free(w->list[i]->ring);
        free(w->list[i]);
    }
    w->count = 0;
}

struct master_workers *master_workers_free(struct master_workers *w)
{
    if (!w)
        return NULL;
    if (w->list)
        forget_all(w);
    free(w->list);
    free(w->members);
    pthread_mutex_destroy(&w->lock);
    free(w);
    return NULL;
}

void master_workers_lead(struct master_workers *w, uint64_t term)
{
    pthread_mutex_lock(&w->lock);
    forget_all(w);
    w->version = w->first_sequence = term << 32;
    w->version++;
    pthread_mutex_unlock(&w->lock);
}

/* ---- the table -------------------------------------------------------------------------------------------------------- */

static void changed(struct master_workers *w)
{
    w->version++;
}

/* Its row must say something else. */
static void row_changed(struct master_workers *w, struct worker *k)
{
    k->stored = false;
    w->to_store = true;
}

/* Who is up and in at this time. */
static void refresh(struct master_workers *w, uint64_t now_ns)
{
    for (uint32_t i = 0; i < w->count; i++) {
        struct worker *k = w->list[i];
        uint64_t silent_ns = now_ns > k->heard_ns ? now_ns - k->heard_ns : 0;
        bool up = silent_ns < w->o->worker_down_ms * NS_PER_MS;
        bool out = k->in && silent_ns >= w->o->worker_out_ms * NS_PER_MS;
        if (up == k->up && !out)
            continue;
        if (up != k->up)
            log_info("worker %s is %s", k->address, up ? "up" : "down");
        if (out)
            log_warn(0, "worker %s is out: its share is given to others", k->address);
        if (out)
            row_changed(w, k);
        k->up = up;
        k->in &= !out;
        changed(w);
    }
}

/* Where it is, or where it belongs. */
static uint32_t position(const struct master_workers *w, uint64_t id)
{
    uint32_t low = 0, high = w->count;
    while (low < high) {
        uint32_t middle = (low + high) / 2;
        if (w->list[middle]->id < id)
            low = middle + 1;
        else
            high = middle;
    }
    return low;
}

static struct worker *find(const struct master_workers *w, uint64_t id)
{
    uint32_t at = position(w, id);
    return at < w->count && w->list[at]->id == id ? w->list[at] : NULL;
}

static int find_or_add(struct master_workers *w, uint64_t id, struct worker **ret)
{
    *ret = find(w, id);
    if (*ret)
        return 0;
    if (w->count == MASTER_WORKERS_MAX)
        return -CV_BUSY;
    struct worker *k = calloc(1, sizeof(*k));
    if (!k)
        return -ENOMEM;
    k->id = id;
    k->last = w->first_sequence;
    uint32_t at = position(w, id);
    memmove(&w->list[at + 1], &w->list[at], (w->count - at) * sizeof(*w->list));
    w->list[at] = k;
    w->count++;
    *ret = k;
    return 0;
}

/* Copy a text that may be shown and sent on. Returns whether it differs from what was there. */
static bool set_text(char *to, size_t room, struct text t)
{
    assert(t.n < room);
    if (strlen(to) == t.n && (t.n == 0 || !memcmp(to, t.p, t.n)))
        return false;
    if (t.n)
        memcpy(to, t.p, t.n);
    to[t.n] = 0;
    return true;
}

static bool fits(struct text t, size_t room)
{
    return t.n < room && !(t.n && memchr(t.p, 0, t.n));
}

#define FITS(k, m, field) fits((m)->field, sizeof((k)->field))
#define SET(k, m, field)  set_text((k)->field, sizeof((k)->field), (m)->field)

static uint32_t weight_of(uint64_t capacity)
{
    return (uint32_t)min(max(capacity >> 30, 1ull), (uint64_t)UINT32_MAX);
}

int master_workers_known(struct master_workers *w, const struct meta_worker_row *row, uint64_t now_ns)
{
    struct worker *k = NULL;
    if (!row->worker || !FITS(k, row, address) || !FITS(k, row, socket) || !FITS(k, row, host) || !FITS(k, row, boot))
        return -EINVAL;
    pthread_mutex_lock(&w->lock);
    int r = find_or_add(w, row->worker, &k);
    if (r == 0) {
        SET(k, row, address);
        SET(k, row, socket);
        SET(k, row, host);
        SET(k, row, boot);
        k->in = row->in;
        k->up = true; /* until it is found silent */
        k->weight = row->weight;
        k->stored = true;
        k->heard_ns = now_ns;
        changed(w);
    }
    pthread_mutex_unlock(&w->lock);
    return r;
}

/* Sums over its directories; those that failed count no more. */
static void take_dirs(struct worker *k, const struct wire_list *dirs)
{
    k->capacity = k->used = 0;
    k->trouble[0] = 0;
    rec_for_each (worker_dir, d, dirs) {
        if (d.failed.n)
            snprintf(k->trouble, sizeof(k->trouble), TEXT_FMT ": " TEXT_FMT, TEXT_ARG(d.path), TEXT_ARG(d.failed));
        else
            k->capacity += d.capacity;
        k->used += d.failed.n ? 0 : min(d.used, d.capacity);
    }
}

static int register_one(struct master_workers *w, const struct msg_worker_register *m, uint64_t now_ns)
{
    struct worker *k;
    int r = find_or_add(w, m->worker, &k);
    if (r < 0)
        return r;
    w->members_old = true; /* its room */
    bool differs = SET(k, m, address);
    differs |= SET(k, m, socket);
    differs |= SET(k, m, host);
    differs |= SET(k, m, boot);
    SET(k, m, version);
    take_dirs(k, &m->dirs);
    uint32_t weight = weight_of(k->capacity);
    if (differs || k->weight != weight || !k->in)
        row_changed(w, k);
    if (differs || k->weight != weight || !k->in || !k->up)
        changed(w);
    if (!k->up || !k->registered)
        log_info("worker %s registered, %u GiB", k->address, weight);
    k->weight = weight;
    k->in = k->up = k->registered = true;
    k->checked = m->checked;
    k->started_ns = m->started_ns;
    k->heard_ns = now_ns;
    return 0;
}

int master_workers_register(struct master_workers *w, const struct msg_worker_register *m, uint64_t now_ns,
                            struct msg_worker_register_answer *ret)
{
    const struct worker *k = NULL;
    if (!m->worker || !m->address.n || !FITS(k, m, address) || !FITS(k, m, socket) || !FITS(k, m, host) ||
        !FITS(k, m, boot) || !FITS(k, m, version))
        return -EINVAL;
    pthread_mutex_lock(&w->lock);
    int r = register_one(w, m, now_ns);
    if (r == 0) {
        refresh(w, now_ns);
        *ret = (struct msg_worker_register_answer){.heartbeat_ms = (uint32_t)w->o->worker_heartbeat_ms,
                                                   .map_version = w->version};
    }
    pthread_mutex_unlock(&w->lock);
    return r;
}

bool master_workers_checked(struct master_workers *w, uint64_t worker, uint32_t incarnation)
{
    pthread_mutex_lock(&w->lock);
    const struct worker *k = find(w, worker);
    bool is = !k || !k->in || k->checked >= incarnation;
    pthread_mutex_unlock(&w->lock);
    return is;
}

static void row_of(const struct worker *k, struct master_worker_row *ret)
{
    memcpy(ret->address, k->address, sizeof(ret->address));
    memcpy(ret->socket, k->socket, sizeof(ret->socket));
    memcpy(ret->host, k->host, sizeof(ret->host));
    memcpy(ret->boot, k->boot, sizeof(ret->boot));
    ret->row = (struct meta_worker_row){
        .worker = k->id,
        .weight = k->weight,
        .in = k->in,
        .address = text_of(ret->address),
        .socket = text_of(ret->socket),
        .host = text_of(ret->host),
        .boot = text_of(ret->boot),
    };
}

bool master_workers_next_row(struct master_workers *w, struct master_worker_row *ret)
{
    bool found = false;
    if (!atomic_load_explicit(&w->to_store, memory_order_relaxed))
        return false;
    pthread_mutex_lock(&w->lock);
    for (uint32_t i = 0; i < w->count && !found; i++) {
        struct worker *k = w->list[i];
        if (k->stored)
            continue;
        found = k->stored = true;
        row_of(k, ret);
    }
    w->to_store = found;
    pthread_mutex_unlock(&w->lock);
    return found;
}

void master_workers_store_again(struct master_workers *w)
{
    pthread_mutex_lock(&w->lock);
    for (uint32_t i = 0; i < w->count; i++)
        w->list[i]->stored = false;
    w->to_store = w->count > 0;
    pthread_mutex_unlock(&w->lock);
}

/* ---- drops ------------------------------------------------------------------------------------------------------------ */

/* The ring grows up to its bound; then the oldest is lost. Without memory: this one. */
static void push_drop(struct master_workers *w, struct worker *k, const struct drop *d)
{
    if (k->count == k->room && k->room < MASTER_DROPS_MAX) {
        uint32_t room = k->room ? k->room * 2 : RING_FIRST;
        struct drop *ring = malloc(room * sizeof(*ring));
        for (uint32_t i = 0; ring && i < k->count; i++)
            ring[i] = k->ring[(k->head + i) % k->room];
        if (ring) {
            free(k->ring);
            k->ring = ring;
            k->room = room;
            k->head = 0;
        }
    }
    w->drops_queued++;
    if (k->count == k->room) {
        w->drops_lost++;
        if (k->room == 0)
            return;
        k->head = (k->head + 1) % k->room;
        k->count--;
    }
    k->ring[(k->head + k->count++) % k->room] = *d;
    k->last++;
}

void master_workers_drop(struct master_workers *w, uint64_t inode, uint64_t size, uint64_t epoch)
{
    const struct drop d = {inode, size, epoch};
    pthread_mutex_lock(&w->lock);
    for (uint32_t i = 0; i < w->count; i++)
        push_drop(w, w->list[i], &d);
    pthread_mutex_unlock(&w->lock);
}

/* Carried out up to this sequence. Numbers of another leader, or of long ago, say nothing. */
static void acknowledge(struct worker *k, uint64_t dropped)
{
    uint64_t left = k->last - dropped;
    if (dropped <= k->last && left < k->count) {
        k->head = (k->head + (uint32_t)(k->count - left)) % k->room;
        k->count = (uint32_t)left;
    }
}

static int tell_drops(const struct worker *k, struct buf *texts, struct wire_list *ret)
{
    uint32_t n = min(k->count, (uint32_t)MASTER_DROPS_TOLD);
    for (uint32_t i = 0; i < n; i++) {
        const struct drop *d = &k->ring[(k->head + i) % k->room];
        struct rec_worker_drop told = {k->last - k->count + 1 + i, d->inode, d->size, d->epoch};
        int r = rec_worker_drop_append(texts, &told);
        if (r < 0)
            return r;
    }
    *ret = wire_list_of(texts, n);
    return 0;
}

/* ---- heartbeats --------------------------------------------------------------------------------------------------------- */

static int heartbeat_one(struct worker *k, struct master_workers *w, const struct msg_worker_heartbeat *m,
                         uint64_t now_ns, struct msg_worker_heartbeat_answer *ret, struct buf *texts)
{
    k->heard_ns = now_ns;
    take_dirs(k, &m->dirs);
    w->members_old = true;
    k->dirty = m->dirty_bytes;
    k->damaged_chunks = m->damaged_chunks;
    k->lost_blocks = m->lost_blocks;
    k->checked = m->checked;
    acknowledge(k, m->dropped);
    return tell_drops(k, texts, &ret->drops);
}

int master_workers_heartbeat(struct master_workers *w, const struct msg_worker_heartbeat *m, uint64_t now_ns,
                             struct msg_worker_heartbeat_answer *ret, struct buf *texts)
{
    pthread_mutex_lock(&w->lock);
    struct worker *k = find(w, m->worker);
    *ret = (struct msg_worker_heartbeat_answer){.register_again = !k || !k->registered || !k->in};
    int r = k && !ret->register_again ? heartbeat_one(k, w, m, now_ns, ret, texts) : 0;
    refresh(w, now_ns);
    ret->map_version = w->version;
    pthread_mutex_unlock(&w->lock);
    return r;
}

/* ---- the map -------------------------------------------------------------------------------------------------------------- */

static int append_worker(struct buf *texts, const struct worker *k)
{
    const struct rec_worker row = {
        .worker = k->id,
        .address = text_of(k->address),
        .socket = text_of(k->socket),
        .host = text_of(k->host),
        .boot = text_of(k->boot),
        .in = k->in,
        .up = k->up,
        .weight = k->weight,
        .capacity = k->capacity,
        .used = k->used,
    };
    return rec_worker_append(texts, &row);
}

int master_workers_map(struct master_workers *w, uint64_t known_version, uint64_t now_ns,
                       struct msg_workers_answer *ret, struct buf *texts)
{
    int r = 0;
    pthread_mutex_lock(&w->lock);
    refresh(w, now_ns);
    *ret = (struct msg_workers_answer){.map_version = w->version};
    if (known_version != w->version) {
        for (uint32_t i = 0; r == 0 && i < w->count; i++)
            r = append_worker(texts, w->list[i]);
        ret->workers = wire_list_of(texts, w->count);
    }
    pthread_mutex_unlock(&w->lock);
    return r;
}

uint64_t master_workers_version(struct master_workers *w, uint64_t now_ns)
{
    pthread_mutex_lock(&w->lock);
    refresh(w, now_ns);
    uint64_t version = w->version;
    pthread_mutex_unlock(&w->lock);
    return version;
}

/* ---- placing -------------------------------------------------------------------------------------------------------------- */

/* What is written and nowhere else cannot be evicted; the rest can. */
static bool has_room(const struct worker *k)
{
    return k->dirty < k->capacity - k->capacity / 16;
}

/* Members that take written data now. Worked out anew when anything was heard, not for each block. */
static void take_members(struct master_workers *w, uint64_t now_ns)
{
    refresh(w, now_ns);
    if (!w->members_old && w->members_version == w->version)
        return;
    for (uint32_t i = 0; i < w->count; i++) {
        const struct worker *k = w->list[i];
        w->members[i] = (struct place_member){k->id, k->weight, k->in && k->up && has_room(k), true};
    }
    w->members_old = false;
    w->members_version = w->version;
}

static bool takes_data(const struct master_workers *w, uint64_t id)
{
    uint32_t at = position(w, id);
    return at < w->count && w->list[at]->id == id && w->members[at].in;
}

uint32_t master_workers_place(struct master_workers *w, uint64_t inode, uint32_t block, uint64_t near, uint32_t max,
                              uint64_t now_ns, uint64_t *ret)
{
    uint64_t order[16];
    uint32_t n = 0;
    pthread_mutex_lock(&w->lock);
    take_members(w, now_ns);
    uint32_t found = place_order(w->members, w->count, inode, block, min(max, 16u), order);
    if (near && max && takes_data(w, near))
        ret[n++] = near;
    for (uint32_t i = 0; i < found && n < max; i++)
        if (order[i] != near)
            ret[n++] = order[i];
    pthread_mutex_unlock(&w->lock);
    return n;
}

/* ---- for people ------------------------------------------------------------------------------------------------------------- */

static const char *state_name(const struct worker *k)
{
    return !k->in ? "out" : k->up ? "up" : "down";
}

uint32_t master_workers_nodes(struct master_workers *w, uint64_t now_ns, struct buf *list)
{
    uint32_t n = 0;
    pthread_mutex_lock(&w->lock);
    refresh(w, now_ns);
    for (uint32_t i = 0; i < w->count; i++) {
        const struct worker *k = w->list[i];
        const struct rec_node_info node = {
            .node = k->id,
            .role = TEXT("worker"),
            .address = text_of(k->address),
            .state = text_of(state_name(k)),
            .version = text_of(k->version),
            .started_ns = k->started_ns,
            .capacity = k->capacity,
            .used = k->used,
            .dirty = k->dirty,
            .detail = text_of(k->trouble),
        };
        n += rec_node_info_append(list, &node) == 0;
    }
    pthread_mutex_unlock(&w->lock);
    return n;
}

void master_workers_get_stats(struct master_workers *w, uint64_t now_ns, struct master_workers_stats *ret)
{
    pthread_mutex_lock(&w->lock);
    refresh(w, now_ns);
    *ret = (struct master_workers_stats){.drops_queued = w->drops_queued, .drops_lost = w->drops_lost};
    for (uint32_t i = 0; i < w->count; i++) {
        const struct worker *k = w->list[i];
        ret->out += !k->in;
        ret->up += k->in && k->up;
        ret->down += k->in && !k->up;
        ret->drops_waiting += k->count;
        if (!k->up)
            continue;
        ret->capacity += k->capacity;
        ret->used += k->used;
        ret->dirty += k->dirty;
        ret->damaged_chunks += k->damaged_chunks;
        ret->lost_blocks += k->lost_blocks;
    }
    pthread_mutex_unlock(&w->lock);
}
