/* SPDX-License-Identifier: Apache-2.0 */
/*
 * An array sorted by (file, session), found by bisection: tens of thousands at most, changed a few times a second. A
 * release waits for exports under way (they may be of the same file), those are short.
 */
#include "worker/worker_exports.h"

#include <assert.h>
#include <errno.h>
#include <fcntl.h>
#include <pthread.h>
#include <stdio.h>
#include <sys/stat.h>

#include "base/bytes.h"
#include "base/error.h"
#include "base/hash.h"
#include "base/log.h"

#define HELD_MAX    1000000u
#define RECORD      24    /* u64 session, u64 file, u32 added, u32 crc */
#define REWRITE_MIN 65536 /* records in the file before it is written anew */

struct held {
    uint64_t file, session;
};

struct worker_exports {
    struct block_store *store;
    pthread_mutex_t lock; /* guards all below; held across writes of the file, which are small */
    pthread_cond_t quiet;
    struct held *held;
    uint32_t count, room, exporting;
    uint32_t releasing; /* waits for exporting to be 0: no new exports begin */
    uint64_t records;   /* in the file */
    int dir_fd, fd;
};

/* ---- the table; lock held ---- */

static uint32_t place(const struct worker_exports *x, struct held h)
{
    uint32_t low = 0, high = x->count;
    while (low < high) {
        uint32_t mid = low + (high - low) / 2;
        const struct held *m = &x->held[mid];
        if (m->file < h.file || (m->file == h.file && m->session < h.session))
            low = mid + 1;
        else
            high = mid;
    }
    return low;
}

static bool is_at(const struct worker_exports *x, uint32_t i, struct held h)
{
    return i < x->count && x->held[i].file == h.file && x->held[i].session == h.session;
}

static bool anyone_has(const struct worker_exports *x, uint64_t file)
{
    uint32_t i = place(x, (struct held){.file = file});
    return i < x->count && x->held[i].file == file;
}

static int insert(struct worker_exports *x, struct held h)
{
    uint32_t i = place(x, h);
    if (is_at(x, i, h))
        return 0;
    if (x->count == HELD_MAX)
        return -CV_BUSY;
    if (x->count == x->room) {
        uint32_t room = x->room ? x->room * 2 : 256;
        struct held *p = realloc(x->held, room * sizeof(*p));
        if (!p)
            return -ENOMEM;
        x->held = p;
        x->room = room;
    }
    memmove(&x->held[i + 1], &x->held[i], (x->count - i) * sizeof(h));
    x->held[i] = h;
    x->count++;
    return 1;
}

static void erase(struct worker_exports *x, uint32_t i)
{
    x->count--;
    memmove(&x->held[i], &x->held[i + 1], (x->count - i) * sizeof(*x->held));
}

/* ---- the file ---- */

static void make_record(struct held h, bool added, uint8_t out[RECORD])
{
    put_le64(out, h.session);
    put_le64(out + 8, h.file);
    put_le32(out + 16, added);
    put_le32(out + 20, crc32c(0, out, 20));
}

static int write_new(struct worker_exports *x)
{
    int fd cleanup(closep) = openat(x->dir_fd, "exports.new", O_RDWR | O_CREAT | O_TRUNC | O_APPEND | O_CLOEXEC, 0600);
    if (fd < 0)
        return -errno;
    uint8_t *out cleanup(freep) = malloc((size_t)x->count * RECORD + 1);
    if (!out)
        return -ENOMEM;
    for (uint32_t i = 0; i < x->count; i++)
        make_record(x->held[i], true, out + (size_t)i * RECORD);
    ssize_t n = write(fd, out, (size_t)x->count * RECORD);
    if (n != (ssize_t)x->count * RECORD)
        return n < 0 ? -errno : -EIO;
    if (renameat(x->dir_fd, "exports.new", x->dir_fd, "exports") < 0)
        return -errno;
    close_fd(x->fd);
    x->fd = take_fd(fd);
    x->records = x->count;
    return 0;
}

/* Lock held. A record that cannot be written: the descriptor is not given out, or stays charged after a restart. */
static int record(struct worker_exports *x, struct held h, bool added)
{
    uint8_t out[RECORD];
    make_record(h, added, out);
    if (x->records > REWRITE_MIN && x->records > 4ull * x->count && write_new(x) == 0)
        return 0;
    ssize_t n = write(x->fd, out, RECORD);
    x->records++;
    return n == RECORD ? 0 : n < 0 ? -errno : -EIO;
}

/* A torn record ends it. */
static int read_old(struct worker_exports *x)
{
    int fd cleanup(closep) = openat(x->dir_fd, "exports", O_RDONLY | O_CLOEXEC);
    if (fd < 0)
        return errno == ENOENT ? 0 : -errno;
    uint8_t in[RECORD];
    while (read(fd, in, RECORD) == RECORD && get_le32(in + 20) == crc32c(0, in, 20)) {
        struct held h = {.session = get_le64(in), .file = get_le64(in + 8)};
        uint32_t i = place(x, h);
        int r = 0;
        if (get_le32(in + 16))
            r = insert(x, h);
        else if (is_at(x, i, h))
            erase(x, i);
        if (r < 0)
            return r;
    }
    return 0;
}

