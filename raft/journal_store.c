/* SPDX-License-Identifier: Apache-2.0 */
/* Journal store: making, opening and checking a log, and reading from it. See journal_store.h. */
#include "raft/journal_store_internal.h"

#include <assert.h>
#include <dirent.h>
#include <fcntl.h>
#include <stdio.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/bytes.h"
#include "base/cleanup.h"
#include "base/clock.h"
#include "base/error.h"
#include "base/hash.h"
#include "base/random.h"
#include "conf/dir_lock.h"

#define LOG_FOLDER "log"

enum { CHECK_BYTES_MIN = 16 << 20 };

DEFINE_CLEANUP(rocksdb_iterator_t *, rocksdb_iter_destroy)

static const struct journal_store STORE_NONE = {.dir_fd = -1, .lock_fd = -1, .mark = {.fd = -1}};

/* ---- the directory ---- */

/* Lock DIR against other journals and tools, for as long as the store is open. */
static int lock(struct journal_store *s, const char *dir, struct buf *why)
{
    pid_t holder = 0;
    int r = dir_lock(dir, &s->lock_fd, &holder);
    if (r == -CV_LOCKED)
        (void)buf_printf(why, "process %d works in %s: stop it first (systemctl stop cv-journal)", (int)holder, dir);
    else if (r < 0)
        (void)buf_printf(why, "%s", cv_error_text(r));
    if (r < 0)
        return r == -ENOENT ? -CV_NOT_FORMATTED : r;
    s->dir_fd = open(dir, O_DIRECTORY | O_RDONLY | O_CLOEXEC);
    return s->dir_fd < 0 ? -errno : 0;
}

/* Is there a database at all, and how many bytes does its write-ahead log have? */
static int look_at_log(const struct journal_store *s, uint64_t *ret_wal_bytes, bool *ret_exists)
{
    *ret_wal_bytes = 0;
    *ret_exists = faccessat(s->dir_fd, LOG_FOLDER "/CURRENT", F_OK, 0) == 0;
    if (!*ret_exists)
        return errno == ENOENT ? 0 : -errno;
    DIR *d = opendir(s->log_dir);
    if (!d)
        return -errno;
    errno = 0;
    for (struct dirent *e; (e = readdir(d)); errno = 0) {
        size_t n = strlen(e->d_name);
        struct stat st;
        if (n > 4 && strcmp(e->d_name + n - 4, ".log") == 0 && fstatat(dirfd(d), e->d_name, &st, 0) == 0)
            *ret_wal_bytes += (uint64_t)st.st_size;
    }
    int r = -errno;
    closedir(d);
    return r;
}

static int new_store(const char *dir, struct journal_store **ret)
{
    struct journal_store *s = malloc(sizeof(*s));
    if (!s)
        return -ENOMEM;
    *s = STORE_NONE;
    if (asprintf(&s->log_dir, "%s/" LOG_FOLDER, dir) < 0) {
        s->log_dir = NULL;
        journal_store_free(s);
        return -ENOMEM;
    }
    *ret = s;
    return 0;
}

struct journal_store *journal_store_free(struct journal_store *s)
{
    if (!s)
        return NULL;
    if (s->batch)
        rocksdb_writebatch_destroy(s->batch);
    journal_db_close(&s->db);
    journal_state_fini(&s->state);
    journal_mark_close(&s->mark);
    closep(&s->lock_fd);
    closep(&s->dir_fd);
    free(s->log_dir);
    free(s);
    return NULL;
}

/* ---- format ---- */

/* The first unit of a new log, with ident, in one batch: a crash before it leaves a directory that may be formatted
 * again. */
