/* SPDX-License-Identifier: Apache-2.0 */
#include "cli/progress.h"

#include <assert.h>
#include <langinfo.h>
#include <stdarg.h>
#include <stdio.h>
#include <string.h>
#include <sys/ioctl.h>

#include "base/clock.h"
#include "base/error.h"
#include "conf/json.h"

#define LIVE_MS  250
#define LINES_MS 5000

static unsigned terminal_width(FILE *to)
{
    struct winsize w;
    const char *columns = getenv("COLUMNS");
    if (ioctl(fileno(to), TIOCGWINSZ, &w) == 0 && w.ws_col > 0)
        return w.ws_col;
    unsigned n = columns ? (unsigned)strtoul(columns, NULL, 10) : 0;
    return n ? n : 80;
}

/* Bytes a second over the samples kept; p->mutex is held. */
static uint64_t rate_now(struct progress *p, uint64_t now, uint64_t bytes)
{
    unsigned at = p->samples % PROGRESS_SAMPLES;
    uint64_t since = p->began_ns, from = 0;
    if (p->samples >= PROGRESS_SAMPLES) {
        since = p->sample_ns[at];
        from = p->sample_bytes[at];
    }
    p->sample_ns[at] = now;
    p->sample_bytes[at] = bytes;
    p->samples++;
    return now > since && bytes > from ? (uint64_t)((double)(bytes - from) * 1e9 / (double)(now - since)) : 0;
}

static struct progress_view view_of(struct progress *p, uint64_t now)
{
    /* done before total, so that it never exceeds it */
    struct progress_view v = {.verb = p->verb, .files = p->files, .bytes = p->bytes, .failed = p->failed};
    v.counted = p->counted;
    v.files_total = p->files_total;
    v.bytes_total = p->bytes_total;
    v.elapsed_ms = (now - p->began_ns) / NS_PER_MS;
    return v;
}

static void clear_line(struct progress *p)
{
    if (p->shown)
        fputs("\r\033[K", p->to);
    p->shown = false;
}

static void show(struct progress *p)
{
    struct buf line cleanup(buf_fini) = {0};
    uint64_t now = clock_ns();
    struct progress_view v = view_of(p, now);
    v.rate = rate_now(p, now, v.bytes);
    p->style.width = p->form == PROGRESS_LIVE ? terminal_width(p->to) : 0;
    if (progress_render(&v, p->form, &p->style, &line) < 0)
        return;
    if (p->form == PROGRESS_LIVE) {
        fprintf(p->to, "\r%.*s\033[K", (int)line.n, (char *)line.p);
        p->shown = true;
    } else {
        fprintf(p->to, "%.*s\n", (int)line.n, (char *)line.p);
    }
    fflush(p->to);
}

static void *ticker(void *arg)
{
    struct progress *p = arg;
    uint64_t every = p->form == PROGRESS_LIVE ? LIVE_MS : LINES_MS;
    pthread_mutex_lock(&p->mutex);
    while (!p->stopping) {
        uint64_t next = clock_read(CLOCK_MONOTONIC) + every * NS_PER_MS;
        struct timespec until = {(time_t)(next / NS_PER_S), (long)(next % NS_PER_S)};
        while (!p->stopping && pthread_cond_clockwait(&p->changed, &p->mutex, CLOCK_MONOTONIC, &until) == 0)
            ;
        if (!p->stopping)
            show(p);
    }
    pthread_mutex_unlock(&p->mutex);
    return NULL;
}

void progress_start(struct progress *p, struct cli *cli, const char *verb, FILE *summary_to)
{
    const char *term = getenv("TERM");
    memset(p, 0, sizeof(*p));
    p->cli = cli;
    p->verb = verb;
    p->summary_to = summary_to ? summary_to : stdout;
    bool terminal = isatty(STDERR_FILENO) && term && strcmp(term, "dumb") != 0;
    p->form = cli->form == OUT_AS_JSON ? PROGRESS_JSON : terminal ? PROGRESS_LIVE : PROGRESS_LINES;
    p->to = p->form == PROGRESS_JSON ? p->summary_to : stderr;
    p->style.utf8 = strcmp(nl_langinfo(CODESET), "UTF-8") == 0;
    const char *no_colour = getenv("NO_COLOR");
    p->style.colour = terminal && !cli->no_colour && !(no_colour && *no_colour);
    p->began_ns = clock_ns();
    pthread_mutex_init(&p->mutex, NULL);
    pthread_cond_init(&p->changed, NULL);
    if (pthread_create(&p->thread, NULL, ticker, p) != 0)
        p->stopping = true; /* then nothing is shown until the end */
}

