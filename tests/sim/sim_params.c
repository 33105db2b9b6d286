/* SPDX-License-Identifier: Apache-2.0 */
#include "sim_params.h"

#include <assert.h>
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "sim_world.h"

const struct fault_info fault_infos[FAULT_COUNT] = {
#define SIM_FAULT(name, kind, share, low, high, text) {#name, text, FAULT_##kind, share, low, high},
#include "sim_faults.def"
#undef SIM_FAULT
};

static uint32_t pick(struct prng *r, const uint32_t *from, uint32_t n)
{
    return from[prng_below(r, n)];
}
#define PICK(r, ...) pick((r), (const uint32_t[]){__VA_ARGS__}, sizeof((uint32_t[]){__VA_ARGS__}) / sizeof(uint32_t))

/* Intensities spread evenly over orders of magnitude: many gentle seeds, some fierce ones. */
static uint32_t spread(struct prng *r, uint32_t low, uint32_t high)
{
    if (high <= low)
        return max(low, 1u);
    uint32_t cap = low;
    uint32_t steps = 0;
    while (cap < high && steps < 8) {
        cap = min(2 * max(cap, 1u), high);
        steps++;
    }
    uint32_t top = max(low, 1u) << prng_below(r, steps + 1);
    top = max(min(top, high), low);
    uint32_t value = between(r, low, top);
    return max(value, 1u);
}

static void draw_faults(struct prng *r, struct params *p)
{
    /* Some seeds have few kinds of faults, but these. */
    uint32_t share = PICK(r, 400, 1000, 1000, 1600);
    for (uint32_t i = 0; i < FAULT_COUNT; i++) {
        const struct fault_info *f = &fault_infos[i];
        uint32_t intensity = spread(r, f->low, f->high);
        bool in = prng_below(r, 1000) < f->share * share / 1000;
        p->faults[i] = in ? intensity : 0;
    }
}

/* Some seeds look at one thing: the faults and parameters that bring it out together, and little else. */
static void draw_focus(struct prng *r, struct params *p)
{
    static const char *const themes[] = {
        /* A log's old entries under new leaders: one entry a message, many short leaderships. */
        "only=duel,election,crash,hit_new_leader append_entries_max=1 duel=20 election=60",
        "only=duel,election,reorder append_entries_max=1 duel=15 election=200 voters=5",
        /* Competing changes of the members. */
        "only=duel,election,members voters=4 duel=15 election=300 members=200",
        "only=members,hit_conf,crash,isolate,election,campaign members=10 hit_conf=500 election=60 campaign=40",
        /* Promises in time. */
        "only=hit_lease,clock_rate,isolate,single_link,slow_local hit_lease=30 no_lease=0",
        "only=transfer,hit_transfer,single_link,slow_local,cannot_lead,clock_rate transfer=10 hit_transfer=600 "
        "no_lease=0 "
        "read_permille=600",
        /* Disks that are behind. */
        "only=hit_slow_leader,disk_slow,hit_truncate,election,crash hit_slow_leader=25 group_max=1 election=100",
        "only=crash_write,hit_vote,hit_ack,hit_truncate,disk_full,election,duel crash_write=5 election=30 duel=40",
        /* Leaders that do not know that they were replaced. */
        "only=hit_stale_leader,election,isolate,drop,slow_local hit_stale_leader=700 election=25 no_lease=1 clients=5 "
        "read_permille=600 think_ms=5",
        /* Logs that end before others begin. */
        "only=hit_snapshot,isolate,crash,election,members,log_full,reorder compact_every=4 compact_behind=0 "
        "hit_snapshot=400 isolate=40 election=60",
    };
    char text[256];
    snprintf(text, sizeof(text), "%s", themes[prng_below(r, array_size(themes))]);
    for (int i = 0; i < FAULT_COUNT; i++)
        p->faults[i] = spread(r, fault_infos[i].low, fault_infos[i].high);
    char *save = NULL;
    for (char *word = strtok_r(text, " ", &save); word; word = strtok_r(NULL, " ", &save)) {
        int e = params_set(p, word);
        assert(e == 0);
    }
}

