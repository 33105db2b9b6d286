/* SPDX-License-Identifier: Apache-2.0 */
/* Opening and closing, the numbers that rise, the mark, and what happens when the disk or the index fails. */
#include "worker/block_state.h"

#include <fcntl.h>
#include <stdio.h>
#include <sys/stat.h>

#include "base/bytes.h"
#include "base/clock.h"
#include "base/hash.h"
#include "base/log.h"
#include "worker/block_heal.h"

#define IDS_AT_A_TIME   16
#define SEALS_AT_A_TIME (1u << 16)
#define FILE_ID_FIRST   1

/* ---- format ---- */

int block_store_format(const char *path, const struct block_identity_options *o)
{
    struct block_dir d = BLOCK_DIR_NONE;
    struct block_index *x cleanup(block_index_free_p) = NULL;
    char index[4096];
    snprintf(index, sizeof(index), "%s/index", path);
    int r = block_dir_format(path, &d);
    if (r < 0)
        return r;
    block_dir_set_identity(&d, o);
    r = block_index_open(index, BLOCK_INDEX_CREATE, 8 << 20, &x);
    if (r == 0)
        r = block_heal_first_rows(x, &d.identity, FILE_ID_FIRST, 1, false);
    if (r == 0)
        r = block_io_sync_dir(d.fd, ".");
    if (r == 0)
        r = block_dir_finish_format(&d);
    block_dir_close(&d);
    return r;
}

int block_store_identity(const char *path, struct block_identity_options *ret)
{
    struct block_identity id;
    int r = block_dir_identity(path, &id);
    if (r < 0)
        return r;
    *ret = (struct block_identity_options){
        .worker_id = id.worker_id, .directory_id = id.directory_id, .kind = (enum block_kind)id.kind};
    memcpy(ret->cluster, id.cluster, sizeof(ret->cluster));
    return 0;
}

/* ---- failing ---- */

int block_store_fail(struct block_store *s, int r, const char *what)
{
    pthread_mutex_lock(&s->lock);
    bool first = !s->failed;
    if (first)
        s->failed = r;
    pthread_mutex_unlock(&s->lock);
    if (first)
        log_error(r, "%s: the directory takes nothing new any more", what);
    return r;
}

int block_store_check(struct block_store *s)
{
    pthread_mutex_lock(&s->lock);
    int failed = s->failed;
    pthread_mutex_unlock(&s->lock);
    return failed ? -CV_STOPPING : 0;
}

int block_store_index_error(struct block_store *s, int r)
{
    if (r == -CV_BAD_CHECKSUM || r == -CV_BAD_FORMAT) {
        block_heal_remember(&s->dir);
        block_store_fail(s, -CV_BAD_CHECKSUM, "reading the index");
        return -CV_BAD_CHECKSUM;
    }
    return r;
}

int block_store_commit(struct block_store *s, struct block_batch *b, bool sync)
{
    int r = block_store_check(s);
    if (r == 0) {
        r = block_index_write(s->index, b, sync);
        if (r == -CV_BAD_CHECKSUM)
            return block_store_index_error(s, r);
        if (r < 0)
            return block_store_fail(s, r, "writing the index");
    }
    return r == 0 && sync ? block_store_mark(s, false) : r;
}

int block_store_mark(struct block_store *s, bool at_once)
{
    uint64_t now = clock_ns();
    pthread_mutex_lock(&s->lock);
    bool due = at_once || now - s->mark_ns >= NS_PER_S;
    if (due)
        s->mark_ns = now;
    pthread_mutex_unlock(&s->lock);
    if (!due)
        return 0;
    struct block_index_mark m = {.sequence = block_index_sequence(s->index)};
    int r = block_index_sync(s->index); /* the sequence may be ahead of the batch that was synced */
    if (r < 0)
        return block_store_fail(s, r, "sync of the index");
    block_mark_finish(&m);
    pthread_mutex_lock(&s->sync_lock);
    r = block_io_write(s->mark_fd, &m, sizeof(m), 0);
    if (r == 0)
        r = block_io_sync(s->mark_fd);
    pthread_mutex_unlock(&s->sync_lock);
    return r < 0 ? block_store_fail(s, r, "writing the index mark") : 0;
}

/* ---- numbers ---- */