/* Unlinked files that stay charged although nobody is known to hold them. */
static int release_unknown(struct worker_exports *x)
{
    uint64_t ids[256], after = 0;
    int n;
    while ((n = block_export_left(x->store, after, ids, 256)) > 0) {
        after = ids[n - 1];
        for (int i = 0; i < n; i++)
            if (!anyone_has(x, ids[i])) {
                int r = block_export_release(x->store, ids[i]);
                if (r < 0)
                    return r;
            }
    }
    return n;
}

int worker_exports_open(const char *dir, struct block_store *s, struct worker_exports **ret)
{
    struct worker_exports *x = calloc(1, sizeof(*x));
    if (!x)
        return -ENOMEM;
    x->store = s;
    x->fd = -1;
    pthread_mutex_init(&x->lock, NULL);
    pthread_cond_init(&x->quiet, NULL);
    x->dir_fd = open(dir, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    int r = x->dir_fd < 0 ? -errno : read_old(x);
    if (r == 0)
        r = write_new(x);
    if (r == 0)
        r = release_unknown(x);
    if (r < 0) {
        worker_exports_free(x);
        return log_error(r, "exports of '%s'", dir);
    }
    *ret = x;
    return 0;
}

struct worker_exports *worker_exports_free(struct worker_exports *x)
{
    if (!x)
        return NULL;
    close_fd(x->fd);
    close_fd(x->dir_fd);
    pthread_mutex_destroy(&x->lock);
    pthread_cond_destroy(&x->quiet);
    free(x->held);
    free(x);
    return NULL;
}

/* ---- giving out and taking back ---- */

void worker_exports_begin(struct worker_exports *x)
{
    pthread_mutex_lock(&x->lock);
    while (x->releasing)
        pthread_cond_wait(&x->quiet, &x->lock);
    x->exporting++;
    pthread_mutex_unlock(&x->lock);
}

int worker_exports_end(struct worker_exports *x, uint64_t session, uint64_t file_id)
{
    struct held h = {.file = file_id, .session = session};
    pthread_mutex_lock(&x->lock);
    int r = file_id ? insert(x, h) : 0;
    if (r == 1 && (r = record(x, h, true)) < 0)
        erase(x, place(x, h));
    assert(x->exporting > 0);
    if (--x->exporting == 0)
        pthread_cond_broadcast(&x->quiet);
    pthread_mutex_unlock(&x->lock);
    return r < 0 ? r : 0;
}

bool worker_exports_has(struct worker_exports *x, uint64_t session, uint64_t file_id)
{
    struct held h = {.file = file_id, .session = session};
    pthread_mutex_lock(&x->lock);
    bool has = is_at(x, place(x, h), h);
    pthread_mutex_unlock(&x->lock);
    return has;
}

/* The next file of the session at or behind *at, taken out of the table; *ret_last: nobody has it any more. Lock held. */
static bool take_one(struct worker_exports *x, uint64_t session, uint64_t file_id, uint32_t *at, uint64_t *ret_file)
{
    for (; *at < x->count; ++*at) {
        struct held h = x->held[*at];
        if (h.session != session || (file_id && h.file != file_id))
            continue;
        erase(x, *at);
        if (record(x, h, false) < 0)
            log_warn(0, "exports: cannot record a release: its space comes back after the next restart");
        *ret_file = h.file;
        return true;
    }
    return false;
}

int worker_exports_release(struct worker_exports *x, uint64_t session, uint64_t file_id)
{
    uint64_t file;
    int r = 0;
    pthread_mutex_lock(&x->lock);
    uint32_t at = file_id ? place(x, (struct held){.file = file_id, .session = session}) : 0;
    while (r == 0 && take_one(x, session, file_id, &at, &file)) {
        x->releasing++;
        while (x->exporting)
            pthread_cond_wait(&x->quiet, &x->lock);
        if (!anyone_has(x, file))
            r = block_export_release(x->store, file);
        if (--x->releasing == 0)
            pthread_cond_broadcast(&x->quiet);
        if (file_id)
            break;
        at = 0; /* the table may have changed while we waited */
    }
    pthread_mutex_unlock(&x->lock);
    return r;
}

uint32_t worker_exports_sessions(struct worker_exports *x, uint64_t after, uint64_t *out, uint32_t max)
{
    uint32_t n = 0;
    pthread_mutex_lock(&x->lock);
    for (uint32_t i = 0; i < x->count; i++) {
        uint64_t session = x->held[i].session;
        if (session <= after)
            continue;
        uint32_t k = n;
        while (k > 0 && out[k - 1] > session)
            k--;
        if (k > 0 && out[k - 1] == session)
            continue;
        if (k == max)
            continue;
        n = min(n + 1, max);
        memmove(&out[k + 1], &out[k], (n - k - 1) * sizeof(*out));
        out[k] = session;
    }
    pthread_mutex_unlock(&x->lock);
    return n;
}

uint32_t worker_exports_count(struct worker_exports *x)
{
    pthread_mutex_lock(&x->lock);
    uint32_t n = x->count;
    pthread_mutex_unlock(&x->lock);
    return n;
}
