/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Frames: how messages travel over TCP and unix sockets. A frame is a fixed 48-byte header, a body (one message of
 * messages.def) and data (bulk bytes, described by the message, e.g. file content). All little-endian.
 *
 *      0  u32  magic "CVF1"            16  u32  body length          32  u64  index
 *      4  u8   protocol version        20  u32  data length          40  u32  CRC32C of the body
 *      5  u8   flags                   24  u32  aux                  44  u32  CRC32C of bytes 0..43
 *      6  u16  message type            28  u32  incarnation
 *      8  u64  request id
 *
 * aux: in a request the milliseconds the caller will still wait (0: for ever), in an answer the error code (positive,
 * base/error.h; 0 is success). An answer with an error may have a body too, of the answer's type.
 * index: in an answer the highest log index the answer depends on, also for errors; in a request what the caller has
 * seen. incarnation: of the cluster as the sender knows it; 0 before HELLO.
 * Data carries its own checksums, so that it can go out by sendfile without being read.
 */
#pragma once

#include <stdint.h>

#define FRAME_MAGIC       0x31465643u /* "CVF1" */
#define FRAME_VERSION     1
#define FRAME_HEADER_SIZE 48
#define FRAME_BODY_MAX    (1u << 20) /* larger bodies are refused before anything is allocated */
#define FRAME_DATA_MAX    (16u << 20)

enum frame_flags {
    FRAME_ANSWER = 1,  /* answers the request with the same id */
    FRAME_ONE_WAY = 2, /* nobody waits for an answer */
    FRAME_CANCEL = 4,  /* drop the request with this id: no body, no answer to the cancel itself */
    FRAME_FDS = 8,     /* unix sockets: one set of descriptors came along (SCM_RIGHTS) with the first byte */
};

struct frame_header {
    uint16_t type; /* enum message_type */
    uint8_t flags;
    uint64_t request_id;
    uint32_t body_len, data_len;
    uint32_t aux;
    uint32_t incarnation;
    uint64_t index;
    uint32_t body_crc;
};

/* Write the header with its own checksum; body_crc must be set. */
void frame_encode(const struct frame_header *h, uint8_t out[FRAME_HEADER_SIZE]);

/* Check and read a header. Errors: -CV_BAD_MESSAGE not a frame, unknown version or flags; -CV_BAD_CHECKSUM;
 * -CV_FRAME_TOO_BIG. After any error the stream cannot be trusted: close the connection. */
int frame_decode(const uint8_t in[FRAME_HEADER_SIZE], struct frame_header *ret);
