/* SPDX-License-Identifier: Apache-2.0 */
#include "io/net.h"

#include <arpa/inet.h>
#include <assert.h>
#include <netdb.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/cleanup.h"
#include "base/clock.h"
#include "base/error.h"

#define LISTEN_PATIENCE_MS 2000

/* ---- addresses -------------------------------------------------------------------------------------------------- */

static int parse_unix(const char *path, struct net_address *ret)
{
    size_t n = strlen(path);
    if (n == 0)
        return -EINVAL;
    if (n >= sizeof(ret->local.sun_path))
        return -ENAMETOOLONG;
    *ret = (struct net_address){.n = (socklen_t)(offsetof(struct sockaddr_un, sun_path) + n + 1),
                                .local.sun_family = AF_UNIX};
    memcpy(ret->local.sun_path, path, n + 1);
    return 0;
}

/* "host:port" into its parts; host without brackets. */
static int split(const char *text, uint16_t default_port, char host[256], char port[8])
{
    const char *end, *colon;
    if (text[0] == '[') {
        text++;
        end = strchr(text, ']');
        if (!end || (end[1] != ':' && end[1] != 0))
            return -EINVAL;
        colon = end[1] ? end + 1 : NULL;
    } else {
        colon = strrchr(text, ':');
        end = colon ? colon : text + strlen(text);
        if (memchr(text, ':', (size_t)(end - text))) /* a bare v6 address: which colon begins the port? */
            return -EINVAL;
    }
    if (end - text >= 256)
        return -EINVAL;
    memcpy(host, text, (size_t)(end - text));
    host[end - text] = 0;
    unsigned long p = default_port;
    if (colon) {
        char *junk;
        if (colon[1] < '0' || colon[1] > '9')
            return -EINVAL;
        p = strtoul(colon + 1, &junk, 10);
        if (*junk || p > UINT16_MAX)
            return -EINVAL;
    } else if (!default_port) {
        return -EINVAL;
    }
    snprintf(port, 8, "%lu", p);
    return 0;
}

static void set_inet(struct net_address *ret, const struct sockaddr *address, socklen_t n)
{
    *ret = (struct net_address){.n = n};
    memcpy(&ret->storage, address, n);
}

int net_parse(const char *text, uint16_t default_port, struct net_address *ret)
{
    if (strncmp(text, "unix:", 5) == 0)
        return parse_unix(text + 5, ret);
    char host[256], port[8];
    int r = split(text, default_port, host, port);
    if (r < 0)
        return r;
    uint16_t number = htons((uint16_t)atoi(port));
    struct sockaddr_in v4 = {.sin_family = AF_INET, .sin_port = number};
    struct sockaddr_in6 v6 = {.sin6_family = AF_INET6, .sin6_port = number};
    const char *name = strcmp(host, "localhost") == 0         ? "127.0.0.1"
                       : *host == 0 || strcmp(host, "*") == 0 ? "0.0.0.0"
                                                              : host;
    if (inet_pton(AF_INET, name, &v4.sin_addr) == 1)
        set_inet(ret, (struct sockaddr *)&v4, sizeof(v4));
    else if (inet_pton(AF_INET6, name, &v6.sin6_addr) == 1)
        set_inet(ret, (struct sockaddr *)&v6, sizeof(v6));
    else
        return -EADDRNOTAVAIL;
    return 0;
}

int net_resolve(const char *text, uint16_t default_port, struct net_address *ret, int limit)
{
    assert(limit > 0);
    int r = net_parse(text, default_port, ret);
    if (r != -EADDRNOTAVAIL)
        return r < 0 ? r : 1;
    char host[256], port[8];
    split(text, default_port, host, port);
    struct addrinfo hints = {.ai_socktype = SOCK_STREAM, .ai_flags = AI_NUMERICSERV}, *found;
    if (getaddrinfo(host, port, &hints, &found) != 0)
        return -CV_UNREACHABLE;
    int n = 0;
    for (struct addrinfo *a = found; a && n < limit; a = a->ai_next)
        if (a->ai_family == AF_INET || a->ai_family == AF_INET6)
            set_inet(&ret[n++], a->ai_addr, a->ai_addrlen);
    freeaddrinfo(found);
    return n ? n : -CV_UNREACHABLE;
}