/* Raise the limits: of file ids together with their creating rows. Called by one thread at a time (limit_busy). */
static int raise_limits(struct block_store *s, uint32_t ids, uint32_t seals)
{
    struct block_batch *b cleanup(block_batch_free_p) = block_batch_new();
    if (!b)
        return -ENOMEM;
    uint64_t first = s->id_limit;
    for (uint32_t i = 0; i < ids; i++) {
        struct block_row_key key = block_key_u64(BLOCK_ROW_CREATING, first + i);
        struct block_row_creating row = {.directory_id = s->dir.identity.directory_id};
        block_batch_put(b, &key, &row, sizeof(row));
    }
    struct block_row_key key = block_key_u32(BLOCK_ROW_LIMIT, s->dir.identity.directory_id);
    struct block_row_limit limit = {.file_id = first + ids, .seal = s->seal_limit + seals};
    block_batch_put(b, &key, &limit, sizeof(limit));
    return block_store_commit(s, b, ids > 0);
}

static int more_numbers(struct block_store *s, uint32_t ids, uint32_t seals)
{
    s->limit_busy = true;
    pthread_mutex_unlock(&s->lock);
    int r = raise_limits(s, ids, seals);
    pthread_mutex_lock(&s->lock);
    s->limit_busy = false;
    pthread_cond_broadcast(&s->changed);
    if (r < 0)
        return r;
    if (ids) {
        s->id_next = s->id_limit;
        s->id_end = s->id_limit += ids;
    }
    s->seal_limit += seals;
    return 0;
}

int block_store_file_id(struct block_store *s, uint64_t *ret)
{
    int r = 0;
    pthread_mutex_lock(&s->lock);
    while (r == 0 && s->id_next == s->id_end) {
        if (s->limit_busy)
            pthread_cond_wait(&s->changed, &s->lock);
        else
            r = more_numbers(s, IDS_AT_A_TIME, 0);
    }
    if (r == 0)
        *ret = s->id_next++;
    pthread_mutex_unlock(&s->lock);
    return r;
}

void block_store_unsynced(struct block_store *s, struct block_file *f)
{
    if (list_empty(&f->unsynced)) {
        list_push_back(&s->unsynced, &f->unsynced);
        f->refs++;
    }
}

int block_store_seal(struct block_store *s, struct block_file *f, uint64_t *ret)
{
    int r = 0;
    pthread_mutex_lock(&s->lock);
    while (r == 0 && s->seal_next == s->seal_limit) {
        if (s->limit_busy)
            pthread_cond_wait(&s->changed, &s->lock);
        else
            r = more_numbers(s, 0, SEALS_AT_A_TIME);
    }
    if (r == 0) {
        *ret = s->seal_next++;
        block_store_unsynced(s, f);
    }
    pthread_mutex_unlock(&s->lock);
    return r;
}

/* ---- the mark ---- */

static int write_dir_row(struct block_store *s, const struct block_row_dir *row)
{
    struct block_batch *b cleanup(block_batch_free_p) = block_batch_new();
    if (!b)
        return -ENOMEM;
    struct block_row_key key = block_key_u32(BLOCK_ROW_DIR, s->dir.identity.directory_id);
    struct block_row_dir copy = *row;
    block_batch_put(b, &key, &copy, sizeof(copy));
    return block_store_commit(s, b, true);
}

/* Numbers from first to last are in doubt from now on. */
static void add_doubt(struct block_row_dir *row, uint64_t first, uint64_t last)
{
    if (first > last)
        return;
    int at = 0;
    while (at < BLOCK_DOUBTS - 1 && row->doubt[at].last)
        at++;
    if (row->doubt[at].last) /* all in use: widen the last one */
        first = min(first, row->doubt[at].first);
    row->doubt[at].first = first;
    row->doubt[at].last = last;
}

static int sync_file(struct block_store *s, struct block_file *f)
{
    bool all = true;
    int r = block_file_use(s, f);
    if (r == -ENOENT)
        return 0; /* gone meanwhile, or found missing when somebody reads */
    if (r == 0) {
        r = block_durable_save(s, f, false, &all);
        block_file_unuse(s, f);
    }
    if (!all) {
        pthread_mutex_lock(&s->lock);
        block_store_unsynced(s, f);
        pthread_mutex_unlock(&s->lock);
    }
    return r;
}

