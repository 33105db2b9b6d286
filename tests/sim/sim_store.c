/* SPDX-License-Identifier: Apache-2.0 */
#include "sim_store.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/hash.h"
#include "raft/journal_store.h"
#include "sim_check.h"
#include "sim_disk.h"
#include "sim_mutants.h"
#include "sim_node.h"
#include "sim_rocksdb.h"

typedef unsigned long long ull; /* for printing */

struct store {
    struct rocksdb_t *db;
    struct journal_store *open; /* while the journal runs */
    char dir[96];
};

/* durable.mark is raised by this clock; far above the real one, which the store uses for syncs of its own. */
static uint64_t mark_ns(const struct world *w)
{
    return (1ull << 62) + w->now_us * 1000;
}

static _Noreturn void broken(struct node *n, const char *what, int r, const struct buf *why)
{
    fail_harm(n->world, "store", "n%u: the log store %s: %s %.*s", n->slot, what, r ? cv_error_name(r) : "",
              why ? (int)why->n : 0, why ? (const char *)why->p : "");
}

static void format(struct node *n, const struct sim_entry *founding)
{
    struct world *w = n->world;
    if (!w->store_dir[0]) {
        const char *tmp = access("/dev/shm", W_OK) == 0 ? "/dev/shm" : getenv("TMPDIR") ? getenv("TMPDIR") : "/tmp";
        snprintf(w->store_dir, sizeof(w->store_dir), "%s/cv-sim-XXXXXX", tmp);
        if (!mkdtemp(w->store_dir))
            abort();
    }
    struct store *s = n->store = calloc(1, sizeof(*s));
    if (!s)
        abort();
    snprintf(s->dir, sizeof(s->dir), "%s/n%u", w->store_dir, n->slot);
    s->db = fake_db_opening = fake_db_new();
    struct journal_format f = {.cluster = {{1}}, .node = n->id};
    if (founding) {
        f.conf = founding->data;
        f.conf_size = founding->size;
    }
    struct buf why cleanup(buf_fini) = {0};
    int r = journal_store_format(s->dir, &f, &why);
    if (r < 0)
        broken(n, "cannot be made", r, &why);
}

/* ---- What is written ---- */

static struct journal_entry entry_of(const struct sim_entry *e)
{
    return (struct journal_entry){
        .index = e->index,
        .term = e->term,
        .data = e->data,
        .size = e->size,
        .data_crc = crc32c(0, e->data, e->size),
        .type = e->type,
    };
}

/* By log matching the store's chain of an entry is the same on all nodes. */
static void check_chain_of(struct node *n, struct sim_entry *e, uint64_t chain)
{
    if (e->store_chain && e->store_chain != chain)
        fail_harm(n->world, "store_chain", "n%u: the log store gives entry %llu of term %llu another chain", n->slot,
                  (ull)e->index, (ull)e->term);
    e->store_chain = chain;
}

static int write_unit(struct node *n, const struct disk_unit *u)
{
    struct journal_entry entries[RAFT_APPEND_ENTRIES_MAX + 1];
    struct journal_entry *pointers[RAFT_APPEND_ENTRIES_MAX + 1];
    struct journal_install install;
    for (uint32_t i = 0; i < u->count; i++) {
        entries[i] = entry_of(u->entries[i]);
        pointers[i] = &entries[i];
    }
    struct journal_unit unit = {
        .term = u->term,
        .vote = SIM_MUTANT(store_loses_vote) ? 0 : u->vote,
        .commit = u->commit,
        .truncate_from = SIM_MUTANT(store_keeps_tail) ? 0 : u->truncate_from,
        .entries = pointers,
        .count = u->count,
    };
    if (u->install) {
        install = (struct journal_install){
            .index = u->install->index,
            .term = u->install->term,
            .chain = u->install->store_chain,
            .conf_index = u->install_conf->index,
            .conf = u->install_conf->data,
            .conf_size = u->install_conf->size,
            .directory = "state",
        };
        unit.install = &install;
    }
    int r = journal_store_add(n->store->open, &unit);
    for (uint32_t i = 0; i < u->count && r == 0; i++)
        check_chain_of(n, u->entries[i], entries[i].chain);
    return r;
}

