/* SPDX-License-Identifier: Apache-2.0 */
/* Arena, tree, order and delta: the memory of the namespace core. */
#include "tests/unit/meta_rig.h"

#include <dirent.h>

/* --- arena ------------------------------------------------------------------------------------------------------------------ */

TEST(meta_arena_gives_objects_that_do_not_overlap)
{
    enum { N = 20000 };
    struct arena a = {0};
    struct prng prng = {3};
    static uint32_t handles[N], sizes[N];
    for (int i = 0; i < 200000; i++) {
        uint32_t k = prng_below(&prng, N);
        if (handles[k]) {
            uint8_t *p = arena_at(&a, handles[k]);
            bool whole = true; /* an assertion a byte would take its time */
            for (uint32_t j = sizeof(struct arena_object); j < sizes[k]; j++)
                whole &= p[j] == (uint8_t)k;
            ck_assert(whole);
            arena_free(&a, handles[k]);
            handles[k] = 0;
            continue;
        }
        sizes[k] = 8 + prng_below(&prng, prng_below(&prng, 20) ? 200 : ARENA_OBJECT_MAX - 8);
        handles[k] = arena_alloc(&a, sizes[k], UINT32_MAX);
        ck_assert_uint_ne(handles[k], 0);
        ck_assert_uint_le(sizes[k], arena_room(sizes[k]));
        ck_assert_uint_le(arena_room(sizes[k]), sizes[k] + 8 + sizes[k] / 8);
        struct arena_object *o = arena_at(&a, handles[k]);
        memset(o, (uint8_t)k, sizes[k]);
        o->kind = 1;
    }
    uint64_t live = 0, bytes = 0;
    for (int k = 0; k < N; k++)
        if (handles[k]) {
            live++;
            bytes += arena_room(sizes[k]);
            arena_free(&a, handles[k]);
        }
    ck_assert_uint_gt(live, 0);
    ck_assert_uint_eq(a.live_bytes, 0);
    ck_assert_uint_le(bytes, arena_bytes(&a));
    arena_fini(&a);
}

TEST(meta_arena_keeps_its_limit_and_passes_slabs_from_one_size_to_another)
{
    struct arena a = {0};
    uint32_t last = 0, n = 0;
    for (uint32_t h; (h = arena_alloc(&a, 64, 2)) != 0; n++) {
        struct arena_object *o = arena_at(&a, h);
        o->kind = 1;
        o->next = last;
        last = h;
    }
    ck_assert_uint_gt(n, 2 * ARENA_SLAB_BYTES / 64 - 10);
    ck_assert_uint_eq(arena_alloc(&a, 4096, 2), 0);
    while (last) {
        uint32_t next = ((struct arena_object *)arena_at(&a, last))->next;
        arena_free(&a, last);
        last = next;
    }
    ck_assert_uint_ne(arena_alloc(&a, 4096, 2), 0);
    ck_assert_uint_eq(a.slab_count, 2);
    arena_fini(&a);
}

/* --- tree ------------------------------------------------------------------------------------------------------------------- */

static uint32_t name_hash(uint64_t parent, struct text name)
{
    return (uint32_t)hash_bytes(parent, name.p, name.n);
}

static void put_name_of(struct tree *t, uint64_t parent, const char *name, uint64_t child, uint8_t type)
{
    tree_put_name(t, parent, text_of(name), name_hash(parent, text_of(name)), child, type);
}

static const struct name *name_of(const struct tree *t, uint64_t parent, const char *name)
{
    return tree_name(t, parent, text_of(name), name_hash(parent, text_of(name)));
}

