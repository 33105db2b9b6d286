/* SPDX-License-Identifier: Apache-2.0 */
#include "worker/block_heal.h"

#include <dirent.h>
#include <fcntl.h>
#include <inttypes.h>
#include <stdio.h>
#include <sys/stat.h>

#include "base/error.h"
#include "base/log.h"
#include "worker/block_io.h"

#define NOTE        "index.damaged"
#define CACHE_BYTES (8u << 20)

struct healing {
    struct block_dir *dir;
    struct block_index *old; /* NULL: unreadable */
    struct block_index *fresh;
    struct block_batch *batch;
    uint64_t file_id, seal; /* above all seen */
    uint64_t kept, lost;
};

void block_heal_remember(struct block_dir *d)
{
    int fd cleanup(closep) = openat(d->fd, NOTE, O_WRONLY | O_CREAT | O_CLOEXEC, 0600);
    if (fd >= 0)
        (void)fsync(d->fd);
}

bool block_heal_wanted(struct block_dir *d)
{
    return faccessat(d->fd, NOTE, F_OK, 0) == 0;
}

int block_heal_first_rows(struct block_index *x, const struct block_identity *d, uint64_t file_id, uint64_t seal,
                          bool all_in_doubt)
{
    struct block_batch *b cleanup(block_batch_free_p) = block_batch_new();
    if (!b)
        return -ENOMEM;
    struct block_row_key key = block_key_plain(BLOCK_ROW_STORE);
    struct block_row_store store = {.worker_id = d->worker_id};
    memcpy(store.cluster, d->cluster, 16);
    block_batch_put(b, &key, &store, sizeof(store));
    key = block_key_u32(BLOCK_ROW_DIR, d->directory_id);
    struct block_row_dir dir = {.synced_seal = seal - 1};
    if (all_in_doubt) {
        dir.doubt[0].first = 1;
        dir.doubt[0].last = seal - 1;
    }
    block_batch_put(b, &key, &dir, sizeof(dir));
    key = block_key_u32(BLOCK_ROW_LIMIT, d->directory_id);
    struct block_row_limit limit = {.file_id = file_id, .seal = seal};
    block_batch_put(b, &key, &limit, sizeof(limit));
    return block_index_write(x, b, true);
}

static void add_used(struct healing *h, uint32_t mount, uint64_t bytes)
{
    struct block_row_key used = block_key_u32(BLOCK_ROW_USED, h->dir->identity.directory_id);
    block_batch_add(h->batch, &used, (int64_t)bytes);
    if (mount) {
        struct block_row_key of_mount = block_key_u32(BLOCK_ROW_MOUNT, mount);
        block_batch_add(h->batch, &of_mount, (int64_t)bytes);
    }
}

/* ---- one written file ---- */

static int carry_chunks(struct healing *h, const struct block_row_key *block, uint32_t mount)
{
    struct block_row_key prefix = *block, key;
    prefix.p[0] = BLOCK_ROW_CHUNK;
    struct block_iter *i cleanup(block_iter_free_p) = NULL;
    int r = block_iter_new(h->old, &prefix, NULL, &i);
    while (r >= 0 && (r = block_iter_next(i, &key)) == 1) {
        struct block_row_chunk row;
        r = block_iter_row(i, &row, sizeof(row));
        if (r < 0)
            break;
        h->seal = h->seal > row.seal ? h->seal : row.seal + 1;
        add_used(h, mount, row.pages * 4096u);
        block_batch_put(h->batch, &key, &row, sizeof(row));
    }
    return r;
}

static int carry_row(struct healing *h, const struct block_row_key *block, enum block_row_kind kind, void *row,
                     size_t n)
{
    struct block_row_key key = *block;
    key.p[0] = (uint8_t)kind;
    int r = block_index_get(h->old, &key, false, row, n);
    if (r == 0)
        block_batch_put(h->batch, &key, row, n);
    return r == -ENOENT ? 0 : r;
}

