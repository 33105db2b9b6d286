/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Buffers for frames that do not fit into a connection's own receive buffer, within one limit for the process: who is
 * refused reads on later. Any thread.
 */
#pragma once

#include <stdint.h>

/* n bytes, or NULL: the limit is reached or there is no memory. */
uint8_t *rpc_buffer_new(uint32_t n);

/* NULL is fine. */
void rpc_buffer_free(uint8_t *buffer);

void rpc_buffer_set_limit(uint64_t bytes); /* default 512 MiB */
uint64_t rpc_buffer_used(void);
