/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Signing of S3 requests: AWS Signature Version 4 (the published description "Signing AWS API requests"), service s3.
 */
#pragma once

#include <stddef.h>
#include <stdint.h>

#include "base/text.h"

struct s3_credentials {
    const char *access_key, *secret_key, *session_token, *region; /* session_token "" when there is none */
};

struct s3_to_sign {
    const char *method, *host;
    const char *path;           /* encoded, as sent */
    const char *query;          /* encoded, parameters in ascending order, as sent; "" for none */
    const char *payload_hash;   /* hex SHA-256, or "UNSIGNED-PAYLOAD" */
    const char *const *headers; /* further headers to sign, "name: value", lower case, ascending; see below */
    unsigned header_count;
    int64_t now_s; /* seconds since 1970 */
};

#define S3_AUTHORIZATION_MAX 512

/* The values of the headers Authorization and x-amz-date. Signed are host, x-amz-content-sha256, x-amz-date, with a token
 * x-amz-security-token, and the given headers, whose names must sort behind "host" and before "x-amz-". */
void s3_sign(const struct s3_credentials *c, const struct s3_to_sign *q, char authorization[S3_AUTHORIZATION_MAX],
             char date[17]);

/* Append p percent-encoded as AWS wants it: all but A-Z a-z 0-9 - . _ ~ and, in paths, '/'. Errors: -ENOMEM. */
int s3_encode(struct text p, bool keep_slashes, struct buf *out);

/* Decode in place what encoding-type=url made of a key ('+' is a space). Returns the new length. */
size_t s3_decode(char *p, size_t n);

void s3_sha256_hex(const void *p, size_t n, char out[65]);
