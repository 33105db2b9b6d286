/* SPDX-License-Identifier: Apache-2.0 */
/*
 * One option: parse, check, write out. Numbers of all kinds pass through uint64_t; only load() and store() know how
 * wide a field is. Enum choices are the table's constants without the prefix they share: of LOG_LEVEL_WARN and
 * LOG_LEVEL_INFO "warn" and "info" is left.
 */
#include "conf/options.h"

#include <assert.h>
#include <ctype.h>
#include <errno.h>
#include <inttypes.h>
#include <stdio.h>
#include <strings.h>

#include "base/cleanup.h"
#include "conf/json.h"

static const struct {
    const char *name, *example; /* as documentation and messages say it */
} types[] = {
    [OPTION_BOOL] = {"bool", "true or false"},
    [OPTION_U32] = {"number", "a number"},
    [OPTION_U64] = {"number", "a number"},
    [OPTION_SIZE] = {"size", "a size such as 4096, 64KiB, 10GiB"},
    [OPTION_DURATION] = {"duration", "a duration such as 100ms, 3s, 5m, 2h, 7d"},
    [OPTION_TEXT] = {"text", "text"},
    [OPTION_LIST] = {"list", "a list such as [a, b]"},
    [OPTION_ENUM] = {"choice", "one of"},
};

const char *option_type_name(enum option_type type)
{
    return types[type].name;
}

static void *field(const struct option_def *o, const void *options)
{
    return (char *)(uintptr_t)options + o->offset;
}

static bool is_number(const struct option_def *o)
{
    return o->type != OPTION_TEXT && o->type != OPTION_LIST;
}

static uint64_t load(const struct option_def *o, const void *options)
{
    const void *p = field(o, options);
    switch (o->type) {
    case OPTION_BOOL: return *(const bool *)p;
    case OPTION_U32:
    case OPTION_ENUM: return *(const uint32_t *)p;
    default: return *(const uint64_t *)p;
    }
}

static void store(const struct option_def *o, void *options, uint64_t value)
{
    void *p = field(o, options);
    switch (o->type) {
    case OPTION_BOOL: *(bool *)p = value; break;
    case OPTION_U32:
    case OPTION_ENUM: *(uint32_t *)p = (uint32_t)value; break;
    default: *(uint64_t *)p = value; break;
    }
}

/* Step through "(ACK_QUORUM, ACK_LOCAL)": the next constant, false behind the last. */
static bool next_constant(const char **at, struct text *ret)
{
    const char *p = *at + strspn(*at, "(, ");
    if (!*p || *p == ')')
        return false;
    *ret = (struct text){p, (uint32_t)strcspn(p, ",) ")};
    *at = p + ret->n;
    return true;
}

/* Length of what all constants of the list begin with, up to an underscore. */
static uint32_t shared_prefix(const char *choices)
{
    struct text first, c;
    if (!next_constant(&choices, &first))
        return 0;
    uint32_t n = first.n;
    while (next_constant(&choices, &c)) {
        uint32_t same = 0;
        while (same < n && same < c.n && c.p[same] == first.p[same])
            same++;
        n = same;
    }
    while (n && first.p[n - 1] != '_')
        n--;
    return n;
}

/* The constant as people write it. */
static void choice_written(struct text constant, uint32_t prefix, char out[OPTION_WRITTEN_MAX])
{
    uint32_t n = min(constant.n - prefix, OPTION_WRITTEN_MAX - 1u);
    for (uint32_t i = 0; i < n; i++) {
        char c = constant.p[prefix + i];
        out[i] = c == '_' ? '-' : (char)tolower((unsigned char)c);
    }
    out[n] = 0;
}

/* Step through the choices as written; *at starts at o->choices. */
static bool next_choice(const struct option_def *o, const char **at, char out[OPTION_WRITTEN_MAX])
{
    struct text constant;
    if (!next_constant(at, &constant))
        return false;
    choice_written(constant, shared_prefix(o->choices), out);
    return true;
}

static int parse_choice(const struct option_def *o, const char *s, uint64_t *ret)
{
    char name[OPTION_WRITTEN_MAX];
    const char *at = o->choices;
    for (int i = 0; next_choice(o, &at, name); i++)
        if (strcasecmp(name, s) == 0) {
            *ret = (uint32_t)o->choice_values[i];
            return 0;
        }
    return -EINVAL;
}

