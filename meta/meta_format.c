/* SPDX-License-Identifier: Apache-2.0 */
#include "meta/meta_format.h"

#include <assert.h>

#include "base/cleanup.h"
#include "meta/meta_cursor.h"

/* --- tables -------------------------------------------------------------------------------------------------------- */

static const struct {
    const char *name;
    enum meta_family family;
    uint8_t letter;
} tables[META_TABLE_COUNT] = {
#define TABLE(name_, code, family_, letter_) [code] = {#name_, META_FAMILY_##family_, letter_},
    META_TABLES_(TABLE)
#undef TABLE
};

const char *meta_family_name(enum meta_family family)
{
    static const char *const names[] = {
#define F(name) #name,
        META_FAMILIES_(F)
#undef F
    };
    return (unsigned)family < META_FAMILY_COUNT ? names[family] : "?";
}

bool meta_table_known(uint8_t code)
{
    return code < META_TABLE_COUNT && tables[code].name;
}

const char *meta_table_name(enum meta_table table)
{
    return meta_table_known((uint8_t)table) ? tables[table].name : "?";
}

enum meta_family meta_table_family(enum meta_table table)
{
    assert(meta_table_known((uint8_t)table));
    return tables[table].family;
}

/* --- keys ---------------------------------------------------------------------------------------------------------- */

uint32_t meta_key_inode(uint64_t inode, uint8_t *out)
{
    put_be64(out, inode);
    return 8;
}

uint32_t meta_key_dentry(uint64_t parent, struct text name, uint8_t *out)
{
    assert(name.n <= META_NAME_MAX);
    put_be64(out, parent);
    if (name.n)
        memcpy(out + 8, name.p, name.n);
    return 8 + name.n;
}

uint32_t meta_key_extent(uint64_t inode, uint32_t block, uint8_t *out)
{
    put_be64(out, inode);
    put_be32(out + 8, block);
    return 12;
}

uint32_t meta_key_xattr(uint64_t inode, struct text name, uint8_t *out)
{
    assert(name.n <= META_NAME_MAX);
    out[0] = tables[META_TABLE_xattr].letter;
    put_be64(out + 1, inode);
    if (name.n)
        memcpy(out + 9, name.p, name.n);
    return 9 + name.n;
}

uint32_t meta_key_id(enum meta_table table, uint64_t id, uint8_t *out)
{
    out[0] = tables[table].letter;
    put_be64(out + 1, id);
    return 9;
}

uint32_t meta_key_slot(uint64_t session, uint32_t slot, uint8_t *out)
{
    out[0] = tables[META_TABLE_slot].letter;
    put_be64(out + 1, session);
    put_be16(out + 9, (uint16_t)slot);
    return 11;
}

uint32_t meta_key_grant(uint8_t kind, uint8_t *out)
{
    out[0] = tables[META_TABLE_grant].letter;
    out[1] = kind;
    return 2;
}

uint32_t meta_key_mount(uint32_t mount, uint8_t *out)
{
    out[0] = tables[META_TABLE_mount].letter;
    put_be32(out + 1, mount);
    return 5;
}

uint32_t meta_key_state(uint8_t *out)
{
    out[0] = tables[META_TABLE_state].letter;
    return 1;
}

bool meta_key_fits(enum meta_table table, struct text key)
{
    static const uint16_t least[META_TABLE_COUNT] = {
        [META_TABLE_inode] = 8,   [META_TABLE_dentry] = 9, [META_TABLE_extent] = 12, [META_TABLE_ttl] = 17,
        [META_TABLE_mirror] = 13, [META_TABLE_inline] = 9, [META_TABLE_xattr] = 10,  [META_TABLE_orphan] = 9,
        [META_TABLE_mount] = 5,   [META_TABLE_quota] = 9,  [META_TABLE_job] = 9,     [META_TABLE_worker] = 9,
        [META_TABLE_session] = 9, [META_TABLE_slot] = 11,  [META_TABLE_grant] = 2,   [META_TABLE_state] = 1,
    };
    bool named = table == META_TABLE_dentry || table == META_TABLE_xattr;
    if (key.n < least[table] || key.n > least[table] + (named ? META_NAME_MAX - 1u : 0u))
        return false;
    return !tables[table].letter || (uint8_t)key.p[0] == tables[table].letter;
}

