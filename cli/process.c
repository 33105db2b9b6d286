/* SPDX-License-Identifier: Apache-2.0 */
#include "cli/process.h"

#include <ctype.h>
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <signal.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdio.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/syscall.h>
#include <sys/un.h>
#include <sys/wait.h>

#include "base/cleanup.h"
#include "base/clock.h"
#include "base/error.h"

#define LOG_TAIL_LINES 12
#define ARGUMENTS_MAX  64

void process_path(const char *name, char *out, size_t size)
{
    char self[4096];
    ssize_t n = readlink("/proc/self/exe", self, sizeof(self) - 1);
    char *slash = n > 0 ? memrchr(self, '/', (size_t)n) : NULL;
    if (slash) {
        snprintf(out, size, "%.*s/%s", (int)(slash - self), self, name);
        if (access(out, X_OK) == 0)
            return;
    }
    snprintf(out, size, "%s", name);
}

int process_run(const char *const *argv)
{
    char path[4096], output[2048];
    int out[2];
    process_path(argv[0], path, sizeof(path));
    if (pipe2(out, O_CLOEXEC) < 0)
        return -errno;
    pid_t pid = fork();
    if (pid == 0) {
        dup2(out[1], STDOUT_FILENO);
        dup2(out[1], STDERR_FILENO);
        execvp(path, (char *const *)(uintptr_t)argv);
        dprintf(STDERR_FILENO, "%s: %s\n", path, strerror(errno));
        _exit(127);
    }
    close(out[1]);
    size_t n = 0;
    for (ssize_t got; pid > 0 && (got = read(out[0], output + n, sizeof(output) - n)) > 0;)
        n += (size_t)got == sizeof(output) - n ? 0 : (size_t)got; /* the start of it is enough */
    close(out[0]);
    int status;
    if (pid < 0 || waitpid(pid, &status, 0) < 0)
        return -ECHILD;
    if (WIFEXITED(status) && WEXITSTATUS(status) == 0)
        return 0;
    fwrite(output, 1, n, stderr); /* its own words say why */
    return -ECHILD;
}

/* What it tells about itself: the protocol of sd_notify(3), on an abstract socket of ours. */
static int notify_open(char name[64])
{
    int fd = socket(AF_UNIX, SOCK_DGRAM | SOCK_CLOEXEC, 0);
    struct sockaddr_un a = {.sun_family = AF_UNIX};
    int n = snprintf(name, 64, "@curvine-local-%d-%llx", (int)getpid(), (unsigned long long)clock_ns());
    memcpy(a.sun_path + 1, name + 1, (size_t)n - 1);
    if (fd >= 0 && bind(fd, (struct sockaddr *)&a, (socklen_t)(offsetof(struct sockaddr_un, sun_path) + (size_t)n)) < 0)
        fd = close_fd(fd);
    return fd;
}

static pid_t launch(const char *const *argv, const char *log, bool own_session, const char *notify)
{
    char path[4096];
    process_path(argv[0], path, sizeof(path));
    pid_t pid = fork();
    if (pid != 0)
        return pid;
    if (own_session)
        setsid();
    int null = open("/dev/null", O_RDONLY), out = open(log, O_WRONLY | O_CREAT | O_APPEND, 0600);
    dup2(null, STDIN_FILENO);
    dup2(out, STDOUT_FILENO);
    dup2(out, STDERR_FILENO);
    closefrom(3);
    setenv("NOTIFY_SOCKET", notify, 1);
    unsetenv("JOURNAL_STREAM");
    signal(SIGPIPE, SIG_DFL);
    if (chdir("/") == 0)
        execvp(path, (char *const *)(uintptr_t)argv);
    dprintf(STDERR_FILENO, "%s: %s\n", path, strerror(errno));
    _exit(127);
}

static off_t log_size(const char *log)
{
    int fd cleanup(closep) = open(log, O_RDONLY | O_CLOEXEC);
    return fd < 0 ? 0 : lseek(fd, 0, SEEK_END);
}

/* The last lines of a log behind from, indented, on stderr. */
static void show_log(const char *log, off_t from)
{
    char text[8192];
    int fd cleanup(closep) = open(log, O_RDONLY | O_CLOEXEC);
    if (fd < 0)
        return;
    from = max(from, lseek(fd, 0, SEEK_END) - (off_t)sizeof(text) + 1);
    ssize_t n = pread(fd, text, sizeof(text) - 1, from);
    if (n <= 0)
        return;
    text[n] = '\0';
    const char *p = text + n - 1;
    for (int lines = 0; p > text && lines < LOG_TAIL_LINES; p--)
        lines += p[-1] == '\n';
    fprintf(stderr, "%s:\n", log);
    for (char *rest = (char *)(uintptr_t)(p > text ? p + 1 : p), *line; (line = strsep(&rest, "\n")) && *line;)
        fprintf(stderr, "    %s\n", line);
}

