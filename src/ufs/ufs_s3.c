/* SPDX-License-Identifier: Apache-2.0 */
/*
 * s3://bucket/prefix: Amazon S3 and what speaks its protocol. An operation is one s3_job: it builds, signs and sends a
 * request, looks at the answer, and either ends the operation, sends it again after a pause, or sends the next one (pages
 * of a listing, the LIST behind a HEAD that found nothing, the GET of one byte behind a HEAD that did not say how long the
 * object is). A GET that broke goes on from the byte it had reached, tied to the same object by If-Match; one that brings
 * more than was asked for is stopped.
 */
#include <assert.h>
#include <openssl/evp.h>
#include <stdarg.h>
#include <stdio.h>
#include <strings.h>

#include "base/cleanup.h"
#include "base/clock.h"
#include "base/error.h"
#include "base/log.h"
#include "base/random.h"
#include "ufs/ufs_http.h"
#include "ufs/ufs_impl.h"
#include "ufs/ufs_s3_list.h"
#include "ufs/ufs_s3_sign.h"

#define PAGE_KEYS      1000
#define ATTEMPTS_MAX   8  /* of an operation without a deadline */
#define BACKOFF_MS     50 /* doubled each time, with full jitter */
#define BACKOFF_MAX_MS 10000
#define HEADER_MAX     640
#define HASH_PIECE     (256u << 10)

struct s3 {
    struct ufs_http *http;
    char *bucket, *base, *host; /* base: scheme://host[:port], what URLs begin with; host: as signed */
    char *token_header;         /* NULL without a token */
    bool virtual_style, https;
    struct s3_credentials credentials;
    struct prng jitter;
};

enum s3_kind { S3_CHECK, S3_STAT, S3_STAT_LIST, S3_STAT_RANGE, S3_LIST, S3_GET, S3_PUT, S3_DELETE };

static const struct {
    const char *method;
    enum ufs_verb verb;
} kinds[] = {
    [S3_STAT_RANGE] = {"GET", UFS_GET}, [S3_CHECK] = {"GET", UFS_LIST},       [S3_STAT] = {"HEAD", UFS_HEAD},
    [S3_STAT_LIST] = {"GET", UFS_LIST}, [S3_LIST] = {"GET", UFS_LIST},        [S3_GET] = {"GET", UFS_GET},
    [S3_PUT] = {"PUT", UFS_PUT},        [S3_DELETE] = {"DELETE", UFS_DELETE},
};

struct s3_job {
    struct ufs_op *op;
    enum s3_kind kind;
    char *key; /* whole key in the bucket; of listings the prefix */
    size_t key_n;
    bool cancelled, in_flight, waiting, hashing;
    bool range_seen; /* the answer's range was compared with what was asked for */
    unsigned attempts;
    struct loop_timer timer;
    struct loop_job failure; /* ends an operation that could not start, on a later turn */
    struct ufs_http_request http;
    struct buf url;
    char headers[8][HEADER_MAX];
    /* get, put */
    char if_match[80];     /* etag the object must have; "" any */
    bool if_none;          /* put: there must be none */
    uint64_t offset, left; /* get: what is still wanted; put: the source */
    uint64_t size;         /* of the object when it was identified, UINT64_MAX unknown */
    int fd;
    char payload_hash[65];
    struct io_op io;
    /* list */
    struct s3_page *page;
    char *after, *token;
    uint32_t max, given;
    bool recursive;
};

static struct s3 *s3_of(const struct s3_job *j)
{
    return j->op->ufs->impl;
}

static void job_send(struct s3_job *j);

/* ---- ending ------------------------------------------------------------------------------------------------------------ */

static void job_free(struct s3_job *j)
{
    loop_timer_stop(j->op->ufs->loop, &j->timer);
    s3_page_free(j->page);
    buf_fini(&j->url);
    free(j->key);
    free(j->after);
    free(j->token);
    free(j);
}

static void job_end(struct s3_job *j, int result)
{
    assert(!j->in_flight && !j->hashing);
    struct ufs_op *op = j->op;
    job_free(j);
    ufs_finish(op, result);
}

