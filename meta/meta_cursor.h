/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Bytes of rows and redo records. Encoders append to a bare pointer, room is the caller's promise; decoders walk a cursor
 * that remembers its first error, so that they look at it once, at the end. Notation: meta_format.h.
 *
 * In a header because a row is decoded for every name that is looked up.
 */
#pragma once

#include <stdbool.h>
#include <stdint.h>
#include <string.h>

#include "base/bytes.h"
#include "base/error.h"
#include "base/text.h"
#include "meta/meta_format.h"

/* --- varints ------------------------------------------------------------------------------------------------------- */

/* Room: 10 bytes. */
static inline uint8_t *varint_put(uint8_t *p, uint64_t v)
{
    while (v >= 0x80) {
        *p++ = (uint8_t)v | 0x80;
        v >>= 7;
    }
    *p++ = (uint8_t)v;
    return p;
}

/* Advances *p. Errors: -CV_BAD_FORMAT: cut, longer than 64 bits, or not the shortest form. */
static inline int varint_get(const uint8_t **p, const uint8_t *end, uint64_t *ret)
{
    uint64_t v = 0;
    const uint8_t *at = *p;
    for (unsigned shift = 0; at < end && shift < 64; shift += 7) {
        uint8_t b = *at++;
        if (shift == 63 && b > 1)
            break; /* more than 64 bits */
        v |= (uint64_t)(b & 0x7f) << shift;
        if (b & 0x80)
            continue;
        if (b == 0 && shift > 0)
            break; /* not the shortest form */
        *p = at;
        *ret = v;
        return 0;
    }
    return -CV_BAD_FORMAT;
}

static inline uint8_t *zigzag_put(uint8_t *p, int64_t newer, int64_t older)
{
    int64_t d = (int64_t)((uint64_t)newer - (uint64_t)older);
    return varint_put(p, ((uint64_t)d << 1) ^ (uint64_t)(d >> 63));
}

static inline uint8_t *u64_put(uint8_t *p, uint64_t v)
{
    put_le64(p, v);
    return p + 8;
}

static inline uint8_t *bytes_put(uint8_t *p, struct text t)
{
    p = varint_put(p, t.n);
    if (t.n)
        memcpy(p, t.p, t.n);
    return p + t.n;
}

/* --- reading: a cursor that goes on giving zeros after its first error --------------------------------------------- */

struct cursor {
    const uint8_t *p, *end;
    int error;
};

static inline struct cursor cursor_of(struct text t)
{
    return (struct cursor){(const uint8_t *)t.p, (const uint8_t *)t.p + t.n, 0};
}

static inline void cursor_fail(struct cursor *c, int error)
{
    if (!c->error)
        c->error = error;
    c->p = c->end;
}

static inline uint64_t take_varint(struct cursor *c)
{
    uint64_t v = 0;
    if (c->p < c->end && *c->p < 0x80) /* most of them */
        return *c->p++;
    if (varint_get(&c->p, c->end, &v) < 0)
        cursor_fail(c, -CV_BAD_FORMAT);
    return v;
}

static inline uint64_t take_below(struct cursor *c, uint64_t limit)
{
    uint64_t v = take_varint(c);
    if (v >= limit) {
        cursor_fail(c, -CV_BAD_FORMAT);
        return 0;
    }
    return v;
}

static inline uint32_t take_u32(struct cursor *c)
{
    return (uint32_t)take_below(c, 1ull << 32);
}

static inline bool has(struct cursor *c, size_t n)
{
    if ((size_t)(c->end - c->p) >= n)
        return true;
    cursor_fail(c, -CV_BAD_FORMAT);
    return false;
}

static inline uint8_t take_u8(struct cursor *c)
{
    return has(c, 1) ? *c->p++ : 0;
}

static inline uint64_t take_fixed64(struct cursor *c)
{
    if (!has(c, 8))
        return 0;
    c->p += 8;
    return get_le64(c->p - 8);
}

static inline struct text take_bytes(struct cursor *c, uint32_t most)
{
    uint64_t n = take_below(c, (uint64_t)most + 1);
    if (!has(c, n))
        return (struct text){NULL, 0};
    c->p += n;
    return (struct text){(const char *)c->p - n, (uint32_t)n};
}

static inline int64_t take_zigzag(struct cursor *c, int64_t newer)
{
    uint64_t v = take_varint(c);
    uint64_t d = (v >> 1) ^ (0 - (v & 1));
    return (int64_t)((uint64_t)newer - d);
}

static inline void take_version(struct cursor *c)
{
    uint8_t v = take_u8(c);
    if (!c->error && v != META_ROW_VERSION)
        cursor_fail(c, v > META_ROW_VERSION ? -CV_FORMAT_TOO_NEW : -CV_BAD_FORMAT);
}

static inline int cursor_end(struct cursor *c)
{
    if (!c->error && c->p != c->end)
        c->error = -CV_BAD_FORMAT;
    return c->error;
}
