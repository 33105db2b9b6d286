/* SPDX-License-Identifier: Apache-2.0 */
/*
 * file://: a local (or NFS) directory as under file system. Calls that may block run on the loop's file threads
 * (io_work); reading goes in pieces through the loop. Paths are resolved beneath the directory (openat2,
 * RESOLVE_BENEATH), so a symlink in it cannot lead out. The identity is inode number, mtime and size; it is read again
 * after the last byte, because a file may change while it is read.
 *
 * A directory is read and sorted as a whole. When a listing stops at its max, what it has read is kept for the one that goes
 * on behind the last key: a listing in pages reads each directory once.
 */
#include <dirent.h>
#include <fcntl.h>
#include <linux/openat2.h>
#include <stdio.h>
#include <sys/stat.h>
#include <sys/syscall.h>

#include "base/cleanup.h"
#include "base/clock.h"
#include "base/error.h"
#include "base/random.h"
#include "ufs/ufs_impl.h"

#define PIECE_BYTES (1u << 20)
#define KEPT_MAX    4 /* listings that may go on */
#define KEPT_MS     60000

/* A name of a directory as read, sorted by key. */
struct file_name {
    char *key; /* below the prefix; directories with a final '/' */
    struct stat st;
};

/* A directory being listed. */
struct file_level {
    struct file_level *up;
    char *directory; /* key: "" or with a final '/' */
    struct file_name *names;
    size_t count, at;
};

/* A listing that stopped at its max. */
struct file_kept {
    struct file_level *level; /* NULL: none */
    char *prefix, *after;     /* after: the last key given */
    bool recursive;
    uint64_t until_ns;
};

struct file_ufs {
    int dir_fd;
    struct file_kept kept[KEPT_MAX];
};

struct file_job {
    struct ufs_op *op;
    struct io_op io;
    bool cancelled;
    char *key, *after, *last; /* last: the key given when max was reached */
    struct ufs_identity want; /* of get and put */
    bool has_want;
    uint64_t offset, left;
    int fd, source_fd;
    uint8_t *piece;
    struct stat st;
    struct file_level *level;
    uint32_t max, given;
    bool recursive;
};

static struct file_level *level_free(struct file_level *l)
{
    for (size_t i = 0; i < l->count; i++)
        free(l->names[i].key);
    struct file_level *up = l->up;
    free(l->names);
    free(l->directory);
    free(l);
    return up;
}

static void job_free(struct file_job *j)
{
    close_fd(j->fd);
    while (j->level)
        j->level = level_free(j->level);
    free(j->piece);
    free(j->key);
    free(j->after);
    free(j->last);
    free(j);
}

static void job_end(struct file_job *j, const char *what, int result)
{
    struct ufs_op *op = j->op;
    if (result < 0 && result != -ECANCELED && !op->message[0])
        snprintf(op->message, sizeof(op->message), "%s '%s' in %s: %s", what, j->key ? j->key : "", op->ufs->uri,
                 cv_error_text(result));
    job_free(j);
    ufs_finish(op, result);
}

static int beneath(int dir_fd, const char *path, uint64_t flags, uint64_t mode)
{
    struct open_how how = {
        .flags = flags | O_CLOEXEC, .mode = mode, .resolve = RESOLVE_BENEATH | RESOLVE_NO_MAGICLINKS};
    int fd = (int)syscall(SYS_openat2, dir_fd, *path ? path : ".", &how, sizeof(how));
    return fd < 0 ? -errno : fd;
}

/* Pipes, sockets and devices are not there. */
static bool is_known(const struct stat *st)
{
    return S_ISREG(st->st_mode) || S_ISDIR(st->st_mode) || S_ISLNK(st->st_mode);
}

static void identity_of(const struct stat *st, struct ufs_identity *ret)
{
    *ret = (struct ufs_identity){
        .mtime_ns = (uint64_t)st->st_mtim.tv_sec * 1000000000u + (uint64_t)st->st_mtim.tv_nsec,
        .size = S_ISREG(st->st_mode) ? (uint64_t)st->st_size : 0,
    };
    snprintf(ret->etag, sizeof(ret->etag), "%llx-%llx", (unsigned long long)st->st_ino,
             (unsigned long long)ret->mtime_ns);
}

