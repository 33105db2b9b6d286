/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Do the loops of this process still turn? A daemon asks before it feeds the service manager's watchdog: then a thread
 * that hangs (a deadlock, a call that blocks) ends in a restart, not only a process that hangs as a whole.
 *
 * Each question posts a job to every loop that loop_start() started; the next question sees whether it has run. Nothing
 * happens between questions, so idle loops sleep on.
 */
#pragma once

#include <stddef.h>
#include <stdint.h>

/* Any thread but a loop's. Returns 0, or -ETIMEDOUT when a loop has not run its job for patience_ms, with the loop's
 * name in which (size bytes). */
int loops_healthy(uint32_t patience_ms, char *which, size_t size);
