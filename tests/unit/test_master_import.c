/* SPDX-License-Identifier: Apache-2.0 */
/* Names on their way from an under file system: the thread ufs with directories of this machine, and a sink of the test's. */
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/clock.h"
#include "base/error.h"
#include "meta/master_import.h"
#include "meta/master_import_names.h"
#include "tests/unit/unit.h"

/* ---- keys to names ------------------------------------------------------------------------------------------------------ */

struct collected {
    char text[4096];
    unsigned skipped;
};

static int collect(void *arg, struct text name, struct text component, const struct ufs_entry *e)
{
    struct collected *c = arg;
    size_t n = strlen(c->text);
    snprintf(c->text + n, sizeof(c->text) - n, TEXT_FMT "%s ", TEXT_ARG(name), e->type == UFS_DIRECTORY ? "/" : "");
    return 0;
}

static void collect_skipped(void *arg, struct text component)
{
    ((struct collected *)arg)->skipped++;
}

static struct collected names_of(const char *const *keys)
{
    struct collected c = {0};
    const struct import_names_out out = {&c, collect, collect_skipped};
    struct import_names n;
    import_names_init(&n);
    for (; *keys; keys++) {
        struct ufs_entry e = {.type = strchr(*keys, '/') ? UFS_DIRECTORY : **keys == '@' ? UFS_SYMLINK : UFS_FILE};
        ck_assert_int_eq(import_names_add(&n, text_of(*keys), &e, &out), 0);
    }
    ck_assert_int_eq(import_names_end(&n, &out), 0);
    import_names_fini(&n);
    return c;
}

TEST(import_names_of_objects_beside_directories)
{
    const char *const keys[] = {"a", "a!", "a!/", "a-b", "a-b!", "a/", "a0", "b/", NULL};
    struct collected c = names_of(keys);
    ck_assert_str_eq(c.text, "%~=a! a!/ %~=a a-b a-b! a/ a0 b/ ");
    ck_assert_uint_eq(c.skipped, 0);
}

TEST(import_names_that_cannot_be)
{
    char large[400] = {0};
    memset(large, 'x', 300);
    const char *const keys[] = {"", "..", "/", "@link", large, "%~x", NULL};
    struct collected c = names_of(keys);
    ck_assert_uint_eq(c.skipped, 2);
    ck_assert_ptr_nonnull(strstr(c.text, "%~=%~ ")); /* the object "a/", beside "a//..." */
    ck_assert_ptr_nonnull(strstr(c.text, " %~/ "));
    ck_assert_ptr_nonnull(strstr(c.text, "%~.. "));
    ck_assert_ptr_nonnull(strstr(c.text, "%~%%~x "));
}

/* ---- a thread ufs over one directory --------------------------------------------------------------------------------------- */

struct rig {
    struct master_ufs *ufs;
    struct master_import *import;
    char dir[100], uri[120];
    struct loop *net; /* of those who wait */
    _Atomic int fail; /* what the sink answers */
    _Atomic uint32_t names, batches, completes, with_sink, most_with_sink;
    _Atomic bool hold, gone;
    _Atomic uint32_t places;
    const char *_Atomic prefixes[64];
};

struct rig_job {
    struct loop_job job;
    struct rig *k;
    struct master_import_batch *b;
};

static void rig_finish(struct loop_job *job)
{
    struct rig_job *j = container_of(job, struct rig_job, job);
    if (j->k->hold) {
        loop_post(master_ufs_loop(j->k->ufs), job);
        usleep(500);
        return;
    }
    j->k->with_sink--;
    master_import_done(j->b, j->k->fail);
    free(j);
}

/* Directories of the tests: inode 5 and the length of their prefix. */
struct place_job {
    struct loop_job job;
    struct master_import_place *p;
    struct rig *k;
};

static void rig_place_run(struct loop_job *job)
{
    struct place_job *j = container_of(job, struct place_job, job);
    j->p->mount = 1;
    j->p->prefix = text_of(j->k->prefixes[j->p->directory - 5]);
    master_import_placed(j->p, j->p->prefix.p ? 0 : -ENODATA);
    free(j);
}

static void rig_place(void *arg, struct master_import_place *p)
{
    struct rig *k = arg;
    struct place_job *j = calloc(1, sizeof(*j));
    *j = (struct place_job){{.run = rig_place_run}, p, k};
    k->places++;
    loop_post(master_ufs_loop(k->ufs), &j->job);
}

