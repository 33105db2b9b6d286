/* SPDX-License-Identifier: Apache-2.0 */
#include "raft/journal_recover.h"

#include <errno.h>
#include <fcntl.h>
#include <ftw.h>
#include <stdio.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/clock.h"
#include "base/error.h"
#include "base/hash.h"
#include "base/random.h"
#include "conf/dir_lock.h"
#include "raft/journal_mark.h"
#include "raft/journal_store_internal.h"

/* ---- compare ---- */

bool journal_state_is_further(const struct journal_state *a, const struct journal_state *b)
{
    if (a->incarnation != b->incarnation)
        return a->incarnation > b->incarnation;
    if (a->last_term != b->last_term)
        return a->last_term > b->last_term;
    return a->last > b->last;
}

/* The chain of an entry, first - 1 included. */
static int chain_at(const struct journal_store *s, uint64_t index, struct journal_read *scratch, uint64_t *ret)
{
    const struct journal_state *t = journal_store_state(s);
    if (index == t->first - 1) {
        *ret = t->base_chain;
        return 0;
    }
    int r = journal_store_read(s, index, index, 1, scratch);
    if (r < 0)
        return r == -ENOENT ? -CV_LOG_DAMAGED : r;
    *ret = scratch->entries[0].chain;
    return 0;
}

/* Equal chains mean equal logs up to there, so the place where two part can be searched by halves. */
static int find_parting(const struct journal_store *a, const struct journal_store *b, struct journal_copy *ret)
{
    const struct journal_state *x = journal_store_state(a), *y = journal_store_state(b);
    uint64_t low = max(x->first, y->first) - 1, high = min(x->last, y->last);
    if (low > high)
        return 0;
    struct journal_read scratch = {.count = 0};
    int r = 0;
    bool any = false;
    uint64_t same = 0;
    while (r == 0 && low <= high) {
        uint64_t middle = low + (high - low) / 2, p, q;
        r = chain_at(a, middle, &scratch, &p);
        if (r == 0)
            r = chain_at(b, middle, &scratch, &q);
        if (r < 0)
            break;
        if (p == q) {
            same = middle;
            any = true;
            low = middle + 1;
        } else if (middle == low) {
            break;
        } else {
            high = middle - 1;
        }
    }
    journal_read_fini(&scratch);
    ret->compared = r == 0;
    ret->same_to = same;
    ret->diverged = r == 0 && (!any || same < min(x->commit, y->commit)) && same < min(x->last, y->last);
    return r;
}

int journal_compare(struct journal_copy *copies, uint32_t n, uint32_t *ret_best)
{
    uint32_t best = 0;
    for (uint32_t i = 1; i < n; i++)
        if (journal_state_is_further(journal_store_state(copies[i].store), journal_store_state(copies[best].store)))
            best = i;
    for (uint32_t i = 0; i < n; i++) {
        copies[i].same_to = 0;
        copies[i].compared = copies[i].diverged = false;
        int r = find_parting(copies[i].store, copies[best].store, &copies[i]);
        if (r < 0)
            return r;
    }
    *ret_best = best;
    return 0;
}

/* ---- force ---- */

int journal_alone_conf(const struct journal_store *s, struct raft_conf *ret)
{
    const struct journal_state *t = &s->state;
    struct buf bytes cleanup(buf_fini) = {0};
    struct raft_conf conf;
    if (t->conf_count == 0)
        return -ENOENT;
    int r = journal_store_conf(s, t->confs[t->conf_count - 1], &bytes);
    if (r == 0)
        r = raft_conf_decode(bytes.p, bytes.n, &conf);
    if (r < 0)
        return r;
    const struct raft_member *self = raft_conf_find(&conf, t->node);
    if (!self)
        return -ENOENT;
    if (self->journal_only)
        return -EINVAL;
    *ret = (struct raft_conf){.count = 1, .members = {*self}};
    ret->members[0].role = RAFT_VOTER;
    return 0;
}

static void put_row(struct journal_store *s, const char *key, void *row, size_t size)
{
    journal_row_seal(key, strlen(key), row, size);
    rocksdb_writebatch_put_cf(s->batch, s->db.family[JOURNAL_DEFAULT], key, strlen(key), row, size);
}

