/* SPDX-License-Identifier: Apache-2.0 */
#include "meta/meta_tree.h"

#include <assert.h>
#include <dirent.h>
#include <stddef.h>
#include <stdlib.h>
#include <string.h>

#include "base/error.h"
#include "base/hash.h"
#include "meta/meta_format.h"

static_assert(offsetof(struct node, row) == 19, "a node is 19 bytes and its row");
static_assert(offsetof(struct directory, row) == 28, "a directory is 28 bytes and its row");
static_assert(offsetof(struct name, text) == 28, "a name is 28 bytes and its text");
static_assert(offsetof(struct directory, row) + META_INODE_MAX <= ARENA_OBJECT_MAX, "rows fit");

#define SEGMENT     4096u /* buckets */
#define EVICT_SLABS 4     /* slabs looked at before an allocation gives up */

static struct arena_object *object_at(const struct tree *t, uint32_t handle)
{
    return arena_at(&t->arena, handle);
}

/* --- linear hashing ------------------------------------------------------------------------------------------------- */

static uint32_t bucket_of(const struct tree_index *x, uint32_t hash)
{
    uint32_t mask = (2u << (31 - (unsigned)__builtin_clz(x->buckets))) - 1; /* of the power of two above */
    uint32_t bucket = hash & mask;
    return bucket < x->buckets ? bucket : bucket & (mask >> 1);
}

static uint32_t *index_at(const struct tree_index *x, uint32_t bucket)
{
    return &x->segments[bucket / SEGMENT][bucket % SEGMENT];
}

static uint32_t hash_of(const struct tree *t, uint32_t handle)
{
    const struct arena_object *o = object_at(t, handle);
    if (o->kind == TREE_NAME) {
        const struct name *n = (const struct name *)o;
        return (uint32_t)hash_bytes(name_parent(n), n->text, n->object.length);
    }
    return (uint32_t)hash_u64(node_id((const struct node *)o));
}

static int index_add_segment(struct tree_index *x)
{
    uint32_t segment = x->buckets / SEGMENT;
    if (segment == x->segment_room) {
        uint32_t room = x->segment_room ? x->segment_room * 2 : 8;
        uint32_t **segments = realloc(x->segments, room * sizeof(*segments));
        if (!segments)
            return -ENOMEM;
        x->segments = segments;
        x->segment_room = room;
    }
    x->segments[segment] = calloc(SEGMENT, sizeof(uint32_t));
    if (!x->segments[segment])
        return -ENOMEM;
    x->bytes += SEGMENT * sizeof(uint32_t);
    return 0;
}

/* One bucket more: split the one it was folded into. Without memory the chains get longer. */
static int index_grow(const struct tree *t, struct tree_index *x)
{
    if (x->buckets == 1u << 31 || (x->buckets % SEGMENT == 0 && index_add_segment(x) < 0))
        return -ENOMEM;
    uint32_t fresh = x->buckets++;
    uint32_t low = 1u << (31 - (unsigned)__builtin_clz(fresh));
    uint32_t *from = index_at(x, fresh - low), *to = index_at(x, fresh);
    while (*from) {
        struct arena_object *o = object_at(t, *from);
        if (bucket_of(x, hash_of(t, *from)) == fresh) {
            uint32_t handle = *from;
            *from = o->next;
            o->next = *to;
            *to = handle;
        } else {
            from = &o->next;
        }
    }
    return 0;
}

static void index_insert(const struct tree *t, struct tree_index *x, uint32_t hash, uint32_t handle)
{
    for (++x->count; x->count + x->count / 2 > x->buckets && index_grow(t, x) == 0;)
        ;
    uint32_t *bucket = index_at(x, bucket_of(x, hash));
    object_at(t, handle)->next = *bucket;
    *bucket = handle;
}

/* Where the handle stands in its chain. */
static uint32_t *index_link(const struct tree *t, const struct tree_index *x, uint32_t hash, uint32_t handle)
{
    uint32_t *link = index_at(x, bucket_of(x, hash));
    while (*link != handle) {
        assert(*link);
        link = &object_at(t, *link)->next;
    }
    return link;
}

static void index_remove(const struct tree *t, struct tree_index *x, uint32_t handle)
{
    *index_link(t, x, hash_of(t, handle), handle) = object_at(t, handle)->next;
    x->count--;
}

int tree_init(struct tree *t, uint64_t budget)
{
    *t = (struct tree){.budget = budget};
    if (index_add_segment(&t->nodes) < 0 || index_add_segment(&t->names) < 0) {
        tree_fini(t);
        return -ENOMEM;
    }
    t->nodes.buckets = t->names.buckets = 1024; /* the first segment is taken into use step by step too */
    return 0;
}

