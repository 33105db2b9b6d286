/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What rows mean for what is always in memory: sessions, their slots, mounts, workers, grants, orphans to be purged. Told in
 * one place: row_now() when a row is executed, undone or applied, row_committed() when it is committed or applied.
 */
#include "base/log.h"
#include "meta/meta_core.h"

/* --- orphans --------------------------------------------------------------------------------------------------------------- */

void purge_wanted(struct meta *m, uint64_t inode)
{
    if (m->purge_count == PURGE_RING) { /* a walk over all orphans will find it */
        m->purge_scan = true;
        m->purge_cursor = 0;
        return;
    }
    m->purge_ring[(m->purge_first + m->purge_count++) % PURGE_RING] = inode;
}

/* --- sessions, slots, handles ------------------------------------------------------------------------------------------------ */

/* The session and slot number of a slot's key, or the session of a session's. */
static struct session *key_session(const struct meta *m, const struct row *r)
{
    return session_find(&m->sessions, get_be64(r->key + 1));
}

static void session_now(struct meta *m, struct session *s, bool open, uint32_t batch)
{
    if (open != s->now_open)
        m->sessions.open_sessions += open ? 1 : (uint64_t)-1;
    s->now_open = open;
    s->batch = batch;
}

/* A slot's row is what was executed last; r NULL: no row in the layers, so what is committed. */
static void slot_restore(struct slot *slot, const struct row *r)
{
    slot->error = 0;
    slot->batch = r ? r->batch : 0;
    slot->now = slot->committed;
    if (r && (r->deleted || meta_slot_decode(row_value(r), &slot->now) < 0))
        slot->now = (struct meta_slot_row){0};
}

static bool slots_forget(void *arg, struct session *s)
{
    struct meta *m = arg;
    uint8_t key[META_KEY_MAX];
    for (uint32_t i = 0; i < s->slot_count; i++) {
        struct text k = key_of(key, meta_key_slot(s->link.key, i, key));
        if (s->slots[i])
            slot_restore(s->slots[i], layers_find(m, META_TABLE_slot, k, row_hash(META_TABLE_slot, k)));
    }
    return true;
}

void slots_forget_all(struct meta *m)
{
    session_each(&m->sessions, slots_forget, m);
}

static void session_close_handles(struct meta *m, struct session *s)
{
    while (!list_empty(&s->handles)) {
        struct handle *h = list_entry(s->handles.next, struct handle, of_session);
        uint64_t inode = h->by_inode.key;
        bool orphan = h->orphan;
        const struct meta_fence f = {inode, h->granted, h->granted_to};
        if (f.from && m->leading && buf_append(&m->fences, &f, sizeof(f)) < 0)
            log_warn(-ENOMEM, "take back what an ended session may write");
        handle_remove(&m->sessions, h);
        if (orphan)
            purge_wanted(m, inode);
    }
}

static void session_committed(struct meta *m, struct session *s, bool open)
{
    s->committed_open = open;
    if (!open)
        session_close_handles(m, s);
    session_settle(&m->sessions, s);
}

int meta_reassert(struct meta *m, uint64_t session, uint64_t inode, uint64_t handle, uint32_t flags)
{
    struct session *s = session_find(&m->sessions, session);
    struct handle *h;
    if (!s || !s->now_open)
        return -CV_SESSION_ENDED;
    if (handle_find(&m->sessions, handle))
        return -EEXIST;
    int r = handle_add(&m->sessions, s, handle, inode, flags, &h);
    if (r == 0)
        h->orphan = true; /* perhaps; whether it is one, purging will see */
    return r;
}

/* --- mounts and workers ------------------------------------------------------------------------------------------------------ */

static struct kept *kept_of(struct meta *m, const struct row *r, uint64_t *id)
{
    *id = r->table == META_TABLE_mount ? get_be32(r->key + 1) : get_be64(r->key + 1);
    return r->table == META_TABLE_mount ? &m->mounts : &m->workers;
}

static struct text value_or_none(const struct row *r)
{
    return r->deleted ? (struct text){NULL, 0} : row_value(r);
}

static int kept_row_now(struct meta *m, const struct row *r, const struct row *top)
{
    uint64_t id;
    struct kept *k = kept_of(m, r, &id);
    return top ? kept_now(k, id, value_or_none(top), top->batch) : kept_undone(k, id);
}

static void kept_row_committed(struct meta *m, const struct row *r)
{
    uint64_t id;
    struct kept *k = kept_of(m, r, &id);
    if (kept_committed(k, id, value_or_none(r)) < 0)
        log_fatal(-ENOMEM, "keep a mount or worker");
}

/* --- any row ------------------------------------------------------------------------------------------------------------------- */

void row_now(struct meta *m, const struct row *r, const struct row *top)
{
    struct session *s;
    struct slot *slot;
    uint64_t limit;
    switch (r->table) {
    case META_TABLE_session:
        s = key_session(m, r);
        if (!s && top && !top->deleted && session_add(&m->sessions, get_be64(r->key + 1), row_value(top), &s) < 0)
            log_fatal(-ENOMEM, "keep a session");
        if (!s)
            break;
        session_now(m, s, top ? !top->deleted : s->committed_open, top ? top->batch : 0);
        if (!s->now_open && !s->committed_open)
            session_close_handles(m, s);
        session_settle(&m->sessions, s);
        break;
    case META_TABLE_slot:
        s = key_session(m, r);
        if (s && session_slot(s, get_be16(r->key + 9), &slot) == 0)
            slot_restore(slot, top);
        break;
    case META_TABLE_grant:
        if (!top || meta_limit_decode(row_value(top), &limit) < 0)
            limit = r->key[1] ? m->mount_limit : m->id_limit;
        if (r->key[1])
            m->mount_next = (uint32_t)limit;
        else
            m->id_asked = limit;
        break;
    case META_TABLE_mount:
    case META_TABLE_worker:
        if (kept_row_now(m, r, top) < 0)
            log_fatal(-ENOMEM, "keep a mount or worker");
        break;
    default: break;
    }
}

void row_committed(struct meta *m, const struct row *r)
{
    struct session *s;
    struct slot *slot;
    uint64_t limit;
    switch (r->table) {
    case META_TABLE_inode:
        if (get_be64(r->key) == META_ROOT)
            m->root_committed = true;
        break;
    case META_TABLE_session:
        s = key_session(m, r);
        if (s)
            session_committed(m, s, !r->deleted);
        break;
    case META_TABLE_slot:
        s = key_session(m, r);
        if (!s || session_slot(s, get_be16(r->key + 9), &slot) < 0)
            break;
        if (r->deleted || meta_slot_decode(row_value(r), &slot->committed) < 0)
            slot->committed = (struct meta_slot_row){0};
        break;
    case META_TABLE_grant:
        if (meta_limit_decode(row_value(r), &limit) < 0)
            log_fatal(-CV_BAD_FORMAT, "grant");
        if (r->key[1])
            m->mount_limit = (uint32_t)limit;
        else
            m->id_limit = limit;
        break;
    case META_TABLE_mount:
    case META_TABLE_worker: kept_row_committed(m, r); break;
    default: break;
    }
}

void row_loaded(struct meta *m, const struct row *r)
{
    row_now(m, r, r);
    row_committed(m, r);
}
