/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Messages as bytes, from the one table raft_message.def. The decoder trusts nothing: lengths are checked before
 * they are used, and the values before they reach the core.
 */
#include "base/bytes.h"
#include "raft/raft_state.h"

#include <assert.h>
#include <errno.h>

/* u8 type, u8 reserved, u16 length of the fields, u32 reserved, u64 from, to, term. */
enum { HEADER = 32 };

/* Indexes and terms count up from 0 and never come near this: sums of two do not overflow. */
#define NUMBER_MAX (UINT64_MAX / 4)

const char *raft_message_name(uint8_t type)
{
    switch (type) {
#define RAFT_MESSAGE(code, NAME, name, ...)                                                                            \
    case code:                                                                                                         \
        return #name;
#include "raft/raft_message.def"
#undef RAFT_MESSAGE
    }
    return "unknown";
}

static uint8_t *put_u8(uint8_t *p, uint8_t v)
{
    *p = v;
    return p + 1;
}

static uint8_t *put_u32(uint8_t *p, uint32_t v)
{
    put_le32(p, v);
    return p + 4;
}

static uint8_t *put_u64(uint8_t *p, uint64_t v)
{
    put_le64(p, v);
    return p + 8;
}

size_t raft_message_encode(const struct raft_message *m, uint8_t out[RAFT_MESSAGE_FIXED_MAX])
{
    uint8_t *p = out + HEADER;
    switch (m->type) {
#define FIELD(type, name) p = put_##type(p, part->name);
#define RAFT_MESSAGE(code, NAME, name, ...)                                                                            \
    case code: {                                                                                                       \
        __typeof__(m->name) const *part = &m->name;                                                                    \
        __VA_ARGS__                                                                                                    \
        break;                                                                                                         \
    }
#include "raft/raft_message.def"
#undef RAFT_MESSAGE
#undef FIELD
    }
    memset(out, 0, 8);
    out[0] = m->type;
    put_le16(out + 2, (uint16_t)(p - out - HEADER));
    put_le64(out + 8, m->from);
    put_le64(out + 16, m->to);
    put_le64(out + 24, m->term);
    return (size_t)(p - out);
}

#define FIELD(type, name)                   +sizeof(raft_##type)
#define raft_u8                             uint8_t
#define raft_u32                            uint32_t
#define raft_u64                            uint64_t
#define RAFT_MESSAGE(code, NAME, name, ...) static_assert(HEADER __VA_ARGS__ <= RAFT_MESSAGE_FIXED_MAX, #name);
#include "raft/raft_message.def"
#undef RAFT_MESSAGE
#undef FIELD

void raft_entry_header_encode(const struct raft_entry *e, uint8_t out[RAFT_ENTRY_HEADER_SIZE])
{
    put_le64(out, e->term);
    put_le32(out + 8, e->size);
    put_le32(out + 12, e->type); /* the type and three reserved bytes */
}

/* Fields of a message from a sender of any version: missing ones are 0. */
struct reader {
    const uint8_t *p, *end;
};

static uint64_t get_number(struct reader *in, size_t size)
{
    uint8_t bytes[8] = {0};
    if ((size_t)(in->end - in->p) < size) {
        in->p = in->end;
        return 0;
    }
    memcpy(bytes, in->p, size);
    in->p += size;
    return get_le64(bytes);
}

static bool bad_number(uint64_t v)
{
    return v > NUMBER_MAX;
}

static int check_append(const struct raft_message *m)
{
    const __typeof__(m->append) *a = &m->append;
    if (a->count > RAFT_APPEND_ENTRIES_MAX || (a->count && !m->entries) || bad_number(a->prev_index) ||
        (a->prev_index == 0) != (a->prev_term == 0))
        return -CV_BAD_MESSAGE;
    uint64_t term = a->prev_term;
    for (uint32_t i = 0; i < a->count; i++) {
        const struct raft_entry *e = &m->entries[i];
        if (e->term < term || e->term == 0 || e->type < RAFT_NOOP || e->type > RAFT_BARRIER)
            return -CV_BAD_MESSAGE;
        term = e->term;
    }
    return term == a->last_term && term <= m->term ? 0 : -CV_BAD_MESSAGE;
}

