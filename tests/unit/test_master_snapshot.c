/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Checkpoints of the metadata database, switching to another state, and a database that becomes another cluster's.
 * RocksDB: not for the thread sanitizer.
 */
#include <errno.h>
#include <stdio.h>
#include <sys/stat.h>

#include "base/error.h"
#include "meta/master_checkpoint.h"
#include "meta/master_dir.h"
#include "tests/unit/unit.h"

static struct uuid cluster;
static char dir[300];

static struct master_store *open_rows(struct master_dir *d)
{
    struct master_store *s;
    struct master_store_options o = {.path = d->rows};
    ck_assert_int_eq(master_store_open(&o, d->cluster, &s), 0);
    return s;
}

/* Rows of a batch that ends at applied: a name, the grants, the state row. */
static void write_state(struct master_store *s, uint64_t applied, uint64_t limit, const char *name)
{
    struct master_batch *b cleanup(master_batch_free_p) = NULL;
    ck_assert_int_eq(master_batch_new(&b), 0);
    uint8_t key[META_KEY_MAX], value[META_STATE_SIZE];
    struct meta_state state = {.applied = applied, .incarnation = 3};
    master_batch_put(s, b, META_FAMILY_dentry, text_of(name), TEXT("x"));
    uint32_t n = meta_key_grant(0, key), v = meta_limit_encode(limit, value);
    master_batch_put(s, b, META_FAMILY_small, (struct text){(char *)key, n}, (struct text){(char *)value, v});
    n = meta_key_state(key);
    v = meta_state_encode(&state, value);
    master_batch_put(s, b, META_FAMILY_small, (struct text){(char *)key, n}, (struct text){(char *)value, v});
    ck_assert_int_eq(master_store_write(s, b, applied), 0);
}

static uint64_t grant_of(struct master_store *s)
{
    uint8_t key[META_KEY_MAX];
    struct master_value v = {{0}};
    uint64_t limit;
    ck_assert_int_eq(master_store_get(s, META_FAMILY_small, (struct text){(char *)key, meta_key_grant(0, key)}, &v), 0);
    ck_assert_int_eq(meta_limit_decode(v.text, &limit), 0);
    master_value_release(&v);
    return limit;
}

static bool has_name(struct master_store *s, const char *name)
{
    struct master_value v = {{0}};
    int r = master_store_get(s, META_FAMILY_dentry, text_of(name), &v);
    master_value_release(&v);
    return r == 0;
}

static struct master_dir make_master(void)
{
    struct master_dir d;
    cluster = uuid_new();
    snprintf(dir, sizeof(dir), "%s/master", unit_tempdir());
    ck_assert_int_eq(master_dir_format(dir, cluster), 0);
    ck_assert_int_eq(master_dir_open(dir, &d), 0);
    ck_assert_str_eq(d.state, "rows");
    return d;
}

TEST(a_checkpoint_holds_what_was_written_and_not_flushed_yet_at_its_applied_index)
{
    struct master_dir d = make_master();
    struct master_store *s = open_rows(&d);
    write_state(s, 41, 1000, "a");
    ck_assert_int_eq(master_store_flush(s), 0);
    write_state(s, 42, 2000, "b");
    struct manifest m;
    ck_assert_int_eq(master_checkpoint_make(s, cluster, dir, MASTER_CHECKPOINT_PREFIX, 0, &m), 0);
    ck_assert_uint_eq(m.index, 42);
    ck_assert_uint_eq(m.incarnation, 3);
    ck_assert(uuid_equal(m.cluster, cluster));
    write_state(s, 43, 3000, "c"); /* not in it */

    char *path cleanup(freep) = master_checkpoint_path(dir, MASTER_CHECKPOINT_PREFIX, 42);
    const char *bad = "";
    ck_assert_int_eq(manifest_verify(path, &m, &bad), 0);
    struct meta_state state;
    ck_assert_int_eq(master_store_peek(path, cluster, &state), 0);
    ck_assert_uint_eq(state.applied, 42);
    ck_assert_int_eq(master_store_peek(path, uuid_new(), &state), -CV_WRONG_CLUSTER);
    ck_assert_int_eq(manifest_verify(path, &m, &bad), 0); /* looking changes nothing */
    manifest_fini(&m);
    master_store_free(s);

    /* Used from now on, also after a restart. */
    master_dir_close(&d);
    ck_assert_int_eq(master_dir_switch(dir, "meta-none"), -ENOENT);
    ck_assert_int_eq(master_dir_switch(dir, "../x"), -EINVAL);
    char name[400];
    snprintf(name, sizeof(name), "%s/meta-42", dir);
    ck_assert_int_eq(rename(path, name), 0);
    ck_assert_int_eq(master_dir_switch(dir, "meta-42"), 0);
    ck_assert_int_eq(master_dir_open(dir, &d), 0);
    ck_assert_str_eq(d.state, "meta-42");
    s = open_rows(&d);
    ck_assert_uint_eq(master_store_flushed(s), 42);
    ck_assert(has_name(s, "a") && has_name(s, "b") && !has_name(s, "c"));
    master_store_free(s);
    master_dir_close(&d);
}

TEST(checkpoints_that_were_not_finished_are_removed_with_the_others)
{
    struct master_dir d = make_master();
    struct master_store *s = open_rows(&d);
    struct manifest m;
    write_state(s, 7, 1000, "a");
    ck_assert_int_eq(master_checkpoint_make(s, cluster, dir, MASTER_BACKUP_PREFIX, 0x11, &m), 0);
    manifest_fini(&m);
    char path[400];
    snprintf(path, sizeof(path), "%s/new.0000000000000001", dir);
    mkdir(path, 0700);
    master_checkpoint_remove_all(dir, MASTER_BACKUP_PREFIX);
    ck_assert_int_lt(access(path, F_OK), 0);
    snprintf(path, sizeof(path), "%s/" MASTER_BACKUP_PREFIX "0000000000000011", dir);
    ck_assert_int_lt(access(path, F_OK), 0);
    ck_assert(has_name(s, "a"));
    master_store_free(s);
    master_dir_close(&d);
}

TEST(a_database_founded_anew_has_the_names_and_hands_out_ids_from_far_above)
{
    struct master_dir d = make_master();
    struct master_store *s = open_rows(&d);
    write_state(s, 9, 5000, "a");
    ck_assert_int_eq(master_store_flush(s), 0);
    master_store_free(s);
    struct uuid other = uuid_new();
    uint64_t applied;
    ck_assert_int_eq(master_store_refound(d.rows, other, other, 1ull << 36, &applied), -CV_WRONG_CLUSTER);
    ck_assert_int_eq(master_store_refound(d.rows, cluster, other, 1ull << 36, &applied), 0);
    ck_assert_uint_eq(applied, 9);
    d.cluster = other;
    s = open_rows(&d);
    ck_assert_uint_eq(grant_of(s), 5000 + (1ull << 36));
    ck_assert_uint_eq(master_store_flushed(s), 9);
    ck_assert(has_name(s, "a"));
    master_store_free(s);
    master_dir_close(&d);
}
