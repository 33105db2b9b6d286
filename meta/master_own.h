/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What the daemon answers itself, at once and on the network loop it came in on: workers (register, heartbeat, questions),
 * the map, the state of the cluster. No row of the namespace is read from disk for any of it.
 */
#pragma once

#include <stdbool.h>
#include <stdint.h>

struct master_net;
struct rpc_request;

bool master_own_serves(uint16_t type);

/* Answer it. Errors in the answer: -CV_NOT_LEADER; -EPERM only a worker may ask that; -CV_BAD_MESSAGE. */
void master_own_request(struct master_net *n, struct rpc_request *rpc);
