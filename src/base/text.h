/* SPDX-License-Identifier: Apache-2.0 */
/*
 * A piece of bytes somebody else owns: names, values, decoded fields. Not zero-terminated. Also a growable buffer.
 */
#pragma once

#include <stdbool.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

struct text {
    const char *p;
    uint32_t n;
};

#define TEXT(literal) ((struct text){"" literal, sizeof(literal) - 1})
#define TEXT_FMT      "%.*s"
#define TEXT_ARG(t)   (int)(t).n, (t).p

static inline struct text text_of(const char *s)
{
    return (struct text){s, s ? (uint32_t)strlen(s) : 0};
}

static inline bool text_equal(struct text a, struct text b)
{
    return a.n == b.n && (a.n == 0 || memcmp(a.p, b.p, a.n) == 0);
}

/* Bytewise order, shorter first: the order RocksDB keeps keys in. */
static inline int text_compare(struct text a, struct text b)
{
    uint32_t n = a.n < b.n ? a.n : b.n;
    int c = n ? memcmp(a.p, b.p, n) : 0;
    return c ? c : (a.n > b.n) - (a.n < b.n);
}

/* A growable buffer. All zero is an empty buffer; free with buf_fini(). */
struct buf {
    uint8_t *p;
    size_t n, room;
};

void buf_fini(struct buf *b);

/* Make room for extra bytes behind what is there. Errors: -ENOMEM. */
int buf_reserve(struct buf *b, size_t extra);

/* Append n bytes. Errors: -ENOMEM, and then nothing is appended. */
int buf_append(struct buf *b, const void *p, size_t n);

/* Append formatted text (without the final zero). Errors: -ENOMEM. */
int buf_printf(struct buf *b, const char *format, ...) __attribute__((format(printf, 2, 3)));

/* Sizes as people write them: "64MiB", "10G" (G = GiB), "4096". Range error and junk: -EINVAL. */
int parse_size(const char *s, uint64_t *ret);

/* Durations: "10ms", "3s", "5m", "2h", "7d"; a bare number is milliseconds. Result in ms. */
int parse_duration_ms(const char *s, uint64_t *ret);

/* "1.5 GiB" into out (at least 16 bytes); returns out. */
char *format_size(uint64_t bytes, char *out, size_t size);
