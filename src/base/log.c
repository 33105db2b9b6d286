/* SPDX-License-Identifier: Apache-2.0 */
#include "base/log.h"

#include <errno.h>
#include <stdarg.h>
#include <stdatomic.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/uio.h>
#include <sys/un.h>
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

enum style { STYLE_UNKNOWN = -1, STYLE_PLAIN, STYLE_TERMINAL, STYLE_JOURNALD };

/* systemd names the stream by device and inode: a child whose stderr is a file has the variable, too. */
static bool stderr_is_journal(void)
{
    const char *stream = getenv("JOURNAL_STREAM");
    unsigned long long device, inode;
    struct stat st;
    return stream && sscanf(stream, "%llu:%llu", &device, &inode) == 2 && fstat(STDERR_FILENO, &st) == 0 &&
           st.st_dev == device && st.st_ino == inode;
}

/* Where and how lines go is found out once: stderr does not change under a daemon. */
static enum style line_style(void)
{
    static _Atomic int style = STYLE_UNKNOWN;
    int s = atomic_load_explicit(&style, memory_order_relaxed);
    if (s == STYLE_UNKNOWN) {
        s = stderr_is_journal()                            ? STYLE_JOURNALD
            : isatty(STDERR_FILENO) && !getenv("NO_COLOR") ? STYLE_TERMINAL
                                                           : STYLE_PLAIN;
        atomic_store_explicit(&style, s, memory_order_relaxed);
    }
    return (enum style)s;
}

/* Into the journal with fields people can ask for, by its own protocol (systemd.io/JOURNAL_NATIVE_PROTOCOL):
 * journalctl CURVINE_ERROR=CV_LOCKED. Returns false when that is not possible, and stderr has to do. */
static bool send_to_journal(enum log_level level, int r, const char *line, size_t n)
{
    static _Atomic int fd = -1;
    int s = atomic_load(&fd);
    if (s < 0) {
        s = socket(AF_UNIX, SOCK_DGRAM | SOCK_CLOEXEC, 0);
        int none = -1;
        if (s >= 0 && !atomic_compare_exchange_strong(&fd, &none, s)) {
            close(s); /* another thread was faster */
            s = none;
        }
    }
    char fields[256], thread[16] = "";
    (void)prctl(PR_GET_NAME, thread);
    int m = snprintf(fields, sizeof(fields),
                     "PRIORITY=%d\nSYSLOG_IDENTIFIER=%s\nTID=%ld\nCURVINE_THREAD=%s\n%s%s%sMESSAGE=",
                     levels[level].priority, program_name, (long)syscall(SYS_gettid), thread, r ? "CURVINE_ERROR=" : "",
                     r ? cv_error_name(r) : "", r ? "\n" : "");
    struct sockaddr_un to = {.sun_family = AF_UNIX, .sun_path = "/run/systemd/journal/socket"};
    struct iovec parts[] = {{fields, (size_t)m}, {(void *)(uintptr_t)line, n}};
    struct msghdr message = {.msg_name = &to, .msg_namelen = sizeof(to), .msg_iov = parts, .msg_iovlen = 2};
    return s >= 0 && m < (int)sizeof(fields) && sendmsg(s, &message, MSG_NOSIGNAL) >= 0;
}

static int line_prefix(char *line, size_t size, enum log_level level, enum style s)
{
    if (s == STYLE_JOURNALD)
        return snprintf(line, size, "<%d>", levels[level].priority);

    struct timespec now;
    struct tm tm;
    clock_gettime(CLOCK_REALTIME, &now);
    localtime_r(&now.tv_sec, &tm);
    char when[32];
    strftime(when, sizeof(when), "%F %T", &tm);
    return snprintf(line, size, "%s.%06ld %s[%ld] %s%s%s: ", when, now.tv_nsec / 1000, program_name,
                    (long)syscall(SYS_gettid), s == STYLE_TERMINAL ? levels[level].colour : "", levels[level].name,
                    s == STYLE_TERMINAL && *levels[level].colour ? "\033[0m" : "");
}

static void emit(enum log_level level, int r, const char *format, va_list args)
{
    char line[2048];
    size_t room = sizeof(line) - 1; /* the newline always fits */
    int saved_errno = errno;
    enum style s = line_style();
    size_t prefix = (size_t)line_prefix(line, room, level, s), n = prefix;
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
    if (s == STYLE_JOURNALD && send_to_journal(level, r, line + prefix, n - prefix)) {
        errno = saved_errno;
        return;
    }
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
