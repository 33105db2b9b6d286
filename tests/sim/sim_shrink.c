/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Shrinking: leave out one thing after the other from a failing seed, as long as the same check still fails. What is
 * left is the command to replay: a few kinds of faults, few nodes, little time.
 */
#include "sim_run.h"

#include <stdlib.h>
#include <string.h>

enum { SETTINGS_MAX = 64, SETTING_SIZE = 48 };

struct shrink {
    struct world *world;
    uint64_t seed;
    char check[32];
    const struct run_options *options;
    char texts[SETTINGS_MAX][SETTING_SIZE];
    bool is_fault[SETTINGS_MAX];
    uint32_t count;
    uint64_t at_us; /* when it fails */
};

static bool fails(struct shrink *s)
{
    struct world *w = s->world;
    struct params p;
    params_draw(s->seed, &p);
    for (const char **o = s->options->settings; o && *o; o++)
        params_set(&p, *o);
    for (uint32_t i = 0; i < s->count; i++)
        params_set(&p, s->texts[i]);
    if (p.journal_only >= p.voters)
        return false; /* nobody could lead it */
    world_reset(w, s->seed, &p, false);
    if (world_run(w) || (s->check[0] && strcmp(w->failure.check, s->check) != 0))
        return false;
    s->at_us = w->failure.at_us;
    return true;
}

/* Keep a setting if it still fails with it. */
static bool try(struct shrink *s, const char *name, uint64_t value)
{
    if (s->count == SETTINGS_MAX)
        return false;
    snprintf(s->texts[s->count++], SETTING_SIZE, "%s=%llu", name, (unsigned long long)value);
    if (fails(s))
        return true;
    s->count--;
    return false;
}

/* Faults that are left out are many: name those that stay. */
static void print_command(const struct shrink *s)
{
    char text[2048];
    size_t n = 0;
    for (const char **o = s->options->settings; o && *o && n < sizeof(text); o++)
        n += (size_t)snprintf(text + n, sizeof(text) - n, "%s ", *o);
    n += (size_t)snprintf(text + n, sizeof(text) - n, "only=");
    bool any = false;
    for (int i = 0; i < FAULT_COUNT && n < sizeof(text); i++)
        if (s->world->params.faults[i]) {
            n += (size_t)snprintf(text + n, sizeof(text) - n, "%s%s", any ? "," : "", fault_infos[i].name);
            any = true;
        }
    if (!any)
        n += (size_t)snprintf(text + n, sizeof(text) - n, "none");
    for (uint32_t i = 0; i < s->count && n < sizeof(text); i++)
        if (!s->is_fault[i])
            n += (size_t)snprintf(text + n, sizeof(text) - n, " %s", s->texts[i]);
    run_print_command(s->seed, text);
}

void run_shrink(uint64_t seed, const struct run_options *o)
{
    struct world *w cleanup(world_free_p) = world_new();
    struct shrink s = {.world = w, .seed = seed, .options = o};
    if (!fails(&s)) {
        printf("seed %llu does not fail\n", (unsigned long long)seed);
        return;
    }
    snprintf(s.check, sizeof(s.check), "%s", w->failure.check);
    struct params drawn;
    params_draw(seed, &drawn);
    for (int again = 0; again < 2; again++) {
        for (int i = 0; i < FAULT_COUNT; i++)
            if (drawn.faults[i] && try(&s, fault_infos[i].name, 0)) {
                s.is_fault[s.count - 1] = true;
                drawn.faults[i] = 0;
            }
        for (uint32_t voters = 1; voters < drawn.voters; voters++)
            if (try(&s, "voters", voters)) {
                drawn.voters = voters;
                break;
            }
        for (uint32_t clients = 0; clients < drawn.clients; clients++)
            if (try(&s, "clients", clients)) {
                drawn.clients = clients;
                break;
            }
    }
    static const char *const to_zero[] = {"space",     "learners",      "journal_only",   "codec",
                                          "split",     "net_jitter_us", "disk_jitter_us", "compact_every",
                                          "hint_poor", "read_permille"};
    for (uint32_t i = 0; i < array_size(to_zero); i++)
        try(&s, to_zero[i], 0);
    fails(&s);
    if (s.at_us / 1000 < drawn.run_ms)
        try(&s, "run_ms", s.at_us / 1000 + 1);
    fails(&s);
    printf("shrunk: fails at %.6f s: %s: %s\n", (double)s.at_us / 1e6, w->failure.check, w->failure.text);
    print_command(&s);
}