/* What to do about an error S3 names. */
static const struct {
    const char *code, *advice;
} advices[] = {
    {"SignatureDoesNotMatch", "check secret_key"},
    {"InvalidAccessKeyId", "check access_key"},
    {"InvalidToken", "check session_token"},
    {"ExpiredToken", "the session_token has expired: get new credentials"},
    {"AuthorizationHeaderMalformed", "check region"},
    {"PermanentRedirect", "check region and endpoint: the bucket lives elsewhere"},
    {"IllegalLocationConstraintException", "check region"},
    {"NoSuchBucket", "check the bucket's name, or create it"},
    {"InvalidBucketName", "check the bucket's name"},
    {"AccessDenied", "the credentials may not do this: check the policy, or give access_key and secret_key"},
    {"RequestTimeTooSkewed", "set this host's clock"},
    {"SlowDown", "the service limits the rate of requests: it was tried again until the deadline"},
};

static void explain(struct s3_job *j, const char *code, const char *text)
{
    struct ufs_op *op = j->op;
    const struct ufs_http_request *q = &j->http;
    const char *advice = "";
    for (size_t i = 0; i < array_size(advices); i++)
        if (strcmp(advices[i].code, code) == 0)
            advice = advices[i].advice;
    if (!*advice && q->status == 403)
        advice = "check access_key, secret_key, region and the policy";
    else if (!*advice && q->status == 301)
        advice = "check region and endpoint: the bucket lives elsewhere";
    else if (!*advice && q->result == -CV_UNREACHABLE && !q->connected)
        advice = "check endpoint and that the service runs";
    char what[HEADER_MAX];
    if (q->result < 0)
        snprintf(what, sizeof(what), "%s", *q->error ? q->error : cv_error_text(q->result));
    else
        snprintf(what, sizeof(what), "%d%s%s%s%s", q->status, *code ? " " : "", code, *text ? ": " : "", text);
    snprintf(op->message, sizeof(op->message), "%s %.130s: %.170s%s%.80s", kinds[j->kind].method, q->url, what,
             *advice ? ": " : "", advice);
}

/* ---- again? -------------------------------------------------------------------------------------------------------------- */

static bool worth_retrying(const struct s3_job *j, const char *code)
{
    const struct ufs_http_request *q = &j->http;
    if (q->result == -CV_UNREACHABLE || q->result == -CV_DEADLINE)
        return true;
    if (q->result < 0)
        return false;
    return q->status == 429 || q->status == 500 || q->status == 502 || q->status == 503 || q->status == 504 ||
           (q->status == 400 && strcmp(code, "RequestTimeout") == 0);
}

static void on_retry(struct loop_timer *timer)
{
    struct s3_job *j = container_of(timer, struct s3_job, timer);
    j->waiting = false;
    job_send(j);
}

/* Exponential backoff with full jitter (M. Brooker, "Exponential Backoff And Jitter", 2015). */
static bool retry(struct s3_job *j, const char *code)
{
    if (j->cancelled || !worth_retrying(j, code))
        return false;
    j->attempts++;
    uint32_t ceiling = (uint32_t)min((uint64_t)BACKOFF_MS << min(j->attempts, 16u), (uint64_t)BACKOFF_MAX_MS);
    uint32_t pause = max(prng_below(&s3_of(j)->jitter, ceiling) + 1, j->http.retry_after_ms);
    uint64_t at = clock_ns() + pause * NS_PER_MS, deadline = j->op->deadline_ns;
    if (deadline ? at >= deadline : j->attempts >= ATTEMPTS_MAX)
        return false;
    j->op->ufs->counters.retries++;
    j->waiting = true;
    loop_timer_start(j->op->ufs->loop, &j->timer, at);
    return true;
}

/* ---- building a request ---------------------------------------------------------------------------------------------------- */

static void add_header(struct s3_job *j, const char *format, ...) __attribute__((format(printf, 2, 3)));
static void add_header(struct s3_job *j, const char *format, ...)
{
    struct ufs_http_request *q = &j->http;
    assert(q->header_count < array_size(j->headers));
    char *line = j->headers[q->header_count];
    va_list args;
    va_start(args, format);
    vsnprintf(line, HEADER_MAX, format, args);
    va_end(args);
    q->headers[q->header_count++] = line;
}