static void entry_of(const struct stat *st, struct ufs_entry *ret)
{
    *ret = (struct ufs_entry){
        .type = S_ISDIR(st->st_mode)   ? UFS_DIRECTORY
                : S_ISLNK(st->st_mode) ? UFS_SYMLINK
                                       : UFS_FILE,
        .mode = st->st_mode & 07777,
        .uid = st->st_uid,
        .gid = st->st_gid,
    };
    identity_of(st, &ret->identity);
}

static int dir_fd_of(const struct file_job *j)
{
    return ((struct file_ufs *)j->op->ufs->impl)->dir_fd;
}

/* A job for op. On failure op has ended. key may be { }. */
static struct file_job *job_new(struct ufs_op *op, struct text key)
{
    struct file_job *j = calloc(1, sizeof(*j));
    if (j)
        j->key = strndup(key.n ? key.p : "", key.n);
    if (!j || !j->key) {
        free(j);
        return NULL;
    }
    j->op = op;
    j->fd = j->source_fd = -1;
    op->state = j;
    return j;
}

/* ops may not end inside the call that started them: end on a later turn. */
static int nothing(void *arg)
{
    return -ENOMEM;
}

static void no_memory_done(struct io_op *io, int result)
{
    struct file_job *j = container_of(io, struct file_job, io);
    job_end(j, "start", -ENOMEM);
}

/* ---- stat, check, remove ------------------------------------------------------------------------------------------ */

static int stat_work(void *arg)
{
    struct file_job *j = arg;
    int fd cleanup(closep) = beneath(dir_fd_of(j), j->key, O_PATH | O_NOFOLLOW, 0);
    if (fd < 0)
        return fd;
    if (fstat(fd, &j->st) < 0)
        return -errno;
    return is_known(&j->st) ? 0 : -ENOENT; /* as in listings */
}

static void stat_done(struct io_op *io, int result)
{
    struct file_job *j = container_of(io, struct file_job, io);
    if (result == 0)
        entry_of(&j->st, &j->op->entry);
    job_end(j, "stat", result);
}

static void file_stat(struct ufs *u, struct ufs_op *op, struct text key)
{
    struct file_job *j = job_new(op, key);
    if (!j)
        abort(); /* a few hundred bytes: the process cannot go on */
    u->counters.requests[UFS_HEAD]++;
    io_work(u->loop, &j->io, stat_work, j, stat_done);
}

static int check_work(void *arg)
{
    struct file_job *j = arg;
    int fd cleanup(closep) = beneath(dir_fd_of(j), "", O_RDONLY | O_DIRECTORY, 0);
    if (fd < 0)
        return fd;
    return fstat(fd, &j->st) < 0 ? -errno : 0;
}

static void check_done(struct io_op *io, int result)
{
    struct file_job *j = container_of(io, struct file_job, io);
    job_end(j, "list", result);
}

static void file_check(struct ufs *u, struct ufs_op *op)
{
    struct file_job *j = job_new(op, TEXT(""));
    if (!j)
        abort();
    u->counters.requests[UFS_LIST]++;
    io_work(u->loop, &j->io, check_work, j, check_done);
}

/* The directory a key's last name is in, as a descriptor, and that name. */
static int parent_of(int dir_fd, char *key, const char **ret_name)
{
    char *slash = strrchr(key, '/');
    if (!slash) {
        *ret_name = key;
        return beneath(dir_fd, "", O_PATH | O_DIRECTORY, 0);
    }
    *slash = '\0';
    int fd = beneath(dir_fd, key, O_PATH | O_DIRECTORY, 0);
    *slash = '/';
    *ret_name = slash + 1;
    return fd;
}

static int remove_work(void *arg)
{
    struct file_job *j = arg;
    size_t n = strlen(j->key);
    bool directory = n && j->key[n - 1] == '/';
    if (directory)
        j->key[n - 1] = '\0';
    const char *name;
    int parent cleanup(closep) = parent_of(dir_fd_of(j), j->key, &name);
    if (parent < 0)
        return parent == -ENOENT ? 0 : parent;
    if (unlinkat(parent, name, directory ? AT_REMOVEDIR : 0) < 0 && errno != ENOENT)
        return -errno;
    return 0;
}

