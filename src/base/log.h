/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The log: one line an event on stderr. Under systemd lines carry the <level> prefix journald reads; elsewhere
 * a time and the level, coloured on a terminal. The level may change while running (log_set_level, any thread).
 *
 * Only whoever decides what to do about an error logs it, once: "return log_error(r, "open '%s'", path);" logs
 * "open '/x': no such file or directory (ENOENT)" and returns r. Lines are lower case, what failed first.
 */
#pragma once

#include <stdbool.h>

enum log_level { LOG_LEVEL_ERROR, LOG_LEVEL_WARN, LOG_LEVEL_INFO, LOG_LEVEL_DEBUG };

void log_set_level(enum log_level level);                   /* any thread */
enum log_level log_get_level(void);                         /* any thread */
int log_level_parse(const char *name, enum log_level *ret); /* "error", "warn", "info", "debug"; -EINVAL otherwise */
const char *log_level_name(enum log_level level);

/* Name shown in each line, usually the program's; not copied. */
void log_set_name(const char *name);

/* Log at a level. r is an error code whose text is appended, or 0 for none. Returns r. */
int log_line(enum log_level level, int r, const char *format, ...) __attribute__((format(printf, 3, 4)));

#define log_at(level, r, ...)                                                                                          \
    (__builtin_expect((level) <= log_get_level(), 0) ? log_line((level), (r), __VA_ARGS__) : (r))

#define log_error(r, ...) log_at(LOG_LEVEL_ERROR, (r), __VA_ARGS__)
#define log_warn(r, ...)  log_at(LOG_LEVEL_WARN, (r), __VA_ARGS__)
#define log_info(...)     ((void)log_at(LOG_LEVEL_INFO, 0, __VA_ARGS__))
#define log_debug(...)    ((void)log_at(LOG_LEVEL_DEBUG, 0, __VA_ARGS__))

/* Say what invariant broke and stop the process: state on disk is judged at the next start. */
_Noreturn void log_fatal(int r, const char *format, ...) __attribute__((format(printf, 2, 3)));
