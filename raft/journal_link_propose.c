/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Proposals: from the connection into the ring, and at the end of the loop's turn, all that came together, into the
 * core. What the core cannot take now (a transfer is under way, too much is not yet durable, the disk is nearly full)
 * waits here, bounded by the credit; what it will not take (executed under another term) is refused, and with it all
 * that follows until the master has answered the change of role.
 */
#include <assert.h>

#include "base/clock.h"
#include "base/error.h"
#include "base/hash.h"
#include "base/log.h"
#include "raft/journal_link_internal.h"

static_assert((int)LINK_BATCH == (int)RAFT_BATCH && (int)LINK_CONF == (int)RAFT_CONF &&
                  (int)LINK_BARRIER == (int)RAFT_BARRIER && (int)LINK_NOOP == (int)RAFT_NOOP &&
                  (int)LINK_DIGEST == (int)RAFT_DIGEST && (int)LINK_ID_LEASE == (int)RAFT_ID_LEASE,
              "the link speaks the core's numbers");
static_assert(LINK_PAYLOAD_MAX <= JOURNAL_ENTRY_SIZE_MAX, "every proposal can be stored");

static struct journal_metrics *metrics(struct journal_link *l)
{
    return journal_driver_metrics(l->driver);
}

/* Executed under the role the master knows, and is that role still ours? */
static bool may_propose(const struct journal_link *l, uint64_t term)
{
    const struct journal_view *v = journal_driver_view(l->driver);
    return l->session.roles_unseen == 0 && v->role == RAFT_LEADER && v->term == term;
}

static void refuse(struct journal_link *l, uint64_t term, uint64_t from_sequence)
{
    struct link_session *s = &l->session;
    counter_add(&metrics(l)->proposals_refused, 1);
    if (s->refused)
        return;
    s->refused = true;
    const struct journal_view *v = journal_driver_view(l->driver);
    struct msg_link_rejected m = {
        .term = term,
        .from_sequence = from_sequence,
        .error = v->role == RAFT_LEADER ? ESTALE : CV_NOT_LEADER,
    };
    link_send(l, MSG_link_rejected, &m);
}

void link_drop_pending(struct journal_link *l)
{
    struct link_session *s = &l->session;
    for (; s->pending_count; s->pending_count--, s->pending_head++) {
        struct journal_record *record = s->pending[s->pending_head % LINK_CREDIT_ENTRIES];
        s->inflight_bytes -= record->entry.size;
        s->inflight_entries--;
        journal_ring_unpin(journal_driver_ring(l->driver), record);
    }
}

void link_refuse_pending(struct journal_link *l)
{
    struct link_session *s = &l->session;
    if (s->pending_count)
        refuse(l, s->role_term, s->next_sequence - s->pending_count);
    link_drop_pending(l);
}

void link_on_role_seen(struct journal_link *l)
{
    struct link_session *s = &l->session;
    if (s->roles_unseen == 0) {
        link_drop_master(l, -CV_BAD_MESSAGE, "answered a role it was not told");
        return;
    }
    s->roles_unseen--;
    s->next_sequence = 1;
    s->refused = false;
    assert(s->pending_count == 0); /* the change of role refused them */
}

static const char *check_proposal(struct journal_link *l, const struct msg_link_propose *m, const uint8_t *data,
                                  uint32_t n)
{
    const struct link_session *s = &l->session;
    if (m->entry_type != RAFT_BATCH && m->entry_type != RAFT_ID_LEASE && m->entry_type != RAFT_DIGEST &&
        m->entry_type != RAFT_BARRIER)
        return "proposed an unknown type of entry";
    if (m->sequence != s->next_sequence)
        return "proposed out of sequence";
    if (s->inflight_entries >= LINK_CREDIT_ENTRIES ||
        s->inflight_bytes + n > l->options.credit_bytes + LINK_PAYLOAD_MAX)
        return "proposed more than its credit";
    if (crc32c(0, data, n) != m->payload_crc)
        return "sent a damaged payload";
    return NULL;
}