TEST(meta_tree_keeps_nodes_and_names)
{
    struct tree t;
    ck_assert_int_eq(tree_init(&t, 1 << 20), 0);
    tree_put_node(&t, 1, true, TEXT("root row"), 5);
    put_name_of(&t, 1, "a", 100, DT_REG);
    put_name_of(&t, 1, "b", 0, 0);
    put_name_of(&t, 2, "c", 101, DT_REG); /* its directory is not here */
    const struct node *n = tree_node(&t, 1);
    ck_assert(n && n->batch == 5 && text_equal(node_row(n), TEXT("root row")));
    ck_assert(name_child(name_of(&t, 1, "a")) == 100 && name_child(name_of(&t, 1, "b")) == 0);
    ck_assert(!name_of(&t, 2, "c") && !name_of(&t, 1, "c") && !tree_node(&t, 100));
    tree_put_node(&t, 1, true, TEXT("a row that is much longer than it was before, so that it has to move"), 6);
    n = tree_node(&t, 1);
    ck_assert_uint_eq(node_row(n).n, 68);
    ck_assert_uint_eq(tree_names_of(&t, 1), 2);
    ck_assert(name_of(&t, 1, "a"));
    tree_put_node(&t, 7, false, (struct text){NULL, 0}, 0);
    ck_assert(tree_node(&t, 7)->flags & NODE_ABSENT);
    tree_put_node(&t, 7, true, TEXT("now it is a directory"), 0);
    ck_assert(!(tree_node(&t, 7)->flags & NODE_ABSENT));
    tree_forget_node(&t, 1); /* its names stay, its row is unknown */
    ck_assert(!tree_node(&t, 1) && name_of(&t, 1, "a"));
    tree_put_node(&t, 1, true, TEXT("row"), 7);
    ck_assert(tree_node(&t, 1));
    tree_fini(&t);
}

TEST(meta_tree_evicts_within_its_budget_and_keeps_the_ways_up)
{
    struct tree t;
    ck_assert_int_eq(tree_init(&t, 1 << 20), 0);
    tree_put_node(&t, META_ROOT, true, TEXT("root"), 0);
    tree_put_node(&t, 2, true, TEXT("directory"), 0);
    put_name_of(&t, META_ROOT, "d", 2, DT_DIR);
    tree_set_complete(&t, 2, true);
    for (uint64_t i = 0; i < 100000; i++) {
        char name[32];
        snprintf(name, sizeof(name), "name-%lu", (unsigned long)i);
        tree_put_node(&t, 100 + i, false, TEXT("a row of some thirty bytes....."), 0);
        put_name_of(&t, 2, name, 100 + i, DT_REG);
        ck_assert_uint_le(tree_bytes(&t), (1 << 20) + (128 << 10));
        if (i < 100)
            ck_assert(tree_node(&t, 2)->flags & NODE_COMPLETE);
        /* Whatever is here can be reached from the root. */
        ck_assert(tree_node(&t, META_ROOT));
        if (tree_names_of(&t, 2))
            ck_assert(tree_node(&t, 2) && name_of(&t, META_ROOT, "d"));
    }
    ck_assert_uint_gt(t.evicted, 100000);
    const struct node *d = tree_node(&t, 2);
    ck_assert(!d || !(d->flags & NODE_COMPLETE)); /* it lost names */
    /* Of another size: memory passes over. */
    char row[600];
    memset(row, 'x', sizeof(row));
    for (uint64_t i = 0; i < 2000; i++) {
        tree_put_node(&t, 500000 + i, false, (struct text){row, sizeof(row)}, 0);
        ck_assert(tree_node(&t, 500000 + i));
    }
    ck_assert_uint_le(tree_bytes(&t), (1 << 20) + (128 << 10));
    tree_fini(&t);
}

