/* SPDX-License-Identifier: Apache-2.0 */
/* The core's life: built from the base, leading and following, what it says about itself. */
#include "meta/meta_core.h"

#include "base/log.h"

#define OVERLAY_BUCKETS (1u << 14)

static struct meta_options options_of(const struct meta_options *o)
{
    struct meta_options r = o ? *o : (struct meta_options){0};
    r.memory_bytes = r.memory_bytes ? min(r.memory_bytes, 32ull << 30) : 1ull << 30;
    r.whole_dir_names = r.whole_dir_names ? min(r.whole_dir_names, META_NEEDS_MAX / 2u) : 1000;
    r.id_grant = r.id_grant ? r.id_grant : 1u << 20;
    r.slots = r.slots ? min(r.slots, (uint32_t)META_SLOTS_MAX) : 64;
    r.lease_ms = r.lease_ms ? r.lease_ms : 1000;
    r.level_max = r.level_max ? min(r.level_max, (uint32_t)META_FEATURE_LEVEL) : META_FEATURE_LEVEL;
    r.block_shift = r.block_shift ? max(12u, min(r.block_shift, 30u)) : META_BLOCK_SHIFT;
    r.replicas = r.replicas ? min(r.replicas, (uint32_t)META_REPLICAS_MAX) : 1;
    return r;
}

/* --- loading -------------------------------------------------------------------------------------------------------------- */

struct load {
    struct meta *m;
    enum meta_table table;
    int error;
};

static bool load_row(void *arg, struct text key, struct text value)
{
    struct load *l = arg;
    const struct redo_row check = {l->table, false, key, value};
    const struct row r = {.key = (const uint8_t *)key.p,
                          .key_n = (uint16_t)key.n,
                          .value = (const uint8_t *)value.p,
                          .value_n = value.n,
                          .table = (uint8_t)l->table};
    l->error = meta_key_fits(l->table, key) ? redo_row_check(&check) : -CV_BAD_FORMAT;
    if (l->error == 0)
        row_loaded(l->m, &r);
    return l->error == 0;
}

static int load_table(struct meta *m, const struct meta_base *base, enum meta_table table)
{
    uint8_t key[META_KEY_MAX];
    struct load l = {m, table, 0};
    struct text prefix = key_of(key, 1);
    meta_key_id(table, 0, key);
    int r = base->scan(base->context, META_FAMILY_small, prefix, prefix, false, load_row, &l);
    return r < 0 ? r : l.error;
}

static int load_root(struct meta *m, const struct meta_base *base)
{
    uint8_t key[META_KEY_MAX];
    struct buf value cleanup(buf_fini) = {0};
    struct meta_inode i;
    int r = base->get(base->context, META_FAMILY_inode, key_of(key, meta_key_inode(META_ROOT, key)), false, &value);
    if (r < 0)
        return r == -ENOENT ? 0 : r;
    r = meta_inode_decode(META_ROOT, key_of(value.p, (uint32_t)value.n), &i);
    if (r < 0)
        return r;
    if (!S_ISDIR(i.mode))
        return -CV_BAD_FORMAT;
    tree_put_node(&m->tree, META_ROOT, true, key_of(value.p, (uint32_t)value.n), 0);
    m->has_root = m->root_committed = true;
    return 0;
}

static int load(struct meta *m, const struct meta_base *base)
{
    uint8_t key[META_KEY_MAX];
    struct buf value cleanup(buf_fini) = {0};
    int r = base->get(base->context, META_FAMILY_small, key_of(key, meta_key_state(key)), false, &value);
    if (r == -ENOENT)
        return 0; /* nothing was ever written */
    if (r == 0)
        r = meta_state_decode(key_of(value.p, (uint32_t)value.n), &m->state);
    if (r == 0 && m->state.feature_level > m->options.level_max)
        r = log_error(-CV_FORMAT_TOO_NEW,
                      "this state is of feature level %u, this program (" CV_VERSION
                      ") takes part in levels up to %u: install the version the other masters run",
                      m->state.feature_level, m->options.level_max);
    if (r == 0)
        r = load_root(m, base);
    if (r == 0)
        r = load_table(m, base, META_TABLE_session);
    if (r == 0)
        r = load_table(m, base, META_TABLE_slot);
    if (r == 0)
        r = load_table(m, base, META_TABLE_grant);
    if (r == 0)
        r = load_table(m, base, META_TABLE_mount);
    if (r == 0)
        r = load_table(m, base, META_TABLE_worker);
    const struct meta_state *s = &m->state;
    m->now = (struct totals){s->inodes, s->directories, s->orphans, s->bytes};
    m->time_ns = s->time_ns;
    m->incarnation = s->incarnation;
    m->level = max(s->feature_level, 1u);
    return r;
}

