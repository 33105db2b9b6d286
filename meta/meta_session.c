/* SPDX-License-Identifier: Apache-2.0 */
#include "meta/meta_session.h"

#include <assert.h>
#include <fcntl.h>
#include <stddef.h>
#include <stdlib.h>

#include "base/cleanup.h"
#include "base/error.h"
#include "base/hash.h"

/* --- links ----------------------------------------------------------------------------------------------------------- */

static int table_init(struct link_table *t)
{
    *t = (struct link_table){.buckets = calloc(64, sizeof(*t->buckets)), .mask = 63};
    return t->buckets ? 0 : -ENOMEM;
}

static struct link **bucket(const struct link_table *t, uint64_t key)
{
    return &t->buckets[hash_u64(key) & t->mask];
}

static struct link *table_find(const struct link_table *t, uint64_t key)
{
    struct link *l = *bucket(t, key);
    while (l && l->key != key)
        l = l->next;
    return l;
}

/* Twice the buckets; without memory the chains get longer. */
static void table_grow(struct link_table *t)
{
    struct link_table wide = {
        .buckets = calloc(2 * ((size_t)t->mask + 1), sizeof(*t->buckets)), .mask = 2 * t->mask + 1, .count = t->count};
    if (!wide.buckets)
        return;
    for (uint32_t i = 0; i <= t->mask; i++)
        for (struct link *l = t->buckets[i], *next; l; l = next) {
            struct link **to = bucket(&wide, l->key);
            next = l->next;
            l->next = *to;
            *to = l;
        }
    free(t->buckets);
    *t = wide;
}

static void table_add(struct link_table *t, struct link *l, uint64_t key)
{
    if (t->count++ > t->mask)
        table_grow(t);
    struct link **to = bucket(t, key);
    l->key = key;
    l->next = *to;
    *to = l;
}

static void table_remove(struct link_table *t, struct link *l)
{
    struct link **at = bucket(t, l->key);
    while (*at != l) {
        assert(*at);
        at = &(*at)->next;
    }
    *at = l->next;
    t->count--;
}

/* --- sessions -------------------------------------------------------------------------------------------------------- */

int session_table_init(struct session_table *t)
{
    *t = (struct session_table){0};
    pool_init(&t->handle_pool, sizeof(struct handle), 64u << 10, 0);
    if (table_init(&t->sessions) < 0 || table_init(&t->handles) < 0 || table_init(&t->inodes) < 0) {
        session_table_fini(t);
        return -ENOMEM;
    }
    return 0;
}

static void session_free(struct session *s)
{
    for (uint32_t i = 0; i < s->slot_count; i++)
        free(s->slots[i]);
    free(s->slots);
    free(s->row);
    free(s);
}

void session_table_fini(struct session_table *t)
{
    for (uint32_t i = 0; t->sessions.buckets && i <= t->sessions.mask; i++)
        while (t->sessions.buckets[i]) {
            struct session *s = container_of(t->sessions.buckets[i], struct session, link);
            t->sessions.buckets[i] = s->link.next;
            session_free(s);
        }
    free(t->sessions.buckets);
    free(t->handles.buckets);
    free(t->inodes.buckets);
    pool_fini(&t->handle_pool);
    *t = (struct session_table){0};
}

struct session *session_find(const struct session_table *t, uint64_t id)
{
    struct link *l = table_find(&t->sessions, id);
    return l ? container_of(l, struct session, link) : NULL;
}

int session_add(struct session_table *t, uint64_t id, struct text row, struct session **ret)
{
    struct meta_session_row decoded;
    int r = meta_session_decode(row, &decoded);
    if (r < 0)
        return r;
    assert(!session_find(t, id));
    struct session *s = calloc(1, sizeof(*s));
    if (!s)
        return -ENOMEM;
    s->slots = calloc(decoded.slots ? decoded.slots : 1, sizeof(*s->slots));
    s->row = malloc(row.n);
    if (!s->slots || !s->row) {
        session_free(s);
        return -ENOMEM;
    }
    memcpy(s->row, row.p, row.n);
    s->row_n = row.n;
    s->slot_count = decoded.slots;
    s->told = true;
    list_init(&s->handles);
    table_add(&t->sessions, &s->link, id);
    *ret = s;
    return 0;
}

