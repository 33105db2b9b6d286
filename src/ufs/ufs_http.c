/* SPDX-License-Identifier: Apache-2.0 */
/*
 * How libcurl and the loop fit together: libcurl says which sockets it wants watched (socket_function) and when it wants
 * to be called again (timer_function); we tell it what became ready (curl_multi_socket_action) and then collect requests
 * that ended. Bodies to send are read from their file by the loop's own reads: libcurl is paused while a piece comes.
 */
#include "ufs/ufs_http.h"

#include <assert.h>
#include <curl/curl.h>
#include <poll.h>
#include <pthread.h>
#include <stdio.h>
#include <strings.h>

#include "base/cleanup.h"
#include "base/clock.h"
#include "base/error.h"

#define BODY_PIECE     (256u << 10)
#define ERROR_TEXT_MAX 4096

struct ufs_http {
    struct loop *loop;
    CURLM *multi;
    struct loop_timer timer;
    struct list requests; /* running */
    uint32_t watches;     /* sockets watched, or their watch still stopping */
    bool closing;
    void (*closed)(void *arg);
    void *closed_arg;
    struct loop_job close_job;
};

struct ufs_http_watch {
    struct io_watch watch;
    struct ufs_http *http;
};

static void collect(struct ufs_http *h);

static void act(struct ufs_http *h, curl_socket_t s, int what)
{
    int running;
    curl_multi_socket_action(h->multi, s, what, &running);
    collect(h);
}

static void on_ready(struct io_watch *watch, uint32_t events)
{
    struct ufs_http_watch *w = container_of(watch, struct ufs_http_watch, watch);
    int what = (events & POLLIN ? CURL_CSELECT_IN : 0) | (events & POLLOUT ? CURL_CSELECT_OUT : 0);
    if (events & (POLLERR | POLLHUP))
        what |= CURL_CSELECT_IN | CURL_CSELECT_OUT;
    act(w->http, watch->fd, what);
}

static void free_now(struct loop_job *job)
{
    struct ufs_http *h = container_of(job, struct ufs_http, close_job);
    void (*closed)(void *) = h->closed;
    void *arg = h->closed_arg;
    free(h);
    if (closed)
        closed(arg);
}

static void free_when_quiet(struct ufs_http *h)
{
    if (h->closing && !h->multi && h->watches == 0) {
        h->close_job.run = free_now;
        loop_post(h->loop, &h->close_job);
    }
}

static void on_watch_stopped(struct io_watch *watch)
{
    struct ufs_http_watch *w = container_of(watch, struct ufs_http_watch, watch);
    struct ufs_http *h = w->http;
    free(w);
    h->watches--;
    free_when_quiet(h);
}

static int socket_function(CURL *easy, curl_socket_t s, int what, void *user, void *socket_data)
{
    struct ufs_http *h = user;
    struct ufs_http_watch *w = socket_data;
    if (what == CURL_POLL_REMOVE) {
        if (w)
            io_watch_stop(&w->watch, on_watch_stopped);
        return 0;
    }
    uint32_t events = (what & CURL_POLL_IN ? POLLIN : 0) | (what & CURL_POLL_OUT ? POLLOUT : 0);
    if (w) {
        io_watch_change(&w->watch, events);
        return 0;
    }
    w = calloc(1, sizeof(*w));
    if (!w)
        return -1;
    w->http = h;
    h->watches++;
    curl_multi_assign(h->multi, s, w);
    io_watch_start(h->loop, &w->watch, s, events, on_ready);
    return 0;
}

static void on_timer(struct loop_timer *timer)
{
    act(container_of(timer, struct ufs_http, timer), CURL_SOCKET_TIMEOUT, 0);
}

static int timer_function(CURLM *multi, long timeout_ms, void *user)
{
    struct ufs_http *h = user;
    if (timeout_ms < 0)
        loop_timer_stop(h->loop, &h->timer);
    else
        loop_timer_start(h->loop, &h->timer, clock_ns() + (uint64_t)timeout_ms * NS_PER_MS);
    return 0;
}

static void global_init(void)
{
    curl_global_init(CURL_GLOBAL_DEFAULT);
}

