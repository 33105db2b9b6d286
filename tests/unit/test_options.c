/* SPDX-License-Identifier: Apache-2.0 */
#include "tests/unit/unit.h"

#include <stdio.h>

#include "base/error.h"
#include "bin/sections.h"
#include "conf/config.h"
#include "conf/nearest.h"
#include "conf/options_doc.h"

enum fruit { FRUIT_APPLE = 3, FRUIT_RED_PEAR = 7 };

#define OPTIONS_DEF "tests/unit/test_options.def"
struct fake_options {
#include "conf/option_fields.h"
};

#define OPTIONS_DEF    "tests/unit/test_options.def"
#define OPTIONS_STRUCT struct fake_options
static const struct option_def rows[] = {
#include "conf/option_rows.h"
};

static int check_fake(const void *options, char *why, size_t why_size)
{
    const struct fake_options *o = options;
    if (o->count > o->total) {
        snprintf(why, why_size, "count must not exceed total");
        return -CV_CONFIG_BAD;
    }
    return 0;
}

static const struct option_section fake_section = {
    OPTION_SECTION("fake", "a section for tests", struct fake_options, rows),
    .check = check_fake,
};
static const struct option_section *const fake_sections[] = {&fake_section, &log_section, NULL};

static struct config *fresh(void)
{
    struct config *c;
    ck_assert_int_eq(config_new(fake_sections, &c), 0);
    return c;
}

static int load(struct config *c, const char *yaml)
{
    return config_load_text(c, "f.yaml", yaml, strlen(yaml));
}

/* What is said about this file; static storage. */
static const char *refused(const char *yaml)
{
    static char said[4096];
    struct config *c = fresh();
    ck_assert_int_eq(load(c, yaml), -CV_CONFIG_BAD);
    snprintf(said, sizeof(said), "%s", config_errors(c));
    config_free(c);
    return said;
}

TEST(options_have_the_defaults_of_their_rows)
{
    struct config *c cleanup(config_free_p) = fresh();
    const struct fake_options *o = config_options(c, fake);
    ck_assert(o->on);
    ck_assert_uint_eq(o->count, 5);
    ck_assert_uint_eq(o->total, 200000);
    ck_assert_uint_eq(o->room_bytes, 64ull << 20);
    ck_assert_uint_eq(o->wait_ms, 3000);
    ck_assert_str_eq(o->name, "nobody");
    ck_assert_uint_eq(o->hosts.n, 2);
    ck_assert_str_eq(o->hosts.items[1], "b:2");
    ck_assert_int_eq(o->fruit, FRUIT_RED_PEAR);
    ck_assert_str_eq(config_origin(c, (struct option_ref){&fake_section, &rows[0]}), "default");
    ck_assert_str_eq(config_errors(c), "");
}

TEST(a_file_fills_typed_fields_and_later_layers_win)
{
    struct config *c cleanup(config_free_p) = fresh();
    ck_assert_int_eq(load(c, "fake:\n  on: no\n  count: 7\n  room_bytes: 1GiB\n  wait_ms: 5m\n  name: 'x y'\n"
                             "  hosts: [one, two, three]\n  fruit: apple\nlog:\n  level: debug\n"),
                     0);
    const struct fake_options *o = config_options(c, fake);
    ck_assert(!o->on);
    ck_assert_uint_eq(o->count, 7);
    ck_assert_uint_eq(o->room_bytes, 1ull << 30);
    ck_assert_uint_eq(o->wait_ms, 300000);
    ck_assert_str_eq(o->name, "x y");
    ck_assert_uint_eq(o->hosts.n, 3);
    ck_assert_int_eq(o->fruit, FRUIT_APPLE);
    ck_assert_int_eq(config_options(c, log)->level, LOG_LEVEL_DEBUG);

    ck_assert_int_eq(config_set(c, "fake.count=9"), 0);
    ck_assert_int_eq(config_set(c, "fake.hosts=p, q"), 0);
    ck_assert_uint_eq(o->count, 9);
    ck_assert_uint_eq(o->hosts.n, 2);
    ck_assert_str_eq(o->hosts.items[1], "q");
    struct option_ref ref;
    char why[OPTION_MESSAGE_MAX];
    ck_assert_int_eq(config_find(fake_sections, TEXT("fake"), TEXT("count"), &ref, why), 0);
    ck_assert_str_eq(config_origin(c, ref), "--set");
    ck_assert_int_eq(config_find(fake_sections, TEXT("fake"), TEXT("name"), &ref, why), 0);
    ck_assert_str_eq(config_origin(c, ref), "f.yaml:6");
}