static int add_parameter(struct buf *query, const char *name, struct text value)
{
    int r = buf_printf(query, "%s%s=", query->n ? "&" : "", name);
    return r ? r : s3_encode(value, false, query);
}

/* Parameters in ascending order of name, as signing wants them. */
static int list_query(const struct s3_job *j, struct buf *query)
{
    char number[16];
    bool token = j->token && *j->token;
    uint32_t keys = j->kind == S3_LIST ? PAGE_KEYS : 1;
    int r = token ? add_parameter(query, "continuation-token", text_of(j->token)) : 0;
    if (r == 0 && !j->recursive)
        r = add_parameter(query, "delimiter", TEXT("/"));
    r = r ? r : add_parameter(query, "encoding-type", TEXT("url"));
    r = r ? r : add_parameter(query, "list-type", TEXT("2"));
    snprintf(number, sizeof(number), "%u", keys);
    r = r ? r : add_parameter(query, "max-keys", text_of(number));
    r = r ? r : add_parameter(query, "prefix", (struct text){j->key, (uint32_t)j->key_n});
    if (r == 0 && j->after && *j->after && !token)
        r = add_parameter(query, "start-after", text_of(j->after));
    return r;
}

static int build(struct s3_job *j)
{
    struct s3 *s = s3_of(j);
    struct ufs_http_request *q = &j->http;
    struct buf path cleanup(buf_fini) = {0}, query cleanup(buf_fini) = {0};
    bool listing = kinds[j->kind].verb == UFS_LIST;
    *q = (struct ufs_http_request){.method = kinds[j->kind].method, .body_fd = -1};

    int r = s->virtual_style ? buf_printf(&path, "/") : buf_printf(&path, "/%s%s", s->bucket, listing ? "" : "/");
    if (r == 0 && !listing)
        r = s3_encode((struct text){j->key, (uint32_t)j->key_n}, true, &path);
    if (r == 0 && listing)
        r = list_query(j, &query);
    j->url.n = 0;
    r = r ? r : buf_append(&path, "", 1);
    r = r ? r : buf_append(&query, "", 1);
    r = r ? r : buf_printf(&j->url, "%s%s%s%s", s->base, (char *)path.p, listing ? "?" : "", (char *)query.p);
    r = r ? r : buf_append(&j->url, "", 1);
    if (r < 0)
        return r;
    q->url = (char *)j->url.p;

    if (j->kind == S3_GET && *j->if_match)
        add_header(j, "if-match: \"%s\"", j->if_match);
    if (j->kind == S3_GET)
        add_header(j, "range: bytes=%llu-%llu", (unsigned long long)j->offset,
                   (unsigned long long)(j->offset + j->left - 1));
    if (j->kind == S3_STAT_RANGE)
        add_header(j, "range: bytes=0-0");
    if (j->kind == S3_PUT && *j->if_match)
        add_header(j, "if-match: \"%s\"", j->if_match);
    if (j->kind == S3_PUT && j->if_none)
        add_header(j, "if-none-match: *");
    if (*s->credentials.access_key) {
        struct s3_to_sign sign = {
            .method = q->method,
            .host = s->host,
            .path = (char *)path.p,
            .query = (char *)query.p,
            .payload_hash = j->kind == S3_PUT ? j->payload_hash : "UNSIGNED-PAYLOAD",
            .headers = q->headers,
            .header_count = q->header_count,
            .now_s = (int64_t)(clock_wall_ns() / NS_PER_S),
        };
        char authorization[S3_AUTHORIZATION_MAX], date[17];
        s3_sign(&s->credentials, &sign, authorization, date);
        add_header(j, "x-amz-content-sha256: %s", sign.payload_hash);
        add_header(j, "x-amz-date: %s", date);
        if (s->token_header)
            q->headers[q->header_count++] = s->token_header;
        add_header(j, "authorization: %s", authorization);
    }
    return 0;
}

/* ---- one attempt ------------------------------------------------------------------------------------------------------------- */