bool net_is_unix(const struct net_address *address)
{
    return address->any.sa_family == AF_UNIX;
}

char *net_text(const struct net_address *address, char *out)
{
    char host[INET6_ADDRSTRLEN] = "?";
    if (address->any.sa_family == AF_INET) {
        const struct sockaddr_in *v4 = (const struct sockaddr_in *)&address->any;
        inet_ntop(AF_INET, &v4->sin_addr, host, sizeof(host));
        snprintf(out, NET_TEXT_MAX, "%s:%u", host, ntohs(v4->sin_port));
    } else if (address->any.sa_family == AF_INET6) {
        const struct sockaddr_in6 *v6 = (const struct sockaddr_in6 *)&address->any;
        inet_ntop(AF_INET6, &v6->sin6_addr, host, sizeof(host));
        snprintf(out, NET_TEXT_MAX, "[%s]:%u", host, ntohs(v6->sin6_port));
    } else {
        size_t n = address->n > offsetof(struct sockaddr_un, sun_path)
                       ? address->n - offsetof(struct sockaddr_un, sun_path)
                       : 0; /* the connecting end of a unix connection has no name */
        snprintf(out, NET_TEXT_MAX, "unix:%.*s", (int)strnlen(address->local.sun_path, n), address->local.sun_path);
    }
    return out;
}

/* ---- sockets ---------------------------------------------------------------------------------------------------- */

int net_socket(const struct net_address *address, int *ret)
{
    int fd = socket(address->any.sa_family, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);
    if (fd < 0)
        return -errno;
    int one = 1;
    if (!net_is_unix(address))
        setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &one, sizeof(one));
    *ret = fd;
    return 0;
}

/* A socket file whose listener died refuses connections: remove it. */
static bool remove_stale(const struct net_address *address)
{
    struct stat st;
    if (lstat(address->local.sun_path, &st) < 0 || !S_ISSOCK(st.st_mode))
        return false;
    int fd cleanup(closep) = socket(AF_UNIX, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);
    if (fd < 0 || connect(fd, &address->any, address->n) == 0 || errno != ECONNREFUSED)
        return false;
    return unlink(address->local.sun_path) == 0;
}

int net_listen(const struct net_address *address, mode_t mode, int *ret)
{
    int fd cleanup(closep) = -1;
    int r = net_socket(address, &fd);
    if (r < 0)
        return r;
    int one = 1;
    if (!net_is_unix(address))
        setsockopt(fd, SOL_SOCKET, SO_REUSEADDR, &one, sizeof(one));
    r = bind(fd, &address->any, address->n) < 0 ? -errno : 0;
    if (r == -EADDRINUSE && net_is_unix(address) && remove_stale(address))
        r = bind(fd, &address->any, address->n) < 0 ? -errno : 0;
    if (r < 0)
        return r;
    if (net_is_unix(address) && chmod(address->local.sun_path, mode) < 0)
        return -errno;
    if (listen(fd, 1024) < 0)
        return -errno;
    *ret = take_fd(fd);
    return 0;
}

int net_listen_at_start(const struct net_address *address, mode_t mode, int *ret)
{
    uint64_t until_ns = clock_ns() + LISTEN_PATIENCE_MS * NS_PER_MS;
    int r = net_listen(address, mode, ret);
    for (; r == -EADDRINUSE && clock_ns() < until_ns; r = net_listen(address, mode, ret))
        usleep(10000);
    return r;
}

int net_pair(int ret[2])
{
    return socketpair(AF_UNIX, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0, ret) < 0 ? -errno : 0;
}

int net_local(int fd, struct net_address *ret)
{
    *ret = (struct net_address){.n = sizeof(ret->storage)};
    return getsockname(fd, &ret->any, &ret->n) < 0 ? -errno : 0;
}

int net_peer(int fd, struct net_address *ret)
{
    *ret = (struct net_address){.n = sizeof(ret->storage)};
    return getpeername(fd, &ret->any, &ret->n) < 0 ? -errno : 0;
}