TEST(an_empty_file_and_empty_sections_are_all_defaults)
{
    struct config *c cleanup(config_free_p) = fresh();
    ck_assert_int_eq(load(c, ""), 0);
    ck_assert_int_eq(load(c, "# nothing\n"), 0);
    ck_assert_int_eq(load(c, "---\n"), 0);
    ck_assert_int_eq(load(c, "fake:\nlog: {}\n"), 0);
}

TEST(unknown_names_are_refused_with_line_and_suggestion)
{
    ck_assert_str_eq(refused("log:\n  level: info\nfkae:\n  count: 1\n"),
                     "f.yaml:3: fkae: unknown section, did you mean 'fake'?\n");
    ck_assert_str_eq(refused("fake:\n\n  cuont: 1\n"), "f.yaml:3: fake.cuont: unknown key, did you mean 'count'?\n");
    ck_assert_str_eq(refused("fake:\n  zzzzz: 1\n"), "f.yaml:2: fake.zzzzz: unknown key\n");
    ck_assert_str_eq(refused("fake:\n  level: info\n"),
                     "f.yaml:2: fake.level: unknown key, it belongs to section 'log'\n");
}

TEST(bad_values_are_refused_with_what_is_allowed)
{
    ck_assert_str_eq(refused("fake:\n  count: 0\n"),
                     "f.yaml:2: fake.count: '0' is not allowed: a number, from 1 to 10 (default 5)\n");
    ck_assert_str_eq(refused("fake:\n  wait_ms: 2h\n"),
                     "f.yaml:2: fake.wait_ms: '2h' is not allowed: a duration such as 100ms, 3s, 5m, 2h, 7d, "
                     "from 100ms to 1h (default 3s)\n");
    ck_assert_str_eq(refused("fake:\n  fruit: plum\n"),
                     "f.yaml:2: fake.fruit: 'plum' is not allowed: one of apple, red-pear (default red-pear)\n");
    static const char *const bad[] = {
        "count: -1",      "count: +1",     "count: 1.5", "count: ' 1'",     "count: 99999999999999999999",
        "room_bytes: 1X", "on: maybe",     "name: ''",   "name: \"a\\nb\"", "hosts: []",
        "hosts: [a, '']", "hosts: 'a,,b'", "total: ''",  "wait_ms: s",      "total: 0x10",
    };
    for (size_t i = 0; i < array_size(bad); i++) {
        char yaml[128];
        snprintf(yaml, sizeof(yaml), "fake:\n  %s\n", bad[i]);
        ck_assert_msg(strstr(refused(yaml), "is not allowed"), "%s: %s", bad[i], refused(yaml));
    }
}

TEST(files_of_another_shape_are_refused)
{
    static const struct {
        const char *yaml, *said;
    } bad[] = {
        {"fake:\n  count: 1\n  count: 2\n", "f.yaml:3: fake.count: given twice, first on line 2"},
        {"fake:\n  count: 1\nfake:\n  total: 2\n", "f.yaml:3: fake: given twice, first on line 1"},
        {"fake:\n  count:\n", "f.yaml:2: fake.count: no value"},
        {"fake:\n  count: [1]\n", "f.yaml:2: fake.count: a list where one number is expected"},
        {"fake:\n  count: {a: b}\n", "f.yaml:2: fake.count: a mapping where one number is expected"},
        {"fake:\n  hosts: [[a]]\n", "f.yaml:2: fake.hosts: an item must be plain text"},
        {"fake: 5\n", "f.yaml:1: fake: a section is a mapping"},
        {"- fake\n", "f.yaml:1: expected sections"},
        {"fake\n", "f.yaml:1: expected sections"},
        {"fake:\n  count: 1\n---\nfake:\n", "f.yaml:3: a second YAML document"},
        {"fake:\n  name: &a x\n  hosts: *a\n", "aliases are not supported"},
        {"fake:\n  ? [a]\n  : b\n", "f.yaml:2: fake: a key must be plain text"},
        {"? [a]\n: b\n", "the name of a section must be plain text"},
        {"fake:\n  name: \"a\\0b\"\n", "zero byte"},
        {"fake:\n  name: 'x\n", "not valid YAML"},
        {"fake:\n\tname: x\n", "f.yaml:2: not valid YAML"},
        {"fake: \xff\xfe\n", "not valid YAML"},
    };
    for (size_t i = 0; i < array_size(bad); i++)
        ck_assert_msg(strstr(refused(bad[i].yaml), bad[i].said), "%s: %s", bad[i].yaml, refused(bad[i].yaml));
}

