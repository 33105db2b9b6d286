/* SPDX-License-Identifier: Apache-2.0 */
/* A request of S3: its URL, its query, its headers, its signature. */
#include <assert.h>
#include <stdarg.h>
#include <stdio.h>

#include "base/clock.h"
#include "ufs/ufs_s3_job.h"

#define PAGE_KEYS 1000

const struct s3_kind_row s3_kinds[] = {
    [S3_STAT_RANGE] = {"GET", UFS_GET}, [S3_CHECK] = {"GET", UFS_LIST},       [S3_STAT] = {"HEAD", UFS_HEAD},
    [S3_STAT_LIST] = {"GET", UFS_LIST}, [S3_LIST] = {"GET", UFS_LIST},        [S3_GET] = {"GET", UFS_GET},
    [S3_PUT] = {"PUT", UFS_PUT},        [S3_DELETE] = {"DELETE", UFS_DELETE},
};

static void add_header(struct s3_job *j, const char *format, ...) __attribute__((format(printf, 2, 3)));
static void add_header(struct s3_job *j, const char *format, ...)
{
    struct ufs_http_request *q = &j->http;
    assert(q->header_count < array_size(j->headers));
    char *line = j->headers[q->header_count];
    va_list args;
    va_start(args, format);
    vsnprintf(line, S3_HEADER_MAX, format, args);
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

int s3_build(struct s3_job *j)
{
    struct s3 *s = s3_of(j);
    struct ufs_http_request *q = &j->http;
    struct buf path cleanup(buf_fini) = {0}, query cleanup(buf_fini) = {0};
    bool listing = s3_kinds[j->kind].verb == UFS_LIST;
    *q = (struct ufs_http_request){.method = s3_kinds[j->kind].method, .body_fd = -1};

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
