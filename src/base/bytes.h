/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Integers in byte strings: little-endian for messages, records and values; big-endian for keys, so that RocksDB's
 * bytewise order is the numeric order. Unaligned access is fine.
 */
#pragma once

#include <endian.h>
#include <stdint.h>
#include <string.h>

#define DEFINE_LE(bits)                                                                                                \
    static inline uint##bits##_t get_le##bits(const void *p)                                                           \
    {                                                                                                                  \
        uint##bits##_t v;                                                                                              \
        memcpy(&v, p, sizeof(v));                                                                                      \
        return le##bits##toh(v);                                                                                       \
    }                                                                                                                  \
    static inline void put_le##bits(void *p, uint##bits##_t v)                                                         \
    {                                                                                                                  \
        v = htole##bits(v);                                                                                            \
        memcpy(p, &v, sizeof(v));                                                                                      \
    }                                                                                                                  \
    static inline uint##bits##_t get_be##bits(const void *p)                                                           \
    {                                                                                                                  \
        uint##bits##_t v;                                                                                              \
        memcpy(&v, p, sizeof(v));                                                                                      \
        return be##bits##toh(v);                                                                                       \
    }                                                                                                                  \
    static inline void put_be##bits(void *p, uint##bits##_t v)                                                         \
    {                                                                                                                  \
        v = htobe##bits(v);                                                                                            \
        memcpy(p, &v, sizeof(v));                                                                                      \
    }

DEFINE_LE(16)
DEFINE_LE(32)
DEFINE_LE(64)
#undef DEFINE_LE
