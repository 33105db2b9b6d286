/* SPDX-License-Identifier: Apache-2.0 */
/* The workers of the cluster: the map, and connections to them. */
#include <errno.h>

#include "client/client_ask.h"
#include "client/client_internal.h"

int client_ask_worker(struct curvine *cv, uint64_t worker, uint16_t type, const struct wire_desc *desc,
                      const void *record, const void *data, uint32_t data_n, uint32_t timeout_ms, struct buf *answer)
{
    return -ENOSYS;
}
