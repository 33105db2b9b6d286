/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Any bytes as the manifest of a snapshot, with the checksum made right so that what is behind it is reached: what decodes
 * is encoded again to the same bytes.
 */
#include <assert.h>
#include <stdlib.h>
#include <string.h>

#include "base/bytes.h"
#include "base/hash.h"
#include "wire/manifest.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    struct manifest m;
    if (manifest_decode(data, size, &m) == 0)
        manifest_fini(&m);
    struct manifest none = {.id = 0};
    struct buf b cleanup(buf_fini) = {0}, again cleanup(buf_fini) = {0};
    if (manifest_encode(&none, &b) < 0)
        return 0;
    b.n -= 4; /* its checksum */
    size_t head = 16;
    b.n = head;
    if (buf_append(&b, data, size) < 0 || buf_reserve(&b, 4) < 0)
        return 0;
    put_le32(b.p + 12, (uint32_t)size);
    put_le32(b.p + b.n, crc32c(0, b.p, b.n));
    b.n += 4;
    if (manifest_decode(b.p, b.n, &m) < 0)
        return 0;
    int r = manifest_encode(&m, &again);
    assert(r < 0 || (again.n == b.n && memcmp(again.p, b.p, b.n) == 0));
    manifest_fini(&m);
    return 0;
}
