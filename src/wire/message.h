/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Messages: what the rows of messages.def become. Each MSG or REC row yields a struct (msg_<name>, rec_<name>), a
 * description for the one encoder and decoder, a name for logs, and, for MSG, a type number MSG_<name>.
 *
 * On the wire a record is its fields in the order of the row: integers little-endian and fixed; text and bytes as u32
 * length, then bytes; a nested record as u32 length, then its fields; a list as u32 bytes, u32 count, then the records,
 * each with its u32 length. Fields are only ever appended to a row: a decoder gives missing fields the value zero and
 * ignores what lies behind the fields it knows, but a field cut in the middle is an error. Decoded text, bytes and
 * lists borrow from the buffer they were decoded from.
 *
 *      struct msg_lookup m = {.parent = 1, .name = text_of("a")};
 *      r = msg_lookup_encode(&m, &buf);
 *      r = msg_lookup_decode(body, body_len, &m);
 *      list: rec_dir_entry_append(&list_buf, &entry); reply.entries = wire_list_of(&list_buf, count);
 *      rec_for_each(dir_entry, e, &reply.entries) use(e.name);
 */
#pragma once

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "base/text.h"

enum wire_kind { WIRE_U8, WIRE_U16, WIRE_U32, WIRE_U64, WIRE_TEXT, WIRE_REC, WIRE_LIST };

/* A list of records in wire form: count records in bytes. */
struct wire_list {
    const uint8_t *p;
    uint32_t bytes, count;
};

struct wire_desc;

struct wire_field {
    const char *name;
    enum wire_kind kind;
    uint16_t offset;                       /* in the struct */
    const struct wire_desc *(*nest)(void); /* WIRE_REC and WIRE_LIST: of the record */
};

struct wire_desc {
    const char *name;
    uint16_t type; /* MSG: its number; REC: 0 */
    uint16_t size; /* of the struct */
    uint16_t field_count;
    const struct wire_field *fields;
};

/* Bytes wire_encode() will append. */
size_t wire_size(const struct wire_desc *d, const void *record);

/* Write the record to p, which has wire_size() bytes of room; returns the end. */
uint8_t *wire_put(const struct wire_desc *d, const void *record, uint8_t *p);

/* Append the record to b. Errors: -ENOMEM; -CV_FRAME_TOO_BIG. */
int wire_encode(const struct wire_desc *d, const void *record, struct buf *b);

/* Read a record that fills n bytes. Errors: -CV_BAD_MESSAGE. On error *record is zeroed. */
int wire_decode(const struct wire_desc *d, const void *p, size_t n, void *record);

/* Append a record with its length, as an element of a list. Errors: as wire_encode. */
int wire_list_append(const struct wire_desc *d, const void *record, struct buf *b);

static inline struct wire_list wire_list_of(const struct buf *b, uint32_t count)
{
    return (struct wire_list){b->p, (uint32_t)b->n, count};
}

/* Take the first record off the list. Returns false at the end and when what is left is malformed (then
 * list->count is still > 0: wire_list_bad tells). */
bool wire_list_next(const struct wire_desc *d, struct wire_list *list, void *record);

static inline bool wire_list_bad(const struct wire_list *rest)
{
    return rest->count > 0 || rest->bytes > 0;
}

/* For a log or a dump: "lookup{parent=1 name="a"}". Appends to b. */
int wire_print(const struct wire_desc *d, const void *record, struct buf *b);

/* The description of a message type, or NULL. */
const struct wire_desc *message_desc(uint16_t type);

/* "lookup", or "unknown" for a type nobody knows. */
const char *message_name(uint16_t type);

/* --- the rows become types ---------------------------------------------------------------------------------- */
#define WIRE_CTYPE_u8    uint8_t
#define WIRE_CTYPE_u16   uint16_t
#define WIRE_CTYPE_u32   uint32_t
#define WIRE_CTYPE_u64   uint64_t
#define WIRE_CTYPE_text  struct text
#define WIRE_CTYPE_bytes struct text

#define FIELD(kind, name) WIRE_CTYPE_##kind name;
#define NEST(rec, name)   struct rec_##rec name;
#define LIST(rec, name)   struct wire_list name;
#define REC(name, fields)                                                                                              \
    struct rec_##name {                                                                                                \
        fields                                                                                                         \
    };
#define MSG(code, name, fields)                                                                                        \
    struct msg_##name {                                                                                                \
        fields                                                                                                         \
    };
#include "wire/messages.def"
#undef REC
#undef MSG
#undef FIELD
#undef NEST
#undef LIST

#define FIELD(kind, name)
#define NEST(rec, name)
#define LIST(rec, name)
#define REC(name, fields)
#define MSG(code, name, fields) MSG_##name = code,
enum message_type {
#include "wire/messages.def"
};
#undef REC
#undef MSG

#define WIRE_FUNCTIONS(prefix, name)                                                                                   \
    const struct wire_desc *prefix##_##name##_desc(void);                                                              \
    static inline int prefix##_##name##_encode(const struct prefix##_##name *m, struct buf *b)                         \
    {                                                                                                                  \
        return wire_encode(prefix##_##name##_desc(), m, b);                                                            \
    }                                                                                                                  \
    static inline int prefix##_##name##_decode(const void *p, size_t n, struct prefix##_##name *ret)                   \
    {                                                                                                                  \
        return wire_decode(prefix##_##name##_desc(), p, n, ret);                                                       \
    }
#define MSG(code, name, fields) WIRE_FUNCTIONS(msg, name)
#define REC(name, fields)                                                                                              \
    WIRE_FUNCTIONS(rec, name)                                                                                          \
    static inline int rec_##name##_append(struct buf *b, const struct rec_##name *m)                                   \
    {                                                                                                                  \
        return wire_list_append(rec_##name##_desc(), m, b);                                                            \
    }
#include "wire/messages.def"
#undef REC
#undef MSG
#undef FIELD
#undef NEST
#undef LIST

/* Walk a list; e is the decoded record. Stops at the first malformed one (decoders check lists whole, so a decoded
 * list has none). */
#define rec_for_each(name, e, list_)                                                                                   \
    for (struct {                                                                                                      \
             struct wire_list rest;                                                                                    \
             bool more;                                                                                                \
         } e##_walk = {*(list_), true};                                                                                \
         e##_walk.more; e##_walk.more = false)                                                                         \
        for (struct rec_##name e; wire_list_next(rec_##name##_desc(), &e##_walk.rest, &e);)
