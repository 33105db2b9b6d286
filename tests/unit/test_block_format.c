/* SPDX-License-Identifier: Apache-2.0 */
#include "tests/unit/unit.h"

#include <string.h>

#include "base/error.h"
#include "base/hash.h"
#include "worker/block_format.h"
#include "worker/block_units.h"

TEST(block_keys_sort_by_inode_then_block_then_chunk)
{
    struct block_row_key k[] = {
        block_key_chunk(1, 0, 0),      block_key_chunk(1, 0, 63),         block_key_chunk(1, 1, 0),
        block_key_chunk(0x0100, 0, 0), block_key_chunk(1ull << 56, 0, 0),
    };
    for (size_t i = 1; i < sizeof(k) / sizeof(k[0]); i++)
        ck_assert_int_lt(memcmp(k[i - 1].p, k[i].p, k[i].n), 0);
    static const uint8_t golden[] = {'k', 0, 0, 0, 0, 0, 0, 1, 2, 0, 0, 0, 3, 4};
    struct block_row_key g = block_key_chunk(0x102, 3, 4);
    ck_assert_uint_eq(g.n, sizeof(golden));
    ck_assert_mem_eq(g.p, golden, sizeof(golden));
}

TEST(block_rows_are_exact)
{
    struct block_row_key k = block_key_block(BLOCK_ROW_BLOCK, 5, 6), other = block_key_block(BLOCK_ROW_BLOCK, 5, 7);
    struct block_row_block row = {.block_version = 9, .length = 1234, .file_id = 77}, got;
    block_row_finish(&k, &row, sizeof(row));
    ck_assert_int_eq(block_row_read(&k, &row, sizeof(row), &got, sizeof(got)), 0);
    ck_assert_mem_eq(&row, &got, sizeof(row));
    ck_assert_int_eq(block_row_read(&other, &row, sizeof(row), &got, sizeof(got)), -CV_BAD_CHECKSUM);
    ck_assert_int_eq(block_row_read(&k, &row, sizeof(row) - 1, &got, sizeof(got)), -CV_BAD_FORMAT);
    for (size_t i = 0; i < sizeof(row); i++)
        for (int bit = 0; bit < 8; bit++) {
            uint8_t copy[sizeof(row)];
            memcpy(copy, &row, sizeof(row));
            copy[i] ^= (uint8_t)(1 << bit);
            ck_assert_int_eq(block_row_read(&k, copy, sizeof(copy), &got, sizeof(got)), -CV_BAD_CHECKSUM);
        }
    uint8_t later[sizeof(row) + 8] = {BLOCK_FORMAT_VERSION + 1};
    uint32_t crc = crc32c(crc32c(0, k.p, k.n), later, sizeof(later) - 4);
    memcpy(later + sizeof(later) - 4, &crc, 4);
    ck_assert_int_eq(block_row_read(&k, later, sizeof(later), &got, sizeof(got)), -CV_FORMAT_TOO_NEW);
}

TEST(block_rows_have_their_golden_bytes)
{
    struct block_row_key k = block_key_chunk(1, 2, 3);
    struct block_row_chunk row = {
        .state = BLOCK_CHUNK_SEALED, .pages = 256, .length = 0x100000, .block_version = 4, .seal = 5, .unit_crc = {6}};
    block_row_finish(&k, &row, sizeof(row));
    static const uint8_t golden[28] = {1, 2, 0, 1, 0, 0, 0x10, 0, 4, 0, 0, 0, 0, 0, 0, 0, 5, 0, 0, 0, 0, 0, 0, 0, 6};
    ck_assert_mem_eq(&row, golden, sizeof(golden));
    struct block_entry_head e = {.inode = 1, .block_version = 2, .length = 3};
    block_entry_head_finish(&e);
    ck_assert_mem_eq(&e, "ENTR\1\0\0\0\1\0\0\0\0\0\0\0\2\0\0\0\0\0\0\0\3\0\0\0", 28);
    ck_assert_int_eq(block_entry_head_check(&e), 0);
    e.length++;
    ck_assert_int_eq(block_entry_head_check(&e), -CV_BAD_CHECKSUM);
}

TEST(block_units_take_units_in_any_order_and_bytes_within_them_in_order)
{
    static uint8_t data[BLOCK_CHUNK_BYTES];
    for (size_t i = 0; i < sizeof(data); i++)
        data[i] = (uint8_t)(i * 31 >> 3);
    struct block_units u = {0};
    uint32_t length = 3 * BLOCK_UNIT_BYTES + 100;
    ck_assert(!block_units_fit(&u, 5, 10));
    block_units_add(&u, 3 * BLOCK_UNIT_BYTES, data + 3 * BLOCK_UNIT_BYTES, 100);
    block_units_add(&u, 0, data, 1000);
    ck_assert(!block_units_fit(&u, 999, 10));
    ck_assert(block_units_fit(&u, 1000, 10));
    block_units_add(&u, 0, data, 2000); /* begins again */
    block_units_add(&u, 2000, data + 2000, BLOCK_UNIT_BYTES);
    ck_assert(!block_units_complete(&u, length));
    uint32_t at = 2000 + BLOCK_UNIT_BYTES;
    block_units_add(&u, at, data + at, 2 * BLOCK_UNIT_BYTES - 2000);
    ck_assert(block_units_complete(&u, length));
    for (int i = 0; i < 3; i++)
        ck_assert_uint_eq(u.crc[i], crc32c(0, data + i * BLOCK_UNIT_BYTES, BLOCK_UNIT_BYTES));
    memset(data + length, 0, 5000);
    block_units_zeros(&u, length, length + 5000);
    ck_assert_uint_eq(u.crc[3], crc32c(0, data + 3 * BLOCK_UNIT_BYTES, 5100));
}
