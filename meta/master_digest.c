/* SPDX-License-Identifier: Apache-2.0 */
#include "meta/master_digest.h"

#include <string.h>

#include "base/bytes.h"
#include "base/error.h"

#define VERSION 1

void master_digests_note(struct master_digests *d, uint64_t index, uint64_t digest)
{
    d->ring[index % MASTER_DIGESTS].index = index;
    d->ring[index % MASTER_DIGESTS].digest = digest;
}

void master_digest_encode(uint64_t index, uint64_t digest, uint8_t out[MASTER_DIGEST_SIZE])
{
    put_le32(out, VERSION);
    put_le32(out + 4, 0);
    put_le64(out + 8, index);
    put_le64(out + 16, digest);
}

int master_digests_check(const struct master_digests *d, struct text payload, struct master_digest_pair *ret)
{
    const uint8_t *p = (const uint8_t *)payload.p;
    if (payload.n >= 4 && get_le32(p) > VERSION)
        return -CV_FORMAT_TOO_NEW;
    if (payload.n != MASTER_DIGEST_SIZE || get_le32(p) != VERSION || get_le32(p + 4))
        return -CV_BAD_FORMAT;
    *ret = (struct master_digest_pair){.index = get_le64(p + 8), .theirs = get_le64(p + 16)};
    if (d->ring[ret->index % MASTER_DIGESTS].index != ret->index)
        return 0;
    ret->ours = d->ring[ret->index % MASTER_DIGESTS].digest;
    return ret->ours == ret->theirs ? 0 : -CV_LOG_DIVERGED;
}
