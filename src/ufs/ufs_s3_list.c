/* SPDX-License-Identifier: Apache-2.0 */
#include "ufs/ufs_s3_list.h"

#include <expat.h>
#include <stdio.h>
#include <stdlib.h>
#include <time.h>

#include "base/cleanup.h"
#include "base/clock.h"
#include "base/error.h"
#include "ufs/ufs_s3_sign.h"

#define VALUE_MAX   8192  /* of one element: a key of 1024 bytes, percent-encoded, is 3 KiB */
#define ENTRIES_MAX 10000 /* servers give 1000; what gives more than this is not S3 */

struct s3_page {
    XML_Parser parser;
    struct s3_page_entry *entries;
    size_t count, room;
    struct s3_page_entry now; /* between <Contents> and </Contents> */
    bool in_contents, in_prefixes, url_encoded;
    bool is_listing, truncated; /* the outermost element says so; more keys follow this page */
    char value[VALUE_MAX];
    size_t value_n;
    char token[VALUE_MAX];
    int error;
};

static const char *local_name(const char *name)
{
    const char *colon = strrchr(name, ':');
    return colon ? colon + 1 : name;
}

static void XMLCALL on_start(void *user, const char *name, const char **attributes)
{
    struct s3_page *p = user;
    p->value_n = 0;
    name = local_name(name);
    if (!p->is_listing && strcmp(name, "ListBucketResult") != 0) {
        p->error = -CV_BAD_MESSAGE; /* an error or a proxy's page under status 200 is no empty listing */
        return;
    }
    p->is_listing = true;
    if (strcmp(name, "Contents") == 0 || strcmp(name, "CommonPrefixes") == 0) {
        p->in_contents = name[2] == 'n';
        p->in_prefixes = !p->in_contents;
        free(p->now.key);
        p->now = (struct s3_page_entry){.entry.type = p->in_contents ? UFS_FILE : UFS_DIRECTORY};
    }
}

static void XMLCALL on_text(void *user, const char *s, int n)
{
    struct s3_page *p = user;
    size_t room = VALUE_MAX - 1 - p->value_n;
    if ((size_t)n > room) {
        p->error = -CV_BAD_MESSAGE;
        return;
    }
    memcpy(p->value + p->value_n, s, (size_t)n);
    p->value_n += (size_t)n;
}

/* "2026-11-20T18:00:00.123Z"; whole seconds, as Last-Modified of a HEAD has them. */
static uint64_t parse_time(const char *s)
{
    struct tm tm = {0};
    if (!strptime(s, "%Y-%m-%dT%H:%M:%S", &tm))
        return 0;
    time_t t = timegm(&tm);
    return t > 0 ? (uint64_t)t * NS_PER_S : 0;
}

static void take_key(struct s3_page *p)
{
    free(p->now.key);
    p->now.key = malloc(p->value_n + 1);
    if (!p->now.key) {
        p->error = -ENOMEM;
        return;
    }
    memcpy(p->now.key, p->value, p->value_n + 1);
    p->now.key_n = p->value_n;
}

static void add_entry(struct s3_page *p)
{
    if (p->count == p->room) {
        p->room = p->room ? p->room * 2 : 1024;
        struct s3_page_entry *entries =
            p->room > 2 * ENTRIES_MAX ? NULL : reallocarray(p->entries, p->room, sizeof(*entries));
        if (!entries) {
            p->error = -CV_BAD_MESSAGE;
            return;
        }
        p->entries = entries;
    }
    p->entries[p->count++] = p->now;
    p->now.key = NULL;
}

static void on_value_in_entry(struct s3_page *p, const char *name)
{
    if (strcmp(name, "Key") == 0 || strcmp(name, "Prefix") == 0) {
        take_key(p);
    } else if (strcmp(name, "LastModified") == 0) {
        p->now.entry.identity.mtime_ns = parse_time(p->value);
    } else if (strcmp(name, "Size") == 0) {
        p->now.entry.identity.size = strtoull(p->value, NULL, 10);
    } else if (strcmp(name, "ETag") == 0) {
        const char *v = p->value;
        size_t n = p->value_n;
        if (n >= 2 && v[0] == '"' && v[n - 1] == '"') {
            v++;
            n -= 2;
        }
        snprintf(p->now.entry.identity.etag, sizeof(p->now.entry.identity.etag), "%.*s", (int)n, v);
    } else if (strcmp(name, "Contents") == 0 || strcmp(name, "CommonPrefixes") == 0) {
        if (p->now.key)
            add_entry(p);
        p->in_contents = p->in_prefixes = false;
    }
}

