/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Attaching under file systems to directories, detaching them (the directory becomes an orphan with all that is below it,
 * purged in steps), listing them; and the rows of workers. What a mount means to other operations: meta_mount.c.
 */
#include "meta/meta_op.h"
#include "wire/meta_flags.h"

/* --- attaching ------------------------------------------------------------------------------------------------------------ */

/* The directory: *exists, or the name is free. */
static int see_mount_point(struct run *u, const struct msg_mount_add *msg, struct meta_inode *parent,
                           struct meta_inode *dir, bool *exists)
{
    int r = see_directory(u, msg->parent, parent);
    if (r == 0 && !is_root(&u->q->caller))
        r = -EPERM;
    if (r == 0 && parent->mount)
        r = -EBUSY;
    if (r < 0)
        return r;
    r = see_old_name(u, parent, msg->name, dir);
    *exists = r == 0;
    if (r == -ENOENT)
        return msg->name.n && parent->nlink ? 0 : r;
    if (r < 0)
        return r;
    if (dir->mount)
        return -EBUSY;
    if (!S_ISDIR(dir->mode))
        return -EEXIST;
    return dir->entries ? -ENOTEMPTY : 0;
}

static int check_ack(const struct run *u, uint8_t ack)
{
    if (ack > MOUNT_ACK_APPLIED)
        return -EINVAL;
    return ack && u->m->level < META_LEVEL_ACKS ? -CV_LEVEL_TOO_LOW : 0;
}

static int check_mount(const struct run *u, const struct msg_mount_add *msg)
{
    if (msg->mode < MOUNT_CACHE || msg->mode > MOUNT_SCRATCH || msg->flags & ~(uint32_t)(MOUNT_WRITABLE | MOUNT_CHECK))
        return -EINVAL;
    if (msg->path.n > META_PATH_MAX || msg->uri.n > META_PATH_MAX || msg->params.count > META_PARAMS_MAX)
        return -E2BIG;
    if ((msg->mode == MOUNT_SCRATCH) != (msg->uri.n == 0))
        return -EINVAL;
    int r = check_ack(u, msg->ack_mode);
    if (r < 0)
        return r;
    return u->m->mounts.count >= META_MOUNTS_MAX ? -ENOSPC : 0;
}

/* Params as the row has them, in room bytes. */
static int pack_params(const struct msg_mount_add *msg, uint8_t *p, uint32_t room, struct meta_mount_row *row)
{
    uint8_t *at = p;
    rec_for_each (mount_param, e, &msg->params) {
        if (!e.name.n || e.name.n > META_NAME_MAX)
            return -EINVAL;
        if (e.value.n > META_PATH_MAX || (size_t)(at - p) + e.name.n + e.value.n + 16 > room)
            return -E2BIG;
        at = meta_param_put(at, e.name, e.value);
        row->param_count++;
    }
    row->params = key_of(p, (uint32_t)(at - p));
    return meta_mount_bytes(row) > META_MOUNT_MAX ? -E2BIG : 0;
}

static void mount_add_put(struct run *u, struct meta_inode *parent, struct meta_inode *dir, bool exists,
                          struct meta_mount_row *row)
{
    uint8_t key[8], value[16];
    if (!exists) {
        const struct new_node n = {.name = row->name, .mode = S_IFDIR | 0755};
        put_new_node(u, parent, &n, dir);
        /* An administrator may be anybody who runs the masters, and speaks for root here: it belongs where it is. */
        dir->uid = parent->uid;
        dir->gid = parent->gid;
    }
    row->mount = u->m->mount_next;
    row->inode = dir->id;
    row->created_ns = u->now_ns;
    dir->mount = row->mount;
    dir->ctime_ns = (int64_t)u->now_ns;
    if (row->mode != MOUNT_SCRATCH)
        dir->flags |= INODE_LISTING_UNKNOWN;
    put_inode(u, dir);
    put_mount(u, row);
    put_row(u, META_TABLE_grant, key_of(key, meta_key_grant(1, key)),
            key_of(value, meta_limit_encode(row->mount + 1ull, value)));
    put_op(u, REDO_mount_add, dir->id, row->mount, 0);
}

int op_mount_add(struct run *u)
{
    const struct msg_mount_add *msg = &u->q->message.mount_add;
    struct msg_mount_add_answer *a = &u->q->answer.mount_add;
    struct meta_inode parent, dir;
    bool exists;
    uint8_t params[META_MOUNT_MAX];
    struct meta_mount_row row = {
        .mode = msg->mode, .flags = msg->flags, .name = msg->name, .path = msg->path, .uri = msg->uri};
    meta_mount_set_ack(&row, msg->ack_mode & 3);
    int r = see_mount_point(u, msg, &parent, &dir, &exists);
    if (r == 0)
        r = check_mount(u, msg);
    if (r == 0)
        r = pack_params(msg, params, sizeof(params), &row);
    if (r < 0 || u->dry || msg->flags & MOUNT_CHECK)
        return r;
    r = exists ? 0 : ids_left(u, 1);
    if (r == 0)
        r = put_reserve(u, NEW_NODE_ROWS + 2, 3 * PUT_INODE_BYTES + PUT_NAME_BYTES + META_MOUNT_MAX + 64);
    if (r < 0)
        return r;
    mount_add_put(u, &parent, &dir, exists, &row);
    u->result.inode = dir.id;
    u->result.other = row.mount;
    a->mount = row.mount;
    attr_fill(&a->attr, &dir);
    return 0;
}

