/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Messages to the leading master that are no file system requests (status, administration), for cv and the other programs
 * of the project. Not part of the public library.
 */
#pragma once

#include "base/text.h"
#include "client/curvine.h"
#include "wire/message.h"

/* Ask and wait. The answer's body is appended to *answer (decoded texts borrow from it). Retries until the deadline like
 * a read. timeout_ms 0: the handle's. Errors: the answer's, -CV_DEADLINE, -ENOMEM. */
int client_ask(struct curvine *cv, uint16_t type, const struct wire_desc *desc, const void *record, uint32_t timeout_ms,
               struct buf *answer);
