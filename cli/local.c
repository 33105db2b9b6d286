/* SPDX-License-Identifier: Apache-2.0 */
#include "cli/local.h"

#include <errno.h>
#include <fcntl.h>
#include <netinet/in.h>
#include <poll.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/un.h>
#include <sys/wait.h>

#include "base/clock.h"
#include "base/error.h"
#include "base/uuid.h"
#include "conf/dir_lock.h"

#define DIR_MAX        80 /* so that socket names fit in 107 bytes */
#define LOG_TAIL_LINES 12

const struct local_daemon local_daemons[] = {{"journal", "cv-journal"}, {"master", "cv-master"}, {0}};

int local_dir(struct cli *cli, char *out, size_t size)
{
    const char *given = cli->dir ? cli->dir : getenv("CURVINE_LOCAL"), *home = getenv("HOME");
    int n;
    if (given && given[0] == '/') {
        n = snprintf(out, size, "%s", given);
    } else if (given) {
        char here[4096];
        if (!getcwd(here, sizeof(here)))
            return -errno;
        n = snprintf(out, size, "%s/%s", here, given);
    } else {
        if (!home || home[0] != '/')
            return -ENOENT;
        n = snprintf(out, size, "%s/.curvine", home);
    }
    while (n > 1 && n < (int)size && out[n - 1] == '/')
        out[--n] = '\0';
    return n >= (int)size || n > DIR_MAX ? -ENAMETOOLONG : 0;
}

bool local_is_set_up(const char *dir)
{
    char path[DIR_MAX + 32];
    snprintf(path, sizeof(path), "%s/cluster-id", dir);
    return access(path, F_OK) == 0;
}

/* ---- programs ---------------------------------------------------------------------------------------------------------- */

/* Beside this program, as in build/bin and /usr/bin. */
static void program_path(const char *name, char *out, size_t size)
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

/* Run a program to its end; its output goes to our stderr unless it succeeds. Returns 0 or a negative code. */
static int run_program(const char *const *argv)
{
    char path[4096], output[2048];
    int out[2];
    program_path(argv[0], path, sizeof(path));
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
    return -CV_NOT_FORMATTED;
}

/* ---- set-up -------------------------------------------------------------------------------------------------------------- */

