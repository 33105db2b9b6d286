/* SPDX-License-Identifier: Apache-2.0 */
#include "tests/unit/unit.h"

#include <fcntl.h>
#include <stdio.h>
#include <sys/wait.h>
#include <wchar.h>

#include <locale.h>

#include "base/error.h"
#include "cli/progress.h"

#define GIB (1024ull * 1024 * 1024)

static const struct progress_view half = {
    .verb = "load",
    .files = 1200,
    .files_total = 3000,
    .bytes = GIB + GIB / 2,
    .bytes_total = 3 * GIB,
    .counted = true,
    .rate = GIB / 2,
    .elapsed_ms = 3000,
};

/* Static storage. */
static const char *line(const struct progress_view *v, enum progress_form form, unsigned width, bool colour, bool utf8)
{
    static char text[1024];
    struct buf b cleanup(buf_fini) = {0};
    ck_assert_int_eq(progress_render(v, form, &(struct progress_style){width, colour, utf8}, &b), 0);
    ck_assert_uint_lt(b.n, sizeof(text));
    memcpy(text, b.p, b.n);
    text[b.n] = '\0';
    return text;
}

TEST(a_wide_terminal_shows_everything)
{
    ck_assert_str_eq(line(&half, PROGRESS_LIVE, 120, false, true),
                     "load  ████████████████░░░░░░░░░░░░░░░░   50%  1.50/3.00 GiB  1200/3000 files  512 MiB/s  ETA 3s");
    ck_assert_str_eq(line(&half, PROGRESS_LIVE, 120, false, false),
                     "load  ################................   50%  1.50/3.00 GiB  1200/3000 files  512 MiB/s  ETA 3s");
}

TEST(no_width_is_exceeded_and_the_percentage_goes_last)
{
    struct progress_view v = half;
    v.failed = 7;
    ck_assert_ptr_nonnull(setlocale(LC_ALL, "C.UTF-8"));
    for (unsigned width = 4; width < 200; width++) {
        wchar_t wide[1024];
        const char *s = line(&v, PROGRESS_LIVE, width, false, true);
        size_t columns = mbstowcs(wide, s, array_size(wide));
        ck_assert_msg(columns <= width, "%zu columns of %u: %s", columns, width, s);
        ck_assert_ptr_nonnull(strstr(s, "50%"));
    }
    ck_assert_str_eq(line(&v, PROGRESS_LIVE, 30, false, true), " 50%  1.50/3.00 GiB  7 failed");
}

TEST(colour_is_used_only_when_asked_for)
{
    struct progress_view v = half;
    v.failed = 1;
    ck_assert_ptr_null(strchr(line(&v, PROGRESS_LIVE, 120, false, true), '\033'));
    const char *s = line(&v, PROGRESS_LIVE, 120, true, true);
    ck_assert_ptr_nonnull(strstr(s, "\033[31m1 failed\033[0m"));
    ck_assert_ptr_nonnull(strstr(s, "\033[33m█"));
}

TEST(nothing_is_promised_while_the_totals_grow)
{
    struct progress_view v = half;
    v.counted = false;
    const char *s = line(&v, PROGRESS_LIVE, 120, false, true);
    ck_assert_ptr_null(strstr(s, "%"));
    ck_assert_ptr_null(strstr(s, "ETA"));
    ck_assert_str_eq(s, "load  1.50 GiB  1200 of 3000+ files  512 MiB/s");
}

TEST(a_hundred_percent_means_that_all_is_done)
{
    struct progress_view v = half;
    v.bytes = v.bytes_total - 1;
    ck_assert_ptr_nonnull(strstr(line(&v, PROGRESS_LINES, 0, false, true), " 99%"));
    v.bytes = v.bytes_total; /* empty files are left */
    ck_assert_ptr_nonnull(strstr(line(&v, PROGRESS_LINES, 0, false, true), " 99%"));
    v.files = v.files_total;
    ck_assert_ptr_nonnull(strstr(line(&v, PROGRESS_LINES, 0, false, true), "100%"));
}

TEST(plain_and_json_lines)
{
    ck_assert_str_eq(line(&half, PROGRESS_LINES, 0, true, true),
                     "load: 50%, 1200/3000 files, 1.50/3.00 GiB, 512 MiB/s, ETA 3s");
    ck_assert_str_eq(line(&half, PROGRESS_JSON, 0, true, true),
                     "{\"event\": \"progress\", \"verb\": \"load\", \"files\": 1200, \"files_total\": 3000, "
                     "\"bytes\": 1610612736, \"bytes_total\": 3221225472, \"counted\": true, \"failed\": 0, "
                     "\"bytes_per_second\": 536870912, \"elapsed_ms\": 3000, \"eta_ms\": 3000}");
}

TEST(time_left_is_guessed_from_files_when_there_are_no_bytes)
{
    struct progress_view v = {.verb = "free", .files = 10, .files_total = 40, .counted = true, .elapsed_ms = 1000};
    ck_assert_uint_eq(progress_eta_ms(&v), 3000);
    v.files = 0;
    ck_assert_uint_eq(progress_eta_ms(&v), UINT64_MAX);
    v.files = 40;
    ck_assert_uint_eq(progress_eta_ms(&v), 0);
}

/* What a whole run prints to stdout. Static storage. */
static const char *run(enum out_form form, bool fail, int *ret_status)
{
    static char text[4096];
    struct cli cli = {.form = form};
    struct progress p;
    memset(text, 0, sizeof(text));
    FILE *f = fmemopen(text, sizeof(text) - 1, "we");
    progress_start(&p, &cli, "get", f);
    progress_expect(&p, 2, 30);
    progress_counted(&p);
    progress_add(&p, 1, 10);
    if (fail)
        progress_fail(&p, -CV_DATA_DAMAGED, ":/a\"b", NULL);
    else
        progress_add(&p, 1, 20);
    *ret_status = progress_end(&p);
    fclose(f);
    return text;
}

TEST(the_end_says_exactly_what_was_done)
{
    int status;
    const char *s = run(OUT_TABLE, false, &status);
    ck_assert_int_eq(status, CLI_OK);
    ck_assert_msg(strncmp(s, "get: 2 files, 30 B (30 bytes) in ", 33) == 0, "%s", s);
    ck_assert_ptr_null(strstr(s, "FAILED"));
    s = run(OUT_TABLE, true, &status);
    ck_assert_int_eq(status, CLI_FAILED);
    ck_assert_ptr_nonnull(strstr(s, "get: 1 file, 10 B"));
    ck_assert_ptr_nonnull(strstr(s, "; 1 FAILED\n"));
    s = run(OUT_AS_JSON, true, &status);
    ck_assert_ptr_nonnull(strstr(s, "{\"event\": \"failed\", \"path\": \":/a\\\"b\", \"error\": \"CV_DATA_DAMAGED\""));
    ck_assert_ptr_nonnull(
        strstr(s, "{\"event\": \"done\", \"verb\": \"get\", \"files\": 1, \"bytes\": 10, \"failed\": 1"));
}