static int write_founding(struct journal_store *s, const struct journal_format *format, uint64_t node)
{
    struct journal_ident_row ident = {.version = JOURNAL_FORMAT_VERSION,
                                      .incarnation = format->incarnation ? format->incarnation : 1,
                                      .cluster = format->cluster,
                                      .node = node,
                                      .created_ns = clock_wall_ns()};
    journal_row_seal(JOURNAL_KEY_IDENT, strlen(JOURNAL_KEY_IDENT), &ident, sizeof(ident));
    rocksdb_writebatch_put_cf(s->batch, s->db.family[JOURNAL_DEFAULT], JOURNAL_KEY_IDENT, strlen(JOURNAL_KEY_IDENT),
                              (char *)&ident, sizeof(ident));
    struct journal_entry entry = {.index = 1,
                                  .term = 1,
                                  .type = RAFT_CONF,
                                  .data = format->conf,
                                  .size = format->conf_size,
                                  .data_crc = crc32c(0, format->conf, format->conf_size)};
    struct journal_entry *entries[] = {&entry};
    struct journal_unit unit = {.term = 0};
    struct journal_install restored = {.index = format->behind,
                                       .term = 1,
                                       .conf_index = format->behind,
                                       .conf = format->conf,
                                       .conf_size = format->conf_size,
                                       .directory = ""};
    if (format->conf && format->behind)
        unit = (struct journal_unit){.term = 1, .install = &restored};
    else if (format->conf)
        unit = (struct journal_unit){.term = 1, .entries = entries, .count = 1};
    int r = journal_store_add(s, &unit);
    return r < 0 ? r : journal_store_sync(s, clock_ns());
}

int journal_store_format(const char *dir, const struct journal_format *format, struct buf *why)
{
    struct buf scratch cleanup(buf_fini) = {0};
    why = why ? why : &scratch;
    if (mkdir(dir, 0750) < 0 && errno != EEXIST) {
        int r = -errno;
        (void)buf_printf(why, "make %s: %s", dir, cv_error_text(r));
        return r;
    }
    struct journal_store *s cleanup(journal_store_free_p) = NULL;
    int r = new_store(dir, &s);
    if (r < 0 || (r = lock(s, dir, why)) < 0)
        return r;
    r = journal_db_open(s->log_dir, JOURNAL_DB_CREATE, 0, why, &s->db);
    if (r < 0)
        return r;
    r = journal_state_load(&s->db, why, &s->state);
    if (r != -CV_NOT_FORMATTED) {
        if (r == 0)
            (void)buf_printf(why, "%s holds the log of node %016llx", dir, (unsigned long long)s->state.node);
        return r < 0 ? r : -CV_ALREADY_FORMATTED;
    }
    uint64_t node = format->node ? format->node : random_u64();
    if ((r = journal_mark_create(s->dir_fd, node)) < 0 || (r = journal_mark_open(s->dir_fd, node, false, &s->mark)) < 0)
        return r;
    s->state = (struct journal_state){.first = 1};
    s->batch = rocksdb_writebatch_create();
    r = write_founding(s, format, node);
    if (r == 0 && fsync(s->dir_fd) < 0)
        r = -errno;
    return r;
}

/* ---- open ---- */

int journal_store_check_mark(const struct journal_store *s, struct buf *why)
{
    const struct journal_state *t = &s->state;
    const struct journal_mark *m = &s->mark.mark;
    if (t->last < m->index) {
        (void)buf_printf(why,
                         "the log ends at entry %llu, but entry %llu was on disk: acknowledged entries are lost "
                         "(an old copy restored? a lost file?)",
                         (unsigned long long)t->last, (unsigned long long)m->index);
        return -CV_LOG_DAMAGED;
    }
    if (m->index >= t->first && journal_state_term(t, m->index) != m->index_term) {
        (void)buf_printf(why, "entry %llu is of term %llu, but one of term %llu was on disk",
                         (unsigned long long)m->index, (unsigned long long)journal_state_term(t, m->index),
                         (unsigned long long)m->index_term);
        return -CV_LOG_DAMAGED;
    }
    if (t->term < m->term || (t->term == m->term && m->vote && t->vote != m->vote)) {
        (void)buf_printf(why, "term and vote are %llu and %016llx, but %llu and %016llx were on disk",
                         (unsigned long long)t->term, (unsigned long long)t->vote, (unsigned long long)m->term,
                         (unsigned long long)m->vote);
        return -CV_LOG_DAMAGED;
    }
    return 0;
}