void process_show_log(const char *log)
{
    show_log(log, 0);
}

/* Returns 1 ready, 0 not yet, or a negative code: the daemon has ended. */
static int look(int notify_fd, pid_t pid)
{
    char message[1024];
    struct pollfd p = {.fd = notify_fd, .events = POLLIN};
    poll(&p, 1, 20);
    for (ssize_t n; (n = recv(notify_fd, message, sizeof(message) - 1, MSG_DONTWAIT)) > 0;) {
        message[n] = '\0';
        if (strncmp(message, "READY=1", 7) == 0 || strstr(message, "\nREADY=1"))
            return 1;
    }
    int status;
    return waitpid(pid, &status, WNOHANG) == pid ? -ECHILD : 0;
}

int process_start(const char *const *argv, const char *log, bool own_session, uint64_t deadline_ns, pid_t *ret)
{
    char name[64];
    int fd cleanup(closep) = notify_open(name);
    off_t from = log_size(log);
    pid_t pid = fd < 0 ? -1 : launch(argv, log, own_session, name);
    if (pid < 0)
        return -errno;
    int r = 0;
    while (r == 0 && clock_ns() < deadline_ns)
        r = look(fd, pid);
    if (r != 1)
        show_log(log, from);
    else
        *ret = pid;
    return r == 1 ? 0 : r ? r : -CV_DEADLINE;
}

/* One of ours is waited for, so that it does not stay as a zombie; others by pidfd. */
int process_wait(pid_t pid, uint64_t deadline_ns)
{
    int fd cleanup(closep) = (int)syscall(SYS_pidfd_open, pid, 0);
    if (fd < 0)
        return errno == ESRCH ? 0 : -errno;
    struct pollfd p = {.fd = fd, .events = POLLIN};
    uint64_t now = clock_ns();
    int timeout = deadline_ns > now ? (int)((deadline_ns - now) / NS_PER_MS) : 0;
    int n = poll(&p, 1, timeout);
    if (n > 0)
        waitpid(pid, NULL, WNOHANG);
    return n < 0 ? -errno : n == 0 ? -CV_DEADLINE : 0;
}

int process_stop(pid_t pid, uint64_t deadline_ns)
{
    if (kill(pid, SIGTERM) < 0)
        return errno == ESRCH ? 0 : -errno;
    return process_wait(pid, deadline_ns);
}

uint64_t process_started(pid_t pid)
{
    char path[64], text[1024];
    unsigned long long ticks = 0;
    snprintf(path, sizeof(path), "/proc/%d/stat", (int)pid);
    int fd cleanup(closep) = open(path, O_RDONLY | O_CLOEXEC);
    ssize_t n = fd < 0 ? -1 : read(fd, text, sizeof(text) - 1);
    text[max(n, (ssize_t)0)] = '\0';
    const char *p = strrchr(text, ')'); /* behind the name, which may have blanks: field 2 of 52, this is 22 */
    for (int field = 2; p && field < 22; field++)
        p = strchr(p + 1, ' ');
    return p && sscanf(p, "%llu", &ticks) == 1 ? ticks : 0;
}

static int each_of(pid_t pid, int (*each)(pid_t, const char *const *, void *), void *arg)
{
    char path[64], text[16384];
    const char *argv[ARGUMENTS_MAX + 1];
    snprintf(path, sizeof(path), "/proc/%d/cmdline", (int)pid);
    int fd cleanup(closep) = open(path, O_RDONLY | O_CLOEXEC);
    ssize_t n = fd < 0 ? -1 : read(fd, text, sizeof(text) - 1);
    if (n <= 0)
        return true; /* gone, or a thread of the kernel */
    text[n] = '\0';
    size_t count = 0;
    for (const char *p = text; p < text + n && count < ARGUMENTS_MAX; p += strlen(p) + 1)
        argv[count++] = p;
    argv[count] = NULL;
    return each(pid, argv, arg);
}

void process_each(int (*each)(pid_t pid, const char *const *argv, void *arg), void *arg)
{
    DIR *d = opendir("/proc");
    bool more = d != NULL;
    for (struct dirent *e; more && (e = readdir(d));)
        if (isdigit((unsigned char)e->d_name[0]))
            more = each_of((pid_t)strtol(e->d_name, NULL, 10), each, arg);
    if (d)
        closedir(d);
}