/* --- inode --------------------------------------------------------------------------------------------------------- */

static uint32_t inode_present(const struct meta_inode *i)
{
    uint32_t has_policy = i->replicas || i->tier || i->policy_flags || i->block_shift;
    return (i->rdev ? META_HAS_RDEV : 0) | (i->target.n ? META_HAS_TARGET : 0) | (i->entries ? META_HAS_ENTRIES : 0) |
           (i->base_version || i->base_bytes || i->epoch ? META_HAS_BASE_VERSION : 0) |
           (i->ufs_flags || i->ufs_mtime_ns || i->ufs_length || i->ufs_etag.n ? META_HAS_UFS : 0) |
           (i->ufs_at.n ? META_HAS_UFS_AT : 0) | (i->ttl_due_ns || i->ttl_action ? META_HAS_TTL : 0) |
           (has_policy ? META_HAS_POLICY : 0) | (i->mount ? META_HAS_MOUNT : 0) |
           (i->xattr_count ? META_HAS_XATTRS : 0);
}

static uint8_t *inode_put_optional(const struct meta_inode *i, uint32_t present, uint8_t *p)
{
    if (present & META_HAS_RDEV)
        p = varint_put(p, i->rdev);
    if (present & META_HAS_TARGET)
        p = bytes_put(p, i->target);
    if (present & META_HAS_ENTRIES)
        p = varint_put(p, i->entries);
    if (present & META_HAS_BASE_VERSION)
        p = varint_put(varint_put(varint_put(p, i->base_version), i->base_bytes), i->epoch);
    if (present & META_HAS_UFS) {
        p = u64_put(varint_put(p, i->ufs_flags), i->ufs_mtime_ns);
        p = bytes_put(varint_put(p, i->ufs_length), i->ufs_etag);
    }
    if (present & META_HAS_UFS_AT)
        p = bytes_put(p, i->ufs_at);
    if (present & META_HAS_TTL) {
        p = u64_put(p, i->ttl_due_ns);
        *p++ = i->ttl_action;
    }
    if (present & META_HAS_POLICY) {
        *p++ = i->replicas;
        *p++ = i->tier;
        *p++ = i->policy_flags;
        *p++ = i->block_shift;
    }
    if (present & META_HAS_MOUNT)
        p = varint_put(p, i->mount);
    if (present & META_HAS_XATTRS)
        p = varint_put(varint_put(p, i->xattr_count), i->xattr_name_bytes);
    return p;
}

uint32_t meta_inode_encode(const struct meta_inode *i, uint8_t *out)
{
    uint32_t present = inode_present(i);
    uint8_t *p = out;
    *p++ = META_ROW_VERSION;
    put_le16(p, (uint16_t)i->mode);
    p = varint_put(p + 2, present);
    p = varint_put(p, i->change);
    p = varint_put(p, i->uid);
    p = varint_put(p, i->gid);
    p = varint_put(p, i->nlink);
    p = varint_put(p, i->size);
    p = varint_put(p, i->parent);
    p = varint_put(p, i->flags);
    p = u64_put(p, (uint64_t)i->ctime_ns);
    p = zigzag_put(p, i->ctime_ns, i->mtime_ns);
    p = zigzag_put(p, i->ctime_ns, i->atime_ns);
    p = zigzag_put(p, i->ctime_ns, i->btime_ns);
    if (present)
        p = inode_put_optional(i, present, p);
    assert(p - out <= META_INODE_MAX);
    return (uint32_t)(p - out);
}

