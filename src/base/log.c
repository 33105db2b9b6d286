/* SPDX-License-Identifier: Apache-2.0 */
#include "base/log.h"

#include <errno.h>
#include <stdarg.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/syscall.h>
#include <time.h>
#include <unistd.h>

#include "base/cleanup.h"
#include "base/error.h"

static _Atomic int current_level = LOG_LEVEL_INFO; /* any thread, atomic */
static const char *program_name = "cv";

static const struct {
    const char *name, *colour;
    int priority; /* syslog number, read by journald */
} levels[] = {
    [LOG_LEVEL_ERROR] = {"error", "\033[31m", 3},
    [LOG_LEVEL_WARN] = {"warn", "\033[33m", 4},
    [LOG_LEVEL_INFO] = {"info", "", 6},
    [LOG_LEVEL_DEBUG] = {"debug", "\033[2m", 7},
};

void log_set_level(enum log_level level)
{
    atomic_store_explicit(&current_level, level, memory_order_relaxed);
}

enum log_level log_get_level(void)
{
    return (enum log_level)atomic_load_explicit(&current_level, memory_order_relaxed);
}

const char *log_level_name(enum log_level level)
{
    return levels[level].name;
}

int log_level_parse(const char *name, enum log_level *ret)
{
    for (size_t i = 0; i < array_size(levels); i++)
        if (strcmp(levels[i].name, name) == 0) {
            *ret = (enum log_level)i;
            return 0;
        }
    return -EINVAL;
}

void log_set_name(const char *name)
{
    program_name = name;
}

/* Where and how lines go is found out once: stderr does not change under a daemon. */
static int line_prefix(char *line, size_t size, enum log_level level)
{
    static _Atomic int style = -1; /* 0 plain, 1 terminal, 2 journald */
    int s = atomic_load_explicit(&style, memory_order_relaxed);
    if (s < 0) {
        s = getenv("JOURNAL_STREAM") ? 2 : isatty(STDERR_FILENO) && !getenv("NO_COLOR") ? 1 : 0;
        atomic_store_explicit(&style, s, memory_order_relaxed);
    }
    if (s == 2)
        return snprintf(line, size, "<%d>", levels[level].priority);

    struct timespec now;
    struct tm tm;
    clock_gettime(CLOCK_REALTIME, &now);
    localtime_r(&now.tv_sec, &tm);
    char when[32];
    strftime(when, sizeof(when), "%F %T", &tm);
    return snprintf(line, size, "%s.%06ld %s[%ld] %s%s%s: ", when, now.tv_nsec / 1000, program_name,
                    (long)syscall(SYS_gettid), s == 1 ? levels[level].colour : "", levels[level].name,
                    s == 1 && *levels[level].colour ? "\033[0m" : "");
}

static void emit(enum log_level level, int r, const char *format, va_list args)
{
    char line[2048];
    size_t room = sizeof(line) - 1; /* the newline always fits */
    int saved_errno = errno;
    size_t n = (size_t)line_prefix(line, room, level);
    int m = vsnprintf(line + n, room - n, format, args);
    n = min(n + (size_t)max(m, 0), room - 1);
    if (r) {
        m = snprintf(line + n, room - n, ": %s (%s)", cv_error_text(r), cv_error_name(r));
        n = min(n + (size_t)max(m, 0), room - 1);
    }
    for (size_t i = 0; i < n; i++) /* one event is one line, whatever a file name holds */
        if (line[i] == '\n')
            line[i] = ' ';
    line[n++] = '\n';
    ssize_t written = write(STDERR_FILENO, line, n); /* one write: lines of threads do not mix */
    (void)written;
    errno = saved_errno;
}

int log_line(enum log_level level, int r, const char *format, ...)
{
    va_list args;
    va_start(args, format);
    emit(level, r, format, args);
    va_end(args);
    return r;
}

_Noreturn void log_fatal(int r, const char *format, ...)
{
    va_list args;
    va_start(args, format);
    emit(LOG_LEVEL_ERROR, r, format, args);
    va_end(args);
    abort();
}
