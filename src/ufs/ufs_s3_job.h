/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Inside of s3: an operation is one s3_job: it builds, signs and sends a request, looks at the answer, and either ends the
 * operation, sends it again after a pause, or sends the next one (pages of a listing, the LIST behind a HEAD that found
 * nothing, the GET of one byte behind a HEAD that did not say how long the object is). A GET that broke goes on from the
 * byte it had reached, tied to the same object by If-Match; one that brings more than was asked for is stopped.
 *
 *      ufs_s3.c        a bucket; operations begin (each makes a job) and are cancelled
 *      ufs_s3_job.c    a job's attempts, and what answers mean
 *      ufs_s3_build.c  a request: URL, query, headers, signature
 *      ufs_s3_sign.h, ufs_s3_list.h, ufs_http.h
 *
 * Owner: the loop of its ufs.
 */
#pragma once

#include "base/random.h"
#include "ufs/ufs_http.h"
#include "ufs/ufs_impl.h"
#include "ufs/ufs_s3_list.h"
#include "ufs/ufs_s3_sign.h"

#define S3_HEADER_MAX 640

struct s3 {
    struct ufs_http *http;
    char *bucket, *base, *host; /* base: scheme://host[:port], what URLs begin with; host: as signed */
    char *token_header;         /* NULL without a token */
    bool virtual_style, https;
    struct s3_credentials credentials;
    struct prng jitter;
};

enum s3_kind { S3_CHECK, S3_STAT, S3_STAT_LIST, S3_STAT_RANGE, S3_LIST, S3_GET, S3_PUT, S3_DELETE };

/* By kind: how it is asked for, and what it is counted as. */
struct s3_kind_row {
    const char *method;
    enum ufs_verb verb;
};
extern const struct s3_kind_row s3_kinds[];

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
    char headers[8][S3_HEADER_MAX];
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

static inline struct s3 *s3_of(const struct s3_job *j)
{
    return j->op->ufs->impl;
}

/* A job for an operation, with the whole key, prefix included. Always there. */
struct s3_job *s3_job_new(struct ufs_op *op, enum s3_kind kind, struct text key);
/* Build and send what it wants next; the operation ends when that has come to its end. */
void s3_job_send(struct s3_job *j);
/* End the operation; nothing of it is in flight. The job is gone. */
void s3_job_end(struct s3_job *j, int result);

/* j->http and j->url from what is wanted. Errors: -ENOMEM. */
int s3_build(struct s3_job *j);
