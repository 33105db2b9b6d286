/* SPDX-License-Identifier: Apache-2.0 */
/* s3://bucket/prefix: Amazon S3 and what speaks its protocol: opened, and its operations begun and cancelled. */
#include <openssl/evp.h>
#include <stdio.h>
#include <strings.h>

#include "base/cleanup.h"
#include "base/clock.h"
#include "base/error.h"
#include "base/log.h"
#include "base/random.h"
#include "ufs/ufs_s3_job.h"

#define HASH_PIECE (256u << 10)

/* ---- starting ------------------------------------------------------------------------------------------------------------------ */

static void s3_check(struct ufs *u, struct ufs_op *op)
{
    s3_job_send(s3_job_new(op, S3_CHECK, TEXT("")));
}

static void s3_stat(struct ufs *u, struct ufs_op *op, struct text key)
{
    /* HEAD of the bucket's root would ask for something else. */
    bool root = key.n == 0;
    s3_job_send(s3_job_new(op, root ? S3_CHECK : S3_STAT, key));
    if (root)
        op->entry.type = UFS_DIRECTORY;
}

static void s3_list(struct ufs *u, struct ufs_op *op, struct text prefix, struct text after, uint32_t max,
                    bool recursive)
{
    struct s3_job *j = s3_job_new(op, S3_LIST, prefix);
    j->max = max;
    j->recursive = recursive;
    if (after.n && asprintf(&j->after, "%s" TEXT_FMT, u->prefix, TEXT_ARG(after)) < 0)
        log_fatal(-ENOMEM, "list %s", u->uri);
    s3_job_send(j);
}

static void s3_get(struct ufs *u, struct ufs_op *op, struct text key, const struct ufs_identity *id, uint64_t offset,
                   uint64_t n)
{
    struct s3_job *j = s3_job_new(op, S3_GET, key);
    if (id)
        snprintf(j->if_match, sizeof(j->if_match), "%s", id->etag);
    j->offset = offset;
    j->left = n;
    if (n == 0) /* there is no range of no bytes: only see that the object is there */
        j->kind = S3_STAT;
    s3_job_send(j);
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
        s3_job_end(j, result);
    else
        s3_job_send(j);
}

static void s3_put(struct ufs *u, struct ufs_op *op, struct text key, const struct ufs_identity *id, int fd,
                   uint64_t offset, uint64_t n)
{
    struct s3_job *j = s3_job_new(op, S3_PUT, key);
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
    s3_job_send(s3_job_new(op, S3_DELETE, key));
}

static void end_cancelled(struct loop_job *job)
{
    s3_job_end(container_of(job, struct s3_job, failure), -ECANCELED);
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