static void inode_take_optional(struct cursor *c, uint32_t present, struct meta_inode *i)
{
    if (present & META_HAS_RDEV)
        i->rdev = take_varint(c);
    if (present & META_HAS_TARGET)
        i->target = take_bytes(c, META_TARGET_MAX);
    if (present & META_HAS_ENTRIES)
        i->entries = take_varint(c);
    if (present & META_HAS_BASE_VERSION) {
        i->base_version = take_varint(c);
        i->base_bytes = take_varint(c);
        i->epoch = take_varint(c);
    }
    if (present & META_HAS_UFS) {
        i->ufs_flags = take_u32(c);
        i->ufs_mtime_ns = take_fixed64(c);
        i->ufs_length = take_varint(c);
        i->ufs_etag = take_bytes(c, META_ETAG_MAX);
    }
    if (present & META_HAS_UFS_AT)
        i->ufs_at = take_bytes(c, META_UFS_AT_MAX);
    if (present & META_HAS_TTL) {
        i->ttl_due_ns = take_fixed64(c);
        i->ttl_action = take_u8(c);
    }
    if (present & META_HAS_POLICY) {
        i->replicas = take_u8(c);
        i->tier = take_u8(c);
        i->policy_flags = take_u8(c);
        i->block_shift = take_u8(c);
        if (i->block_shift > 30)
            cursor_fail(c, -CV_BAD_FORMAT);
    }
    if (present & META_HAS_MOUNT)
        i->mount = take_u32(c);
    if (present & META_HAS_XATTRS) {
        i->xattr_count = take_u32(c);
        i->xattr_name_bytes = take_u32(c);
    }
}

int meta_inode_decode(uint64_t id, struct text value, struct meta_inode *ret)
{
    struct cursor c = cursor_of(value);
    memset(ret, 0, sizeof(*ret));
    ret->id = id;
    take_version(&c);
    if (has(&c, 2)) {
        ret->mode = get_le16(c.p);
        c.p += 2;
    }
    uint64_t present = take_varint(&c);
    if (!c.error && present > META_PRESENT_ALL)
        cursor_fail(&c, -CV_FORMAT_TOO_NEW);
    ret->change = take_varint(&c);
    ret->uid = take_u32(&c);
    ret->gid = take_u32(&c);
    ret->nlink = take_u32(&c);
    ret->size = take_varint(&c);
    ret->parent = take_varint(&c);
    uint64_t flags = take_varint(&c);
    if (!c.error && flags > INODE_FLAGS_ALL)
        cursor_fail(&c, -CV_FORMAT_TOO_NEW);
    ret->flags = (uint32_t)flags;
    ret->ctime_ns = (int64_t)take_fixed64(&c);
    ret->mtime_ns = take_zigzag(&c, ret->ctime_ns);
    ret->atime_ns = take_zigzag(&c, ret->ctime_ns);
    ret->btime_ns = take_zigzag(&c, ret->ctime_ns);
    if (present && !c.error)
        inode_take_optional(&c, (uint32_t)present, ret);
    return cursor_end(&c);
}

/* --- the other rows ------------------------------------------------------------------------------------------------ */

uint32_t meta_dentry_encode(const struct meta_dentry *d, uint8_t *out)
{
    assert(d->type < 16);
    out[0] = (uint8_t)(META_ROW_VERSION << 4 | d->type);
    return (uint32_t)(varint_put(out + 1, d->child) - out);
}

int meta_dentry_decode(struct text value, struct meta_dentry *ret)
{
    struct cursor c = cursor_of(value);
    uint8_t first = take_u8(&c);
    if (!c.error && first >> 4 != META_ROW_VERSION)
        cursor_fail(&c, first >> 4 > META_ROW_VERSION ? -CV_FORMAT_TOO_NEW : -CV_BAD_FORMAT);
    ret->type = first & 15;
    ret->child = take_varint(&c);
    return cursor_end(&c);
}

uint32_t meta_extent_encode(const struct meta_extent *e, uint8_t *out)
{
    assert(e->replica_count <= META_REPLICAS_MAX);
    uint8_t *p = out;
    *p++ = META_ROW_VERSION;
    p = varint_put(p, e->version);
    p = varint_put(p, e->epoch);
    p = varint_put(p, e->valid_length);
    p = varint_put(p, e->replica_count);
    for (uint32_t i = 0; i < e->replica_count; i++)
        p = u64_put(p, e->replicas[i]);
    return (uint32_t)(p - out);
}

