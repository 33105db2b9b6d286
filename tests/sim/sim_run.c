/* SPDX-License-Identifier: Apache-2.0 */
#include "sim_run.h"

#include <errno.h>
#include <pthread.h>
#include <stdlib.h>
#include <string.h>

#include "base/clock.h"
#include "sim_mutants.h"

typedef unsigned long long ull; /* for printing */

static int params_of(uint64_t seed, const struct run_options *o, struct params *ret)
{
    params_draw(seed, ret);
    for (const char **s = o->settings; s && *s; s++) {
        int r = params_set(ret, *s);
        if (r < 0)
            return r;
    }
    return 0;
}

void run_print_command(uint64_t seed, const char *settings)
{
    if (mutant_on())
        printf("  build/test/sim-mutants seed %llu --mutant %s%s%s\n", (ull)seed, mutant_on(), *settings ? " " : "",
               settings);
    else
        printf("  make sim SEED=%llu%s%s%s\n", (ull)seed, *settings ? " SIM_ARGS='" : "", settings,
               *settings ? "'" : "");
    fflush(stdout);
}

static void print_failure(const struct world *w, const struct run_options *o)
{
    char settings[512] = "";
    size_t n = 0;
    for (const char **s = o->settings; s && *s && n < sizeof(settings); s++)
        n += (size_t)snprintf(settings + n, sizeof(settings) - n, "%s%s", n ? " " : "", *s);
    printf("seed %llu fails at %llu.%06llu s: %s: %s\n", (ull)w->seed, (ull)(w->failure.at_us / 1000000),
           (ull)(w->failure.at_us % 1000000), w->failure.check, w->failure.text);
    run_print_command(w->seed, settings);
}

/* ---- Many seeds on several threads ---- */

struct job {
    const struct run_options *options;
    uint64_t next, to; /* seeds, under lock */
    pthread_mutex_t lock;
    struct run_totals totals; /* under lock */
    bool stop;
};

static void add_counters(struct counters *to, const struct counters *from)
{
    uint64_t *a = (uint64_t *)to;
    const uint64_t *b = (const uint64_t *)from;
    for (size_t i = 0; i < sizeof(*to) / sizeof(*a); i++)
        a[i] += b[i];
}

static bool take_seed(struct job *job, uint64_t *ret)
{
    pthread_mutex_lock(&job->lock);
    bool more = job->next <= job->to && !job->stop;
    *ret = job->next;
    job->next += more;
    pthread_mutex_unlock(&job->lock);
    return more;
}

static void account(struct job *job, const struct world *w)
{
    struct run_totals *t = &job->totals;
    t->seeds++;
    t->virtual_us += w->now_us;
    add_counters(&t->counters, &w->counters);
    if (!w->failed)
        return;
    t->failed++;
    t->harm += !w->failure.rule;
    if (!t->first_failed || w->seed < t->first_failed)
        t->first_failed = w->seed;
    job->stop = job->options->stop_at_first;
    if (!job->options->quiet)
        print_failure(w, job->options);
}

static void *work(void *arg)
{
    struct job *job = arg;
    struct world *w cleanup(world_free_p) = world_new();
    uint64_t seed, started = clock_thread_cpu_ns();
    while (take_seed(job, &seed)) {
        struct params p;
        params_of(seed, job->options, &p);
        world_reset(w, seed, &p, false);
        world_run(w);
        pthread_mutex_lock(&job->lock);
        account(job, w);
        pthread_mutex_unlock(&job->lock);
    }
    pthread_mutex_lock(&job->lock);
    job->totals.cpu_ns += clock_thread_cpu_ns() - started;
    pthread_mutex_unlock(&job->lock);
    return NULL;
}

int run_seeds(uint64_t from, uint64_t to, const struct run_options *o, struct run_totals *ret)
{
    struct params p;
    int r = params_of(from, o, &p);
    if (r < 0)
        return r;
    struct job job = {.options = o, .next = from, .to = to, .lock = PTHREAD_MUTEX_INITIALIZER};
    pthread_t threads[16];
    uint32_t count = min(o->threads, 16u);
    for (uint32_t i = 1; i < count; i++)
        if (pthread_create(&threads[i], NULL, work, &job) != 0)
            abort();
    work(&job);
    for (uint32_t i = 1; i < count; i++)
        pthread_join(threads[i], NULL);
    *ret = job.totals;
    return 0;
}

void run_print_totals(const struct run_totals *t)
{
    const struct counters *c = &t->counters;
    double cpu_s = (double)t->cpu_ns / 1e9, virtual_s = (double)t->virtual_us / 1e6;
    printf("%llu seeds, %llu failed; %.1f s CPU, %.2f M events/s, %.1f virtual hours a CPU minute\n", (ull)t->seeds,
           (ull)t->failed, cpu_s, (double)c->events / cpu_s / 1e6, virtual_s / 3600 / (cpu_s / 60));
    printf("  %.1f h virtual: %llu elections, %llu commits, %llu crashes, %llu truncations, %llu member changes, "
           "%llu transfers, %llu snapshots, %llu compactions, %llu messages, %llu requests, %llu acks of mode "
           "applied or local lost\n",
           virtual_s / 3600, (ull)c->elections, (ull)c->commits, (ull)c->crashes, (ull)c->truncations,
           (ull)c->conf_changes, (ull)c->transfers, (ull)c->snapshots, (ull)c->compactions, (ull)c->messages,
           (ull)c->requests, (ull)c->lost_acks);
}

/* ---- One seed ---- */

/* Print the last lines of a file. */
static void print_tail(FILE *f, uint32_t lines)
{
    uint64_t total = 0;
    rewind(f);
    for (int ch; (ch = getc(f)) != EOF;)
        total += ch == '\n';
    rewind(f);
    uint64_t skip = total > lines ? total - lines : 0;
    if (skip)
        printf("... %llu lines more with -v\n", (ull)skip);
    for (int ch; (ch = getc(f)) != EOF;) {
        if (skip == 0)
            putchar(ch);
        skip -= ch == '\n' && skip;
    }
}

bool run_replay(uint64_t seed, const struct run_options *o)
{
    struct world *w cleanup(world_free_p) = world_new();
    struct params p;
    if (params_of(seed, o, &p) < 0)
        return false;
    FILE *story = o->trace_lines == UINT32_MAX ? stdout : tmpfile();
    if (!story)
        abort();
    w->trace = story;
    params_print(&p, stdout);
    world_reset(w, seed, &p, false);
    bool ok = world_run(w);
    if (story != stdout) {
        if (!ok)
            print_tail(story, o->trace_lines);
        fclose(story);
    }
    w->trace = NULL;
    if (ok)
        printf("seed %llu passes: %llu events, %llu elections, %llu commits in %.1f virtual s\n", (ull)seed,
               (ull)w->counters.events, (ull)w->counters.elections, (ull)w->counters.commits, (double)w->now_us / 1e6);
    else
        print_failure(w, o);
    return ok;
}
