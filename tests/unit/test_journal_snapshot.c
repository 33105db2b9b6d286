/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The files of a snapshot on the receiver's side: what is kept, what is damaged, what is removed. RocksDB: not for the
 * thread sanitizer. (The service as a whole: tests/bats/25-snapshots.bats.)
 */
#include "raft/journal_snapshot_internal.h"
#include "tests/unit/journal_log.h"

#include <utime.h>

static char parent[256], source[300], staging[300], target[300];
static struct manifest m;

static const char *in(const char *dir, const char *name)
{
    static char path[1300];
    ck_assert_int_lt(snprintf(path, sizeof(path), "%s/%s", dir, name), (int)sizeof(path));
    return path;
}

static void write_file(const char *dir, const char *name, uint64_t size, uint64_t seed)
{
    FILE *f = fopen(in(dir, name), "w");
    struct prng p = {seed};
    for (uint64_t i = 0; i < size; i++)
        fputc((int)(prng_next(&p) & 0xff), f);
    fclose(f);
}

static uint64_t size_of(const char *dir, const char *name)
{
    struct stat st;
    return stat(in(dir, name), &st) < 0 ? UINT64_MAX : (uint64_t)st.st_size;
}

static void prepare(void)
{
    snprintf(parent, sizeof(parent), "%s/master", unit_tempdir());
    snprintf(source, sizeof(source), "%s/checkpoint-1", parent);
    snprintf(staging, sizeof(staging), "%s/staging", parent);
    snprintf(target, sizeof(target), "%s/meta-1", parent);
    mkdir(parent, 0700);
    mkdir(source, 0700);
    write_file(source, "a.sst", MANIFEST_CHUNK + 1000, 1);
    write_file(source, "b.sst", 3000, 2);
    write_file(source, "empty", 0, 3);
    ck_assert_int_eq(manifest_scan(source, &m), 0);
}

/* Bytes from..to of a file, as they come over the wire. */
static void fetch(uint32_t file, uint64_t from, uint64_t to)
{
    static uint8_t piece[BULK_PIECE];
    const char *path = in(source, m.files[file].name);
    while (from < to) {
        uint32_t n = (uint32_t)min(to - from, (uint64_t)BULK_PIECE), crc;
        ck_assert_int_eq(files_read(path, from, piece, n, &crc), 0);
        ck_assert_uint_eq(crc, crc32c(0, piece, n));
        ck_assert_int_eq(files_write(staging, &m.files[file], from, piece, n), 0);
        from += n;
    }
}

TEST(an_interrupted_transfer_keeps_whole_chunks_and_goes_on_behind_them)
{
    uint64_t have[3];
    prepare();
    ck_assert_int_eq(files_resume(staging, &m, have), 0);
    ck_assert_uint_eq(have[0] + have[1] + have[2], 0);
    ck_assert_uint_eq(size_of(staging, "empty"), 0); /* nothing will come of it */
    fetch(0, 0, MANIFEST_CHUNK + 500);
    write_file(staging, "stranger", 10, 9);
    ck_assert_int_eq(files_resume(staging, &m, have), 0);
    ck_assert_uint_eq(have[0], MANIFEST_CHUNK);
    ck_assert_uint_eq(size_of(staging, "a.sst"), MANIFEST_CHUNK);
    ck_assert_uint_eq(size_of(staging, "stranger"), UINT64_MAX);
    ck_assert_int_eq(files_finish(parent, staging, target, &m), -CV_BAD_CHECKSUM); /* not all is there */
    ck_assert_int_eq(files_resume(staging, &m, have), 0);
    for (uint32_t i = 0; i < 3; i++)
        fetch(i, have[i], m.files[i].size);
    ck_assert_int_eq(files_finish(parent, staging, target, &m), 0);
    ck_assert_int_eq(manifest_verify(target, &m, NULL), 0);
    ck_assert_uint_eq(size_of(parent, "staging"), UINT64_MAX);
    manifest_fini(&m);
}

