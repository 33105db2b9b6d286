/* SPDX-License-Identifier: Apache-2.0 */
/*
 * A wire between networks of a test's own, which may be cut, lose, delay, double, reorder and throttle while it is in use.
 * One process makes a network namespace for each node, holds a TUN device in each and carries IP packets from one to the
 * other; it needs root and /dev/net/tun, and nothing of the kernel's traffic control. Node N has the address 10.77.0.N.
 *
 *      cv-wire SOCKET up NODES [--seed S] [--mtu BYTES]    until SIGTERM, or until who started it ends; "up" when it is
 *      cv-wire SOCKET exec NODE COMMAND...                 become the command, in the network of the node
 *      cv-wire SOCKET RULE [, RULE]...                     change the wire, all rules at once; prints "ok" and clock_ns()
 *      cv-wire SOCKET count                                what went each way so far, a line for each A>B
 *
 *      RULE:  cut A B              nothing goes between them
 *             drop A B             nothing of A arrives at B
 *             lose A B PERCENT     of the packets from A to B
 *             delay A B MS [MS]    each packet, and up to so much more or less; they stay in order
 *             reorder A B PERCENT  are not delayed with the others: they overtake
 *             double A B PERCENT   arrive twice
 *             rate A B KBYTES      a second at most; what waits for more than QUEUE_MAX packets is lost; 0: any
 *             heal [A B]           undo all of that, in both directions
 *
 * A and B: a node, or "all". Rules but cut and heal are for one direction. What is on its way when a link is cut is lost.
 *
 * The namespaces have no names: they end with the wire and the processes in them, however those ended. Everything is one
 * thread: packets that are to arrive later stand in a heap by time. Chance is a function of the seed.
 */
#include <arpa/inet.h>
#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <linux/if_tun.h>
#include <net/if.h>
#include <poll.h>
#include <sched.h>
#include <signal.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/prctl.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>

#include "base/cleanup.h"
#include "base/clock.h"
#include "base/random.h"

#define NODES_MAX  16
#define PACKET_MAX 65535
#define QUEUE_MAX  4096 /* packets on their way on one link */
#define AT_ONCE    64   /* packets taken from one node before the next one's turn */
#define LINE_MAX_  4096

struct rules {
    bool cut;
    double lose, twice, overtake; /* per cent */
    uint64_t delay_ns, jitter_ns;
    uint64_t rate; /* bytes a second; 0: any */
};

struct link {
    struct rules rules;
    uint64_t free_ns; /* the line is busy until then (rate) */
    uint64_t last_ns; /* when the last one in order arrives */
    uint32_t queued;
    uint64_t passed, bytes, cut, lost, twice, overtook, full;
};

struct packet {
    uint64_t due_ns, number;
    unsigned from, to;
    size_t size;
    uint8_t bytes[];
};

static struct {
    unsigned nodes;
    int spaces[NODES_MAX + 1], tuns[NODES_MAX + 1], control; /* by node, from 1 */
    struct link links[NODES_MAX + 1][NODES_MAX + 1];
    struct packet **heap; /* the first is due first */
    size_t count, room;
    uint64_t number;
    struct prng prng;
} w;

static volatile sig_atomic_t stop;

static int fail(const char *what)
{
    fprintf(stderr, "cv-wire: %s: %s\n", what, strerror(errno));
    return -1;
}

/* ---- packets on their way --------------------------------------------------------------------------------------------- */

static bool before(const struct packet *a, const struct packet *b)
{
    return a->due_ns != b->due_ns ? a->due_ns < b->due_ns : a->number < b->number;
}

static void heap_push(struct packet *p)
{
    if (w.count == w.room) {
        w.room = w.room ? 2 * w.room : 1024;
        w.heap = reallocarray(w.heap, w.room, sizeof(struct packet *));
        if (!w.heap)
            abort();
    }
    size_t i = w.count++;
    for (; i > 0 && before(p, w.heap[(i - 1) / 2]); i = (i - 1) / 2)
        w.heap[i] = w.heap[(i - 1) / 2];
    w.heap[i] = p;
}

