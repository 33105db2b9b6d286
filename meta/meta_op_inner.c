/* SPDX-License-Identifier: Apache-2.0 */
/* Sessions coming and going, and what the master asks of itself: the root, ids, the removal of orphans. */
#include "meta/meta_op.h"

#define PURGE_ROWS  1000u
#define PURGE_PAGE  64u
#define PURGE_NAMES 250u

/* --- sessions --------------------------------------------------------------------------------------------------------------- */

int op_session_open(struct run *u)
{
    const struct msg_session_open *msg = &u->q->message.session_open;
    struct msg_session_open_answer *a = &u->q->answer.session_open;
    uint8_t key[META_KEY_MAX], value[1024];
    if (msg->host.n > META_NAME_MAX || msg->program.n > META_NAME_MAX || msg->mount_point.n > META_NAME_MAX)
        return -EINVAL;
    if (!u->m->has_root)
        return -CV_NOT_FORMATTED;
    if (u->dry)
        return 0;
    int r = ids_left(u, 1);
    if (r == 0)
        r = put_reserve(u, 1, sizeof(value) + 16);
    if (r < 0)
        return r;
    uint32_t slots = msg->slots ? min(msg->slots, u->m->options.slots) : u->m->options.slots;
    const struct meta_session_row row = {.slots = slots,
                                         .pid = msg->pid,
                                         .opened_ns = u->now_ns,
                                         .host = msg->host,
                                         .program = msg->program,
                                         .mount_point = msg->mount_point};
    uint64_t id = id_take(u);
    put_row(u, META_TABLE_session, key_of(key, meta_key_id(META_TABLE_session, id, key)),
            key_of(value, meta_session_encode(&row, value)));
    put_op(u, REDO_session_open, id, 0, 0);
    a->session = id;
    a->slots = slots;
    a->lease_ms = u->m->options.lease_ms;
    return 0;
}

/* The session's row and those of its slots go; its handles when that is committed. */
static int end_session(struct run *u, uint64_t id)
{
    struct meta *m = u->m;
    uint8_t key[META_KEY_MAX];
    struct session *s = session_find(&m->sessions, id);
    if (s)
        see_depend(u, s->batch);
    if (!s || !s->now_open)
        return id && id < max(m->next_id, m->id_limit) ? -CV_SESSION_ENDED : -CV_SESSION_UNKNOWN;
    if (u->dry)
        return 0;
    int r = put_reserve(u, s->slot_count + 1, (s->slot_count + 1) * 16ull);
    if (r < 0)
        return r;
    for (uint32_t i = 0; i < s->slot_count; i++)
        if (s->slots[i])
            put_no_row(u, META_TABLE_slot, key_of(key, meta_key_slot(id, i, key)));
    put_no_row(u, META_TABLE_session, key_of(key, meta_key_id(META_TABLE_session, id, key)));
    put_op(u, REDO_session_close, id, 0, 0);
    return 0;
}

int op_session_close(struct run *u)
{
    return end_session(u, u->q->message.session_close.session);
}

int inner_end_session(struct run *u)
{
    return end_session(u, u->q->arg);
}

/* --- the beginning ------------------------------------------------------------------------------------------------------------ */

int inner_format(struct run *u)
{
    struct meta *m = u->m;
    if (m->has_root)
        return -EEXIST;
    if (u->dry)
        return 0;
    int r = put_reserve(u, 2, PUT_INODE_BYTES);
    if (r < 0)
        return r;
    struct meta_inode root = {.id = META_ROOT, .mode = S_IFDIR | 0755, .nlink = 2, .parent = META_ROOT, .change = 1};
    root.mtime_ns = root.atime_ns = root.ctime_ns = root.btime_ns = (int64_t)u->now_ns;
    put_inode(u, &root);
    tree_set_complete(&m->tree, META_ROOT, true);
    put_op(u, REDO_format, META_ROOT, u->q->arg, 0);
    /* Of a later incarnation: an earlier one may have had a namespace that this log knows nothing of. */
    m->next_id = m->id_asked = max(max(m->id_asked, m->next_id), incarnation_base((uint32_t)u->q->arg));
    put_grant(u);
    m->now = (struct totals){.inodes = 1, .directories = 1};
    m->incarnation = (uint32_t)u->q->arg;
    m->level = m->options.level_max;
    m->has_root = true;
    return 0;
}

/* The state is of an earlier incarnation: it may have lost what came after it. No id and no epoch given then is given
 * again; epochs: next_epoch(). */
