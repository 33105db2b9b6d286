/* SPDX-License-Identifier: Apache-2.0 */
#include "meta/master_mounts.h"

#include <errno.h>

#include "wire/meta_flags.h"

static const struct {
    const char *name;
    bool secret;
} params[] = {
#define UFS_PARAM(scheme, name, value, secret, help) {#name, secret},
#include "ufs/ufs_params.def"
#undef UFS_PARAM
};

bool master_mounts_is_secret(struct text param)
{
    bool known = false;
    for (size_t i = 0; i < array_size(params); i++) {
        if (!text_equal(param, text_of(params[i].name)))
            continue;
        known = true;
        if (params[i].secret) /* of any scheme */
            return true;
    }
    return !known;
}

uint64_t master_mounts_version(const struct master_core *c)
{
    return (uint64_t)c->leading << 32 | (uint32_t)meta_mounts_version(c->meta);
}

static int copy(struct buf *texts, struct text *t)
{
    size_t at = texts->n;
    int r = buf_append(texts, t->p, t->n);
    *t = (struct text){(const char *)texts->p + at, t->n};
    return r;
}

/* A row as a record; its params go into `params`, everything else borrows from the row. */
static int record_of(const struct meta_mount_row *row, struct buf *list, struct rec_mount *ret)
{
    struct text left = row->params;
    struct rec_mount_param p;
    int r = 0;
    list->n = 0;
    while (r == 0 && meta_param_next(&left, &p.name, &p.value))
        r = rec_mount_param_append(list, &p);
    *ret = (struct rec_mount){
        .mount = row->mount,
        .inode = row->inode,
        .path = row->path,
        .uri = row->uri,
        .mode = row->mode,
        .flags = row->flags & (MOUNT_WRITABLE | MOUNT_CHECK | MOUNT_FORCE),
        .ack_mode = meta_mount_ack(row),
        .params = wire_list_of(list, row->param_count),
        .created_ns = row->created_ns,
    };
    return r;
}

struct collect {
    struct buf *texts, list;
    uint32_t count;
    int error;
};

static bool collect_one(void *arg, const struct meta_mount_row *row)
{
    struct collect *c = arg;
    struct rec_mount m;
    c->error = record_of(row, &c->list, &m);
    if (c->error == 0)
        c->error = rec_mount_append(c->texts, &m);
    c->count++;
    return c->error == 0;
}

int master_mounts_all(const struct master_core *core, struct buf *texts, struct wire_list *ret)
{
    struct collect c = {.texts = texts};
    meta_mounts(core->meta, collect_one, &c);
    buf_fini(&c.list);
    *ret = wire_list_of(texts, c.count);
    return c.error;
}

int master_mounts_describe(void *arg, uint32_t mount, struct rec_mount *ret, struct buf *texts)
{
    struct master_core *c = arg;
    struct meta_mount_row row;
    struct buf list = {0};
    int r = -ENOENT;
    master_core_read_lock(c);
    if (meta_mount_find(c->meta, mount, &row)) {
        r = record_of(&row, &list, ret);
        size_t room = row.uri.n + row.path.n + list.n;
        if (r == 0)
            r = buf_reserve(texts, room); /* so that what is copied does not move */
        if (r == 0) {
            copy(texts, &ret->uri);
            copy(texts, &ret->path);
            struct text packed = {(const char *)list.p, (uint32_t)list.n};
            copy(texts, &packed);
            ret->params.p = (const uint8_t *)packed.p;
        }
    }
    master_core_unlock(c);
    buf_fini(&list);
    return r;
}

static int mask_one(struct master_ufs *ufs, struct rec_mount *m, struct buf *list, struct buf *failed)
{
    int r = 0;
    list->n = failed->n = 0;
    rec_for_each (mount_param, p, &m->params) {
        if (master_mounts_is_secret(p.name))
            p.value = TEXT("***");
        if (r == 0)
            r = rec_mount_param_append(list, &p);
    }
    if (r == 0)
        r = master_ufs_failing(ufs, m->mount, failed);
    m->params = wire_list_of(list, m->params.count);
    m->failed = (struct text){(const char *)failed->p, (uint32_t)failed->n};
    return r;
}

int master_mounts_mask(struct master_ufs *ufs, const struct wire_list *mounts, struct buf *texts, struct wire_list *ret)
{
    struct buf list = {0}, failed = {0};
    int r = 0;
    rec_for_each (mount, m, mounts) {
        if (r == 0)
            r = mask_one(ufs, &m, &list, &failed);
        if (r == 0)
            r = rec_mount_append(texts, &m);
    }
    *ret = wire_list_of(texts, mounts->count);
    buf_fini(&list);
    buf_fini(&failed);
    return r;
}