int journal_force(struct journal_store *s, const struct raft_conf *conf)
{
    struct journal_state *t = &s->state;
    struct journal_ident_row ident = {.version = JOURNAL_FORMAT_VERSION,
                                      .incarnation = t->incarnation + 1,
                                      .cluster = t->cluster,
                                      .node = t->node,
                                      .created_ns = t->created_ns};
    struct journal_forced_row forced = {.incarnation = ident.incarnation, .index = t->last};
    put_row(s, JOURNAL_KEY_IDENT, &ident, sizeof(ident));
    put_row(s, JOURNAL_KEY_FORCED, &forced, sizeof(forced));
    uint8_t bytes[RAFT_CONF_ENCODED_MAX];
    uint32_t n = (uint32_t)raft_conf_encode(conf, bytes);
    uint64_t term = t->term + JOURNAL_FORCE_TERMS;
    struct journal_entry entry = {.index = t->last + 1,
                                  .term = term,
                                  .type = RAFT_CONF,
                                  .data = bytes,
                                  .size = n,
                                  .data_crc = crc32c(0, bytes, n)};
    struct journal_entry *entries[] = {&entry};
    struct journal_unit unit = {.term = term, .commit = t->last + 1, .entries = entries, .count = 1};
    int r = journal_store_add(s, &unit);
    if (r == 0)
        r = journal_store_sync(s, clock_ns());
    if (r < 0)
        return r;
    t->incarnation = ident.incarnation;
    t->forced_incarnation = forced.incarnation;
    t->forced_index = forced.index;
    return 0;
}

/* ---- rejoin ---- */

#define OLD "log.old" /* what is thrown away, until it is gone */
#define NEW "rejoin"  /* a directory like ours: what takes its place */

static int remove_entry(const char *path, const struct stat *st, int type, struct FTW *ftw)
{
    return remove(path);
}

static int remove_tree(const char *dir, const char *name)
{
    char path[4200];
    if (snprintf(path, sizeof(path), "%s/%s", dir, name) >= (int)sizeof(path))
        return -ENAMETOOLONG;
    return nftw(path, remove_entry, 16, FTW_DEPTH | FTW_PHYS) < 0 && errno != ENOENT ? -errno : 0;
}

/* Whose log it is, as far as it can be read. */
static int read_old(const char *dir, struct buf *why, struct uuid *cluster, uint64_t *node, uint32_t *incarnation)
{
    char path[4200];
    if (snprintf(path, sizeof(path), "%s/log", dir) >= (int)sizeof(path))
        return -ENAMETOOLONG;
    struct journal_db db cleanup(journal_db_close) = JOURNAL_DB_NONE;
    struct journal_state state = {.node = 0};
    struct buf scratch cleanup(buf_fini) = {0};
    int r = journal_db_open(path, JOURNAL_DB_READ, 0, &scratch, &db);
    if (r == 0)
        r = journal_state_load_ident(&db, &scratch, &state);
    *node = state.node;
    *incarnation = *incarnation ? *incarnation : state.incarnation;
    if (!uuid_is_none(*cluster))
        return 0;
    if (r < 0)
        (void)buf_printf(why, "the old log does not say which cluster it belongs to (%.*s): say --cluster UUID",
                         (int)scratch.n, (const char *)scratch.p);
    else
        *cluster = state.cluster;
    return r == -ENOMEM ? r : r < 0 ? -CV_LOG_DAMAGED : 0;
}

/* Put what is at NEW in the place of the old log. A crash in between leaves no log, or the old log with a mark that is
 * not its own: refused at every start, and begun again from the top. */
static int exchange(int dir_fd)
{
    bool had_log = faccessat(dir_fd, "log", F_OK, 0) == 0;
    if (had_log && renameat(dir_fd, "log", dir_fd, OLD) < 0)
        return -errno;
    if (fsync(dir_fd) < 0 || renameat(dir_fd, NEW "/" JOURNAL_MARK_FILE, dir_fd, JOURNAL_MARK_FILE) < 0 ||
        fsync(dir_fd) < 0 || renameat(dir_fd, NEW "/log", dir_fd, "log") < 0 || fsync(dir_fd) < 0)
        return -errno;
    return 0;
}