/* A port nobody listens on now, from the range for such uses. */
static unsigned free_port(void)
{
    int fd cleanup(closep) = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
    struct sockaddr_in a = {.sin_family = AF_INET, .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
    socklen_t n = sizeof(a);
    if (fd < 0 || bind(fd, (struct sockaddr *)&a, n) < 0 || getsockname(fd, (struct sockaddr *)&a, &n) < 0)
        return 0;
    return ntohs(a.sin_port);
}

static int write_config(const char *path, const char *dir)
{
    if (access(path, F_OK) == 0)
        return 0; /* the user's from now on */
    FILE *f = fopen(path, "we");
    if (!f)
        return -errno;
    fprintf(
        f,
        "# A cluster on one machine, made by \"cv local up\". Yours to edit: \"cv config explain\" lists all options,\n"
        "# \"cv config check FILE\" checks them, \"cv local down\" and \"up\" apply them.\n"
        "cluster:\n"
        "  masters: [\"unix:%s/run/master.sock\"]\n"
        "  run_dir: \"%s/run\"\n"
        "journal:\n"
        "  dir: \"%s/journal\"\n"
        "  listen: 127.0.0.1\n"
        "  port: 0\n"
        "  http_port: %u\n"
        "master:\n"
        "  dir: \"%s/master\"\n"
        "  listen: 127.0.0.1\n"
        "  port: 0\n"
        "  http_port: %u\n",
        dir, dir, dir, free_port(), dir, free_port());
    int r = ferror(f) || fflush(f) != 0 || fsync(fileno(f)) < 0 ? -EIO : 0;
    fclose(f);
    return r;
}

static int make_dir(const char *path)
{
    return mkdir(path, 0700) < 0 && errno != EEXIST ? -errno : 0;
}

/* The id outlives a failed attempt, so that journal and master always belong to one cluster. */
static int cluster_id(const char *dir, char id[UUID_STRING])
{
    char path[DIR_MAX + 32];
    snprintf(path, sizeof(path), "%s/cluster-id.new", dir);
    FILE *f = fopen(path, "re");
    struct uuid u;
    bool known = f && fscanf(f, "%36s", id) == 1 && uuid_parse(id, &u) == 0;
    if (f)
        fclose(f);
    if (known)
        return 0;
    uuid_format(uuid_new(), id);
    f = fopen(path, "we");
    if (!f)
        return -errno;
    fprintf(f, "%s\n", id);
    int r = fflush(f) != 0 || fsync(fileno(f)) < 0 ? -EIO : 0;
    fclose(f);
    return r;
}

static bool is_formatted(const char *dir, const char *folder)
{
    char path[DIR_MAX + 32];
    snprintf(path, sizeof(path), "%s/%s", dir, folder);
    return rmdir(path) < 0 && errno != ENOENT; /* an empty folder is as good as none */
}

int local_set_up(struct cli *cli, const char *dir)
{
    static const char *const folders[] = {"", "/run", "/log"};
    char path[DIR_MAX + 32], done[DIR_MAX + 32], config[DIR_MAX + 32], id[UUID_STRING];
    int r = 0;
    for (size_t i = 0; r == 0 && i < array_size(folders); i++) {
        snprintf(path, sizeof(path), "%s%s", dir, folders[i]);
        r = make_dir(path);
    }
    snprintf(config, sizeof(config), "%s/curvine.yaml", dir);
    if (r == 0)
        r = write_config(config, dir);
    if (r == 0)
        r = cluster_id(dir, id);
    if (r < 0)
        return cli_fail(cli, r, "choose another directory: cv local up --dir DIR", "set up '%s'", dir);
    const char *const journal[] = {"cv-journal", "format", "--cluster", id, "--single", "--config", config, NULL};
    const char *const master[] = {"cv-master", "--config", config, "format", "--cluster", id, NULL};
    if (!is_formatted(dir, "journal"))
        r = run_program(journal);
    if (r == 0 && !is_formatted(dir, "master"))
        r = run_program(master);
    if (r < 0)
        return cli_fail(cli, r, NULL, "format the data directories in '%s'", dir);
    snprintf(path, sizeof(path), "%s/cluster-id.new", dir);
    snprintf(done, sizeof(done), "%s/cluster-id", dir);
    return rename(path, done) < 0 ? cli_fail(cli, -errno, NULL, "write '%s'", done) : CLI_OK;
}

/* ---- starting ------------------------------------------------------------------------------------------------------------- */

pid_t local_pid(const char *dir, const struct local_daemon *d)
{
    char path[DIR_MAX + 32];
    int fd = -1;
    pid_t holder = 0;
    snprintf(path, sizeof(path), "%s/%s", dir, d->name);
    int r = dir_lock(path, &fd, &holder);
    if (r == 0)
        close(fd);
    return r == -CV_LOCKED ? holder : 0;
}

/* What the daemon tells about itself: the protocol of sd_notify(3), on an abstract socket of ours. */
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

static pid_t launch(const char *dir, const struct local_daemon *d, const char *notify)
{
    char path[4096], config[DIR_MAX + 32], log[DIR_MAX + 64];
    program_path(d->program, path, sizeof(path));
    snprintf(config, sizeof(config), "%s/curvine.yaml", dir);
    snprintf(log, sizeof(log), "%s/log/%s.log", dir, d->name);
    pid_t pid = fork();
    if (pid != 0)
        return pid;
    setsid();
    int null = open("/dev/null", O_RDONLY), out = open(log, O_WRONLY | O_CREAT | O_APPEND, 0600);
    dup2(null, STDIN_FILENO);
    dup2(out, STDOUT_FILENO);
    dup2(out, STDERR_FILENO);
    closefrom(3);
    setenv("NOTIFY_SOCKET", notify, 1);
    unsetenv("JOURNAL_STREAM");
    signal(SIGPIPE, SIG_DFL);
    execlp(path, d->program, "--config", config, (char *)NULL);
    dprintf(STDERR_FILENO, "%s: %s\n", path, strerror(errno));
    _exit(127);
}

/* The last lines of a log, indented, on stderr. */
static void show_log(const char *dir, const struct local_daemon *d)
{
    char path[DIR_MAX + 64], text[8192];
    snprintf(path, sizeof(path), "%s/log/%s.log", dir, d->name);
    int fd cleanup(closep) = open(path, O_RDONLY | O_CLOEXEC);
    if (fd < 0)
        return;
    off_t size = lseek(fd, 0, SEEK_END), from = max(size - (off_t)sizeof(text) + 1, (off_t)0);
    ssize_t n = pread(fd, text, sizeof(text) - 1, from);
    if (n <= 0)
        return;
    text[n] = '\0';
    const char *p = text + n - 1;
    for (int lines = 0; p > text && lines < LOG_TAIL_LINES; p--)
        lines += p[-1] == '\n';
    fprintf(stderr, "%s:\n", path);
    for (char *rest = (char *)(uintptr_t)(p > text ? p + 1 : p), *line; (line = strsep(&rest, "\n")) && *line;)
        fprintf(stderr, "    %s\n", line);
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

int local_start(struct cli *cli, const char *dir, const struct local_daemon *d, uint64_t deadline_ns)
{
    char name[64];
    int fd cleanup(closep) = notify_open(name);
    pid_t pid = fd < 0 ? -1 : launch(dir, d, name);
    if (pid < 0)
        return cli_fail(cli, -errno, NULL, "start %s", d->program);
    int r = 0;
    while (r == 0 && clock_ns() < deadline_ns)
        r = look(fd, pid);
    if (r == 1)
        return CLI_OK;
    show_log(dir, d);
    return cli_fail(cli, r ? r : -CV_DEADLINE, NULL, r ? "%s ended while it started" : "%s is not ready yet",
                    d->program);
}

int local_stop(pid_t pid, uint64_t deadline_ns)
{
    int fd cleanup(closep) = (int)syscall(SYS_pidfd_open, pid, 0);
    if (fd < 0)
        return errno == ESRCH ? 0 : -errno;
    if (kill(pid, SIGTERM) < 0)
        return errno == ESRCH ? 0 : -errno;
    struct pollfd p = {.fd = fd, .events = POLLIN};
    uint64_t now = clock_ns();
    int timeout = deadline_ns > now ? (int)((deadline_ns - now) / NS_PER_MS) : 0;
    int n = poll(&p, 1, timeout);
    return n < 0 ? -errno : n == 0 ? -CV_DEADLINE : 0;
}
