/* SPDX-License-Identifier: Apache-2.0 */
#include "wire/frame.h"

#include "base/bytes.h"
#include "base/error.h"
#include "base/hash.h"

void frame_encode(const struct frame_header *h, uint8_t out[FRAME_HEADER_SIZE])
{
    put_le32(out, FRAME_MAGIC);
    out[4] = FRAME_VERSION;
    out[5] = h->flags;
    put_le16(out + 6, h->type);
    put_le64(out + 8, h->request_id);
    put_le32(out + 16, h->body_len);
    put_le32(out + 20, h->data_len);
    put_le32(out + 24, h->aux);
    put_le32(out + 28, h->incarnation);
    put_le64(out + 32, h->index);
    put_le32(out + 40, h->body_crc);
    put_le32(out + 44, crc32c(0, out, 44));
}

int frame_decode(const uint8_t in[FRAME_HEADER_SIZE], struct frame_header *ret)
{
    if (get_le32(in) != FRAME_MAGIC)
        return -CV_BAD_MESSAGE;
    if (get_le32(in + 44) != crc32c(0, in, 44))
        return -CV_BAD_CHECKSUM;
    if (in[4] != FRAME_VERSION || in[5] & ~(FRAME_ANSWER | FRAME_ONE_WAY | FRAME_CANCEL | FRAME_FDS))
        return -CV_BAD_MESSAGE;
    struct frame_header h = {
        .flags = in[5],
        .type = get_le16(in + 6),
        .request_id = get_le64(in + 8),
        .body_len = get_le32(in + 16),
        .data_len = get_le32(in + 20),
        .aux = get_le32(in + 24),
        .incarnation = get_le32(in + 28),
        .index = get_le64(in + 32),
        .body_crc = get_le32(in + 40),
    };
    if (h.body_len > FRAME_BODY_MAX || h.data_len > FRAME_DATA_MAX)
        return -CV_FRAME_TOO_BIG;
    *ret = h;
    return 0;
}