int ufs_http_new(struct loop *loop, unsigned connections, struct ufs_http **ret)
{
    static pthread_once_t once = PTHREAD_ONCE_INIT;
    pthread_once(&once, global_init);
    struct ufs_http *h = calloc(1, sizeof(*h));
    if (!h)
        return -ENOMEM;
    h->multi = curl_multi_init();
    if (!h->multi) {
        free(h);
        return -ENOMEM;
    }
    h->loop = loop;
    list_init(&h->requests);
    loop_timer_init(&h->timer, on_timer);
    curl_multi_setopt(h->multi, CURLMOPT_SOCKETFUNCTION, socket_function);
    curl_multi_setopt(h->multi, CURLMOPT_SOCKETDATA, h);
    curl_multi_setopt(h->multi, CURLMOPT_TIMERFUNCTION, timer_function);
    curl_multi_setopt(h->multi, CURLMOPT_TIMERDATA, h);
    curl_multi_setopt(h->multi, CURLMOPT_MAX_HOST_CONNECTIONS, (long)connections);
    curl_multi_setopt(h->multi, CURLMOPT_MAXCONNECTS, (long)connections);
    *ret = h;
    return 0;
}

void ufs_http_close(struct ufs_http *h, void (*closed)(void *arg), void *arg)
{
    assert(list_empty(&h->requests));
    h->closing = true;
    h->closed = closed;
    h->closed_arg = arg;
    curl_multi_cleanup(h->multi); /* asks to stop the watches of idle connections */
    h->multi = NULL;
    loop_timer_stop(h->loop, &h->timer);
    free_when_quiet(h);
}

/* ---- callbacks of one request ----------------------------------------------------------------------------------------- */

static bool header_value(const char *line, size_t n, const char *name, struct text *ret)
{
    size_t k = strlen(name);
    if (n <= k || strncasecmp(line, name, k) != 0 || line[k] != ':')
        return false;
    const char *p = line + k + 1, *end = line + n;
    while (p < end && (*p == ' ' || *p == '"'))
        p++;
    while (end > p && (end[-1] == '\r' || end[-1] == '\n' || end[-1] == '"' || end[-1] == ' '))
        end--;
    *ret = (struct text){p, (uint32_t)(end - p)};
    return true;
}

static void copy_text(char *to, size_t size, struct text from)
{
    snprintf(to, size, TEXT_FMT, TEXT_ARG(from));
}

static size_t on_header(char *line, size_t size, size_t count, void *user)
{
    struct ufs_http_request *q = user;
    size_t n = size * count;
    struct text v;
    char number[64];
    if (n > 5 && strncasecmp(line, "HTTP/", 5) == 0) { /* a new answer: forget the 100 Continue before it */
        q->etag[0] = '\0';
        q->mtime_ns = 0;
        q->length = q->range_start = q->range_total = -1;
        q->connected = true;
    } else if (header_value(line, n, "etag", &v)) {
        if (v.n > 2 && v.p[0] == 'W' && v.p[1] == '/')
            v = (struct text){v.p + 2 + (v.p[2] == '"'), v.n - 2 - (v.p[2] == '"')};
        copy_text(q->etag, sizeof(q->etag), v);
    } else if (header_value(line, n, "last-modified", &v)) {
        copy_text(number, sizeof(number), v);
        time_t t = curl_getdate(number, NULL);
        q->mtime_ns = t > 0 ? (uint64_t)t * NS_PER_S : 0;
    } else if (header_value(line, n, "content-length", &v)) {
        copy_text(number, sizeof(number), v);
        q->length = strtoll(number, NULL, 10);
    } else if (header_value(line, n, "content-range", &v)) {
        copy_text(number, sizeof(number), v);
        unsigned long long start, total;
        const char *slash = strchr(number, '/');
        if (sscanf(number, "bytes %llu-", &start) == 1)
            q->range_start = (int64_t)start;
        if (slash && sscanf(slash, "/%llu", &total) == 1)
            q->range_total = (int64_t)total;
    } else if (header_value(line, n, "retry-after", &v)) {
        copy_text(number, sizeof(number), v);
        q->retry_after_ms = (uint32_t)min(strtoul(number, NULL, 10), 3600ul) * 1000;
    } else if (header_value(line, n, "x-amz-bucket-region", &v)) {
        copy_text(q->region, sizeof(q->region), v);
    }
    return n;
}

