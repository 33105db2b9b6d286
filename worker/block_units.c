/* SPDX-License-Identifier: Apache-2.0 */
#include "worker/block_units.h"

#include "base/hash.h"

bool block_units_fit(const struct block_units *u, uint32_t offset, uint32_t n)
{
    uint32_t unit = offset / BLOCK_UNIT_BYTES, start = offset % BLOCK_UNIT_BYTES;
    return offset + n <= BLOCK_CHUNK_BYTES && (start == 0 || u->filled[unit] == start);
}

void block_units_add(struct block_units *u, uint32_t offset, const void *p, uint32_t n)
{
    for (uint32_t done = 0; done < n;) {
        uint32_t unit = (offset + done) / BLOCK_UNIT_BYTES, start = (offset + done) % BLOCK_UNIT_BYTES;
        uint32_t piece = min(n - done, BLOCK_UNIT_BYTES - start);
        u->crc[unit] = crc32c(start ? u->crc[unit] : 0, (const char *)p + done, piece);
        u->filled[unit] = start + piece;
        done += piece;
    }
}

bool block_units_complete(const struct block_units *u, uint32_t length)
{
    for (uint32_t unit = 0; unit * BLOCK_UNIT_BYTES < length; unit++)
        if (u->filled[unit] != min(length - unit * BLOCK_UNIT_BYTES, BLOCK_UNIT_BYTES))
            return false;
    return true;
}

void block_units_zeros(struct block_units *u, uint32_t from, uint32_t to)
{
    static const char zeros[4096];
    while (from < to) {
        uint32_t n = min(to - from, (uint32_t)sizeof(zeros));
        block_units_add(u, from, zeros, n);
        from += n;
    }
}
