/* SPDX-License-Identifier: Apache-2.0 */
#include "place/place.h"

#include "base/hash.h"

#define LOG_BITS 20 /* of the fraction */

/* -log2(h / 2^64) in fixed point, at least 1: the fraction bit by bit, by squaring. */
static uint64_t minus_log2(uint64_t h)
{
    if (!h)
        return 64ull << LOG_BITS;
    unsigned top = 63 - (unsigned)__builtin_clzll(h);
    uint64_t log = (uint64_t)top << LOG_BITS;
    uint64_t x = h << (63 - top); /* in [1, 2), 63 bits behind the point */
    for (int bit = LOG_BITS - 1; bit >= 0; bit--) {
        unsigned __int128 square = (unsigned __int128)x * x; /* in [1, 4), 126 bits behind the point */
        bool two = square >> 127;
        x = (uint64_t)(square >> (two ? 64 : 63));
        log |= (uint64_t)two << bit;
    }
    return (64ull << LOG_BITS) - log;
}

struct score {
    uint64_t hash, log, worker;
    uint32_t weight;
};

/* weight / -log2(hash) is larger; equal ones by hash, then by id: never by the order of the map. */
static bool better(const struct score *a, const struct score *b)
{
    uint64_t left = a->weight * b->log, right = b->weight * a->log; /* 32 + 27 bits */
    if (left != right)
        return left > right;
    return a->hash != b->hash ? a->hash > b->hash : a->worker < b->worker;
}

unsigned place_order(const struct place_member *members, unsigned count, uint64_t inode, uint32_t index, unsigned max,
                     uint64_t *ret)
{
    struct score best[16];
    unsigned n = 0;
    if (max > 16)
        max = 16;
    uint64_t seed = hash_u64(inode * 0x9e3779b97f4a7c15ull + index);
    for (unsigned i = 0; i < count && max > 0; i++) {
        if (!members[i].in)
            continue;
        struct score s = {.hash = hash_u64(seed ^ hash_u64(members[i].worker)), .worker = members[i].worker};
        s.weight = members[i].weight ? members[i].weight : 1;
        s.log = minus_log2(s.hash);
        unsigned at = n;
        while (at > 0 && better(&s, &best[at - 1]))
            at--;
        if (at == max)
            continue;
        if (n < max)
            n++;
        for (unsigned j = n - 1; j > at; j--)
            best[j] = best[j - 1];
        best[at] = s;
    }
    for (unsigned i = 0; i < n; i++)
        ret[i] = best[i].worker;
    return n;
}
