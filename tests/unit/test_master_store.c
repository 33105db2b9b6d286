/* SPDX-License-Identifier: Apache-2.0 */
/* RocksDB: not for the thread sanitizer. */
/* The data directory and the metadata database of the master. */
#include "meta/master_store.h"

#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#include "base/bytes.h"
#include "base/clock.h"
#include "base/error.h"
#include "base/random.h"
#include "meta/master_dir.h"
#include "meta/master_format.h"
#include "tests/unit/unit.h"

static const struct uuid CLUSTER = {{1, 2, 3}}, OTHER = {{9}};

static char *in_tempdir(const char *name)
{
    static char path[256];
    snprintf(path, sizeof(path), "%s/%s", unit_tempdir(), name);
    return path;
}

static struct master_store *open_store(const char *path, uint64_t cache_bytes)
{
    struct master_store *s;
    struct master_store_options o = {.path = path, .cache_bytes = cache_bytes};
    ck_assert_int_eq(master_store_open(&o, CLUSTER, &s), 0);
    return s;
}

static struct master_store *fresh_store(const char *path)
{
    ck_assert_int_eq(master_store_create(path, CLUSTER), 0);
    return open_store(path, 8 << 20);
}

static struct text be_key(uint64_t k, uint8_t out[8])
{
    put_be64(out, k);
    return (struct text){(char *)out, 8};
}

/* As the core does it: the state row goes with the rows. */
static void add_state(struct master_store *s, struct master_batch *b, uint64_t applied)
{
    uint8_t key[META_KEY_MAX], value[META_STATE_SIZE];
    struct meta_state state = {.applied = applied};
    master_batch_put(s, b, META_FAMILY_small, (struct text){(char *)key, meta_key_state(key)},
                     (struct text){(char *)value, meta_state_encode(&state, value)});
}

/* Write rows first..last to every family but small, and applied = last. */
static void write_rows(struct master_store *s, uint64_t first, uint64_t last)
{
    struct master_batch *b cleanup(master_batch_free_p) = NULL;
    ck_assert_int_eq(master_batch_new(&b), 0);
    for (int f = 0; f < META_FAMILY_small; f++)
        for (uint64_t k = first; k <= last; k++) {
            uint8_t key[8];
            master_batch_put(s, b, (enum meta_family)f, be_key(k, key), TEXT("a value of some length, as rows have"));
        }
    add_state(s, b, last);
    ck_assert_int_eq(master_store_write(s, b, last), 0);
}

static uint64_t count_rows(struct master_store *s, enum meta_family family)
{
    struct master_iter *it cleanup(master_iter_free_p) = NULL;
    ck_assert_int_eq(master_iter_new(s, family, false, &it), 0);
    uint64_t n = 0;
    for (bool more = master_iter_seek(it, TEXT("")); more; more = master_iter_next(it))
        n++;
    ck_assert_int_eq(master_iter_error(it), 0);
    return n;
}

/* ---- the directory ---------------------------------------------------------------------------------------------- */

TEST(directory_is_formatted_once_and_then_opens)
{
    char *path = in_tempdir("master");
    struct master_dir d = MASTER_DIR_NONE;
    ck_assert_int_eq(master_dir_open(path, &d), -CV_NOT_FORMATTED);
    ck_assert_int_eq(master_dir_format(path, CLUSTER), 0);
    ck_assert_int_eq(master_dir_format(path, CLUSTER), -CV_ALREADY_FORMATTED);
    ck_assert_int_eq(master_dir_open(path, &d), 0);
    ck_assert(uuid_equal(d.cluster, CLUSTER));
    ck_assert_uint_ne(d.master, 0);
    struct master_store *s = open_store(d.rows, 8 << 20);
    ck_assert_uint_eq(master_store_flushed(s), 0);
    master_store_free(s);
    master_dir_close(&d);
}

TEST(directory_opens_for_one_process_at_a_time)
{
    char *path = in_tempdir("master");
    struct master_dir d = MASTER_DIR_NONE, again = MASTER_DIR_NONE;
    ck_assert_int_eq(master_dir_format(path, CLUSTER), 0);
    ck_assert_int_eq(master_dir_open(path, &d), 0);
    ck_assert_int_eq(master_dir_open(path, &again), -CV_LOCKED);
    ck_assert_int_eq(master_dir_format(path, CLUSTER), -CV_LOCKED);
    master_dir_close(&d);
    ck_assert_int_eq(master_dir_open(path, &again), 0);
    master_dir_close(&again);
}

TEST(directory_with_something_in_it_is_not_formatted)
{
    char *path = in_tempdir("master");
    ck_assert_int_eq(mkdir(path, 0700), 0);
    char file[300];
    snprintf(file, sizeof(file), "%s/precious", path);
    close(open(file, O_CREAT | O_WRONLY, 0600));
    ck_assert_int_eq(master_dir_format(path, CLUSTER), -ENOTEMPTY);
    ck_assert_int_eq(access(file, F_OK), 0);
    unlink(file);
    ck_assert_int_eq(master_dir_format(path, CLUSTER), 0);
}