static struct packet *heap_pop(void)
{
    struct packet *first = w.heap[0], *last = w.heap[--w.count];
    size_t i = 0;
    for (size_t child; (child = 2 * i + 1) < w.count; i = child) {
        if (child + 1 < w.count && before(w.heap[child + 1], w.heap[child]))
            child++;
        if (!before(w.heap[child], last))
            break;
        w.heap[i] = w.heap[child];
    }
    w.heap[i] = last;
    return first;
}

static bool chance(double percent)
{
    return percent > 0 && prng_below(&w.prng, 1000000) < percent * 10000;
}

static void deliver(struct link *l, unsigned to, const uint8_t *bytes, size_t size)
{
    if (l->rules.cut) {
        l->cut++;
        return;
    }
    if (write(w.tuns[to], bytes, size) == (ssize_t)size) {
        l->passed++;
        l->bytes += size;
    } else {
        l->full++;
    }
}

static void deliver_due(uint64_t now)
{
    while (w.count && w.heap[0]->due_ns <= now) {
        struct packet *p = heap_pop();
        struct link *l = &w.links[p->from][p->to];
        l->queued--;
        deliver(l, p->to, p->bytes, p->size);
        free(p);
    }
}

/* When a packet that is sent now arrives. */
static uint64_t due(struct link *l, size_t size, uint64_t now)
{
    const struct rules *r = &l->rules;
    uint64_t at = now;
    if (r->rate) {
        at = l->free_ns = max(now, l->free_ns) + size * NS_PER_S / r->rate;
    }
    if (chance(r->overtake)) {
        l->overtook++;
        return at;
    }
    at += r->delay_ns;
    if (r->jitter_ns) {
        uint64_t wide = 2 * r->jitter_ns / NS_PER_US + 1;
        at += prng_below(&w.prng, (uint32_t)wide) * NS_PER_US;
        at -= min(r->jitter_ns, at - now);
    }
    return l->last_ns = max(at, l->last_ns);
}

static void send_one(struct link *l, unsigned from, unsigned to, const uint8_t *bytes, size_t size, uint64_t now)
{
    uint64_t at = due(l, size, now);
    if (at <= now && !l->queued) {
        deliver(l, to, bytes, size);
        return;
    }
    struct packet *p = l->queued < QUEUE_MAX ? malloc(sizeof(*p) + size) : NULL;
    if (!p) {
        l->full++;
        return;
    }
    *p = (struct packet){.due_ns = at, .number = w.number++, .from = from, .to = to, .size = size};
    memcpy(p->bytes, bytes, size);
    l->queued++;
    heap_push(p);
}

/* A packet that node from has sent. */
static void carry(unsigned from, const uint8_t *bytes, size_t size, uint64_t now)
{
    static const uint8_t net[] = {10, 77, 0};
    if (size < 20 || bytes[0] >> 4 != 4 || memcmp(bytes + 16, net, sizeof(net)) != 0)
        return; /* what a kernel says to nobody in particular */
    unsigned to = bytes[19];
    if (to == from || to == 0 || to > w.nodes)
        return;
    struct link *l = &w.links[from][to];
    if (l->rules.cut) {
        l->cut++;
    } else if (chance(l->rules.lose)) {
        l->lost++;
    } else {
        send_one(l, from, to, bytes, size, now);
        if (chance(l->rules.twice)) {
            l->twice++;
            send_one(l, from, to, bytes, size, now);
        }
    }
}

static void take_from(unsigned node)
{
    static uint8_t bytes[PACKET_MAX];
    uint64_t now = clock_ns();
    for (unsigned i = 0; i < AT_ONCE; i++) {
        ssize_t n = read(w.tuns[node], bytes, sizeof(bytes));
        if (n <= 0)
            return;
        carry(node, bytes, (size_t)n, now);
    }
}