TEST(all_mistakes_of_a_file_are_reported_at_once_and_bounded)
{
    ck_assert_str_eq(refused("fake:\n  cuont: {a: [b, {c: d}]}\n  count: 77\n  name: x\nlgo:\n  a: b\n"),
                     "f.yaml:2: fake.cuont: unknown key, did you mean 'count'?\n"
                     "f.yaml:3: fake.count: '77' is not allowed: a number, from 1 to 10 (default 5)\n"
                     "f.yaml:5: lgo: unknown section, did you mean 'log'?\n");
    char yaml[4096] = "fake:\n";
    for (int i = 0; i < CONFIG_ERRORS_MAX + 7; i++)
        snprintf(yaml + strlen(yaml), sizeof(yaml) - strlen(yaml), "  zz%d: 1\n", i);
    ck_assert_ptr_nonnull(strstr(refused(yaml), "and 7 more\n"));
}

TEST(a_refused_value_leaves_the_old_one)
{
    struct config *c cleanup(config_free_p) = fresh();
    ck_assert_int_eq(config_set(c, "fake.name=somebody"), 0);
    ck_assert_int_eq(config_set(c, "fake.name="), -CV_CONFIG_BAD);
    static const char *const no_line[] = {"\n",     "\x7f",   "\xff",         "\xc2\x85",
                                          "\u2028", "\ufeff", "\xef\xbf\xbf", "\xed\xa0\x80"};
    for (size_t i = 0; i < array_size(no_line); i++) {
        char set[32];
        snprintf(set, sizeof(set), "fake.name=a%sb", no_line[i]);
        ck_assert_msg(config_set(c, set) == -CV_CONFIG_BAD, "%zu", i);
    }
    ck_assert_int_eq(config_set(c, "fake.count"), -CV_CONFIG_BAD);
    ck_assert_int_eq(config_set(c, "count=1"), -CV_CONFIG_BAD);
    ck_assert_int_eq(config_set(c, "fake.cuont=1"), -CV_CONFIG_BAD);
    ck_assert_str_eq(config_options(c, fake)->name, "somebody");
}

TEST(options_that_depend_on_each_other_are_checked_together)
{
    struct config *c cleanup(config_free_p) = fresh();
    ck_assert_int_eq(config_check(c), 0);
    ck_assert_int_eq(config_set(c, "fake.total=2"), 0);
    ck_assert_int_eq(config_check(c), -CV_CONFIG_BAD);
    ck_assert_str_eq(config_errors(c), "fake: count must not exceed total\n");
}

static void collect(void *arg, struct option_ref ref)
{
    struct buf *b = arg;
    ck_assert_int_eq(buf_printf(b, "%s.%s%s ", ref.section->name, ref.option->name, ref.option->live ? "!" : ""), 0);
}

TEST(a_diff_names_what_changed_and_what_a_reload_is_enough_for)
{
    struct config *a cleanup(config_free_p) = fresh(), *b cleanup(config_free_p) = fresh();
    ck_assert_int_eq(load(b, "fake:\n  name: nobody\n  hosts: [a:1]\n  rate: 9\nlog: {level: warn}\n"), 0);
    struct buf said cleanup(buf_fini) = {0};
    config_diff(a, b, collect, &said);
    ck_assert_int_eq(buf_append(&said, "", 1), 0);
    ck_assert_str_eq((char *)said.p, "fake.hosts fake.rate! log.level! ");
}

TEST(unreadable_files_are_refused_with_their_name)
{
    struct config *c cleanup(config_free_p) = fresh();
    ck_assert_int_eq(config_load(c, unit_tempdir()), -CV_CONFIG_BAD);
    ck_assert_int_eq(config_load(c, "/nowhere/f.yaml"), -CV_CONFIG_BAD);
    ck_assert_ptr_nonnull(strstr(config_errors(c), "/nowhere/f.yaml: No such file or directory\n"));
}