TEST(meta_tree_is_complete_no_longer_when_a_name_leaves_or_finds_no_room)
{
    struct tree t;
    ck_assert_int_eq(tree_init(&t, 1 << 20), 0);
    tree_put_node(&t, META_ROOT, true, TEXT("root"), 0);
    tree_set_complete(&t, META_ROOT, true);
    put_name_of(&t, META_ROOT, "a", 5, DT_REG);
    put_name_of(&t, META_ROOT, "b", 6, DT_REG);
    put_name_of(&t, META_ROOT, "b", 0, 0);
    ck_assert(tree_node(&t, META_ROOT)->flags & NODE_COMPLETE);
    ck_assert(!name_of(&t, META_ROOT, "b")); /* complete: it need not be kept as absent */
    tree_forget_name(&t, META_ROOT, TEXT("a"), name_hash(META_ROOT, TEXT("a")));
    ck_assert(!(tree_node(&t, META_ROOT)->flags & NODE_COMPLETE));
    tree_set_complete(&t, META_ROOT, true);
    put_name_of(&t, META_ROOT, "a", 5, DT_REG);
    tree_evict(&t, 100);
    ck_assert(!(tree_node(&t, META_ROOT)->flags & NODE_COMPLETE));
    tree_fini(&t);
}

TEST(meta_tree_that_is_full_of_ways_up_keeps_no_more_names_and_says_so)
{
    struct tree t;
    uint64_t deepest = META_ROOT;
    ck_assert_int_eq(tree_init(&t, 1 << 18), 0);
    tree_put_node(&t, META_ROOT, true, TEXT("root"), 0);
    tree_set_complete(&t, META_ROOT, true);
    for (uint64_t i = 2; tree_node(&t, deepest) && i < 100000; i++) { /* one below the other: none may leave */
        tree_put_node(&t, i, true, TEXT("a directory's row of thirty....."), 0);
        put_name_of(&t, deepest, "down", i, DT_DIR);
        if (!tree_node(&t, i) || !name_of(&t, deepest, "down"))
            break;
        deepest = i;
    }
    ck_assert_uint_gt(deepest, 1000);
    ck_assert(tree_node(&t, META_ROOT)->flags & NODE_COMPLETE);
    int kept = 0;
    for (int i = 0; i < 3000; i++) {
        char name[16];
        snprintf(name, sizeof(name), "n%d", i);
        put_name_of(&t, META_ROOT, name, 500000 + (uint64_t)i, DT_REG);
        kept += name_of(&t, META_ROOT, name) != NULL;
        if (kept <= i) /* one that is not kept, or one that left for it */
            ck_assert(!(tree_node(&t, META_ROOT)->flags & NODE_COMPLETE));
    }
    ck_assert_uint_le(tree_bytes(&t), (1 << 18) + (128 << 10));
    tree_fini(&t);
}

TEST(meta_tree_equals_a_plain_array_under_random_use)
{
    enum { IDS = 500, NAMES = 300 };
    static struct {
        uint32_t n;
        bool directory, known;
        char row[300];
    } nodes[IDS];
    static uint64_t children[IDS][NAMES];
    struct tree t;
    struct prng prng = {11};
    ck_assert_int_eq(tree_init(&t, 64 << 20), 0); /* nothing has to leave */
    for (uint64_t i = 0; i < IDS; i++) {
        nodes[i].directory = i % 3 == 0;
        nodes[i].known = true;
        nodes[i].n = 4;
        memcpy(nodes[i].row, "rowx", 4);
        tree_put_node(&t, i + 1, nodes[i].directory, TEXT("rowx"), 0);
    }
    for (int step = 0; step < 200000; step++) {
        uint32_t i = prng_below(&prng, IDS), k = prng_below(&prng, NAMES);
        char name[16];
        snprintf(name, sizeof(name), "n%u", k);
        switch (prng_below(&prng, 6)) {
        case 0:
            nodes[i].n = 1 + prng_below(&prng, 300);
            memset(nodes[i].row, (int)step, nodes[i].n);
            nodes[i].known = true;
            tree_put_node(&t, i + 1, nodes[i].directory, (struct text){nodes[i].row, nodes[i].n}, 0);
            break;
        case 1:
            if (nodes[i].directory && nodes[i].known) {
                children[i][k] = prng_below(&prng, 1000) + 1;
                put_name_of(&t, i + 1, name, children[i][k], DT_REG);
            }
            break;
        case 2:
            if (nodes[i].directory) {
                children[i][k] = 0;
                tree_forget_name(&t, i + 1, text_of(name), name_hash(i + 1, text_of(name)));
            }
            break;
        case 3:
            if (prng_below(&prng, 20) == 0) {
                nodes[i].known = false;
                tree_forget_node(&t, i + 1);
            }
            break;
        default: {
            const struct node *n = tree_node(&t, i + 1);
            const struct name *e = name_of(&t, i + 1, name);
            ck_assert((n != NULL) == nodes[i].known);
            ck_assert(!n || text_equal(node_row(n), (struct text){nodes[i].row, nodes[i].n}));
            ck_assert_uint_eq(e ? name_child(e) : 0, nodes[i].directory ? children[i][k] : 0);
        }
        }
    }
    for (uint64_t i = 0; i < IDS; i++) {
        uint64_t names = 0, walked = 0;
        for (int k = 0; k < NAMES; k++)
            names += children[i][k] != 0;
        const struct node *n = tree_node(&t, i + 1);
        if (n && nodes[i].directory)
            for (const struct name *e = tree_first(&t, n); e; e = tree_next(&t, e))
                walked++;
        if (n && nodes[i].directory)
            ck_assert_uint_eq(walked, names);
        ck_assert_uint_eq(tree_names_of(&t, i + 1), names);
    }
    tree_fini(&t);
}

