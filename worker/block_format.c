/* SPDX-License-Identifier: Apache-2.0 */
#include "worker/block_format.h"

#include <stdbool.h>
#include <string.h>

#include "base/bytes.h"
#include "base/error.h"
#include "base/hash.h"

struct block_row_key block_key_plain(enum block_row_kind kind)
{
    return (struct block_row_key){1, {(uint8_t)kind}};
}

struct block_row_key block_key_u32(enum block_row_kind kind, uint32_t id)
{
    struct block_row_key k = {5, {(uint8_t)kind}};
    put_be32(k.p + 1, id);
    return k;
}

struct block_row_key block_key_u64(enum block_row_kind kind, uint64_t id)
{
    struct block_row_key k = {9, {(uint8_t)kind}};
    put_be64(k.p + 1, id);
    return k;
}

struct block_row_key block_key_block(enum block_row_kind kind, uint64_t inode, uint32_t index)
{
    struct block_row_key k = {13, {(uint8_t)kind}};
    put_be64(k.p + 1, inode);
    put_be32(k.p + 9, index);
    return k;
}

struct block_row_key block_key_file(uint64_t inode, uint32_t directory_id)
{
    return block_key_block(BLOCK_ROW_FILE, inode, directory_id);
}

struct block_row_key block_key_chunk(uint64_t inode, uint32_t index, uint8_t chunk)
{
    struct block_row_key k = block_key_block(BLOCK_ROW_CHUNK, inode, index);
    k.p[k.n++] = chunk;
    return k;
}

static uint32_t row_crc(const struct block_row_key *key, const void *row, size_t n)
{
    return crc32c(crc32c(0, key->p, key->n), row, n - sizeof(uint32_t));
}

void block_row_finish(const struct block_row_key *key, void *row, size_t n)
{
    *(uint8_t *)row = BLOCK_FORMAT_VERSION;
    put_le32((uint8_t *)row + n - sizeof(uint32_t), row_crc(key, row, n));
}

int block_row_read(const struct block_row_key *key, const void *p, size_t size, void *row, size_t n)
{
    if (size >= 1 && *(const uint8_t *)p > BLOCK_FORMAT_VERSION) {
        /* A later version, unless the byte itself is what is damaged. */
        bool intact = size >= 5 && get_le32((const uint8_t *)p + size - 4) == row_crc(key, p, size);
        return intact ? -CV_FORMAT_TOO_NEW : -CV_BAD_CHECKSUM;
    }
    if (size != n)
        return -CV_BAD_FORMAT;
    if (get_le32((const uint8_t *)p + n - 4) != row_crc(key, p, n))
        return -CV_BAD_CHECKSUM;
    memcpy(row, p, n);
    return 0;
}

static int check_head(uint64_t magic, uint64_t want_magic, uint32_t version, uint32_t crc, uint32_t want_crc)
{
    if (magic != want_magic)
        return -CV_BAD_FORMAT;
    if (crc != want_crc)
        return -CV_BAD_CHECKSUM;
    if (version > BLOCK_FORMAT_VERSION)
        return -CV_FORMAT_TOO_NEW;
    return version == BLOCK_FORMAT_VERSION ? 0 : -CV_BAD_FORMAT;
}

void block_identity_finish(struct block_identity *d)
{
    d->magic = BLOCK_IDENTITY_MAGIC;
    d->version = BLOCK_FORMAT_VERSION;
    d->crc = crc32c(0, d, offsetof(struct block_identity, crc));
}

int block_identity_check(const struct block_identity *d)
{
    return check_head(d->magic, BLOCK_IDENTITY_MAGIC, d->version, d->crc,
                      crc32c(0, d, offsetof(struct block_identity, crc)));
}

static uint32_t mark_crc(const struct block_index_mark *d)
{
    struct block_index_mark copy = *d;
    copy.crc = 0;
    return crc32c(0, &copy, sizeof(copy));
}

void block_mark_finish(struct block_index_mark *d)
{
    d->magic = BLOCK_MARK_MAGIC;
    d->version = BLOCK_FORMAT_VERSION;
    d->crc = mark_crc(d);
}

int block_mark_check(const struct block_index_mark *d)
{
    return check_head(d->magic, BLOCK_MARK_MAGIC, d->version, d->crc, mark_crc(d));
}

void block_segment_head_finish(struct block_segment_head *d)
{
    d->magic = BLOCK_SEGMENT_MAGIC;
    d->version = BLOCK_FORMAT_VERSION;
    d->crc = crc32c(0, d, offsetof(struct block_segment_head, crc));
}

int block_segment_head_check(const struct block_segment_head *d)
{
    return check_head(d->magic, BLOCK_SEGMENT_MAGIC, d->version, d->crc,
                      crc32c(0, d, offsetof(struct block_segment_head, crc)));
}

void block_entry_head_finish(struct block_entry_head *d)
{
    d->magic = BLOCK_ENTRY_MAGIC;
    d->version = BLOCK_FORMAT_VERSION;
    d->head_crc = crc32c(0, d, offsetof(struct block_entry_head, head_crc));
}

int block_entry_head_check(const struct block_entry_head *d)
{
    return check_head(d->magic, BLOCK_ENTRY_MAGIC, d->version, d->head_crc,
                      crc32c(0, d, offsetof(struct block_entry_head, head_crc)));
}
