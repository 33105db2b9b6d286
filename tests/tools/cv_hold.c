/* SPDX-License-Identifier: Apache-2.0 */
/*
 * A client that lives through what a test does to the masters: it reads commands, one a line, and answers each with a line
 * "COMMAND... ok MS" or "COMMAND... CV_NAME MS" (the time it took).
 *
 *      cv-hold MASTERS
 *
 *      timeout MS            for each call from now on
 *      mkdir PATH, rm PATH, stat PATH
 *      open PATH             made if need be; write, fsync and close mean the one opened last
 *      write TEXT            at its beginning, and flushed: answered by the master
 *      read TEXT             -EIO: something else is there
 *      fsync, close
 *      sync PATH             fsync of a directory
 *      many N DIR            files DIR/f0 ... each open, with its name as content; of every hundredth the name is removed
 *      check                 all of them are read, written and read again through the same handles
 *      drop                  and closed
 */
#include <errno.h>
#include <fcntl.h>
#include <pthread.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/clock.h"
#include "base/error.h"
#include "base/log.h"
#include "client/curvine.h"

#define THREADS   32
#define ORPHANS   100 /* every so many loses its name */
#define NAME_SIZE 300

static struct curvine *cv;
static struct curvine_file *file;
static uint32_t timeout_ms;

static struct curvine_file **files;
static unsigned count;
static char dir[200];

static int on_file(enum curvine_op op, struct curvine_file *f)
{
    struct curvine_request q = {.op = op, .file = f, .timeout_ms = timeout_ms};
    return curvine_run(cv, &q);
}

static int sync_directory(const char *path)
{
    struct curvine_request q = {.op = CURVINE_FSYNC, .timeout_ms = timeout_ms};
    int r = curvine_resolve(cv, path, CURVINE_FOLLOW, &q.inode, NULL);
    return r < 0 ? r : curvine_run(cv, &q);
}

static int write_text(struct curvine_file *f, const char *text)
{
    int64_t n = curvine_pwrite(f, text, strlen(text), 0);
    return n < 0 ? (int)n : on_file(CURVINE_FLUSH, f);
}

static int read_text(struct curvine_file *f, const char *text)
{
    char have[NAME_SIZE];
    int64_t n = curvine_pread(f, have, sizeof(have), 0);
    if (n < 0)
        return (int)n;
    return (size_t)n == strlen(text) && memcmp(have, text, (size_t)n) == 0 ? 0 : -EIO;
}

/* ---- many ------------------------------------------------------------------------------------------------------------ */

struct share {
    pthread_t thread;
    unsigned first;
    int (*run)(unsigned i, const char *path);
    int result;
};

static int make_one(unsigned i, const char *path)
{
    int r = curvine_file_open(cv, path, O_CREAT | O_EXCL | O_RDWR, 0600, &files[i]);
    if (r == 0)
        r = write_text(files[i], path);
    return r == 0 && i % ORPHANS == 0 ? curvine_unlink(cv, path) : r;
}

static int check_one(unsigned i, const char *path)
{
    int r = read_text(files[i], path);
    if (r == 0)
        r = write_text(files[i], path);
    return r == 0 ? read_text(files[i], path) : r;
}

static int drop_one(unsigned i, const char *path)
{
    int r = curvine_file_close(files[i]);
    files[i] = NULL;
    return r;
}

static void *share_run(void *arg)
{
    struct share *s = arg;
    char path[NAME_SIZE];
    for (unsigned i = s->first; i < count && s->result == 0; i += THREADS) {
        snprintf(path, sizeof(path), "%s/f%u", dir, i);
        s->result = s->run(i, path);
        if (s->result < 0)
            fprintf(stderr, "%s: %s\n", path, curvine_strerror(s->result));
    }
    return NULL;
}

static int each(int (*run)(unsigned i, const char *path))
{
    struct share shares[THREADS] = {0};
    int r = 0;
    for (unsigned i = 0; i < THREADS; i++) {
        shares[i].first = i;
        shares[i].run = run;
        if (pthread_create(&shares[i].thread, NULL, share_run, &shares[i]) != 0)
            abort();
    }
    for (unsigned i = 0; i < THREADS; i++) {
        pthread_join(shares[i].thread, NULL);
        r = r ? r : shares[i].result;
    }
    return r;
}

static int make_many(const char *arguments)
{
    if (sscanf(arguments, "%u %199s", &count, dir) != 2)
        return -EINVAL;
    files = calloc(count, sizeof(struct curvine_file *));
    return files ? each(make_one) : -ENOMEM;
}

/* ---- commands -------------------------------------------------------------------------------------------------------- */

static int run(const char *command, const char *argument)
{
    struct curvine_attr attr;
    if (strcmp(command, "timeout") == 0)
        return timeout_ms = (uint32_t)atoi(argument), 0;
    if (strcmp(command, "mkdir") == 0)
        return curvine_mkdir(cv, argument, 0755);
    if (strcmp(command, "rm") == 0)
        return curvine_unlink(cv, argument);
    if (strcmp(command, "stat") == 0)
        return curvine_stat(cv, argument, 0, &attr);
    if (strcmp(command, "open") == 0)
        return curvine_file_open(cv, argument, O_CREAT | O_RDWR, 0600, &file);
    if (strcmp(command, "sync") == 0)
        return sync_directory(argument);
    if (strcmp(command, "many") == 0)
        return make_many(argument);
    if (strcmp(command, "check") == 0)
        return each(check_one);
    if (strcmp(command, "drop") == 0)
        return each(drop_one);
    if (!file)
        return -EBADF;
    if (strcmp(command, "write") == 0)
        return write_text(file, argument);
    if (strcmp(command, "read") == 0)
        return read_text(file, argument);
    if (strcmp(command, "fsync") == 0)
        return on_file(CURVINE_FSYNC, file);
    if (strcmp(command, "close") == 0) {
        struct curvine_file *f = file;
        file = NULL;
        return curvine_file_close(f);
    }
    return -EINVAL;
}

int main(int argc, char **argv)
{
    char line[400];
    if (argc != 2)
        return 2;
    log_set_level(LOG_LEVEL_WARN);
    int r = curvine_open(&(struct curvine_options){.masters = argv[1], .program = "cv-hold"}, &cv);
    if (r < 0) {
        fprintf(stderr, "cv-hold: %s\n", curvine_strerror(r));
        return 1;
    }
    setvbuf(stdout, NULL, _IOLBF, 0);
    printf("ready\n");
    while (fgets(line, sizeof(line), stdin)) {
        line[strcspn(line, "\n")] = '\0';
        char command[20] = "";
        sscanf(line, "%19s", command);
        const char *argument = line + strlen(command);
        argument += strspn(argument, " ");
        uint64_t began = clock_ns();
        r = run(command, argument);
        printf("%s %s %llu\n", line, r < 0 ? cv_error_name(r) : "ok",
               (unsigned long long)((clock_ns() - began) / NS_PER_MS));
    }
    free(files);
    curvine_close(cv);
    return 0;
}