int inner_incarnation(struct run *u)
{
    struct meta *m = u->m;
    uint8_t key[4], value[16];
    if (u->dry || u->q->arg <= m->incarnation)
        return 0;
    int r = put_reserve(u, 2, 64);
    if (r < 0)
        return r;
    uint64_t steps = u->q->arg - m->incarnation;
    m->incarnation = (uint32_t)u->q->arg;
    m->next_id = max(m->id_asked, m->next_id) + steps * INCARNATION_STEP;
    put_grant(u);
    put_row(u, META_TABLE_grant, key_of(key, meta_key_grant(1, key)),
            key_of(value, meta_limit_encode(m->mount_next + (steps << 16), value)));
    return 0;
}

/* The batch this is in is of that level already: who does not know it stops there. */
int op_upgrade(struct run *u)
{
    const struct msg_upgrade *msg = &u->q->message.upgrade;
    struct meta *m = u->m;
    if (!is_root(&u->q->caller))
        return -EPERM;
    u->q->answer.upgrade.level = max(m->level, msg->level);
    if (msg->level > m->options.level_max)
        return -CV_FORMAT_TOO_NEW;
    if (u->dry || msg->level <= m->level)
        return 0;
    int r = put_reserve(u, 1, 64);
    if (r < 0)
        return r;
    m->level = msg->level;
    put_grant(u); /* a batch has rows */
    put_op(u, REDO_level, 0, 0, msg->level);
    return 0;
}

int inner_grant(struct run *u)
{
    struct meta *m = u->m;
    if (u->dry || !m->leading || m->id_asked - m->next_id >= m->options.id_grant / 2)
        return 0;
    int r = put_reserve(u, 1, 64);
    if (r == 0)
        put_grant(u);
    return r;
}

/* --- orphans -------------------------------------------------------------------------------------------------------------------- */

/* Find orphans nobody holds open, a page at a time. */
static int purge_walk(struct run *u)
{
    struct meta *m = u->m;
    struct scan s;
    struct text k, value;
    uint8_t key[META_KEY_MAX];
    uint64_t last = 0;
    uint32_t found = 0;
    int r = scan_init(&s, u, META_TABLE_orphan, key_of(key, meta_key_id(META_TABLE_orphan, m->purge_cursor, key)), 1,
                      PURGE_PAGE, true);
    while (r == 0 && found < PURGE_PAGE && (r = scan_next(&s, &k, &value)) == 0) {
        last = get_be64(k.p + 1);
        found++;
        if (!u->dry && !handle_any(&m->sessions, last))
            purge_wanted(m, last);
    }
    scan_fini(&s);
    if (r == -CV_NOT_PREPARED && found)
        r = 0;
    if (r < 0 && r != -ENODATA)
        return r;
    if (!u->dry) {
        m->purge_scan = r != -ENODATA;
        m->purge_cursor = m->purge_scan ? last + 1 : 0;
    }
    return 0;
}

/* See, or if `remove` remove, up to *left rows of a table that belong to the inode; *left: what remains of that. */
static int purge_rows(struct run *u, enum meta_table table, struct text prefix, bool remove, uint32_t *left)
{
    struct scan s;
    struct text k, value;
    int r = scan_init(&s, u, table, prefix, prefix.n, PURGE_ROWS, true);
    while (r == 0 && *left && (r = scan_next(&s, &k, &value)) == 0) {
        uint8_t key[META_KEY_MAX];
        memcpy(key, k.p, k.n);
        if (remove)
            put_no_row(u, table, key_of(key, k.n));
        --*left;
    }
    scan_fini(&s);
    return r == -ENODATA ? 0 : r;
}

static int purge_content(struct run *u, const struct meta_inode *i, bool remove, uint32_t *left)
{
    uint8_t key[META_KEY_MAX];
    int r = 0;
    *left = PURGE_ROWS;
    if (i->flags & INODE_HAS_EXTENTS)
        r = purge_rows(u, META_TABLE_extent, key_of(key, meta_key_inode(i->id, key)), remove, left);
    if (r == 0 && i->xattr_count)
        r = purge_rows(u, META_TABLE_xattr, key_of(key, meta_key_xattr(i->id, (struct text){0}, key)), remove, left);
    return r;
}