static void remove_done(struct io_op *io, int result)
{
    job_end(container_of(io, struct file_job, io), "remove", result);
}

static void file_remove(struct ufs *u, struct ufs_op *op, struct text key)
{
    struct file_job *j = job_new(op, key);
    if (!j)
        abort();
    u->counters.requests[UFS_DELETE]++;
    io_work(u->loop, &j->io, remove_work, j, remove_done);
}

/* ---- get ------------------------------------------------------------------------------------------------------------ */

static void get_next(struct file_job *j);

static int get_open_work(void *arg)
{
    struct file_job *j = arg;
    j->fd = beneath(dir_fd_of(j), j->key, O_RDONLY | O_NONBLOCK, 0); /* of a pipe: do not wait for its writer */
    if (j->fd < 0)
        return j->fd;
    if (fstat(j->fd, &j->st) < 0)
        return -errno;
    return S_ISREG(j->st.st_mode) ? 0 : S_ISDIR(j->st.st_mode) ? -EISDIR : -EINVAL;
}

static int get_check_work(void *arg)
{
    struct file_job *j = arg;
    return fstat(j->fd, &j->st) < 0 ? -errno : 0;
}

/* Whatever is read is one state of the file: what it was at open (want), and at the end still is. */
static bool same_file(struct file_job *j)
{
    struct ufs_identity now;
    identity_of(&j->st, &now);
    return ufs_identity_equal(&now, &j->want);
}

static void get_checked(struct io_op *io, int result)
{
    struct file_job *j = container_of(io, struct file_job, io);
    job_end(j, "read", result < 0 ? result : same_file(j) ? 0 : -CV_STALE_IDENTITY);
}

static void get_read_done(struct io_op *io, int result)
{
    struct file_job *j = container_of(io, struct file_job, io);
    struct ufs_op *op = j->op;
    int r = j->cancelled ? -ECANCELED : result;
    if (r > 0) {
        op->ufs->counters.bytes_in += (uint64_t)r;
        op->bytes += (uint64_t)r;
        j->offset += (uint64_t)r;
        j->left -= (uint64_t)r;
        int p = op->piece(op, j->piece, (size_t)r);
        if (p < 0)
            r = p;
    } else if (r == 0) {
        j->left = 0; /* the end of the file; the check tells if it was cut */
    }
    if (r < 0)
        job_end(j, "read", r);
    else
        get_next(j);
}

static void get_next(struct file_job *j)
{
    struct loop *loop = j->op->ufs->loop;
    if (j->left == 0)
        io_work(loop, &j->io, get_check_work, j, get_checked);
    else
        io_read(loop, &j->io, j->fd, j->piece, min(j->left, (uint64_t)PIECE_BYTES), j->offset, get_read_done);
}

static void get_opened(struct io_op *io, int result)
{
    struct file_job *j = container_of(io, struct file_job, io);
    if (result == 0 && j->has_want && !same_file(j))
        result = -CV_STALE_IDENTITY;
    if (result == 0 && j->cancelled)
        result = -ECANCELED;
    if (result < 0) {
        job_end(j, "open", result);
        return;
    }
    identity_of(&j->st, &j->want);
    entry_of(&j->st, &j->op->entry);
    get_next(j);
}

static void file_get(struct ufs *u, struct ufs_op *op, struct text key, const struct ufs_identity *id, uint64_t offset,
                     uint64_t n)
{
    struct file_job *j = job_new(op, key);
    if (!j)
        abort();
    u->counters.requests[UFS_GET]++;
    j->offset = offset;
    j->left = n;
    if (id) {
        j->has_want = true;
        j->want = *id;
    }
    j->piece = malloc(min(max(n, (uint64_t)1), (uint64_t)PIECE_BYTES));
    if (!j->piece)
        io_work(u->loop, &j->io, nothing, j, no_memory_done);
    else
        io_work(u->loop, &j->io, get_open_work, j, get_opened);
}