/* --- order ------------------------------------------------------------------------------------------------------------------ */

static int text_sort(const void *a, const void *b)
{
    return text_compare(row_key(*(struct row *const *)a), row_key(*(struct row *const *)b));
}

static void order_test(bool sorted, uint32_t n)
{
    struct order o = {0};
    struct prng prng = {n};
    struct row *rows = calloc(n, sizeof(*rows)), **by_key = calloc(n, sizeof(*by_key));
    char *keys = calloc(n, 32);
    for (uint32_t i = 0; i < n; i++) {
        snprintf(keys + 32 * i, 32, "%016lx%06u", (unsigned long)(sorted ? i : prng_next(&prng)), i);
        rows[i] = (struct row){.key = (uint8_t *)keys + 32 * i, .key_n = 22, .table = META_TABLE_dentry};
        by_key[i] = &rows[i];
        ck_assert_int_eq(order_insert(&o, &rows[i]), 0);
    }
    qsort(by_key, n, sizeof(*by_key), text_sort);
    struct order_cursor c = order_seek(&o, META_FAMILY_dentry, (struct text){0});
    for (uint32_t i = 0; i < n; i++, order_next(&c))
        ck_assert_ptr_eq(order_get(&c), by_key[i]);
    ck_assert_ptr_null(order_get(&c));
    for (uint32_t i = 0; i < 1000; i++) { /* from anywhere: a key that is there, and one just before and behind it */
        uint32_t k = prng_below(&prng, n);
        char key[32];
        memcpy(key, by_key[k]->key, 22);
        c = order_seek(&o, META_FAMILY_dentry, (struct text){key, 22});
        ck_assert_ptr_eq(order_get(&c), by_key[k]);
        key[22] = 0;
        c = order_seek(&o, META_FAMILY_dentry, (struct text){key, 23});
        ck_assert_ptr_eq(order_get(&c), k + 1 < n ? by_key[k + 1] : NULL);
        c = order_seek(&o, META_FAMILY_extent, (struct text){key, 22});
        ck_assert_ptr_null(order_get(&c));
        c = order_seek(&o, META_FAMILY_inode, (struct text){key, 22});
        ck_assert_ptr_eq(order_get(&c), by_key[0]);
    }
    order_fini(&o);
    free(rows);
    free(by_key);
    free(keys);
}

TEST(meta_order_gives_rows_in_order_of_keys)
{
    order_test(true, 1);
    order_test(false, 33);
    order_test(true, 20000);
    order_test(false, 20000);
}