static void purge_inode(struct run *u, const struct meta_inode *i)
{
    struct meta *m = u->m;
    uint8_t key[META_KEY_MAX];
    if (i->flags & INODE_HAS_INLINE)
        put_no_row(u, META_TABLE_inline, key_of(key, meta_key_id(META_TABLE_inline, i->id, key)));
    put_no_row(u, META_TABLE_orphan, key_of(key, meta_key_id(META_TABLE_orphan, i->id, key)));
    put_no_inode(u, i);
    m->now.inodes--;
    m->now.directories -= S_ISDIR(i->mode);
    m->now.bytes -= i->size;
    m->now.orphans--;
}

/* --- directories that were taken off with all that is below them ------------------------------------------------------------- */

struct purge_step {
    uint32_t names;
    uint64_t bytes; /* of rows to put */
};

static void purge_name(struct run *u, const struct meta_inode *dir, struct text name, struct meta_inode *child)
{
    put_name(u, dir->id, name, 0, 0);
    if (!child->id)
        return;
    int left = drop_link(u, child);
    put_op(u, S_ISDIR(child->mode) ? REDO_rmdir : REDO_unlink, child->id, dir->id, (uint64_t)left);
}

/* See, or if `remove` remove, the first names of an orphan directory; its directories become orphans themselves. */
static int purge_names(struct run *u, const struct meta_inode *dir, bool remove, struct purge_step *step)
{
    struct scan s;
    uint8_t key[META_KEY_MAX];
    struct text k, value;
    struct meta_dentry d;
    struct meta_inode child;
    int missing = 0;
    *step = (struct purge_step){0};
    int r = scan_init(&s, u, META_TABLE_dentry, key_of(key, meta_key_inode(dir->id, key)), 8, PURGE_NAMES, false);
    while (r == 0 && step->names < PURGE_NAMES && (r = scan_next(&s, &k, &value)) == 0) {
        uint32_t mark = see_mark(u);
        r = meta_dentry_decode(value, &d);
        memcpy(key, k.p + 8, k.n - 8);
        uint32_t n = k.n - 8;
        if (r == 0)
            r = see_inode(u, d.child, &child);
        if (r == -CV_NOT_PREPARED)
            missing = r;
        if (r == -ENOENT)
            child = (struct meta_inode){0}; /* a name of nothing: damage, but it has to go */
        if (r == -CV_NOT_PREPARED || r == -ENOENT)
            r = 0;
        if (r == 0 && remove)
            purge_name(u, dir, key_of(key, n), &child);
        step->names++;
        step->bytes += 512ull + 2 * META_NAME_MAX + (missing ? 0 : child.target.n + child.ufs_etag.n + child.ufs_at.n);
        see_release(u, mark);
    }
    scan_fini(&s);
    if (r == -ENODATA)
        r = 0;
    return r < 0 ? r : missing;
}

static int purge_directory(struct run *u, struct meta_inode *dir)
{
    struct purge_step step;
    int r = purge_names(u, dir, false, &step);
    if (r < 0 || u->dry)
        return r;
    r = put_reserve(u, step.names * (1 + DROP_LINK_ROWS) + 1, step.bytes + PUT_INODE_BYTES);
    if (r == 0)
        r = put_reserve_ops(u, step.names + 1);
    if (r < 0)
        return r;
    r = purge_names(u, dir, true, &step);
    assert(r == 0);
    dir->entries = step.names < PURGE_NAMES ? 0 : dir->entries - min(dir->entries, (uint64_t)step.names);
    dir->change++;
    put_inode(u, dir);
    put_op(u, REDO_purge, dir->id, 0, 1);
    purge_wanted(u->m, dir->id);
    return 0;
}

int inner_purge(struct run *u)
{
    struct meta *m = u->m;
    struct meta_inode i;
    uint32_t left;
    if (!u->q->arg)
        return purge_walk(u);
    int r = see_inode(u, u->q->arg, &i);
    if (r == -ENOENT || (r == 0 && !(i.flags & INODE_ORPHAN)))
        return 0;
    if (r == 0 && S_ISDIR(i.mode) && i.entries)
        return purge_directory(u, &i);
    if (r == 0)
        r = purge_content(u, &i, false, &left);
    if (r < 0 || u->dry)
        return r;
    if (handle_any(&m->sessions, i.id))
        return -EBUSY;
    r = put_reserve(u, PURGE_ROWS - left + 4, (PURGE_ROWS - left + 4ull) * META_KEY_MAX);
    if (r < 0)
        return r;
    r = purge_content(u, &i, true, &left);
    assert(r == 0);
    if (left)
        purge_inode(u, &i);
    else
        purge_wanted(m, i.id);
    put_op(u, REDO_purge, i.id, i.base_version || i.epoch, !left);
    return 0;
}