void params_draw(uint64_t seed, struct params *ret)
{
    struct prng random = {seed * 16 + 15}, *r = &random;
    r->state = prng_next(r);
    struct params p = {0};
    p.voters = PICK(r, 1, 2, 3, 3, 3, 3, 4, 4, 5, 5, 5);
    p.journal_only = p.voters >= 3 && chance(r, 300) ? 1 : 0;
    p.learners = chance(r, 150) ? 1 : 0;
    p.election_ms = PICK(r, 100, 150, 200, 300, 500);
    p.heartbeat_ms = p.election_ms / PICK(r, 3, 4, 6, 10);
    p.tick_ms = chance(r, 500) ? p.heartbeat_ms / 2 : min(10u, p.heartbeat_ms);
    p.tick_ms = max(p.tick_ms, 2u);
    p.run_ms = p.election_ms * between(r, 15, 70);
    p.append_entries_max = PICK(r, 1, 1, 2, 2, 64);
    p.inflight_entries_max = PICK(r, 1, 2, 16, 256);
    p.uncommitted_max = PICK(r, 4, 32, 1000);
    p.group_max = PICK(r, 1, 1, 4, 64);
    p.compact_every = PICK(r, 0, 0, 4, 16, 64);
    p.compact_behind = chance(r, 500) ? 0 : between(r, 0, 20);
    p.flush_ms = p.election_ms * between(r, 1, 20) / 2;
    p.codec = chance(r, 250);
    p.split = chance(r, 200);
    p.hint_poor = PICK(r, 0, 0, 0, 1, 2);
    p.told_first = chance(r, 500);
    p.in_order = chance(r, 400);
    p.applied_known = chance(r, 300);
    p.net_us = PICK(r, 100, 500, 2000, 5000);
    p.net_jitter_us = chance(r, 300) ? 0 : between(r, 0, 3 * p.net_us);
    p.disk_us = PICK(r, 10, 100, 1000, 5000);
    p.disk_jitter_us = chance(r, 300) ? 0 : between(r, 0, 4 * p.disk_us);
    p.link_us = PICK(r, 0, 50, 1000);
    p.clients = between(r, 1, SIM_CLIENTS_MAX);
    p.think_ms = p.election_ms * PICK(r, 1, 3, 10, 30) / 30;
    p.batch_ops = between(r, 1, 4);
    p.batch_us = PICK(r, 0, 1000, 5000);
    p.read_permille = PICK(r, 100, 300, 600);
    p.follower_read_permille = PICK(r, 0, 200, 500);
    p.applied_permille = PICK(r, 0, 0, 200, 600);
    p.local_permille = PICK(r, 0, 0, 200, 400);
    draw_faults(r, &p);
    if (chance(r, 350))
        draw_focus(r, &p);
    p.no_lease = p.no_lease || chance(r, 100) || !params_leases_hold(&p);
    p.space = seed % 8 == 1; /* not drawn: the others stay what they were */
    p.store = p.link = seed % 8 == 5;
    p.force = seed % 16 == 3 || seed % 64 == 5 || seed % 64 == 1 ? 300 + (uint32_t)(seed / 16 % 6) * 100 : 0;
    *ret = p;
}

void params_quiet(uint32_t voters, struct params *ret)
{
    *ret = (struct params){
        .voters = voters,
        .tick_ms = 10,
        .heartbeat_ms = 50,
        .election_ms = 500,
        .run_ms = 1000,
        .append_entries_max = 64,
        .inflight_entries_max = 512,
        .uncommitted_max = 65536,
        .group_max = 64,
        .flush_ms = 100000,
        .no_lease = true,
        .codec = true,
        .net_us = 1000,
        .disk_us = 1000,
        .think_ms = 50,
        .batch_ops = 1,
    };
}

bool params_leases_hold(const struct params *p)
{
    return !p->faults[FAULT_clock_jump] && !p->faults[FAULT_clock_suspend] && !p->faults[FAULT_election];
}

/* ---- By name ---- */