static int on_piece(struct ufs_http_request *q, const void *p, size_t n)
{
    struct s3_job *j = container_of(q, struct s3_job, http);
    struct ufs_op *op = j->op;
    op->ufs->counters.bytes_in += n;
    if (j->page)
        return s3_page_feed(j->page, p, n);
    if (j->kind == S3_STAT_RANGE)
        return q->status == 206 ? 0 : -CV_CANCELLED; /* all of it comes: its headers are enough */
    if (j->kind != S3_GET)
        return 0;
    /* 200 instead of 206 is the whole object: fine when that was wanted from its start. */
    if (!j->range_seen &&
        (q->status == 206 ? q->range_start >= 0 && (uint64_t)q->range_start != j->offset : j->offset > 0)) {
        snprintf(q->error, sizeof(q->error), "the service did not answer with the range that was asked for");
        return -CV_UFS_FAILED;
    }
    if (!j->range_seen && *j->if_match && *q->etag && strcmp(j->if_match, q->etag) != 0) {
        snprintf(q->error, sizeof(q->error), "the object has changed, and the service does not heed If-Match");
        return -CV_STALE_IDENTITY;
    }
    j->range_seen = true;
    size_t wanted = (size_t)min((uint64_t)n, j->left);
    int r = wanted ? op->piece(op, p, wanted) : 0;
    j->offset += wanted;
    j->left -= wanted;
    op->bytes += wanted;
    bool more = wanted < n || (q->status != 206 && (q->length < 0 || (uint64_t)q->length > j->offset));
    return r == 0 && j->left == 0 && more ? -CV_CANCELLED : r; /* what follows was not asked for: stop it */
}

static void on_answer(struct ufs_http_request *q);

static void fail_now(struct loop_job *job)
{
    job_end(container_of(job, struct s3_job, failure), -ENOMEM);
}

static void job_send(struct s3_job *j)
{
    struct ufs *u = j->op->ufs;
    bool listing = kinds[j->kind].verb == UFS_LIST;
    j->page = s3_page_free(j->page);
    int r = build(j);
    if (r == 0 && listing)
        r = s3_page_new(&j->page);
    if (r < 0) {
        j->failure.run = fail_now;
        loop_post(u->loop, &j->failure);
        return;
    }
    struct ufs_http_request *q = &j->http;
    q->piece = on_piece;
    q->done = on_answer;
    if (j->kind == S3_PUT) {
        q->body_fd = j->fd;
        q->body_offset = j->offset;
        q->body_size = j->left;
    }
    if (j->op->deadline_ns) {
        uint64_t now = clock_ns();
        q->timeout_ms =
            j->op->deadline_ns > now ? (uint32_t)min((j->op->deadline_ns - now) / NS_PER_MS + 1, 1u << 30) : 1;
    }
    u->counters.requests[kinds[j->kind].verb]++;
    j->in_flight = true;
    j->range_seen = false;
    ufs_http_start(s3_of(j)->http, q);
}

/* ---- what an answer means ------------------------------------------------------------------------------------------------------ */

static void fill_entry(struct s3_job *j, int64_t size)
{
    const struct ufs_http_request *q = &j->http;
    struct ufs_entry *e = &j->op->entry;
    *e = (struct ufs_entry){.type = UFS_FILE, .identity = {.mtime_ns = q->mtime_ns, .size = (uint64_t)size}};
    snprintf(e->identity.etag, sizeof(e->identity.etag), "%s", q->etag);
}

/* The page has come in whole. Errors: -CV_BAD_MESSAGE, with its text. */
static int page_end(struct s3_job *j, const struct s3_page_entry **ret, size_t *ret_count, const char **ret_token)
{
    int r = s3_page_end(j->page, ret, ret_count, ret_token);
    if (r < 0)
        snprintf(j->op->message, sizeof(j->op->message), "GET %.180s: the answer is no listing of keys", j->http.url);
    return r;
}

