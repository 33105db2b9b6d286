/* SPDX-License-Identifier: Apache-2.0 */
#include "ufs/ufs_s3_job.h"

#include <assert.h>
#include <stdio.h>

#include "base/clock.h"
#include "base/error.h"
#include "base/log.h"

#define ATTEMPTS_MAX   8  /* of an operation without a deadline */
#define BACKOFF_MS     50 /* doubled each time, with full jitter */
#define BACKOFF_MAX_MS 10000

/* ---- ending ---- */

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

void s3_job_end(struct s3_job *j, int result)
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
    char what[S3_HEADER_MAX];
    if (q->result < 0)
        snprintf(what, sizeof(what), "%s", *q->error ? q->error : cv_error_text(q->result));
    else
        snprintf(what, sizeof(what), "%d%s%s%s%s", q->status, *code ? " " : "", code, *text ? ": " : "", text);
    snprintf(op->message, sizeof(op->message), "%s %.130s: %.170s%s%.80s", s3_kinds[j->kind].method, q->url, what,
             *advice ? ": " : "", advice);
}

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

/* ---- again? ---- */

static void on_retry(struct loop_timer *timer)
{
    struct s3_job *j = container_of(timer, struct s3_job, timer);
    j->waiting = false;
    s3_job_send(j);
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

/* ---- one attempt ---- */

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
    s3_job_end(container_of(job, struct s3_job, failure), -ENOMEM);
}

void s3_job_send(struct s3_job *j)
{
    struct ufs *u = j->op->ufs;
    bool listing = s3_kinds[j->kind].verb == UFS_LIST;
    j->page = s3_page_free(j->page);
    int r = s3_build(j);
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
    u->counters.requests[s3_kinds[j->kind].verb]++;
    j->in_flight = true;
    j->range_seen = false;
    ufs_http_start(s3_of(j)->http, q);
}

/* ---- what an answer means ---- */

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
    s3_job_send(j);
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
    s3_job_send(j);
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
            s3_job_send(j);
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
        if (strcmp(code, "NoSuchBucket") == 0 || s3_kinds[j->kind].verb == UFS_LIST)
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
        s3_job_end(j, -ECANCELED);
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
    s3_job_end(j, r < 0 ? r : 0);
}

/* ---- beginning ---- */

/* j owns copies of what it needs. An operation this small that gets no memory cannot be told from a process at its end. */
struct s3_job *s3_job_new(struct ufs_op *op, enum s3_kind kind, struct text key)
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