void link_on_propose(struct journal_link *l, const struct msg_link_propose *m, const uint8_t *data, uint32_t n)
{
    struct link_session *s = &l->session;
    if (s->refused || !may_propose(l, m->term)) {
        refuse(l, m->term, m->sequence);
        return;
    }
    const char *wrong = check_proposal(l, m, data, n);
    if (wrong) {
        link_drop_master(l, -CV_BAD_MESSAGE, wrong);
        return;
    }
    struct journal_record *record;
    int r = journal_ring_alloc(journal_driver_ring(l->driver), n, &record);
    if (r < 0) {
        link_drop_master(l, r, "proposed more than there is memory for");
        return;
    }
    if (n)
        memcpy(record->data, data, n);
    record->entry.type = m->entry_type;
    record->entry.op_count = m->op_count;
    record->entry.data_crc = m->payload_crc;
    record->tag = loop_now(l->options.loop);
    s->pending[(s->pending_head + s->pending_count++) % LINK_CREDIT_ENTRIES] = record;
    s->next_sequence++;
    s->inflight_entries++;
    s->inflight_bytes += n;
    counter_add(&metrics(l)->proposals, 1);
    loop_at_turn_end(l->options.loop, &l->propose);
}

/* Note entries as the master's own. Returns false when there are too many ranges (it then waits). */
static bool can_own_more(const struct link_session *s)
{
    return s->range_count < LINK_RANGES_MAX;
}

static void own(struct link_session *s, uint64_t first, uint32_t count)
{
    struct link_range *newest = s->range_count ? &s->ranges[s->range_count - 1] : NULL;
    if (newest && newest->last + 1 == first)
        newest->last += count;
    else
        s->ranges[s->range_count++] = (struct link_range){first, first + count - 1};
}

/* Give the core up to one input's worth. Returns 0 when there may be more to give. */
static int propose_some(struct journal_link *l)
{
    struct link_session *s = &l->session;
    struct journal_record *records[RAFT_APPEND_ENTRIES_MAX];
    uint32_t count = min(s->pending_count, (uint32_t)RAFT_APPEND_ENTRIES_MAX);
    for (uint32_t i = 0; i < count; i++)
        records[i] = s->pending[(s->pending_head + i) % LINK_CREDIT_ENTRIES];
    uint64_t first, sequence = s->next_sequence - s->pending_count, term = s->role_term;
    if (!can_own_more(s) || journal_driver_view(l->driver)->disk_full)
        return -CV_BUSY;
    int r = journal_driver_propose(l->driver, term, records, count, &first);
    if (r < 0)
        return r;
    s->pending_head += count;
    s->pending_count -= count;
    own(s, first, count);
    for (uint32_t i = 0; i < count; i++) {
        s->own[(first + i) % LINK_OWN_MAX].bytes = records[i]->entry.size;
        s->own[(first + i) % LINK_OWN_MAX].arrived_ns = records[i]->tag;
    }
    struct msg_link_proposed m = {.term = term, .first_sequence = sequence, .first_index = first, .count = count};
    link_send(l, MSG_link_proposed, &m);
    return 0;
}

void link_propose_pending(struct journal_link *l)
{
    if (!link_has_master(l) || l->stopping)
        return;
    int r = 0;
    l->proposing = true;
    while (r == 0 && l->session.pending_count)
        r = propose_some(l);
    l->proposing = false;
    if (r == -CV_BUSY)
        counter_add(&metrics(l)->proposals_held,
                    l->session.pending_count); /* tried again by the timer and by progress */
    else if (r < 0 && r != -CV_STOPPING)
        link_refuse_pending(l);
}

void link_propose_hook(struct loop_hook *hook)
{
    link_propose_pending(container_of(hook, struct journal_link, propose));
}

/* What full disks mean to the master. With other voters nothing is refused at once: one with room takes the lead meanwhile
 * (should_lead() in journal_link_lease.c), and no client hears of it. Whoever still leads after that is the only one who can. */
static uint8_t disk_flags(struct journal_link *l)
{
    const struct journal_view *v = journal_driver_view(l->driver);
    uint64_t now = loop_now(l->options.loop);
    bool low = link_disk_is_low(l), leads = v->role == RAFT_LEADER;
    if (!low || !leads)
        l->low_since_ns = 0;
    else if (!l->low_since_ns)
        l->low_since_ns = now;
    bool only = leads && (v->voters <= 1 || now - l->low_since_ns >= LINK_HAND_OVER_MS * NS_PER_MS);
    return (low && only ? LINK_DISK_REFUSE : 0) | (v->disk_low ? LINK_DISK_JOURNAL : 0);
}

/* Once, and when disks get full or are so no longer. */
void link_tell_credit(struct journal_link *l)
{
    struct link_session *s = &l->session;
    uint8_t flags = disk_flags(l);
    if (s->credited && s->disk_told == flags)
        return;
    s->credited = true;
    s->disk_told = flags;
    struct msg_link_credit m = {.bytes = l->options.credit_bytes, .entries = LINK_CREDIT_ENTRIES, .disk_low = flags};
    link_send(l, MSG_link_credit, &m);
}