static void first_problem(void *arg, const char *text)
{
    (void)buf_printf(arg, "%s", text);
}

static int open_checked(struct journal_store *s, const struct journal_store_options *options, struct buf *why)
{
    uint64_t wal_bytes;
    bool exists;
    int r = look_at_log(s, &wal_bytes, &exists);
    if (r < 0) {
        (void)buf_printf(why, "look into %s: %s", s->log_dir, cv_error_text(r));
        return r;
    }
    if (!exists) {
        bool lost = faccessat(s->dir_fd, JOURNAL_MARK_FILE, F_OK, 0) == 0;
        (void)buf_printf(why, lost ? "there is a " JOURNAL_MARK_FILE " but no log" : "there is no log in it");
        return lost ? -CV_LOG_DAMAGED : -CV_NOT_FORMATTED;
    }
    r = journal_db_open(s->log_dir, s->read_only ? JOURNAL_DB_READ : JOURNAL_DB_WRITE, options->memtable_bytes, why,
                        &s->db);
    if (r < 0 || (r = journal_state_load(&s->db, why, &s->state)) < 0)
        return r;
    r = journal_mark_open(s->dir_fd, s->state.node, s->read_only, &s->mark);
    if (r < 0) {
        (void)buf_printf(why, JOURNAL_MARK_FILE ": missing, damaged or of another node (%s)", cv_error_text(r));
        return r;
    }
    if (options->no_check)
        return 0;
    r = journal_store_check_mark(s, why);
    if (r < 0)
        return r;
    struct journal_check check = {.problem = first_problem, .arg = why, .problems_max = 1};
    return journal_check_entries(&s->db, &s->state,
                                 journal_check_tail_from(&s->db, &s->state, max(wal_bytes, (uint64_t)CHECK_BYTES_MIN)),
                                 &check);
}

int journal_store_open(const char *dir, const struct journal_store_options *options, struct buf *why,
                       struct journal_store **ret)
{
    struct buf scratch cleanup(buf_fini) = {0};
    why = why ? why : &scratch;
    static const struct journal_store_options none;
    options = options ? options : &none;
    struct journal_store *s cleanup(journal_store_free_p) = NULL;
    int r = new_store(dir, &s);
    if (r < 0)
        return r;
    s->read_only = options->read_only;
    r = lock(s, dir, why);
    if (r == 0)
        r = open_checked(s, options, why);
    if (r == -CV_NOT_FORMATTED)
        (void)buf_printf(
            why, ". New cluster: cv cluster init, or cv-journal format; new member of one: cv-journal join. An empty "
                 "directory that used to hold a log must not be formatted as the same node");
    else if (r == -CV_LOG_DAMAGED)
        (void)buf_printf(
            why, ". This node must not vote or acknowledge any more: stop it and look with cv-journal check; with "
                 "other voters alive replace it (cv raft replace)");
    if (r < 0)
        return r;
    s->hs_known = true;
    s->hint = s->state.commit;
    s->batch = rocksdb_writebatch_create();
    *ret = take(s);
    return 0;
}

/* ---- questions ---- */

const struct journal_state *journal_store_state(const struct journal_store *s)
{
    return &s->state;
}

const struct journal_db *journal_store_db(const struct journal_store *s)
{
    return &s->db;
}

const struct journal_mark *journal_store_mark(const struct journal_store *s)
{
    return &s->mark.mark;
}

uint64_t journal_store_bytes(const struct journal_store *s)
{
    return journal_db_log_bytes(&s->db);
}

int journal_store_conf(const struct journal_store *s, uint64_t index, struct buf *ret)
{
    uint8_t key[8];
    put_be64(key, index);
    rocksdb_pinnableslice_t *slice;
    struct text value;
    int r = journal_db_get(&s->db, JOURNAL_CONF, key, sizeof(key), &slice, &value);
    if (r < 0)
        return r;
    bool good =
        value.n >= 4 && crc32c(crc32c(0, key, sizeof(key)), value.p, value.n - 4) == get_le32(value.p + value.n - 4);
    r = good ? buf_append(ret, value.p, value.n - 4) : -CV_LOG_DAMAGED;
    rocksdb_pinnableslice_destroy(slice);
    return r;
}

