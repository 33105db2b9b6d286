/* SPDX-License-Identifier: Apache-2.0 */
/*
 * One line of progress as text. A live line is made of segments, each with a rank: while the line is too wide, the one of
 * lowest rank goes; the bar takes what room is left.
 *
 *      load  ███████▌░░░░░░░  52%  1.2/2.3 GiB  1204/3000 files  512 MiB/s  ETA 2m5s  2 failed
 */
#include <stdio.h>
#include <string.h>

#include "base/cleanup.h"
#include "cli/progress.h"

#define BAR_MIN 8
#define BAR_MAX 32

uint64_t progress_eta_ms(const struct progress_view *v)
{
    if (!v->counted)
        return UINT64_MAX;
    uint64_t done = v->files, total = v->files_total;
    if (v->bytes_total) {
        done = v->bytes;
        total = v->bytes_total;
    }
    if (done >= total)
        return 0;
    if (!done || !v->elapsed_ms)
        return UINT64_MAX;
    /* What is left at the rate now, when there is one; else at the mean so far. */
    if (v->bytes_total && v->rate)
        return (uint64_t)((double)(total - done) * 1000 / (double)v->rate);
    return (uint64_t)((double)(total - done) / (double)done * (double)v->elapsed_ms);
}

/* 0 to 100; 100 only when everything is done. */
static unsigned percent(const struct progress_view *v)
{
    uint64_t done = v->bytes_total ? v->bytes : v->files, total = v->bytes_total ? v->bytes_total : v->files_total;
    if (done >= total)
        return v->files >= v->files_total ? 100 : 99;
    return (unsigned)min((double)done * 100 / (double)total, 99.0);
}

/* "1.20/2.31 GiB"; both sizes with their units when those differ. */
static void size_of(char *out, size_t size, uint64_t done, uint64_t total, bool with_total)
{
    char a[24], b[24];
    format_size(done, a, sizeof(a));
    format_size(total, b, sizeof(b));
    char *ua = strchr(a, ' '), *ub = strchr(b, ' ');
    if (!with_total)
        snprintf(out, size, "%s", a);
    else if (strcmp(ua, ub) == 0)
        snprintf(out, size, "%.*s/%s", (int)(ua - a), a, b);
    else
        snprintf(out, size, "%s/%s", a, b);
}

enum { SEG_VERB, SEG_BAR, SEG_PERCENT, SEG_BYTES, SEG_FILES, SEG_RATE, SEG_ETA, SEG_FAILED, SEG_COUNT };

/* Lowest goes first. */
static const unsigned char rank[SEG_COUNT] = {
    [SEG_BAR] = 0,  [SEG_ETA] = 2,   [SEG_FILES] = 1,  [SEG_RATE] = 3,
    [SEG_VERB] = 4, [SEG_BYTES] = 5, [SEG_FAILED] = 6, [SEG_PERCENT] = 7,
};

static void fill_segments(const struct progress_view *v, char seg[SEG_COUNT][64])
{
    char size[64], text[32];
    bool known = v->counted && (v->bytes_total || v->files_total);
    snprintf(seg[SEG_VERB], 64, "%s", v->verb);
    if (known)
        snprintf(seg[SEG_PERCENT], 64, "%3u%%", percent(v));
    if (v->bytes_total || v->bytes) {
        size_of(size, sizeof(size), v->bytes, v->bytes_total, v->counted);
        snprintf(seg[SEG_BYTES], 64, "%s", size);
        snprintf(seg[SEG_RATE], 64, "%s/s", format_size(v->rate, text, sizeof(text)));
    }
    if (v->files_total > 1 || !v->bytes_total)
        snprintf(seg[SEG_FILES], 64, v->counted ? "%llu/%llu files" : "%llu of %llu+ files",
                 (unsigned long long)v->files, (unsigned long long)v->files_total);
    uint64_t eta = progress_eta_ms(v);
    if (eta && eta != UINT64_MAX)
        snprintf(seg[SEG_ETA], 64, "ETA %s", out_format_duration((eta + 999) / 1000 * 1000, text, sizeof(text)));
    if (v->failed)
        snprintf(seg[SEG_FAILED], 64, "%llu failed", (unsigned long long)v->failed);
}

