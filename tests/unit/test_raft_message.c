/* SPDX-License-Identifier: Apache-2.0 */
/* Messages of the consensus core as bytes: golden bytes, round trips, truncations, junk, other versions. */
#include "base/bytes.h"
#include "base/random.h"
#include "raft_cluster.h"

enum { BYTES_MAX = RAFT_MESSAGE_FIXED_MAX + RAFT_APPEND_ENTRIES_MAX * (RAFT_ENTRY_HEADER_SIZE + 16) };

static const uint8_t types[] = {
#define RAFT_MESSAGE(code, NAME, name, ...) RAFT_MSG_##NAME,
#include "raft/raft_message.def"
#undef RAFT_MESSAGE
};

/* One of each type with every field set to something else. */
static struct raft_message sample(uint8_t type, struct raft_entry entries[3])
{
    struct raft_message m = {.type = type, .from = 0x0102030405060708, .to = 9, .term = 7};
    switch (type) {
    case RAFT_MSG_PREVOTE:
        m.prevote.next_term = 8;
        m.prevote.last_index = 0x1111;
        m.prevote.last_term = 6;
        break;
    case RAFT_MSG_PREVOTE_REPLY:
        m.prevote_reply.next_term = 8;
        m.prevote_reply.granted = 1;
        break;
    case RAFT_MSG_VOTE:
        m.vote.last_index = 0x1111;
        m.vote.last_term = 6;
        m.vote.transfer = 1;
        break;
    case RAFT_MSG_VOTE_REPLY: m.vote_reply.granted = 1; break;
    case RAFT_MSG_APPEND:
        m.append.prev_index = 0x2222;
        m.append.prev_term = 3;
        m.append.commit = 0x2221;
        m.append.last_term = 5;
        m.append.count = 3;
        entries[0] = (struct raft_entry){.term = 3, .type = RAFT_NOOP};
        entries[1] = (struct raft_entry){.term = 4, .type = RAFT_BATCH, .size = 5, .data = (const uint8_t *)"hello"};
        entries[2] = (struct raft_entry){.term = 5, .type = RAFT_DIGEST, .size = 2, .data = (const uint8_t *)"hi"};
        m.entries = entries;
        break;
    case RAFT_MSG_APPEND_REPLY:
        m.append_reply.index = 1;
        m.append_reply.conflict_term = 2;
        m.append_reply.conflict_first = 3;
        m.append_reply.last_index = 4;
        m.append_reply.rejected = 1;
        break;
    case RAFT_MSG_HEARTBEAT:
        m.heartbeat.round = 1;
        m.heartbeat.commit = 2;
        m.heartbeat.floor = 3;
        m.heartbeat.chain = 4;
        break;
    case RAFT_MSG_HEARTBEAT_REPLY:
        m.heartbeat_reply.round = 1;
        m.heartbeat_reply.accepted = 2;
        m.heartbeat_reply.match = 3;
        m.heartbeat_reply.flushed = 4;
        m.heartbeat_reply.flags = 3;
        break;
    case RAFT_MSG_TIMEOUT_NOW: m.timeout_now.last_index = 5; break;
    case RAFT_MSG_READ: m.read.context = UINT64_MAX; break;
    case RAFT_MSG_READ_REPLY:
        m.read_reply.context = UINT64_MAX;
        m.read_reply.index = 7;
        m.read_reply.refused = 1;
        break;
    case RAFT_MSG_SNAPSHOT:
        m.snapshot.index = 100;
        m.snapshot.index_term = 6;
        m.snapshot.source = 77;
        break;
    case RAFT_MSG_SNAPSHOT_FAILED: m.snapshot_failed.index = 100; break;
    }
    return m;
}

static size_t encode(const struct raft_message *m, uint8_t out[BYTES_MAX])
{
    size_t n = raft_message_encode(m, out);
    uint32_t count = m->type == RAFT_MSG_APPEND ? m->append.count : 0;
    for (uint32_t i = 0; i < count; i++, n += RAFT_ENTRY_HEADER_SIZE)
        raft_entry_header_encode(&m->entries[i], out + n);
    for (uint32_t i = 0; i < count; n += m->entries[i++].size)
        memcpy(out + n, m->entries[i].data ?: (const uint8_t *)"", m->entries[i].size);
    return n;
}

static uint8_t *exact_copy(const uint8_t *p, size_t n)
{
    uint8_t *copy = malloc(n ?: 1); /* so that a sanitizer sees a read beyond */
    memcpy(copy, p, n);
    return copy;
}

