/* SPDX-License-Identifier: Apache-2.0 */
#include "base/uuid.h"

#include <errno.h>

#include "base/cleanup.h"
#include "tests/unit/unit.h"

TEST(uuid_is_written_and_read_back)
{
    char s[UUID_STRING];
    struct uuid u = uuid_new(), v;
    ck_assert_int_eq(uuid_parse(uuid_format(u, s), &v), 0);
    ck_assert(uuid_equal(u, v));
    ck_assert_uint_eq(strlen(s), UUID_STRING - 1);
    ck_assert_int_eq(s[14], '4');
    ck_assert_int_eq(uuid_parse("0F8FAD5B-d9cb-469f-a165-70867728950e", &v), 0);
    ck_assert_str_eq(uuid_format(v, s), "0f8fad5b-d9cb-469f-a165-70867728950e");
}

TEST(uuid_refuses_what_is_none)
{
    struct uuid u;
    const char *bad[] = {"",
                         "0f8fad5b",
                         "0f8fad5b-d9cb-469f-a165-70867728950",
                         "0f8fad5b-d9cb-469f-a165-70867728950e0",
                         "0f8fad5bxd9cb-469f-a165-70867728950e",
                         "0f8fad5b-d9cb-469f-a165-7086772895zz"};
    for (size_t i = 0; i < array_size(bad); i++)
        ck_assert_int_eq(uuid_parse(bad[i], &u), -EINVAL);
    ck_assert(uuid_is_none(uuid_from_bytes(TEXT("short"))));
    ck_assert(!uuid_equal(uuid_new(), uuid_new()));
}
