/* SPDX-License-Identifier: Apache-2.0 */
/*
 * HTTP requests on an event loop: libcurl's multi interface driven by the loop's watches and timers, connections kept and
 * reused. One attempt a request: retries and meaning belong to the caller. Owner: the loop.
 */
#pragma once

#include <stdbool.h>
#include <stdint.h>

#include "base/text.h"
#include "io/loop.h"

struct ufs_http; /* a pool of connections */

/* connections: to one host at most. Errors: -ENOMEM. */
int ufs_http_new(struct loop *loop, unsigned connections, struct ufs_http **ret);

/* No request may be running; closed runs on the loop when the last socket is gone. */
void ufs_http_close(struct ufs_http *h, void (*closed)(void *arg), void *arg);

#define HTTP_HEADERS_MAX 16

/* Embedded in what it serves. Zero it, fill the input, start it. */
struct ufs_http_request {
    /* Input: must stay until done. */
    const char *method; /* "GET", "HEAD", "PUT", "DELETE", "POST" */
    const char *url;
    const char *headers[HTTP_HEADERS_MAX]; /* "Name: value" */
    unsigned header_count;
    uint32_t timeout_ms; /* for all of it; 0: only connecting and stalling are bounded (10 s, 30 s) */
    int body_fd;         /* PUT: body_size bytes from body_offset of it; -1: none */
    uint64_t body_offset, body_size;
    /* A piece of the body of a successful (2xx) answer; a negative result ends the request with it. */
    int (*piece)(struct ufs_http_request *q, const void *p, size_t n);
    void (*done)(struct ufs_http_request *q); /* once, on the loop, not from inside ufs_http_start */

    /* Results. */
    int result;          /* 0: there was an answer (any status); -ECANCELED; what piece() returned; -CV_UNREACHABLE */
    int status;          /* HTTP status */
    bool connected;      /* the server was reached */
    char error[160];     /* result != 0: what went wrong */
    char etag[72];       /* without quotes */
    uint64_t mtime_ns;   /* Last-Modified, 0: none */
    int64_t length;      /* Content-Length, -1: none */
    int64_t range_start; /* Content-Range of 206, -1: none */
    int64_t range_total; /* bytes of the object by Content-Range (206, 416), -1: it does not say */
    uint32_t retry_after_ms;
    char region[40]; /* x-amz-bucket-region */
    struct buf text; /* start of the body of an answer that is no success; freed after done */

    /* Private. */
    struct ufs_http *http;
    void *easy, *header_list;
    uint8_t *body_piece;
    size_t body_n, body_at;
    uint64_t body_left;
    bool reading, paused, finished;
    bool cancelled; /* job is on its way: the request must not end before it arrives */
    struct io_op io;
    struct loop_job job;
    struct list link;
};

void ufs_http_start(struct ufs_http *h, struct ufs_http_request *q);

/* done runs later, with -ECANCELED unless the request was faster. */
void ufs_http_cancel(struct ufs_http_request *q);
