/* SPDX-License-Identifier: Apache-2.0 */
#include "conf/json.h"

/* RFC 3629: no overlong forms, no surrogates. */
size_t utf8_length(const unsigned char *p)
{
    if (p[0] < 0x80)
        return 1;
    size_t n = p[0] >= 0xf0 ? 4 : p[0] >= 0xe0 ? 3 : 2;
    if (p[0] < 0xc2 || p[0] > 0xf4)
        return 0;
    unsigned char low = 0x80, high = 0xbf;
    if (p[0] == 0xe0)
        low = 0xa0;
    else if (p[0] == 0xed)
        high = 0x9f;
    else if (p[0] == 0xf0)
        low = 0x90;
    else if (p[0] == 0xf4)
        high = 0x8f;
    for (size_t i = 1; i < n; i++, low = 0x80, high = 0xbf)
        if (p[i] < low || p[i] > high) /* a terminating zero is below low */
            return 0;
    return n;
}

int json_write_text(struct buf *out, const char *s)
{
    int r = buf_append(out, "\"", 1);
    for (const unsigned char *p = (const unsigned char *)s; r == 0 && *p;) {
        size_t n = utf8_length(p);
        if (n == 0)
            r = buf_append(out, "\xef\xbf\xbd", 3);
        else if (*p == '"' || *p == '\\')
            r = buf_printf(out, "\\%c", *p);
        else if (*p < 0x20 || *p == 0x7f)
            r = buf_printf(out, "\\u%04x", *p);
        else
            r = buf_append(out, p, n);
        p += n ? n : 1;
    }
    return r < 0 ? r : buf_append(out, "\"", 1);
}
