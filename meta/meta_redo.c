/* SPDX-License-Identifier: Apache-2.0 */
#include "meta/meta_redo.h"

#include "base/bytes.h"
#include "base/error.h"
#include "meta/meta_cursor.h"

const char *redo_kind_name(uint8_t kind)
{
    static const char *const names[REDO_KIND_COUNT] = {
#define KIND(name, code) [code] = #name,
        REDO_KINDS_(KIND)
#undef KIND
    };
    return kind < REDO_KIND_COUNT && names[kind] ? names[kind] : "?";
}

void redo_header_encode(const struct redo_header *h, uint8_t out[REDO_HEADER_SIZE])
{
    memset(out, 0, REDO_HEADER_SIZE);
    put_le16(out, REDO_MAGIC);
    out[2] = REDO_VERSION;
    put_le32(out + 4, h->feature_level);
    put_le32(out + 8, h->op_count);
    put_le32(out + 12, h->row_count);
    put_le64(out + 16, h->inodes);
    put_le64(out + 24, h->directories);
    put_le64(out + 32, h->orphans);
    put_le64(out + 40, h->bytes);
    put_le64(out + 48, h->time_ns);
    put_le32(out + 56, h->incarnation);
    put_le32(out + 60, h->ops_length);
}

uint32_t redo_op_encode(const struct redo_op *op, uint8_t *out)
{
    uint8_t *p = out;
    *p++ = op->kind;
    p = varint_put(p, op->uid);
    p = varint_put(p, op->session);
    p = varint_put(p, op->inode);
    p = varint_put(p, op->other);
    p = varint_put(p, op->extra);
    return (uint32_t)(p - out);
}

int redo_reader_init(struct redo_reader *r, struct text payload)
{
    const uint8_t *p = (const uint8_t *)payload.p;
    if (payload.n < 3 || get_le16(p) != REDO_MAGIC || p[2] == 0)
        return -CV_BAD_FORMAT;
    if (p[2] > REDO_VERSION)
        return -CV_FORMAT_TOO_NEW;
    if (payload.n < REDO_HEADER_SIZE)
        return -CV_BAD_FORMAT;
    if (p[3] != 0 || get_le64(p + 64) != 0)
        return -CV_FORMAT_TOO_NEW; /* a flag we do not know */
    r->header = (struct redo_header){
        .feature_level = get_le32(p + 4),
        .op_count = get_le32(p + 8),
        .row_count = get_le32(p + 12),
        .inodes = get_le64(p + 16),
        .directories = get_le64(p + 24),
        .orphans = get_le64(p + 32),
        .bytes = get_le64(p + 40),
        .time_ns = get_le64(p + 48),
        .incarnation = get_le32(p + 56),
        .ops_length = get_le32(p + 60),
    };
    if (r->header.ops_length > payload.n - REDO_HEADER_SIZE)
        return -CV_BAD_FORMAT;
    r->at = p + REDO_HEADER_SIZE;
    r->ops_end = r->at + r->header.ops_length;
    r->end = p + payload.n;
    r->ops_left = r->header.op_count;
    r->rows_left = r->header.row_count;
    return 0;
}

int redo_next_op(struct redo_reader *r, struct redo_op *ret)
{
    if (r->ops_left == 0)
        return r->at == r->ops_end ? -ENODATA : -CV_BAD_FORMAT;
    struct cursor c = {r->at, r->ops_end, 0};
    ret->kind = take_u8(&c);
    if (!c.error && (ret->kind == 0 || ret->kind >= REDO_KIND_COUNT))
        cursor_fail(&c, -CV_FORMAT_TOO_NEW);
    ret->uid = take_u32(&c);
    ret->session = take_varint(&c);
    ret->inode = take_varint(&c);
    ret->other = take_varint(&c);
    ret->extra = take_varint(&c);
    r->at = c.p;
    r->ops_left--;
    return c.error;
}

int redo_next_row(struct redo_reader *r, struct redo_row *ret)
{
    if (r->at < r->ops_end)
        r->at = r->ops_end;
    if (r->rows_left == 0)
        return r->at == r->end ? -ENODATA : -CV_BAD_FORMAT;
    struct cursor c = {r->at, r->end, 0};
    uint8_t table = take_u8(&c);
    ret->deleted = table & REDO_DELETE;
    table &= (uint8_t)~REDO_DELETE;
    if (!c.error && !meta_table_known(table))
        cursor_fail(&c, -CV_FORMAT_TOO_NEW);
    ret->table = table;
    ret->key = take_bytes(&c, META_KEY_MAX);
    if (!c.error && !meta_key_fits(table, ret->key))
        cursor_fail(&c, -CV_BAD_FORMAT);
    ret->value = ret->deleted ? (struct text){NULL, 0} : take_bytes(&c, META_VALUE_MAX);
    r->at = c.p;
    r->rows_left--;
    return c.error;
}

/* Rows whose decoding nobody here needs yet still say their version. */
static int check_version(struct text value)
{
    struct cursor c = cursor_of(value);
    take_version(&c);
    return c.error;
}

int redo_row_check(const struct redo_row *row)
{
    union {
        struct meta_inode inode;
        struct meta_dentry dentry;
        struct meta_extent extent;
        struct meta_session_row session;
        struct meta_slot_row slot;
        struct meta_mount_row mount;
        struct meta_worker_row worker;
        uint64_t number;
    } u;
    if (row->table == META_TABLE_state)
        return -CV_BAD_FORMAT; /* never in the log */
    if (row->deleted)
        return 0;
    switch (row->table) {
    case META_TABLE_inode: return meta_inode_decode(0, row->value, &u.inode);
    case META_TABLE_dentry: return meta_dentry_decode(row->value, &u.dentry);
    case META_TABLE_extent: return meta_extent_decode(row->value, &u.extent);
    case META_TABLE_session: return meta_session_decode(row->value, &u.session);
    case META_TABLE_slot: return meta_slot_decode(row->value, &u.slot);
    case META_TABLE_mount: return meta_mount_decode(0, row->value, &u.mount);
    case META_TABLE_worker: return meta_worker_decode(0, row->value, &u.worker);
    case META_TABLE_grant: return meta_limit_decode(row->value, &u.number);
    case META_TABLE_orphan: return meta_u64_decode(row->value, &u.number);
    default: return check_version(row->value);
    }
}

int redo_reader_rows(struct redo_reader *r, struct text payload)
{
    struct redo_op op;
    int e = redo_reader_init(r, payload);
    while (e == 0)
        e = redo_next_op(r, &op);
    return e == -ENODATA ? 0 : e;
}

int redo_check(struct text payload)
{
    struct redo_reader r;
    struct redo_row row;
    int e = redo_reader_rows(&r, payload);
    if (e < 0)
        return e;
    for (e = 0; e == 0;) {
        e = redo_next_row(&r, &row);
        if (e == 0)
            e = redo_row_check(&row);
    }
    return e == -ENODATA ? 0 : e;
}