/* Give the page's entries. Returns 1 when there is a next page to ask for. */
static int give_page(struct s3_job *j)
{
    struct ufs_op *op = j->op;
    const struct s3_page_entry *entries;
    size_t count;
    const char *token;
    size_t prefix_n = strlen(op->ufs->prefix);
    int r = page_end(j, &entries, &count, &token);
    if (r == 0 && s3_page_breaks_off(j->page)) {
        snprintf(op->message, sizeof(op->message),
                 "GET %.180s: the listing breaks off: there are more keys, and no token", j->http.url);
        return -CV_BAD_MESSAGE;
    }
    for (size_t i = 0; r == 0 && i < count; i++) {
        struct ufs_entry e = entries[i].entry;
        bool itself = e.key.n == j->key_n && memcmp(e.key.p, j->key, j->key_n) == 0;
        if (e.key.n < prefix_n || (itself && (e.identity.size == 0 || e.key.n == prefix_n)))
            continue; /* the marker of the directory itself, or the root */
        if (j->max && j->given >= j->max) {
            op->more = true;
            return 0;
        }
        e.key = (struct text){e.key.p + prefix_n, e.key.n - (uint32_t)prefix_n};
        j->given++;
        r = op->each(op, &e);
    }
    if (r < 0 || !*token)
        return r;
    char *next = strdup(token);
    if (!next)
        return -ENOMEM;
    free(j->token);
    j->token = next;
    return 1;
}

/* Is there anything below "key/"? Then it is a directory. */
static int found_directory(struct s3_job *j)
{
    const struct s3_page_entry *entries;
    size_t count;
    const char *token;
    int r = page_end(j, &entries, &count, &token);
    if (r < 0)
        return r;
    if (count == 0)
        return -ENOENT;
    j->op->entry = (struct ufs_entry){.type = UFS_DIRECTORY};
    return 0;
}

/* HEAD did not say how long the object is (Content-Length is optional in its answers): a range of it does. */
static int range_behind_stat(struct s3_job *j)
{
    fill_entry(j, 0);
    j->kind = S3_STAT_RANGE;
    j->attempts = 0;
    job_send(j);
    return 1;
}

static int found_range(struct s3_job *j)
{
    const struct ufs_http_request *q = &j->http;
    int64_t size = q->status == 200 ? q->length : q->range_total;
    if (size < 0) {
        snprintf(j->op->message, sizeof(j->op->message), "GET %.180s: the service does not say how long the object is",
                 q->url);
        return -CV_UFS_FAILED;
    }
    fill_entry(j, size);
    return 0;
}

static int list_behind_stat(struct s3_job *j)
{
    char *key = realloc(j->key, j->key_n + 2);
    if (!key)
        return -ENOMEM;
    memcpy(key + j->key_n, "/", 2);
    j->key = key;
    j->key_n++;
    j->kind = S3_STAT_LIST;
    j->attempts = 0;
    job_send(j);
    return 1;
}

/* Success by status. Returns 1 when another request is under way. */
static int on_success(struct s3_job *j)
{
    switch (j->kind) {
    case S3_LIST: {
        int r = give_page(j);
        if (r == 1) {
            j->attempts = 0;
            job_send(j);
        }
        return r;
    }
    case S3_CHECK: {
        const struct s3_page_entry *entries;
        size_t count;
        const char *token;
        return page_end(j, &entries, &count, &token);
    }
    case S3_STAT_LIST: return found_directory(j);
    case S3_STAT:
        if (j->http.length < 0)
            return range_behind_stat(j);
        fill_entry(j, j->http.length);
        return 0;
    case S3_STAT_RANGE: return found_range(j);
    case S3_PUT:
        fill_entry(j, (int64_t)j->left);
        j->op->bytes = j->left;
        j->op->ufs->counters.bytes_out += j->left;
        return 0;
    case S3_GET:
        if (j->left == 0)
            return 0;
        snprintf(j->op->message, sizeof(j->op->message), "GET %.180s: the object ends before what was asked for",
                 j->http.url);
        return -CV_STALE_IDENTITY;
    case S3_DELETE: return 0;
    }
    return 0;
}

