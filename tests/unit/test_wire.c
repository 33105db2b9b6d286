/* SPDX-License-Identifier: Apache-2.0 */
#include "tests/unit/unit.h"

#include <stdio.h>

#include "base/error.h"
#include "base/random.h"
#include "wire/frame.h"
#include "wire/message.h"

#define MESSAGES_MAX 0x10000

/* What a test allocates stays reachable to its end, so that it is no leak. */
static void *kept[1 << 20];
static int kept_count;

static void *keep(void *p)
{
    ck_assert_int_lt(kept_count, 1 << 20);
    return kept[kept_count++] = p;
}

/* Fill a record with values that depend on their place, lists with two records. */
static void fill(const struct wire_desc *d, void *record, struct prng *p)
{
    for (int i = 0; i < d->field_count; i++) {
        const struct wire_field *f = &d->fields[i];
        void *at = (char *)record + f->offset;
        switch (f->kind) {
        case WIRE_U8: *(uint8_t *)at = (uint8_t)prng_next(p); break;
        case WIRE_U16: *(uint16_t *)at = (uint16_t)prng_next(p); break;
        case WIRE_U32: *(uint32_t *)at = (uint32_t)prng_next(p); break;
        case WIRE_U64: *(uint64_t *)at = prng_next(p); break;
        case WIRE_TEXT: {
            uint32_t n = prng_below(p, 20);
            char *s = keep(malloc(n + 1));
            for (uint32_t k = 0; k < n; k++)
                s[k] = (char)prng_next(p);
            *(struct text *)at = (struct text){s, n};
            break;
        }
        case WIRE_REC: fill(f->nest(), at, p); break;
        case WIRE_LIST: {
            struct buf b = {0};
            void *element = calloc(1, f->nest()->size);
            for (int k = 0; k < 2; k++) {
                fill(f->nest(), element, p);
                ck_assert_int_eq(wire_list_append(f->nest(), element, &b), 0);
            }
            free(element);
            *(struct wire_list *)at = wire_list_of(&b, 2);
            keep(b.p);
            break;
        }
        }
    }
}

static const struct wire_desc *each_message(uint32_t *type)
{
    while (++*type < MESSAGES_MAX) {
        const struct wire_desc *d = message_desc((uint16_t)*type);
        if (d)
            return d;
    }
    return NULL;
}

TEST(every_message_survives_a_round_trip)
{
    struct prng p = {7};
    int count = 0;
    uint32_t type = 0;
    for (const struct wire_desc *d; (d = each_message(&type));) {
        void *m = keep(calloc(1, d->size)), *back = keep(malloc(d->size));
        fill(d, m, &p);
        struct buf b = {0}, again = {0};
        ck_assert_int_eq(wire_encode(d, m, &b), 0);
        keep(b.p);
        ck_assert_uint_eq(b.n, wire_size(d, m));
        ck_assert_int_eq(wire_decode(d, b.p, b.n, back), 0);
        ck_assert_int_eq(wire_encode(d, back, &again), 0);
        keep(again.p);
        ck_assert_uint_eq(b.n, again.n);
        if (b.n)
            ck_assert_mem_eq(b.p, again.p, b.n);
        struct buf text = {0};
        ck_assert_int_eq(wire_print(d, back, &text), 0);
        keep(text.p);
        count++;
    }
    ck_assert_int_gt(count, 60);
}

/* A cut at the border of a top-level field is an older sender; anywhere else it must be refused. */
TEST(every_message_refuses_truncation_inside_a_field)
{
    struct prng p = {8};
    uint32_t type = 0;
    for (const struct wire_desc *d; (d = each_message(&type));) {
        void *m = keep(calloc(1, d->size)), *back = keep(malloc(d->size));
        fill(d, m, &p);
        struct buf b = {0};
        ck_assert_int_eq(wire_encode(d, m, &b), 0);
        keep(b.p);
        int refused = 0, accepted = 0;
        for (size_t n = 0; n < b.n; n++) {
            uint8_t *exact = malloc(n ? n : 1); /* so that the sanitizer sees a read past the end */
            memcpy(exact, b.p, n);
            int r = wire_decode(d, exact, n, back);
            ck_assert(r == 0 || r == -CV_BAD_MESSAGE);
            r == 0 ? accepted++ : refused++;
            free(exact);
        }
        ck_assert_int_le(accepted, d->field_count);
    }
}