/* --- detaching ------------------------------------------------------------------------------------------------------------ */

int op_mount_remove(struct run *u)
{
    const struct msg_mount_remove *msg = &u->q->message.mount_remove;
    struct meta_inode parent, dir;
    uint8_t key[META_KEY_MAX];
    const struct kept_row *k = kept_find(&u->m->mounts, msg->mount);
    if (!is_root(&u->q->caller))
        return -EPERM;
    if (msg->flags & ~(uint32_t)MOUNT_FORCE)
        return -EINVAL;
    if (k)
        see_depend(u, k->batch);
    if (!k || !k->now)
        return -ENOENT;
    if (k->mount.written && !(msg->flags & MOUNT_FORCE))
        return -CV_DIRTY;
    int r = see_inode(u, k->mount.inode, &dir);
    if (r == 0)
        r = see_inode(u, dir.parent, &parent);
    if (r < 0)
        return r == -ENOENT ? -CV_BAD_FORMAT : r;
    if (u->dry)
        return 0;
    r = put_reserve(u, 3 + DROP_LINK_ROWS, 2 * PUT_INODE_BYTES + 3 * PUT_NAME_BYTES);
    if (r < 0)
        return r;
    put_op(u, REDO_mount_remove, dir.id, msg->mount, 0);
    directory_changed(u, &parent, -1, -1);
    put_name(u, parent.id, k->mount.name, 0, 0);
    put_inode(u, &parent);
    int left = drop_link(u, &dir);
    put_op(u, REDO_rmdir, dir.id, parent.id, (uint64_t)left);
    put_no_row(u, META_TABLE_mount, key_of(key, meta_key_mount(msg->mount, key))); /* k is gone */
    u->result.inode = dir.id;
    return 0;
}

/* --- changing ------------------------------------------------------------------------------------------------------------- */

int op_mount_set(struct run *u)
{
    const struct msg_mount_set *msg = &u->q->message.mount_set;
    const struct kept_row *k = kept_find(&u->m->mounts, msg->mount);
    if (!is_root(&u->q->caller))
        return -EPERM;
    if (k)
        see_depend(u, k->batch);
    if (!k || !k->now)
        return -ENOENT;
    int r = check_ack(u, msg->ack_mode);
    if (r < 0 || u->dry || meta_mount_ack(&k->mount) == msg->ack_mode)
        return r;
    r = put_reserve(u, 1, META_MOUNT_MAX + 16);
    if (r < 0)
        return r;
    struct meta_mount_row row = k->mount; /* its texts are read before the row is replaced */
    meta_mount_set_ack(&row, msg->ack_mode);
    put_op(u, REDO_mount_set, row.inode, row.mount, msg->ack_mode);
    put_mount(u, &row);
    return 0;
}

/* --- listing -------------------------------------------------------------------------------------------------------------- */

static int list_mount(struct buf *to, struct buf *params, const struct meta_mount_row *row)
{
    struct text left = row->params;
    struct rec_mount_param p;
    struct rec_mount rec = {.mount = row->mount,
                            .inode = row->inode,
                            .path = row->path,
                            .uri = row->uri,
                            .mode = row->mode,
                            .flags = row->flags & (MOUNT_WRITABLE | MOUNT_CHECK | MOUNT_FORCE),
                            .created_ns = row->created_ns,
                            .ack_mode = meta_mount_ack(row)};
    int r = 0;
    params->n = 0;
    while (r == 0 && meta_param_next(&left, &p.name, &p.value))
        r = rec_mount_param_append(params, &p);
    rec.params = wire_list_of(params, row->param_count);
    return r < 0 ? r : rec_mount_append(to, &rec);
}

int op_mount_list(struct run *u)
{
    struct msg_mount_list_answer *a = &u->q->answer.mount_list;
    struct buf params cleanup(buf_fini) = {0};
    const struct kept *k = &u->m->mounts;
    uint32_t n = 0;
    int r = 0;
    for (uint32_t i = 0; i < k->count && r == 0; i++) {
        see_depend(u, k->rows[i]->batch);
        if (!k->rows[i]->now)
            continue;
        r = list_mount(&u->q->data, &params, &k->rows[i]->mount);
        n++;
    }
    a->mounts = wire_list_of(&u->q->data, n);
    return r;
}

/* --- workers -------------------------------------------------------------------------------------------------------------- */

int inner_worker(struct run *u)
{
    const struct meta_worker_row *w = u->q->worker;
    uint8_t key[META_KEY_MAX], value[META_WORKER_MAX];
    if (!w || !w->worker || w->address.n > META_NAME_MAX || w->socket.n > META_NAME_MAX || w->host.n > META_NAME_MAX ||
        w->boot.n > META_NAME_MAX)
        return -EINVAL;
    const struct kept_row *k = kept_find(&u->m->workers, w->worker);
    if (!k && u->m->workers.count >= META_WORKERS_MAX)
        return -ENOSPC;
    uint32_t n = meta_worker_encode(w, value);
    if (k)
        see_depend(u, k->batch);
    if (u->dry || (k && k->now && k->now_n == n && memcmp(k->now, value, n) == 0))
        return 0;
    int r = put_reserve(u, 1, META_WORKER_MAX + 16);
    if (r < 0)
        return r;
    put_row(u, META_TABLE_worker, key_of(key, meta_key_id(META_TABLE_worker, w->worker, key)), key_of(value, n));
    put_op(u, REDO_worker, w->worker, 0, w->in);
    return 0;
}