void session_settle(struct session_table *t, struct session *s)
{
    if (s->now_open || s->committed_open)
        return;
    assert(list_empty(&s->handles));
    session_has_told(t, s);
    table_remove(&t->sessions, &s->link);
    session_free(s);
}

void session_has_told(struct session_table *t, struct session *s)
{
    t->untold -= !s->told;
    s->told = true;
}

static bool forget_told(void *arg, struct session *s)
{
    s->told = false;
    return true;
}

void session_forget_told(struct session_table *t)
{
    session_each(t, forget_told, NULL);
    t->untold = t->sessions.count;
}

void session_each(const struct session_table *t, bool (*each)(void *arg, struct session *s), void *arg)
{
    for (uint32_t i = 0; i <= t->sessions.mask; i++)
        for (struct link *l = t->sessions.buckets[i]; l; l = l->next)
            if (!each(arg, container_of(l, struct session, link)))
                return;
}

int session_slot(struct session *s, uint32_t slot, struct slot **ret)
{
    if (slot >= s->slot_count)
        return -CV_SLOT_BAD;
    if (!s->slots[slot] && !(s->slots[slot] = calloc(1, sizeof(struct slot))))
        return -ENOMEM;
    *ret = s->slots[slot];
    return 0;
}

const struct slot *session_slot_peek(const struct session *s, uint32_t slot)
{
    return slot < s->slot_count ? s->slots[slot] : NULL;
}

/* --- handles --------------------------------------------------------------------------------------------------------- */

int handle_add(struct session_table *t, struct session *s, uint64_t handle, uint64_t inode, uint32_t flags,
               struct handle **ret)
{
    if (s->handle_count >= SESSION_HANDLES_MAX)
        return -ENFILE;
    struct handle *h = pool_alloc(&t->handle_pool);
    if (!h)
        return -ENOMEM;
    *h = (struct handle){.session = s, .flags = flags};
    table_add(&t->handles, &h->by_id, handle);
    table_add(&t->inodes, &h->by_inode, inode);
    list_push_back(&s->handles, &h->of_session);
    s->handle_count++;
    *ret = h;
    return 0;
}

struct handle *handle_find(const struct session_table *t, uint64_t handle)
{
    struct link *l = table_find(&t->handles, handle);
    return l ? container_of(l, struct handle, by_id) : NULL;
}

bool handle_any(const struct session_table *t, uint64_t inode)
{
    return table_find(&t->inodes, inode) != NULL;
}

void handle_remove(struct session_table *t, struct handle *h)
{
    table_remove(&t->handles, &h->by_id);
    table_remove(&t->inodes, &h->by_inode);
    list_remove(&h->of_session);
    h->session->handle_count--;
    pool_release(&t->handle_pool, h);
}

void handle_set_orphan(struct session_table *t, uint64_t inode)
{
    for (struct link *l = table_find(&t->inodes, inode); l; l = l->next)
        if (l->key == inode)
            container_of(l, struct handle, by_inode)->orphan = true;
}

bool handle_writes(const struct handle *h)
{
    return (h->flags & O_ACCMODE) != O_RDONLY;
}

bool handle_shared(const struct session_table *t, uint64_t inode, uint64_t session)
{
    for (struct link *l = table_find(&t->inodes, inode); l; l = l->next) {
        const struct handle *h = container_of(l, struct handle, by_inode);
        if (l->key == inode && h->session->link.key != session && handle_writes(h))
            return true;
    }
    return false;
}

uint64_t handle_granted(const struct session_table *t, uint64_t inode, uint64_t session)
{
    uint64_t from = 0;
    for (struct link *l = table_find(&t->inodes, inode); l; l = l->next) {
        const struct handle *h = container_of(l, struct handle, by_inode);
        if (l->key == inode && h->session->link.key == session && h->granted && (!from || h->granted < from))
            from = h->granted;
    }
    return from;
}

void handle_end_grants(struct session_table *t, uint64_t inode, uint64_t but_session)
{
    for (struct link *l = table_find(&t->inodes, inode); l; l = l->next) {
        struct handle *h = container_of(l, struct handle, by_inode);
        if (l->key == inode && h->session->link.key != but_session)
            h->granted = 0;
    }
}