static int put_bar(const struct progress_view *v, const struct progress_style *style, unsigned width, struct buf *ret)
{
    static const char *const eighths[] = {"", "▏", "▎", "▍", "▌", "▋", "▊", "▉"};
    uint64_t done = v->bytes_total ? v->bytes : v->files, total = v->bytes_total ? v->bytes_total : v->files_total;
    double share = total ? min((double)done / (double)total, 1.0) : 0;
    unsigned steps = (unsigned)(share * width * 8), full = steps / 8, used = full;
    int r = style->colour ? buf_printf(ret, "\033[%sm", v->failed ? "33" : "32") : 0;
    for (unsigned i = 0; r == 0 && i < full; i++)
        r = buf_printf(ret, "%s", style->utf8 ? "█" : "#");
    if (r == 0 && style->utf8 && steps % 8) {
        r = buf_printf(ret, "%s", eighths[steps % 8]);
        used++;
    }
    for (unsigned i = used; r == 0 && i < width; i++)
        r = buf_printf(ret, "%s", style->utf8 ? "░" : ".");
    if (r == 0 && style->colour)
        r = buf_printf(ret, "\033[0m");
    return r;
}

static int render_live(const struct progress_view *v, const struct progress_style *style, struct buf *ret)
{
    char seg[SEG_COUNT][64] = {0};
    fill_segments(v, seg);
    unsigned used = 0;
    for (int i = 0; i < SEG_COUNT; i++)
        used += seg[i][0] ? (unsigned)strlen(seg[i]) + 2 : 0; /* all ASCII so far */
    used -= 2;
    while (used > style->width) {
        int least = -1;
        for (int i = 0; i < SEG_COUNT; i++)
            if (seg[i][0] && (least < 0 || rank[i] < rank[least]))
                least = i;
        if (least < 0)
            break;
        used -= min(used, (unsigned)strlen(seg[least]) + 2);
        seg[least][0] = '\0';
    }
    /* The last column stays free: some terminals wrap there. */
    unsigned bar = 0;
    if (seg[SEG_PERCENT][0] && style->width > used + 2 + BAR_MIN)
        bar = min(style->width - used - 3, (unsigned)BAR_MAX);
    int r = 0;
    bool first = true;
    for (int i = 0; r == 0 && i < SEG_COUNT; i++) {
        bool is_bar = i == SEG_BAR && bar >= BAR_MIN;
        if (!seg[i][0] && !is_bar)
            continue;
        if (!first)
            r = buf_append(ret, "  ", 2);
        first = false;
        if (r == 0 && is_bar)
            r = put_bar(v, style, bar, ret);
        else if (r == 0)
            r = style->colour && i == SEG_FAILED ? buf_printf(ret, "\033[31m%s\033[0m", seg[i])
                                                 : buf_printf(ret, "%s", seg[i]);
    }
    return r;
}

static int render_plain(const struct progress_view *v, struct buf *ret)
{
    static const unsigned char order[] = {SEG_PERCENT, SEG_FILES, SEG_BYTES, SEG_RATE, SEG_ETA, SEG_FAILED};
    char seg[SEG_COUNT][64] = {0};
    fill_segments(v, seg);
    int r = buf_printf(ret, "%s:", v->verb);
    bool first = true;
    for (size_t i = 0; r == 0 && i < array_size(order); i++) {
        const char *s = seg[order[i]];
        if (*s)
            r = buf_printf(ret, "%s%s", first ? " " : ", ", s + strspn(s, " "));
        first &= !*s;
    }
    return r;
}

static int render_json(const struct progress_view *v, struct buf *ret)
{
    uint64_t eta = progress_eta_ms(v);
    int r = buf_printf(ret,
                       "{\"event\": \"progress\", \"verb\": \"%s\", \"files\": %llu, \"files_total\": %llu, "
                       "\"bytes\": %llu, \"bytes_total\": %llu, \"counted\": %s, \"failed\": %llu, "
                       "\"bytes_per_second\": %llu, \"elapsed_ms\": %llu, \"eta_ms\": ",
                       v->verb, (unsigned long long)v->files, (unsigned long long)v->files_total,
                       (unsigned long long)v->bytes, (unsigned long long)v->bytes_total, v->counted ? "true" : "false",
                       (unsigned long long)v->failed, (unsigned long long)v->rate, (unsigned long long)v->elapsed_ms);
    if (r == 0)
        r = eta == UINT64_MAX ? buf_printf(ret, "null}") : buf_printf(ret, "%llu}", (unsigned long long)eta);
    return r;
}

int progress_render(const struct progress_view *v, enum progress_form form, const struct progress_style *style,
                    struct buf *ret)
{
    switch (form) {
    case PROGRESS_LIVE: return render_live(v, style, ret);
    case PROGRESS_LINES: return render_plain(v, ret);
    default: return render_json(v, ret);
    }
}