static size_t on_body(char *p, size_t size, size_t count, void *user)
{
    struct ufs_http_request *q = user;
    size_t n = size * count;
    long status = 0;
    curl_easy_getinfo(q->easy, CURLINFO_RESPONSE_CODE, &status);
    if (status / 100 != 2) { /* an error's explanation */
        size_t room = ERROR_TEXT_MAX - min(q->text.n, (size_t)ERROR_TEXT_MAX);
        buf_append(&q->text, p, min(n, room));
        return n;
    }
    q->status = (int)status;
    int r = q->piece ? q->piece(q, p, n) : 0;
    if (r < 0) {
        q->result = r;
        return 0; /* libcurl ends the transfer */
    }
    return n;
}

static void body_read_done(struct io_op *io, int result);

static void finish_if_quiet(struct ufs_http_request *q)
{
    if (!q->finished || q->reading || q->cancelled)
        return;
    list_remove(&q->link);
    curl_slist_free_all(q->header_list);
    curl_easy_cleanup(q->easy);
    free(q->body_piece);
    q->easy = q->header_list = NULL;
    q->body_piece = NULL;
    struct buf text = q->text;
    q->done(q);
    buf_fini(&text);
}

static size_t on_send(char *p, size_t size, size_t count, void *user)
{
    struct ufs_http_request *q = user;
    size_t n = min(size * count, q->body_n - q->body_at);
    if (n) {
        memcpy(p, q->body_piece + q->body_at, n);
        q->body_at += n;
        return n;
    }
    if (q->body_left == 0)
        return 0;
    if (!q->reading) {
        q->reading = true;
        io_read(q->http->loop, &q->io, q->body_fd, q->body_piece, min(q->body_left, (uint64_t)BODY_PIECE),
                q->body_offset, body_read_done);
    }
    q->paused = true;
    return CURL_READFUNC_PAUSE;
}

static void end_request(struct ufs_http_request *q, int result)
{
    if (q->finished)
        return;
    q->finished = true;
    if (result < 0 && q->result == 0)
        q->result = result;
    curl_multi_remove_handle(q->http->multi, q->easy);
    finish_if_quiet(q);
}

static void body_read_done(struct io_op *io, int result)
{
    struct ufs_http_request *q = container_of(io, struct ufs_http_request, io);
    q->reading = false;
    if (q->finished) {
        finish_if_quiet(q);
        return;
    }
    if (result <= 0) {
        snprintf(q->error, sizeof(q->error), "reading what to send: %s",
                 result ? cv_error_text(result) : "file too short");
        end_request(q, result ? result : -EIO);
        return;
    }
    q->body_n = (size_t)result;
    q->body_at = 0;
    q->body_left -= (uint64_t)result;
    q->body_offset += (uint64_t)result;
    if (q->paused) {
        q->paused = false;
        struct ufs_http *h = q->http;
        curl_easy_pause(q->easy, CURLPAUSE_CONT); /* may call on_send again from inside */
        collect(h);
    }
}

static int result_of(struct ufs_http_request *q, CURLcode code)
{
    long status = 0;
    curl_easy_getinfo(q->easy, CURLINFO_RESPONSE_CODE, &status);
    q->status = (int)status;
    if (code == CURLE_OK || q->result < 0)
        return q->result;
    snprintf(q->error, sizeof(q->error), "%s", curl_easy_strerror(code));
    switch (code) {
    case CURLE_OUT_OF_MEMORY: return -ENOMEM;
    case CURLE_OPERATION_TIMEDOUT: return -CV_DEADLINE;
    default: return -CV_UNREACHABLE;
    }
}

static void collect(struct ufs_http *h)
{
    int left;
    for (CURLMsg *m; h->multi && (m = curl_multi_info_read(h->multi, &left));) {
        if (m->msg != CURLMSG_DONE)
            continue;
        struct ufs_http_request *q;
        curl_easy_getinfo(m->easy_handle, CURLINFO_PRIVATE, (char **)&q);
        end_request(q, result_of(q, m->data.result));
    }
}

/* ---- start and cancel -------------------------------------------------------------------------------------------------- */

static void fail_later(struct loop_job *job)
{
    struct ufs_http_request *q = container_of(job, struct ufs_http_request, job);
    q->finished = true;
    finish_if_quiet(q);
}