/* ---- put: to a temporary name, synced, renamed --------------------------------------------------------------------- */

static int make_parents(int dir_fd, char *key)
{
    for (char *slash = strchr(key, '/'); slash; slash = strchr(slash + 1, '/')) {
        *slash = '\0';
        const char *name;
        int parent cleanup(closep) = parent_of(dir_fd, key, &name);
        int r = parent < 0 ? parent : mkdirat(parent, name, 0777) < 0 && errno != EEXIST ? -errno : 0;
        *slash = '/';
        if (r < 0)
            return r;
    }
    return 0;
}

static int copy_content(struct file_job *j, int to)
{
    uint64_t left = j->left;
    loff_t from = (loff_t)j->offset;
    while (left) {
        ssize_t n = copy_file_range(j->source_fd, &from, to, NULL, min(left, (uint64_t)1 << 30), 0);
        if (n < 0 && errno == EINTR)
            continue;
        if (n < 0 && (errno == EXDEV || errno == EOPNOTSUPP || errno == EINVAL))
            break; /* another kind of file system: by hand */
        if (n <= 0)
            return n < 0 ? -errno : -EIO;
        left -= (uint64_t)n;
    }
    while (left) {
        ssize_t n = pread(j->source_fd, j->piece, min(left, (uint64_t)PIECE_BYTES), from);
        if (n <= 0)
            return n < 0 ? -errno : -EIO;
        for (ssize_t done = 0, w; done < n; done += w)
            if ((w = write(to, j->piece + done, (size_t)(n - done))) < 0)
                return -errno;
        from += n;
        left -= (uint64_t)n;
    }
    return 0;
}

/* Is what is there what the caller thinks is there? */
static int check_replaced(struct file_job *j, int parent, const char *name)
{
    if (!j->has_want)
        return 0;
    bool expects_none = !j->want.etag[0] && j->want.size == 0 && j->want.mtime_ns == 0;
    struct stat st;
    if (fstatat(parent, name, &st, AT_SYMLINK_NOFOLLOW) < 0)
        return errno == ENOENT ? (expects_none ? 0 : -CV_STALE_IDENTITY) : -errno;
    struct ufs_identity now;
    identity_of(&st, &now);
    return !expects_none && ufs_identity_equal(&now, &j->want) ? 0 : -CV_STALE_IDENTITY;
}

static int put_work(void *arg)
{
    struct file_job *j = arg;
    int r = make_parents(dir_fd_of(j), j->key);
    if (r < 0)
        return r;
    const char *name;
    int parent_path cleanup(closep) = parent_of(dir_fd_of(j), j->key, &name);
    if (parent_path < 0)
        return parent_path;
    int parent cleanup(closep) = beneath(parent_path, "", O_RDONLY | O_DIRECTORY, 0);
    if (parent < 0)
        return parent;
    if ((r = check_replaced(j, parent, name)) < 0)
        return r;
    char temporary[64];
    snprintf(temporary, sizeof(temporary), ".curvine-upload-%016llx", (unsigned long long)random_u64());
    int to cleanup(closep) = openat(parent, temporary, O_CREAT | O_EXCL | O_WRONLY | O_CLOEXEC, 0666);
    if (to < 0)
        return -errno;
    r = copy_content(j, to);
    if (r == 0 && fsync(to) < 0)
        r = -errno;
    if (r == 0 && renameat(parent, temporary, parent, name) < 0)
        r = -errno;
    if (r == 0 && (fsync(parent) < 0 || fstat(to, &j->st) < 0))
        r = -errno;
    if (r < 0)
        unlinkat(parent, temporary, 0);
    return r;
}

static void put_done(struct io_op *io, int result)
{
    struct file_job *j = container_of(io, struct file_job, io);
    if (result == 0) {
        entry_of(&j->st, &j->op->entry);
        j->op->bytes = j->left;
        j->op->ufs->counters.bytes_out += j->left;
    }
    job_end(j, "write", result);
}

