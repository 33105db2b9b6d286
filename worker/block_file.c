/* SPDX-License-Identifier: Apache-2.0 */
/* Resident files (backing files and segments): the table, their descriptors, creation and the ways they go. */
#include "worker/block_state.h"

#include <fcntl.h>

#include "base/hash.h"
#include "base/log.h"

static struct block_file **bucket(struct block_store *s, enum block_file_type type, uint64_t key)
{
    return &s->files[hash_u64(key * 2 + (type == BLOCK_FILE_SEGMENT)) & s->file_mask];
}

static struct block_file *find(struct block_store *s, enum block_file_type type, uint64_t key)
{
    struct block_file *f = *bucket(s, type, key);
    while (f && (f->type != type || f->key != key))
        f = f->hash_next;
    return f;
}

static void leave_table(struct block_store *s, struct block_file *f)
{
    struct block_file **at = bucket(s, f->type, f->key);
    while (*at && *at != f)
        at = &(*at)->hash_next;
    if (*at)
        *at = f->hash_next;
}

/* Nobody knows it any more: to the graveyard, so that no close() happens under the lock. */
static void forget_if_unused(struct block_store *s, struct block_file *f)
{
    if (f->refs || f->users || f->loading || f->busy)
        return;
    leave_table(s, f);
    if (f->fd >= 0) {
        list_remove(&f->open);
        s->open_count--;
    }
    f->hash_next = s->graveyard;
    s->graveyard = f;
    s->file_count--;
}

void block_files_bury(struct block_store *s)
{
    pthread_mutex_lock(&s->lock);
    struct block_file *f = s->graveyard;
    s->graveyard = NULL;
    pthread_mutex_unlock(&s->lock);
    for (struct block_file *next; f; f = next) {
        next = f->hash_next;
        close_fd(f->fd);
        pthread_mutex_lock(&s->lock);
        pool_release(&s->file_pool, f);
        pthread_mutex_unlock(&s->lock);
    }
}

static struct block_file *make(struct block_store *s, enum block_file_type type, uint64_t key)
{
    struct block_file *f = block_io_check(BLOCK_IO_ALLOC) ? NULL : pool_alloc(&s->file_pool);
    if (!f)
        return NULL;
    *f = (struct block_file){.key = key, .type = (uint8_t)type, .fd = -1, .loading = true, .refs = 1};
    list_init(&f->blocks);
    list_init(&f->unsynced);
    list_init(&f->flowing);
    list_init(&f->open);
    struct block_file **at = bucket(s, type, key);
    f->hash_next = *at;
    *at = f;
    s->file_count++;
    return f;
}

static int load(struct block_store *s, struct block_file *f)
{
    int r;
    if (f->type == BLOCK_FILE_BACKING) {
        struct block_row_key key = block_key_file(f->key, s->dir.identity.directory_id);
        struct block_row_file row;
        r = block_index_get(s->index, &key, false, &row, sizeof(row));
        if (r == 0) {
            f->id = row.file_id;
            f->shift = row.block_shift;
            f->exported = row.exported;
            f->written = row.written;
            f->lost = row.lost;
        }
    } else {
        struct block_row_key key = block_key_u64(BLOCK_ROW_SEGMENT, f->key);
        struct block_row_segment row;
        r = block_index_get(s->index, &key, false, &row, sizeof(row));
        if (r == 0) {
            f->id = f->key;
            f->exported = row.exported;
        }
    }
    f->exists = r == 0;
    return r == -ENOENT ? 0 : r;
}

int block_file_hold(struct block_store *s, enum block_file_type type, uint64_t key, struct block_file **ret)
{
    int r = 0;
    pthread_mutex_lock(&s->lock);
    struct block_file *f;
    while ((f = find(s, type, key)) && f->loading)
        pthread_cond_wait(&s->changed, &s->lock);
    if (f) {
        f->refs++;
    } else if (!(f = make(s, type, key))) {
        r = -ENOMEM;
    } else {
        pthread_mutex_unlock(&s->lock);
        r = load(s, f);
        pthread_mutex_lock(&s->lock);
        f->loading = false;
        pthread_cond_broadcast(&s->changed);
        if (r < 0)
            block_file_unhold_locked(s, f);
    }
    pthread_mutex_unlock(&s->lock);
    if (r < 0)
        return block_store_index_error(s, r);
    *ret = f;
    return 0;
}

void block_file_unhold_locked(struct block_store *s, struct block_file *f)
{
    assert(f->refs > 0);
    f->refs--;
    forget_if_unused(s, f);
}

void block_file_unhold(struct block_store *s, struct block_file *f)
{
    pthread_mutex_lock(&s->lock);
    block_file_unhold_locked(s, f);
    pthread_mutex_unlock(&s->lock);
    block_files_bury(s);
}

void block_file_claim(struct block_store *s, struct block_file *f)
{
    while (f->busy)
        pthread_cond_wait(&s->changed, &s->lock);
    f->busy = true;
}