static int parse_bool(const char *s, uint64_t *ret)
{
    static const char *const yes[] = {"true", "yes", "on", "1"}, *const no[] = {"false", "no", "off", "0"};
    for (size_t i = 0; i < array_size(yes); i++) {
        if (strcasecmp(s, yes[i]) == 0 || strcasecmp(s, no[i]) == 0) {
            *ret = strcasecmp(s, yes[i]) == 0;
            return 0;
        }
    }
    return -EINVAL;
}

static int parse_u64(const char *s, uint64_t *ret)
{
    if (!isdigit((unsigned char)*s)) /* strtoull would take spaces and signs */
        return -EINVAL;
    char *end;
    errno = 0;
    unsigned long long value = strtoull(s, &end, 10);
    if (errno || *end)
        return -EINVAL;
    *ret = value;
    return 0;
}

/* Without the range. */
static int parse_number(const struct option_def *o, const char *s, uint64_t *ret)
{
    switch (o->type) {
    case OPTION_BOOL: return parse_bool(s, ret);
    case OPTION_SIZE: return parse_size(s, ret);
    case OPTION_DURATION: return parse_duration_ms(s, ret);
    case OPTION_ENUM: return parse_choice(o, s, ret);
    default: return parse_u64(s, ret);
    }
}

/* The bounds of the table; what a row leaves empty is unbounded. They are code: they parse. */
static void bounds(const struct option_def *o, uint64_t *ret_low, uint64_t *ret_high)
{
    *ret_low = 0;
    *ret_high = o->type == OPTION_U32 ? UINT32_MAX : UINT64_MAX;
    bool count = !is_number(o); /* of bytes or items */
    if (*o->low) {
        int r = count ? parse_u64(o->low, ret_low) : parse_number(o, o->low, ret_low);
        assert(r == 0);
    }
    if (*o->high) {
        int r = count ? parse_u64(o->high, ret_high) : parse_number(o, o->high, ret_high);
        assert(r == 0);
    }
    assert(*ret_low <= *ret_high);
}

static bool in_bounds(const struct option_def *o, uint64_t value)
{
    uint64_t low, high;
    bounds(o, &low, &high);
    return value >= low && value <= high;
}

/* Texts are one line of what YAML can hold in quotes: UTF-8 without control characters (also those from U+0080), line
 * breaks of Unicode, byte order marks. So what is written out can be read back. */
static bool one_line(const char *s)
{
    for (const unsigned char *p = (const unsigned char *)s; *p;) {
        size_t n = utf8_length(p);
        if (n == 0 || *p < 0x20 || *p == 0x7f || (p[0] == 0xc2 && p[1] < 0xa0))
            return false;
        if (n == 3 && (memcmp(p, "\u2028", 3) == 0 || memcmp(p, "\u2029", 3) == 0 || memcmp(p, "\ufeff", 3) == 0 ||
                       (p[0] == 0xef && p[1] == 0xbf && p[2] >= 0xbe)))
            return false;
        p += n;
    }
    return true;
}

static void list_free(struct option_list *l)
{
    for (uint32_t i = 0; i < l->n; i++)
        free(l->items[i]);
    free(l->items);
    *l = (struct option_list){0};
}

int option_set_list(const struct option_def *o, void *options, char *const *items, uint32_t n)
{
    assert(o->type == OPTION_LIST);
    if (!in_bounds(o, n))
        return -EINVAL;
    for (uint32_t i = 0; i < n; i++)
        if (!*items[i] || !one_line(items[i]))
            return -EINVAL;
    struct option_list l cleanup(list_free) = {.items = calloc(n ? n : 1, sizeof(char *))};
    if (!l.items)
        return -ENOMEM;
    for (; l.n < n; l.n++) {
        l.items[l.n] = strdup(items[l.n]);
        if (!l.items[l.n])
            return -ENOMEM;
    }
    struct option_list *to = field(o, options);
    list_free(to);
    *to = l;
    l = (struct option_list){0};
    return 0;
}

/* "a, b" as one text: cut at commas, blanks around the items dropped. */
static int set_list_from_text(const struct option_def *o, void *options, const char *value)
{
    char *copy cleanup(freep) = strdup(value);
    size_t room = strlen(value) / 2 + 1;
    char **items cleanup(freep) = calloc(room, sizeof(*items));
    if (!copy || !items)
        return -ENOMEM;
    uint32_t n = 0;
    if (value[strspn(value, " ")] == 0)
        return option_set_list(o, options, items, 0);
    for (char *rest = copy, *item; (item = strsep(&rest, ","));) {
        item += strspn(item, " ");
        size_t length = strlen(item);
        while (length && item[length - 1] == ' ')
            item[--length] = 0;
        if (!length)
            return -EINVAL;
        items[n++] = item;
    }
    return option_set_list(o, options, items, n);
}

