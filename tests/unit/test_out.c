/* SPDX-License-Identifier: Apache-2.0 */
#include "tests/unit/unit.h"

#include <errno.h>
#include <locale.h>

#include "cli/out.h"

static const struct out_column columns[] = {
    {"name", OUT_TEXT},
    {"used_bytes", OUT_SIZE},
    {"inode", OUT_NUMBER, .wide = true},
    {"modified", OUT_TIME},
};

static struct out *example(void)
{
    struct out *o = out_table(columns, array_size(columns));
    out_text(o, "a");
    out_number(o, 1536);
    out_number(o, 42);
    out_number(o, 1767225600000000001ull); /* 2026-01-01 */
    out_text(o, "long name");
    out_number(o, 7);
    out_number(o, 1ull << 40);
    out_text(o, NULL);
    return o;
}

/* What is printed; static storage. Frees o. */
static const char *printed(struct out *o, enum out_form form, bool colour)
{
    static char text[4096];
    memset(text, 0, sizeof(text));
    FILE *f = fmemopen(text, sizeof(text) - 1, "we");
    ck_assert_int_eq(out_print(o, f, form, colour), 0);
    fclose(f);
    out_free(o);
    return text;
}

TEST(a_table_is_aligned_with_human_sizes_and_times)
{
    setenv("TZ", "UTC", 1);
    ck_assert_str_eq(printed(example(), OUT_TABLE, false), "NAME       USED BYTES  MODIFIED\n"
                                                           "a            1.50 KiB  2026-01-01 00:00:00\n"
                                                           "long name         7 B  -\n");
    ck_assert_str_eq(printed(example(), OUT_WIDE, false), "NAME       USED BYTES          INODE  MODIFIED\n"
                                                          "a            1.50 KiB             42  2026-01-01 00:00:00\n"
                                                          "long name         7 B  1099511627776  -\n");
}

TEST(times_before_1970_are_times)
{
    static const struct out_column when[] = {{"when", OUT_TIME}};
    setenv("TZ", "UTC", 1);
    struct out *o = out_table(when, 1), *p = out_table(when, 1);
    out_number(o, (uint64_t)-1500000000ll);
    out_number(p, (uint64_t)-1500000000ll);
    ck_assert_str_eq(printed(o, OUT_TABLE, false), "WHEN\n1969-12-31 23:59:58\n");
    ck_assert_str_eq(printed(p, OUT_AS_YAML, false), "- when: \"1969-12-31T23:59:58.500000000Z\"\n");
}

TEST(json_and_yaml_are_exact)
{
    ck_assert_str_eq(printed(example(), OUT_AS_JSON, true), "[\n"
                                                            "  {\n"
                                                            "    \"name\": \"a\",\n"
                                                            "    \"used_bytes\": 1536,\n"
                                                            "    \"inode\": 42,\n"
                                                            "    \"modified\": \"2026-01-01T00:00:00.000000001Z\"\n"
                                                            "  },\n"
                                                            "  {\n"
                                                            "    \"name\": \"long name\",\n"
                                                            "    \"used_bytes\": 7,\n"
                                                            "    \"inode\": 1099511627776,\n"
                                                            "    \"modified\": null\n"
                                                            "  }\n"
                                                            "]\n");
    ck_assert_str_eq(printed(example(), OUT_AS_YAML, true), "- name: a\n"
                                                            "  used_bytes: 1536\n"
                                                            "  inode: 42\n"
                                                            "  modified: \"2026-01-01T00:00:00.000000001Z\"\n"
                                                            "- name: \"long name\"\n"
                                                            "  used_bytes: 7\n"
                                                            "  inode: 1099511627776\n"
                                                            "  modified: null\n");
    struct out *empty = out_table(columns, array_size(columns));
    ck_assert_str_eq(printed(empty, OUT_AS_JSON, false), "[]\n");
    ck_assert_str_eq(printed(out_table(columns, array_size(columns)), OUT_AS_YAML, false), "[]\n");
}

