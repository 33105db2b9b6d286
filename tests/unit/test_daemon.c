/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The daemon frame in this process: daemon_run() on the main thread as in a program, and a second thread that plays
 * the operator (signals, HTTP requests). The service manager is a datagram socket.
 */
#include "tests/unit/unit.h"

#include <arpa/inet.h>
#include <fcntl.h>
#include <jansson.h>
#include <pthread.h>
#include <signal.h>
#include <stdio.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <sys/wait.h>

#include "base/error.h"
#include "base/log.h"
#include "conf/common_options.h"
#include "conf/daemon.h"
#include "conf/dir_lock.h"

static const struct option_section *const sections[] = {&cluster_section, &log_section, NULL};

/* What the program under test was asked and how it answers. */
static struct {
    int healthy, ready;
    _Atomic int reloads;
} program_state;

static int healthy(void *arg)
{
    return program_state.healthy;
}

static int ready(void *arg, char *why, size_t why_size)
{
    snprintf(why, why_size, "no leader yet");
    return program_state.ready;
}

static int status(void *arg, struct buf *out)
{
    return buf_printf(out, "{\"arg\":\"%s\"}", (char *)arg);
}

static void on_reload(void *arg, const struct config *config)
{
    program_state.reloads++;
}

static const struct daemon_program program = {
    .name = "cv-test",
    .summary = "a daemon for tests",
    .sections = sections,
    .own = sections,
    .reload = on_reload,
    .healthy = healthy,
    .ready = ready,
    .status = status,
};

/* Write text to a file in the test's directory; static storage, good for four files. */
static char *write_file(const char *name, const char *text)
{
    static char paths[4][256];
    static int next;
    char *path = paths[next++ % 4];
    snprintf(path, sizeof(paths[0]), "%s/%s", unit_tempdir(), name);
    FILE *f = fopen(path, "we");
    ck_assert_ptr_nonnull(f);
    fputs(text, f);
    fclose(f);
    return path;
}

static struct daemon *start(char *config_path)
{
    const char *argv[] = {"cv-test", "--config", config_path, "--set", "cluster.name=prod", NULL};
    struct daemon *d = NULL;
    ck_assert_int_eq(daemon_new(&program, 5, (char **)(uintptr_t)argv, &d), DAEMON_OK);
    ck_assert_ptr_nonnull(d);
    static char arg[] = "arg";
    daemon_set_arg(d, arg);
    return d;
}

