/* SPDX-License-Identifier: Apache-2.0 */
/*
 * One encoder and one decoder for all messages, driven by descriptions that messages.def expands to. A switch per
 * field costs a few nanoseconds; in return there is one place to get right, to fuzz and to print from.
 */
#include "wire/message.h"

#include <assert.h>
#include <inttypes.h>

#include "base/bytes.h"
#include "base/cleanup.h"
#include "base/error.h"
#include "wire/frame.h"

#define WIRE_KIND_u8    WIRE_U8
#define WIRE_KIND_u16   WIRE_U16
#define WIRE_KIND_u32   WIRE_U32
#define WIRE_KIND_u64   WIRE_U64
#define WIRE_KIND_text  WIRE_TEXT
#define WIRE_KIND_bytes WIRE_TEXT

/* Rows arrive expanded, with their commas: hence the dots.
 * offsetof() needs the row's own struct: each description is built in a function, where wire_self can be a name for it. */
#define FIELD(kind, name_) {#name_, WIRE_KIND_##kind, offsetof(wire_self, name_), NULL},
#define NEST(rec, name_)   {#name_, WIRE_REC, offsetof(wire_self, name_), rec_##rec##_desc},
#define LIST(rec, name_)   {#name_, WIRE_LIST, offsetof(wire_self, name_), rec_##rec##_desc},
#define DESCRIBE(prefix, name_, code, ...)                                                                             \
    const struct wire_desc *prefix##_##name_##_desc(void)                                                              \
    {                                                                                                                  \
        typedef struct prefix##_##name_ wire_self;                                                                     \
        static const struct wire_field fields[] = {__VA_ARGS__{NULL, 0, sizeof(wire_self), NULL}};                     \
        static const struct wire_desc desc = {#name_, code, sizeof(wire_self), array_size(fields) - 1, fields};        \
        return &desc;                                                                                                  \
    }
#define REC(name, fields)       DESCRIBE(rec, name, 0, fields)
#define MSG(code, name, fields) DESCRIBE(msg, name, code, fields)
#include "wire/messages.def"
#undef FIELD
#undef NEST
#undef LIST
#undef REC
#undef MSG

const struct wire_desc *message_desc(uint16_t type)
{
    switch (type) {
#define REC(name, fields)
#define MSG(code, name, fields)                                                                                        \
    case code:                                                                                                         \
        return msg_##name##_desc();
#include "wire/messages.def"
#undef REC
#undef MSG
    default: return NULL;
    }
}

const char *message_name(uint16_t type)
{
    const struct wire_desc *d = message_desc(type);
    return d ? d->name : "unknown";
}

size_t wire_size(const struct wire_desc *d, const void *record)
{
    size_t size = 0;
    for (const struct wire_field *f = d->fields; f < d->fields + d->field_count; f++) {
        const void *at = (const char *)record + f->offset;
        switch (f->kind) {
        case WIRE_U8: size += 1; break;
        case WIRE_U16: size += 2; break;
        case WIRE_U32: size += 4; break;
        case WIRE_U64: size += 8; break;
        case WIRE_TEXT: size += 4 + ((const struct text *)at)->n; break;
        case WIRE_REC: size += 4 + wire_size(f->nest(), at); break;
        case WIRE_LIST: size += 8 + ((const struct wire_list *)at)->bytes; break;
        }
    }
    return size;
}

uint8_t *wire_put(const struct wire_desc *d, const void *record, uint8_t *p)
{
    for (const struct wire_field *f = d->fields; f < d->fields + d->field_count; f++) {
        const void *at = (const char *)record + f->offset;
        switch (f->kind) {
        case WIRE_U8: *p++ = *(const uint8_t *)at; break;
        case WIRE_U16:
            put_le16(p, *(const uint16_t *)at);
            p += 2;
            break;
        case WIRE_U32:
            put_le32(p, *(const uint32_t *)at);
            p += 4;
            break;
        case WIRE_U64:
            put_le64(p, *(const uint64_t *)at);
            p += 8;
            break;
        case WIRE_TEXT: {
            const struct text *t = at;
            put_le32(p, t->n);
            p += 4;
            if (t->n)
                memcpy(p, t->p, t->n);
            p += t->n;
            break;
        }
        case WIRE_REC: {
            uint8_t *length = p;
            p = wire_put(f->nest(), at, p + 4);
            put_le32(length, (uint32_t)(p - length - 4));
            break;
        }
        case WIRE_LIST: {
            const struct wire_list *l = at;
            put_le32(p, l->bytes);
            put_le32(p + 4, l->count);
            p += 8;
            if (l->bytes)
                memcpy(p, l->p, l->bytes);
            p += l->bytes;
            break;
        }
        }
    }
    return p;
}

int wire_encode(const struct wire_desc *d, const void *record, struct buf *b)
{
    size_t size = wire_size(d, record);
    if (size > FRAME_BODY_MAX)
        return -CV_FRAME_TOO_BIG;
    int r = buf_reserve(b, size);
    if (r < 0)
        return r;
    uint8_t *end = wire_put(d, record, b->p + b->n);
    assert(end == b->p + b->n + size);
    b->n += size;
    return 0;
}

int wire_list_append(const struct wire_desc *d, const void *record, struct buf *b)
{
    size_t before = b->n;
    uint8_t length[4] = {0};
    int r = buf_append(b, length, sizeof(length));
    if (r < 0)
        return r;
    r = wire_encode(d, record, b);
    if (r < 0) {
        b->n = before;
        return r;
    }
    put_le32(b->p + before, (uint32_t)(b->n - before - 4));
    return 0;
}

/* What is still to be read. Every get_ checks before it reads. */
struct reader {
    const uint8_t *p;
    size_t left;
};

static bool get(struct reader *rd, size_t n, const uint8_t **ret)
{
    if (rd->left < n)
        return false;
    *ret = rd->p;
    rd->p += n;
    rd->left -= n;
    return true;
}

static bool get_length(struct reader *rd, uint32_t *ret)
{
    const uint8_t *p;
    if (!get(rd, 4, &p))
        return false;
    *ret = get_le32(p);
    return true;
}

static bool decode_fields(const struct wire_desc *d, struct reader *rd, void *record, bool keep);

/* A list is checked whole when it is decoded, so that walking it later cannot fail. */
static bool check_list(const struct wire_desc *d, const struct wire_list *l)
{
    struct reader rd = {l->p, l->bytes};
    for (uint32_t i = 0; i < l->count; i++) {
        uint32_t n;
        const uint8_t *p;
        if (!get_length(&rd, &n) || !get(&rd, n, &p))
            return false;
        struct reader one = {p, n};
        if (!decode_fields(d, &one, NULL, false))
            return false;
    }
    return rd.left == 0;
}

static bool decode_field(const struct wire_field *f, struct reader *rd, void *record, bool keep)
{
    void *at = keep ? (char *)record + f->offset : NULL;
    const uint8_t *p;
    uint32_t n;
    switch (f->kind) {
    case WIRE_U8:
        if (!get(rd, 1, &p))
            return false;
        if (keep)
            *(uint8_t *)at = *p;
        return true;
    case WIRE_U16:
        if (!get(rd, 2, &p))
            return false;
        if (keep)
            *(uint16_t *)at = get_le16(p);
        return true;
    case WIRE_U32:
        if (!get(rd, 4, &p))
            return false;
        if (keep)
            *(uint32_t *)at = get_le32(p);
        return true;
    case WIRE_U64:
        if (!get(rd, 8, &p))
            return false;
        if (keep)
            *(uint64_t *)at = get_le64(p);
        return true;
    case WIRE_TEXT:
        if (!get_length(rd, &n) || !get(rd, n, &p))
            return false;
        if (keep)
            *(struct text *)at = (struct text){(const char *)p, n};
        return true;
    case WIRE_REC: {
        if (!get_length(rd, &n) || !get(rd, n, &p))
            return false;
        struct reader inner = {p, n};
        return decode_fields(f->nest(), &inner, at, keep);
    }
    case WIRE_LIST: {
        struct wire_list l = {0};
        if (!get_length(rd, &l.bytes) || !get_length(rd, &l.count) || !get(rd, l.bytes, &l.p))
            return false;
        if (!check_list(f->nest(), &l))
            return false;
        if (keep)
            *(struct wire_list *)at = l;
        return true;
    }
    }
    return false;
}

/* Rows nest two deep at most (a record in a list in a message), so this recursion ends. */
static bool decode_fields(const struct wire_desc *d, struct reader *rd, void *record, bool keep)
{
    if (keep)
        memset(record, 0, d->size);
    for (const struct wire_field *f = d->fields; f < d->fields + d->field_count; f++) {
        if (rd->left == 0)
            return true; /* an older sender does not know this field */
        if (!decode_field(f, rd, record, keep))
            return false;
    }
    return true; /* what is left comes from a newer sender */
}

int wire_decode(const struct wire_desc *d, const void *p, size_t n, void *record)
{
    struct reader rd = {p, n};
    if (decode_fields(d, &rd, record, true))
        return 0;
    memset(record, 0, d->size);
    return -CV_BAD_MESSAGE;
}

bool wire_list_next(const struct wire_desc *d, struct wire_list *list, void *record)
{
    struct reader rd = {list->p, list->bytes};
    uint32_t n;
    const uint8_t *p;
    if (list->count == 0 || !get_length(&rd, &n) || !get(&rd, n, &p))
        return false;
    struct reader one = {p, n};
    if (!decode_fields(d, &one, record, true))
        return false;
    *list = (struct wire_list){rd.p, (uint32_t)rd.left, list->count - 1};
    return true;
}

static int print_text(struct text t, struct buf *b)
{
    int r = buf_append(b, "\"", 1);
    for (uint32_t i = 0; r == 0 && i < t.n && i < 64; i++) {
        unsigned char c = (unsigned char)t.p[i];
        r = c >= ' ' && c < 127 && c != '"' && c != '\\' ? buf_append(b, &c, 1) : buf_printf(b, "\\x%02x", c);
    }
    return r ? r : buf_printf(b, t.n > 64 ? "\"...%u" : "\"", t.n);
}

int wire_print(const struct wire_desc *d, const void *record, struct buf *b)
{
    int r = buf_printf(b, "%s{", d->name);
    for (uint16_t i = 0; r == 0 && i < d->field_count; i++) {
        const struct wire_field *f = &d->fields[i];
        const void *at = (const char *)record + f->offset;
        r = buf_printf(b, "%s%s=", i ? " " : "", f->name);
        if (r < 0)
            return r;
        switch (f->kind) {
        case WIRE_U8: r = buf_printf(b, "%u", *(const uint8_t *)at); break;
        case WIRE_U16: r = buf_printf(b, "%u", *(const uint16_t *)at); break;
        case WIRE_U32: r = buf_printf(b, "%" PRIu32, *(const uint32_t *)at); break;
        case WIRE_U64: r = buf_printf(b, "%" PRIu64, *(const uint64_t *)at); break;
        case WIRE_TEXT: r = print_text(*(const struct text *)at, b); break;
        case WIRE_REC: r = wire_print(f->nest(), at, b); break;
        case WIRE_LIST: r = buf_printf(b, "[%" PRIu32 "]", ((const struct wire_list *)at)->count); break;
        }
    }
    return r ? r : buf_append(b, "}", 1);
}
