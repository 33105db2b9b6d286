/* SPDX-License-Identifier: Apache-2.0 */
/*
 * A file goes through: waiting (queue) -> opened by the thread that took it -> its parts, shared with threads that have
 * nothing else to do -> finished by the last thread that leaves it. One mutex guards queue, list and counts; data moves
 * without it.
 */
#include "cli/copy.h"

#include <assert.h>
#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/clock.h"
#include "base/error.h"
#include "base/list.h"
#include "base/random.h"

#define QUEUE_MAX 64
#define HOLE      4096 /* zeros of at least this, aligned, become a hole of a local file */

/* An open end. */
struct side {
    enum copy_place place;
    char *path, *temporary; /* temporary: target only */
    int fd;
    struct curvine_file *file;
};

struct file {
    struct list link;
    struct side from, to;
    uint64_t size, mtime_ns;
    uint32_t mode;
    /* Guarded by the copier's mutex. */
    uint64_t next, parts; /* next part to take */
    unsigned users;       /* threads inside */
    bool listed;
    /* Any thread. */
    _Atomic uint64_t counted; /* bytes told to progress */
    _Atomic int error;
    char why[200]; /* of the first error: written by who set it */
};

struct copier {
    struct curvine *cv;
    struct progress *progress;
    bool sync;
    pthread_mutex_t mutex; /* guards everything below */
    pthread_cond_t work, room;
    struct list queue;  /* waiting files */
    struct list shared; /* open files with parts left */
    unsigned queued;
    bool ending;
    pthread_t threads[COPY_THREADS_MAX];
    unsigned n_threads;
};

/* ---- interrupts ----------------------------------------------------------------------------------------------------- */

static volatile sig_atomic_t interrupted;

static void on_interrupt(int signal_number)
{
    interrupted = 1;
}

void copy_catch_interrupts(void)
{
    struct sigaction a = {.sa_handler = on_interrupt, .sa_flags = (int)SA_RESETHAND};
    sigaction(SIGINT, &a, NULL);
    sigaction(SIGTERM, &a, NULL);
}

bool copy_interrupted(void)
{
    return interrupted;
}

/* ---- ends ----------------------------------------------------------------------------------------------------------- */

/* ".NAME.cv-1a2b3c4d" in the same directory; long names are cut. */
static int temporary_name(const char *path, char **ret)
{
    const char *slash = strrchr(path, '/'), *name = slash ? slash + 1 : path;
    return asprintf(ret, "%.*s.%.200s.cv-%08x", (int)(name - path), path, name, (unsigned)random_u64()) < 0 ? -ENOMEM
                                                                                                            : 0;
}

static int open_source(struct copier *c, struct side *s)
{
    if (s->place == COPY_CLUSTER)
        return curvine_file_open(c->cv, s->path, O_RDONLY, 0, &s->file);
    s->fd = open(s->path, O_RDONLY | O_CLOEXEC | O_NOCTTY);
    return s->fd < 0 ? -errno : 0;
}

static int open_target(struct copier *c, struct side *s, uint32_t mode)
{
    int r = temporary_name(s->path, &s->temporary);
    if (r < 0)
        return r;
    if (s->place == COPY_CLUSTER)
        return curvine_file_open(c->cv, s->temporary, O_WRONLY | O_CREAT | O_EXCL, mode & 0777, &s->file);
    s->fd = open(s->temporary, O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC, 0600);
    return s->fd < 0 ? -errno : 0;
}

static int close_side(struct side *s)
{
    int r = s->file ? curvine_file_close(s->file) : s->fd >= 0 && close(s->fd) < 0 ? -errno : 0;
    s->file = NULL;
    s->fd = -1;
    return r;
}

static int64_t read_at(const struct side *s, void *p, size_t n, uint64_t offset)
{
    if (s->file)
        return curvine_pread(s->file, p, n, offset);
    ssize_t got = pread(s->fd, p, n, (off_t)offset);
    return got < 0 ? -errno : got;
}

static int64_t write_at(const struct side *s, const void *p, size_t n, uint64_t offset)
{
    if (s->file)
        return curvine_pwrite(s->file, p, n, offset);
    ssize_t got = pwrite(s->fd, p, n, (off_t)offset);
    return got < 0 ? -errno : got;
}