TEST(decoder_survives_noise)
{
    struct prng p = {9};
    uint32_t type = 0;
    for (const struct wire_desc *d; (d = each_message(&type));) {
        void *m = keep(calloc(1, d->size)), *back = keep(malloc(d->size));
        fill(d, m, &p);
        struct buf b = {0};
        ck_assert_int_eq(wire_encode(d, m, &b), 0);
        keep(b.p);
        for (int i = 0; b.n && i < 200; i++) {
            uint8_t *noisy = malloc(b.n);
            memcpy(noisy, b.p, b.n);
            for (int k = 0; k < 3; k++)
                noisy[prng_below(&p, (uint32_t)b.n)] = (uint8_t)prng_next(&p);
            int r = wire_decode(d, noisy, b.n, back);
            ck_assert(r == 0 || r == -CV_BAD_MESSAGE);
            free(noisy);
        }
    }
}

TEST(message_types_of_answers_are_the_requests_with_the_high_bit)
{
    uint32_t type = 0;
    for (const struct wire_desc *d; (d = each_message(&type));)
        if (d->type & 0x8000) {
            const struct wire_desc *request = message_desc(d->type & 0x7fff);
            ck_assert_ptr_nonnull(request);
            char expected[64];
            snprintf(expected, sizeof(expected), "%s_answer", request->name);
            ck_assert_str_eq(d->name, expected);
        }
}

TEST(lookup_has_golden_bytes)
{
    struct msg_lookup m = {.head = {.session = 2, .uid = 3}, .parent = 1, .name = TEXT("ab")};
    struct buf b = {0};
    ck_assert_int_eq(msg_lookup_encode(&m, &b), 0);
    keep(b.p);
    static const uint8_t golden[] = {
        40, 0, 0, 0,                                         /* length of the head */
        2,  0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0,                 /* session, slot */
        0,  0, 0, 0, 0, 0, 0, 0, 3, 0, 0, 0, 0,   0,   0, 0, /* sequence, uid, gid */
        0,  0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0,                 /* groups, flags, pid */
        1,  0, 0, 0, 0, 0, 0, 0, 2, 0, 0, 0, 'a', 'b',       /* parent, name */
    };
    ck_assert_uint_eq(b.n, sizeof(golden));
    ck_assert_mem_eq(b.p, golden, sizeof(golden));
}

TEST(fields_of_a_newer_sender_are_ignored_and_of_an_older_one_zero)
{
    struct msg_ping m = {.sent_ns = 5};
    struct buf b = {0};
    ck_assert_int_eq(msg_ping_encode(&m, &b), 0);
    ck_assert_int_eq(buf_append(&b, "newer", 5), 0);
    keep(b.p);
    ck_assert_int_eq(msg_ping_decode(b.p, b.n, &m), 0);
    ck_assert_uint_eq(m.sent_ns, 5);
    ck_assert_int_eq(msg_ping_decode(b.p, 0, &m), 0);
    ck_assert_uint_eq(m.sent_ns, 0);
}

TEST(lists_walk_all_their_records)
{
    struct buf b = {0};
    for (uint64_t i = 0; i < 5; i++) {
        struct rec_dir_entry e = {.inode = i, .name = TEXT("x")};
        ck_assert_int_eq(rec_dir_entry_append(&b, &e), 0);
    }
    keep(b.p);
    struct wire_list l = wire_list_of(&b, 5);
    uint64_t n = 0;
    rec_for_each (dir_entry, e, &l) {
        ck_assert_uint_eq(e.inode, n++);
        ck_assert(text_equal(e.name, TEXT("x")));
    }
    ck_assert_uint_eq(n, 5);
}

TEST(frames_refuse_damage_and_size)
{
    struct frame_header h = {.type = MSG_ping, .request_id = 9, .body_len = 8, .aux = 100, .index = 77}, back;
    uint8_t raw[FRAME_HEADER_SIZE];
    frame_encode(&h, raw);
    ck_assert_int_eq(frame_decode(raw, &back), 0);
    ck_assert_uint_eq(back.request_id, 9);
    ck_assert_uint_eq(back.index, 77);
    for (int i = 0; i < FRAME_HEADER_SIZE; i++) {
        raw[i] ^= 1;
        ck_assert_int_lt(frame_decode(raw, &back), 0);
        raw[i] ^= 1;
    }
    h.body_len = FRAME_BODY_MAX + 1;
    frame_encode(&h, raw);
    ck_assert_int_eq(frame_decode(raw, &back), -CV_FRAME_TOO_BIG);
}