/* Every row of every real table: its default is in its range, and is written so that it reads back. */
TEST(all_tables_hold_their_own_defaults)
{
    struct config *a, *b;
    ck_assert_int_eq(config_new(curvine_sections, &a), 0);
    ck_assert_int_eq(config_new(curvine_sections, &b), 0);
    ck_assert_int_eq(config_check(a), 0);
    for (size_t i = 0; curvine_sections[i]; i++)
        for (uint32_t j = 0; j < curvine_sections[i]->n; j++) {
            const struct option_def *o = &curvine_sections[i]->options[j];
            ck_assert_msg(!strchr(o->help, '\n') && o->help[strlen(o->help) - 1] != '.', "%s", o->name);
            ck_assert_ptr_eq(option_find(curvine_sections[i], text_of(o->name)), o); /* no name twice */
        }
    config_free(a);
    config_free(b);
}

TEST(the_sample_file_without_its_comment_signs_is_all_defaults)
{
    struct buf sample cleanup(buf_fini) = {0};
    ck_assert_int_eq(options_sample(curvine_sections, &sample), 0);
    struct config *a cleanup(config_free_p) = NULL, *b cleanup(config_free_p) = NULL;
    ck_assert_int_eq(config_new(curvine_sections, &a), 0);
    ck_assert_int_eq(config_new(curvine_sections, &b), 0);
    ck_assert_int_eq(config_load_text(b, "as is", (char *)sample.p, sample.n), 0);
    for (size_t i = 0; i + 1 < sample.n; i++)
        if (sample.p[i] == '#' && sample.p[i + 1] != ' ')
            sample.p[i] = ' ';
    for (size_t i = 0; i + 3 < sample.n; i++) /* "   key" back to "  key" */
        if (memcmp(&sample.p[i], "\n   ", 4) == 0)
            memmove(&sample.p[i + 1], &sample.p[i + 2], sample.n-- - i - 2);
    int r = config_load_text(b, "sample", (char *)sample.p, sample.n);
    ck_assert_msg(r == 0, "%s", config_errors(b));
    struct buf said cleanup(buf_fini) = {0};
    config_diff(a, b, collect, &said);
    ck_assert_uint_eq(said.n, 0);
    /* And it did set them: each has an origin in the file. */
    for (size_t i = 0; curvine_sections[i]; i++)
        for (uint32_t j = 0; j < curvine_sections[i]->n; j++) {
            struct option_ref ref = {curvine_sections[i], &curvine_sections[i]->options[j]};
            ck_assert_msg(strstr(config_origin(b, ref), "sample:"), "%s.%s", ref.section->name, ref.option->name);
        }
}

TEST(explain_says_type_range_default_and_how_to_change)
{
    struct option_ref ref;
    char why[OPTION_MESSAGE_MAX];
    struct buf said cleanup(buf_fini) = {0};
    ck_assert_int_eq(config_find(fake_sections, TEXT("fake"), TEXT("rate"), &ref, why), 0);
    ck_assert_int_eq(options_explain(ref, &said), 0);
    ck_assert_int_eq(buf_append(&said, "", 1), 0);
    ck_assert_str_eq((char *)said.p, "fake.rate: things a second\n"
                                     "  type        number\n"
                                     "  allowed     a number, at least 1\n"
                                     "  default     8\n"
                                     "  to change   reload (SIGHUP)\n");
}

TEST(nearest_finds_slips_and_beginnings_but_not_strangers)
{
    static const char *const words[] = {"status", "stat", "list", "heartbeat_ms"};
    static const struct {
        const char *typed, *found;
    } cases[] = {
        {"staus", "status"},
        {"sttaus", "status"},
        {"LIST", "list"},
        {"heart", "heartbeat_ms"},
        {"hartbeat_ms", "heartbeat_ms"},
        {"xyz", NULL},
        {"", NULL},
        {"l", NULL},
    };
    for (size_t i = 0; i < array_size(cases); i++) {
        struct nearest n = {.wanted = text_of(cases[i].typed)};
        for (size_t j = 0; j < array_size(words); j++)
            nearest_offer(&n, words[j]);
        ck_assert_msg(cases[i].found ? n.word && strcmp(n.word, cases[i].found) == 0 : !n.word, "%s: %s",
                      cases[i].typed, n.word ? n.word : "nothing");
    }
}