static void file_put(struct ufs *u, struct ufs_op *op, struct text key, const struct ufs_identity *id, int fd,
                     uint64_t offset, uint64_t n)
{
    struct file_job *j = job_new(op, key);
    if (!j)
        abort();
    u->counters.requests[UFS_PUT]++;
    j->source_fd = fd;
    j->offset = offset;
    j->left = n;
    if (id) {
        j->has_want = true;
        j->want = *id;
    }
    j->piece = malloc(PIECE_BYTES);
    io_work(u->loop, &j->io, j->piece ? put_work : nothing, j, j->piece ? put_done : no_memory_done);
}

/* ---- list ------------------------------------------------------------------------------------------------------------ */

static int by_key(const void *a, const void *b)
{
    return strcmp(((const struct file_name *)a)->key, ((const struct file_name *)b)->key);
}

static int add_name(struct file_level *l, size_t *room, int dir_fd, const char *name)
{
    struct stat st;
    if (fstatat(dir_fd, name, &st, AT_SYMLINK_NOFOLLOW) < 0)
        return errno == ENOENT ? 0 : -errno; /* gone meanwhile */
    if (!is_known(&st))
        return 0; /* sockets and devices are nothing to cache */
    if (l->count == *room) {
        *room = *room ? *room * 2 : 64;
        struct file_name *names = reallocarray(l->names, *room, sizeof(*names));
        if (!names)
            return -ENOMEM;
        l->names = names;
    }
    struct file_name *n = &l->names[l->count];
    if (asprintf(&n->key, "%s%s%s", l->directory, name, S_ISDIR(st.st_mode) ? "/" : "") < 0)
        return -ENOMEM;
    n->st = st;
    l->count++;
    return 0;
}

static int list_work(void *arg)
{
    struct file_job *j = arg;
    struct file_level *l = j->level;
    int fd = beneath(dir_fd_of(j), l->directory, O_RDONLY | O_DIRECTORY | O_NOFOLLOW, 0);
    if (fd < 0)
        return l->up && fd == -ENOENT ? 0 : fd;
    DIR *d = fdopendir(fd);
    if (!d) {
        int r = -errno;
        close(fd);
        return r;
    }
    size_t room = 0;
    int r = 0;
    for (struct dirent *e; r == 0 && (errno = 0, e = readdir(d));)
        if (strcmp(e->d_name, ".") != 0 && strcmp(e->d_name, "..") != 0)
            r = add_name(l, &room, fd, e->d_name);
    if (r == 0 && errno)
        r = -errno;
    closedir(d);
    if (l->count)
        qsort(l->names, l->count, sizeof(*l->names), by_key);
    return r;
}

static void list_level_done(struct io_op *io, int result);

static int list_enter(struct file_job *j, const char *directory)
{
    struct file_level *l = calloc(1, sizeof(*l));
    if (!l || !(l->directory = strdup(directory))) {
        free(l);
        return -ENOMEM;
    }
    l->up = j->level;
    j->level = l;
    j->op->ufs->counters.requests[UFS_LIST]++;
    io_work(j->op->ufs->loop, &j->io, list_work, j, list_level_done);
    return 0;
}

/* Is everything in the directory before "after", so that it need not be entered? */
static bool all_before(const char *directory, const char *after)
{
    return strcmp(directory, after) < 0 && strncmp(directory, after, strlen(directory)) != 0;
}

static struct file_kept *kept_drop(struct file_kept *k)
{
    while (k->level)
        k->level = level_free(k->level);
    free(k->prefix);
    free(k->after);
    *k = (struct file_kept){0};
    return k;
}

/* In the place of the one that waits longest. Without memory: read again, then. */
static void keep(struct file_job *j)
{
    struct file_ufs *f = j->op->ufs->impl;
    struct file_kept *to = &f->kept[0];
    for (int i = 1; i < KEPT_MAX; i++)
        if (f->kept[i].until_ns < to->until_ns)
            to = &f->kept[i];
    if (!j->last)
        return;
    *kept_drop(to) = (struct file_kept){.level = take(j->level),
                                        .prefix = take(j->key),
                                        .after = take(j->last),
                                        .recursive = j->recursive,
                                        .until_ns = clock_ns() + KEPT_MS * NS_PER_MS};
}

