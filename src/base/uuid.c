/* SPDX-License-Identifier: Apache-2.0 */
#include "base/uuid.h"

#include <errno.h>
#include <stdio.h>

#include "base/random.h"

struct uuid uuid_new(void)
{
    struct uuid u;
    uint64_t r[2] = {random_u64(), random_u64()};
    memcpy(u.b, r, UUID_SIZE);
    u.b[6] = (uint8_t)(0x40 | (u.b[6] & 0x0f)); /* version 4: random */
    u.b[8] = (uint8_t)(0x80 | (u.b[8] & 0x3f)); /* the variant of RFC 4122 */
    return u;
}

/* Is there a dash before byte i? */
static bool dash_before(int i)
{
    return i == 4 || i == 6 || i == 8 || i == 10;
}

static int hex_digit(char c)
{
    if (c >= '0' && c <= '9')
        return c - '0';
    if (c >= 'a' && c <= 'f')
        return c - 'a' + 10;
    if (c >= 'A' && c <= 'F')
        return c - 'A' + 10;
    return -1;
}

int uuid_parse(const char *s, struct uuid *ret)
{
    struct uuid u;
    for (int i = 0; i < UUID_SIZE; i++) {
        if (dash_before(i) && *s++ != '-')
            return -EINVAL;
        int high = hex_digit(s[0]);
        int low = high < 0 ? -1 : hex_digit(s[1]);
        if (low < 0)
            return -EINVAL;
        u.b[i] = (uint8_t)(high << 4 | low);
        s += 2;
    }
    if (*s)
        return -EINVAL;
    *ret = u;
    return 0;
}

char *uuid_format(struct uuid u, char out[UUID_STRING])
{
    char *p = out;
    for (int i = 0; i < UUID_SIZE; i++)
        p += sprintf(p, dash_before(i) ? "-%02x" : "%02x", u.b[i]);
    return out;
}
