/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What src/ufs reads from strangers. The first byte chooses:
 *      0  pages of a listing, fed in pieces of any size; error documents
 *      1  a key: its path is made of names a file system has, and gives the key back
 *      2  a path: the key it stands for gives the path back, or there is none
 *      3  a URI and parameters, each ended by a zero byte: refused with words, or opened and closed
 */
#include <assert.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/cleanup.h"
#include "base/error.h"
#include "base/log.h"
#include "ufs/ufs.h"
#include "ufs/ufs_escape.h"
#include "ufs/ufs_s3_list.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static void try_page(const uint8_t *p, size_t n)
{
    struct s3_page *page cleanup(s3_page_free_p) = NULL;
    const struct s3_page_entry *entries;
    size_t count, piece = n ? 1 + p[0] % 64u : 1;
    const char *token;
    char code[16], text[64];
    s3_error_parse((struct text){(const char *)p, (uint32_t)n}, code, sizeof(code), text, sizeof(text));
    int r = s3_page_new(&page);
    assert(r == 0);
    for (size_t at = 0; r == 0 && at < n; at += piece)
        r = s3_page_feed(page, p + at, min(piece, n - at));
    if (s3_page_end(page, &entries, &count, &token) < 0)
        return;
    assert(r == 0);
    for (size_t i = 0; i < count; i++) {
        assert(entries[i].entry.key.n == entries[i].key_n);
        assert(i == 0 || text_compare(entries[i - 1].entry.key, entries[i].entry.key) <= 0);
    }
}

static void check_names(struct text path)
{
    while (path.n) {
        const char *slash = memchr(path.p, '/', path.n);
        struct text name = {path.p, slash ? (uint32_t)(slash - path.p) : path.n};
        assert(name.n > 0 && name.n <= 255);
        assert(!text_equal(name, TEXT(".")) && !text_equal(name, TEXT("..")));
        assert(!slash || path.n > name.n + 1);
        path = (struct text){path.p + name.n + (slash != NULL), path.n - name.n - (slash != NULL)};
    }
}

static struct text text_of_buf(const struct buf *b)
{
    return (struct text){(const char *)b->p, (uint32_t)b->n};
}

static void try_key(struct text key)
{
    for (int beside = 0; beside < 2; beside++) {
        struct buf path cleanup(buf_fini) = {0}, back cleanup(buf_fini) = {0};
        if (ufs_key_to_path(key, beside, &path) < 0)
            return;
        check_names(text_of_buf(&path));
        int r = ufs_path_to_key(text_of_buf(&path), &back);
        assert(r == 0);
        assert(text_equal(text_of_buf(&back), key));
    }
}

static void try_path(struct text path)
{
    struct buf key cleanup(buf_fini) = {0};
    if (ufs_path_to_key(path, &key) == 0)
        try_key(text_of_buf(&key));
}

static void try_uri(const uint8_t *p, size_t n)
{
    char *words = malloc(n + 1), *at = words, message[200] = "";
    const char *w[17];
    unsigned count = 0;
    assert(words);
    memcpy(words, p, n);
    words[n] = '\0';
    for (; count < array_size(w) && at <= words + n; at += strlen(at) + 1)
        w[count++] = at;
    struct ufs_param params[8];
    unsigned given = 0;
    for (unsigned i = 1; i + 1 < count; i += 2)
        params[given++] = (struct ufs_param){w[i], w[i + 1]};
    struct loop *loop cleanup(loop_free_p) = NULL;
    struct ufs *ufs = NULL;
    int r = loop_new(&(struct loop_options){.backend = LOOP_EPOLL}, &loop);
    assert(r == 0);
    r = ufs_open(loop, w[0], params, given, &ufs, message, sizeof(message));
    assert(r == 0 || message[0]);
    if (r == 0)
        ufs_close(ufs, (void (*)(void *))loop_stop, loop);
    else
        loop_stop(loop);
    r = loop_run(loop);
    assert(r == 0);
    free(words);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    log_set_level(LOG_LEVEL_ERROR);
    if (size == 0)
        return 0;
    struct text rest = {(const char *)data + 1, (uint32_t)size - 1};
    switch (data[0] % 4) {
    case 0: try_page(data + 1, size - 1); break;
    case 1: try_key(rest); break;
    case 2: try_path(rest); break;
    default: try_uri(data + 1, size - 1); break;
    }
    return 0;
}