static void rig_import(void *arg, struct master_import_batch *b)
{
    struct rig *k = arg;
    struct rig_job *j = calloc(1, sizeof(*j));
    *j = (struct rig_job){.job.run = rig_finish, .k = k, .b = b};
    k->batches++;
    k->names += b->count;
    k->completes += b->complete;
    k->with_sink++;
    k->most_with_sink = max((uint32_t)k->most_with_sink, (uint32_t)k->with_sink);
    ck_assert_uint_le(b->count, IMPORT_NAMES);
    for (uint32_t i = 0; i < b->count; i++)
        ck_assert(b->names[i].name.n > 0 && !memchr(b->names[i].name.p, '/', b->names[i].name.n));
    loop_post(master_ufs_loop(k->ufs), &j->job);
}

static int rig_describe(void *arg, uint32_t mount, struct rec_mount *ret, struct buf *texts)
{
    struct rig *k = arg;
    if (mount != 1 || k->gone)
        return -ENOENT;
    *ret = (struct rec_mount){.mount = 1, .uri = text_of(k->uri)};
    return 0;
}

static void rig_init(struct rig *k)
{
    memset(k, 0, sizeof(*k));
    snprintf(k->dir, sizeof(k->dir), "%s", unit_tempdir());
    snprintf(k->uri, sizeof(k->uri), "file://%s", k->dir);
    ck_assert_int_eq(master_ufs_new(LOOP_AUTO, &k->ufs), 0);
    master_ufs_set_describe(k->ufs, rig_describe, k);
    const struct master_import_sink sink = {k, rig_import, rig_place};
    ck_assert_int_eq(master_import_new(k->ufs, &sink, &k->import), 0);
    ck_assert_int_eq(master_ufs_start(k->ufs), 0);
    ck_assert_int_eq(loop_new(&(struct loop_options){.name = "net"}, &k->net), 0);
    ck_assert_int_eq(loop_start(k->net), 0);
}

static void rig_fini(struct rig *k)
{
    master_import_stop(k->import);
    k->hold = false;
    master_import_end(k->import);
    master_ufs_stop(k->ufs);
    master_import_free(k->import);
    master_ufs_free(k->ufs);
    loop_stop(k->net);
    loop_join(k->net);
    loop_free(k->net);
}

static void make(struct rig *k, const char *name)
{
    char path[300];
    snprintf(path, sizeof(path), "%s/%s", k->dir, name);
    if (name[strlen(name) - 1] == '/') {
        ck_assert_int_eq(mkdir(path, 0755), 0);
        return;
    }
    int fd = open(path, O_CREAT | O_WRONLY, 0644);
    ck_assert_int_ge(fd, 0);
    close(fd);
}

struct waiter {
    struct master_import_wait w;
    _Atomic bool over, cancelled;
};

static void waiter_over(struct loop_job *job)
{
    container_of(container_of(job, struct master_import_wait, job), struct waiter, w)->over = true;
}

static struct waiter *want(struct rig *k, const char *prefix, const char *name, uint32_t ms)
{
    struct waiter *w = calloc(1, sizeof(*w));
    k->prefixes[strlen(prefix)] = prefix;
    w->w = (struct master_import_wait){
        .directory = 5 + strlen(prefix),
        .name = text_of(name),
        .deadline_ns = clock_ns() + ms * NS_PER_MS,
        .cancelled = &w->cancelled,
        .loop = k->net,
        .job.run = waiter_over,
    };
    master_import_want(k->import, &w->w);
    return w;
}

static int finish(struct waiter *w)
{
    until(w->over);
    int r = w->w.result;
    free(w);
    return r;
}

static struct master_import_stats stats(struct rig *k)
{
    struct master_import_stats s;
    master_import_get_stats(k->import, &s);
    return s;
}

TEST(import_asks_for_one_name)
{
    struct rig k;
    rig_init(&k);
    make(&k, "a");
    make(&k, "d/");
    make(&k, "d/b");
    ck_assert_int_eq(finish(want(&k, "", "a", 5000)), 0);
    ck_assert_int_eq(finish(want(&k, "", "d", 5000)), 0);
    ck_assert_int_eq(finish(want(&k, "d/", "b", 5000)), 0);
    ck_assert_uint_eq(k.names, 3);
    ck_assert_int_eq(finish(want(&k, "", "no", 5000)), -ENOENT);
    ck_assert_int_eq(finish(want(&k, "", "%~bad", 5000)), -ENOENT);
    ck_assert_int_eq(finish(want(&k, "a//", "x", 5000)), -ENOENT); /* a file by now */
    ck_assert_uint_eq(k.names, 3);
    ck_assert_uint_eq(k.completes, 0);
    ck_assert_uint_eq(k.places, 3);
    rig_fini(&k);
}

