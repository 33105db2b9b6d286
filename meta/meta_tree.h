/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The tree: nodes (inodes) and names that have been used, kept in memory under one budget. A cache and nothing else:
 * whatever is in it equals what the layers say (overlay, delta, sealed, base), and anything may leave at any time.
 *
 * A node holds the encoded inode row (meta_format.h), not a struct: a file with a name of 16 bytes costs 56 bytes of
 * node, 48 of name and 8 to 12 in the two hash tables. Both tables are by linear hashing: they grow one bucket at a
 * time, so no insertion ever waits for a table to be rebuilt.
 *
 *      node 7 (dir) --first--> name "a" <--> name "b" <--> name "c"      a ring's worth of names per directory, in no
 *        | complete               | child 12   | child 13   | absent     order; child ids, not pointers
 *
 * A directory is complete when every name in it is here: then a name that is not here does not exist. A name of a
 * directory that is not complete may be kept as absent. Ancestors stay: a directory with names here is not evicted, nor
 * is the name of a directory that is here.
 *
 * Eviction is a clock over the slabs of the arena. Readers (shared lock) set the bit "used" and change nothing else.
 */
#pragma once

#include <stdbool.h>
#include <stdint.h>

#include "base/text.h"
#include "meta/meta_arena.h"

enum tree_kind { TREE_FILE = 1, TREE_DIRECTORY = 2, TREE_NAME = 3 };

enum tree_flag {
    NODE_COMPLETE = 1, /* directory: all its names are here */
    NODE_ABSENT = 2,   /* there is no such inode */
    NODE_UNKNOWN = 4,  /* directory that only holds its names together: the row must be looked up below */
};

/* 19 bytes, then the row; a directory has first and names before it. */
struct node {
    struct arena_object object; /* next: in its bucket; size: of the row */
    uint32_t batch;             /* low bits of the batch of the last change */
    uint32_t id_low;
    uint16_t id_high;
    uint8_t flags;
    uint8_t row[1];
};

struct directory {
    struct node node;
    uint32_t first; /* handle of a name; they are linked both ways */
    uint32_t names; /* in that list */
    uint8_t row[];
};

/* 28 bytes, then the name. child 0: absent. Which batch changed it last is not kept: every change of a name changes the row
 * of its directory too, and whoever asks for a name has seen that. */
struct name {
    struct arena_object object; /* next: in its bucket; length of the name; type: DT_* */
    uint32_t sibling_next, sibling_previous;
    uint32_t parent_low, child_low;
    uint16_t parent_high, child_high;
    char text[];
};

/* Linear hashing: buckets of handles, chained through arena_object.next. */
struct tree_index {
    uint32_t **segments;
    uint32_t segment_room, buckets, count;
    uint64_t bytes;
};

struct tree {
    struct arena arena;
    struct tree_index nodes, names;
    uint64_t budget;
    uint32_t hand; /* slab the clock looks at next */
    uint64_t file_count, directory_count, name_count, evicted;
};

static inline uint64_t node_id(const struct node *n)
{
    return (uint64_t)n->id_high << 32 | n->id_low;
}

static inline struct text node_row(const struct node *n)
{
    const uint8_t *row = n->object.kind == TREE_DIRECTORY ? ((const struct directory *)n)->row : n->row;
    return (struct text){(const char *)row, n->object.size};
}

static inline uint64_t name_parent(const struct name *n)
{
    return (uint64_t)n->parent_high << 32 | n->parent_low;
}

static inline uint64_t name_child(const struct name *n)
{
    return (uint64_t)n->child_high << 32 | n->child_low;
}

static inline struct text name_text(const struct name *n)
{
    return (struct text){n->text, n->object.length};
}

/* Errors: -ENOMEM. */
int tree_init(struct tree *t, uint64_t budget);
void tree_fini(struct tree *t);

/* --- looking (shared lock) */
const struct node *tree_node(const struct tree *t, uint64_t id);
const struct name *tree_name(const struct tree *t, uint64_t parent, struct text name, uint32_t hash);
/* Names of a directory: first, then next until NULL. */
const struct name *tree_first(const struct tree *t, const struct node *directory);
const struct name *tree_next(const struct tree *t, const struct name *n);

/* --- changing (exclusive lock). Pointers into the tree end with the next change. ------------------------------- */

/* Keep this row of an inode; n 0: it is known to be absent. May evict others; when there is no room the node is not
 * kept. A new directory may be said to be complete (it has no names). */
void tree_put_node(struct tree *t, uint64_t id, bool directory, struct text row, uint32_t batch);
void tree_forget_node(struct tree *t, uint64_t id);
void tree_set_complete(struct tree *t, uint64_t id, bool complete);

/* Keep a name; child 0: known to be absent. Not kept when its directory is not here or there is no room; a directory
 * that could not keep a name is complete no longer. */
void tree_put_name(struct tree *t, uint64_t parent, struct text name, uint32_t hash, uint64_t child, uint8_t type);
void tree_forget_name(struct tree *t, uint64_t parent, struct text name, uint32_t hash);

/* Evict about n objects whatever their bit says: for tests. */
void tree_evict(struct tree *t, uint32_t n);

uint64_t tree_bytes(const struct tree *t);
uint64_t tree_names_of(const struct tree *t, uint64_t id); /* names of a directory that are here, absent ones too */