static int set_size(struct copier *c, const struct side *s, uint64_t size)
{
    if (!s->file)
        return ftruncate(s->fd, (off_t)size) < 0 ? -errno : 0;
    if (curvine_file_size(s->file) == size)
        return 0;
    struct curvine_request q = {.op = CURVINE_SETATTR,
                                .inode = curvine_file_inode(s->file),
                                .file = s->file,
                                .valid = CURVINE_SET_SIZE,
                                .size = size};
    int r = curvine_run(c->cv, &q);
    curvine_request_free(&q);
    return r;
}

/* ---- data ------------------------------------------------------------------------------------------------------------- */

static int fail(struct file *f, int r, const char *step, const char *path)
{
    int none = 0;
    if (atomic_compare_exchange_strong(&f->error, &none, r))
        snprintf(f->why, sizeof(f->why), "%s%s%.120s: %.60s", step, path ? " " : "", path ? path : "",
                 cv_error_text(r));
    return r;
}

static void count(struct copier *c, struct file *f, uint64_t bytes)
{
    f->counted += bytes;
    progress_add(c->progress, 0, bytes);
}

/* The end of the hole of a local source that begins at offset, at most limit; offset itself when there is data. */
static uint64_t skip_hole(const struct side *s, uint64_t offset, uint64_t limit)
{
    if (s->file)
        return offset;
    off_t data = lseek(s->fd, (off_t)offset, SEEK_DATA);
    if (data < 0)
        return errno == ENXIO ? limit : offset;
    return min((uint64_t)data, limit);
}

static bool is_zero(const uint8_t *p, size_t n)
{
    return n == 0 || (p[0] == 0 && memcmp(p, p + 1, n - 1) == 0);
}

/* To a new local file: stretches of zeros are left out. */
static int write_sparse(struct file *f, const uint8_t *p, size_t n, uint64_t offset)
{
    for (size_t at = 0; at < n;) {
        size_t from = at;
        while (at < n && !is_zero(p + at, min((size_t)HOLE, n - at)))
            at += min((size_t)HOLE, n - at);
        for (; from < at;) {
            int64_t put = write_at(&f->to, p + from, at - from, offset + from);
            if (put <= 0)
                return put < 0 ? (int)put : -EIO;
            from += (size_t)put;
        }
        while (at < n && is_zero(p + at, min((size_t)HOLE, n - at)))
            at += min((size_t)HOLE, n - at);
    }
    return 0;
}

static int write_all(struct file *f, const uint8_t *p, size_t n, uint64_t offset)
{
    if (!f->to.file)
        return write_sparse(f, p, n, offset);
    for (size_t at = 0; at < n;) {
        int64_t put = write_at(&f->to, p + at, n - at, offset + at);
        if (put <= 0)
            return put < 0 ? (int)put : -EIO;
        at += (size_t)put;
    }
    return 0;
}

static int copy_part(struct copier *c, struct file *f, uint64_t part, uint8_t *buffer)
{
    uint64_t at = part * COPY_PART, end = min(at + COPY_PART, f->size);
    while (at < end) {
        if (interrupted)
            return fail(f, -ECANCELED, "interrupted", NULL);
        if (f->error)
            return f->error;
        uint64_t data = skip_hole(&f->from, at, end);
        if (data > at) {
            count(c, f, data - at);
            at = data;
            continue;
        }
        int64_t n = read_at(&f->from, buffer, min((uint64_t)COPY_BUFFER, end - at), at);
        if (n <= 0)
            return fail(f, n < 0 ? (int)n : -ESTALE, n < 0 ? "read" : "it became shorter while it was read", NULL);
        int r = write_all(f, buffer, (size_t)n, at);
        if (r < 0)
            return fail(f, r, "write", NULL);
        count(c, f, (uint64_t)n);
        at += (uint64_t)n;
    }
    return 0;
}

/* ---- one file ------------------------------------------------------------------------------------------------------------- */

static int open_file(struct copier *c, struct file *f)
{
    int r = open_source(c, &f->from);
    if (r < 0)
        return fail(f, r, "open", NULL);
    if (f->from.fd >= 0) /* a pattern of its own is better than the kernel's guess */
        posix_fadvise(f->from.fd, 0, 0, POSIX_FADV_SEQUENTIAL);
    r = open_target(c, &f->to, f->mode);
    return r < 0 ? fail(f, r, "make", f->to.path) : 0;
}

