/* SPDX-License-Identifier: Apache-2.0 */
/* Shared by the journal's tests: entries whose payload follows from their index, and files to damage. */
#pragma once

#include <dirent.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/error.h"
#include "base/hash.h"
#include "base/random.h"
#include "raft/journal_store.h"
#include "tests/unit/unit.h"

static const struct uuid test_cluster = {{1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15, 16}};

enum { TEST_NODE = 0x77, TEST_PAYLOAD_MAX = 70000 };

static inline void make_entry(struct journal_entry *e, uint8_t *data, uint64_t index, uint64_t term, uint32_t size)
{
    struct prng p = {index * 31 + term};
    for (uint32_t i = 0; i < size; i++)
        data[i] = (uint8_t)prng_next(&p);
    *e = (struct journal_entry){.index = index,
                                .term = term,
                                .data = data,
                                .size = size,
                                .op_count = 3,
                                .data_crc = crc32c(0, data, size),
                                .type = RAFT_BATCH};
}

/* Add one unit of count entries behind the last one. */
static inline int add_entries(struct journal_store *s, uint64_t term, uint32_t count, uint32_t size)
{
    uint64_t next = journal_store_state(s)->last + 1;
    struct journal_entry *e = calloc(count, sizeof(*e)), **list = calloc(count, sizeof(*list));
    uint8_t *data = malloc((size_t)count * size + 1);
    for (uint32_t i = 0; i < count; i++) {
        make_entry(&e[i], data + (size_t)i * size, next + i, term, size);
        list[i] = &e[i];
    }
    struct journal_unit unit = {.term = term, .vote = TEST_NODE, .entries = list, .count = count};
    int r = journal_store_add(s, &unit);
    free(data);
    free(list);
    free(e);
    return r;
}

static inline void append(struct journal_store *s, uint64_t term, uint32_t count, uint32_t size)
{
    ck_assert_int_eq(add_entries(s, term, count, size), 0);
    ck_assert_int_eq(journal_store_sync(s, 0), 0);
}

/* Is the entry what make_entry made? */
static inline void check_entry_data(const struct journal_entry *e, uint64_t index, uint64_t term)
{
    static uint8_t data[TEST_PAYLOAD_MAX];
    struct journal_entry expected;
    make_entry(&expected, data, index, term, e->size);
    ck_assert_uint_eq(e->index, index);
    ck_assert_uint_eq(e->term, term);
    ck_assert_int_eq(memcmp(e->data, data, e->size), 0);
}

/* A path in the test's directory; stays valid. */
static inline const char *test_dir(const char *name)
{
    static char path[32][200];
    char wanted[200];
    snprintf(wanted, sizeof(wanted), "%s/%s", unit_tempdir(), name);
    uint32_t i = 0;
    while (path[i][0] && strcmp(path[i], wanted) != 0)
        i++;
    ck_assert_uint_lt(i, 32);
    return strcpy(path[i], wanted);
}

static inline void format_log(const char *dir)
{
    struct journal_format format = {.cluster = test_cluster, .node = TEST_NODE};
    format.conf = (const uint8_t *)"founding";
    format.conf_size = 8;
    struct buf why = {0};
    int r = journal_store_format(dir, &format, &why);
    ck_assert_msg(r == 0, "format: %d %.*s", r, (int)why.n, (const char *)why.p);
    buf_fini(&why);
}

/* Open it; r is what is expected, text a part of the reason. */
static inline struct journal_store *open_log_expect(const char *dir, int expected, const char *text)
{
    struct buf why = {0};
    struct journal_store *s = NULL;
    int r = journal_store_open(dir, NULL, &why, &s);
    (void)buf_append(&why, "", 1);
    ck_assert_msg(r == expected, "open: %d (%s), not %d: %s", r, cv_error_text(r), expected, (const char *)why.p);
    if (text)
        ck_assert_msg(strstr((const char *)why.p, text) != NULL, "reason without '%s': %s", text, (const char *)why.p);
    buf_fini(&why);
    return s;
}

static inline struct journal_store *open_log(const char *dir)
{
    return open_log_expect(dir, 0, NULL);
}

/* The newest file of dir/log whose name ends in suffix, into path. Returns its size. */
static inline uint64_t newest_file(const char *dir, const char *suffix, char *path, size_t path_size)
{
    char folder[256], best[300] = "";
    snprintf(folder, sizeof(folder), "%s/log", dir);
    DIR *d = opendir(folder);
    ck_assert_ptr_nonnull(d);
    for (struct dirent *e; (e = readdir(d));) {
        size_t n = strlen(e->d_name), m = strlen(suffix);
        if (n > m && strcmp(e->d_name + n - m, suffix) == 0 && strcmp(e->d_name, best) > 0)
            snprintf(best, sizeof(best), "%s", e->d_name);
    }
    closedir(d);
    ck_assert_msg(best[0], "no *%s in %s", suffix, folder);
    snprintf(path, path_size, "%s/%s", folder, best);
    struct stat st;
    ck_assert_int_eq(stat(path, &st), 0);
    return (uint64_t)st.st_size;
}

static inline void flip_byte(const char *path, uint64_t offset)
{
    int fd = open(path, O_RDWR);
    uint8_t b;
    ck_assert_int_eq(pread(fd, &b, 1, (off_t)offset), 1);
    b ^= 0x40;
    ck_assert_int_eq(pwrite(fd, &b, 1, (off_t)offset), 1);
    close(fd);
}

static inline void copy_dir(const char *from, const char *to)
{
    char command[600];
    snprintf(command, sizeof(command), "cp -a %s %s", from, to);
    ck_assert_int_eq(system(command), 0);
}

/* Everything in first..last reads back; entry 1 is the founding configuration. */
static inline void check_whole(const struct journal_store *s)
{
    const struct journal_state *t = journal_store_state(s);
    struct journal_read read = {.count = 0};
    for (uint64_t at = max(t->first, (uint64_t)2); at <= t->last; at += read.count) {
        ck_assert_int_eq(journal_store_read(s, at, t->last, 1 << 20, &read), 0);
        for (uint32_t i = 0; i < read.count; i++)
            check_entry_data(&read.entries[i], at + i, journal_state_term(t, at + i));
    }
    journal_read_fini(&read);
    struct journal_check check = {.problem = NULL};
    ck_assert_int_eq(journal_check_entries(journal_store_db(s), t, t->first, &check), 0);
    ck_assert_uint_eq(check.entries, t->last + 1 - t->first);
}