TEST(records_nest_tables)
{
    static const struct out_column fields[] = {{"cluster", OUT_TEXT}, {"up_ms", OUT_DURATION}, {"good", OUT_BOOL}};
    static const struct out_column members[] = {{"id", OUT_NUMBER}, {"tags", OUT_JSON}};
    for (int form = OUT_TABLE; form <= OUT_AS_YAML; form++) {
        struct out *o = out_record(fields, array_size(fields)), *t = out_table(members, array_size(members));
        out_text(o, "yes");
        out_number(o, 90000);
        out_number(o, 1);
        out_number(t, 1);
        out_json(t, "a b", json_pack("[ss]", "a", "b"));
        out_number(t, 2);
        out_json(t, "", json_array());
        out_nest(o, "all_members", t);
        const char *said = printed(o, (enum out_form)form, false);
        if (form == OUT_TABLE)
            ck_assert_str_eq(said, "cluster  yes\n"
                                   "up ms    1m30s\n"
                                   "good     yes\n"
                                   "\n"
                                   "all members\n"
                                   "ID  TAGS\n"
                                   " 1  a b\n"
                                   " 2  \n");
        else if (form == OUT_AS_YAML)
            ck_assert_str_eq(said, "cluster: \"yes\"\n"
                                   "up_ms: 90000\n"
                                   "good: true\n"
                                   "all_members:\n"
                                   "  - id: 1\n"
                                   "    tags:\n"
                                   "      - a\n"
                                   "      - b\n"
                                   "  - id: 2\n"
                                   "    tags: []\n");
    }
}

TEST(terminals_get_no_control_characters_and_json_only_utf8)
{
    static const struct out_column one[] = {{"name", OUT_TEXT}, {"n", OUT_NUMBER}};
    static const char evil[] = "a\033[31mb\n\xff\xc2\x9b\xc3\xa4";
    struct out *o = out_table(one, 2);
    out_text(o, evil);
    out_number(o, 1);
    const char *said = printed(o, OUT_TABLE, false);
    ck_assert_ptr_nonnull(strstr(said, "a\\x1b[31mb\\x0a\\xff\\xc2\\x9b\xc3\xa4"));
    ck_assert_ptr_null(strchr(said, '\033'));
    o = out_table(one, 2);
    out_text(o, evil);
    out_number(o, 1);
    ck_assert_ptr_nonnull(strstr(printed(o, OUT_AS_JSON, false), "\"a\\u001B[31mb\\n\xef\xbf\xbd\xc2\x9b\xc3\xa4\""));
}

TEST(wide_characters_are_aligned_by_the_columns_they_use)
{
    if (!setlocale(LC_CTYPE, "C.UTF-8"))
        return;
    static const struct out_column two[] = {{"n", OUT_TEXT}, {"m", OUT_TEXT}};
    struct out *o = out_table(two, 2);
    out_text(o, "\xe6\x96\x87"); /* one character, two columns */
    out_text(o, "x");
    out_text(o, "\xc3\xa4");
    out_text(o, "y");
    ck_assert_str_eq(printed(o, OUT_TABLE, false), "N   M\n\xe6\x96\x87  x\n\xc3\xa4   y\n");
}

TEST(colours_are_only_where_they_are_wanted)
{
    static const struct out_column one[] = {{"state", OUT_TEXT}};
    for (int colour = 0; colour < 2; colour++) {
        struct out *o = out_table(one, 1);
        out_text(o, "down");
        out_colour(o, OUT_BAD);
        ck_assert_str_eq(printed(o, OUT_TABLE, colour),
                         colour ? "\033[1mSTATE\033[0m\n\033[31mdown\033[0m\n" : "STATE\ndown\n");
    }
}

TEST(durations_use_two_units_at_most)
{
    static const struct {
        uint64_t ms;
        const char *text;
    } cases[] = {
        {0, "0ms"},       {999, "999ms"},  {3000, "3s"},      {3250, "3s"},
        {90000, "1m30s"}, {3600000, "1h"}, {3661000, "1h1m"}, {86400000ull * 3 + 3600000 * 4, "3d4h"},
    };
    for (size_t i = 0; i < array_size(cases); i++) {
        char text[32];
        ck_assert_str_eq(out_format_duration(cases[i].ms, text, sizeof(text)), cases[i].text);
    }
}

TEST(a_stream_that_is_full_is_an_error)
{
    FILE *f = fopen("/dev/full", "we");
    struct out *o = example();
    ck_assert_int_eq(out_print(o, f, OUT_TABLE, false), -ENOSPC);
    out_free(o);
    fclose(f);
    ck_assert_int_eq(out_print(NULL, stdout, OUT_TABLE, false), -ENOMEM);
}