int net_credentials(int fd, struct net_credentials *ret)
{
    struct ucred c;
    socklen_t n = sizeof(c);
    struct net_address local;
    int r = net_local(fd, &local);
    if (r < 0)
        return r;
    if (!net_is_unix(&local))
        return -ENOTSUP;
    if (getsockopt(fd, SOL_SOCKET, SO_PEERCRED, &c, &n) < 0)
        return -errno;
    *ret = (struct net_credentials){c.pid, c.uid, c.gid};
    return 0;
}

int net_groups(int fd, gid_t *groups, unsigned limit)
{
#ifndef SO_PEERGROUPS
#define SO_PEERGROUPS 59
#endif
    socklen_t n = (socklen_t)(limit * sizeof(*groups));
    if (getsockopt(fd, SOL_SOCKET, SO_PEERGROUPS, groups, &n) < 0)
        return errno == ENODATA || errno == ENOPROTOOPT ? -ENOTSUP : -errno;
    return (int)(n / sizeof(*groups));
}

int net_keepalive(int fd, int idle_s)
{
    int on = 1, probes = 4, interval = idle_s / probes > 0 ? idle_s / probes : 1, unacked_ms = 2 * idle_s * 1000;
    if (setsockopt(fd, SOL_SOCKET, SO_KEEPALIVE, &on, sizeof(on)) < 0 ||
        setsockopt(fd, IPPROTO_TCP, TCP_KEEPIDLE, &idle_s, sizeof(idle_s)) < 0 ||
        setsockopt(fd, IPPROTO_TCP, TCP_KEEPINTVL, &interval, sizeof(interval)) < 0 ||
        setsockopt(fd, IPPROTO_TCP, TCP_KEEPCNT, &probes, sizeof(probes)) < 0 ||
        setsockopt(fd, IPPROTO_TCP, TCP_USER_TIMEOUT, &unacked_ms, sizeof(unacked_ms)) < 0)
        return -errno;
    return 0;
}

int net_give_up(int fd, uint32_t unacknowledged_ms)
{
    int ms = (int)unacknowledged_ms;
    return setsockopt(fd, IPPROTO_TCP, TCP_USER_TIMEOUT, &ms, sizeof(ms)) < 0 ? -errno : 0;
}

/* ---- descriptors ------------------------------------------------------------------------------------------------ */

void net_put_fds(struct msghdr *message, union net_control *control, const int *fds, unsigned n)
{
    assert(n > 0 && n <= NET_FDS_MAX);
    struct cmsghdr *c = (struct cmsghdr *)control->space;
    c->cmsg_len = CMSG_LEN(n * sizeof(int));
    c->cmsg_level = SOL_SOCKET;
    c->cmsg_type = SCM_RIGHTS;
    memcpy(CMSG_DATA(c), fds, n * sizeof(int));
    message->msg_control = control;
    message->msg_controllen = CMSG_SPACE(n * sizeof(int));
}

void net_fd_room(struct msghdr *message, union net_control *control)
{
    message->msg_control = control;
    message->msg_controllen = sizeof(*control);
    message->msg_flags = 0;
}

int net_take_fds(struct msghdr *message, int *fds, unsigned limit)
{
    unsigned taken = 0;
    bool lost = message->msg_flags & MSG_CTRUNC;
    for (struct cmsghdr *c = CMSG_FIRSTHDR(message); c; c = CMSG_NXTHDR(message, c)) {
        if (c->cmsg_level != SOL_SOCKET || c->cmsg_type != SCM_RIGHTS)
            continue;
        unsigned n = (unsigned)((c->cmsg_len - CMSG_LEN(0)) / sizeof(int));
        for (unsigned i = 0; i < n; i++) {
            int fd;
            memcpy(&fd, CMSG_DATA(c) + i * sizeof(int), sizeof(fd));
            if (taken < limit)
                fds[taken++] = fd;
            else
                close(fd), lost = true;
        }
    }
    if (!lost)
        return (int)taken;
    for (unsigned i = 0; i < taken; i++)
        close(fds[i]);
    return -EMFILE;
}
