/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Addresses and sockets for the loop. An address is written "host:port", "[v6]:port", ":port" (all interfaces) or
 * "unix:/path". All descriptors made here are non-blocking and close-on-exec. Any thread; only net_resolve may block.
 */
#pragma once

#include <stdbool.h>
#include <stdint.h>
#include <sys/socket.h>
#include <sys/types.h>
#include <sys/un.h>

struct net_address {
    socklen_t n;
    union {
        struct sockaddr any;
        struct sockaddr_storage storage;
        struct sockaddr_un local;
    };
};

#define NET_TEXT_MAX (sizeof(struct sockaddr_un) + 8)

/* Read an address without asking DNS: numbers, "localhost", "*" and unix paths. default_port is used when the text has
 * none; 0: a port is required (but "host:0" may be asked for: any free port).
 * Errors: -EINVAL malformed; -ENAMETOOLONG a unix path of more than 107 bytes; -EADDRNOTAVAIL a name: net_resolve. */
int net_parse(const char *text, uint16_t default_port, struct net_address *ret);

/* As net_parse, and look names up (getaddrinfo: seconds; call it through io_work). Sets up to limit addresses.
 * Returns how many, at least 1. Errors: those of net_parse; -CV_UNREACHABLE no such name or no answer. */
int net_resolve(const char *text, uint16_t default_port, struct net_address *ret, int limit);

/* As net_parse reads it; out has NET_TEXT_MAX bytes. Returns out. */
char *net_text(const struct net_address *address, char *out);

bool net_is_unix(const struct net_address *address);

/* A listening socket. TCP: SO_REUSEADDR, and what it accepts inherits TCP_NODELAY. unix: mode is of the socket file; a
 * file nobody listens on any more is replaced. Errors: -EADDRINUSE somebody listens there; -EACCES; -EADDRNOTAVAIL. */
int net_listen(const struct net_address *address, mode_t mode, int *ret);

/* The same at a start, waiting up to 2 s while somebody listens there: when a process with io_uring is killed, the
 * kernel closes what it listened on a moment after the process is gone, and it may have been started again by then. */
int net_listen_at_start(const struct net_address *address, mode_t mode, int *ret);

/* A socket for io_connect to this address; TCP_NODELAY. */
int net_socket(const struct net_address *address, int *ret);

/* A connected pair of unix stream sockets. */
int net_pair(int ret[2]);

/* Where a socket is bound, what it is connected to. */
int net_local(int fd, struct net_address *ret);
int net_peer(int fd, struct net_address *ret);

/* Who is at the other end of a unix socket, as of its connect. Errors: -ENOTSUP not a unix socket. */
struct net_credentials {
    pid_t pid;
    uid_t uid;
    gid_t gid;
};
int net_credentials(int fd, struct net_credentials *ret);

/* The supplementary groups of that process, as of its connect. Returns how many. Errors: -ENOTSUP not a unix socket;
 * -ERANGE more than limit. */
int net_groups(int fd, gid_t *groups, unsigned limit);

/* Kill a TCP peer that is silent and gone: probes after idle_s, given up after about idle_s more. */
int net_keepalive(int fd, int idle_s);

/* Break a TCP connection when what was sent is not acknowledged for so long (after net_keepalive, which sets it too). */
int net_give_up(int fd, uint32_t unacknowledged_ms);

/* Descriptors over a unix socket (SCM_RIGHTS). net_put_fds makes message carry n descriptors, for io_sendmsg; control
 * stays until the op is done, and so do the descriptors, which remain the caller's. net_fd_room makes message ready to
 * receive some; net_take_fds moves what arrived to fds (the caller's from then on), closing what is above limit.
 * Returns how many. Errors: -EMFILE some were lost on the way (those that came are closed). */
#define NET_FDS_MAX 16
union net_control {
    size_t align; /* as struct cmsghdr begins */
    char space[CMSG_SPACE(NET_FDS_MAX * sizeof(int))];
};
void net_put_fds(struct msghdr *message, union net_control *control, const int *fds, unsigned n);
void net_fd_room(struct msghdr *message, union net_control *control);
int net_take_fds(struct msghdr *message, int *fds, unsigned limit);
