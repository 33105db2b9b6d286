/* SPDX-License-Identifier: Apache-2.0 */
/* struct daemon_program.healthy of all programs: their loops turn. Else the watchdog is left unfed and /healthz says 503. */
#pragma once

#include "base/log.h"
#include "io/loop_health.h"

#define LOOP_PATIENCE_MS 5000

static inline int loops_turn(void *arg)
{
    char which[32];
    int r = loops_healthy(LOOP_PATIENCE_MS, which, sizeof(which));
    return r < 0 ? log_error(r, "thread '%s' has not come round for %d seconds", which, LOOP_PATIENCE_MS / 1000) : 0;
}