static uint16_t free_port(void)
{
    struct sockaddr_in a = {.sin_family = AF_INET, .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
    socklen_t size = sizeof(a);
    int fd cleanup(closep) = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
    ck_assert_int_eq(bind(fd, (struct sockaddr *)&a, size), 0);
    ck_assert_int_eq(getsockname(fd, (struct sockaddr *)&a, &size), 0);
    return ntohs(a.sin_port);
}

/* One HTTP request; the whole answer, thread-local storage. */
static const char *http_request(uint16_t port, const char *request)
{
    static _Thread_local char answer[65536];
    struct sockaddr_in a = {.sin_family = AF_INET, .sin_addr.s_addr = htonl(INADDR_LOOPBACK), .sin_port = htons(port)};
    int fd cleanup(closep) = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
    ck_assert_int_eq(connect(fd, (struct sockaddr *)&a, sizeof(a)), 0);
    ck_assert_int_eq((int)write(fd, request, strlen(request)), (int)strlen(request));
    size_t n = 0;
    for (ssize_t got; (got = read(fd, answer + n, sizeof(answer) - 1 - n)) > 0;)
        n += (size_t)got;
    answer[n] = 0;
    return answer;
}

static const char *get(uint16_t port, const char *path)
{
    char request[256];
    snprintf(request, sizeof(request), "GET %s HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n", path);
    return http_request(port, request);
}

#define ck_assert_says(said, part) ck_assert_msg(strstr((said), (part)), "no '%s' in:\n%s", (part), (said))

/* Runs play(daemon) on a thread of its own while daemon_run() runs; returns what that returned. */
static int run_with(struct daemon *d, void *(*play)(void *d))
{
    pthread_t thread;
    ck_assert_int_eq(pthread_create(&thread, NULL, play, d), 0);
    int result = daemon_run(d);
    pthread_join(thread, NULL);
    return result;
}

static void *play_pages(void *arg)
{
    struct daemon *d = arg;
    uint16_t port = daemon_http_port(d);
    while (!strstr(get(port, "/status"), "\"phase\":\"running\""))
        usleep(1000);
    ck_assert_says(get(port, "/status"), "\"status\":{\"arg\":\"arg\"}");
    ck_assert_says(get(port, "/healthz"), "200 OK");
    ck_assert_says(get(port, "/readyz"), "200 OK");
    program_state.ready = -EAGAIN;
    ck_assert_says(get(port, "/readyz"), "503 ");
    ck_assert_says(get(port, "/readyz"), "no leader yet\n");
    program_state.healthy = -EIO;
    ck_assert_says(get(port, "/healthz"), "503 ");
    ck_assert_says(get(port, "/metrics"), "process_open_fds ");
    ck_assert_says(get(port, "/metrics.json"), "{}");
    const char *config = strstr(get(port, "/config"), "\r\n\r\n");
    ck_assert_ptr_nonnull(config);
    json_t *root = json_loads(config, 0, NULL);
    ck_assert_ptr_nonnull(root);
    json_t *name = json_object_get(json_object_get(root, "cluster"), "name");
    ck_assert_str_eq(json_string_value(json_object_get(name, "value")), "prod");
    ck_assert_str_eq(json_string_value(json_object_get(name, "origin")), "--set");
    json_decref(root);
    ck_assert_says(get(port, "/nothing"), "404 ");
    ck_assert_says(get(port, "/nothing"), "/healthz\n");
    ck_assert_says(get(port, "/"), "200 OK");
    ck_assert_says(
        http_request(port, "POST /config HTTP/1.1\r\nHost: x\r\nConnection: close\r\nContent-Length: 3\r\n\r\na=b"),
        "405 ");
    ck_assert_says(http_request(port, "DELETE /config HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n"),
                   "Allow: GET, HEAD");
    ck_assert_ptr_null(
        strstr(http_request(port, "HEAD /readyz HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n"), "leader"));
    kill(getpid(), SIGTERM);
    return NULL;
}

TEST(pages_say_what_the_daemon_says_and_nothing_changes_by_http)
{
    struct daemon *d cleanup(daemon_free_p) = start(write_file("c.yaml", ""));
    ck_assert_int_eq(daemon_http(d, "127.0.0.1", free_port()), 0);
    ck_assert_says(get(daemon_http_port(d), "/readyz"), "starting\n");
    ck_assert_says(get(daemon_http_port(d), "/healthz"), "200 OK");
    ck_assert_int_eq(run_with(d, play_pages), DAEMON_OK);
    ck_assert_says(get(daemon_http_port(d), "/readyz"), "stopping\n");
}

TEST(an_http_port_in_use_is_refused)
{
    struct daemon *d cleanup(daemon_free_p) = start(write_file("c.yaml", ""));
    struct http *h cleanup(http_stop_p) = NULL;
    ck_assert_int_eq(http_start("127.0.0.1", 0, NULL, 0, &h), 0);
    ck_assert_int_eq(daemon_http(d, "127.0.0.1", http_port(h)), -EADDRINUSE);
    ck_assert_int_eq(daemon_http(d, "192.0.2.1", 9001), -EADDRNOTAVAIL);
    ck_assert_int_eq(daemon_http(d, "no such host", 9001), -EADDRNOTAVAIL);
}

static int notify_fd;

static void expect_notice(const char *what)
{
    char got[256];
    ssize_t n = recv(notify_fd, got, sizeof(got) - 1, 0); /* the test's timeout is the deadline */
    ck_assert_int_gt((int)n, 0);
    got[n] = 0;
    if (strcmp(got, "WATCHDOG=1") == 0 && strcmp(what, got) != 0)
        return expect_notice(what); /* fed while we waited */
    ck_assert_msg(strncmp(got, what, strlen(what)) == 0, "%s, not %s", got, what);
}

/* Be the service manager from here on. */
static void listen_for_notices(void)
{
    struct sockaddr_un a = {.sun_family = AF_UNIX};
    snprintf(a.sun_path, sizeof(a.sun_path), "%s/notify", unit_tempdir());
    notify_fd = socket(AF_UNIX, SOCK_DGRAM | SOCK_CLOEXEC, 0);
    ck_assert_int_eq(bind(notify_fd, (struct sockaddr *)&a, sizeof(a)), 0);
    setenv("NOTIFY_SOCKET", a.sun_path, 1);
}

/* Reload, and wait until it is done. */
static void reload(void)
{
    kill(getpid(), SIGHUP);
    expect_notice("RELOADING=1\nMONOTONIC_USEC=");
    expect_notice("READY=1");
}

static void *play_reload(void *arg)
{
    struct daemon *d = arg;
    uint16_t port = daemon_http_port(d);
    expect_notice("READY=1");
    write_file("c.yaml", "cluster:\n  nam: x\n");
    reload(); /* refused: everything stays */
    ck_assert_int_eq(log_get_level(), LOG_LEVEL_WARN);
    ck_assert_int_eq(program_state.reloads, 0);
    write_file("c.yaml", "cluster:\n  run_dir: /elsewhere\n  name: ignored\nlog:\n  level: error\n");
    reload();
    ck_assert_int_eq(program_state.reloads, 1);
    const char *config = get(port, "/config");
    ck_assert_says(config,
                   "\"run_dir\":{\"value\":\"/run/curvine\",\"origin\":\"default\",\"after_restart\":\"/elsewhere\"}");
    ck_assert_says(config, "\"name\":{\"value\":\"prod\",\"origin\":\"--set\"}");
    ck_assert_says(config, "\"level\":{\"value\":\"error\"");
    daemon_fail(d);
    return NULL;
}

TEST(a_reload_applies_what_is_live_names_the_rest_and_survives_a_bad_file)
{
    listen_for_notices();
    struct daemon *d cleanup(daemon_free_p) = start(write_file("c.yaml", "log:\n  level: warn\n"));
    ck_assert_int_eq(log_get_level(), LOG_LEVEL_WARN);
    ck_assert_int_eq(daemon_http(d, "127.0.0.1", free_port()), 0);
    ck_assert_int_eq(run_with(d, play_reload), DAEMON_FAILED);
    ck_assert_int_eq(log_get_level(), LOG_LEVEL_ERROR);
    ck_assert_str_eq(config_options(daemon_config(d), cluster)->run_dir, "/run/curvine"); /* as it started */
}

static void *play_service_manager(void *arg)
{
    expect_notice("READY=1");
    expect_notice("WATCHDOG=1");
    expect_notice("WATCHDOG=1");
    reload();
    kill(getpid(), SIGINT);
    expect_notice("STOPPING=1");
    return NULL;
}

TEST(the_service_manager_hears_ready_watchdog_reload_and_stop)
{
    listen_for_notices();
    setenv("WATCHDOG_USEC", "30000", 1);
    struct daemon *d cleanup(daemon_free_p) = start(write_file("c.yaml", ""));
    ck_assert_int_eq(run_with(d, play_service_manager), DAEMON_OK);
}

/* Status of a child that ran daemon_new() with these arguments; what it printed is in out. */
static int child(const char *const *argv, char *out, size_t size)
{
    int fds[2], n = 0, result;
    while (argv[n])
        n++;
    ck_assert_int_eq(pipe2(fds, O_CLOEXEC), 0);
    fflush(NULL);
    pid_t pid = fork();
    ck_assert_int_ge(pid, 0);
    if (pid == 0) {
        dup2(fds[1], 1);
        dup2(fds[1], 2);
        struct daemon *d = NULL;
        int s = daemon_new(&program, n, (char **)(uintptr_t)argv, &d);
        fflush(NULL);
        _exit(d ? 99 : s);
    }
    close(fds[1]);
    size_t got = 0;
    for (ssize_t r; got < size - 1 && (r = read(fds[0], out + got, size - 1 - got)) > 0;)
        got += (size_t)r;
    out[got] = 0;
    close(fds[0]);
    ck_assert_int_eq(waitpid(pid, &result, 0), pid);
    return WEXITSTATUS(result);
}

#define ARGS(...) ((const char *const[]){__VA_ARGS__, NULL})

TEST(the_command_line_is_answered_and_mistakes_exit_with_2)
{
    char out[16384];
    char *bad = write_file("bad.yaml", "cluster:\n  nam: x\n  io: warp\n");
    unsetenv("CURVINE_CONFIG");
    ck_assert_int_eq(child(ARGS("cv-test", "--help"), out, sizeof(out)), 0);
    ck_assert_says(out, "--check-config");
    ck_assert_says(out, "cluster.masters");
    ck_assert_int_eq(child(ARGS("cv-test", "--version"), out, sizeof(out)), 0);
    ck_assert_str_eq(out, "cv-test " CV_VERSION "\n");
    ck_assert_int_eq(child(ARGS("cv-test", "--hlep"), out, sizeof(out)), 2);
    ck_assert_int_eq(child(ARGS("cv-test", "extra"), out, sizeof(out)), 2);
    ck_assert_says(out, "unexpected argument 'extra'");
    ck_assert_int_eq(child(ARGS("cv-test", "--config", "/nowhere.yaml"), out, sizeof(out)), 2);
    ck_assert_says(out, "/nowhere.yaml: No such file");
    ck_assert_int_eq(child(ARGS("cv-test", "--check-config", "-c", bad, "-s", "log.level=loud"), out, sizeof(out)), 2);
    ck_assert_says(out, "bad.yaml:2: cluster.nam: unknown key, did you mean 'name'?");
    ck_assert_says(out, "bad.yaml:3: cluster.io: 'warp' is not allowed: one of auto, uring, epoll (default auto)");
    ck_assert_says(out, "--set: log.level: 'loud' is not allowed");
    char *good = write_file("good.yaml", "log: {level: debug}\n");
    ck_assert_int_eq(child(ARGS("cv-test", "--check-config", "-c", good), out, sizeof(out)), 0);
    ck_assert_says(out, "is valid");
    setenv("CURVINE_CONFIG", good, 1);
    ck_assert_int_eq(child(ARGS("cv-test"), out, sizeof(out)), 99);
    ck_assert_says(out, "good.yaml");
}

TEST(one_process_at_a_time_holds_a_directory_and_the_other_learns_who)
{
    char path[256];
    pid_t holder = 0;
    int fd, again;
    ck_assert_int_eq(dir_lock(unit_tempdir(), &fd, &holder), 0);
    ck_assert_int_eq(dir_lock(unit_tempdir(), &again, &holder), -CV_LOCKED);
    ck_assert_int_eq(holder, getpid());
    close(fd);
    ck_assert_int_eq(dir_lock(unit_tempdir(), &again, NULL), 0);
    close(again);
    snprintf(path, sizeof(path), "%s/none", unit_tempdir());
    ck_assert_int_eq(dir_lock(path, &again, NULL), -ENOENT);

    /* The daemon makes the directory, and lets go with daemon_free(). */
    struct daemon *d = start(write_file("c.yaml", ""));
    ck_assert_int_eq(daemon_lock(d, path), 0);
    ck_assert_int_eq(dir_lock(path, &again, NULL), -CV_LOCKED);
    daemon_free(d);
    ck_assert_int_eq(dir_lock(path, &again, NULL), 0);
    close(again);
}