static void flip_byte(const char *path, off_t offset)
{
    int fd = open(path, O_RDWR);
    uint8_t c;
    ck_assert_int_eq(pread(fd, &c, 1, offset), 1);
    c ^= 0x40;
    ck_assert_int_eq(pwrite(fd, &c, 1, offset), 1);
    close(fd);
}

TEST(directory_with_a_damaged_ident_is_refused)
{
    char *path = in_tempdir("master");
    ck_assert_int_eq(master_dir_format(path, CLUSTER), 0);
    char ident[300];
    snprintf(ident, sizeof(ident), "%s/%s", path, MASTER_FILE_IDENT);
    struct master_dir d = MASTER_DIR_NONE;
    for (off_t at = 0; at < (off_t)sizeof(struct master_ident); at++) {
        flip_byte(ident, at);
        int r = master_dir_open(path, &d);
        ck_assert_msg(r == -CV_BAD_CHECKSUM || r == -CV_BAD_FORMAT, "byte %d: %d", (int)at, r);
        flip_byte(ident, at);
    }
    ck_assert_int_eq(truncate(ident, 63), 0);
    ck_assert_int_eq(master_dir_open(path, &d), -CV_BAD_FORMAT);
}

/* ---- the database ----------------------------------------------------------------------------------------------- */

TEST(store_refuses_the_rows_of_another_cluster)
{
    char *path = in_tempdir("rows");
    ck_assert_int_eq(master_store_create(path, CLUSTER), 0);
    struct master_store *s;
    struct master_store_options o = {.path = path, .cache_bytes = 8 << 20};
    ck_assert_int_eq(master_store_open(&o, OTHER, &s), -CV_WRONG_CLUSTER);
    o.path = in_tempdir("nothing");
    ck_assert_int_eq(master_store_open(&o, CLUSTER, &s), -CV_NOT_FORMATTED);
}

TEST(store_gives_back_what_was_written)
{
    struct master_store *s = fresh_store(in_tempdir("rows"));
    write_rows(s, 1, 100);
    uint8_t key[8];
    struct master_value v;
    ck_assert_int_eq(master_store_get(s, META_FAMILY_inode, be_key(7, key), &v), 0);
    ck_assert(text_equal(v.text, TEXT("a value of some length, as rows have")));
    master_value_release(&v);
    ck_assert_int_eq(master_store_get(s, META_FAMILY_inode, be_key(101, key), &v), -ENOENT);
    ck_assert_int_eq(master_store_try(s, META_FAMILY_dentry, be_key(7, key), &v), 0);
    master_value_release(&v);

    struct master_batch *b cleanup(master_batch_free_p) = NULL;
    ck_assert_int_eq(master_batch_new(&b), 0);
    master_batch_remove(s, b, META_FAMILY_inode, be_key(7, key));
    add_state(s, b, 101);
    ck_assert_int_eq(master_store_write(s, b, 101), 0);
    ck_assert_int_eq(master_store_get(s, META_FAMILY_inode, be_key(7, key), &v), -ENOENT);
    ck_assert_uint_eq(count_rows(s, META_FAMILY_inode), 99);

    struct master_iter *it cleanup(master_iter_free_p) = NULL;
    ck_assert_int_eq(master_iter_new(s, META_FAMILY_inode, false, &it), 0);
    ck_assert(master_iter_seek(it, be_key(7, key)));
    ck_assert_uint_eq(get_be64(master_iter_key(it).p), 8);
    it = master_iter_free(it);
    master_store_free(s);
}

TEST(store_forgets_what_was_not_flushed_and_keeps_what_was)
{
    char *path = in_tempdir("rows");
    pid_t pid = fork();
    if (pid == 0) {
        struct master_store *s = fresh_store(path);
        write_rows(s, 1, 10);
        ck_assert_uint_eq(master_store_flushed(s), 0);
        ck_assert_int_eq(master_store_flush(s), 0);
        ck_assert_uint_eq(master_store_flushed(s), 10);
        write_rows(s, 11, 20);
        ck_assert_uint_eq(master_store_flushed(s), 10);
        _exit(0); /* without closing */
    }
    int status;
    waitpid(pid, &status, 0);
    ck_assert_int_eq(status, 0);
    struct master_store *s = open_store(path, 8 << 20);
    ck_assert_uint_eq(master_store_flushed(s), 10);
    ck_assert_uint_eq(count_rows(s, META_FAMILY_queue), 10);
    master_store_free(s);
}

