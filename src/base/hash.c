/* SPDX-License-Identifier: Apache-2.0 */
#include "base/hash.h"

#include <isa-l/crc.h>
#include <xxhash.h>

uint32_t crc32c(uint32_t so_far, const void *p, size_t n)
{
    const uint8_t *at = p;
    uint32_t crc = ~so_far;
    while (n) { /* ISA-L takes an int */
        size_t piece = n < (1u << 30) ? n : (1u << 30);
        crc = crc32_iscsi((unsigned char *)(uintptr_t)at, (int)piece, crc);
        at += piece;
        n -= piece;
    }
    return ~crc;
}

uint64_t hash_bytes(uint64_t seed, const void *p, size_t n)
{
    return XXH64(p, n, seed);
}
