/* SPDX-License-Identifier: Apache-2.0 */
/* A master whose disk is nearly full, or full: it hands over and comes back (not for the thread sanitizer). Those with a file
 * system of their own need to be root. */
#include "tests/unit/master_test.h"

#include <fcntl.h>
#include <sched.h>
#include <sys/mount.h>
#include <sys/stat.h>
#include <sys/statvfs.h>

#include "meta/master_keeper.h"
#include "base/cleanup.h"

TEST(disk_low_is_told_to_the_journal_and_nothing_is_refused_before_that_says_so)
{
    struct cluster k;
    cluster_init(&k);
    k.options.disk_reserve_bytes = 1ull << 44;
    cluster_start(&k);
    until(k.journal->unfit == LINK_UNFIT_DISK);
    ck_assert_int_eq(k.journal->can_lead, 0);
    ck_assert_int_eq(k.journal->lease_back, 0); /* it serves on */
    ck_assert_int_eq(create(k.c, "a"), 0);
    fake_journal_disk(k.journal, LINK_DISK_REFUSE); /* nobody else can */
    int r;
    for (int i = 0; (r = finish(ask_create(k.c, "b", 0))) == 0 && i < 1000; i++)
        ck_assert_int_eq(unlink_name(k.c, "b"), 0);
    ck_assert_int_eq(r, -ENOSPC);
    ck_assert_int_eq(lookup(k.c, "a"), 0);
    ck_assert_int_eq(unlink_name(k.c, "a"), 0);
    fake_journal_disk(k.journal, LINK_DISK_JOURNAL); /* somebody else should */
    until(create(k.c, "a") == 0);
    cluster_fini(&k);
}

TEST(disk_that_has_room_is_told_as_well)
{
    struct cluster k;
    cluster_init(&k);
    k.options.disk_reserve_bytes = 0;
    cluster_start(&k);
    until(k.journal->applied > 0);
    ck_assert_int_eq(k.journal->unfit, LINK_FIT);
    ck_assert_int_eq(k.journal->can_lead, 1);
    cluster_fini(&k);
}

/* ---- a file system of its own ------------------------------------------------------------------------------------------ */

/* A cluster whose master has a tmpfs of 64 MiB; before any thread is there, which would see another one. False: not allowed to. */
static bool small_disk(struct cluster *k)
{
    char dir[100];
    snprintf(dir, sizeof(dir), "%s/m", unit_tempdir());
    ck_assert_int_eq(mkdir(dir, 0700), 0);
    if (unshare(CLONE_NEWNS) < 0 || mount(NULL, "/", NULL, MS_REC | MS_PRIVATE, NULL) < 0 ||
        mount("none", dir, "tmpfs", 0, "size=64M") < 0)
        return false;
    cluster_init(k);
    return true;
}

static uint64_t free_bytes(struct cluster *k)
{
    struct statvfs fs;
    ck_assert_int_eq(statvfs(k->dir, &fs), 0);
    return (uint64_t)fs.f_bavail * fs.f_frsize;
}

/* Leave so many bytes; ballast(UINT64_MAX) takes it away. */
static void ballast(struct cluster *k, uint64_t left)
{
    char path[160];
    snprintf(path, sizeof(path), "%s/ballast", k->dir);
    if (left == UINT64_MAX) {
        ck_assert_int_eq(unlink(path), 0);
        return;
    }
    int fd = open(path, O_CREAT | O_WRONLY, 0600);
    ck_assert_int_ge(fd, 0);
    while (free_bytes(k) > left) {
        off_t end = lseek(fd, 0, SEEK_END);
        off_t more = (off_t)min(free_bytes(k) - left, (uint64_t)1 << 20);
        if (posix_fallocate(fd, end, more) != 0)
            break;
    }
    close(fd);
}

TEST(disk_without_room_is_not_written_and_all_is_there_when_there_is_some)
{
    struct cluster k;
    if (!small_disk(&k))
        return;
    k.options.disk_reserve_bytes = 40 << 20; /* held below a quarter */
    k.options.flush_interval_ms = 100;
    cluster_start(&k);
    ck_assert_int_eq(create(k.c, "a"), 0);
    until(k.journal->flushed >= k.journal->applied && k.journal->applied > 1);
    ck_assert_int_eq(k.journal->unfit, LINK_FIT);
    ballast(&k, 4 << 20);
    until(k.journal->unfit == LINK_UNFIT_DISK);
    char why[100];
    ck_assert_int_eq(create(k.c, "b"), 0);
    until(k.journal->flushed < k.journal->commit);
    uint64_t flushed = k.journal->flushed;
    for (int i = 0; i < 50; i++) { /* ten times as long as a flush takes to come */
        ck_assert_int_eq(create(k.c, "c"), 0);
        ck_assert_int_eq(unlink_name(k.c, "c"), 0);
        usleep(20000);
    }
    ck_assert_uint_eq(k.journal->flushed, flushed);
    fake_journal_follow(k.journal);
    until(master_ready(k.master, why, sizeof(why)) == -ENOSPC);
    fake_journal_lead(k.journal);
    ballast(&k, UINT64_MAX);
    until(k.journal->unfit == LINK_FIT);
    until(k.journal->flushed > flushed);
    until(lookup(k.c, "b") == 0);
    ck_assert_int_eq(k.failed, 0);
    cluster_fini(&k);
}

