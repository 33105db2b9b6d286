/* SPDX-License-Identifier: Apache-2.0 */
#include "tests/unit/unit.h"

#include <fcntl.h>
#include <pthread.h>
#include <stdio.h>
#include <sys/uio.h>
#include <unistd.h>

#include "base/error.h"
#include "io/net.h"

static const char *round_trip(const char *text, uint16_t default_port)
{
    static char out[NET_TEXT_MAX];
    struct net_address a;
    ck_assert_int_eq(net_parse(text, default_port, &a), 0);
    return net_text(&a, out);
}

TEST(net_reads_addresses_as_people_write_them)
{
    ck_assert_str_eq(round_trip("10.0.0.1:8995", 0), "10.0.0.1:8995");
    ck_assert_str_eq(round_trip("10.0.0.1", 8995), "10.0.0.1:8995");
    ck_assert_str_eq(round_trip("localhost:0", 0), "127.0.0.1:0");
    ck_assert_str_eq(round_trip(":8995", 0), "0.0.0.0:8995");
    ck_assert_str_eq(round_trip("*:1", 0), "0.0.0.0:1");
    ck_assert_str_eq(round_trip("[::1]:8995", 0), "[::1]:8995");
    ck_assert_str_eq(round_trip("[fe80::2]", 7), "[fe80::2]:7");
    ck_assert_str_eq(round_trip("unix:/run/a b", 0), "unix:/run/a b");
}

TEST(net_refuses_what_is_no_address)
{
    struct net_address a;
    static const char *const bad[] = {"1.2.3.4",     "1.2.3.4:",  "1.2.3.4:x",   "1.2.3.4:65536", "1.2.3.4:-1", "unix:",
                                      "[::1",        "[::1]x:80", "::1",         "::1:80",        "1.2.3.4:1 ", ":",
                                      "1.2.3.4:1:2", "",          "1.2.3.4:+80", "[::1]80"};
    for (size_t i = 0; i < sizeof(bad) / sizeof(bad[0]); i++)
        ck_assert_msg(net_parse(bad[i], 0, &a) == -EINVAL, "'%s': %d", bad[i], net_parse(bad[i], 0, &a));
    ck_assert_int_eq(net_parse("a.name.somewhere:80", 0, &a), -EADDRNOTAVAIL);
    char path[200] = "unix:/";
    memset(path + 6, 'x', 120);
    ck_assert_int_eq(net_parse(path, 0, &a), -ENAMETOOLONG);
    ck_assert_int_eq(net_resolve("1.2.3.4:x", 0, &a, 1), -EINVAL);
    ck_assert_int_eq(net_resolve("no-such-name.invalid:80", 0, &a, 1), -CV_UNREACHABLE);
    ck_assert_int_eq(net_resolve("127.0.0.1:80", 0, &a, 1), 1);
}

TEST(net_listen_tells_when_somebody_listens_there)
{
    struct net_address a;
    int one, two;
    ck_assert_int_eq(net_parse("127.0.0.1:0", 0, &a), 0);
    ck_assert_int_eq(net_listen(&a, 0, &one), 0);
    ck_assert_int_eq(net_local(one, &a), 0);
    ck_assert_int_eq(net_listen(&a, 0, &two), -EADDRINUSE);
    close(one);
}

TEST(net_listen_replaces_a_dead_unix_socket_but_not_a_live_one_or_a_file)
{
    struct net_address a;
    char text[300];
    int one, two;
    snprintf(text, sizeof(text), "unix:%s/socket", unit_tempdir());
    ck_assert_int_eq(net_parse(text, 0, &a), 0);
    ck_assert_int_eq(net_listen(&a, 0600, &one), 0);
    ck_assert_int_eq(net_listen(&a, 0600, &two), -EADDRINUSE);
    close(one); /* the file stays, as after a crash */
    ck_assert_int_eq(net_listen(&a, 0600, &two), 0);
    close(two);
    ck_assert_int_eq(unlink(text + 5), 0);
    FILE *f = fopen(text + 5, "w");
    fclose(f);
    ck_assert_int_eq(net_listen(&a, 0600, &two), -EADDRINUSE);
    ck_assert_int_eq(access(text + 5, F_OK), 0);
}

static void *close_later(void *fd)
{
    usleep(200000);
    close(*(int *)fd);
    return NULL;
}

TEST(net_at_a_start_who_listens_gets_a_moment_to_go)
{
    char text[100];
    struct net_address a;
    int one, two;
    pthread_t later;
    snprintf(text, sizeof(text), "unix:%s/s", unit_tempdir());
    ck_assert_int_eq(net_parse(text, 0, &a), 0);
    ck_assert_int_eq(net_listen(&a, 0600, &one), 0);
    ck_assert_int_eq(pthread_create(&later, NULL, close_later, &one), 0);
    ck_assert_int_eq(net_listen_at_start(&a, 0600, &two), 0);
    pthread_join(later, NULL);
    close(two);
}

TEST(net_knows_who_is_at_the_other_end_of_a_unix_socket)
{
    int fd[2];
    struct net_credentials c;
    ck_assert_int_eq(net_pair(fd), 0);
    ck_assert_int_eq(net_credentials(fd[0], &c), 0);
    ck_assert_int_eq(c.pid, getpid());
    ck_assert_uint_eq(c.uid, geteuid());
    gid_t own[64], groups[64];
    int n = getgroups(64, own);
    ck_assert_int_eq(net_groups(fd[0], groups, 64), n);
    ck_assert(n == 0 || memcmp(own, groups, (size_t)n * sizeof(gid_t)) == 0);
    close(fd[0]);
    close(fd[1]);
    struct net_address a;
    ck_assert_int_eq(net_parse("127.0.0.1:0", 0, &a), 0);
    ck_assert_int_eq(net_listen(&a, 0, &fd[0]), 0);
    ck_assert_int_eq(net_credentials(fd[0], &c), -ENOTSUP);
    ck_assert_int_eq(net_groups(fd[0], groups, 64), -ENOTSUP);
    close(fd[0]);
}

TEST(net_takes_no_more_descriptors_than_asked_for)
{
    int fd[2], pair[2], got[2];
    char byte = 'x';
    ck_assert_int_eq(net_pair(fd), 0);
    ck_assert_int_eq(net_pair(pair), 0);
    int next = open("/dev/null", 0);
    close(next);
    struct iovec v = {&byte, 1};
    struct msghdr out = {.msg_iov = &v, .msg_iovlen = 1}, in = out;
    union net_control out_control, in_control;
    net_put_fds(&out, &out_control, pair, 2);
    ck_assert_int_eq(sendmsg(fd[0], &out, 0), 1);
    net_fd_room(&in, &in_control);
    ck_assert_int_eq(recvmsg(fd[1], &in, 0), 1);
    ck_assert_int_eq(net_take_fds(&in, got, 1), -EMFILE);
    ck_assert_int_eq(recvmsg(fd[1], &in, MSG_DONTWAIT), -1);
    ck_assert_int_eq(open("/dev/null", 0), next); /* none was left open */
}