TEST(raft_messages_survive_a_round_trip)
{
    for (size_t t = 0; t < sizeof(types); t++) {
        struct raft_entry in[3], out[RAFT_APPEND_ENTRIES_MAX];
        uint8_t bytes[BYTES_MAX], again[BYTES_MAX];
        struct raft_message m = sample(types[t], in), back;
        size_t n = encode(&m, bytes);
        ck_assert_int_eq(raft_message_decode(bytes, n, out, &back), 0);
        ck_assert_uint_eq(encode(&back, again), n);
        ck_assert_mem_eq(bytes, again, n);
        ck_assert_uint_eq(back.from, m.from);
        ck_assert_uint_eq(back.term, 7);
        ck_assert_str_ne(raft_message_name(types[t]), "unknown");
        if (types[t] != RAFT_MSG_APPEND)
            continue;
        ck_assert_uint_eq(back.entries[1].size, 5);
        ck_assert_mem_eq(back.entries[1].data, "hello", 5);
        ck_assert_int_eq(back.entries[2].type, RAFT_DIGEST);
    }
    ck_assert_str_eq(raft_message_name(0), "unknown");
    ck_assert_str_eq(raft_message_name(RAFT_MSG_APPEND_REPLY), "append_reply");
}

TEST(raft_append_has_golden_bytes)
{
    struct raft_entry in[3];
    uint8_t bytes[BYTES_MAX];
    struct raft_message m = sample(RAFT_MSG_APPEND, in);
    size_t n = encode(&m, bytes);
    const uint8_t golden[] = {
        5,    0,    36,  0,   0,   0,   0,   0,                         /* type, length of the fields */
        8,    7,    6,   5,   4,   3,   2,   1, 9, 0, 0, 0, 0, 0, 0, 0, /* from, to */
        7,    0,    0,   0,   0,   0,   0,   0,                         /* term */
        0x22, 0x22, 0,   0,   0,   0,   0,   0, 3, 0, 0, 0, 0, 0, 0, 0, 0x21, 0x22, 0, 0, 0, 0, 0, 0, /* prev, commit */
        5,    0,    0,   0,   0,   0,   0,   0, 3, 0, 0, 0,             /* last_term, count */
        3,    0,    0,   0,   0,   0,   0,   0, 0, 0, 0, 0, 1, 0, 0, 0, /* headers */
        4,    0,    0,   0,   0,   0,   0,   0, 5, 0, 0, 0, 2, 0, 0, 0, /**/
        5,    0,    0,   0,   0,   0,   0,   0, 2, 0, 0, 0, 5, 0, 0, 0, /**/
        'h',  'e',  'l', 'l', 'o', 'h', 'i',
    };
    ck_assert_uint_eq(n, sizeof(golden));
    ck_assert_mem_eq(bytes, golden, n);
}

TEST(raft_codes_and_lengths_of_messages_do_not_change)
{
    /* Codes, field order and sizes are on the wire between versions: a change here is a change of protocol. */
    const uint16_t lengths[] = {24, 9, 17, 1, 36, 33, 32, 33, 8, 8, 17, 24, 8};
    ck_assert_uint_eq(array_size(lengths), sizeof(types));
    for (size_t t = 0; t < sizeof(types); t++) {
        struct raft_entry in[3];
        uint8_t bytes[BYTES_MAX];
        struct raft_message m = sample(types[t], in);
        encode(&m, bytes);
        ck_assert_uint_eq(types[t], t + 1);
        ck_assert_msg(get_le16(bytes + 2) == lengths[t], "%s", raft_message_name(types[t]));
    }
}

TEST(raft_decoder_refuses_every_truncation_of_every_message)
{
    for (size_t t = 0; t < sizeof(types); t++) {
        struct raft_entry in[3], out[RAFT_APPEND_ENTRIES_MAX];
        uint8_t bytes[BYTES_MAX];
        struct raft_message m = sample(types[t], in), back;
        size_t n = encode(&m, bytes);
        for (size_t i = 0; i < n; i++) {
            uint8_t *p = exact_copy(bytes, i);
            ck_assert_msg(raft_message_decode(p, i, out, &back) == -CV_BAD_MESSAGE, "%s cut to %d",
                          raft_message_name(types[t]), (int)i);
            free(p);
        }
        uint8_t *p = exact_copy(bytes, n + 1);
        p[n] = 0;
        ck_assert_int_eq(raft_message_decode(p, n + 1, out, &back), -CV_BAD_MESSAGE); /* bytes left over */
        free(p);
    }
}