TEST(a_file_that_arrived_wrong_is_fetched_again_and_the_others_are_kept)
{
    uint64_t have[3];
    prepare();
    ck_assert_int_eq(files_resume(staging, &m, have), 0);
    fetch(0, 0, m.files[0].size);
    fetch(1, 0, 2000);
    ck_assert_int_eq(files_write(staging, &m.files[1], 2000, (const uint8_t *)"wrong", 5), 0);
    ck_assert_int_eq(files_finish(parent, staging, target, &m), -CV_BAD_CHECKSUM);
    ck_assert_uint_eq(size_of(parent, "meta-1"), UINT64_MAX);
    ck_assert_int_eq(files_resume(staging, &m, have), 0);
    ck_assert_uint_eq(have[0], m.files[0].size);
    ck_assert_uint_eq(have[1], 0);
    fetch(1, 0, m.files[1].size);
    ck_assert_int_eq(files_finish(parent, staging, target, &m), 0);
    manifest_fini(&m);
}

TEST(sweeping_removes_states_not_in_use_and_checkpoints_whose_lease_is_over)
{
    static const char *const names[] = {"rows",         "meta-1-1", "meta-2-2", "checkpoint-7",
                                        "checkpoint-8", "ufs",      "staging"};
    prepare();
    for (size_t i = 0; i < array_size(names); i++) {
        char path[400];
        ck_assert_int_lt(snprintf(path, sizeof(path), "%s", in(parent, names[i])), (int)sizeof(path));
        ck_assert_int_eq(mkdir(path, 0700), 0);
        write_file(path, "file", 10, i);
        struct utimbuf old = {.actime = 1000, .modtime = 1000};
        if (i == 3)
            ck_assert_int_eq(utime(path, &old), 0);
    }
    char kept[] = "meta-2-2", *keep[] = {kept, NULL};
    files_sweep(parent, keep, array_size(keep), 600);
    static const bool there[] = {false, false, true, false, true, true, true};
    for (size_t i = 0; i < array_size(names); i++)
        ck_assert_msg((size_of(parent, names[i]) != UINT64_MAX) == there[i], "%s", names[i]);
    manifest_fini(&m);
}

TEST(the_chain_is_known_of_every_entry_and_of_the_one_before_the_first)
{
    const char *dir = test_dir("j");
    struct journal_format format = {.cluster = test_cluster, .node = TEST_NODE};
    ck_assert_int_eq(journal_store_format(dir, &format, NULL), 0);
    struct journal_store *s cleanup(journal_store_free_p) = NULL;
    ck_assert_int_eq(journal_store_open(dir, NULL, NULL, &s), 0);
    append(s, 1, 5, 100);
    uint64_t chain = 1;
    ck_assert_int_eq(journal_store_chain(s, 0, &chain), 0);
    ck_assert_uint_eq(chain, 0);
    ck_assert_int_eq(journal_store_chain(s, 5, &chain), 0);
    ck_assert_uint_eq(chain, journal_store_state(s)->last_chain);
    ck_assert_int_eq(journal_store_chain(s, 6, &chain), -ENOENT);
    ck_assert_int_eq(journal_store_compact(s, 6), 0);
    ck_assert_int_eq(journal_store_chain(s, 5, &chain), 0);
    ck_assert_uint_eq(chain, journal_store_state(s)->base_chain);
    ck_assert_int_eq(journal_store_chain(s, 4, &chain), -ENOENT);
}

TEST(a_log_formatted_behind_an_entry_begins_there_with_its_configuration)
{
    const char *dir = test_dir("j");
    struct raft_conf conf = {.count = 1, .members = {{.id = TEST_NODE, .role = RAFT_VOTER}}};
    uint8_t encoded[RAFT_CONF_ENCODED_MAX];
    struct journal_format format = {.cluster = test_cluster, .node = TEST_NODE, .conf = encoded, .behind = 4711};
    format.conf_size = (uint32_t)raft_conf_encode(&conf, encoded);
    ck_assert_int_eq(journal_store_format(dir, &format, NULL), 0);
    struct journal_store *s cleanup(journal_store_free_p) = NULL;
    ck_assert_int_eq(journal_store_open(dir, NULL, NULL, &s), 0);
    const struct journal_state *t = journal_store_state(s);
    ck_assert_uint_eq(t->first, 4712);
    ck_assert_uint_eq(t->last, 4711);
    ck_assert_uint_eq(t->base_term, 1);
    ck_assert_uint_eq(t->confs[0], 4711);
    append(s, 2, 3, 10);
    ck_assert_uint_eq(t->last, 4714);
}