int meta_extent_decode(struct text value, struct meta_extent *ret)
{
    struct cursor c = cursor_of(value);
    memset(ret, 0, sizeof(*ret));
    take_version(&c);
    ret->version = take_varint(&c);
    ret->epoch = take_varint(&c);
    ret->valid_length = take_u32(&c);
    ret->replica_count = (uint32_t)take_below(&c, META_REPLICAS_MAX + 1);
    for (uint32_t i = 0; i < ret->replica_count; i++)
        ret->replicas[i] = take_fixed64(&c);
    return cursor_end(&c);
}

uint32_t meta_session_encode(const struct meta_session_row *s, uint8_t *out)
{
    uint8_t *p = out;
    *p++ = META_ROW_VERSION;
    p = u64_put(varint_put(p, s->slots), s->opened_ns);
    p = varint_put(p, s->pid);
    p = bytes_put(p, s->host);
    p = bytes_put(p, s->program);
    p = bytes_put(p, s->mount_point);
    return (uint32_t)(p - out);
}

int meta_session_decode(struct text value, struct meta_session_row *ret)
{
    struct cursor c = cursor_of(value);
    memset(ret, 0, sizeof(*ret));
    take_version(&c);
    ret->slots = (uint32_t)take_below(&c, META_SLOTS_MAX + 1);
    ret->opened_ns = take_fixed64(&c);
    ret->pid = take_u32(&c);
    ret->host = take_bytes(&c, META_NAME_MAX);
    ret->program = take_bytes(&c, META_NAME_MAX);
    ret->mount_point = take_bytes(&c, META_NAME_MAX);
    return cursor_end(&c);
}

uint32_t meta_slot_encode(const struct meta_slot_row *s, uint8_t *out)
{
    uint8_t *p = out;
    *p++ = META_ROW_VERSION;
    p = varint_put(p, s->sequence);
    put_le16(p, s->type);
    p = varint_put(p + 2, s->flags);
    p = varint_put(p, s->inode);
    p = varint_put(p, s->other);
    p = varint_put(p, s->handle);
    return (uint32_t)(p - out);
}

int meta_slot_decode(struct text value, struct meta_slot_row *ret)
{
    struct cursor c = cursor_of(value);
    memset(ret, 0, sizeof(*ret));
    take_version(&c);
    ret->sequence = take_varint(&c);
    if (has(&c, 2)) {
        ret->type = get_le16(c.p);
        c.p += 2;
    }
    ret->flags = take_u32(&c);
    ret->inode = take_varint(&c);
    ret->other = take_varint(&c);
    ret->handle = take_varint(&c);
    return cursor_end(&c);
}

uint8_t *meta_param_put(uint8_t *p, struct text name, struct text value)
{
    return bytes_put(bytes_put(p, name), value);
}

static void take_param(struct cursor *c, struct text *name, struct text *value)
{
    *name = take_bytes(c, META_NAME_MAX);
    *value = take_bytes(c, META_PATH_MAX);
}

bool meta_param_next(struct text *params, struct text *name, struct text *value)
{
    struct cursor c = cursor_of(*params);
    if (!params->n)
        return false;
    take_param(&c, name, value);
    *params = (struct text){(const char *)c.p, (uint32_t)(c.end - c.p)};
    return !c.error;
}

uint32_t meta_mount_bytes(const struct meta_mount_row *m)
{
    return 64 + m->name.n + m->path.n + m->uri.n + m->params.n; /* 64: version, numbers and lengths */
}

uint32_t meta_mount_encode(const struct meta_mount_row *m, uint8_t *out)
{
    uint8_t *p = out;
    *p++ = META_ROW_VERSION;
    p = u64_put(varint_put(p, m->inode), m->created_ns);
    *p++ = m->mode;
    p = varint_put(p, m->flags);
    *p++ = m->written;
    p = bytes_put(bytes_put(bytes_put(p, m->name), m->path), m->uri);
    p = varint_put(p, m->param_count);
    if (m->params.n)
        memcpy(p, m->params.p, m->params.n);
    return (uint32_t)(p - out) + m->params.n;
}

