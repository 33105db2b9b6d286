/* SPDX-License-Identifier: Apache-2.0 */
/* conf and the forms of output, with memory that runs out at each allocation in turn: an error, nothing lost. */
#include "tests/unit/unit.h"

#include "tests/unit/fail_malloc.h"

#ifdef FAIL_MALLOC
#include "base/error.h"
#include "bin/sections.h"
#include "cli/out.h"
#include "conf/config.h"
#include "conf/metrics.h"
#include "conf/options_doc.h"

static const char yaml[] = "master:\n  port: 1\n  dir: /somewhere\nworker:\n  dirs: [a, b, c]\nlog: {level: debug}\n";
static const char bad_yaml[] = "master:\n  prot: 1\n  dir: ''\n  port: x\nworker:\n  dirs: [a, [b], c]\n";

/* All of it; 0, or the first error. */
static int configure(const char *text, size_t n)
{
    struct config *c cleanup(config_free_p) = NULL;
    int r = config_new(curvine_sections, &c);
    if (r < 0)
        return r;
    r = config_load_text(c, "f", text, n);
    if (r == 0)
        r = config_set(c, "worker.dirs=x, y");
    if (r == 0)
        r = config_check(c);
    if (r == -CV_CONFIG_BAD)
        (void)config_errors(c);
    return r;
}

static int document(void)
{
    struct buf b cleanup(buf_fini) = {0};
    int r = options_sample(curvine_sections, &b);
    if (r == 0)
        r = options_help(&worker_section, &b);
    return r;
}

/* Tries run() with the 1st, 2nd, ... allocation failing, until none is left to fail. */
static void with_every_failure(int (*run)(void), int expected)
{
    ck_assert_int_eq(run(), expected); /* what libc keeps from the first time on */
    for (uint64_t n = 1;; n++) {
        uint64_t before = live_blocks;
        fail_malloc_at = n;
        int r = run();
        bool over = fail_malloc_over();
        ck_assert_msg(live_blocks == before, "allocation %u: %d blocks lost", (unsigned)n, (int)(live_blocks - before));
        if (over) {
            ck_assert_int_eq(r, expected);
            ck_assert_uint_gt(n, 1);
            return;
        }
        /* A message may be lost to a lack of memory; the verdict may not. */
        ck_assert_msg(r == -ENOMEM || (expected && r == expected), "allocation %u: %d", (unsigned)n, r);
    }
}

static int configure_well(void)
{
    return configure(yaml, strlen(yaml));
}

static int configure_badly(void)
{
    return configure(bad_yaml, strlen(bad_yaml));
}

TEST(a_configuration_without_memory_is_an_error_and_loses_none)
{
    with_every_failure(configure_well, 0);
    with_every_failure(configure_badly, -CV_CONFIG_BAD);
}

TEST(documentation_without_memory_is_an_error_and_loses_none)
{
    with_every_failure(document, 0);
}

static int print_table(void)
{
    static const struct out_column columns[] = {{"a", OUT_TEXT}, {"b", OUT_JSON}, {"c", OUT_TIME}};
    static char sink[4096], buffer[4096];
    int r = 0;
    for (int form = OUT_TABLE; r == 0 && form <= OUT_AS_YAML; form++) {
        struct out *o = out_table(columns, array_size(columns));
        struct out *whole = out_record(columns, 1);
        out_text(o, "text");
        out_json(o, "x", json_integer(5));
        out_number(o, 7);
        out_text(whole, "\xff");
        out_nest(whole, "inner", o);
        FILE *f = fmemopen(sink, sizeof(sink), "we");
        if (f)
            setvbuf(f, buffer, _IOFBF, sizeof(buffer)); /* else stdio quietly does without one */
        r = f ? out_print(whole, f, (enum out_form)form, false) : -ENOMEM;
        if (f)
            fclose(f);
        out_free(whole);
    }
    return r;
}

TEST(output_without_memory_is_an_error_and_loses_none)
{
    with_every_failure(print_table, 0);
}
#endif
