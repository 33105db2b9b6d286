/* SPDX-License-Identifier: Apache-2.0 */
#include "conf/http.h"

#include <arpa/inet.h>
#include <errno.h>
#include <microhttpd.h>
#include <netdb.h>
#include <stdio.h>
#include <sys/socket.h>

#include "base/error.h"

#define TEXT_TYPE "text/plain; charset=utf-8"

struct http {
    struct MHD_Daemon *daemon;
    const struct http_page *pages;
    uint32_t n;
    uint16_t port;
};

static enum MHD_Result answer(struct MHD_Connection *connection, unsigned status, const char *type, struct buf *body)
{
    struct MHD_Response *response = MHD_create_response_from_buffer(body->n, body->p, MHD_RESPMEM_MUST_FREE);
    if (!response)
        return MHD_NO;       /* drops the connection; the body is freed by our caller */
    *body = (struct buf){0}; /* the response's now */
    MHD_add_response_header(response, "Content-Type", type);
    MHD_add_response_header(response, "Cache-Control", "no-store");
    MHD_add_response_header(response, "X-Content-Type-Options", "nosniff");
    if (status == MHD_HTTP_METHOD_NOT_ALLOWED)
        MHD_add_response_header(response, "Allow", "GET, HEAD");
    enum MHD_Result result = MHD_queue_response(connection, status, response);
    MHD_destroy_response(response);
    return result;
}

/* "/" and "not found" say what there is. */
static int list_pages(const struct http *h, struct buf *out)
{
    int r = 0;
    for (uint32_t i = 0; r == 0 && i < h->n; i++)
        r = buf_printf(out, "%s\n", h->pages[i].path);
    return r;
}

static enum MHD_Result on_request(void *arg, struct MHD_Connection *connection, const char *url, const char *method,
                                  const char *version, const char *upload, size_t *upload_size, void **request)
{
    const struct http *h = arg;
    static int seen; /* its address marks a request whose headers are known */
    if (!*request) {
        *request = &seen; /* first call: the body, if there is one, has not been read */
        return MHD_YES;
    }
    if (*upload_size) { /* a body: read past it, so that the refusal arrives */
        *upload_size = 0;
        return MHD_YES;
    }

    struct buf body cleanup(buf_fini) = {0};
    if (strcmp(method, MHD_HTTP_METHOD_GET) != 0 && strcmp(method, MHD_HTTP_METHOD_HEAD) != 0) {
        (void)buf_printf(&body, "read-only: GET and HEAD\n");
        return answer(connection, MHD_HTTP_METHOD_NOT_ALLOWED, TEXT_TYPE, &body);
    }
    for (uint32_t i = 0; i < h->n; i++) {
        if (strcmp(url, h->pages[i].path) != 0)
            continue;
        int r = h->pages[i].write(h->pages[i].arg, &body);
        if (r > 0)
            return answer(connection, (unsigned)r, h->pages[i].type, &body);
        body.n = 0;
        (void)buf_printf(&body, "%s\n", cv_error_text(r));
        return answer(connection, MHD_HTTP_INTERNAL_SERVER_ERROR, TEXT_TYPE, &body);
    }
    (void)list_pages(h, &body);
    return answer(connection, strcmp(url, "/") == 0 ? MHD_HTTP_OK : MHD_HTTP_NOT_FOUND, TEXT_TYPE, &body);
}

/* libmicrohttpd would bind itself, but cannot say why it failed. */
static int listen_on(const char *address, uint16_t port, int *ret_fd, uint16_t *ret_port)
{
    char service[8];
    snprintf(service, sizeof(service), "%u", port);
    struct addrinfo hints = {.ai_socktype = SOCK_STREAM, .ai_flags = AI_PASSIVE | AI_NUMERICSERV}, *found;
    if (getaddrinfo(address, service, &hints, &found) != 0)
        return -EADDRNOTAVAIL;
    int r = -EADDRNOTAVAIL;
    for (struct addrinfo *a = found; a && r < 0; a = a->ai_next) {
        int fd cleanup(closep) = socket(a->ai_family, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
        int on = 1;
        union {
            struct sockaddr any;
            struct sockaddr_in v4;
            struct sockaddr_in6 v6;
        } bound = {0};
        socklen_t size = sizeof(bound);
        if (fd < 0 || setsockopt(fd, SOL_SOCKET, SO_REUSEADDR, &on, sizeof(on)) < 0 ||
            bind(fd, a->ai_addr, a->ai_addrlen) < 0 || listen(fd, HTTP_CONNECTIONS_MAX) < 0 ||
            getsockname(fd, &bound.any, &size) < 0) {
            r = -errno;
            continue;
        }
        *ret_port = ntohs(bound.any.sa_family == AF_INET6 ? bound.v6.sin6_port : bound.v4.sin_port);
        *ret_fd = take_fd(fd);
        r = 0;
    }
    freeaddrinfo(found);
    return r;
}

int http_start(const char *address, uint16_t port, const struct http_page *pages, uint32_t n, struct http **ret)
{
    struct http *h cleanup(http_stop_p) = calloc(1, sizeof(*h));
    if (!h)
        return -ENOMEM;
    h->pages = pages;
    h->n = n;
    int fd cleanup(closep) = -1;
    int r = listen_on(address, port, &fd, &h->port);
    if (r < 0)
        return r;
    errno = 0;
    h->daemon = MHD_start_daemon(MHD_USE_EPOLL | MHD_USE_INTERNAL_POLLING_THREAD, 0, NULL, NULL, on_request, h,
                                 MHD_OPTION_LISTEN_SOCKET, fd, MHD_OPTION_CONNECTION_LIMIT, HTTP_CONNECTIONS_MAX,
                                 MHD_OPTION_CONNECTION_TIMEOUT, HTTP_IDLE_SECONDS, MHD_OPTION_CONNECTION_MEMORY_LIMIT,
                                 (size_t)16384, MHD_OPTION_END);
    if (!h->daemon)
        return errno ? -errno : -EIO;
    (void)take_fd(fd); /* MHD_stop_daemon() closes it */
    *ret = take(h);
    return 0;
}

struct http *http_stop(struct http *h)
{
    if (!h)
        return NULL;
    if (h->daemon)
        MHD_stop_daemon(h->daemon);
    free(h);
    return NULL;
}

uint16_t http_port(const struct http *h)
{
    return h->port;
}