void block_file_unclaim(struct block_store *s, struct block_file *f)
{
    assert(f->busy);
    f->busy = false;
    pthread_cond_broadcast(&s->changed);
    forget_if_unused(s, f);
}

bool block_file_exported(const struct block_store *s, const struct block_file *f)
{
    return f->exported == s->boot;
}

/* ---- descriptors ---- */

/* Close the descriptor that was opened first and is not used, if there are too many. */
static int spare_descriptor(struct block_store *s)
{
    if (s->open_count <= s->options.files_max)
        return -1;
    list_for_each (e, &s->open_files) {
        struct block_file *f = list_entry(e, struct block_file, open);
        if (f->users || f->loading)
            continue;
        list_remove(&f->open);
        s->open_count--;
        return take_fd(f->fd);
    }
    return -1;
}

static void opened(struct block_store *s, struct block_file *f, int fd)
{
    f->fd = fd;
    list_push_back(&s->open_files, &f->open);
    s->open_count++;
    s->stats.file_opens++;
}

int block_file_use(struct block_store *s, struct block_file *f)
{
    int r = 0, spare = -1;
    pthread_mutex_lock(&s->lock);
    while (f->loading)
        pthread_cond_wait(&s->changed, &s->lock);
    if (f->fd < 0) {
        f->loading = true;
        pthread_mutex_unlock(&s->lock);
        char name[BLOCK_NAME_MAX];
        int fd = -1;
        block_dir_name((enum block_file_type)f->type, f->id, name);
        r = block_io_open(s->dir.fd, name, O_RDWR, &fd);
        pthread_mutex_lock(&s->lock);
        f->loading = false;
        pthread_cond_broadcast(&s->changed);
        f->missing = r == -ENOENT;
        if (r == 0) {
            opened(s, f, fd);
            f->users++; /* not this one */
            spare = spare_descriptor(s);
            f->users--;
        }
    }
    if (r == 0)
        f->users++;
    pthread_mutex_unlock(&s->lock);
    close_fd(spare);
    return r;
}

void block_file_unuse_locked(struct block_store *s, struct block_file *f)
{
    assert(f->users > 0);
    f->users--;
    forget_if_unused(s, f);
}

void block_file_unuse(struct block_store *s, struct block_file *f)
{
    pthread_mutex_lock(&s->lock);
    block_file_unuse_locked(s, f);
    pthread_mutex_unlock(&s->lock);
    block_files_bury(s);
}

void block_file_named(struct block_store *s, struct block_file *f)
{
    f->named = ++s->names;
    f->fresh = true;
}

/* One sync of a folder is good for all names it had by then: of many new files the first to be synced pays for the others. */
static int sync_folder(struct block_store *s, unsigned number, const char *name, uint64_t named)
{
    pthread_mutex_lock(&s->lock);
    uint64_t upto = s->names;
    bool done = s->folder_synced[number] >= named;
    pthread_mutex_unlock(&s->lock);
    int r = done ? 0 : block_io_sync_dir(s->dir.fd, name);
    if (r < 0 || done)
        return r;
    pthread_mutex_lock(&s->lock);
    s->folder_synced[number] = max(s->folder_synced[number], upto);
    pthread_mutex_unlock(&s->lock);
    return 0;
}

int block_file_sync(struct block_store *s, struct block_file *f)
{
    pthread_mutex_lock(&s->lock);
    assert(f->users > 0);
    bool fresh = f->fresh, written = f->written;
    uint64_t named = f->named;
    pthread_mutex_unlock(&s->lock);
    int r = block_io_sync(f->fd);
    if (r == 0 && fresh) {
        char folder[BLOCK_NAME_MAX];
        block_dir_folder((enum block_file_type)f->type, f->id, folder);
        r = sync_folder(s, f->type == BLOCK_FILE_BACKING ? f->id & 0xff : BLOCK_FOLDERS - 2, folder, named);
        if (r == 0 && written)
            r = sync_folder(s, BLOCK_FOLDERS - 1, "written", named);
    }
    if (r < 0)
        return block_store_fail(s, r, "sync of a data file");
    pthread_mutex_lock(&s->lock);
    f->fresh &= f->named != named; /* got its second name meanwhile */
    s->stats.file_syncs++;
    pthread_mutex_unlock(&s->lock);
    return 0;
}

/* ---- coming ---- */

int block_file_create(struct block_store *s, struct block_file *f, uint64_t id, uint8_t shift)
{
    char name[BLOCK_NAME_MAX];
    int fd = -1;
    block_dir_name((enum block_file_type)f->type, id, name);
    int r = block_io_open(s->dir.fd, name, O_RDWR | O_CREAT | O_EXCL, &fd);
    if (r < 0)
        return r;
    pthread_mutex_lock(&s->lock);
    f->id = id;
    f->shift = shift;
    f->exported = 0;
    f->exists = true;
    block_file_named(s, f);
    f->written = f->lost = f->missing = false;
    opened(s, f, fd);
    f->users++;
    int spare = spare_descriptor(s);
    pthread_mutex_unlock(&s->lock);
    close_fd(spare);
    return 0;
}