void store_take(struct node *n, const struct disk_unit *u)
{
    if (!n->world->params.store)
        return;
    if (!n->store && u->count == 1 && u->first == 1 && u->entries[0]->type == RAFT_CONF) {
        format(n, u->entries[0]);
        return;
    }
    struct journal_store *s = n->store->open;
    int r = u->seq ? write_unit(n, u) : 0;
    if (r == 0)
        r = journal_store_sync(s, mark_ns(n->world));
    if (r == 0 && u->compact_first)
        r = journal_store_compact(s, u->compact_first);
    if (r < 0)
        broken(n, "cannot write", r, NULL);
}

/* ---- What is there ---- */

static const char *differs(const struct journal_state *s, const struct disk_image *d)
{
    if (s->term != d->term || s->vote != d->vote)
        return "term and vote";
    if (s->first != d->first || s->last != d->last)
        return "ends of the log";
    if (s->base_term != (d->base ? d->base->term : 0))
        return "term before the first entry";
    if (s->commit > d->commit)
        return "commit hint";
    for (uint64_t i = d->first; i <= d->last; i++)
        if (journal_state_term(s, i) != d->entries[i]->term)
            return "terms";
    uint32_t both = min(min(s->conf_count, d->conf_count), 2u);
    if (!s->conf_count != !d->conf_count)
        return "whether there is a configuration";
    for (uint32_t i = 1; i <= both; i++)
        if (s->confs[s->conf_count - i] != d->confs[d->conf_count - i]->index)
            return "configurations";
    return NULL;
}

static void check_entries(struct node *n, const struct disk_image *d)
{
    static _Thread_local struct journal_read read;
    const struct journal_store *s = n->store->open;
    for (uint64_t i = d->first; i <= d->last;) {
        int r = journal_store_read(s, i, d->last, 4096, &read);
        if (r < 0)
            broken(n, "does not read", r, NULL);
        for (uint32_t k = 0; k < read.count; k++, i++) {
            const struct journal_entry *have = &read.entries[k];
            struct sim_entry *want = d->entries[i];
            check_chain_of(n, want, have->chain);
            if (have->index != i || have->term != want->term || have->type != want->type || have->size != want->size ||
                (have->size && memcmp(have->data, want->data, have->size) != 0))
                fail_harm(n->world, "store", "n%u: the log store has another entry %llu than the disk", n->slot,
                          (ull)i);
        }
    }
    journal_read_fini(&read);
    struct buf conf cleanup(buf_fini) = {0};
    const struct sim_entry *newest = d->conf_count ? d->confs[d->conf_count - 1] : NULL;
    int r = newest ? journal_store_conf(s, newest->index, &conf) : 0;
    if (r < 0 || (newest && (conf.n != newest->size || memcmp(conf.p, newest->data, conf.n) != 0)))
        broken(n, "has lost the newest configuration", r, NULL);
}

void store_start(struct node *n)
{
    if (!n->world->params.store)
        return;
    if (!n->store)
        format(n, NULL); /* it waits to be added */
    struct store *s = n->store;
    fake_db_opening = s->db;
    struct buf why cleanup(buf_fini) = {0};
    int r = journal_store_open(s->dir, NULL, &why, &s->open);
    if (r < 0)
        broken(n, "does not open", r, &why);
    const char *what = differs(journal_store_state(s->open), &n->disk.durable);
    if (what)
        fail_harm(n->world, "store", "n%u: the log store and the disk differ: %s", n->slot, what);
    check_entries(n, &n->disk.durable);
}

void store_stop(struct node *n)
{
    if (n->store)
        n->store->open = journal_store_free(n->store->open);
}

struct journal_store *store_open(struct node *n)
{
    return n->store->open;
}

/* ---- Clearing ---- */

static void remove_dir(const char *dir)
{
    static const char *const files[] = {"lock", "durable.mark", "log/CURRENT"};
    char path[160];
    for (uint32_t i = 0; i < array_size(files); i++) {
        snprintf(path, sizeof(path), "%s/%s", dir, files[i]);
        unlink(path);
    }
    snprintf(path, sizeof(path), "%s/log", dir);
    rmdir(path);
    rmdir(dir);
}

void store_clear(struct world *w, bool directory)
{
    for (uint32_t i = 0; i < SIM_NODES_MAX; i++) {
        struct node *n = w->nodes[i];
        if (!n || !n->store)
            continue;
        store_stop(n);
        fake_db_free(n->store->db);
        remove_dir(n->store->dir);
        free(n->store);
        n->store = NULL;
    }
    if (directory && w->store_dir[0]) {
        rmdir(w->store_dir);
        w->store_dir[0] = 0;
    }
}