void progress_expect(struct progress *p, uint64_t files, uint64_t bytes)
{
    p->files_total += files;
    p->bytes_total += bytes;
}

void progress_counted(struct progress *p)
{
    p->counted = true;
}

void progress_add(struct progress *p, uint64_t files, uint64_t bytes)
{
    p->bytes += bytes;
    p->files += files;
}

void progress_forget(struct progress *p, uint64_t bytes)
{
    p->bytes -= bytes;
}

static void fail_json(struct progress *p, int r, const char *path, const char *why)
{
    struct buf line cleanup(buf_fini) = {0};
    int e = buf_printf(&line, "{\"event\": \"failed\", \"path\": ");
    e = e ? e : json_write_text(&line, path);
    e = e ? e : buf_printf(&line, ", \"error\": \"%s\", \"reason\": ", cv_error_name(r));
    e = e ? e : json_write_text(&line, why);
    e = e ? e : buf_printf(&line, "}\n");
    if (e == 0)
        fwrite(line.p, 1, line.n, p->to);
}

void progress_fail(struct progress *p, int r, const char *path, const char *why)
{
    uint64_t before = p->failed++;
    why = why && *why ? why : cv_error_text(r);
    pthread_mutex_lock(&p->mutex);
    clear_line(p);
    if (p->form == PROGRESS_JSON)
        fail_json(p, r, path, why);
    else if (before < PROGRESS_FAILURES)
        fprintf(p->to, "failed: %s: %s (%s)\n", path, why, cv_error_name(r));
    else if (before == PROGRESS_FAILURES)
        fprintf(p->to, "more failures are counted but not shown; all of them: -o json\n");
    fflush(p->to);
    pthread_mutex_unlock(&p->mutex);
}

void progress_note(struct progress *p, const char *format, ...)
{
    va_list args;
    if (p->form == PROGRESS_JSON)
        return;
    pthread_mutex_lock(&p->mutex);
    clear_line(p);
    va_start(args, format);
    vfprintf(p->to, format, args);
    va_end(args);
    fputc('\n', p->to);
    pthread_mutex_unlock(&p->mutex);
}

static void summary(struct progress *p)
{
    char bytes[24], rate[24], took[32];
    struct progress_view v = view_of(p, clock_ns());
    uint64_t per_second = (uint64_t)((double)v.bytes * 1000 / (double)max(v.elapsed_ms, (uint64_t)1));
    if (p->form == PROGRESS_JSON) {
        fprintf(p->summary_to,
                "{\"event\": \"done\", \"verb\": \"%s\", \"files\": %llu, \"bytes\": %llu, \"failed\": %llu, "
                "\"elapsed_ms\": %llu, \"bytes_per_second\": %llu}\n",
                p->verb, (unsigned long long)v.files, (unsigned long long)v.bytes, (unsigned long long)v.failed,
                (unsigned long long)v.elapsed_ms, (unsigned long long)per_second);
        return;
    }
    fprintf(p->summary_to, "%s: %llu file%s, %s (%llu bytes) in %s, %s/s", p->verb, (unsigned long long)v.files,
            v.files == 1 ? "" : "s", format_size(v.bytes, bytes, sizeof(bytes)), (unsigned long long)v.bytes,
            out_format_duration(v.elapsed_ms, took, sizeof(took)), format_size(per_second, rate, sizeof(rate)));
    if (v.failed)
        fprintf(p->summary_to, "; %llu FAILED", (unsigned long long)v.failed);
    fputc('\n', p->summary_to);
}

int progress_end(struct progress *p)
{
    pthread_mutex_lock(&p->mutex);
    bool runs = !p->stopping;
    p->stopping = true;
    pthread_cond_signal(&p->changed);
    pthread_mutex_unlock(&p->mutex);
    if (runs)
        pthread_join(p->thread, NULL);
    clear_line(p);
    fflush(p->to);
    summary(p);
    pthread_cond_destroy(&p->changed);
    pthread_mutex_destroy(&p->mutex);
    return p->failed ? CLI_FAILED : CLI_OK;
}