static int sync_all(struct block_store *s, bool *ret_moved)
{
    struct list files = LIST_INIT(files);
    pthread_mutex_lock(&s->lock);
    uint64_t upto = s->seal_next - 1;
    struct block_row_dir row = s->row;
    list_append_all(&files, &s->unsynced);
    pthread_mutex_unlock(&s->lock);
    *ret_moved = !list_empty(&files) || upto > row.synced_seal;
    int r = 0;
    for (;;) {
        pthread_mutex_lock(&s->lock);
        struct list *e = list_pop_front(&files); /* under the lock: others look whether f is on a list */
        pthread_mutex_unlock(&s->lock);
        if (!e)
            break;
        struct block_file *f = list_entry(e, struct block_file, unsynced);
        int r2 = sync_file(s, f);
        r = r < 0 ? r : r2;
        block_file_unhold(s, f);
    }
    pthread_mutex_lock(&s->lock);
    row = s->row;
    if (r < 0)
        add_doubt(&row, row.synced_seal + 1, s->seal_next);
    else
        row.synced_seal = upto;
    s->row = row;
    pthread_mutex_unlock(&s->lock);
    if (r < 0) { /* out of service by now; still say what is in doubt */
        struct block_batch *b cleanup(block_batch_free_p) = block_batch_new();
        struct block_row_key key = block_key_u32(BLOCK_ROW_DIR, s->dir.identity.directory_id);
        if (b) {
            block_batch_put(b, &key, &row, sizeof(row));
            (void)block_index_write(s->index, b, true);
        }
        return r;
    }
    return *ret_moved ? write_dir_row(s, &row) : 0;
}

int block_store_sync(struct block_store *s)
{
    bool moved;
    pthread_mutex_lock(&s->mark_lock);
    int r = block_store_check(s);
    if (r == 0)
        r = sync_all(s, &moved);
    pthread_mutex_unlock(&s->mark_lock);
    return r;
}

/* ---- opening ---- */

static void set_defaults(struct block_store_options *o)
{
    uint64_t capacity = o->dirs[0].capacity_bytes;
    if (!o->memory_bytes)
        o->memory_bytes = 64 << 20;
    if (!o->index_cache_bytes)
        o->index_cache_bytes = 64 << 20;
    if (!o->files_max)
        o->files_max = 4096;
    if (!o->segment_bytes)
        o->segment_bytes = (uint32_t)min(max(capacity / 128, 1ull << 20), 64ull << 20);
}

static int make_tables(struct block_store *s)
{
    uint64_t most = max(s->options.memory_bytes / (sizeof(struct block) + sizeof(struct block_file) / 2 + 16), 64ull);
    uint32_t buckets = 64;
    while (buckets < most && buckets < 1u << 30)
        buckets *= 2;
    s->blocks = block_io_alloc(buckets * sizeof(*s->blocks));
    s->files = block_io_alloc(buckets / 2 * sizeof(*s->files));
    s->block_mask = buckets - 1;
    s->file_mask = buckets / 2 - 1;
    pool_init(&s->block_pool, sizeof(struct block), 64 << 10, most);
    pool_init(&s->file_pool, sizeof(struct block_file), 64 << 10, 0); /* one a block at most, and its writers */
    return s->blocks && s->files ? 0 : -ENOMEM;
}

static int check_index_owner(struct block_store *s)
{
    struct block_row_key key = block_key_plain(BLOCK_ROW_STORE);
    struct block_row_store row;
    int r = block_index_get(s->index, &key, false, &row, sizeof(row));
    if (r < 0)
        return r == -ENOENT ? -CV_BAD_CHECKSUM : r;
    bool ours = memcmp(row.cluster, s->dir.identity.cluster, 16) == 0 && row.worker_id == s->dir.identity.worker_id;
    return ours ? 0 : -CV_WRONG_CLUSTER;
}

/* Does the index reach as far as it once did? */
static int check_mark(struct block_store *s)
{
    struct block_index_mark m;
    size_t n = 0;
    int r = block_io_open(s->dir.fd, "index.mark", O_RDWR | O_CREAT, &s->mark_fd);
    if (r == 0)
        r = block_io_read(s->mark_fd, &m, sizeof(m), 0, &n);
    if (r < 0 || n == 0)
        return r;
    if (n == sizeof(m))
        r = block_mark_check(&m);
    if (n != sizeof(m) || r == -CV_BAD_CHECKSUM || r == -CV_BAD_FORMAT)
        return 0; /* torn by a power cut: says nothing */
    if (r == 0 && block_index_sequence(s->index) < m.sequence)
        return -CV_BAD_CHECKSUM;
    return r;
}