/* All rows of the file. Errors: -ENOENT they do not speak of written data (any more); damage. */
static int carry_file(struct healing *h, uint64_t inode, uint64_t id)
{
    struct block_row_key prefix = block_key_u64(BLOCK_ROW_BLOCK, inode), key;
    struct block_row_key file_key = block_key_file(inode, h->dir->identity.directory_id);
    struct block_row_file file;
    bool dirty = false;
    int r = block_index_get(h->old, &file_key, false, &file, sizeof(file));
    if (r == 0 && file.file_id != id)
        r = -ENOENT;
    struct block_iter *i cleanup(block_iter_free_p) = NULL;
    if (r == 0)
        r = block_iter_new(h->old, &prefix, NULL, &i);
    while (r >= 0 && i && (r = block_iter_next(i, &key)) == 1) {
        struct block_row_block row;
        struct block_row_writing writing;
        struct block_row_torn torn;
        r = block_iter_row(i, &row, sizeof(row));
        if (r < 0 || row.file_id != id)
            continue;
        dirty |= row.block_version != row.base_version;
        block_batch_put(h->batch, &key, &row, sizeof(row));
        r = carry_row(h, &key, BLOCK_ROW_WRITING, &writing, sizeof(writing));
        if (r == 0)
            r = carry_row(h, &key, BLOCK_ROW_TORN, &torn, sizeof(torn));
        if (r == 0)
            r = carry_chunks(h, &key, row.mount);
    }
    if (r == 0 && !dirty && !file.lost)
        r = -ENOENT;
    if (r == 0) {
        file.written = 1;
        h->lost += file.lost;
        block_batch_put(h->batch, &file_key, &file, sizeof(file));
    }
    return r;
}

static void mark_lost(struct healing *h, uint64_t inode, uint64_t id, const char *name)
{
    struct block_row_key key = block_key_file(inode, h->dir->identity.directory_id);
    struct block_row_file row = {.block_shift = 26, .written = 1, .lost = 1, .file_id = id};
    struct stat st;
    if (fstatat(h->dir->fd, name, &st, 0) == 0)
        add_used(h, 0, (uint64_t)st.st_blocks * 512);
    block_batch_put(h->batch, &key, &row, sizeof(row));
    h->lost++;
    log_warn(0, "written data of inode %" PRIu64 " was lost with the index: kept as %s, answering that it is damaged",
             inode, name);
}

static int keep_file(struct healing *h, uint64_t inode, uint64_t id, const char *name)
{
    block_batch_clear(h->batch);
    int r = h->old ? carry_file(h, inode, id) : -ENOENT;
    if (r == -CV_FORMAT_TOO_NEW || r == -ENOMEM)
        return r;
    if (r < 0) {
        block_batch_clear(h->batch);
        mark_lost(h, inode, id, name);
    }
    h->kept++;
    h->file_id = h->file_id > id ? h->file_id : id + 1;
    return block_index_write(h->fresh, h->batch, false);
}

