/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Messages to the leading master that are no file system requests (status, administration), for cv and the other programs
 * of the project. Not part of the public library.
 */
#pragma once

#include "base/text.h"
#include "client/curvine.h"
#include "wire/message.h"

/* Ask and wait. The answer's body is appended to *answer (decoded texts borrow from it). Retries until the deadline,
 * and is executed once: mount_add, mount_remove, mount_set and upgrade get a slot of the session. timeout_ms 0: the handle's.
 * Errors: the answer's, -CV_DEADLINE, -ENOMEM. */
int client_ask(struct curvine *cv, uint16_t type, const struct wire_desc *desc, const void *record, uint32_t timeout_ms,
               struct buf *answer);

/* The same of a worker by its id (one of the answer of MSG workers), over its unix socket when it is on this host. data:
 * goes along, may be NULL. Errors: as client_ask; -CV_NO_WORKER the cluster has no such worker; -CV_UNREACHABLE. */
int client_ask_worker(struct curvine *cv, uint64_t worker, uint16_t type, const struct wire_desc *desc,
                      const void *record, const void *data, uint32_t data_n, uint32_t timeout_ms, struct buf *answer);