/* ---- reading ---- */

void journal_read_fini(struct journal_read *r)
{
    buf_fini(&r->bytes);
    r->count = 0;
}

static int read_one(struct journal_read *out, uint64_t index, const char *value, size_t n, size_t *offset)
{
    struct journal_entry_head head;
    int r = journal_entry_open(index, value, n, &head);
    if (r < 0)
        return -CV_LOG_DAMAGED;
    *offset = out->bytes.n;
    r = buf_append(&out->bytes, value + sizeof(head), head.size);
    if (r < 0)
        return r;
    out->entries[out->count++] = (struct journal_entry){.index = index,
                                                        .term = head.term,
                                                        .chain = head.chain,
                                                        .size = head.size,
                                                        .op_count = head.op_count,
                                                        .data_crc = head.data_crc,
                                                        .type = head.type};
    return 0;
}

int journal_store_read(const struct journal_store *s, uint64_t from, uint64_t to, size_t bytes_max,
                       struct journal_read *ret)
{
    size_t offsets[JOURNAL_READ_ENTRIES_MAX];
    ret->count = 0;
    ret->bytes.n = 0;
    rocksdb_iterator_t *it cleanup(rocksdb_iter_destroy_p) =
        rocksdb_create_iterator_cf(s->db.db, s->db.scan, s->db.family[JOURNAL_LOG]);
    uint8_t start[8];
    put_be64(start, from);
    for (rocksdb_iter_seek(it, (char *)start, sizeof(start)); rocksdb_iter_valid(it); rocksdb_iter_next(it)) {
        size_t key_size, n;
        const char *key = rocksdb_iter_key(it, &key_size);
        const char *value = rocksdb_iter_value(it, &n);
        uint64_t index = key_size == 8 ? get_be64(key) : 0;
        bool full = ret->count == JOURNAL_READ_ENTRIES_MAX || (ret->count > 0 && ret->bytes.n + n > bytes_max);
        if (index > to || index != from + ret->count || full)
            break;
        int r = read_one(ret, index, value, n, &offsets[ret->count]);
        if (r < 0)
            return r;
    }
    char *error = NULL;
    rocksdb_iter_get_error(it, &error);
    int r = journal_db_error(error, "read", NULL);
    if (r < 0)
        return r;
    for (uint32_t i = 0; i < ret->count; i++)
        ret->entries[i].data = ret->bytes.p + offsets[i];
    return ret->count ? 0 : -ENOENT;
}

int journal_store_chain(const struct journal_store *s, uint64_t index, uint64_t *ret)
{
    rocksdb_pinnableslice_t *slice;
    struct text value;
    int r = journal_db_get(&s->db, JOURNAL_DEFAULT, JOURNAL_KEY_FIRST, strlen(JOURNAL_KEY_FIRST), &slice, &value);
    struct journal_first_row first = {.first = 1}; /* no such row: nothing was ever compacted */
    if (r == 0) {
        r = journal_row_open(JOURNAL_KEY_FIRST, strlen(JOURNAL_KEY_FIRST), value.p, value.n, &first, sizeof(first));
        rocksdb_pinnableslice_destroy(slice);
    } else if (r == -ENOENT) {
        r = 0;
    }
    if (r < 0 || index + 1 == first.first) {
        if (r == 0)
            *ret = first.base_chain;
        return r;
    }
    uint8_t key[8];
    put_be64(key, index);
    r = journal_db_get(&s->db, JOURNAL_LOG, key, sizeof(key), &slice, &value);
    if (r < 0)
        return r;
    struct journal_entry_head head;
    r = journal_entry_open(index, value.p, value.n, &head);
    rocksdb_pinnableslice_destroy(slice);
    if (r == 0)
        *ret = head.chain;
    return r;
}
