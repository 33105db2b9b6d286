/* SPDX-License-Identifier: Apache-2.0 */
/* The master's end of the twin's connection: what it is told, against what is committed. */
#include <string.h>

#include "base/hash.h"
#include "sim_check.h"
#include "sim_node.h"
#include "sim_twin.h"

typedef unsigned long long ull; /* for printing */

static const struct sim_entry *committed_entry(struct node *n, uint64_t index)
{
    const struct check *c = n->world->check;
    if (index > c->commit)
        fail_harm(n->world, "link_early", "n%u: the link tells entry %llu, committed are %llu", n->slot, (ull)index,
                  (ull)c->commit);
    return c->at[index].committed;
}

static bool next_is_own(const struct twin_master *t)
{
    return t->own_count && t->own[t->own_head % LINK_OWN_MAX] == t->told + 1;
}

static void on_entries(struct node *n, struct twin_master *t, const struct msg_link_entries *m, const uint8_t *data)
{
    rec_for_each (link_entry, e, &m->entries) {
        if (e.index != t->told + 1 || next_is_own(t))
            fail_harm(n->world, "link_order", "n%u: the link tells entry %llu, expected %llu%s", n->slot, (ull)e.index,
                      (ull)t->told + 1, next_is_own(t) ? " as a watermark" : "");
        const struct sim_entry *want = committed_entry(n, e.index);
        if (e.term != want->term || e.type != want->type || e.length != want->size ||
            e.crc != crc32c(0, data, e.length) || (e.length && memcmp(data, want->data, e.length) != 0))
            fail_harm(n->world, "link_entry", "n%u: the link tells another entry %llu than is committed", n->slot,
                      (ull)e.index);
        data += e.length;
        t->told++;
    }
}

static void on_committed(struct node *n, struct twin_master *t, const struct msg_link_committed *m)
{
    const struct sim_entry *last = committed_entry(n, m->index);
    if (m->index <= t->told || m->term != last->term)
        fail_harm(n->world, "link_order", "n%u: the link tells %llu as committed after %llu", n->slot, (ull)m->index,
                  (ull)t->told);
    for (; t->told < m->index; t->told++, t->own_head++, t->own_count--)
        if (!next_is_own(t))
            fail_harm(n->world, "link_order", "n%u: the link tells %llu as committed, and not entry %llu before it",
                      n->slot, (ull)m->index, (ull)t->told + 1);
}

static void on_proposed(struct node *n, struct twin_master *t, const struct msg_link_proposed *m)
{
    uint64_t before = t->own_count ? t->own[(t->own_head + t->own_count - 1) % LINK_OWN_MAX] : t->told;
    if (m->term != t->role_term || m->first_index <= before || m->first_index <= t->start_index)
        fail_harm(n->world, "link_proposed", "n%u: a proposal gets index %llu behind %llu", n->slot,
                  (ull)m->first_index, (ull)before);
    for (uint32_t i = 0; i < m->count; i++)
        t->own[(t->own_head + t->own_count++) % LINK_OWN_MAX] = m->first_index + i;
}

static void on_truncate(struct node *n, struct twin_master *t, const struct msg_link_truncate *m)
{
    if (m->from <= t->told)
        fail_harm(n->world, "link_truncate", "n%u: the link takes back what it told, from %llu", n->slot, (ull)m->from);
    while (t->own_count && t->own[(t->own_head + t->own_count - 1) % LINK_OWN_MAX] >= m->from)
        t->own_count--;
}

/* It may fall without a word when others' entries behind our own ones are gone: it speaks of our own. */
static void on_durable(struct node *n, const struct twin_master *t, const struct msg_link_durable *m)
{
    if (m->index <= t->told || !t->own_count || m->index < t->own[t->own_head % LINK_OWN_MAX])
        fail_harm(n->world, "link_durable", "n%u: the link tells %llu as durable out of place", n->slot, (ull)m->index);
}

static void on_role(struct twin_master *t, const struct msg_link_role *m)
{
    if (m->role != t->role || m->term != t->role_term)
        t->unanswered++;
    t->role = m->role;
    t->role_term = m->term;
    t->start_index = m->start_index;
    t->lease_ns = m->lease_until_ns;
}

static void on_welcome(struct node *n, struct twin_master *t, const struct msg_link_welcome *m)
{
    if (m->error && m->first <= t->told + 1)
        fail_harm(n->world, "link_welcome", "n%u: a master at entry %llu of %llu..%llu is refused", n->slot,
                  (ull)t->told, (ull)m->first, (ull)m->last);
    t->attached = !m->error;
}

#define ON(name, ...)                                                                                                  \
    case MSG_link_##name: {                                                                                            \
        struct msg_link_##name in;                                                                                     \
        if (msg_link_##name##_decode(body, body_n, &in) < 0)                                                           \
            fail_harm(n->world, "link", "n%u: %s does not decode", n->slot, #name);                                    \
        __VA_ARGS__;                                                                                                   \
        break;                                                                                                         \
    }

void twin_master_frame(struct node *n, const struct link_message *m)
{
    struct twin_master *t = twin_master_of(n);
    const uint8_t *body = m->data;
    uint32_t body_n = m->size;
    if (!t)
        return;
    trace(n->world, "n%u master <- %s", n->slot, message_name((uint16_t)m->number));
    switch (m->number) {
        ON(welcome, on_welcome(n, t, &in))
        ON(role, on_role(t, &in))
        ON(credit, t->credit_bytes = in.bytes; t->credit_entries = in.entries)
        ON(entries, on_entries(n, t, &in, body + body_n))
        ON(committed, on_committed(n, t, &in))
        ON(durable, on_durable(n, t, &in))
        ON(proposed, on_proposed(n, t, &in))
        ON(admin_answer, t->admin_answers += in.context == 1)
        ON(truncate, on_truncate(n, t, &in))
    default: break;
    }
}

/* Once the model's master has taken a role in, nothing of the one before comes from it any more. */
void twin_master_answers_roles(struct node *n)
{
    struct twin_master *t = twin_master_of(n);
    for (; t && t->attached && t->unanswered; t->unanswered--) {
        struct link_message m = {.type = TO_JOURNAL_FRAME, .number = MSG_link_role_seen, .term = t->role_term};
        link_send_journal(n, &m);
    }
}