static void index_fini(struct tree_index *x)
{
    for (uint32_t i = 0; i < (x->bytes / sizeof(uint32_t)) / SEGMENT; i++)
        free(x->segments[i]);
    free(x->segments);
}

void tree_fini(struct tree *t)
{
    index_fini(&t->nodes);
    index_fini(&t->names);
    arena_fini(&t->arena);
    *t = (struct tree){0};
}

/* --- looking -------------------------------------------------------------------------------------------------------- */

static void touch(const struct arena_object *o)
{
    struct arena_object *w = (struct arena_object *)(uintptr_t)o;
    if (!__atomic_load_n(&w->used, __ATOMIC_RELAXED))
        __atomic_store_n(&w->used, 1, __ATOMIC_RELAXED);
}

static uint32_t node_find(const struct tree *t, uint64_t id)
{
    uint32_t handle = *index_at(&t->nodes, bucket_of(&t->nodes, (uint32_t)hash_u64(id)));
    while (handle) {
        const struct node *n = (const struct node *)object_at(t, handle);
        if (n->id_low == (uint32_t)id && node_id(n) == id)
            return handle;
        handle = n->object.next;
    }
    return 0;
}

static struct node *node_at(const struct tree *t, uint32_t handle)
{
    return handle ? (struct node *)object_at(t, handle) : NULL;
}

static struct name *name_at(const struct tree *t, uint32_t handle)
{
    return handle ? (struct name *)object_at(t, handle) : NULL;
}

static struct directory *directory_of(const struct tree *t, uint64_t id)
{
    struct node *n = node_at(t, node_find(t, id));
    return n && n->object.kind == TREE_DIRECTORY ? (struct directory *)n : NULL;
}

const struct node *tree_node(const struct tree *t, uint64_t id)
{
    const struct node *n = node_at(t, node_find(t, id));
    if (!n || n->flags & NODE_UNKNOWN)
        return NULL;
    touch(&n->object);
    return n;
}

static uint32_t name_find(const struct tree *t, uint64_t parent, struct text name, uint32_t hash)
{
    uint32_t handle = *index_at(&t->names, bucket_of(&t->names, hash));
    while (handle) {
        const struct name *n = (const struct name *)object_at(t, handle);
        if (n->parent_low == (uint32_t)parent && n->object.length == name.n && name_parent(n) == parent &&
            memcmp(n->text, name.p, name.n) == 0)
            return handle;
        handle = n->object.next;
    }
    return 0;
}

const struct name *tree_name(const struct tree *t, uint64_t parent, struct text name, uint32_t hash)
{
    const struct name *n = name_at(t, name_find(t, parent, name, hash));
    if (n)
        touch(&n->object);
    return n;
}

const struct name *tree_first(const struct tree *t, const struct node *directory)
{
    assert(directory->object.kind == TREE_DIRECTORY);
    return name_at(t, ((const struct directory *)directory)->first);
}

const struct name *tree_next(const struct tree *t, const struct name *n)
{
    return name_at(t, n->sibling_next);
}

uint64_t tree_names_of(const struct tree *t, uint64_t id)
{
    const struct directory *d = directory_of(t, id);
    return d ? d->names : 0;
}

uint64_t tree_bytes(const struct tree *t)
{
    return arena_bytes(&t->arena) + t->nodes.bytes + t->names.bytes;
}

/* --- leaving -------------------------------------------------------------------------------------------------------- */

static void node_free(struct tree *t, uint32_t handle)
{
    index_remove(t, &t->nodes, handle);
    if (object_at(t, handle)->kind == TREE_DIRECTORY)
        t->directory_count--;
    else
        t->file_count--;
    arena_free(&t->arena, handle);
}

static void name_free(struct tree *t, uint32_t handle)
{
    struct name *n = name_at(t, handle);
    struct directory *d = directory_of(t, name_parent(n));
    assert(d && d->names);
    if (n->sibling_next)
        name_at(t, n->sibling_next)->sibling_previous = n->sibling_previous;
    if (n->sibling_previous)
        name_at(t, n->sibling_previous)->sibling_next = n->sibling_next;
    else
        d->first = n->sibling_next;
    d->names--;
    index_remove(t, &t->names, handle);
    t->name_count--;
    arena_free(&t->arena, handle);
}

