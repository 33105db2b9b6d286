/* SPDX-License-Identifier: Apache-2.0 */
#include "ufs/ufs_escape.h"

#include <errno.h>

#include "base/cleanup.h"

#define NAME_MAX_BYTES 255
#define PIECE_BYTES    240 /* of a component that is cut */

static const struct text mark = TEXT("%~");

static bool begins(struct text t, struct text with)
{
    return t.n >= with.n && memcmp(t.p, with.p, with.n) == 0;
}

static int append(struct buf *b, struct text t)
{
    return buf_append(b, t.p, t.n);
}

static int append3(struct buf *b, struct text x, struct text y, struct text z)
{
    int r = append(b, x);
    r = r ? r : append(b, y);
    return r ? r : append(b, z);
}

/* One component, last: of the key. */
static int escape_component(struct text c, bool beside, struct buf *path)
{
    int r = 0;
    while (r == 0 && c.n + (begins(c, mark) ? 3 : 0) + (beside ? 3 : 0) > NAME_MAX_BYTES) {
        r = append3(path, TEXT("%~>"), (struct text){c.p, PIECE_BYTES}, TEXT("/"));
        c = (struct text){c.p + PIECE_BYTES, c.n - PIECE_BYTES};
    }
    if (r < 0)
        return r;
    if (beside) /* what follows "=" is a plain component again, which may need an escape of its own */
        r = append(path, TEXT("%~="));
    if (r == 0 && (c.n == 0 || text_equal(c, TEXT(".")) || text_equal(c, TEXT(".."))))
        return append3(path, mark, c, TEXT(""));
    if (r == 0 && begins(c, mark))
        r = append(path, TEXT("%~%"));
    return r ? r : append(path, c);
}

int ufs_key_to_path(struct text key, bool beside, struct buf *path)
{
    if (key.n == 0 || memchr(key.p, '\0', key.n))
        return -EILSEQ;
    for (;;) {
        const char *slash = memchr(key.p, '/', key.n);
        struct text c = {key.p, slash ? (uint32_t)(slash - key.p) : key.n};
        int r = escape_component(c, beside && !slash, path);
        if (r < 0 || !slash)
            return r;
        if ((r = append(path, TEXT("/"))) < 0)
            return r;
        key = (struct text){slash + 1, key.n - c.n - 1};
    }
}

static struct text behind(struct text t, uint32_t n)
{
    return (struct text){t.p + n, t.n - n};
}

/* Append what a name stands for; *joined: the next name continues the same component. */
static int unescape_name(struct text c, bool last, struct buf *key, bool *joined)
{
    *joined = false;
    if (begins(c, TEXT("%~="))) {
        if (!last)
            return -EINVAL;
        c = behind(c, 3);
        if (c.n == 0)
            return -EINVAL;
    }
    if (!begins(c, mark))
        return c.n ? append(key, c) : -EINVAL;
    struct text rest = behind(c, 2);
    if (rest.n == 0 || text_equal(rest, TEXT(".")) || text_equal(rest, TEXT("..")))
        return append(key, rest);
    if (rest.p[0] == '%' && begins(behind(rest, 1), mark))
        return append(key, behind(rest, 1));
    if (rest.p[0] == '>' && rest.n == 1 + PIECE_BYTES && !last) {
        *joined = true;
        return append(key, behind(rest, 1));
    }
    return -EINVAL;
}

int ufs_path_to_key(struct text path, struct buf *key)
{
    if (path.n == 0)
        return -EINVAL;
    for (;;) {
        const char *slash = memchr(path.p, '/', path.n);
        struct text c = {path.p, slash ? (uint32_t)(slash - path.p) : path.n};
        bool joined;
        int r = unescape_name(c, !slash, key, &joined);
        if (r < 0 || !slash)
            return r;
        if (!joined && (r = append(key, TEXT("/"))) < 0)
            return r;
        path = behind(path, c.n + 1);
    }
}