int meta_new(const struct meta_options *o, const struct meta_base *base, struct meta **ret)
{
    struct meta *m = calloc(1, sizeof(*m));
    if (!m)
        return -ENOMEM;
    m->options = options_of(o);
    m->generation = 1;
    m->mount_next = m->mount_limit = m->level = 1;
    batch_init(m);
    int r = tree_init(&m->tree, m->options.memory_bytes);
    if (r == 0)
        r = row_table_init(&m->overlay, OVERLAY_BUCKETS);
    if (r == 0)
        r = session_table_init(&m->sessions);
    if (r == 0)
        r = load(m, base);
    if (r == 0 && !(m->delta = delta_new(m->state.applied)))
        r = -ENOMEM;
    if (r < 0) {
        meta_free(m);
        return r;
    }
    *ret = m;
    return 0;
}

struct meta *meta_free(struct meta *m)
{
    if (!m)
        return NULL;
    batch_fini(m);
    meta_delta_free(m->sealed);
    meta_delta_free(m->delta);
    row_table_fini(&m->overlay);
    session_table_fini(&m->sessions);
    buf_fini(&m->fences);
    kept_fini(&m->mounts);
    kept_fini(&m->workers);
    tree_fini(&m->tree);
    free(m);
    return NULL;
}

/* --- leading and following -------------------------------------------------------------------------------------------------- */

static bool handles_forget(void *arg, struct session *s)
{
    struct meta *m = arg;
    while (!list_empty(&s->handles))
        handle_remove(&m->sessions, list_entry(s->handles.next, struct handle, of_session));
    return true;
}

void meta_follow(struct meta *m)
{
    m->leading = m->purge_allowed = m->purge_scan = false;
    m->purge_count = 0;
    m->fences.n = 0;
    slots_forget_all(m);
    session_each(&m->sessions, handles_forget, m);
}

void meta_lead(struct meta *m, uint32_t epoch)
{
    assert(list_empty(&m->inflight) && m->open.op_count == 0);
    meta_follow(m);
    m->leading = true;
    m->epoch = epoch;
    m->sessions.next_handle = 0;
    session_forget_told(&m->sessions);
    m->next_id = m->id_asked = max(m->id_limit, (uint64_t)META_FIRST_ID);
    m->id_limit = max(m->id_limit, m->next_id);
}

void meta_set_full(struct meta *m, bool full)
{
    m->full = full;
}

void meta_allow_purge(struct meta *m)
{
    m->purge_allowed = m->purge_scan = true;
    m->purge_cursor = 0;
}

bool meta_all_told(const struct meta *m)
{
    return m->sessions.untold == 0;
}

bool meta_next_inner(struct meta *m, struct meta_request *q)
{
    if (!m->leading || !m->has_root)
        return false;
    if (m->id_asked - m->next_id < m->options.id_grant / 2) {
        meta_request_inner(q, META_OP_grant, 0);
        return true;
    }
    if (m->fences.n) {
        meta_request_inner(q, META_OP_fence, 0);
        m->fences.n -= sizeof(q->fence);
        memcpy(&q->fence, m->fences.p + m->fences.n, sizeof(q->fence));
        return true;
    }
    if (!m->purge_allowed)
        return false;
    if (m->purge_count) {
        meta_request_inner(q, META_OP_purge, m->purge_ring[m->purge_first++ % PURGE_RING]);
        m->purge_count--;
        return true;
    }
    if (!m->purge_scan)
        return false;
    meta_request_inner(q, META_OP_purge, 0);
    return true;
}

