/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The read-only HTTP port of a daemon: a table of pages, served by one thread of libmicrohttpd beside everything
 * else. GET and HEAD only, nothing is changed by any request; bounded connections, which time out. Loopback unless the
 * configuration says otherwise: there is no authentication.
 */
#pragma once

#include <stdint.h>

#include "base/cleanup.h"
#include "base/text.h"

#define HTTP_CONNECTIONS_MAX 64
#define HTTP_IDLE_SECONDS    10

struct http_page {
    const char *path; /* "/metrics" */
    const char *type; /* "text/plain; charset=utf-8" */
    /* Append the page to out; on the HTTP thread. Returns the HTTP status, or a negative code (answered 500). */
    int (*write)(void *arg, struct buf *out);
    void *arg;
};

struct http;

/* Serve pages (n, borrowed until http_stop()) on address listen ("127.0.0.1", "::1", "0.0.0.0", a host name) and port
 * (0: any free one). Errors: -EADDRINUSE; -EADDRNOTAVAIL no address of this host; other errno of socket and bind. */
int http_start(const char *listen, uint16_t port, const struct http_page *pages, uint32_t n, struct http **ret);

/* Waits for requests under way. */
struct http *http_stop(struct http *h);
DEFINE_CLEANUP(struct http *, http_stop)

/* The port it listens on. */
uint16_t http_port(const struct http *h);