/* Everything is written: size, times, name. */
static int complete(struct copier *c, struct file *f)
{
    struct side *to = &f->to;
    int r = set_size(c, to, f->size);
    if (r < 0)
        return fail(f, r, "set the size of", to->path);
    if (to->fd >= 0) {
        struct timespec t = ns_to_timespec(f->mtime_ns);
        r = fchmod(to->fd, f->mode & 0777) < 0 || futimens(to->fd, (struct timespec[]){t, t}) < 0 ? -errno : 0;
    }
    if (r == 0 && c->sync)
        r = to->file ? curvine_fsync(to->file) : fsync(to->fd) < 0 ? -errno : 0;
    int closed = close_side(to);
    r = r ? r : closed;
    if (r == 0 && to->place == COPY_CLUSTER)
        r = curvine_utimens(c->cv, to->temporary, f->mtime_ns, f->mtime_ns, 0);
    if (r < 0)
        return fail(f, r, "write", to->path);
    r = to->place == COPY_CLUSTER             ? curvine_rename(c->cv, to->temporary, to->path, 0)
        : rename(to->temporary, to->path) < 0 ? -errno
                                              : 0;
    return r < 0 ? fail(f, r, "rename to", to->path) : 0;
}

static void finish(struct copier *c, struct file *f)
{
    if (f->error == 0 && interrupted)
        fail(f, -ECANCELED, "interrupted", NULL);
    if (f->error == 0)
        complete(c, f);
    close_side(&f->from);
    close_side(&f->to);
    if (f->error) {
        char shown[4200];
        if (f->to.temporary && f->to.place == COPY_CLUSTER)
            curvine_unlink(c->cv, f->to.temporary);
        else if (f->to.temporary)
            unlink(f->to.temporary);
        progress_forget(c->progress, f->counted);
        snprintf(shown, sizeof(shown), "%s%s", f->from.place == COPY_CLUSTER ? ":" : "", f->from.path);
        progress_fail(c->progress, f->error, shown, f->why);
    } else {
        progress_add(c->progress, 1, 0);
    }
    free(f->from.path);
    free(f->to.path);
    free(f->to.temporary);
    free(f);
}

/* ---- threads -------------------------------------------------------------------------------------------------------------- */

/* Copy parts of f until none is left; the mutex is held on entry and exit. The last one out finishes the file. */
static void work_on(struct copier *c, struct file *f, uint8_t *buffer)
{
    f->users++;
    while (f->next < f->parts && !f->error) {
        uint64_t part = f->next++;
        pthread_mutex_unlock(&c->mutex);
        copy_part(c, f, part, buffer);
        pthread_mutex_lock(&c->mutex);
    }
    if (f->listed) {
        list_remove(&f->link);
        f->listed = false;
    }
    if (--f->users > 0)
        return;
    pthread_mutex_unlock(&c->mutex);
    finish(c, f);
    pthread_mutex_lock(&c->mutex);
}

static void begin(struct copier *c, struct file *f, uint8_t *buffer)
{
    f->users = 1; /* nobody else knows it yet */
    pthread_mutex_unlock(&c->mutex);
    int r = open_file(c, f);
    pthread_mutex_lock(&c->mutex);
    f->parts = r < 0 ? 0 : (f->size + COPY_PART - 1) / COPY_PART;
    if (f->parts > 1) {
        list_push_back(&c->shared, &f->link);
        f->listed = true;
        pthread_cond_broadcast(&c->work);
    }
    f->users--;
    work_on(c, f, buffer);
}

static void *copier_thread(void *arg)
{
    struct copier *c = arg;
    uint8_t *buffer = aligned_alloc(4096, COPY_BUFFER);
    pthread_mutex_lock(&c->mutex);
    for (;;) {
        struct list *l;
        if (buffer && !list_empty(&c->shared)) {
            work_on(c, list_entry(c->shared.next, struct file, link), buffer);
        } else if ((l = list_pop_front(&c->queue))) {
            struct file *f = list_entry(l, struct file, link);
            c->queued--;
            pthread_cond_signal(&c->room);
            if (!buffer)
                fail(f, -ENOMEM, "copy", NULL);
            begin(c, f, buffer);
        } else if (c->ending) {
            break;
        } else {
            pthread_cond_wait(&c->work, &c->mutex);
        }
    }
    pthread_mutex_unlock(&c->mutex);
    free(buffer);
    return NULL;
}