/* For each name in DIR/written. */
static int each_written(struct healing *h, int (*visit)(struct healing *, uint64_t, uint64_t, const char *))
{
    int fd = openat(h->dir->fd, "written", O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    if (fd < 0)
        return errno == ENOENT ? 0 : -errno;
    DIR *d = fdopendir(fd);
    if (!d) {
        close(fd);
        return -ENOMEM;
    }
    int r = 0;
    for (struct dirent *e; r == 0 && (e = readdir(d));) {
        uint64_t inode, id;
        char name[BLOCK_NAME_MAX];
        if (sscanf(e->d_name, "%16" SCNx64 ".%16" SCNx64, &inode, &id) != 2)
            continue;
        block_dir_written_name(inode, id, name);
        r = visit(h, inode, id, name);
    }
    closedir(d);
    return r;
}

/* ---- the new index ---- */

static int read_limits(struct healing *h)
{
    struct block_row_key key = block_key_u32(BLOCK_ROW_LIMIT, h->dir->identity.directory_id);
    struct block_row_limit limit;
    h->file_id = h->seal = 1;
    if (h->old && block_index_get(h->old, &key, false, &limit, sizeof(limit)) == 0) {
        h->file_id = limit.file_id;
        h->seal = limit.seal;
    }
    return 0;
}

static int make_index(struct healing *h, const char *path)
{
    char old_path[4096], new_path[4096];
    snprintf(old_path, sizeof(old_path), "%s/index", path);
    snprintf(new_path, sizeof(new_path), "%s/index.new", path);
    int r = block_io_remove_tree(h->dir->fd, "index.new");
    if (r == 0)
        r = block_index_open(new_path, BLOCK_INDEX_CREATE, CACHE_BYTES, &h->fresh);
    if (r < 0)
        return r;
    r = block_index_open(old_path, BLOCK_INDEX_READ_ONLY, CACHE_BYTES, &h->old);
    if (r < 0 && block_index_repair(old_path) == 0)
        r = block_index_open(old_path, BLOCK_INDEX_READ_ONLY, CACHE_BYTES, &h->old);
    if (r < 0)
        h->old = NULL;
    h->batch = block_batch_new();
    r = h->batch ? read_limits(h) : -ENOMEM;
    if (r == 0)
        r = each_written(h, keep_file);
    if (r == 0)
        r = block_heal_first_rows(h->fresh, &h->dir->identity, h->file_id + (1u << 20), h->seal, true);
    return r;
}

/* ---- the files ---- */

static int link_back(struct healing *h, uint64_t inode, uint64_t id, const char *name)
{
    char to[BLOCK_NAME_MAX];
    block_dir_name(BLOCK_FILE_BACKING, id, to);
    return block_io_link(h->dir->fd, name, to);
}

static int remake_folders(struct healing *h)
{
    int r = block_io_remove_tree(h->dir->fd, "files");
    if (r == 0)
        r = block_io_remove_tree(h->dir->fd, "segments");
    if (r == 0)
        r = block_dir_make_folders(h->dir);
    if (r == 0)
        r = each_written(h, link_back);
    for (unsigned i = 0; r == 0 && h->kept && i < 256; i++) {
        char folder[BLOCK_NAME_MAX];
        block_dir_folder(BLOCK_FILE_BACKING, i, folder);
        r = block_io_sync_dir(h->dir->fd, folder);
    }
    return r;
}

static int swap(struct healing *h)
{
    int r = block_io_unlink(h->dir->fd, "index.mark");
    if (r < 0)
        return r;
    /* In one step, so that a crash leaves either the old index to carry over from or the new one. */
    if (renameat2(h->dir->fd, "index.new", h->dir->fd, "index", RENAME_EXCHANGE) < 0 &&
        (errno != ENOENT || renameat(h->dir->fd, "index.new", h->dir->fd, "index") < 0))
        return -errno;
    r = block_io_sync_dir(h->dir->fd, ".");
    if (r == 0)
        r = remake_folders(h);
    if (r == 0)
        r = block_io_remove_tree(h->dir->fd, "index.new");
    if (r == 0)
        r = block_io_unlink(h->dir->fd, NOTE);
    return r < 0 ? r : block_io_sync_dir(h->dir->fd, ".");
}

int block_heal(const char *path, struct block_dir *d, int why, uint64_t *ret_lost)
{
    struct healing h = {.dir = d};
    log_warn(why, "%s: the index is damaged; forgetting clean data, keeping what was written", path);
    block_heal_remember(d);
    int r = make_index(&h, path);
    block_batch_free(h.batch);
    h.old = block_index_free(h.old);
    h.fresh = block_index_free(h.fresh);
    if (r == 0)
        r = swap(&h);
    if (r < 0)
        return log_error(r, "%s: healing", path);
    log_info("%s: healed: %" PRIu64 " written files kept, %" PRIu64 " of them lost", path, h.kept, h.lost);
    *ret_lost = h.lost;
    return 0;
}
