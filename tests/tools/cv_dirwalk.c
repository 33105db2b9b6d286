/* SPDX-License-Identifier: Apache-2.0 */
/*
 * cv-dirwalk DIR: telldir(), seekdir() and rewinddir() on a directory of plain names, while names are removed and made. What
 * stays all the time must be seen exactly once from any position on; a position stays what it was.
 */
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#define NAMES_MAX 20000

struct seen {
    char name[256];
    long at; /* telldir() behind it */
};

static struct seen first[NAMES_MAX];

static _Noreturn void fail(const char *what, const char *name)
{
    fprintf(stderr, "cv-dirwalk: %s: %s\n", what, name);
    exit(1);
}

static bool is_dot(const char *name)
{
    return strcmp(name, ".") == 0 || strcmp(name, "..") == 0;
}

static size_t read_all(DIR *d, struct seen *out)
{
    size_t n = 0;
    for (struct dirent *e; n < NAMES_MAX && (e = readdir(d));)
        if (!is_dot(e->d_name)) {
            snprintf(out[n].name, sizeof(out[n].name), "%s", e->d_name);
            out[n++].at = telldir(d);
        }
    return n;
}

/* May be shown or not: made or removed since the directory was opened. */
static bool may_show(const char *name, size_t n, const bool *gone)
{
    if (is_dot(name) || strncmp(name, "new-", 4) == 0)
        return true;
    for (size_t i = 0; i < n; i++)
        if (gone[i] && strcmp(first[i].name, name) == 0)
            return true;
    return false;
}

/* From behind name i on: all names that are left, in the order they were seen. gone[]: removed meanwhile. */
static void check_from(DIR *d, const struct seen *names, size_t n, const bool *gone, size_t i)
{
    seekdir(d, names[i].at);
    struct dirent *e;
    for (size_t k = i + 1; k < n; k++) {
        if (gone[k])
            continue;
        do
            e = readdir(d);
        while (e && may_show(e->d_name, n, gone));
        if (!e)
            fail("ends before", names[k].name);
        if (strcmp(e->d_name, names[k].name) != 0)
            fail(e->d_name, names[k].name);
        if (k > i + 300) /* enough of it */
            return;
    }
}

int main(int argc, char **argv)
{
    static bool gone[NAMES_MAX];
    DIR *d = argc == 2 ? opendir(argv[1]) : NULL;
    if (!d) {
        perror("cv-dirwalk");
        return 2;
    }
    size_t n = read_all(d, first);
    if (n < 100)
        fail("too few names", argv[1]);
    srandom(7);
    for (int round = 0; round < 40; round++) {
        size_t i = (size_t)random() % n;
        check_from(d, first, n, gone, i);
        for (int k = 0; k < 5; k++) { /* also the very name a position is behind */
            size_t victim = k == 0 ? i : (size_t)random() % n;
            char fresh[64];
            snprintf(fresh, sizeof(fresh), "new-%d-%d", round, k);
            int fd = openat(dirfd(d), fresh, O_CREAT | O_EXCL | O_WRONLY | O_CLOEXEC, 0600);
            if (fd >= 0)
                close(fd);
            if (!gone[victim] && unlinkat(dirfd(d), first[victim].name, 0) == 0)
                gone[victim] = true;
        }
        check_from(d, first, n, gone, i);
    }
    rewinddir(d);
    size_t left = 0, again = 0;
    for (size_t i = 0; i < n; i++)
        left += !gone[i];
    for (struct dirent *e; (e = readdir(d));)
        again += !is_dot(e->d_name) && strncmp(e->d_name, "new-", 4) != 0;
    if (again != left)
        fail("rewinddir shows another number of names", argv[1]);
    closedir(d);
    printf("%zu names, %zu left\n", n, left);
    return 0;
}
