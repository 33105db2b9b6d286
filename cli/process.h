/* SPDX-License-Identifier: Apache-2.0 */
/* Programs of the project that cv runs: to their end, or in the background until it is told to stop them. */
#pragma once

#include <stdbool.h>
#include <stdint.h>
#include <sys/types.h>

/* Where a program is: beside cv, as in build/bin and /usr/bin; otherwise its bare name, for PATH. */
void process_path(const char *name, char *out, size_t size);

/* Run argv[0] to its end; its output goes to our stderr unless it succeeds. Errors: -ECHILD it did not succeed; errno. */
int process_run(const char *const *argv);

/* Start argv[0], in a session of its own (or in ours), its output appended to the file log, and wait until it says READY=1 as
 * sd_notify(3) does. Failing, the end of what it logged is shown on stderr.
 * Errors: -ECHILD it ended; -CV_DEADLINE it is not ready yet, but goes on; errno. */
int process_start(const char *const *argv, const char *log, bool own_session, uint64_t deadline_ns, pid_t *ret);

/* The last lines of a log, on stderr. */
void process_show_log(const char *log);

/* Wait for a process, ours or not, to end. Errors: -CV_DEADLINE. */
int process_wait(pid_t pid, uint64_t deadline_ns);

/* Ask it to stop (SIGTERM) and wait. Errors: -CV_DEADLINE; it goes on stopping then. */
int process_stop(pid_t pid, uint64_t deadline_ns);

/* When it was started, in ticks since boot; 0: it is gone. */
uint64_t process_started(pid_t pid);

/* Call each() for every process with its arguments, until it returns false. argv ends with NULL. */
void process_each(int (*each)(pid_t pid, const char *const *argv, void *arg), void *arg);
