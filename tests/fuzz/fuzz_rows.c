/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Any bytes as a row on disk: of metadata (the first byte says which kind), or of a worker's index. What decodes is encoded
 * again, which decodes to the same.
 */
#include <assert.h>
#include <stdlib.h>
#include <string.h>

#include "base/cleanup.h"
#include "meta/meta_format.h"
#include "worker/block_format.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

#define ROOM (256 << 10)

static uint8_t first[ROOM], second[ROOM];

#define TRY(type, decode, encode)                                                                                      \
    do {                                                                                                               \
        type x_;                                                                                                       \
        if ((decode) < 0)                                                                                              \
            break;                                                                                                     \
        uint32_t n_ = encode(&x_, first);                                                                              \
        row = (struct text){(char *)first, n_};                                                                        \
        int r_ = (decode);                                                                                             \
        assert(r_ == 0);                                                                                               \
        uint32_t m_ = encode(&x_, second);                                                                             \
        assert(n_ <= ROOM && m_ == n_ && memcmp(first, second, n_) == 0);                                              \
    } while (0)

static void try_mount(struct text row)
{
    struct meta_mount_row m;
    if (meta_mount_decode(3, row, &m) < 0)
        return;
    struct text params = m.params, name, value;
    uint32_t count = 0;
    while (meta_param_next(&params, &name, &value))
        count++;
    assert(count == m.param_count);
    assert(meta_mount_bytes(&m) <= ROOM);
    TRY(struct meta_mount_row, meta_mount_decode(3, row, &x_), meta_mount_encode);
}

static void try_meta(unsigned kind, struct text row)
{
    switch (kind) {
    case 0: TRY(struct meta_inode, meta_inode_decode(7, row, &x_), meta_inode_encode); break;
    case 1: TRY(struct meta_dentry, meta_dentry_decode(row, &x_), meta_dentry_encode); break;
    case 2: TRY(struct meta_extent, meta_extent_decode(row, &x_), meta_extent_encode); break;
    case 3: TRY(struct meta_session_row, meta_session_decode(row, &x_), meta_session_encode); break;
    case 4: TRY(struct meta_slot_row, meta_slot_decode(row, &x_), meta_slot_encode); break;
    case 5: TRY(struct meta_worker_row, meta_worker_decode(9, row, &x_), meta_worker_encode); break;
    case 6: TRY(struct meta_state, meta_state_decode(row, &x_), meta_state_encode); break;
    case 7: try_mount(row); break;
    default: break;
    }
}

static void try_block(const uint8_t *p, size_t n)
{
    struct block_row_key key = block_key_chunk(1, 2, 3);
    struct block_row_chunk chunk;
    struct block_identity identity;
    struct block_segment_head head;
    (void)block_row_read(&key, p, n, &chunk, sizeof(chunk));
    if (n >= sizeof(chunk)) {
        memcpy(&chunk, p, sizeof(chunk));
        block_row_finish(&key, &chunk, sizeof(chunk));
        int r = block_row_read(&key, &chunk, sizeof(chunk), &chunk, sizeof(chunk));
        assert(r == 0);
    }
    if (n >= sizeof(identity)) {
        memcpy(&identity, p, sizeof(identity));
        (void)block_identity_check(&identity);
    }
    if (n >= sizeof(head)) {
        memcpy(&head, p, sizeof(head));
        (void)block_segment_head_check(&head);
    }
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    if (size == 0)
        return 0;
    uint8_t *copy cleanup(freep) = malloc(size); /* of its own, so that a read past it is seen */
    assert(copy);
    memcpy(copy, data + 1, size - 1);
    if (data[0] % 9 == 8)
        try_block(copy, size - 1);
    else
        try_meta(data[0] % 9, (struct text){(char *)copy, (uint32_t)size - 1});
    return 0;
}