static int load_rows(struct block_store *s)
{
    uint32_t id = s->dir.identity.directory_id;
    struct block_row_key key = block_key_u32(BLOCK_ROW_LIMIT, id);
    struct block_row_limit limit;
    int r = block_index_get(s->index, &key, false, &limit, sizeof(limit));
    if (r == 0) {
        s->id_next = s->id_end = s->id_limit = limit.file_id;
        s->seal_next = s->seal_limit = limit.seal;
        key = block_key_u32(BLOCK_ROW_DIR, id);
        r = block_index_get(s->index, &key, false, &s->row, sizeof(s->row));
    }
    if (r == 0) {
        key = block_key_u32(BLOCK_ROW_USED, id);
        r = block_index_get_sum(s->index, &key, &s->used);
    }
    s->hand_inode = s->row.hand_inode;
    s->hand_segment = s->row.hand_segment;
    return r == -ENOENT ? -CV_BAD_CHECKSUM : r;
}

/* Another boot: what was not synced in the last one is in doubt. */
static int look_at_boot(struct block_store *s)
{
    int r = block_io_read_boot_id(s->boot_id);
    if (r < 0)
        return r;
    s->boot = hash_bytes(1, s->boot_id, 16) | 1;
    if (memcmp(s->row.boot_id, s->boot_id, 16) == 0)
        return 0;
    if (s->row.synced_seal + 1 < s->seal_next)
        add_doubt(&s->row, s->row.synced_seal + 1, s->seal_next - 1);
    memcpy(s->row.boot_id, s->boot_id, 16);
    return write_dir_row(s, &s->row);
}

/* Names that may exist and that nothing else in the index knows. */
static int recover_names(struct block_store *s)
{
    struct block_row_key prefix = block_key_plain(BLOCK_ROW_CREATING), key;
    struct block_batch *done cleanup(block_batch_free_p) = block_batch_new();
    struct block_iter *i cleanup(block_iter_free_p) = NULL;
    int r = done ? block_iter_new(s->index, &prefix, NULL, &i) : -ENOMEM;
    while (r >= 0 && (r = block_iter_next(i, &key)) == 1) {
        struct block_row_creating row;
        char name[BLOCK_NAME_MAX];
        uint64_t id = get_be64(key.p + 1);
        r = block_iter_row(i, &row, sizeof(row));
        if (r < 0)
            break;
        if (row.inode) {
            block_dir_written_name(row.inode, id, name);
            r = block_io_unlink(s->dir.fd, name);
        }
        for (int type = BLOCK_FILE_BACKING; r == 0 && type <= BLOCK_FILE_SEGMENT; type++) {
            block_dir_name((enum block_file_type)type, id, name);
            r = block_io_unlink(s->dir.fd, name);
        }
        block_batch_delete(done, &key);
    }
    if (r == 0 && block_batch_count(done))
        r = block_store_commit(s, done, true);
    return r;
}

/* Unlinked files whose descriptors may still be out: not after another boot. */
static int recover_left(struct block_store *s)
{
    struct block_row_key prefix = block_key_plain(BLOCK_ROW_LEFT), key;
    struct block_batch *done cleanup(block_batch_free_p) = block_batch_new();
    struct block_iter *i cleanup(block_iter_free_p) = NULL;
    struct block_row_key used = block_key_u32(BLOCK_ROW_USED, s->dir.identity.directory_id);
    int r = done ? block_iter_new(s->index, &prefix, NULL, &i) : -ENOMEM;
    while (r >= 0 && (r = block_iter_next(i, &key)) == 1) {
        struct block_row_left row;
        r = block_iter_row(i, &row, sizeof(row));
        if (r < 0)
            break;
        if (row.exported == s->boot) {
            s->left += row.bytes;
            continue;
        }
        block_batch_delete(done, &key);
        block_batch_add(done, &used, -(int64_t)row.bytes);
        s->used -= row.bytes;
    }
    if (r == 0 && block_batch_count(done))
        r = block_store_commit(s, done, true);
    return r;
}

static int open_index(struct block_store *s)
{
    char path[4096];
    snprintf(path, sizeof(path), "%s/index", s->options.dirs[0].path);
    int r = block_index_open(path, BLOCK_INDEX_OPEN, s->options.index_cache_bytes, &s->index);
    if (r == 0)
        r = check_index_owner(s);
    if (r == 0)
        r = check_mark(s);
    if (r == 0)
        r = load_rows(s);
    if (r == 0)
        r = look_at_boot(s);
    if (r == 0)
        r = recover_names(s);
    if (r == 0)
        r = recover_left(s);
    if (r == 0)
        r = block_segment_recover(s);
    if (r == 0)
        r = block_durable_recover(s);
    if (r == 0)
        r = block_drop_recover(s);
    if (r == 0)
        r = block_durable_resume(s);
    return r;
}