static int rejoin_locked(const char *dir, int dir_fd, struct uuid *cluster, uint32_t incarnation, struct buf *why,
                         uint64_t *ret_old, uint64_t *ret_node)
{
    /* An attempt that was cut short: its old log is still the one that says who we are. */
    bool has_log = faccessat(dir_fd, "log", F_OK, 0) == 0;
    if (!has_log && faccessat(dir_fd, OLD, F_OK, 0) == 0) {
        if (renameat(dir_fd, OLD, dir_fd, "log") < 0)
            return -errno;
        has_log = true;
    }
    int r = remove_tree(dir, NEW);
    if (r == 0 && has_log)
        r = remove_tree(dir, OLD);
    if (r < 0)
        return r;
    if (!has_log && faccessat(dir_fd, JOURNAL_MARK_FILE, F_OK, 0) < 0) {
        (void)buf_printf(why, "there never was a log in it: a new member is made by cv-journal join");
        return -CV_NOT_FORMATTED;
    }
    *ret_old = 0;
    r = read_old(dir, why, cluster, ret_old, &incarnation);
    if (r < 0)
        return r;
    char fresh[4200];
    if (snprintf(fresh, sizeof(fresh), "%s/" NEW, dir) >= (int)sizeof(fresh))
        return -ENAMETOOLONG;
    struct journal_format format = {.cluster = *cluster, .node = random_u64(), .incarnation = incarnation};
    r = journal_store_format(fresh, &format, why);
    if (r == 0)
        r = exchange(dir_fd);
    if (r < 0)
        return r;
    *ret_node = format.node;
    (void)remove_tree(dir, NEW);
    return remove_tree(dir, OLD);
}

int journal_rejoin(const char *dir, struct uuid cluster, uint32_t incarnation, struct buf *why,
                   struct uuid *ret_cluster, uint64_t *ret_old, uint64_t *ret_node)
{
    int lock_fd cleanup(closep) = -1;
    pid_t holder = 0;
    int r = dir_lock(dir, &lock_fd, &holder);
    if (r == -CV_LOCKED)
        (void)buf_printf(why, "process %d works in %s: stop it first (systemctl stop cv-journal)", (int)holder, dir);
    if (r < 0)
        return r == -ENOENT ? -CV_NOT_FORMATTED : r;
    int dir_fd cleanup(closep) = open(dir, O_DIRECTORY | O_RDONLY | O_CLOEXEC);
    if (dir_fd < 0)
        return -errno;
    r = rejoin_locked(dir, dir_fd, &cluster, incarnation, why, ret_old, ret_node);
    *ret_cluster = cluster;
    return r;
}

/* ---- a damaged end ---- */

int journal_tail_check(const struct journal_store *s, struct journal_check *check, struct buf *why, uint64_t *ret_from)
{
    const struct journal_state *t = &s->state;
    const struct journal_mark *m = journal_store_mark(s);
    int r = journal_store_check_mark(s, why);
    if (r < 0)
        return -EPERM; /* the end is missing already: cutting more does not bring it back */
    r = journal_check_entries(&s->db, t, t->first, check);
    if (r == 0)
        return -ENODATA;
    if (r != -CV_LOG_DAMAGED)
        return r;
    if (check->first_bad <= t->commit || check->first_bad <= m->index || check->first_bad < t->first) {
        (void)buf_printf(why, "entry %llu is damaged, but entries up to %llu were on disk and acknowledged for certain",
                         (unsigned long long)check->first_bad, (unsigned long long)max(t->commit, m->index));
        return -EPERM;
    }
    *ret_from = check->first_bad;
    return 0;
}

int journal_tail_cut(struct journal_store *s, uint64_t from)
{
    const struct journal_state *t = &s->state;
    struct journal_unit unit = {.term = t->term, .vote = t->vote, .commit = t->commit, .truncate_from = from};
    int r = journal_store_add(s, &unit);
    return r < 0 ? r : journal_store_sync(s, clock_ns());
}