static int on_failure(struct s3_job *j, const char *code)
{
    const struct ufs_http_request *q = &j->http;
    if (q->result < 0)
        return q->result;
    if (j->kind == S3_STAT_RANGE && q->status == 416 && q->range_total <= 0)
        return 0; /* no byte 0: it is empty, and HEAD said the rest */
    switch (q->status) {
    case 404:
        if (strcmp(code, "NoSuchBucket") == 0 || kinds[j->kind].verb == UFS_LIST)
            return -CV_UFS_FAILED;
        if (j->kind == S3_STAT)
            return list_behind_stat(j);
        if (j->kind == S3_PUT)
            return *j->if_match ? -CV_STALE_IDENTITY : -CV_UFS_FAILED;
        return j->kind == S3_DELETE ? 0 : *j->if_match ? -CV_STALE_IDENTITY : -ENOENT;
    case 304:
    case 409:
    case 412:
    case 416: return -CV_STALE_IDENTITY;
    case 401:
    case 403: return -EACCES;
    default: return -CV_UFS_FAILED;
    }
}

static void on_answer(struct ufs_http_request *q)
{
    struct s3_job *j = container_of(q, struct s3_job, http);
    char code[64], text[256];
    j->in_flight = false;
    s3_error_parse((struct text){(char *)q->text.p, (uint32_t)q->text.n}, code, sizeof(code), text, sizeof(text));
    q->text = (struct buf){0};
    if (j->cancelled) {
        job_end(j, -ECANCELED);
        return;
    }
    if (j->kind == S3_GET && q->etag[0] && !j->if_match[0]) /* what is left must be of the same object */
        snprintf(j->if_match, sizeof(j->if_match), "%s", q->etag);
    bool whole = ((j->kind == S3_GET && j->left == 0) || j->kind == S3_STAT_RANGE) && q->status / 100 == 2;
    bool ok = whole || (q->result == 0 && q->status / 100 == 2);
    if (!ok && retry(j, code))
        return;
    int r = ok ? on_success(j) : on_failure(j, code);
    if (r == 1)
        return;
    if (r < 0 && !j->op->message[0])
        explain(j, code, text);
    job_end(j, r < 0 ? r : 0);
}

/* ---- starting ------------------------------------------------------------------------------------------------------------------ */

/* j owns copies of what it needs. An operation this small that gets no memory cannot be told from a process at its end. */
static struct s3_job *job_new(struct ufs_op *op, enum s3_kind kind, struct text key)
{
    struct s3_job *j = calloc(1, sizeof(*j));
    size_t prefix_n = strlen(op->ufs->prefix);
    if (!j || !(j->key = malloc(prefix_n + key.n + 1)))
        log_fatal(-ENOMEM, "start of an operation on %s", op->ufs->uri);
    memcpy(j->key, op->ufs->prefix, prefix_n);
    if (key.n)
        memcpy(j->key + prefix_n, key.p, key.n);
    j->key_n = prefix_n + key.n;
    j->key[j->key_n] = '\0';
    j->op = op;
    j->kind = kind;
    j->fd = -1;
    loop_timer_init(&j->timer, on_retry);
    op->state = j;
    return j;
}

static void s3_check(struct ufs *u, struct ufs_op *op)
{
    job_send(job_new(op, S3_CHECK, TEXT("")));
}

static void s3_stat(struct ufs *u, struct ufs_op *op, struct text key)
{
    /* HEAD of the bucket's root would ask for something else. */
    bool root = key.n == 0;
    job_send(job_new(op, root ? S3_CHECK : S3_STAT, key));
    if (root)
        op->entry.type = UFS_DIRECTORY;
}

static void s3_list(struct ufs *u, struct ufs_op *op, struct text prefix, struct text after, uint32_t max,
                    bool recursive)
{
    struct s3_job *j = job_new(op, S3_LIST, prefix);
    j->max = max;
    j->recursive = recursive;
    if (after.n && asprintf(&j->after, "%s" TEXT_FMT, u->prefix, TEXT_ARG(after)) < 0)
        log_fatal(-ENOMEM, "list %s", u->uri);
    job_send(j);
}