/* ---- networks --------------------------------------------------------------------------------------------------------- */

static int if_set(int fd, const char *name, unsigned long request, struct ifreq *r)
{
    snprintf(r->ifr_name, sizeof(r->ifr_name), "%s", name);
    return ioctl(fd, request, r);
}

static int if_up(int fd, const char *name)
{
    struct ifreq r = {0};
    if (if_set(fd, name, SIOCGIFFLAGS, &r) < 0)
        return -1;
    r.ifr_flags |= IFF_UP;
    return if_set(fd, name, SIOCSIFFLAGS, &r);
}

static int if_address(int fd, const char *name, unsigned long request, const char *text)
{
    struct ifreq r = {0};
    struct sockaddr_in *a = (struct sockaddr_in *)&r.ifr_addr;
    a->sin_family = AF_INET;
    inet_pton(AF_INET, text, &a->sin_addr);
    return if_set(fd, name, request, &r);
}

/* In the namespace we are in. */
static int make_device(unsigned node, int mtu)
{
    char address[32];
    struct ifreq tun = {.ifr_flags = IFF_TUN | IFF_NO_PI}, size = {.ifr_mtu = mtu}, queue = {.ifr_qlen = QUEUE_MAX};
    int fd cleanup(closep) = socket(AF_INET, SOCK_DGRAM | SOCK_CLOEXEC, 0);
    int device cleanup(closep) = open("/dev/net/tun", O_RDWR | O_NONBLOCK | O_CLOEXEC);
    if (fd < 0 || device < 0 || if_set(device, "net", TUNSETIFF, &tun) < 0)
        return fail("/dev/net/tun");
    snprintf(address, sizeof(address), "10.77.0.%u", node);
    if (if_up(fd, "lo") < 0 || if_set(fd, "net", SIOCSIFMTU, &size) < 0 ||
        if_set(fd, "net", SIOCSIFTXQLEN, &queue) < 0 || if_address(fd, "net", SIOCSIFADDR, address) < 0 ||
        if_address(fd, "net", SIOCSIFNETMASK, "255.255.255.0") < 0 || if_up(fd, "net") < 0)
        return fail(address);
    w.tuns[node] = take_fd(device);
    return 0;
}

static int make_networks(unsigned nodes, int mtu)
{
    int home cleanup(closep) = open("/proc/self/ns/net", O_RDONLY | O_CLOEXEC);
    for (w.nodes = 1; w.nodes <= nodes; w.nodes++) {
        if (unshare(CLONE_NEWNET) < 0)
            return fail("a network namespace");
        w.spaces[w.nodes] = open("/proc/self/ns/net", O_RDONLY | O_CLOEXEC);
        if (w.spaces[w.nodes] < 0 || make_device(w.nodes, mtu) < 0)
            return -1;
    }
    w.nodes = nodes;
    return setns(home, CLONE_NEWNET) < 0 ? fail("the network I came from") : 0;
}

/* ---- rules ------------------------------------------------------------------------------------------------------------ */

/* Of a node, or "all": the first and last one. */
static bool read_nodes(const char *text, unsigned *ret_first, unsigned *ret_last)
{
    char *end;
    unsigned long n = text ? strtoul(text, &end, 10) : 0;
    *ret_first = 1;
    *ret_last = w.nodes;
    if (text && strcmp(text, "all") == 0)
        return true;
    *ret_first = *ret_last = (unsigned)n;
    return text && *end == '\0' && n >= 1 && n <= w.nodes;
}

static bool read_number(const char *text, double most, double *ret)
{
    char *end;
    *ret = text ? strtod(text, &end) : 0;
    return text && *text && *end == '\0' && *ret >= 0 && *ret <= most;
}

