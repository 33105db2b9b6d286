/* SPDX-License-Identifier: Apache-2.0 */
/*
 * From the keys of a listing to names. Keys come in bytewise order, those of directories with a final '/'; an object "a"
 * beside a directory "a/" loses its name to it (ufs_escape.h), and "a-b" may come between the two: so objects are held
 * back until no directory of their name can follow. Those held back are prefixes of one another, so there are few.
 *
 * Left out, and counted by the caller: symlinks (the interface of under file systems does not tell where they point), keys
 * whose escape is not a single name (longer than 255 bytes, with a zero byte).
 */
#pragma once

#include "base/list.h"
#include "ufs/ufs.h"

/* One name to import; borrowed. -ENOTSUP from import_name_of(): it is left out. */
struct import_names_out {
    void *arg;
    int (*name)(void *arg, struct text name, struct text component, const struct ufs_entry *e);
    void (*skipped)(void *arg, struct text component);
};

struct import_names {
    struct list held; /* struct held_name */
};

void import_names_init(struct import_names *n);
void import_names_fini(struct import_names *n);

/* The next entry of the directory: component: its key behind the prefix, a directory's with the final '/'. Errors: -ENOMEM;
 * those of out->name. */
int import_names_add(struct import_names *n, struct text component, const struct ufs_entry *e,
                     const struct import_names_out *out);
/* There are no more. */
int import_names_end(struct import_names *n, const struct import_names_out *out);

/* The name of a component (without '/'). Errors: -ENOTSUP it has none; -ENOMEM. */
int import_name_of(struct text component, bool beside, struct buf *name);