TEST_TIMEOUT(disk_full_in_the_middle_of_a_write_hands_over_and_comes_back_with_all, 60)
{
    struct cluster k;
    if (!small_disk(&k))
        return;
    k.options.disk_reserve_bytes = 0; /* so that nothing holds it back */
    k.options.flush_interval_ms = 100;
    struct master_config mc = {&k.options, &k.cluster, k.metrics, cluster_failed, &k, NULL, NULL};
    struct master_keeper *keeper;
    char why[100];
    ck_ok(master_keeper_new(&mc, &keeper));
    ck_ok(master_keeper_start(keeper));
    for (int round = 0; round < 2; round++) {
        char name[40];
        ck_ok(master_keeper_wait_ready(keeper, 20000));
        k.c = caller_new(k.socket);
        open_session(k.c);
        snprintf(name, sizeof(name), "before%d", round);
        ck_ok(create(k.c, name));
        ballast(&k, 0);
        int r = 0, made = 0;
        while (r == 0) { /* acknowledged is what the journal has, whatever the disk takes */
            snprintf(name, sizeof(name), "r%d.%d", round, made);
            r = create(k.c, name);
            made += r == 0;
        }
        until(master_keeper_ready(keeper, why, sizeof(why)) < 0 && strstr(why, "waiting for room"));
        until(k.journal->unfit == LINK_UNFIT_STOPS && k.journal->lease_back);
        caller_free(take(k.c));
        ballast(&k, UINT64_MAX);
        ck_ok(master_keeper_wait_ready(keeper, 20000));
        k.c = caller_new(k.socket);
        open_session(k.c);
        for (int i = 0; i < made; i++) {
            snprintf(name, sizeof(name), "r%d.%d", round, i);
            ck_ok(lookup(k.c, name));
        }
        caller_free(take(k.c));
    }
    ck_assert_int_eq(k.failed, 0);
    master_keeper_free(keeper);
    cluster_fini(&k);
}

/* Nor does one that finds no room at its start give up. */
TEST(disk_full_at_the_start_is_waited_for)
{
    struct cluster k;
    if (!small_disk(&k))
        return;
    k.options.disk_reserve_bytes = 0;
    ballast(&k, 0);
    struct master_config mc = {&k.options, &k.cluster, k.metrics, cluster_failed, &k, NULL, NULL};
    struct master_keeper *keeper;
    ck_ok(master_keeper_new(&mc, &keeper));
    ck_ok(master_keeper_start(keeper));
    char why[100];
    until(master_keeper_ready(keeper, why, sizeof(why)) < 0 && strstr(why, "waiting for room"));
    ballast(&k, UINT64_MAX);
    ck_ok(master_keeper_wait_ready(keeper, 20000));
    ck_assert_int_eq(k.failed, 0);
    master_keeper_free(keeper);
    cluster_fini(&k);
}

/* ---- damage ------------------------------------------------------------------------------------------------------------ */

/* Flip a byte of the name in each file of the database that has it. Returns in how many. */
static int damage(struct cluster *k, const char *name)
{
    char command[400];
    snprintf(command, sizeof(command),
             "for f in $(grep -l %s %s/rows/*.sst); do sed -i s/%s/X%s/ $f; echo $f; done | wc -l", name, k->dir, name,
             name + 1);
    FILE *p = popen(command, "r");
    int n = 0;
    ck_assert(p && fscanf(p, "%d", &n) == 1);
    pclose(p);
    return n;
}

/* Others have what it cannot read: no client may get an error for it unless nobody else leads. */
TEST(disk_damage_makes_another_lead_and_is_an_error_only_when_none_does)
{
    static const char NAME[] = "Qneedlewithoutrepeat";
    struct cluster k;
    cluster_init(&k);
    k.options.disk_reserve_bytes = 0;
    k.options.flush_interval_ms = 100;
    cluster_start(&k);
    ck_ok(create(k.c, NAME));
    until(k.journal->flushed >= k.journal->commit);
    caller_free(take(k.c));
    k.master = master_free(k.master);
    ck_assert_int_gt(damage(&k, NAME), 0);
    k.journal->lease_until_ns = clock_ns() + 3600 * NS_PER_S; /* not alone */
    cluster_start(&k);
    ck_assert_int_ne(k.journal->unfit, LINK_UNFIT_DAMAGE);
    ck_assert_int_eq(lookup(k.c, "another"), -ENOENT);
    ck_error(lookup(k.c, NAME), -CV_BUSY);
    until(k.journal->unfit == LINK_UNFIT_DAMAGE);
    ck_assert_int_eq(k.journal->lease_back, 0);
    ck_assert_int_eq(k.journal->can_lead, 0);
    ck_ok(create(k.c, "b"));
    until(lookup(k.c, NAME) == -CV_BAD_CHECKSUM); /* nobody took the lead */
    ck_assert_int_eq(k.failed, 0);
    cluster_fini(&k);
}
