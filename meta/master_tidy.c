/* SPDX-License-Identifier: Apache-2.0 */
#include "meta/master_tidy.h"

#include <stdbool.h>
#include <stdint.h>
#include <string.h>

/* Files first..last of the list. */
struct run {
    int first, last;
};

static bool is_of(const rocksdb_livefiles_t *files, int i, const char *name, int level)
{
    return rocksdb_livefiles_level(files, i) == level &&
           strcmp(rocksdb_livefiles_column_family_name(files, i), name) == 0;
}

/* 0: all its files are still where flushes put them. */
static int lowest_level(const rocksdb_livefiles_t *files, int count, const char *name)
{
    int lowest = 0;
    for (int i = 0; i < count; i++)
        if (strcmp(rocksdb_livefiles_column_family_name(files, i), name) == 0 &&
            rocksdb_livefiles_level(files, i) > lowest)
            lowest = rocksdb_livefiles_level(files, i);
    return lowest;
}

/* Files come by level, and in a level below the first by key. */
static unsigned longest_run(const rocksdb_livefiles_t *files, int count, const char *name, int level, struct run *ret)
{
    unsigned longest = 0, n = 0;
    int first = 0;
    for (int i = 0; i < count; i++) {
        if (!is_of(files, i, name, level))
            continue;
        if (rocksdb_livefiles_size(files, i) >= TIDY_SMALL_BYTES || n == TIDY_RUN_MAX) {
            n = 0;
            continue;
        }
        first = n++ ? first : i;
        if (n > longest) {
            longest = n;
            *ret = (struct run){first, i};
        }
    }
    return longest;
}

unsigned master_tidy(rocksdb_t *db, rocksdb_column_family_handle_t *family, const char *name)
{
    enum { FORCE = 2 }; /* rocksdb::BottommostLevelCompaction: the lowest level is rewritten too */
    const rocksdb_livefiles_t *files = rocksdb_livefiles(db);
    int count = rocksdb_livefiles_count(files), level = lowest_level(files, count, name);
    struct run run = {0, 0};
    unsigned n = level ? longest_run(files, count, name, level, &run) : 0;
    if (n >= TIDY_RUN_MIN) {
        size_t from_size, to_size;
        const char *from = rocksdb_livefiles_smallestkey(files, run.first, &from_size);
        const char *to = rocksdb_livefiles_largestkey(files, run.last, &to_size);
        rocksdb_compactoptions_t *o = rocksdb_compactoptions_create();
        rocksdb_compactoptions_set_exclusive_manual_compaction(o, 0);
        rocksdb_compactoptions_set_bottommost_level_compaction(o, FORCE);
        rocksdb_compact_range_cf_opt(db, family, o, from, from_size, to, to_size);
        rocksdb_compactoptions_destroy(o);
    }
    rocksdb_livefiles_destroy(files);
    return n >= TIDY_RUN_MIN ? n : 0;
}