/* Change one direction. Returns whether there is such a rule. */
static bool change(struct rules *r, const char *verb, double x, double y)
{
    if (strcmp(verb, "cut") == 0 || strcmp(verb, "drop") == 0)
        r->cut = true;
    else if (strcmp(verb, "heal") == 0)
        *r = (struct rules){0};
    else if (strcmp(verb, "lose") == 0)
        r->lose = x;
    else if (strcmp(verb, "double") == 0)
        r->twice = x;
    else if (strcmp(verb, "reorder") == 0)
        r->overtake = x;
    else if (strcmp(verb, "rate") == 0)
        r->rate = (uint64_t)(x * 1000);
    else if (strcmp(verb, "delay") == 0) {
        r->delay_ns = (uint64_t)(x * 1e6);
        r->jitter_ns = (uint64_t)(y * 1e6);
    } else
        return false;
    return true;
}

/* One rule, its words separated by spaces. dry: only say whether it is one. */
static bool apply(char *text, bool dry)
{
    char *words[6] = {0}, *rest = NULL;
    unsigned n = 0, from, from_last, to, to_last;
    for (char *s = strtok_r(text, " \n", &rest); s; s = strtok_r(NULL, " \n", &rest)) {
        if (n == 5)
            return false;
        words[n++] = s;
    }
    bool both = n && (strcmp(words[0], "cut") == 0 || strcmp(words[0], "heal") == 0);
    bool bare = n == 1 && strcmp(words[0], "heal") == 0;
    double x = 0, y = 0, most = n && (strcmp(words[0], "delay") == 0 || strcmp(words[0], "rate") == 0) ? 1e6 : 100;
    if (n == 0 || !read_nodes(bare ? "all" : words[1], &from, &from_last) ||
        !read_nodes(bare ? "all" : words[2], &to, &to_last))
        return false;
    if (n > 3 && (!read_number(words[3], most, &x) || (n > 4 && !read_number(words[4], most, &y))))
        return false;
    struct rules none = {0};
    bool takes_number = !both && strcmp(words[0], "drop") != 0;
    if (!change(&none, words[0], x, y) || (n > 3) != takes_number || (n > 4 && strcmp(words[0], "delay") != 0))
        return false;
    for (unsigned a = from; !dry && a <= from_last; a++)
        for (unsigned b = to; b <= to_last; b++) {
            change(&w.links[a][b].rules, words[0], x, y);
            if (both)
                change(&w.links[b][a].rules, words[0], x, y);
        }
    return true;
}

/* All or none. Returns the one that is no rule, or NULL. */
static const char *apply_all(const char *line)
{
    static char bad[LINE_MAX_];
    for (int dry = 1; dry >= 0; dry--) {
        char copy[LINE_MAX_], *rest = NULL;
        snprintf(copy, sizeof(copy), "%s", line);
        for (char *s = strtok_r(copy, ",\n", &rest); s; s = strtok_r(NULL, ",\n", &rest)) {
            snprintf(bad, sizeof(bad), "%s", s);
            if (!apply(s, dry))
                return bad;
        }
    }
    return NULL;
}

/* ---- who changes the wire ----------------------------------------------------------------------------------------------- */

static void say_counts(int fd)
{
    for (unsigned a = 1; a <= w.nodes; a++)
        for (unsigned b = 1; b <= w.nodes; b++) {
            const struct link *l = &w.links[a][b];
            if (a != b)
                dprintf(fd,
                        "%u>%u passed %" PRIu64 " bytes %" PRIu64 " cut %" PRIu64 " lost %" PRIu64 " doubled %" PRIu64
                        " reordered %" PRIu64 " full %" PRIu64 " waiting %u\n",
                        a, b, l->passed, l->bytes, l->cut, l->lost, l->twice, l->overtook, l->full, l->queued);
        }
}

