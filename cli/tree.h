/* SPDX-License-Identifier: Apache-2.0 */
/* Walks of the namespace for recursive commands: depth first, a directory's entries page by page. */
#pragma once

#include <errno.h>
#include <stdbool.h>

#include "client/curvine.h"

struct tree_entry {
    const char *path;         /* in the namespace, e.g. "/a/b" */
    unsigned depth;           /* 0: where the walk began */
    uint64_t parent;          /* inode; 0 for where it began */
    struct curvine_text name; /* last component, in path */
    struct curvine_attr attr;
};

enum tree_order { TREE_BEFORE, TREE_AFTER }; /* a directory before or after what is in it */

/* The error says that somebody else removed the name, or the directory it was looked for in. */
static inline bool tree_is_gone(int r)
{
    return r == -ENOENT || r == -ESTALE;
}

/* Call each() for path and everything below it; negative results of each() end the walk. What disappears meanwhile is
 * left out. depth_max: UINT32_MAX for no limit. Errors: of each(), of listing; *error_path (PATH_MAX + 256) says where. */
int tree_walk(struct curvine *cv, const char *path, enum tree_order order, unsigned depth_max,
              int (*each)(const struct tree_entry *entry, void *arg), void *arg, char *error_path, size_t size);