static void XMLCALL on_end(void *user, const char *name)
{
    struct s3_page *p = user;
    name = local_name(name);
    p->value[p->value_n] = '\0';
    if (p->in_contents || p->in_prefixes)
        on_value_in_entry(p, name);
    else if (strcmp(name, "NextContinuationToken") == 0)
        memcpy(p->token, p->value, p->value_n + 1);
    else if (strcmp(name, "IsTruncated") == 0)
        p->truncated = strcmp(p->value, "true") == 0;
    else if (strcmp(name, "EncodingType") == 0)
        p->url_encoded = strcmp(p->value, "url") == 0;
    p->value_n = 0;
}

/* Listings hold no entities of their own: refuse what declares some, so that none can expand. */
static void XMLCALL on_doctype(void *user, const char *name, const char *system, const char *public_id, int internal)
{
    ((struct s3_page *)user)->error = -CV_BAD_MESSAGE;
}

int s3_page_new(struct s3_page **ret)
{
    struct s3_page *p = calloc(1, sizeof(*p));
    if (!p)
        return -ENOMEM;
    p->parser = XML_ParserCreate(NULL);
    if (!p->parser) {
        free(p);
        return -ENOMEM;
    }
    XML_SetUserData(p->parser, p);
    XML_SetElementHandler(p->parser, on_start, on_end);
    XML_SetCharacterDataHandler(p->parser, on_text);
    XML_SetStartDoctypeDeclHandler(p->parser, on_doctype);
    *ret = p;
    return 0;
}

struct s3_page *s3_page_free(struct s3_page *p)
{
    if (!p)
        return NULL;
    for (size_t i = 0; i < p->count; i++)
        free(p->entries[i].key);
    free(p->entries);
    free(p->now.key);
    XML_ParserFree(p->parser);
    free(p);
    return NULL;
}

static int feed(struct s3_page *p, const void *data, size_t n, bool last)
{
    if (p->error == 0 && XML_Parse(p->parser, data, (int)n, last) == XML_STATUS_ERROR && p->error == 0)
        p->error = -CV_BAD_MESSAGE;
    return p->error;
}

int s3_page_feed(struct s3_page *p, const void *data, size_t n)
{
    return feed(p, data, n, false);
}

static int by_key(const void *a, const void *b)
{
    const struct s3_page_entry *x = a, *y = b;
    return text_compare((struct text){x->key, (uint32_t)x->key_n}, (struct text){y->key, (uint32_t)y->key_n});
}

int s3_page_end(struct s3_page *p, const struct s3_page_entry **ret, size_t *ret_count, const char **ret_token)
{
    int r = feed(p, "", 0, true);
    if (r < 0)
        return r;
    for (size_t i = 0; i < p->count; i++) {
        struct s3_page_entry *e = &p->entries[i];
        if (p->url_encoded)
            e->key_n = s3_decode(e->key, e->key_n);
        e->entry.key = (struct text){e->key, (uint32_t)e->key_n};
    }
    if (p->count)
        qsort(p->entries, p->count, sizeof(*p->entries), by_key);
    *ret = p->entries;
    *ret_count = p->count;
    *ret_token = p->token;
    return 0;
}

bool s3_page_breaks_off(const struct s3_page *p)
{
    return p->truncated && !*p->token;
}

/* The character an XML reference stands for, as far as error documents use them, and how long it is; 0: it is none. */
static char reference(const char *p, size_t n, size_t *ret_length)
{
    static const struct {
        const char *name;
        char c;
    } known[] = {{"&quot;", '"'}, {"&#34;", '"'}, {"&apos;", '\''}, {"&#39;", '\''},
                 {"&lt;", '<'},   {"&gt;", '>'},  {"&amp;", '&'},   {"&#xA;", ' '}};
    for (size_t i = 0; i < array_size(known); i++)
        if (n >= strlen(known[i].name) && memcmp(p, known[i].name, strlen(known[i].name)) == 0) {
            *ret_length = strlen(known[i].name);
            return known[i].c;
        }
    return 0;
}

/* The text between <name> and </name>; error documents are small and flat. */
static void element(struct text document, const char *name, char *out, size_t size)
{
    char open[32], close[32];
    snprintf(open, sizeof(open), "<%s>", name);
    snprintf(close, sizeof(close), "</%s>", name);
    out[0] = '\0';
    if (!document.n)
        return;
    const char *from = memmem(document.p, document.n, open, strlen(open));
    if (!from)
        return;
    from += strlen(open);
    const char *to = memmem(from, (size_t)(document.p + document.n - from), close, strlen(close));
    if (!to)
        return;
    size_t used = 0, length;
    for (char c; from < to && used + 1 < size; from += length) {
        c = reference(from, (size_t)(to - from), &length);
        if (!c)
            c = *from, length = 1;
        out[used++] = c;
    }
    out[used] = '\0';
}

void s3_error_parse(struct text document, char *code, size_t code_size, char *message, size_t message_size)
{
    element(document, "Code", code, code_size);
    element(document, "Message", message, message_size);
}