/* --- delta hand-over ---------------------------------------------------------------------------------------------------------- */

struct meta_delta_load meta_delta_load(const struct meta *m)
{
    const struct meta_delta *d = m->delta;
    return (struct meta_delta_load){
        .rows = d->table.count,
        .operations = d->operations,
        .bytes = d->bytes + d->order.bytes,
        .from_applied = d->from_applied,
        .sealed = m->sealed != NULL,
    };
}

struct meta_delta *meta_delta_seal(struct meta *m)
{
    if (m->sealed || m->state.applied == m->delta->from_applied)
        return NULL;
    struct meta_delta *fresh = delta_new(m->state.applied);
    if (!fresh)
        return NULL;
    m->sealed = m->delta;
    m->sealed->state = m->state;
    m->delta = fresh;
    return m->sealed;
}

void meta_delta_written(struct meta *m, struct meta_delta *d)
{
    assert(d == m->sealed);
    m->sealed = NULL;
    m->generation++;
}

/* --- figures -------------------------------------------------------------------------------------------------------------------- */

bool meta_is_formatted(const struct meta *m)
{
    return m->has_root;
}

uint32_t meta_incarnation(const struct meta *m)
{
    return m->incarnation;
}

uint32_t meta_level(const struct meta *m)
{
    return m->level;
}

uint64_t meta_applied(const struct meta *m)
{
    return m->state.applied;
}

uint64_t meta_digest(const struct meta *m)
{
    return m->state.digest;
}

uint64_t meta_batch_last_committed(const struct meta *m)
{
    return m->batch_committed;
}

bool meta_session_exists(const struct meta *m, uint64_t session)
{
    const struct session *s = session_find(&m->sessions, session);
    return s && (s->now_open || s->committed_open);
}

struct sessions_walk {
    bool (*each)(void *arg, uint64_t session, const struct meta_session_row *row, uint32_t handles);
    void *arg;
};

static bool sessions_tell(void *arg, struct session *s)
{
    struct sessions_walk *w = arg;
    struct meta_session_row row;
    int r = meta_session_decode(key_of(s->row, s->row_n), &row);
    assert(r == 0);
    return !s->now_open || w->each(w->arg, s->link.key, &row, s->handle_count);
}

void meta_sessions(const struct meta *m,
                   bool (*each)(void *arg, uint64_t session, const struct meta_session_row *row, uint32_t handles),
                   void *arg)
{
    struct sessions_walk w = {each, arg};
    session_each(&m->sessions, sessions_tell, &w);
}

void meta_on_effect(struct meta *m, void (*effect)(void *arg, const struct meta_effect *e), void *arg)
{
    m->effect = effect;
    m->effect_arg = arg;
}

void meta_on_place(struct meta *m,
                   uint32_t (*place)(void *arg, uint64_t inode, uint32_t block, uint64_t near, uint32_t max,
                                     uint64_t *ret),
                   void *arg)
{
    m->place = place;
    m->place_arg = arg;
}

void meta_on_checked(struct meta *m, bool (*checked)(void *arg, uint64_t worker))
{
    m->checked = checked;
}

void meta_stats(const struct meta *m, struct meta_stats *ret)
{
    *ret = (struct meta_stats){
        .state = m->state,
        .level = max(m->state.feature_level, 1u),
        .level_max = m->options.level_max,
        .sessions = m->sessions.open_sessions,
        .handles = m->sessions.handles.count,
        .tree_bytes = tree_bytes(&m->tree),
        .tree_budget = m->tree.budget,
        .nodes = m->tree.file_count + m->tree.directory_count,
        .resident_directories = m->tree.directory_count,
        .dentries = m->tree.name_count,
        .overlay_rows = m->overlay.count,
        .delta_rows = m->delta->table.count + (m->sealed ? m->sealed->table.count : 0),
        .delta_bytes = m->delta->bytes + (m->sealed ? m->sealed->bytes : 0),
        .evicted = m->tree.evicted,
        .installed = m->installed,
        .prepare_again = m->prepare_again,
        .batch_last = m->open.number - (m->open.op_count ? 0 : 1),
        .batch_committed = m->batch_committed,
    };
}
