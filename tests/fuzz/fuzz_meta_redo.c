/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Any bytes as a redo record: refused, or applied; and what redo_check() accepts, meta_apply() applies. After that the
 * state machine still works: it can be read, listed, sealed and written. Input: records, each behind its u16 length, so
 * that later ones meet what earlier ones left.
 */
#include <assert.h>

#include "base/bytes.h"
#include "meta/meta_core.h"
#include "wire/meta_flags.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static int no_row(void *context, enum meta_family family, struct text key, bool memory, struct buf *value)
{
    return -ENOENT;
}

static int no_rows(void *context, enum meta_family family, struct text prefix, struct text from, bool memory,
                   bool (*each)(void *arg, struct text key, struct text value), void *arg)
{
    return 0;
}

static const struct meta_base base = {NULL, no_row, no_rows};

static void read_all_the_way(struct meta *m, uint16_t type, const void *msg)
{
    struct meta_request q;
    struct buf body = {0};
    meta_request_init(&q);
    int r = wire_encode(message_desc(type), msg, &body);
    assert(r == 0);
    r = meta_request_decode(&q, type, body.p, body.n);
    assert(r == 0);
    for (int i = 0; (r = meta_read(m, &q)) < 0 && i < 1000; i++) {
        if (r == -CV_NOT_LISTED)
            meta_unlisted_absent(&q);
        r = meta_fetch(&base, &q, true);
        assert(r == 0);
    }
    meta_install(m, &q);
    meta_request_fini(&q);
    buf_fini(&body);
}

static void look_around(struct meta *m)
{
    for (uint64_t inode = 1; inode <= 5000; inode += 4999) {
        read_all_the_way(m, MSG_getattr, &(struct msg_getattr){.inode = inode});
        read_all_the_way(m, MSG_readdir, &(struct msg_readdir){.inode = inode, .flags = READDIR_ATTR});
        read_all_the_way(m, MSG_listxattr, &(struct msg_listxattr){.inode = inode});
        read_all_the_way(m, MSG_layout, &(struct msg_layout){.inode = inode});
        read_all_the_way(m, MSG_origin, &(struct msg_origin){.inode = inode});
        read_all_the_way(m, MSG_readlink, &(struct msg_readlink){.inode = inode});
    }
    read_all_the_way(m, MSG_mount_list, &(struct msg_mount_list){0});
    read_all_the_way(m, MSG_walk, &(struct msg_walk){.start = 1, .path = TEXT("x/y")});
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    struct meta *m;
    const struct meta_options o = {.memory_bytes = 1 << 20};
    int r = meta_new(&o, &base, &m);
    assert(r == 0);
    uint64_t index = 0;
    while (size >= 2) {
        uint32_t n = get_le16(data);
        n = n <= size - 2 ? n : (uint32_t)size - 2;
        struct text payload = {(const char *)data + 2, n};
        int checked = redo_check(payload);
        uint64_t digest = meta_digest(m);
        r = meta_apply(m, payload, index + 1);
        assert(r == 0 || r == -CV_BAD_FORMAT || r == -CV_FORMAT_TOO_NEW);
        assert(r == 0 || (meta_digest(m) == digest && meta_applied(m) == index));
        assert(checked == 0 || r < 0);
        if (r == 0)
            index++;
        data += 2 + n;
        size -= 2 + n;
    }
    look_around(m);
    struct meta_delta *d = meta_delta_seal(m);
    struct redo_row row;
    if (d) {
        r = meta_delta_sort(d);
        assert(r == 0);
        while (meta_delta_next(d, &row))
            assert(row.table == META_TABLE_state || redo_row_check(&row) == 0);
        meta_delta_written(m, d);
        meta_delta_free(d);
    }
    meta_free(m);
    return 0;
}