int meta_mount_decode(uint32_t mount, struct text value, struct meta_mount_row *ret)
{
    struct cursor c = cursor_of(value);
    struct text name, param;
    memset(ret, 0, sizeof(*ret));
    ret->mount = mount;
    take_version(&c);
    if (value.n > META_MOUNT_MAX)
        cursor_fail(&c, -CV_BAD_FORMAT);
    ret->inode = take_varint(&c);
    ret->created_ns = take_fixed64(&c);
    ret->mode = take_u8(&c);
    ret->flags = take_u32(&c);
    ret->written = take_below(&c, 2);
    ret->name = take_bytes(&c, META_NAME_MAX);
    ret->path = take_bytes(&c, META_PATH_MAX);
    ret->uri = take_bytes(&c, META_PATH_MAX);
    ret->param_count = (uint32_t)take_below(&c, META_PARAMS_MAX + 1);
    ret->params.p = (const char *)c.p;
    for (uint32_t i = 0; i < ret->param_count; i++)
        take_param(&c, &name, &param);
    ret->params.n = (uint32_t)((const char *)c.p - ret->params.p);
    return cursor_end(&c);
}

uint32_t meta_worker_encode(const struct meta_worker_row *w, uint8_t *out)
{
    uint8_t *p = out;
    *p++ = META_ROW_VERSION;
    p = varint_put(p, w->weight);
    *p++ = w->in;
    p = bytes_put(bytes_put(p, w->address), w->socket);
    return (uint32_t)(bytes_put(bytes_put(p, w->host), w->boot) - out);
}

int meta_worker_decode(uint64_t worker, struct text value, struct meta_worker_row *ret)
{
    struct cursor c = cursor_of(value);
    memset(ret, 0, sizeof(*ret));
    ret->worker = worker;
    take_version(&c);
    ret->weight = take_u32(&c);
    ret->in = take_below(&c, 2);
    ret->address = take_bytes(&c, META_NAME_MAX);
    ret->socket = take_bytes(&c, META_NAME_MAX);
    ret->host = take_bytes(&c, META_NAME_MAX);
    ret->boot = take_bytes(&c, META_NAME_MAX);
    return cursor_end(&c);
}

uint32_t meta_u64_encode(uint64_t fixed, uint8_t *out)
{
    out[0] = META_ROW_VERSION;
    put_le64(out + 1, fixed);
    return 9;
}

int meta_u64_decode(struct text value, uint64_t *ret)
{
    struct cursor c = cursor_of(value);
    take_version(&c);
    *ret = take_fixed64(&c);
    return cursor_end(&c);
}

uint32_t meta_limit_encode(uint64_t limit, uint8_t *out)
{
    out[0] = META_ROW_VERSION;
    return (uint32_t)(varint_put(out + 1, limit) - out);
}

int meta_limit_decode(struct text value, uint64_t *ret)
{
    struct cursor c = cursor_of(value);
    take_version(&c);
    *ret = take_varint(&c);
    return cursor_end(&c);
}

uint32_t meta_state_encode(const struct meta_state *s, uint8_t *out)
{
    uint8_t *p = out;
    *p++ = META_ROW_VERSION;
    const uint64_t all[] = {s->applied, s->digest, s->time_ns, s->inodes, s->directories, s->orphans, s->bytes};
    for (size_t i = 0; i < array_size(all); i++)
        p = u64_put(p, all[i]);
    put_le32(p, s->feature_level);
    put_le32(p + 4, s->incarnation);
    return META_STATE_SIZE;
}

int meta_state_decode(struct text value, struct meta_state *ret)
{
    struct cursor c = cursor_of(value);
    take_version(&c);
    uint64_t *const all[] = {&ret->applied,     &ret->digest,  &ret->time_ns, &ret->inodes,
                             &ret->directories, &ret->orphans, &ret->bytes};
    for (size_t i = 0; i < array_size(all); i++)
        *all[i] = take_fixed64(&c);
    uint64_t both = take_fixed64(&c);
    ret->feature_level = (uint32_t)both;
    ret->incarnation = (uint32_t)(both >> 32);
    return cursor_end(&c);
}
