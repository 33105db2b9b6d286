/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Mounts: under file systems attached to directories. The directory's inode and everything made or imported below it name
 * the mount; mounts do not nest, and neither a mount's directory nor one above it is renamed or removed, so its path stays
 * true.
 *
 * Dirty: the row says that something below was changed since attaching, ever, content or names; never too little.
 */
#include "meta/meta_core.h"
#include "wire/meta_flags.h"

bool read_only(const struct run *u, uint32_t mount)
{
    const struct kept_row *r = mount ? kept_find(&u->m->mounts, mount) : NULL;
    if (!mount)
        return false;
    return !r || !r->now || (r->mount.mode == MOUNT_CACHE && !(r->mount.flags & MOUNT_WRITABLE));
}

bool has_ufs(const struct run *u, uint32_t mount)
{
    const struct kept_row *r = mount ? kept_find(&u->m->mounts, mount) : NULL;
    return r && r->now && r->mount.mode != MOUNT_SCRATCH;
}

bool is_mirrored(const struct run *u, uint32_t mount)
{
    const struct kept_row *r = mount ? kept_find(&u->m->mounts, mount) : NULL;
    return r && r->now && r->mount.mode == MOUNT_FS;
}

bool listed_whole(const struct run *u, uint32_t mount)
{
    return is_mirrored(u, mount) || !read_only(u, mount);
}

void put_mount(struct run *u, const struct meta_mount_row *row)
{
    uint8_t key[META_KEY_MAX], value[META_MOUNT_MAX];
    put_row(u, META_TABLE_mount, key_of(key, meta_key_mount(row->mount, key)),
            key_of(value, meta_mount_encode(row, value)));
}

void mount_written(struct run *u, uint32_t mount)
{
    const struct kept_row *r = kept_find(&u->m->mounts, mount);
    if (!r || !r->now || r->mount.written)
        return;
    struct meta_mount_row row = r->mount; /* its texts are read before the row is replaced */
    row.written = true;
    put_mount(u, &row);
}

int is_above(struct run *u, uint64_t ancestor, const struct meta_inode *below)
{
    struct meta_inode i = *below;
    uint32_t mark = see_mark(u);
    for (;;) {
        if (i.id == ancestor)
            return 1;
        if (i.id == META_ROOT || i.nlink == 0)
            return 0;
        int r = see_inode(u, i.parent, &i);
        see_release(u, mark);
        if (r < 0)
            return r == -ENOENT ? -CV_BAD_FORMAT : r;
    }
}

int is_above_mount(struct run *u, uint64_t directory)
{
    const struct kept *k = &u->m->mounts;
    struct meta_inode i;
    for (uint32_t n = 0; n < k->count; n++) {
        uint32_t mark = see_mark(u);
        if (!k->rows[n]->now)
            continue;
        int r = see_inode(u, k->rows[n]->mount.inode, &i);
        if (r == 0)
            r = is_above(u, directory, &i);
        see_release(u, mark);
        if (r != 0 && r != -ENOENT)
            return r;
    }
    return 0;
}

/* --- for the daemon: mounts and workers as they are committed --------------------------------------------------------------- */

bool meta_mount_find(const struct meta *m, uint32_t mount, struct meta_mount_row *ret)
{
    const struct kept_row *r = kept_find(&m->mounts, mount);
    return r && r->committed && meta_mount_decode(mount, key_of(r->committed, r->committed_n), ret) == 0;
}

void meta_mounts(const struct meta *m, bool (*each)(void *arg, const struct meta_mount_row *row), void *arg)
{
    struct meta_mount_row row;
    for (uint32_t i = 0; i < m->mounts.count; i++)
        if (meta_mount_find(m, (uint32_t)m->mounts.rows[i]->id, &row) && !each(arg, &row))
            return;
}

uint32_t meta_acks(const struct meta *m)
{
    uint32_t acks = 0;
    for (uint32_t i = 0; i < m->mounts.count; i++)
        if (m->mounts.rows[i]->now)
            acks |= 1u << meta_mount_ack(&m->mounts.rows[i]->mount);
    return acks;
}

uint64_t meta_mounts_version(const struct meta *m)
{
    return m->mounts.version;
}

void meta_workers(const struct meta *m, bool (*each)(void *arg, const struct meta_worker_row *row), void *arg)
{
    struct meta_worker_row row;
    for (uint32_t i = 0; i < m->workers.count; i++) {
        const struct kept_row *r = m->workers.rows[i];
        if (r->committed && meta_worker_decode(r->id, key_of(r->committed, r->committed_n), &row) == 0 &&
            !each(arg, &row))
            return;
    }
}

uint64_t meta_workers_version(const struct meta *m)
{
    return m->workers.version;
}
