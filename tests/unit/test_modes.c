/* SPDX-License-Identifier: Apache-2.0 */
#include "tests/unit/unit.h"

#include <errno.h>
#include <sys/stat.h>

#include "cli/modes.h"

static void expect(const char *text, uint32_t mode, uint32_t result)
{
    uint32_t got = 0;
    ck_assert_msg(mode_parse(text, mode, 022, &got) == 0 && got == result, "'%s' on %o: %o, expected %o", text, mode,
                  got, result);
}

TEST(modes_are_read_as_chmod_reads_them)
{
    expect("644", S_IFREG, 0644);
    expect("1777", S_IFDIR, 01777);
    expect("u+x", S_IFREG | 0644, 0744);
    expect("go-rx", S_IFREG | 0755, 0700);
    expect("a=rX", S_IFDIR | 0700, 0555);
    expect("a=rX", S_IFREG | 0600, 0444);
    expect("u=rwx,g=rx,o=", S_IFREG | 0666, 0750);
    expect("+x", S_IFREG | 0644, 0755);
    expect("g+s,+t", S_IFDIR | 0755, 03755);
    expect("u+x-r", S_IFREG | 0600, 0300);
}

TEST(what_is_no_mode_is_refused)
{
    static const char *const bad[] = {"", "8", "77777", "u", "u+q", "u+x,", "=x,,", "rwx", "64x"};
    for (size_t i = 0; i < sizeof(bad) / sizeof(*bad); i++) {
        uint32_t got;
        ck_assert_msg(mode_parse(bad[i], 0644, 022, &got) == -EINVAL, "'%s' was accepted", bad[i]);
    }
}

TEST(modes_print_as_ls_prints_them)
{
    char s[11];
    ck_assert_str_eq(mode_format(S_IFDIR | 01777, s), "drwxrwxrwt");
    ck_assert_str_eq(mode_format(S_IFREG | 04644, s), "-rwSr--r--");
    ck_assert_str_eq(mode_format(S_IFLNK | 0777, s), "lrwxrwxrwx");
}

TEST(owners_are_names_or_numbers)
{
    uint32_t uid, gid;
    char why[160];
    ck_assert_int_eq(owner_parse("0:5", &uid, &gid, why, sizeof(why)), 0);
    ck_assert_uint_eq(uid, 0);
    ck_assert_uint_eq(gid, 5);
    ck_assert_int_eq(owner_parse(":7", &uid, &gid, why, sizeof(why)), 0);
    ck_assert_uint_eq(uid, UINT32_MAX);
    ck_assert_int_eq(owner_parse("root", &uid, &gid, why, sizeof(why)), 0);
    ck_assert_uint_eq(uid, 0);
    ck_assert_int_eq(owner_parse("no such user", &uid, &gid, why, sizeof(why)), -EINVAL);
    ck_assert_int_eq(owner_parse(":", &uid, &gid, why, sizeof(why)), -EINVAL);
}
