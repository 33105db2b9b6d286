/* SPDX-License-Identifier: Apache-2.0 */
/* Manifest: the files it describes. */
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/error.h"
#include "base/hash.h"
#include "wire/manifest.h"

static int open_in(const char *dir, const char *name, int flags)
{
    int dir_fd cleanup(closep) = open(dir, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    int fd = dir_fd < 0 ? -1 : openat(dir_fd, name, flags | O_CLOEXEC | O_NOFOLLOW, 0600);
    return fd < 0 ? -errno : fd;
}

/* As much as there is, up to n. */
static ssize_t read_at(int fd, void *p, size_t n, uint64_t offset)
{
    size_t done = 0;
    while (done < n) {
        ssize_t got = pread(fd, (char *)p + done, n - done, (off_t)(offset + done));
        if (got < 0 && errno != EINTR)
            return -errno;
        if (got == 0)
            break;
        done += got > 0 ? (size_t)got : 0;
    }
    return (ssize_t)done;
}

/* Read a file chunk by chunk; *ret_crc and *ret_hash of each. Stops at the first that is not as expected (want NULL: all
 * are). Returns the bytes that are good in *ret. */
static int walk(int fd, const struct manifest_file *want, struct manifest_file *fill, uint64_t *ret, uint64_t *ret_hash)
{
    uint8_t *chunk cleanup(freep) = malloc(MANIFEST_CHUNK);
    if (!chunk)
        return -ENOMEM;
    uint64_t size = want ? want->size : fill->size, hash = 0, at = 0;
    for (uint32_t i = 0; i < manifest_chunks(size); i++) {
        size_t n = (size_t)min((uint64_t)MANIFEST_CHUNK, size - at);
        ssize_t got = read_at(fd, chunk, n, at);
        if (got < 0)
            return (int)got;
        if ((size_t)got < n)
            break;
        uint32_t crc = crc32c(0, chunk, n);
        if (want && crc != want->crcs[i])
            break;
        if (fill)
            fill->crcs[i] = crc;
        hash = hash_bytes(hash, chunk, n);
        at += n;
    }
    *ret = at;
    *ret_hash = hash;
    return 0;
}

static int compare_names(const void *a, const void *b)
{
    return strcmp(*(char *const *)a, *(char *const *)b);
}

struct names {
    char **list;
    uint32_t count, room;
};

static void names_fini(struct names *n)
{
    for (uint32_t i = 0; i < n->count; i++)
        free(n->list[i]);
    free(n->list);
}

static int list_names(const char *dir, struct names *n)
{
    DIR *d = opendir(dir);
    if (!d)
        return -errno;
    int r = 0;
    errno = 0;
    for (struct dirent *e; r == 0 && (e = readdir(d)); errno = 0) {
        if (e->d_name[0] == '.' && (!e->d_name[1] || !strcmp(e->d_name, "..")))
            continue;
        if (n->count == n->room) {
            uint32_t room = n->room ? 2 * n->room : 64;
            char **list = realloc(n->list, room * sizeof(*list));
            if (!list) {
                r = -ENOMEM;
                break;
            }
            n->list = list;
            n->room = room;
        }
        n->list[n->count] = strdup(e->d_name);
        if (!n->list[n->count])
            r = -ENOMEM;
        else
            n->count++;
    }
    if (r == 0)
        r = -errno;
    closedir(d);
    if (n->count)
        qsort(n->list, n->count, sizeof(n->list[0]), compare_names);
    return r;
}

/* What RocksDB keeps beside its data. */
static bool is_data(const char *name)
{
    return strcmp(name, MANIFEST_FILE) != 0 && strcmp(name, "LOCK") != 0 && strncmp(name, "LOG", 3) != 0 &&
           strncmp(name, MANIFEST_FILE ".", sizeof(MANIFEST_FILE)) != 0;
}

static int scan_file(const char *dir, const char *name, struct manifest *m)
{
    int fd = open_in(dir, name, O_RDONLY);
    if (fd < 0)
        return fd;
    struct stat st;
    struct manifest_file *f;
    uint64_t good;
    int r = fstat(fd, &st) < 0 ? -errno : S_ISREG(st.st_mode) ? 0 : -EINVAL;
    if (r == 0)
        r = manifest_add(m, text_of(name), (uint64_t)st.st_size, &f);
    if (r == 0)
        r = walk(fd, NULL, f, &good, &f->hash);
    if (r == 0 && good != f->size)
        r = -EIO; /* it shrinks while we read: not a checkpoint's */
    close(fd);
    return r;
}

int manifest_scan(const char *dir, struct manifest *m)
{
    struct names names cleanup(names_fini) = {0};
    int r = list_names(dir, &names);
    for (uint32_t i = 0; r == 0 && i < names.count; i++)
        if (is_data(names.list[i]))
            r = scan_file(dir, names.list[i], m);
    return r;
}

int manifest_read(const char *dir, struct manifest *ret)
{
    int fd cleanup(closep) = open_in(dir, MANIFEST_FILE, O_RDONLY);
    if (fd < 0)
        return fd;
    struct stat st;
    if (fstat(fd, &st) < 0)
        return -errno;
    if (st.st_size > MANIFEST_BYTES_MAX)
        return -CV_BAD_FORMAT;
    uint8_t *bytes cleanup(freep) = malloc((size_t)st.st_size + 1);
    if (!bytes)
        return -ENOMEM;
    ssize_t n = read_at(fd, bytes, (size_t)st.st_size, 0);
    return n < 0 ? (int)n : manifest_decode(bytes, (size_t)n, ret);
}

int manifest_sync_dir(const char *dir)
{
    int fd cleanup(closep) = open(dir, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    if (fd < 0)
        return -errno;
#ifndef CV_TEST_NO_FSYNC /* a build that must fail the power cut tests */
    if (fsync(fd) < 0)
        return -errno;
#endif
    return 0;
}

int manifest_write(const char *dir, const struct manifest *m)
{
    struct buf bytes cleanup(buf_fini) = {0};
    int r = manifest_encode(m, &bytes);
    if (r < 0)
        return r;
    int dir_fd cleanup(closep) = open(dir, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    int fd cleanup(closep) = openat(dir_fd, MANIFEST_FILE ".new", O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0600);
    if (dir_fd < 0 || fd < 0)
        return -errno;
    for (size_t done = 0; done < bytes.n;) {
        ssize_t n = write(fd, bytes.p + done, bytes.n - done);
        if (n < 0 && errno != EINTR)
            return -errno;
        done += n > 0 ? (size_t)n : 0;
    }
    if (fsync(fd) < 0 || renameat(dir_fd, MANIFEST_FILE ".new", dir_fd, MANIFEST_FILE) < 0 || fsync(dir_fd) < 0)
        return -errno;
    return 0;
}

int manifest_check_prefix(const char *dir, const struct manifest_file *f, uint64_t *ret)
{
    *ret = 0;
    int fd cleanup(closep) = open_in(dir, f->name, O_RDONLY);
    if (fd == -ENOENT || fd == -ELOOP)
        return 0;
    if (fd < 0)
        return fd;
    uint64_t hash;
    return walk(fd, f, NULL, ret, &hash);
}

static int verify_file(const char *dir, const struct manifest_file *f)
{
    int fd cleanup(closep) = open_in(dir, f->name, O_RDONLY);
    if (fd < 0)
        return fd;
    struct stat st;
    if (fstat(fd, &st) < 0)
        return -errno;
    uint64_t good, hash;
    int r = walk(fd, f, NULL, &good, &hash);
    if (r == 0 && (good != f->size || (uint64_t)st.st_size != f->size || hash != f->hash))
        r = -CV_BAD_CHECKSUM;
    return r;
}

int manifest_verify(const char *dir, const struct manifest *m, const char **ret_bad)
{
    for (uint32_t i = 0; i < m->file_count; i++) {
        int r = verify_file(dir, &m->files[i]);
        if (r < 0) {
            if (ret_bad)
                *ret_bad = m->files[i].name;
            return r;
        }
    }
    return 0;
}

static int copy_file(const char *from, const char *to, const struct manifest_file *f,
                     void (*copied)(void *arg, uint64_t bytes), void *arg)
{
    int in cleanup(closep) = open_in(from, f->name, O_RDONLY);
    int out cleanup(closep) = in < 0 ? -1 : open_in(to, f->name, O_WRONLY | O_CREAT | O_EXCL);
    uint8_t *chunk cleanup(freep) = malloc(MANIFEST_CHUNK);
    if (in < 0 || out < 0)
        return in < 0 ? in : out;
    if (!chunk)
        return -ENOMEM;
    uint64_t at = 0;
    for (uint32_t i = 0; i < manifest_chunks(f->size); i++) {
        size_t n = (size_t)min((uint64_t)MANIFEST_CHUNK, f->size - at);
        ssize_t got = read_at(in, chunk, n, at);
        if (got < 0)
            return (int)got;
        if ((size_t)got < n || crc32c(0, chunk, n) != f->crcs[i])
            return -CV_BAD_CHECKSUM;
        for (size_t done = 0; done < n;) {
            ssize_t w = write(out, chunk + done, n - done);
            if (w < 0 && errno != EINTR)
                return -errno;
            done += w > 0 ? (size_t)w : 0;
        }
        at += n;
        if (copied)
            copied(arg, n);
    }
    return 0;
}

int manifest_copy(const char *from, const char *to, const struct manifest *m, void (*copied)(void *arg, uint64_t bytes),
                  void *arg, const char **ret_bad)
{
    for (uint32_t i = 0; i < m->file_count; i++) {
        int r = copy_file(from, to, &m->files[i], copied, arg);
        if (r < 0) {
            if (ret_bad)
                *ret_bad = m->files[i].name;
            return r;
        }
    }
    int r = manifest_sync(to, m);
    return r == 0 ? manifest_write(to, m) : r;
}

int manifest_sync(const char *dir, const struct manifest *m)
{
#ifndef CV_TEST_NO_FSYNC /* a build that must fail the power cut tests */
    for (uint32_t i = 0; i < m->file_count; i++) {
        int fd cleanup(closep) = open_in(dir, m->files[i].name, O_RDONLY);
        if (fd < 0)
            return fd;
        if (fsync(fd) < 0)
            return -errno;
    }
#endif
    return manifest_sync_dir(dir);
}

int manifest_remove_dir(const char *dir)
{
    struct names names cleanup(names_fini) = {0};
    int r = list_names(dir, &names);
    if (r < 0)
        return r == -ENOENT ? 0 : r;
    int fd cleanup(closep) = open(dir, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    if (fd < 0)
        return -errno;
    for (uint32_t i = 0; i < names.count; i++)
        if (unlinkat(fd, names.list[i], 0) < 0 && errno != ENOENT)
            return -errno;
    return rmdir(dir) < 0 && errno != ENOENT ? -errno : 0;
}
