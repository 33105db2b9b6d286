/* SPDX-License-Identifier: Apache-2.0 */
/* Verifying sealed chunks against the CRCs in the index. */
#include "worker/block_state.h"

#include "base/hash.h"
#include "base/log.h"

int block_check_row(struct block_store *s, const struct block *b, uint32_t chunk, bool must_not_block,
                    uint32_t ret_crc[BLOCK_CHUNK_UNITS], uint32_t *ret_length)
{
    int r;
    memset(ret_crc, 0, BLOCK_CHUNK_UNITS * sizeof(*ret_crc));
    if (b->packed) {
        struct block_row_key key = block_key_block(BLOCK_ROW_BLOCK, b->inode, b->index);
        struct block_row_block row;
        r = block_index_get(s->index, &key, must_not_block, &row, sizeof(row));
        if (r == 0) {
            memcpy(ret_crc, row.unit_crc, sizeof(row.unit_crc));
            *ret_length = row.length;
        }
    } else {
        struct block_row_key key = block_key_chunk(b->inode, b->index, (uint8_t)chunk);
        struct block_row_chunk row;
        r = block_index_get(s->index, &key, must_not_block, &row, sizeof(row));
        if (r == 0) {
            memcpy(ret_crc, row.unit_crc, sizeof(row.unit_crc));
            *ret_length = row.length;
        }
    }
    return r == -ENOENT ? -CV_BAD_CHECKSUM : r; /* present says memory: the row must be there */
}

uint64_t block_place_of(const struct block *b, uint32_t offset)
{
    if (b->packed)
        return (uint64_t)b->entry_offset + sizeof(struct block_entry_head) + offset;
    return ((uint64_t)b->index << b->file->shift) + offset;
}

/* Read length bytes from at and compare unit by unit. */
static int compare(int fd, uint64_t at, uint32_t length, const uint32_t crc[BLOCK_CHUNK_UNITS])
{
    void *unit cleanup(freep) = block_io_alloc(BLOCK_UNIT_BYTES);
    if (!unit)
        return -ENOMEM;
    for (uint32_t u = 0; u * BLOCK_UNIT_BYTES < length; u++) {
        uint32_t n = min(length - u * BLOCK_UNIT_BYTES, BLOCK_UNIT_BYTES);
        size_t got = 0;
        int r = block_io_read(fd, unit, n, at + u * BLOCK_UNIT_BYTES, &got);
        if (r == -EIO)
            return -CV_DATA_DAMAGED; /* the disk says so itself */
        if (r < 0)
            return r;
        if (got < n)
            memset((char *)unit + got, 0, n - got); /* the file ends before zeros that were never written */
        if (crc32c(0, unit, n) != crc[u])
            return -CV_DATA_DAMAGED;
    }
    return 0;
}

int block_check_chunk(struct block_store *s, struct block *b, uint32_t chunk)
{
    uint32_t crc[BLOCK_CHUNK_UNITS], length;
    uint64_t bit = 1ull << chunk;
    int r = block_check_row(s, b, chunk, false, crc, &length);
    if (r < 0)
        return block_store_index_error(s, r);
    struct block_file *f = b->file;
    r = block_file_use(s, f);
    if (r == 0) {
        r = compare(f->fd, block_place_of(b, chunk * BLOCK_CHUNK_BYTES), length, crc);
        block_file_unuse(s, f);
    } else if (r == -ENOENT) {
        r = -CV_DATA_DAMAGED;
    }
    pthread_mutex_lock(&s->lock);
    s->stats.verified_bytes += length;
    if (r == 0) {
        b->checked |= bit;
        b->damaged &= ~bit;
    } else if (r == -CV_DATA_DAMAGED) {
        s->stats.damaged_chunks += !(b->damaged & bit);
        b->damaged |= bit;
        b->checked &= ~bit;
    }
    pthread_mutex_unlock(&s->lock);
    if (r == -CV_DATA_DAMAGED)
        log_warn(r, "inode %llu block %u chunk %u", (unsigned long long)b->inode, b->index, chunk);
    return r;
}

int block_check_settle(struct block_store *s, struct block *b)
{
    pthread_mutex_lock(&s->lock);
    uint64_t clean = b->damaged & ~b->written;
    bool written = b->damaged & b->written;
    pthread_mutex_unlock(&s->lock);
    int r = clean ? block_drop(s, b, clean) : 0;
    if (r < 0 && r != -CV_BUSY) /* busy: exported and in use; it stays, flagged, and is not served */
        return r;
    return written ? -CV_DATA_DAMAGED : clean ? -ENODATA : 0;
}