/* May the object leave? Then it does. */
static bool evict_one(struct tree *t, uint32_t handle, struct arena_object *o)
{
    if (o->kind == TREE_NAME) {
        const struct name *n = (const struct name *)o;
        if (n->object.type == DT_DIR && directory_of(t, name_child(n)))
            return false; /* the way to a directory that is here */
        if (name_child(n))
            directory_of(t, name_parent(n))->node.flags &= (uint8_t)~NODE_COMPLETE;
        name_free(t, handle);
    } else {
        const struct node *n = (const struct node *)o;
        if (node_id(n) == META_ROOT || (o->kind == TREE_DIRECTORY && ((const struct directory *)n)->names))
            return false;
        node_free(t, handle);
    }
    t->evicted++;
    return true;
}

struct sweep {
    struct tree *t;
    bool all;       /* also what was used */
    uint32_t limit; /* objects that may still leave */
};

static bool sweep_object(void *arg, uint32_t handle, struct arena_object *o)
{
    struct sweep *s = arg;
    bool used = __atomic_load_n(&o->used, __ATOMIC_RELAXED);
    if (used)
        __atomic_store_n(&o->used, 0, __ATOMIC_RELAXED);
    if ((s->all || !used) && evict_one(s->t, handle, o))
        s->limit--;
    return s->limit > 0;
}

static void sweep_slab(struct tree *t, bool all)
{
    struct sweep s = {t, all, UINT32_MAX};
    if (t->hand >= t->arena.slab_count)
        t->hand = 0;
    arena_walk(&t->arena, t->hand++, sweep_object, &s);
}

static uint32_t slab_limit(const struct tree *t)
{
    uint64_t tables = t->nodes.bytes + t->names.bytes;
    uint64_t slabs = t->budget > tables ? (t->budget - tables) / (ARENA_SLAB_BYTES + sizeof(struct arena_slab)) : 0;
    return slabs < 4 ? 4 : slabs > ARENA_SLABS_MAX ? ARENA_SLABS_MAX : (uint32_t)slabs;
}

/* An object of n bytes, evicting others if need be: first what was not used, then, so that memory can pass from one size
 * to another, everything in the slabs at hand. */
static uint32_t tree_alloc(struct tree *t, uint32_t n, uint8_t kind)
{
    uint32_t limit = slab_limit(t), handle = arena_alloc(&t->arena, n, limit);
    for (int i = 0; !handle && i < EVICT_SLABS; i++) {
        sweep_slab(t, i >= EVICT_SLABS / 4);
        handle = arena_alloc(&t->arena, n, limit);
    }
    if (handle) {
        struct arena_object *o = object_at(t, handle);
        o->kind = kind;
        __atomic_store_n(&o->used, 1, __ATOMIC_RELAXED);
    }
    return handle;
}

void tree_evict(struct tree *t, uint32_t n)
{
    struct sweep s = {t, true, n};
    for (uint32_t i = 0; s.limit && i < t->arena.slab_count; i++) {
        if (t->hand >= t->arena.slab_count)
            t->hand = 0;
        arena_walk(&t->arena, t->hand++, sweep_object, &s);
    }
}

/* --- nodes ---------------------------------------------------------------------------------------------------------- */

static uint32_t node_size(bool directory, uint32_t row_n)
{
    uint32_t n = (directory ? offsetof(struct directory, row) : offsetof(struct node, row)) + row_n;
    return n < sizeof(struct node) ? (uint32_t)sizeof(struct node) : n;
}

static void node_fill(struct node *n, struct text row, uint32_t batch)
{
    n->batch = batch;
    n->object.size = (uint16_t)row.n;
    n->flags = (uint8_t)((n->flags & NODE_COMPLETE) | (row.n ? 0 : NODE_ABSENT));
    if (row.n)
        memcpy((uint8_t *)(uintptr_t)node_row(n).p, row.p, row.n);
}

/* A bigger home for a node. The names of a directory know it by id, so only its bucket has to learn the new handle. */
static void node_move(struct tree *t, uint32_t handle, struct text row, uint32_t batch)
{
    struct node *old = node_at(t, handle);
    bool directory = old->object.kind == TREE_DIRECTORY;
    uint64_t id = node_id(old);
    uint32_t fresh = tree_alloc(t, node_size(directory, row.n), old->object.kind);
    handle = node_find(t, id); /* eviction may have taken the old one */
    if (!fresh) {
        if (handle)
            tree_forget_node(t, id);
        return;
    }
    struct node *n = node_at(t, fresh);
    n->flags = 0;
    n->id_low = (uint32_t)id;
    n->id_high = (uint16_t)(id >> 32);
    if (handle) {
        old = node_at(t, handle);
        n->flags = old->flags & NODE_COMPLETE;
        if (directory) {
            ((struct directory *)n)->first = ((struct directory *)old)->first;
            ((struct directory *)n)->names = ((struct directory *)old)->names;
        }
        uint32_t *link = index_link(t, &t->nodes, (uint32_t)hash_u64(id), handle);
        n->object.next = old->object.next;
        *link = fresh;
        arena_free(&t->arena, handle);
    } else {
        if (directory) {
            ((struct directory *)n)->first = ((struct directory *)n)->names = 0;
            t->directory_count++;
        } else {
            t->file_count++;
        }
        index_insert(t, &t->nodes, (uint32_t)hash_u64(id), fresh);
    }
    node_fill(n, row, batch);
}