int raft_message_check(const struct raft_message *m)
{
    if (m->from == 0 || m->to == 0 || m->from == m->to || m->term == 0 || bad_number(m->term))
        return -CV_BAD_MESSAGE;
    switch (m->type) {
    case RAFT_MSG_PREVOTE: return m->prevote.next_term == m->term + 1 ? 0 : -CV_BAD_MESSAGE;
    case RAFT_MSG_APPEND: return check_append(m);
    case RAFT_MSG_SNAPSHOT:
        return m->snapshot.index && !bad_number(m->snapshot.index) && m->snapshot.index_term &&
                       m->snapshot.index_term <= m->term && m->snapshot.source
                   ? 0
                   : -CV_BAD_MESSAGE;
    case RAFT_MSG_APPEND_REPLY:
        return bad_number(m->append_reply.index) || bad_number(m->append_reply.last_index) ? -CV_BAD_MESSAGE : 0;
    case RAFT_MSG_HEARTBEAT_REPLY: return bad_number(m->heartbeat_reply.accepted) ? -CV_BAD_MESSAGE : 0;
    case RAFT_MSG_PREVOTE_REPLY:
    case RAFT_MSG_VOTE:
    case RAFT_MSG_VOTE_REPLY:
    case RAFT_MSG_HEARTBEAT:
    case RAFT_MSG_TIMEOUT_NOW:
    case RAFT_MSG_READ:
    case RAFT_MSG_READ_REPLY:
    case RAFT_MSG_SNAPSHOT_FAILED: return 0;
    default: return -CV_UNKNOWN_MESSAGE;
    }
}

/* The entries behind the fixed part: all headers, then all payloads, and nothing more. */
static int decode_entries(struct reader *in, struct raft_entry *entries, uint32_t count)
{
    if (count > RAFT_APPEND_ENTRIES_MAX || (size_t)(in->end - in->p) < (size_t)count * RAFT_ENTRY_HEADER_SIZE)
        return -CV_BAD_MESSAGE;
    const uint8_t *payload = in->p + (size_t)count * RAFT_ENTRY_HEADER_SIZE;
    for (uint32_t i = 0; i < count; i++, in->p += RAFT_ENTRY_HEADER_SIZE) {
        uint32_t size = get_le32(in->p + 8);
        if (size > (size_t)(in->end - payload))
            return -CV_BAD_MESSAGE;
        entries[i] = (struct raft_entry){get_le64(in->p), payload, size, in->p[12]};
        payload += size;
    }
    in->p = payload;
    return 0;
}

int raft_message_decode(const uint8_t *p, size_t n, struct raft_entry *entries, struct raft_message *ret)
{
    if (n < HEADER)
        return -CV_BAD_MESSAGE;
    struct raft_message m;
    memset(&m, 0, sizeof(m));
    m.type = p[0];
    m.from = get_le64(p + 8);
    m.to = get_le64(p + 16);
    m.term = get_le64(p + 24);
    size_t size = get_le16(p + 2);
    if (size > n - HEADER)
        return -CV_BAD_MESSAGE;
    struct reader in = {p + HEADER, p + HEADER + size};
    switch (m.type) {
#define FIELD(type, name) part->name = (raft_##type)get_number(&in, sizeof(raft_##type));
#define RAFT_MESSAGE(code, NAME, name, ...)                                                                            \
    case code: {                                                                                                       \
        __typeof__(m.name) *part = &m.name;                                                                            \
        __VA_ARGS__                                                                                                    \
        break;                                                                                                         \
    }
#include "raft/raft_message.def"
#undef RAFT_MESSAGE
#undef FIELD
    default: return -CV_UNKNOWN_MESSAGE;
    }
    in = (struct reader){p + HEADER + size, p + n};
    if (m.type == RAFT_MSG_APPEND) {
        int e = decode_entries(&in, entries, m.append.count);
        if (e < 0)
            return e;
        m.entries = entries;
    }
    if (in.p != in.end)
        return -CV_BAD_MESSAGE;
    int e = raft_message_check(&m);
    if (e < 0)
        return e;
    *ret = m;
    return 0;
}
