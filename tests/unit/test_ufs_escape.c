/* SPDX-License-Identifier: Apache-2.0 */
#include "tests/unit/unit.h"

#include <errno.h>
#include <stdio.h>

#include "base/random.h"
#include "ufs/ufs_escape.h"

static void expect(const char *key, bool beside, const char *path)
{
    struct buf p = {0}, k = {0};
    ck_assert_int_eq(ufs_key_to_path(text_of(key), beside, &p), 0);
    ck_assert_msg(p.n == strlen(path) && memcmp(p.p, path, p.n) == 0, "'%s' became '%.*s', expected '%s'", key,
                  (int)p.n, (char *)p.p, path);
    ck_assert_int_eq(ufs_path_to_key((struct text){(char *)p.p, (uint32_t)p.n}, &k), 0);
    ck_assert_msg(k.n == strlen(key) && memcmp(k.p, key, k.n) == 0, "'%s' came back as '%.*s'", key, (int)k.n,
                  (char *)k.p);
    buf_fini(&p);
    buf_fini(&k);
}

TEST(plain_keys_stay_as_they_are)
{
    expect("a", false, "a");
    expect("a/b c/ü%20", false, "a/b c/ü%20");
    expect("...", false, "...");
    expect("%", false, "%");
}

TEST(keys_that_are_no_names_are_escaped)
{
    expect("a//b", false, "a/%~/b");
    expect("/", false, "%~/%~");
    expect("a/", false, "a/%~");
    expect("./..", false, "%~./%~..");
    expect("%~", false, "%~%%~");
    expect("%~>x/y", false, "%~%%~>x/y");
    expect("d/a", true, "d/%~=a");
    expect("d/..", true, "d/%~=%~..");
}

TEST(long_components_become_directories)
{
    char key[1200], path[1400];
    for (int n = 250; n < 1000; n += 7) {
        memset(key, 'k', (size_t)n);
        key[n] = '\0';
        struct buf p = {0}, k = {0};
        ck_assert_int_eq(ufs_key_to_path(text_of(key), n & 1, &p), 0);
        uint32_t component = 0;
        for (size_t i = 0; i < p.n; i++) {
            component = p.p[i] == '/' ? 0 : component + 1;
            ck_assert_uint_le(component, 255);
        }
        ck_assert_int_eq(ufs_path_to_key((struct text){(char *)p.p, (uint32_t)p.n}, &k), 0);
        ck_assert_uint_eq(k.n, (size_t)n);
        buf_fini(&p);
        buf_fini(&k);
    }
    snprintf(path, sizeof(path), "%%~>short/x");
    struct buf k = {0};
    ck_assert_int_eq(ufs_path_to_key(text_of(path), &k), -EINVAL);
    buf_fini(&k);
}

TEST(malformed_names_have_no_key)
{
    static const char *const bad[] = {"%~x", "a//b", "%~=", "%~=a/b", "", "/", "%~%a"};
    for (size_t i = 0; i < sizeof(bad) / sizeof(*bad); i++) {
        struct buf k = {0};
        ck_assert_msg(ufs_path_to_key(text_of(bad[i]), &k) == -EINVAL, "'%s' was accepted", bad[i]);
        buf_fini(&k);
    }
}

/* Every key comes back, and two keys never share a path. */
TEST(random_keys_come_back)
{
    static const char *const parts[] = {"", ".", "..", "%~", "%", "~", ">", "=", "/", "a", "b%~", "%~="};
    struct prng p = {3};
    for (int i = 0; i < 200000; i++) {
        char key[64] = "";
        int n = 1 + (int)prng_below(&p, 6);
        for (int k = 0; k < n; k++)
            strcat(key, parts[prng_below(&p, 12)]);
        if (!*key)
            continue;
        bool beside = prng_below(&p, 4) == 0 && key[strlen(key) - 1] != '/';
        struct buf path = {0}, back = {0};
        ck_assert_int_eq(ufs_key_to_path(text_of(key), beside, &path), 0);
        ck_assert_int_eq(ufs_path_to_key((struct text){(char *)path.p, (uint32_t)path.n}, &back), 0);
        ck_assert_msg(back.n == strlen(key) && memcmp(back.p, key, back.n) == 0, "'%s' -> '%.*s' -> '%.*s'", key,
                      (int)path.n, (char *)path.p, (int)back.n, (char *)back.p);
        buf_fini(&path);
        buf_fini(&back);
    }
}
