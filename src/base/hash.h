/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Checksums and hashes, each from one place: CRC32C (ISA-L) guards bytes on disk and on the wire, XXH64 (xxHash)
 * chains the log, hash_u64 spreads integers in tables. Results do not depend on the machine.
 */
#pragma once

#include <stddef.h>
#include <stdint.h>

/* CRC32C (Castagnoli) of n bytes, continuing from an earlier result; start with 0. */
uint32_t crc32c(uint32_t so_far, const void *p, size_t n);

/* XXH64 of n bytes with a seed. */
uint64_t hash_bytes(uint64_t seed, const void *p, size_t n);

/* Spread the bits of an integer (the finaliser of splitmix64). */
static inline uint64_t hash_u64(uint64_t x)
{
    x ^= x >> 30;
    x *= 0xbf58476d1ce4e5b9ull;
    x ^= x >> 27;
    x *= 0x94d049bb133111ebull;
    return x ^ (x >> 31);
}