static const struct {
    const char *name;
    size_t offset;
    bool is_bool;
} fields[] = {
#define NUMBER(f)                                                                                                      \
    {                                                                                                                  \
#f, offsetof(struct params, f), false                                                                          \
    }
#define BOOL(f)                                                                                                        \
    {                                                                                                                  \
#f, offsetof(struct params, f), true                                                                           \
    }
    NUMBER(voters),      NUMBER(journal_only),
    NUMBER(learners),    NUMBER(run_ms),
    NUMBER(tick_ms),     NUMBER(heartbeat_ms),
    NUMBER(election_ms), NUMBER(append_entries_max),
    NUMBER(group_max),   NUMBER(inflight_entries_max),
    NUMBER(flush_ms),    NUMBER(uncommitted_max),
    NUMBER(net_us),      NUMBER(compact_every),
    NUMBER(disk_us),     NUMBER(compact_behind),
    NUMBER(link_us),     NUMBER(net_jitter_us),
    NUMBER(clients),     NUMBER(disk_jitter_us),
    NUMBER(think_ms),    NUMBER(batch_ops),
    NUMBER(batch_us),    NUMBER(read_permille),
    BOOL(no_lease),      NUMBER(follower_read_permille),
    BOOL(codec),         NUMBER(applied_permille),
    BOOL(split),         NUMBER(local_permille),
    NUMBER(hint_poor),   BOOL(told_first),
    BOOL(in_order),      BOOL(applied_known),
    BOOL(harm_only),     BOOL(space),
    BOOL(store),         BOOL(link),
    NUMBER(force),
#undef NUMBER
#undef BOOL
};

static int find_fault(const char *name, size_t n)
{
    for (int i = 0; i < FAULT_COUNT; i++)
        if (strlen(fault_infos[i].name) == n && !strncmp(fault_infos[i].name, name, n))
            return i;
    return -1;
}

/* A list of faults, comma-separated; keep: these stay, else these go. */
static int set_faults(struct params *p, const char *list, bool keep)
{
    bool named[FAULT_COUNT] = {0};
    while (*list) {
        size_t n = strcspn(list, ",");
        int i = find_fault(list, n);
        if (i < 0 && !(n == 4 && !strncmp(list, "none", 4)))
            return -EINVAL;
        if (i >= 0)
            named[i] = true;
        list += n + (list[n] == ',');
    }
    for (int i = 0; i < FAULT_COUNT; i++)
        if (named[i] != keep)
            p->faults[i] = 0;
    return 0;
}

int params_set(struct params *p, const char *setting)
{
    const char *eq = strchr(setting, '=');
    if (!eq)
        return -EINVAL;
    size_t n = (size_t)(eq - setting);
    if (n == 2 && !strncmp(setting, "no", 2))
        return set_faults(p, eq + 1, false);
    if (n == 4 && !strncmp(setting, "only", 4))
        return set_faults(p, eq + 1, true);
    char *end;
    unsigned long value = strtoul(eq + 1, &end, 10);
    if (*end || end == eq + 1)
        return -EINVAL;
    int fault = find_fault(setting, n);
    if (fault >= 0) {
        p->faults[fault] = (uint32_t)value;
        return 0;
    }
    for (uint32_t i = 0; i < array_size(fields); i++) {
        if (strlen(fields[i].name) != n || strncmp(fields[i].name, setting, n) != 0)
            continue;
        char *at = (char *)p + fields[i].offset;
        if (fields[i].is_bool)
            *(bool *)at = value;
        else
            *(uint32_t *)at = (uint32_t)value;
        return 0;
    }
    return -EINVAL;
}

void params_print(const struct params *p, FILE *out)
{
    for (uint32_t i = 0; i < array_size(fields); i++) {
        const char *at = (const char *)p + fields[i].offset;
        uint32_t value = fields[i].is_bool ? *(const bool *)at : *(const uint32_t *)at;
        fprintf(out, "%s%s=%u", i ? " " : "", fields[i].name, value);
    }
    fputs("\nfaults:", out);
    for (uint32_t i = 0; i < FAULT_COUNT; i++)
        if (p->faults[i])
            fprintf(out, " %s=%u", fault_infos[i].name, p->faults[i]);
    fputc('\n', out);
}