TEST(import_knows_no_names_of_what_is_not_below_a_mount)
{
    struct rig k;
    rig_init(&k);
    struct waiter *w = calloc(1, sizeof(*w));
    w->w = (struct master_import_wait){
        .directory = 9, .name = TEXT("x"), .deadline_ns = UINT64_MAX, .loop = k.net, .job.run = waiter_over};
    master_import_want(k.import, &w->w);
    ck_assert_int_eq(finish(w), -ENOENT);
    rig_fini(&k);
}

TEST(import_lists_a_directory_for_all_who_wait)
{
    struct rig k;
    rig_init(&k);
    char name[20];
    for (int i = 0; i < 1234; i++) {
        snprintf(name, sizeof(name), "f%d", i);
        make(&k, name);
    }
    k.hold = true;
    struct waiter *w[50];
    for (int i = 0; i < 50; i++)
        w[i] = want(&k, "", "", 20000);
    until(k.batches == 1);
    ck_assert(!w[0]->over);
    k.hold = false;
    for (int i = 0; i < 50; i++)
        ck_assert_int_eq(finish(w[i]), 0);
    ck_assert_uint_eq(k.names, 1234);
    ck_assert_uint_eq(k.batches, 3);
    ck_assert_uint_eq(k.completes, 1);
    ck_assert_uint_eq(k.most_with_sink, 1);
    ck_assert_uint_eq(stats(&k).listings, 1);
    ck_assert_int_eq(finish(want(&k, "gone/", "", 5000)), -ENOENT);
    rig_fini(&k);
}

TEST(import_of_an_empty_directory_says_that_it_is_complete)
{
    struct rig k;
    rig_init(&k);
    ck_assert_int_eq(finish(want(&k, "", "", 5000)), 0);
    ck_assert_uint_eq(k.names, 0);
    ck_assert_uint_eq(k.completes, 1);
    rig_fini(&k);
}

TEST(import_lists_when_many_single_names_are_asked_for)
{
    struct rig k;
    rig_init(&k);
    char name[20];
    for (int i = 0; i < 30; i++) {
        snprintf(name, sizeof(name), "f%d", i);
        make(&k, name);
        ck_assert_int_eq(finish(want(&k, "", name, 5000)), 0);
    }
    ck_assert_uint_ge(stats(&k).listings, 1); /* on a slow machine the second may end in between */
    ck_assert_uint_lt(stats(&k).looks, 30);
    rig_fini(&k);
}

TEST(import_keeps_deadlines_and_notices_that_nobody_waits)
{
    struct rig k;
    rig_init(&k);
    make(&k, "a");
    k.hold = true;
    struct waiter *w = want(&k, "", "a", 100), *gone = want(&k, "", "", 20000), *long_one = want(&k, "", "", 20000);
    ck_assert_int_eq(finish(w), -CV_DEADLINE);
    gone->cancelled = true;
    ck_assert_int_eq(finish(gone), -CV_CANCELLED);
    ck_assert(!long_one->over);
    k.hold = false;
    ck_assert_int_eq(finish(long_one), 0);
    until(stats(&k).waiting == 0); /* who waited is told first */
    rig_fini(&k);
}

TEST(import_waits_for_a_name_alone_while_a_long_listing_goes_on)
{
    struct rig k;
    rig_init(&k);
    make(&k, "a");
    struct waiter *w[20];
    for (int i = 0; i < 9; i++)
        ck_assert_int_eq(finish(want(&k, "", "a", 5000)), 0); /* the last begins a listing */
    k.hold = true;
    uint64_t looks = stats(&k).looks;
    w[0] = want(&k, "", "a", 20000);
    until(stats(&k).looks == looks + 1);
    k.hold = false;
    ck_assert_int_eq(finish(w[0]), 0);
    rig_fini(&k);
}