void tree_put_node(struct tree *t, uint64_t id, bool directory, struct text row, uint32_t batch)
{
    assert(row.n <= META_INODE_MAX && id >> 48 == 0);
    uint32_t handle = node_find(t, id);
    struct node *n = node_at(t, handle);
    if (n && (n->object.kind == TREE_DIRECTORY) != directory) {
        if (row.n == 0) { /* absent: of which kind it was does not matter */
            directory = !directory;
        } else {
            tree_forget_node(t, id); /* it was kept as absent */
            handle = node_find(t, id);
            assert(!handle);
            n = NULL;
        }
    }
    if (n) {
        touch(&n->object);
        if (arena_room(node_size(directory, n->object.size)) == arena_room(node_size(directory, row.n)))
            node_fill(n, row, batch);
        else
            node_move(t, handle, row, batch);
        return;
    }
    handle = tree_alloc(t, node_size(directory, row.n), directory ? TREE_DIRECTORY : TREE_FILE);
    if (!handle)
        return;
    n = node_at(t, handle);
    n->flags = 0;
    n->id_low = (uint32_t)id;
    n->id_high = (uint16_t)(id >> 32);
    if (directory) {
        ((struct directory *)n)->first = ((struct directory *)n)->names = 0;
        t->directory_count++;
    } else {
        t->file_count++;
    }
    node_fill(n, row, batch);
    index_insert(t, &t->nodes, (uint32_t)hash_u64(id), handle);
}

void tree_forget_node(struct tree *t, uint64_t id)
{
    uint32_t handle = node_find(t, id);
    struct node *n = node_at(t, handle);
    if (!n)
        return;
    if (n->object.kind == TREE_DIRECTORY && ((struct directory *)n)->names)
        n->flags = NODE_UNKNOWN;
    else
        node_free(t, handle);
}

void tree_set_complete(struct tree *t, uint64_t id, bool complete)
{
    struct directory *d = directory_of(t, id);
    if (d)
        d->node.flags = (uint8_t)((d->node.flags & ~NODE_COMPLETE) | (complete ? NODE_COMPLETE : 0));
}

/* --- names ---------------------------------------------------------------------------------------------------------- */

static void name_fill(struct name *n, uint64_t child, uint8_t type)
{
    n->child_low = (uint32_t)child;
    n->child_high = (uint16_t)(child >> 32);
    n->object.type = type;
}

void tree_put_name(struct tree *t, uint64_t parent, struct text name, uint32_t hash, uint64_t child, uint8_t type)
{
    uint32_t handle = name_find(t, parent, name, hash);
    if (handle) {
        struct name *n = name_at(t, handle);
        struct directory *d = directory_of(t, parent);
        touch(&n->object);
        if (child == 0 && d->node.flags & NODE_COMPLETE)
            name_free(t, handle); /* what is not here does not exist */
        else
            name_fill(n, child, type);
        return;
    }
    struct directory *d = directory_of(t, parent);
    if (!d || (child == 0 && d->node.flags & NODE_COMPLETE))
        return;
    handle = tree_alloc(t, (uint32_t)offsetof(struct name, text) + name.n, TREE_NAME);
    d = directory_of(t, parent); /* eviction may have taken it */
    if (!handle || !d) {
        if (d && child)
            d->node.flags &= (uint8_t)~NODE_COMPLETE;
        if (handle)
            arena_free(&t->arena, handle);
        return;
    }
    struct name *n = name_at(t, handle);
    n->object.length = (uint8_t)name.n;
    memcpy(n->text, name.p, name.n);
    n->parent_low = (uint32_t)parent;
    n->parent_high = (uint16_t)(parent >> 32);
    name_fill(n, child, type);
    n->sibling_previous = 0;
    n->sibling_next = d->first;
    if (d->first)
        name_at(t, d->first)->sibling_previous = handle;
    d->first = handle;
    d->names++;
    t->name_count++;
    index_insert(t, &t->names, hash, handle);
}

void tree_forget_name(struct tree *t, uint64_t parent, struct text name, uint32_t hash)
{
    struct directory *d = directory_of(t, parent);
    uint32_t handle = name_find(t, parent, name, hash);
    if (d)
        d->node.flags &= (uint8_t)~NODE_COMPLETE;
    if (handle)
        name_free(t, handle);
}