static bool set_up(struct ufs_http_request *q)
{
    CURL *e = q->easy = curl_easy_init();
    if (!e)
        return false;
    struct curl_slist *list = NULL;
    for (unsigned i = 0; i < q->header_count; i++) {
        struct curl_slist *longer = curl_slist_append(list, q->headers[i]);
        if (!longer) {
            curl_slist_free_all(list);
            return false;
        }
        list = longer;
    }
    q->header_list = list;
    curl_easy_setopt(e, CURLOPT_URL, q->url);
    curl_easy_setopt(e, CURLOPT_PATH_AS_IS, 1L); /* keys may hold "..": as they were signed */
    curl_easy_setopt(e, CURLOPT_HTTPHEADER, list);
    curl_easy_setopt(e, CURLOPT_PRIVATE, q);
    curl_easy_setopt(e, CURLOPT_NOSIGNAL, 1L);
    curl_easy_setopt(e, CURLOPT_NOPROXY, "127.0.0.1,localhost,::1");
    curl_easy_setopt(e, CURLOPT_BUFFERSIZE, 512L << 10);
    curl_easy_setopt(e, CURLOPT_TCP_KEEPALIVE, 1L);
    curl_easy_setopt(e, CURLOPT_CONNECTTIMEOUT_MS, 10000L);
    curl_easy_setopt(e, CURLOPT_LOW_SPEED_LIMIT, 1L);
    curl_easy_setopt(e, CURLOPT_LOW_SPEED_TIME, 30L);
    if (q->timeout_ms)
        curl_easy_setopt(e, CURLOPT_TIMEOUT_MS, (long)q->timeout_ms);
    curl_easy_setopt(e, CURLOPT_HEADERFUNCTION, on_header);
    curl_easy_setopt(e, CURLOPT_HEADERDATA, q);
    curl_easy_setopt(e, CURLOPT_WRITEFUNCTION, on_body);
    curl_easy_setopt(e, CURLOPT_WRITEDATA, q);
    if (strcmp(q->method, "HEAD") == 0) {
        curl_easy_setopt(e, CURLOPT_NOBODY, 1L);
    } else if (strcmp(q->method, "PUT") == 0) {
        if (!(q->body_piece = malloc(BODY_PIECE)))
            return false;
        curl_easy_setopt(e, CURLOPT_UPLOAD, 1L);
        curl_easy_setopt(e, CURLOPT_READFUNCTION, on_send);
        curl_easy_setopt(e, CURLOPT_READDATA, q);
        curl_easy_setopt(e, CURLOPT_INFILESIZE_LARGE, (curl_off_t)q->body_size);
        curl_easy_setopt(e, CURLOPT_EXPECT_100_TIMEOUT_MS, 1000L);
    } else if (strcmp(q->method, "GET") != 0) {
        curl_easy_setopt(e, CURLOPT_CUSTOMREQUEST, q->method);
    }
    return true;
}

void ufs_http_start(struct ufs_http *h, struct ufs_http_request *q)
{
    assert_on_loop(h->loop);
    q->http = h;
    q->result = q->status = 0;
    q->connected = q->reading = q->paused = q->finished = q->cancelled = false;
    q->error[0] = q->etag[0] = q->region[0] = '\0';
    q->mtime_ns = 0;
    q->length = q->range_start = q->range_total = -1;
    q->retry_after_ms = 0;
    q->text = (struct buf){0};
    q->body_left = q->body_size;
    q->body_n = q->body_at = 0;
    q->body_piece = NULL;
    q->easy = q->header_list = NULL;
    list_push_back(&h->requests, &q->link);
    if (!set_up(q) || curl_multi_add_handle(h->multi, q->easy) != CURLM_OK) {
        q->result = -ENOMEM;
        q->job.run = fail_later;
        loop_post(h->loop, &q->job);
    }
}

static void cancel_later(struct loop_job *job)
{
    struct ufs_http_request *q = container_of(job, struct ufs_http_request, job);
    q->cancelled = false;
    if (q->finished)
        finish_if_quiet(q);
    else
        end_request(q, -ECANCELED);
}

void ufs_http_cancel(struct ufs_http_request *q)
{
    if (q->cancelled || q->finished || q->result)
        return;
    q->cancelled = true;
    q->job.run = cancel_later; /* not from inside a callback of libcurl, which must not lose its handle there */
    loop_post(q->http->loop, &q->job);
}
