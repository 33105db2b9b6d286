/* SPDX-License-Identifier: Apache-2.0 */
#include "base/text.h"

#include <ctype.h>
#include <errno.h>
#include <stdarg.h>
#include <stdio.h>

#include "base/cleanup.h"

void buf_fini(struct buf *b)
{
    free(b->p);
    *b = (struct buf){0};
}

int buf_reserve(struct buf *b, size_t extra)
{
    size_t need;
    if (__builtin_add_overflow(b->n, extra, &need))
        return -ENOMEM;
    if (need <= b->room)
        return 0;
    size_t room = max(b->room * 2, (size_t)256);
    room = max(room, need);
    uint8_t *p = realloc(b->p, room);
    if (!p)
        return -ENOMEM;
    b->p = p;
    b->room = room;
    return 0;
}

int buf_append(struct buf *b, const void *p, size_t n)
{
    int r = buf_reserve(b, n);
    if (r < 0)
        return r;
    if (n)
        memcpy(b->p + b->n, p, n);
    b->n += n;
    return 0;
}

int buf_printf(struct buf *b, const char *format, ...)
{
    va_list args;
    va_start(args, format);
    int n = vsnprintf(NULL, 0, format, args);
    va_end(args);
    if (n < 0)
        return -EINVAL;
    int r = buf_reserve(b, (size_t)n + 1);
    if (r < 0)
        return r;
    va_start(args, format);
    vsnprintf((char *)b->p + b->n, (size_t)n + 1, format, args);
    va_end(args);
    b->n += (size_t)n;
    return 0;
}

/* A number with an optional fraction-free unit; the units of a table, case-blind. */
struct unit {
    const char *name;
    uint64_t factor;
};

static int parse_with_units(const char *s, const struct unit *units, size_t n_units, uint64_t *ret)
{
    if (!isdigit((unsigned char)*s))
        return -EINVAL;
    char *end;
    errno = 0;
    unsigned long long value = strtoull(s, &end, 10);
    if (errno)
        return -EINVAL;
    while (*end == ' ')
        end++;
    for (size_t i = 0; i < n_units; i++)
        if (strcasecmp(end, units[i].name) == 0) {
            uint64_t scaled;
            if (__builtin_mul_overflow((uint64_t)value, units[i].factor, &scaled))
                return -EINVAL;
            *ret = scaled;
            return 0;
        }
    return -EINVAL;
}

int parse_size(const char *s, uint64_t *ret)
{
    static const struct unit units[] = {
        // clang-format off
        {"", 1},           {"b", 1},           {"k", 1ull << 10},   {"kb", 1ull << 10}, {"kib", 1ull << 10},
        {"m", 1ull << 20}, {"mb", 1ull << 20}, {"mib", 1ull << 20}, {"g", 1ull << 30},  {"gb", 1ull << 30},
        {"gib", 1ull << 30}, {"t", 1ull << 40}, {"tb", 1ull << 40}, {"tib", 1ull << 40},
        // clang-format on
    };
    return parse_with_units(s, units, array_size(units), ret);
}

int parse_duration_ms(const char *s, uint64_t *ret)
{
    static const struct unit units[] = {
        {"", 1}, {"ms", 1}, {"s", 1000}, {"m", 60000}, {"min", 60000}, {"h", 3600000}, {"d", 86400000},
    };
    return parse_with_units(s, units, array_size(units), ret);
}

char *format_size(uint64_t bytes, char *out, size_t size)
{
    static const char *const names[] = {"B", "KiB", "MiB", "GiB", "TiB", "PiB", "EiB"};
    double value = (double)bytes;
    size_t i = 0;
    while (value >= 1024 && i + 1 < array_size(names)) {
        value /= 1024;
        i++;
    }
    if (i == 0)
        snprintf(out, size, "%llu B", (unsigned long long)bytes);
    else
        snprintf(out, size, value < 10 ? "%.2f %s" : value < 100 ? "%.1f %s" : "%.0f %s", value, names[i]);
    return out;
}