static void say_space(int fd, const char *which)
{
    unsigned node, last;
    if (!read_nodes(which, &node, &last) || node != last) {
        dprintf(fd, "no such node: %s\n", which);
        return;
    }
    union {
        struct cmsghdr h;
        char space[CMSG_SPACE(sizeof(int))];
    } control = {0};
    char ok[] = "ok\n";
    struct iovec text = {ok, sizeof(ok) - 1};
    struct msghdr m = {.msg_iov = &text, .msg_iovlen = 1, .msg_control = &control, .msg_controllen = sizeof(control)};
    struct cmsghdr *c = CMSG_FIRSTHDR(&m);
    c->cmsg_level = SOL_SOCKET;
    c->cmsg_type = SCM_RIGHTS;
    c->cmsg_len = CMSG_LEN(sizeof(int));
    memcpy(CMSG_DATA(c), &w.spaces[node], sizeof(int));
    (void)sendmsg(fd, &m, MSG_NOSIGNAL);
}

/* One line, one answer; who is slow about it is not waited for. */
static void serve(void)
{
    char line[LINE_MAX_];
    struct timeval limit = {.tv_usec = 200000};
    int fd cleanup(closep) = accept4(w.control, NULL, NULL, SOCK_CLOEXEC);
    if (fd < 0 || setsockopt(fd, SOL_SOCKET, SO_RCVTIMEO, &limit, sizeof(limit)) < 0)
        return;
    ssize_t n = recv(fd, line, sizeof(line) - 1, 0);
    if (n <= 0)
        return;
    line[n] = '\0';
    line[strcspn(line, "\n")] = '\0';
    const char *bad = NULL;
    if (strcmp(line, "count") == 0)
        say_counts(fd);
    else if (strncmp(line, "enter ", 6) == 0)
        say_space(fd, line + 6);
    else if ((bad = apply_all(line)))
        dprintf(fd, "no such rule: %s\n", bad);
    else
        dprintf(fd, "ok %" PRIu64 "\n", clock_ns());
}

static int control_address(const char *path, struct sockaddr_un *ret)
{
    *ret = (struct sockaddr_un){.sun_family = AF_UNIX};
    if (strlen(path) >= sizeof(ret->sun_path)) {
        errno = ENAMETOOLONG;
        return fail(path);
    }
    snprintf(ret->sun_path, sizeof(ret->sun_path), "%s", path);
    return 0;
}

static int listen_at(const char *path)
{
    struct sockaddr_un a;
    if (control_address(path, &a) < 0)
        return -1;
    unlink(path);
    w.control = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);
    if (w.control < 0 || bind(w.control, (struct sockaddr *)&a, sizeof(a)) < 0 || listen(w.control, 16) < 0)
        return fail(path);
    return 0;
}

/* ---- commands ----------------------------------------------------------------------------------------------------------- */

static void on_signal(int number)
{
    stop = 1;
}

static void forward(void)
{
    struct pollfd fds[NODES_MAX + 1];
    for (unsigned i = 0; i <= w.nodes; i++)
        fds[i] = (struct pollfd){.fd = i ? w.tuns[i] : w.control, .events = POLLIN};
    while (!stop) {
        struct timespec wait, *limit = NULL;
        uint64_t now = clock_ns();
        deliver_due(now);
        if (w.count) {
            uint64_t ns = w.heap[0]->due_ns - now;
            wait = (struct timespec){(time_t)(ns / NS_PER_S), (long)(ns % NS_PER_S)};
            limit = &wait;
        }
        if (ppoll(fds, w.nodes + 1, limit, NULL) <= 0)
            continue;
        for (unsigned i = 1; i <= w.nodes; i++)
            if (fds[i].revents)
                take_from(i);
        if (fds[0].revents)
            serve();
    }
}