static void s3_get(struct ufs *u, struct ufs_op *op, struct text key, const struct ufs_identity *id, uint64_t offset,
                   uint64_t n)
{
    struct s3_job *j = job_new(op, S3_GET, key);
    if (id)
        snprintf(j->if_match, sizeof(j->if_match), "%s", id->etag);
    j->offset = offset;
    j->left = n;
    if (n == 0) /* there is no range of no bytes: only see that the object is there */
        j->kind = S3_STAT;
    job_send(j);
}

/* The payload's hash, so that the service notices damage on the way (and wants it without TLS). */
static int hash_work(void *arg)
{
    struct s3_job *j = arg;
    uint8_t digest[32], *piece cleanup(freep) = malloc(HASH_PIECE);
    EVP_MD_CTX *md = EVP_MD_CTX_new();
    int r = piece && md && EVP_DigestInit_ex(md, EVP_sha256(), NULL) ? 0 : -ENOMEM;
    for (uint64_t at = j->offset, left = j->left; r == 0 && left;) {
        ssize_t n = pread(j->fd, piece, min(left, (uint64_t)HASH_PIECE), (off_t)at);
        if (n <= 0)
            r = n < 0 ? -errno : -EIO;
        else if (!EVP_DigestUpdate(md, piece, (size_t)n))
            r = -ENOMEM;
        else {
            at += (uint64_t)n;
            left -= (uint64_t)n;
        }
    }
    if (r == 0 && !EVP_DigestFinal_ex(md, digest, NULL))
        r = -ENOMEM;
    EVP_MD_CTX_free(md);
    for (int i = 0; r == 0 && i < 32; i++)
        snprintf(j->payload_hash + 2 * i, 3, "%02x", digest[i]);
    return r;
}

static void hash_done(struct io_op *io, int result)
{
    struct s3_job *j = container_of(io, struct s3_job, io);
    j->hashing = false;
    if (result == 0 && j->cancelled)
        result = -ECANCELED;
    if (result < 0)
        job_end(j, result);
    else
        job_send(j);
}

static void s3_put(struct ufs *u, struct ufs_op *op, struct text key, const struct ufs_identity *id, int fd,
                   uint64_t offset, uint64_t n)
{
    struct s3_job *j = job_new(op, S3_PUT, key);
    j->fd = fd;
    j->offset = offset;
    j->left = n;
    if (id)
        snprintf(j->if_match, sizeof(j->if_match), "%s", id->etag);
    j->if_none = id && !id->etag[0] && id->size == 0 && id->mtime_ns == 0;
    j->hashing = true;
    io_work(u->loop, &j->io, hash_work, j, hash_done);
}

static void s3_remove(struct ufs *u, struct ufs_op *op, struct text key)
{
    job_send(job_new(op, S3_DELETE, key));
}

static void end_cancelled(struct loop_job *job)
{
    job_end(container_of(job, struct s3_job, failure), -ECANCELED);
}

static void s3_cancel(struct ufs_op *op)
{
    struct s3_job *j = op->state;
    if (j->cancelled)
        return;
    j->cancelled = true;
    if (j->in_flight) {
        ufs_http_cancel(&j->http);
    } else if (j->hashing) {
        io_cancel(&j->io);
    } else if (j->waiting) {
        loop_timer_stop(op->ufs->loop, &j->timer);
        j->failure.run = end_cancelled;
        loop_post(op->ufs->loop, &j->failure);
    }
}

/* ---- life ------------------------------------------------------------------------------------------------------------------------ */

static const char *given_or_env(const struct ufs *u, const char *name, const char *variable)
{
    const char *value = ufs_param(u, name), *env = getenv(variable);
    return *value ? value : env ? env : "";
}