int option_set(const struct option_def *o, void *options, const char *value)
{
    if (is_number(o)) {
        uint64_t number;
        if (parse_number(o, value, &number) < 0)
            return -EINVAL;
        if (o->type != OPTION_BOOL && o->type != OPTION_ENUM && !in_bounds(o, number))
            return -EINVAL;
        store(o, options, number);
        return 0;
    }
    if (o->type == OPTION_LIST)
        return set_list_from_text(o, options, value);
    if (!in_bounds(o, strlen(value)) || !one_line(value))
        return -EINVAL;
    char *copy = strdup(value);
    if (!copy)
        return -ENOMEM;
    char **to = field(o, options);
    free(*to);
    *to = copy;
    return 0;
}

/* The default as a person would write it: the table's token without C's quotes or an enum constant's prefix. */
static void default_written(const struct option_def *o, char *out, size_t size)
{
    const char *at = o->initial;
    if (o->type == OPTION_ENUM) {
        assert(size >= OPTION_WRITTEN_MAX);
        choice_written(text_of(at), shared_prefix(o->choices), out);
        return;
    }
    size_t n = strlen(at);
    if (n >= 2 && at[0] == '"') {
        at++;
        n -= 2;
    }
    assert(n < size);
    memcpy(out, at, n);
    out[n] = 0;
}

int option_set_default(const struct option_def *o, void *options)
{
    char value[512];
    default_written(o, value, sizeof(value));
    int r = option_set(o, options, value);
    assert(r == 0 || r == -ENOMEM);
    return r;
}

void option_clear(const struct option_def *o, void *options)
{
    void *p = field(o, options);
    if (o->type == OPTION_TEXT) {
        free(*(char **)p);
        *(char **)p = NULL;
    } else if (o->type == OPTION_LIST) {
        list_free(p);
    }
}

/* In the largest unit that divides it. */
static int format_in_units(struct buf *out, uint64_t value, const uint64_t *factors, const char *const *names, size_t n)
{
    size_t i = 0;
    while (value && i + 1 < n && value % factors[i + 1] == 0)
        i++;
    return buf_printf(out, "%" PRIu64 "%s", value / factors[i], names[i]);
}

static int format_number(const struct option_def *o, uint64_t value, struct buf *out)
{
    static const uint64_t ms[] = {1, 1000, 60000, 3600000, 86400000};
    static const char *const ms_names[] = {"ms", "s", "m", "h", "d"};
    static const uint64_t bytes[] = {1, 1ull << 10, 1ull << 20, 1ull << 30, 1ull << 40};
    static const char *const bytes_names[] = {"", "KiB", "MiB", "GiB", "TiB"};
    char name[OPTION_WRITTEN_MAX];
    const char *at = o->choices;

    switch (o->type) {
    case OPTION_BOOL: return buf_printf(out, "%s", value ? "true" : "false");
    case OPTION_SIZE: return format_in_units(out, value, bytes, bytes_names, array_size(bytes));
    case OPTION_DURATION: return format_in_units(out, value, ms, ms_names, array_size(ms));
    case OPTION_ENUM:
        for (int i = 0; next_choice(o, &at, name); i++)
            if ((uint32_t)o->choice_values[i] == value)
                return buf_printf(out, "%s", name);
        return buf_printf(out, "?");
    default: return buf_printf(out, "%" PRIu64, value);
    }
}

/* As a YAML scalar: plain where that reads back as the same text, else in double quotes. */
static int format_text(const char *s, struct buf *out)
{
    static const char plain[] = "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789/._-+@%:=";
    assert(s); /* texts are never NULL */
    bool is_plain = *s && s[strspn(s, plain)] == 0 && (isalnum((unsigned char)*s) || *s == '/' || *s == '.') &&
                    s[strlen(s) - 1] != ':';
    if (is_plain)
        return buf_printf(out, "%s", s);
    int r = buf_append(out, "\"", 1);
    for (; r == 0 && *s; s++)
        r = *s == '"' || *s == '\\' ? buf_printf(out, "\\%c", *s) : buf_append(out, s, 1);
    return r < 0 ? r : buf_append(out, "\"", 1);
}