static struct block_store *make_store(const struct block_store_options *o)
{
    struct block_store *s = block_io_alloc(sizeof(*s));
    if (!s)
        return NULL;
    s->dir = BLOCK_DIR_NONE;
    s->mark_fd = -1;
    s->options = *o;
    set_defaults(&s->options);
    s->capacity = o->dirs[0].capacity_bytes;
    list_init(&s->lru);
    list_init(&s->open_files);
    list_init(&s->opened);
    list_init(&s->unsynced);
    list_init(&s->flowing);
    pthread_mutex_init(&s->evict_lock, NULL);
    pthread_mutex_init(&s->mark_lock, NULL);
    pthread_mutex_init(&s->sync_lock, NULL);
    pthread_mutex_init(&s->lock, NULL);
    pthread_cond_init(&s->changed, NULL);
    pthread_cond_init(&s->flow_wanted, NULL);
    return s;
}

/* Everything but the lock on the directory. */
static int try_open(const struct block_store_options *o, struct block_dir *dir, struct block_store **ret)
{
    struct block_store *s = make_store(o);
    if (!s)
        return -ENOMEM;
    s->dir = *dir;
    int r = make_tables(s);
    if (r == 0)
        r = open_index(s);
    if (r == 0 && s->failed)
        r = s->failed;
    if (r == 0) {
        *dir = BLOCK_DIR_NONE;
        *ret = s;
        return 0;
    }
    s->dir = BLOCK_DIR_NONE;
    s->failed = s->failed ? s->failed : r; /* closes without syncing */
    block_store_free(s);
    return r;
}

int block_store_open(const struct block_store_options *o, struct block_store **ret)
{
    if (o->dir_count != 1 || o->dirs[0].capacity_bytes == 0)
        return -EINVAL;
    struct block_dir dir = BLOCK_DIR_NONE;
    uint64_t lost = 0;
    int r = block_dir_open(o->dirs[0].path, o->cluster, o->worker_id, &dir);
    if (r < 0)
        return r;
    bool heal = block_heal_wanted(&dir);
    r = heal ? 0 : try_open(o, &dir, ret);
    if (heal || r == -CV_BAD_CHECKSUM || r == -CV_BAD_FORMAT || r == -ENOENT) {
        r = block_heal(o->dirs[0].path, &dir, r, &lost);
        if (r == 0)
            r = try_open(o, &dir, ret);
        if (r == 0)
            (*ret)->stats.lost_blocks = lost;
    }
    block_dir_close(&dir);
    return r;
}

static void free_tables(struct block_store *s)
{
    while (!list_empty(&s->flowing)) {
        struct block_file *f = list_entry(list_pop_front(&s->flowing), struct block_file, flowing);
        block_file_unhold_locked(s, f);
    }
    while (!list_empty(&s->unsynced)) {
        struct block_file *f = list_entry(list_pop_front(&s->unsynced), struct block_file, unsynced);
        block_file_unhold_locked(s, f);
    }
    for (uint32_t i = 0; s->files && i <= s->file_mask; i++)
        for (struct block_file *f = s->files[i]; f; f = f->hash_next)
            f->fd = close_fd(f->fd);
    for (struct block_file *f = s->graveyard; f; f = f->hash_next)
        f->fd = close_fd(f->fd);
    free(s->blocks);
    free(s->files);
    pool_fini(&s->block_pool);
    pool_fini(&s->file_pool);
}

struct block_store *block_store_free(struct block_store *s)
{
    if (!s)
        return NULL;
    if (!s->failed && s->index) {
        (void)block_store_sync(s);
        (void)block_store_mark(s, true);
    }
    free_tables(s);
    block_index_free(s->index);
    close_fd(s->mark_fd);
    block_dir_close(&s->dir);
    pthread_mutex_destroy(&s->evict_lock);
    pthread_mutex_destroy(&s->mark_lock);
    pthread_mutex_destroy(&s->sync_lock);
    pthread_mutex_destroy(&s->lock);
    pthread_cond_destroy(&s->changed);
    pthread_cond_destroy(&s->flow_wanted);
    free(s);
    return NULL;
}
