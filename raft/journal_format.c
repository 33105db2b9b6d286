/* SPDX-License-Identifier: Apache-2.0 */
#include "raft/journal_format.h"

#include <string.h>

#include "base/bytes.h"
#include "base/error.h"
#include "base/hash.h"
#include "raft/raft.h"

static uint32_t row_crc(const void *key, size_t key_size, const void *row, size_t n)
{
    return crc32c(crc32c(0, key, key_size), row, n);
}

void journal_row_seal(const void *key, size_t key_size, void *row, size_t row_size)
{
    put_le32((uint8_t *)row + row_size - 4, row_crc(key, key_size, row, row_size - 4));
}

int journal_row_open(const void *key, size_t key_size, const void *value, size_t n, void *ret, size_t row_size)
{
    if (n != row_size)
        return -CV_BAD_FORMAT;
    if (get_le32((const uint8_t *)value + n - 4) != row_crc(key, key_size, value, n - 4))
        return -CV_BAD_CHECKSUM;
    memcpy(ret, value, n);
    return 0;
}

uint64_t journal_chain(uint64_t before, uint64_t term, uint8_t type, const void *data, size_t size)
{
    uint8_t link[17];
    put_le64(link, before);
    put_le64(link + 8, term);
    link[16] = type;
    return hash_bytes(hash_bytes(0, link, sizeof(link)), data, size);
}

static uint32_t head_crc(uint64_t index, const struct journal_entry_head *head)
{
    uint8_t key[8];
    put_be64(key, index);
    return row_crc(key, sizeof(key), head, offsetof(struct journal_entry_head, head_crc));
}

void journal_entry_seal(uint64_t index, struct journal_entry_head *head)
{
    head->version = JOURNAL_FORMAT_VERSION;
    head->flags = 0;
    head->head_crc = head_crc(index, head);
}

int journal_entry_open(uint64_t index, const void *value, size_t n, struct journal_entry_head *ret)
{
    struct journal_entry_head head;
    if (n < sizeof(head))
        return -CV_BAD_FORMAT;
    memcpy(&head, value, sizeof(head));
    if (head.head_crc != head_crc(index, &head))
        return -CV_BAD_CHECKSUM;
    if (head.version != JOURNAL_FORMAT_VERSION || head.flags != 0)
        return -CV_FORMAT_TOO_NEW;
    if (head.size != n - sizeof(head) || head.type < RAFT_NOOP || head.type > RAFT_BARRIER)
        return -CV_BAD_FORMAT;
    if (head.data_crc != crc32c(0, (const uint8_t *)value + sizeof(head), head.size))
        return -CV_BAD_CHECKSUM;
    *ret = head;
    return 0;
}
