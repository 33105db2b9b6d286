/* SPDX-License-Identifier: Apache-2.0 */
/*
 * One process at a time in a data directory: an flock on DIR/lock, which the kernel drops with the process however it
 * ends. The file holds the holder's pid, for people; it stays when the lock goes.
 */
#pragma once

#include <sys/types.h>

/* Lock dir, which must exist. The lock is held until the descriptor is closed. ret_holder (may be NULL) gets the pid
 * of who holds it when that is why we failed, 0 when it did not say.
 * Errors: -CV_LOCKED another process has it; -ENOENT, -EACCES and other errno of open. */
int dir_lock(const char *dir, int *ret_fd, pid_t *ret_holder);