int copier_new(struct curvine *cv, struct progress *progress, unsigned threads, bool sync, struct copier **ret)
{
    struct copier *c = calloc(1, sizeof(*c));
    if (!c)
        return -ENOMEM;
    c->cv = cv;
    c->progress = progress;
    c->sync = sync;
    list_init(&c->queue);
    list_init(&c->shared);
    pthread_mutex_init(&c->mutex, NULL);
    pthread_cond_init(&c->work, NULL);
    pthread_cond_init(&c->room, NULL);
    threads = min(threads, (unsigned)COPY_THREADS_MAX);
    while (c->n_threads < threads && pthread_create(&c->threads[c->n_threads], NULL, copier_thread, c) == 0)
        c->n_threads++;
    if (c->n_threads == 0) {
        copier_end(c);
        return -EAGAIN;
    }
    *ret = c;
    return 0;
}

int copier_file(struct copier *c, struct copy_end from, struct copy_end to, uint64_t size, uint32_t mode,
                uint64_t mtime_ns)
{
    struct file *f = interrupted ? NULL : calloc(1, sizeof(*f));
    if (!f)
        return interrupted ? -ECANCELED : -ENOMEM;
    *f = (struct file){
        .from = {.place = from.place, .path = strdup(from.path), .fd = -1},
        .to = {.place = to.place, .path = strdup(to.path), .fd = -1},
        .size = size,
        .mode = mode,
        .mtime_ns = mtime_ns,
    };
    if (!f->from.path || !f->to.path) {
        free(f->from.path);
        free(f->to.path);
        free(f);
        return -ENOMEM;
    }
    progress_expect(c->progress, 1, size);
    pthread_mutex_lock(&c->mutex);
    while (c->queued >= QUEUE_MAX)
        pthread_cond_wait(&c->room, &c->mutex);
    list_push_back(&c->queue, &f->link);
    c->queued++;
    pthread_cond_signal(&c->work);
    pthread_mutex_unlock(&c->mutex);
    return 0;
}

int copier_end(struct copier *c)
{
    pthread_mutex_lock(&c->mutex);
    c->ending = true;
    pthread_cond_broadcast(&c->work);
    pthread_mutex_unlock(&c->mutex);
    for (unsigned i = 0; i < c->n_threads; i++)
        pthread_join(c->threads[i], NULL);
    assert(list_empty(&c->queue) && list_empty(&c->shared));
    pthread_cond_destroy(&c->work);
    pthread_cond_destroy(&c->room);
    pthread_mutex_destroy(&c->mutex);
    free(c);
    return interrupted ? -ECANCELED : 0;
}

/* ---- streams -------------------------------------------------------------------------------------------------------------- */

int copy_stream(struct curvine *cv, int fd, const char *to, uint32_t mode, bool sync, struct progress *progress)
{
    char *temporary cleanup(freep) = NULL;
    uint8_t *buffer cleanup(freep) = malloc(COPY_BUFFER);
    struct curvine_file *file = NULL;
    int r = buffer ? temporary_name(to, &temporary) : -ENOMEM;
    if (r == 0)
        r = curvine_file_open(cv, temporary, O_WRONLY | O_CREAT | O_EXCL, mode, &file);
    if (r < 0)
        return r;
    for (uint64_t at = 0; r == 0;) {
        ssize_t n = read(fd, buffer, COPY_BUFFER);
        if (interrupted)
            r = -ECANCELED;
        else if (n < 0 && errno != EINTR)
            r = -errno;
        if (r < 0 || n == 0)
            break;
        for (ssize_t done = 0; r == 0 && done < n;) {
            int64_t put = curvine_pwrite(file, buffer + done, (size_t)(n - done), at);
            if (put <= 0) {
                r = put < 0 ? (int)put : -EIO;
                break;
            }
            done += put;
            at += (uint64_t)put;
            progress_add(progress, 0, (uint64_t)put);
        }
    }
    if (r == 0 && sync)
        r = curvine_fsync(file);
    int closed = curvine_file_close(file);
    r = r ? r : closed;
    if (r == 0)
        r = curvine_rename(cv, temporary, to, 0);
    if (r < 0)
        curvine_unlink(cv, temporary);
    return r;
}