static int up(const char *path, int argc, char **argv)
{
    int mtu = 1500;
    unsigned nodes = argc > 0 ? (unsigned)atoi(argv[0]) : 0;
    w.prng.state = 1;
    for (int i = 1; i + 1 < argc; i += 2) {
        if (strcmp(argv[i], "--seed") == 0)
            w.prng.state = strtoull(argv[i + 1], NULL, 10);
        else if (strcmp(argv[i], "--mtu") == 0)
            mtu = atoi(argv[i + 1]);
        else
            nodes = 0;
    }
    if (nodes < 1 || nodes > NODES_MAX || mtu < 576 || mtu > PACKET_MAX)
        return 2;
    struct sigaction end = {.sa_handler = on_signal}; /* no SA_RESTART: ppoll() is to return */
    sigaction(SIGTERM, &end, NULL);
    sigaction(SIGINT, &end, NULL);
    signal(SIGPIPE, SIG_IGN);
    prctl(PR_SET_PDEATHSIG, SIGTERM);
    if (make_networks(nodes, mtu) < 0 || listen_at(path) < 0)
        return 1;
    printf("up\n");
    fflush(stdout);
    forward();
    unlink(path);
    return 0;
}

static int ask(const char *path, const char *line)
{
    struct sockaddr_un a;
    int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);
    if (fd < 0 || control_address(path, &a) < 0 || connect(fd, (struct sockaddr *)&a, sizeof(a)) < 0 ||
        send(fd, line, strlen(line), MSG_NOSIGNAL) < 0) {
        fail(path);
        return close_fd(fd);
    }
    return fd;
}

static int exec_in(const char *path, char **argv)
{
    char line[64], text[256];
    union {
        struct cmsghdr h;
        char space[CMSG_SPACE(sizeof(int))];
    } control = {0};
    struct iovec in = {text, sizeof(text) - 1};
    struct msghdr m = {.msg_iov = &in, .msg_iovlen = 1, .msg_control = &control, .msg_controllen = sizeof(control)};
    snprintf(line, sizeof(line), "enter %s\n", argv[0]);
    int fd cleanup(closep) = ask(path, line), space cleanup(closep) = -1;
    if (fd < 0)
        return 1;
    ssize_t n = recvmsg(fd, &m, MSG_CMSG_CLOEXEC);
    const struct cmsghdr *c = CMSG_FIRSTHDR(&m);
    if (n <= 0 || !c) {
        fprintf(stderr, "cv-wire: %.*s", (int)max(n, (ssize_t)0), text);
        return 1;
    }
    memcpy(&space, CMSG_DATA(c), sizeof(int));
    if (setns(space, CLONE_NEWNET) < 0) {
        fail("setns");
        return 1;
    }
    execvp(argv[1], argv + 1);
    fail(argv[1]);
    return 127;
}

static int tell(const char *path, int argc, char **argv)
{
    char line[LINE_MAX_] = "", answer[LINE_MAX_];
    for (int i = 0; i < argc; i++) {
        size_t n = strlen(line);
        snprintf(line + n, sizeof(line) - n, "%s%s", n ? " " : "", argv[i]);
    }
    int fd cleanup(closep) = ask(path, line);
    bool ok = false, first = true;
    for (ssize_t n; fd >= 0 && (n = recv(fd, answer, sizeof(answer), 0)) > 0; first = false) {
        if (first)
            ok = strncmp(answer, "no such", 7) != 0;
        fwrite(answer, 1, (size_t)n, ok ? stdout : stderr);
    }
    return ok ? 0 : 1;
}

int main(int argc, char **argv)
{
    int r = 2;
    if (argc >= 4 && strcmp(argv[2], "up") == 0)
        r = up(argv[1], argc - 3, argv + 3);
    else if (argc >= 5 && strcmp(argv[2], "exec") == 0)
        r = exec_in(argv[1], argv + 3);
    else if (argc >= 3 && strcmp(argv[2], "up") != 0 && strcmp(argv[2], "exec") != 0)
        r = tell(argv[1], argc - 2, argv + 2);
    if (r == 2)
        fprintf(stderr, "usage: see the top of cv_wire.c\n");
    return r;
}