/* A cache of nothing much, more rows than fit: try must say "ask the disk" for some, and never a wrong "there is none". */
/* Keys that ascend make files that overlap nothing: RocksDB moves them down as they are, and never puts them together. */
TEST(store_puts_small_files_together)
{
    struct master_store *s = fresh_store(in_tempdir("rows"));
    struct master_store_stats before, after;
    for (uint64_t i = 1; i <= 100; i++) {
        write_rows(s, i * 10, i * 10 + 9);
        ck_assert_int_eq(master_store_flush(s), 0);
    }
    master_store_get_stats(s, &before);
    ck_assert_uint_gt(before.files, 4 * 64); /* the four families with ascending keys */
    master_store_tidy(s);
    master_store_get_stats(s, &after);
    ck_assert_uint_lt(after.files,
                      64); /* some are still on their way down to where it looks, when the machine is busy */
    ck_assert_uint_eq(after.flushed, 1009);
    for (uint64_t k = 10; k < 1010; k++) {
        struct master_value v = {{0}};
        uint8_t key[8];
        ck_assert_int_eq(master_store_get(s, META_FAMILY_extent, be_key(k, key), &v), 0);
        master_value_release(&v);
    }
    s = master_store_free(s);
    s = open_store(in_tempdir("rows"), 8 << 20);
    ck_assert_uint_eq(master_store_flushed(s), 1009);
    master_store_free(s);
}

TEST(store_try_reads_no_disk_and_never_lies)
{
    char *path = in_tempdir("rows");
    struct master_store *s = fresh_store(path);
    write_rows(s, 1, 50000);
    ck_assert_int_eq(master_store_flush(s), 0);
    master_store_free(s);
    s = open_store(path, 64 << 10);
    int asked = 0;
    for (uint64_t k = 1; k <= 50000; k += 97) {
        uint8_t key[8];
        struct master_value v;
        int r = master_store_try(s, META_FAMILY_inode, be_key(k, key), &v);
        ck_assert_msg(r == 0 || r == -EAGAIN, "%d", r);
        asked += r == -EAGAIN;
        if (r == -EAGAIN)
            ck_assert_int_eq(master_store_get(s, META_FAMILY_inode, be_key(k, key), &v), 0);
        master_value_release(&v);
    }
    ck_assert_int_gt(asked, 0);
    uint8_t key[8];
    struct master_value v;
    ck_assert_int_eq(master_store_get(s, META_FAMILY_inode, be_key(70000, key), &v), -ENOENT);
    master_store_free(s);
}

/* ---- kill -9 ----------------------------------------------------------------------------------------------------- */

/* Run fn in a process of its own, which must succeed. RocksDB's threads do not survive a fork, so the parent of
 * processes that write must not have used it before. */
static void in_child(void (*fn)(const char *path, uint64_t arg), const char *path, uint64_t arg)
{
    pid_t pid = fork();
    if (pid == 0) {
        fn(path, arg);
        _exit(0);
    }
    int status;
    waitpid(pid, &status, 0);
    ck_assert_int_eq(status, 0);
}

static void create_it(const char *path, uint64_t arg)
{
    ck_assert_int_eq(master_store_create(path, CLUSTER), 0);
}

/* At least what was said to be flushed is there, and all of it in every family. */
static void check_it(const char *path, uint64_t said)
{
    struct master_store *s = open_store(path, 8 << 20);
    uint64_t applied = master_store_flushed(s);
    ck_assert_uint_ge(applied, said);
    for (int f = 0; f < META_FAMILY_small; f++)
        ck_assert_uint_eq(count_rows(s, (enum meta_family)f), applied);
}

/* Batches of 200 rows in four families, flushed after each, until killed; tells the parent what is flushed. */
static void write_until_killed(const char *path, int out)
{
    struct master_store *s = open_store(path, 8 << 20);
    for (uint64_t at = master_store_flushed(s);; at += 200) {
        write_rows(s, at + 1, at + 200);
        if (master_store_flush(s) < 0)
            _exit(1);
        uint64_t flushed = master_store_flushed(s);
        if (write(out, &flushed, sizeof(flushed)) != sizeof(flushed))
            _exit(1);
    }
}

TEST_TIMEOUT(store_is_never_torn_by_kill_9_during_a_flush, 60)
{
    char path[256];
    snprintf(path, sizeof(path), "%s", in_tempdir("rows"));
    in_child(create_it, path, 0);
    struct prng p = {42};
    uint64_t before = 0;
    for (int round = 0; round < 12; round++) {
        int pipe_fds[2];
        ck_assert_int_eq(pipe(pipe_fds), 0);
        pid_t pid = unit_fork();
        if (pid == 0) {
            close(pipe_fds[0]);
            write_until_killed(path, pipe_fds[1]);
        }
        close(pipe_fds[1]);
        uint64_t said = before, flushed;
        for (uint32_t n = 1 + prng_below(&p, 8); n && read(pipe_fds[0], &flushed, sizeof(flushed)) > 0; n--)
            said = flushed;
        usleep(prng_below(&p, 4000));
        kill(pid, SIGKILL);
        ck_assert(WIFSIGNALED(unit_wait(pid)));
        while (read(pipe_fds[0], &flushed, sizeof(flushed)) == sizeof(flushed))
            said = flushed;
        close(pipe_fds[0]);

        in_child(check_it, path, said);
        before = said;
    }
    ck_assert_uint_gt(before, 0);
}