TEST(raft_decoder_takes_longer_and_shorter_forms_of_other_versions)
{
    struct raft_entry in[3], out[RAFT_APPEND_ENTRIES_MAX];
    uint8_t bytes[BYTES_MAX] = {0};
    struct raft_message m = sample(RAFT_MSG_HEARTBEAT, in), back;
    size_t n = encode(&m, bytes);
    put_le16(bytes + 2, 40); /* a field we do not know */
    ck_assert_int_eq(raft_message_decode(bytes, n + 8, out, &back), 0);
    ck_assert_uint_eq(back.heartbeat.chain, 4);
    put_le16(bytes + 2, 24); /* one from before there was chain */
    ck_assert_int_eq(raft_message_decode(bytes, n - 8, out, &back), 0);
    ck_assert_uint_eq(back.heartbeat.floor, 3);
    ck_assert_uint_eq(back.heartbeat.chain, 0);
}

TEST(raft_decoder_refuses_numbers_no_node_sends)
{
    struct raft_entry in[3], out[RAFT_APPEND_ENTRIES_MAX];
    uint8_t bytes[BYTES_MAX];
    struct raft_message m = sample(RAFT_MSG_APPEND, in), back;
    size_t n = encode(&m, bytes);
    bytes[0] = 99;
    ck_assert_int_eq(raft_message_decode(bytes, n, out, &back), -CV_UNKNOWN_MESSAGE);
    encode(&m, bytes);
    put_le32(bytes + 64, 65); /* more entries than a message may hold */
    ck_assert_int_eq(raft_message_decode(bytes, n, out, &back), -CV_BAD_MESSAGE);
    encode(&m, bytes);
    put_le32(bytes + 68 + 16 + 8, UINT32_MAX); /* a payload longer than the message */
    ck_assert_int_eq(raft_message_decode(bytes, n, out, &back), -CV_BAD_MESSAGE);
    encode(&m, bytes);
    put_le64(bytes + 68 + 16, 2); /* terms go down */
    ck_assert_int_eq(raft_message_decode(bytes, n, out, &back), -CV_BAD_MESSAGE);
    encode(&m, bytes);
    put_le64(bytes + 32, UINT64_MAX - 1); /* indexes overflow */
    ck_assert_int_eq(raft_message_decode(bytes, n, out, &back), -CV_BAD_MESSAGE);
    m = sample(RAFT_MSG_PREVOTE, in);
    m.prevote.next_term = 7;
    n = encode(&m, bytes);
    ck_assert_int_eq(raft_message_decode(bytes, n, out, &back), -CV_BAD_MESSAGE);
    m = sample(RAFT_MSG_SNAPSHOT, in);
    m.snapshot.index_term = 8;
    n = encode(&m, bytes);
    ck_assert_int_eq(raft_message_decode(bytes, n, out, &back), -CV_BAD_MESSAGE);
    m = sample(RAFT_MSG_HEARTBEAT_REPLY, in);
    m.heartbeat_reply.accepted = UINT64_MAX;
    n = encode(&m, bytes);
    ck_assert_int_eq(raft_message_decode(bytes, n, out, &back), -CV_BAD_MESSAGE);
}

TEST(raft_decoder_survives_junk_and_flipped_bits)
{
    struct prng prng = {.state = 7};
    struct raft_entry in[3], out[RAFT_APPEND_ENTRIES_MAX];
    struct raft_message back;
    uint32_t accepted = 0;
    for (int i = 0; i < 200000; i++) {
        uint8_t bytes[BYTES_MAX];
        size_t n;
        if (i % 2) {
            n = prng_below(&prng, 200);
            for (size_t k = 0; k < n; k++)
                bytes[k] = (uint8_t)prng_next(&prng);
        } else {
            struct raft_message m = sample(types[prng_below(&prng, sizeof(types))], in);
            n = encode(&m, bytes);
            for (uint32_t k = 1 + prng_below(&prng, 4); k > 0; k--)
                bytes[prng_below(&prng, (uint32_t)n)] ^= (uint8_t)(1u << prng_below(&prng, 8));
        }
        uint8_t *p = exact_copy(bytes, n);
        int e = raft_message_decode(p, n, out, &back);
        ck_assert(e == 0 || e == -CV_BAD_MESSAGE || e == -CV_UNKNOWN_MESSAGE);
        accepted += e == 0;
        free(p);
    }
    ck_assert_uint_gt(accepted, 0);
}