void block_file_put_row(struct block_store *s, struct block_batch *batch, const struct block_file *f)
{
    assert(f->type == BLOCK_FILE_BACKING);
    struct block_row_key key = block_key_file(f->key, s->dir.identity.directory_id);
    struct block_row_file row = {
        .block_shift = f->shift,
        .written = f->written,
        .lost = f->lost,
        .file_id = f->id,
        .exported = f->exported,
    };
    block_batch_put(batch, &key, &row, sizeof(row));
    if (f->fresh) {
        struct block_row_key creating = block_key_u64(BLOCK_ROW_CREATING, f->id);
        block_batch_delete(batch, &creating);
    }
}

/* ---- going ---- */

void block_file_put_going(struct block_store *s, struct block_batch *batch, const struct block_file *f, uint64_t left)
{
    struct block_row_key row = f->type == BLOCK_FILE_BACKING ? block_key_file(f->key, s->dir.identity.directory_id)
                                                             : block_key_u64(BLOCK_ROW_SEGMENT, f->key);
    block_batch_delete(batch, &row);
    struct block_row_key key = block_key_u64(BLOCK_ROW_CREATING, f->id);
    struct block_row_creating creating = {
        .type = f->type,
        .directory_id = s->dir.identity.directory_id,
        .inode = f->written ? f->key : 0,
    };
    block_batch_put(batch, &key, &creating, sizeof(creating));
    if (block_file_exported(s, f)) {
        struct block_row_key left_key = block_key_u64(BLOCK_ROW_LEFT, f->id);
        struct block_row_left left_row = {
            .type = f->type,
            .directory_id = s->dir.identity.directory_id,
            .bytes = left,
            .exported = f->exported,
        };
        block_batch_put(batch, &left_key, &left_row, sizeof(left_row));
    }
}

int block_file_unlink(struct block_store *s, struct block_file *f, uint64_t bytes)
{
    char name[BLOCK_NAME_MAX];
    int r = 0;
    pthread_mutex_lock(&s->lock);
    f->retired = true;
    f->exists = false;
    leave_table(s, f);
    if (!list_empty(&f->unsynced)) { /* no need to bring it to the disk any more */
        list_remove(&f->unsynced);
        block_file_unhold_locked(s, f);
    }
    pthread_mutex_unlock(&s->lock);
    if (f->written) {
        block_dir_written_name(f->key, f->id, name);
        r = block_io_unlink(s->dir.fd, name);
    }
    block_dir_name((enum block_file_type)f->type, f->id, name);
    if (r == 0)
        r = block_io_unlink(s->dir.fd, name);
    if (r < 0)
        return block_store_fail(s, r, "unlink of a data file"); /* the creating row stays: the next start does it */
    pthread_mutex_lock(&s->lock);
    if (block_file_exported(s, f))
        s->left += bytes;
    else
        s->used -= bytes;
    pthread_cond_broadcast(&s->changed);
    pthread_mutex_unlock(&s->lock);

    struct block_batch *batch cleanup(block_batch_free_p) = block_batch_new();
    if (!batch)
        return 0; /* then, too */
    struct block_row_key key = block_key_u64(BLOCK_ROW_CREATING, f->id);
    block_batch_delete(batch, &key);
    return block_store_commit(s, batch, false);
}

/* Does any block have data in f, says the index. */
static int in_use(struct block_store *s, struct block_file *f)
{
    struct block_row_key prefix = block_key_u64(BLOCK_ROW_BLOCK, f->key), key;
    struct block_iter *i cleanup(block_iter_free_p) = NULL;
    int r = block_iter_new(s->index, &prefix, NULL, &i);
    while (r >= 0 && (r = block_iter_next(i, &key)) == 1) {
        struct block_row_block row;
        r = block_iter_row(i, &row, sizeof(row));
        if (r == 0 && row.file_id == f->id)
            return 1;
    }
    return r;
}

int block_file_reap(struct block_store *s, struct block_file *f)
{
    int r = 0;
    pthread_mutex_lock(&s->lock);
    block_file_claim(s, f);
    bool there = f->exists && !f->lost;
    pthread_mutex_unlock(&s->lock);
    if (there && (r = in_use(s, f)) == 0) {
        struct block_batch *batch cleanup(block_batch_free_p) = block_batch_new();
        uint64_t bytes = f->condemned;
        r = batch ? 0 : -ENOMEM;
        if (r == 0) {
            block_file_put_going(s, batch, f, bytes);
            if (block_file_exported(s, f)) { /* charged on */
                struct block_row_key used = block_key_u32(BLOCK_ROW_USED, s->dir.identity.directory_id);
                block_batch_add(batch, &used, (int64_t)bytes);
            }
            r = block_store_commit(s, batch, true);
        }
        if (r == 0) {
            f->condemned = 0;
            r = block_file_unlink(s, f, bytes);
        }
    } else if (r < 0) {
        r = block_store_index_error(s, r);
    }
    pthread_mutex_lock(&s->lock);
    block_file_unclaim(s, f);
    pthread_mutex_unlock(&s->lock);
    return r < 0 ? r : 0;
}
