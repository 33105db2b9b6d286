/* SPDX-License-Identifier: Apache-2.0 */
#include "ufs/ufs_s3_sign.h"

#include <ctype.h>
#include <errno.h>
#include <openssl/evp.h>
#include <openssl/hmac.h>
#include <stdio.h>
#include <time.h>

#include "base/cleanup.h"
#include "base/log.h"

static void hex(const uint8_t *p, size_t n, char *out)
{
    static const char digits[] = "0123456789abcdef";
    for (size_t i = 0; i < n; i++) {
        *out++ = digits[p[i] >> 4];
        *out++ = digits[p[i] & 15];
    }
    *out = '\0';
}

void s3_sha256_hex(const void *p, size_t n, char out[65])
{
    uint8_t digest[32];
    if (!EVP_Digest(p, n, digest, NULL, EVP_sha256(), NULL))
        log_fatal(-ENOMEM, "sha256");
    hex(digest, sizeof(digest), out);
}

static void hmac(const void *key, size_t key_n, const char *text, uint8_t out[32])
{
    if (!HMAC(EVP_sha256(), key, (int)key_n, (const uint8_t *)text, strlen(text), out, NULL))
        log_fatal(-ENOMEM, "hmac");
}

/* kDate -> kRegion -> kService -> kSigning, as the description derives it. */
static void signing_key(const struct s3_credentials *c, const char *day, uint8_t out[32])
{
    char first[256];
    snprintf(first, sizeof(first), "AWS4%s", c->secret_key);
    hmac(first, strlen(first), day, out);
    explicit_bzero(first, sizeof(first));
    hmac(out, 32, c->region, out);
    hmac(out, 32, "s3", out);
    hmac(out, 32, "aws4_request", out);
}

/* "Range: bytes=0-1" as the canonical line "range:bytes=0-1". */
static void add_header(struct buf *canonical, struct buf *names, const char *line)
{
    const char *colon = strchr(line, ':'), *value = colon + 1;
    while (*value == ' ')
        value++;
    buf_printf(canonical, "%.*s:%s\n", (int)(colon - line), line, value);
    buf_printf(names, "%.*s;", (int)(colon - line), line);
}

void s3_sign(const struct s3_credentials *c, const struct s3_to_sign *q, char authorization[S3_AUTHORIZATION_MAX],
             char date[17])
{
    struct tm tm;
    time_t now = (time_t)q->now_s;
    gmtime_r(&now, &tm);
    strftime(date, 17, "%Y%m%dT%H%M%SZ", &tm);
    char day[9];
    memcpy(day, date, 8);
    day[8] = '\0';

    struct buf request cleanup(buf_fini) = {0}, names cleanup(buf_fini) = {0};
    buf_printf(&request, "%s\n%s\n%s\nhost:%s\n", q->method, q->path, q->query, q->host);
    buf_printf(&names, "host;");
    for (unsigned i = 0; i < q->header_count; i++)
        add_header(&request, &names, q->headers[i]);
    buf_printf(&request, "x-amz-content-sha256:%s\nx-amz-date:%s\n", q->payload_hash, date);
    buf_printf(&names, "x-amz-content-sha256;x-amz-date");
    if (*c->session_token) {
        buf_printf(&request, "x-amz-security-token:%s\n", c->session_token);
        buf_printf(&names, ";x-amz-security-token");
    }
    buf_printf(&request, "\n" TEXT_FMT "\n%s", (int)names.n, (char *)names.p, q->payload_hash);

    char request_hash[65], to_sign[256], signature[65];
    s3_sha256_hex(request.p, request.n, request_hash);
    snprintf(to_sign, sizeof(to_sign), "AWS4-HMAC-SHA256\n%s\n%s/%s/s3/aws4_request\n%s", date, day, c->region,
             request_hash);
    uint8_t key[32], digest[32];
    signing_key(c, day, key);
    hmac(key, sizeof(key), to_sign, digest);
    explicit_bzero(key, sizeof(key));
    hex(digest, sizeof(digest), signature);
    snprintf(authorization, S3_AUTHORIZATION_MAX,
             "AWS4-HMAC-SHA256 Credential=%s/%s/%s/s3/aws4_request, SignedHeaders=" TEXT_FMT ", Signature=%s",
             c->access_key, day, c->region, (int)names.n, (char *)names.p, signature);
}

int s3_encode(struct text p, bool keep_slashes, struct buf *out)
{
    int r = buf_reserve(out, (size_t)p.n * 3 + 1);
    if (r < 0)
        return r;
    char *to = (char *)out->p + out->n, *start = to;
    for (uint32_t i = 0; i < p.n; i++) {
        unsigned char c = (unsigned char)p.p[i];
        bool plain = (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || (c >= '0' && c <= '9') || c == '-' ||
                     c == '.' || c == '_' || c == '~' || (c == '/' && keep_slashes);
        if (plain)
            *to++ = (char)c;
        else
            to += sprintf(to, "%%%02X", c);
    }
    *to = '\0';
    out->n += (size_t)(to - start);
    return 0;
}

static int digit(char c)
{
    return c >= '0' && c <= '9'                                                   ? c - '0'
           : tolower((unsigned char)c) >= 'a' && tolower((unsigned char)c) <= 'f' ? tolower((unsigned char)c) - 'a' + 10
                                                                                  : -1;
}

size_t s3_decode(char *p, size_t n)
{
    char *to = p;
    for (size_t i = 0; i < n; i++) {
        if (p[i] == '%' && i + 2 < n && digit(p[i + 1]) >= 0 && digit(p[i + 2]) >= 0) {
            *to++ = (char)(digit(p[i + 1]) << 4 | digit(p[i + 2]));
            i += 2;
        } else {
            *to++ = p[i] == '+' ? ' ' : p[i];
        }
    }
    return (size_t)(to - p);
}
