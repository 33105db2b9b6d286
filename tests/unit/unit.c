/* SPDX-License-Identifier: Apache-2.0 */
#include "tests/unit/unit.h"

#include <errno.h>
#include <fcntl.h>
#include <ftw.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

static struct {
    const TTest *test;
    const char *name;
    int timeout_seconds;
} tests[1024];
static int test_count;

void unit_register(const TTest *test, const char *name, int timeout_seconds)
{
    if (test_count == 1024)
        abort();
    tests[test_count].test = test;
    tests[test_count].name = name;
    tests[test_count++].timeout_seconds = timeout_seconds;
}

static char base[64];    /* of this program: holds the directories of its tests, also of those that were killed */
static char tempdir[96]; /* of the test that runs in this process */
static pid_t tempdir_pid;

static int remove_entry(const char *path, const struct stat *st, int type, struct FTW *ftw)
{
    return remove(path);
}

static void remove_tempdir(void)
{
    if (tempdir_pid == getpid())
        nftw(tempdir, remove_entry, 16, FTW_DEPTH | FTW_PHYS);
}

static void make_base(void)
{
    const char *tmp = getenv("TMPDIR");
    snprintf(base, sizeof(base), "%s/cv-unit-XXXXXX", tmp && strlen(tmp) < 32 ? tmp : "/tmp");
    if (!mkdtemp(base) || chmod(base, 0711) < 0) { /* tests may let others into their own */
        perror(base);
        exit(1);
    }
}

/* Tests kill processes, not machines: what the kernel has it keeps, synced or not, and a test that waits for the disk only
 * takes long beside others. So nothing here waits for it, RocksDB included (these stand before libc's); losing power is
 * shown by tests/power. UNIT_FSYNC=1: as ever. */
static int sync_call(long number, int fd)
{
    static int real = -1;
    if (real < 0)
        real = getenv("UNIT_FSYNC") != NULL;
    return real || fcntl(fd, F_GETFD) < 0 ? (int)syscall(number, fd) : 0;
}

int fsync(int fd)
{
    return sync_call(SYS_fsync, fd);
}

int fdatasync(int fd)
{
    return sync_call(SYS_fdatasync, fd);
}

int syncfs(int fd)
{
    return sync_call(SYS_syncfs, fd);
}

const char *unit_tempdir(void)
{
    if (tempdir_pid != getpid()) {
        snprintf(tempdir, sizeof(tempdir), "%s/%d", base, (int)getpid());
        if (mkdir(tempdir, 0700) < 0)
            ck_abort_msg("mkdir %s: %s", tempdir, strerror(errno));
        tempdir_pid = getpid();
        atexit(remove_tempdir);
    }
    return tempdir;
}

/* ---- children that are killed ---- */

static off_t said; /* so much there was of messages before the child */

int unit_messages(void)
{
    for (int fd = 3; fd < 16; fd++) { /* open before any test runs, and unlinked */
        struct stat st;
        if (fstat(fd, &st) == 0 && S_ISREG(st.st_mode) && st.st_nlink == 0 &&
            (fcntl(fd, F_GETFL) & O_ACCMODE) == O_RDWR)
            return fd;
    }
    return -1;
}

pid_t unit_fork(void)
{
    said = lseek(unit_messages(), 0, SEEK_CUR);
    return fork();
}

int unit_wait(pid_t child)
{
    int status, messages = unit_messages();
    bool ended = waitpid(child, &status, 0) == child;
    if (ended && WIFSIGNALED(status) && messages >= 0 && said >= 0)
        ended = ftruncate(messages, said) == 0 && lseek(messages, said, SEEK_SET) == said;
    ck_assert_msg(ended, "waiting for a child: %s", strerror(errno));
    return status;
}

int main(int argc, char **argv)
{
    const char *program = strrchr(argv[0], '/') ? strrchr(argv[0], '/') + 1 : argv[0];
    Suite *suite = suite_create(program);
    for (int i = 0; i < test_count; i++) {
        TCase *c = tcase_create(tests[i].name);
        tcase_set_timeout(c, tests[i].timeout_seconds * 5); /* sanitizers and a busy machine */
        tcase_add_test(c, tests[i].test);
        suite_add_tcase(suite, c);
    }
    SRunner *runner = srunner_create(suite);
    make_base();
    srunner_run_all(runner, CK_ENV);
    int failed = srunner_ntests_failed(runner);
    if (!failed)
        nftw(base, remove_entry, 16, FTW_DEPTH | FTW_PHYS);
    srunner_free(runner);
    return failed ? 1 : 0;
}