TEST(meta_order_takes_runs_of_neighbours_in_any_place)
{
    enum { N = 6000 };
    struct order o = {0};
    struct prng prng = {9};
    static struct row rows[N];
    static char keys[N][16];
    for (uint32_t i = 0, n = 0; n < N; i++) { /* groups of 60 in order, groups in random order */
        uint32_t group = (i * 37) % (N / 60);
        for (uint32_t k = 0; k < 60; k++, n++) {
            snprintf(keys[n], sizeof(keys[n]), "%04u%04u", group, prng_below(&prng, 2) ? k : 59 + k);
            rows[n] = (struct row){.key = (uint8_t *)keys[n], .key_n = 8, .table = META_TABLE_dentry};
            struct order_cursor c = order_seek(&o, META_FAMILY_dentry, row_key(&rows[n]));
            if (order_get(&c) && text_equal(row_key(order_get(&c)), row_key(&rows[n])))
                continue;
            ck_assert_int_eq(order_insert(&o, &rows[n]), 0);
        }
    }
    struct text last = {0};
    uint32_t count = 0;
    for (struct order_cursor c = order_seek(&o, META_FAMILY_dentry, (struct text){0}); order_get(&c); order_next(&c)) {
        ck_assert_int_gt(text_compare(row_key(order_get(&c)), last), 0);
        last = row_key(order_get(&c));
        count++;
    }
    ck_assert_uint_gt(count, N / 2);
    order_fini(&o);
}

/* --- delta ------------------------------------------------------------------------------------------------------------------ */

TEST(meta_delta_gives_each_key_once_sorted_with_the_last_value)
{
    struct rig g;
    struct redo_row row;
    rig_init(&g, NULL);
    for (int i = 0; i < 50; i++) {
        char name[16];
        snprintf(name, sizeof(name), "f%d", (i * 7) % 50);
        make_file(&g, META_ROOT, name);
        rig_commit(&g);
    }
    ck_assert_int_eq(SEND(&g, unlink, .parent = META_ROOT, .name = TEXT("f3")), 0);
    rig_commit(&g);
    struct meta_delta_load load = meta_delta_load(g.m);
    ck_assert(load.rows > 100 && load.operations >= 52 && load.bytes > 10000 && !load.sealed);
    struct meta_delta *d = meta_delta_seal(g.m);
    ck_assert_ptr_nonnull(d);
    ck_assert_ptr_null(meta_delta_seal(g.m)); /* one at a time */
    ck_assert(meta_delta_load(g.m).sealed);
    make_file(&g, META_ROOT, "later"); /* not in it */
    rig_commit(&g);
    for (int round = 0; round < 2; round++) {
        enum meta_family family = 0;
        char last[META_KEY_MAX];
        uint32_t last_n = 0, names = 0, removed = 0, states = 0;
        ck_assert_int_eq(meta_delta_sort(d), 0);
        meta_delta_rewind(d);
        while (meta_delta_next(d, &row)) {
            enum meta_family f = meta_table_family(row.table);
            ck_assert(f > family || (f == family && text_compare(row.key, (struct text){last, last_n}) > 0));
            family = f;
            memcpy(last, row.key.p, row.key.n);
            last_n = row.key.n;
            names += row.table == META_TABLE_dentry;
            removed += row.table == META_TABLE_dentry && row.deleted;
            states += row.table == META_TABLE_state;
            if (row.table == META_TABLE_state) {
                struct meta_state s;
                ck_assert_int_eq(meta_state_decode(row.value, &s), 0);
                ck_assert(s.applied == meta_delta_applied(d) && s.inodes == 50 && s.incarnation == 1);
            }
        }
        ck_assert(names == 50 && removed == 1 && states == 1);
    }
    ck_assert_int_eq(look(&g, META_ROOT, "f4"), 0); /* readers look through it */
    store_write(&g.store, (meta_delta_rewind(d), d));
    meta_delta_written(g.m, d);
    meta_delta_free(d);
    ck_assert_int_eq(look(&g, META_ROOT, "f4"), 0);
    ck_assert_int_eq(look(&g, META_ROOT, "f3"), -ENOENT);
    rig_fini(&g);
}