/* What an earlier listing had read behind `after`, or NULL. What nobody came back for goes. */
static struct file_level *take_kept(struct file_job *j)
{
    struct file_ufs *f = j->op->ufs->impl;
    struct file_level *level = NULL;
    uint64_t now = clock_ns();
    for (int i = 0; i < KEPT_MAX; i++) {
        struct file_kept *k = &f->kept[i];
        if (!k->level)
            continue;
        bool its = k->recursive == j->recursive && strcmp(k->prefix, j->key) == 0 && strcmp(k->after, j->after) == 0;
        if (its && !level)
            level = take(k->level);
        if (its || now > k->until_ns)
            kept_drop(k);
    }
    return level;
}

static int go_on(void *arg)
{
    return 0;
}

/* Give entries until a directory has to be read or the end. Returns 1 when reading goes on. */
static int list_walk(struct file_job *j)
{
    struct ufs_op *op = j->op;
    while (j->level) {
        struct file_level *l = j->level;
        if (l->at == l->count) {
            j->level = level_free(l);
            continue;
        }
        struct file_name *n = &l->names[l->at++];
        bool directory = S_ISDIR(n->st.st_mode);
        if (strcmp(n->key, j->after) > 0) {
            if (j->max && j->given >= j->max) {
                l->at--;
                op->more = true;
                keep(j);
                return 0;
            }
            struct ufs_entry e;
            entry_of(&n->st, &e);
            e.key = text_of(n->key);
            int r = op->each(op, &e);
            if (r < 0)
                return r;
            if (++j->given == j->max)
                j->last = strdup(n->key);
        }
        if (directory && j->recursive && !all_before(n->key, j->after)) {
            int r = list_enter(j, n->key);
            return r < 0 ? r : 1;
        }
    }
    return 0;
}

static void list_level_done(struct io_op *io, int result)
{
    struct file_job *j = container_of(io, struct file_job, io);
    int r = j->cancelled ? -ECANCELED : result < 0 ? result : list_walk(j);
    if (r <= 0)
        job_end(j, "list", r);
}

static void file_list(struct ufs *u, struct ufs_op *op, struct text prefix, struct text after, uint32_t max,
                      bool recursive)
{
    struct file_job *j = job_new(op, prefix);
    if (!j || !(j->after = strndup(after.n ? after.p : "", after.n)))
        abort();
    j->max = max;
    j->recursive = recursive;
    if ((j->level = take_kept(j)))
        io_work(u->loop, &j->io, go_on, j, list_level_done);
    else if (list_enter(j, j->key) < 0)
        io_work(u->loop, &j->io, nothing, j, no_memory_done);
}

/* ---- life ------------------------------------------------------------------------------------------------------------- */

static int file_open(struct ufs *u, struct text authority, char *message, size_t size)
{
    if (authority.n) {
        snprintf(message, size, "'%s': a file URI has no host: write file:///%.*s...", u->uri, TEXT_ARG(authority));
        return -EINVAL;
    }
    struct file_ufs *f = calloc(1, sizeof(*f));
    if (!f)
        return -ENOMEM;
    const char *path = u->uri + strlen("file://");
    f->dir_fd = open(*path ? path : "/", O_PATH | O_DIRECTORY | O_CLOEXEC);
    if (f->dir_fd < 0) {
        int r = -errno;
        snprintf(message, size, "directory '%s': %s", path, cv_error_text(r));
        free(f);
        return r;
    }
    u->prefix[0] = '\0'; /* keys are beneath dir_fd already */
    u->impl = f;
    return 0;
}

static void file_close(struct ufs *u)
{
    struct file_ufs *f = u->impl;
    for (int i = 0; i < KEPT_MAX; i++)
        kept_drop(&f->kept[i]);
    close_fd(f->dir_fd);
    free(f);
}

static void file_cancel(struct ufs_op *op)
{
    struct file_job *j = op->state;
    j->cancelled = true;
    io_cancel(&j->io);
}

const struct ufs_ops ufs_file_ops = {
    .scheme = "file",
    .open = file_open,
    .close = file_close,
    .check = file_check,
    .stat = file_stat,
    .list = file_list,
    .get = file_get,
    .put = file_put,
    .remove = file_remove,
    .cancel = file_cancel,
};
