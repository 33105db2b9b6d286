/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Any bytes as any message: the first two say which type (all that exist, new ones too, since the table is walked). What
 * decodes is printed, with its lists, and encoded again: that decodes to the same, and is the same bytes once more.
 */
#include <assert.h>
#include <stdlib.h>
#include <string.h>

#include "base/bytes.h"
#include "base/cleanup.h"
#include "wire/message.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

#define RECORD_MAX 4096

static const uint16_t types[] = {
#define MSG(code, name, fields) code,
#define REC(name, fields)
#include "wire/messages.def"
#undef MSG
#undef REC
};

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    if (size < 2)
        return 0;
    const struct wire_desc *desc = message_desc(types[get_le16(data) % array_size(types)]);
    _Alignas(8) static uint8_t record[RECORD_MAX], again[RECORD_MAX];
    struct buf text cleanup(buf_fini) = {0}, one cleanup(buf_fini) = {0}, two cleanup(buf_fini) = {0};
    assert(desc && desc->size <= RECORD_MAX);
    /* A copy of its own, so that a read past it is seen. */
    uint8_t *body cleanup(freep) = malloc(size - 2 ? size - 2 : 1);
    assert(body);
    memcpy(body, data + 2, size - 2);
    if (wire_decode(desc, body, size - 2, record) < 0)
        return 0;
    int r = wire_print(desc, record, &text);
    assert(r == 0);
    r = wire_encode(desc, record, &one);
    assert(r == 0 && one.n == wire_size(desc, record));
    r = wire_decode(desc, one.p, one.n, again);
    assert(r == 0);
    r = wire_encode(desc, again, &two);
    assert(r == 0 && two.n == one.n && (one.n == 0 || memcmp(one.p, two.p, one.n) == 0));
    return 0;
}