TEST(import_tells_what_the_under_file_system_said)
{
    struct rig k;
    struct buf why = {0};
    rig_init(&k);
    char uri[sizeof(k.uri)];
    memcpy(uri, k.uri, sizeof(uri));
    snprintf(k.uri, sizeof(k.uri), "ftp://nowhere");
    ck_assert_int_eq(finish(want(&k, "", "a", 5000)), -CV_UFS_FAILED);
    ck_assert_int_eq(finish(want(&k, "", "", 5000)), -CV_UFS_FAILED);
    ck_assert_uint_eq(stats(&k).listings_failed, 1);
    ck_assert_int_eq(master_ufs_failing(k.ufs, 1, &why), 0);
    ck_assert_int_eq(buf_append(&why, "", 1), 0);
    ck_assert_ptr_nonnull(strstr((char *)why.p, "ftp://"));
    memcpy(k.uri, uri, sizeof(uri));
    make(&k, "a");
    ck_assert_int_eq(finish(want(&k, "", "a", 5000)), 0);
    why.n = 0;
    ck_assert_int_eq(master_ufs_failing(k.ufs, 1, &why), 0);
    ck_assert_uint_eq(why.n, 0);
    k.fail = -CV_NOT_LEADER;
    ck_assert_int_eq(finish(want(&k, "", "a", 5000)), -CV_NOT_LEADER);
    ck_assert_int_eq(finish(want(&k, "", "", 5000)), -CV_NOT_LEADER);
    k.fail = 0;
    k.gone = true;
    master_ufs_mounts_changed(k.ufs);
    ck_assert_int_eq(finish(want(&k, "", "a", 5000)), -ENOENT);
    struct master_ufs_stats s;
    master_ufs_get_stats(k.ufs, &s);
    ck_assert_uint_eq(s.open, 0);
    ck_assert_uint_ge(s.requests, 1);
    buf_fini(&why);
    rig_fini(&k);
}

TEST(import_stops_with_all_that_is_under_way)
{
    struct rig k;
    rig_init(&k);
    char name[20], dirs[12][20];
    struct waiter *w[12];
    for (int i = 0; i < 1200; i++) {
        snprintf(name, sizeof(name), "f%d", i);
        make(&k, name);
    }
    k.hold = true;
    for (int i = 0; i < 6; i++)
        w[i] = want(&k, "", "", 20000);
    for (int i = 6; i < 12; i++) { /* more listings than may run at once */
        snprintf(dirs[i], sizeof(dirs[i]), "%0*d/", i, 0);
        make(&k, dirs[i]);
        w[i] = want(&k, dirs[i], i % 2 ? "" : "x", 20000);
        until(stats(&k).waiting > 0);
    }
    master_import_stop(k.import);
    for (int i = 0; i < 12; i++) {
        int r = finish(w[i]);
        ck_assert_msg(r == -CV_STOPPING || r == -ENOENT || r == 0, "%d", r);
    }
    ck_assert_int_eq(finish(want(&k, "", "", 20000)), -CV_STOPPING);
    rig_fini(&k);
}

/* ---- preflight ---------------------------------------------------------------------------------------------------------- */

struct checked {
    _Atomic bool over;
};

static void check_over(struct master_ufs_check *c)
{
    ((struct checked *)c->arg)->over = true;
}

static int preflight(struct rig *k, const char *uri, char *message)
{
    struct checked over = {0};
    struct master_ufs_check *c;
    struct wire_list none = {0};
    ck_assert_int_eq(master_ufs_check_new(text_of(uri), &none, &c), 0);
    c->done = check_over;
    c->arg = &over;
    master_ufs_check(k->ufs, c);
    until(over.over);
    int r = c->result;
    strcpy(message, c->message);
    master_ufs_check_free(c);
    return r;
}

TEST(ufs_preflight_says_what_is_wrong)
{
    struct rig k;
    char message[400];
    rig_init(&k);
    ck_assert_int_eq(preflight(&k, k.uri, message), 0);
    ck_assert_str_eq(message, "");
    ck_assert_int_eq(preflight(&k, "file:///nowhere/at/all", message), -ENOENT);
    ck_assert_ptr_nonnull(strstr(message, "/nowhere/at/all"));
    ck_assert_int_eq(preflight(&k, "gopher://x", message), -EPROTONOSUPPORT);
    ck_assert_ptr_nonnull(strstr(message, "gopher"));
    struct master_ufs_check *c;
    struct wire_list none = {0};
    ck_assert_int_eq(master_ufs_check_new((struct text){"a\0b", 3}, &none, &c), -EINVAL);
    rig_fini(&k);
}