int option_format(const struct option_def *o, const void *options, struct buf *out)
{
    if (is_number(o))
        return format_number(o, load(o, options), out);
    if (o->type == OPTION_TEXT)
        return format_text(*(char *const *)field(o, options), out);
    const struct option_list *l = field(o, options);
    int r = buf_append(out, "[", 1);
    for (uint32_t i = 0; r == 0 && i < l->n; i++) {
        r = buf_printf(out, "%s", i ? ", " : "");
        if (r == 0)
            r = format_text(l->items[i], out);
    }
    return r < 0 ? r : buf_append(out, "]", 1);
}

int option_format_default(const struct option_def *o, struct buf *out)
{
    /* A struct of just this field, wide enough for any type. */
    struct option_def alone = *o;
    struct option_list value = {0};
    alone.offset = 0;
    int r = option_set_default(&alone, &value);
    if (r == 0)
        r = option_format(&alone, &value, out);
    option_clear(&alone, &value);
    return r;
}

int option_allowed(const struct option_def *o, struct buf *out)
{
    int r = buf_printf(out, "%s", types[o->type].example);
    if (o->type == OPTION_BOOL)
        return r;
    if (o->type == OPTION_ENUM) {
        char name[OPTION_WRITTEN_MAX];
        const char *at = o->choices;
        for (int i = 0; r == 0 && next_choice(o, &at, name); i++)
            r = buf_printf(out, "%s %s", i ? "," : "", name);
        return r;
    }
    uint64_t low, high;
    bounds(o, &low, &high);
    const struct option_def count = {.type = OPTION_U64};
    const struct option_def *as = is_number(o) ? o : &count;
    const char *of = o->type == OPTION_TEXT ? " bytes" : o->type == OPTION_LIST ? " items" : "";
    if (r == 0 && *o->low) {
        r = buf_printf(out, *o->high ? ", from " : ", at least ");
        if (r == 0)
            r = format_number(as, low, out);
    }
    if (r == 0 && *o->high) {
        r = buf_printf(out, *o->low ? " to " : ", at most ");
        if (r == 0)
            r = format_number(as, high, out);
    }
    if (r == 0 && (*o->low || *o->high))
        r = buf_printf(out, "%s", of);
    return r;
}

int option_format_json(const struct option_def *o, const void *options, struct buf *out)
{
    if (o->type == OPTION_BOOL)
        return format_number(o, load(o, options), out);
    if (o->type == OPTION_ENUM) {
        int r = buf_append(out, "\"", 1);
        if (r == 0)
            r = format_number(o, load(o, options), out);
        return r < 0 ? r : buf_append(out, "\"", 1);
    }
    if (is_number(o))
        return buf_printf(out, "%" PRIu64, load(o, options));
    if (o->type == OPTION_TEXT)
        return json_write_text(out, *(char *const *)field(o, options));
    const struct option_list *l = field(o, options);
    int r = buf_append(out, "[", 1);
    for (uint32_t i = 0; r == 0 && i < l->n; i++) {
        r = buf_printf(out, "%s", i ? "," : "");
        if (r == 0)
            r = json_write_text(out, l->items[i]);
    }
    return r < 0 ? r : buf_append(out, "]", 1);
}

bool option_equal(const struct option_def *o, const void *a, const void *b)
{
    if (is_number(o))
        return load(o, a) == load(o, b);
    if (o->type == OPTION_TEXT)
        return strcmp(*(char *const *)field(o, a), *(char *const *)field(o, b)) == 0;
    const struct option_list *la = field(o, a), *lb = field(o, b);
    if (la->n != lb->n)
        return false;
    for (uint32_t i = 0; i < la->n; i++)
        if (strcmp(la->items[i], lb->items[i]) != 0)
            return false;
    return true;
}

const struct option_section *option_find_section(const struct option_section *const *sections, struct text name)
{
    for (; *sections; sections++)
        if (text_equal(text_of((*sections)->name), name))
            return *sections;
    return NULL;
}

const struct option_def *option_find(const struct option_section *section, struct text name)
{
    for (uint32_t i = 0; i < section->n; i++)
        if (text_equal(text_of(section->options[i].name), name))
            return &section->options[i];
    return NULL;
}