/* The endpoint as scheme and host, with the bucket in front in virtual style. */
static int set_endpoint(struct ufs *u, struct s3 *s, char *message, size_t size)
{
    const char *endpoint = ufs_param(u, "endpoint");
    char aws[128];
    if (!*endpoint) {
        snprintf(aws, sizeof(aws), "https://s3.%s.amazonaws.com", s->credentials.region);
        endpoint = aws;
    }
    const char *colon = strstr(endpoint, "://");
    s->https = strncasecmp(endpoint, "https://", 8) == 0;
    if (!colon || (!s->https && strncasecmp(endpoint, "http://", 7) != 0)) {
        snprintf(message, size, "endpoint '%s': expected http://host[:port] or https://host[:port]", endpoint);
        return -EINVAL;
    }
    const char *host = colon + 3;
    size_t n = strcspn(host, "/?#");
    if (n == 0 || (host[n] && strcmp(host + n, "/") != 0)) {
        snprintf(message, size, "endpoint '%s': a path is not supported here", endpoint);
        return -EINVAL;
    }
    const char *dot = s->virtual_style ? "." : "", *bucket = s->virtual_style ? s->bucket : "";
    if (asprintf(&s->host, "%s%s%.*s", bucket, dot, (int)n, host) < 0 ||
        asprintf(&s->base, "%s://%s", s->https ? "https" : "http", s->host) < 0)
        return -ENOMEM;
    return 0;
}

static void s3_free(struct s3 *s)
{
    free(s->bucket);
    free(s->base);
    free(s->host);
    free(s->token_header);
    free(s);
}
DEFINE_CLEANUP(struct s3 *, s3_free)

static int s3_open(struct ufs *u, struct text authority, char *message, size_t size)
{
    struct s3 *s cleanup(s3_free_p) = calloc(1, sizeof(*s));
    if (!s || !(s->bucket = strndup(authority.p, authority.n)))
        return -ENOMEM;
    if (authority.n < 3 || authority.n > 63 ||
        strspn(s->bucket, "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789.-_") != authority.n) {
        snprintf(message, size, "'%s': '%s' is no bucket name (3 to 63 letters, digits, dots, hyphens)", u->uri,
                 s->bucket);
        return -EINVAL;
    }
    const char *style = ufs_param(u, "addressing");
    s->virtual_style = strcmp(style, "virtual") == 0;
    if (!s->virtual_style && strcmp(style, "path") != 0) {
        snprintf(message, size, "addressing '%s': expected path or virtual", style);
        return -EINVAL;
    }
    unsigned long connections = strtoul(ufs_param(u, "connections"), NULL, 10);
    if (connections < 1 || connections > 512) {
        snprintf(message, size, "connections '%s': expected 1 to 512", ufs_param(u, "connections"));
        return -EINVAL;
    }
    s->credentials = (struct s3_credentials){
        .access_key = given_or_env(u, "access_key", "AWS_ACCESS_KEY_ID"),
        .secret_key = given_or_env(u, "secret_key", "AWS_SECRET_ACCESS_KEY"),
        .session_token = given_or_env(u, "session_token", "AWS_SESSION_TOKEN"),
        .region = ufs_param(u, "region"),
    };
    if (!*s->credentials.access_key != !*s->credentials.secret_key) {
        snprintf(message, size, "access_key and secret_key belong together: only %s is given",
                 *s->credentials.access_key ? "access_key" : "secret_key");
        return -EINVAL;
    }
    if (strlen(s->credentials.access_key) > 128 || strlen(s->credentials.secret_key) > 128 ||
        strlen(s->credentials.session_token) > 4096 || strlen(s->credentials.region) > 40) {
        snprintf(message, size, "access_key, secret_key, session_token or region is too long to be one");
        return -EINVAL;
    }
    if (*s->credentials.session_token &&
        asprintf(&s->token_header, "x-amz-security-token: %s", s->credentials.session_token) < 0)
        return -ENOMEM;
    s->jitter.state = random_u64();
    int r = set_endpoint(u, s, message, size);
    if (r == 0)
        r = ufs_http_new(u->loop, (unsigned)connections, &s->http);
    if (r < 0)
        return r;
    u->impl = take(s);
    return 0;
}

static void s3_close(struct ufs *u)
{
    struct s3 *s = u->impl;
    ufs_http_close(s->http, NULL, NULL);
    s3_free(s);
}

const struct ufs_ops ufs_s3_ops = {
    .scheme = "s3",
    .open = s3_open,
    .close = s3_close,
    .check = s3_check,
    .stat = s3_stat,
    .list = s3_list,
    .get = s3_get,
    .put = s3_put,
    .remove = s3_remove,
    .cancel = s3_cancel,
};
