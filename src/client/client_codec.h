/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Requests of the public header as messages to the master, and answers back. One row per operation: adding one is a
 * row in client_codec.c and a number in curvine.h.
 */
#pragma once

#include <stdbool.h>

#include "base/text.h"
#include "client/curvine.h"
#include "wire/message.h"

struct client_op {
    const char *name;
    uint16_t type; /* enum message_type; 0: no such operation */
    bool mutation; /* needs a slot: exactly once */
    /* Append the encoded message. head is filled by the caller. */
    int (*encode)(const struct curvine_request *q, const struct rec_op_head *head, struct buf *body);
    /* Fill the request's results from a successful answer; texts and entries borrow from the body. NULL: no results. */
    int (*decode)(struct curvine_request *q, const void *body, size_t n);
};

/* NULL for numbers that are no operation. */
const struct client_op *client_op_of(enum curvine_op op);

/* An encoded request begins with its op_head: fill in what is known only when it is sent. */
void client_head_patch(struct buf *body, uint64_t session, uint32_t slot, uint64_t sequence);
