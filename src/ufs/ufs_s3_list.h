/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Pages of ListObjectsV2, and S3's error documents, parsed as they stream in (expat). Memory is one page: the page's
 * entries are collected, because objects and common prefixes come one kind after the other, and given in order of key.
 */
#pragma once

#include "base/text.h"
#include "ufs/ufs.h"

struct s3_page; /* one page being parsed */

struct s3_page_entry {
    char *key;
    size_t key_n;
    struct ufs_entry entry; /* key borrows from above */
};

/* Errors: -ENOMEM. */
int s3_page_new(struct s3_page **ret);
struct s3_page *s3_page_free(struct s3_page *p);
DEFINE_CLEANUP(struct s3_page *, s3_page_free)

/* A piece of the document. Errors: -CV_BAD_MESSAGE not a listing in XML, or larger than a page can be; -ENOMEM. */
int s3_page_feed(struct s3_page *p, const void *data, size_t n);

/* The document is complete: sort. Errors: as feed. token: "" at the end of the listing; borrowed. */
int s3_page_end(struct s3_page *p, const struct s3_page_entry **ret, size_t *ret_count, const char **ret_token);

/* After s3_page_end(): there are more keys and no token to ask for them with: taking it for all of them would hide names. */
bool s3_page_breaks_off(const struct s3_page *p);

/* Code and message of an error document; "" what is not there. */
void s3_error_parse(struct text document, char *code, size_t code_size, char *message, size_t message_size);
