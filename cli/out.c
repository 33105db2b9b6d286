/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Each cell is kept twice: as shown to people and as an exact json value. Tables are printed from the first, json and
 * yaml from the second. YAML is written from the json tree: texts in json's quotes unless they are plain words.
 */
#include "cli/out.h"

#include <assert.h>
#include <ctype.h>
#include <errno.h>
#include <inttypes.h>
#include <string.h>
#include <time.h>
#include <wchar.h>

#include "base/clock.h"
#include "base/text.h"
#include "conf/json.h"

struct cell {
    char *shown;
    json_t *exact;
    enum out_colour colour;
};

struct child {
    const char *name;
    struct out *out;
};

struct out {
    const struct out_column *columns;
    uint32_t n_columns;
    bool record, broken; /* broken: memory ran out; cells are no longer taken, columns would be off */
    struct cell *cells;  /* row by row */
    uint32_t n, room;
    struct child *children;
    uint32_t n_children;
};

int out_form_parse(const char *name, enum out_form *ret)
{
    static const char *const names[] = {"table", "wide", "json", "yaml"};
    for (size_t i = 0; i < array_size(names); i++)
        if (strcmp(names[i], name) == 0) {
            *ret = (enum out_form)i;
            return 0;
        }
    return -EINVAL;
}

struct out *out_table(const struct out_column *columns, uint32_t n)
{
    struct out *o = calloc(1, sizeof(*o));
    if (o) {
        o->columns = columns;
        o->n_columns = n;
    }
    return o;
}

struct out *out_record(const struct out_column *columns, uint32_t n)
{
    struct out *o = out_table(columns, n);
    if (o)
        o->record = true;
    return o;
}

struct out *out_free(struct out *o)
{
    if (!o)
        return NULL;
    for (uint32_t i = 0; i < o->n; i++) {
        free(o->cells[i].shown);
        json_decref(o->cells[i].exact);
    }
    free(o->cells);
    for (uint32_t i = 0; i < o->n_children; i++)
        out_free(o->children[i].out);
    free(o->children);
    free(o);
    return NULL;
}

/* Takes the references to shown and exact, either may be NULL for lack of memory. */
static void add_cell(struct out *o, char *shown, json_t *exact)
{
    if (o && o->n == o->room) {
        uint32_t room = max(o->room * 2, 64u);
        struct cell *cells = realloc(o->cells, room * sizeof(*cells));
        if (cells) {
            o->cells = cells;
            o->room = room;
        }
    }
    if (!o || o->n == o->room || !shown || !exact) {
        if (o)
            o->broken = true;
        free(shown);
        json_decref(exact);
        return;
    }
    assert(!o->record || o->n < o->n_columns);
    o->cells[o->n++] = (struct cell){.shown = shown, .exact = exact};
}

static const struct out_column *next_column(const struct out *o)
{
    return &o->columns[o->n % o->n_columns];
}

/* The zero-terminated contents, as memory of its own; NULL when there was too little. */
static char *finish(struct buf *b)
{
    if (buf_append(b, "", 1) < 0) {
        buf_fini(b);
        return NULL;
    }
    return (char *)b->p;
}

char *out_printable(const char *s)
{
    struct buf b = {0};
    int r = 0;
    for (const unsigned char *p = (const unsigned char *)s; r == 0 && *p;) {
        size_t n = utf8_length(p);
        bool control = *p < 0x20 || *p == 0x7f || (p[0] == 0xc2 && n == 2 && p[1] < 0xa0);
        r = n == 0 || control ? buf_printf(&b, "\\x%02x", *p) : buf_append(&b, p, n);
        p += n && !control ? n : 1;
    }
    if (r < 0) {
        buf_fini(&b);
        return NULL;
    }
    return finish(&b);
}

bool out_is_utf8(const char *s)
{
    for (const unsigned char *p = (const unsigned char *)s; *p;) {
        size_t n = utf8_length(p);
        if (n == 0)
            return false;
        p += n;
    }
    return true;
}

static json_t *json_text(const char *s)
{
    if (out_is_utf8(s))
        return json_string(s);
    struct buf b cleanup(buf_fini) = {0};
    for (const unsigned char *p = (const unsigned char *)s; *p;) {
        size_t n = utf8_length(p);
        int r = n ? buf_append(&b, p, n) : buf_append(&b, "\xef\xbf\xbd", 3);
        if (r < 0)
            return NULL;
        p += n ? n : 1;
    }
    return json_stringn((char *)b.p, b.n);
}

void out_text(struct out *o, const char *value)
{
    if (!o || o->broken)
        return;
    if (!value)
        return add_cell(o, strdup("-"), json_null());
    assert(next_column(o)->type == OUT_TEXT);
    add_cell(o, out_printable(value), json_text(value));
}

void out_json(struct out *o, const char *shown, json_t *value)
{
    if (!o || o->broken)
        return json_decref(value);
    assert(next_column(o)->type == OUT_JSON);
    add_cell(o, out_printable(shown), value);
}

char *out_format_duration(uint64_t ms, char *out, size_t size)
{
    static const struct {
        uint64_t ms;
        const char *name;
    } units[] = {{86400000, "d"}, {3600000, "h"}, {60000, "m"}, {1000, "s"}, {1, "ms"}};
    size_t i = 0;
    while (i + 1 < array_size(units) && ms < units[i].ms)
        i++;
    uint64_t whole = ms / units[i].ms, rest = ms % units[i].ms;
    int n = snprintf(out, size, "%" PRIu64 "%s", whole, units[i].name);
    if (i < 3 && rest / units[i + 1].ms) /* "1m30s", but not "3s250ms" */
        snprintf(out + n, size - (size_t)n, "%" PRIu64 "%s", rest / units[i + 1].ms, units[i + 1].name);
    return out;
}

void out_text_of(struct out *o, struct text value)
{
    char s[4400];
    snprintf(s, sizeof(s), TEXT_FMT, TEXT_ARG(value));
    out_text(o, value.n ? s : NULL);
}

void out_id(struct out *o, uint64_t id)
{
    char s[32];
    snprintf(s, sizeof(s), "%016llx", (unsigned long long)id);
    out_text(o, id ? s : NULL);
}

void out_number(struct out *o, uint64_t value)
{
    if (!o || o->broken)
        return;
    char shown[64], exact[64];
    struct timespec time;
    struct tm tm;
    json_t *other = NULL;
    enum out_type type = next_column(o)->type;
    switch (type) {
    case OUT_SIZE: format_size(value, shown, sizeof(shown)); break;
    case OUT_DURATION: out_format_duration(value, shown, sizeof(shown)); break;
    case OUT_BOOL:
        snprintf(shown, sizeof(shown), "%s", value ? "yes" : "no");
        other = json_boolean(value);
        break;
    case OUT_TIME:
        time = ns_to_timespec(value);
        localtime_r(&time.tv_sec, &tm);
        strftime(shown, sizeof(shown), "%F %T", &tm);
        gmtime_r(&time.tv_sec, &tm);
        size_t n = strftime(exact, sizeof(exact), "%FT%T", &tm);
        snprintf(exact + n, sizeof(exact) - n, ".%09ldZ", time.tv_nsec);
        other = json_string(exact);
        break;
    case OUT_NUMBER: snprintf(shown, sizeof(shown), "%" PRIu64, value); break;
    default: assert(!"a number in a column of texts");
    }
    bool is_number = type != OUT_BOOL && type != OUT_TIME;
    add_cell(o, strdup(shown), is_number ? json_integer((json_int_t)value) : other);
}

void out_colour(struct out *o, enum out_colour colour)
{
    if (o && o->n)
        o->cells[o->n - 1].colour = colour;
}

void out_nest(struct out *o, const char *name, struct out *child)
{
    struct child *children = o && child ? realloc(o->children, (o->n_children + 1) * sizeof(*children)) : NULL;
    if (!children) {
        if (o)
            o->broken = true;
        out_free(child);
        return;
    }
    assert(o->record);
    o->children = children;
    o->children[o->n_children++] = (struct child){.name = name, .out = child};
}

static bool is_broken(const struct out *o)
{
    if (!o || o->broken)
        return true;
    for (uint32_t i = 0; i < o->n_children; i++)
        if (is_broken(o->children[i].out))
            return true;
    return false;
}

/* --- people --- */

/* Columns a terminal uses for s, which is UTF-8. */
static int width_of(const char *s)
{
    wchar_t wide[512];
    size_t n = mbstowcs(wide, s, array_size(wide));
    int width = n < array_size(wide) ? wcswidth(wide, n) : -1;
    return width >= 0 ? width : (int)strlen(s);
}

static const char *const colours[] = {
    [OUT_PLAIN] = "", [OUT_GOOD] = "\033[32m", [OUT_WARN] = "\033[33m", [OUT_BAD] = "\033[31m", [OUT_DIM] = "\033[2m",
};
#define COLOUR_HEADING "\033[1m"
#define COLOUR_END     "\033[0m"

/* A text padded to width; what is last in its line gets no blanks behind it. */
static void print_padded(FILE *to, const char *s, int width, bool right, bool last, const char *colour)
{
    int pad = max(width - width_of(s), 0);
    fprintf(to, "%*s%s%s%s", right ? pad : 0, "", colour, s, *colour ? COLOUR_END : "");
    if (!right && !last)
        fprintf(to, "%*s", pad, "");
}

static void heading_of(const char *name, char *heading, size_t size, bool capitals)
{
    size_t i = 0;
    for (; name[i] && i + 1 < size; i++)
        heading[i] = name[i] == '_' ? ' ' : capitals ? (char)toupper((unsigned char)name[i]) : name[i];
    heading[i] = 0;
}

static bool is_right(enum out_type type)
{
    return type == OUT_NUMBER || type == OUT_SIZE || type == OUT_DURATION;
}

/* The last column that this form shows. */
static uint32_t last_column(const struct out *o, enum out_form form)
{
    uint32_t last = 0;
    for (uint32_t i = 0; i < o->n_columns; i++)
        if (form == OUT_WIDE || !o->columns[i].wide)
            last = i;
    return last;
}

static void print_rows(const struct out *o, FILE *to, enum out_form form, bool colour, const int *widths)
{
    uint32_t last = last_column(o, form);
    char heading[64];
    for (uint32_t i = 0; i < o->n + o->n_columns; i++) { /* the headings, then the cells */
        uint32_t column = i % o->n_columns;
        if (form != OUT_WIDE && o->columns[column].wide)
            continue;
        const struct cell *cell = i < o->n_columns ? NULL : &o->cells[i - o->n_columns];
        if (!cell)
            heading_of(o->columns[column].name, heading, sizeof(heading), true);
        print_padded(to, cell ? cell->shown : heading, widths[column], is_right(o->columns[column].type),
                     column == last,
                     !colour ? ""
                     : cell  ? colours[cell->colour]
                             : COLOUR_HEADING);
        fputs(column == last ? "\n" : "  ", to);
    }
}

static void print_fields(const struct out *o, FILE *to, enum out_form form, bool colour)
{
    char heading[64];
    int width = 0;
    for (uint32_t i = 0; i < o->n; i++)
        width = max(width, width_of(o->columns[i].name));
    for (uint32_t i = 0; i < o->n; i++) {
        if (form != OUT_WIDE && o->columns[i].wide)
            continue;
        heading_of(o->columns[i].name, heading, sizeof(heading), false);
        print_padded(to, heading, width + 2, false, false, colour ? COLOUR_HEADING : "");
        print_padded(to, o->cells[i].shown, 0, false, true, colour ? colours[o->cells[i].colour] : "");
        fputc('\n', to);
    }
}

static int print_people(const struct out *o, FILE *to, enum out_form form, bool colour)
{
    if (o->record) {
        print_fields(o, to, form, colour);
    } else {
        assert(o->n_columns > 0);
        int *widths cleanup(freep) = calloc(o->n_columns, sizeof(*widths));
        if (!widths)
            return -ENOMEM;
        for (uint32_t i = 0; i < o->n_columns; i++)
            widths[i] = width_of(o->columns[i].name);
        for (uint32_t i = 0; i < o->n; i++)
            widths[i % o->n_columns] = max(widths[i % o->n_columns], width_of(o->cells[i].shown));
        print_rows(o, to, form, colour, widths);
    }
    for (uint32_t i = 0; i < o->n_children; i++) {
        char heading[64];
        heading_of(o->children[i].name, heading, sizeof(heading), false);
        fprintf(to, "\n%s%s%s\n", colour ? COLOUR_HEADING : "", heading, colour ? COLOUR_END : "");
        int r = print_people(o->children[i].out, to, form, colour);
        if (r < 0)
            return r;
    }
    return 0;
}

/* --- scripts --- */

/* The whole as a json tree; NULL when memory runs out. */
static json_t *to_json(const struct out *o)
{
    json_t *array = json_array(), *object = NULL;
    int r = array ? 0 : -1;
    for (uint32_t i = 0; r == 0 && i < o->n; i++) {
        if (i % o->n_columns == 0) {
            object = json_object();
            r = json_array_append_new(array, object);
        }
        if (r == 0)
            r = json_object_set(object, o->columns[i % o->n_columns].name, o->cells[i].exact);
    }
    if (!o->record || r < 0) {
        if (r < 0)
            json_decref(array);
        return r < 0 ? NULL : array;
    }
    json_t *record = o->n ? json_incref(json_array_get(array, 0)) : json_object();
    json_decref(array);
    for (uint32_t i = 0; record && i < o->n_children; i++)
        if (json_object_set_new(record, o->children[i].name, to_json(o->children[i].out)) < 0) {
            json_decref(record);
            return NULL;
        }
    return record;
}

/* Texts that no YAML reader takes for anything but themselves. */
static bool yaml_plain(const char *s)
{
    static const char *const words[] = {"true", "false", "yes", "no", "on", "off", "null", "y", "n", "nan", "inf"};
    if (!isalpha((unsigned char)*s) && *s != '/')
        return false;
    for (size_t i = 0; i < array_size(words); i++)
        if (strcasecmp(s, words[i]) == 0)
            return false;
    for (; *s; s++)
        if (!isalnum((unsigned char)*s) && !strchr("/._-+@%", *s))
            return false;
    return true;
}

static int yaml_scalar(FILE *to, const json_t *value)
{
    int r = 0;
    if (json_is_string(value) && yaml_plain(json_string_value(value)))
        fputs(json_string_value(value), to);
    else
        r = json_dumpf(value, to, JSON_ENCODE_ANY); /* json scalars and empty containers are YAML */
    fputc('\n', to);
    return r;
}

static bool is_empty(const json_t *value)
{
    return json_array_size(value) == 0 && json_object_size(value) == 0;
}

/* Behind "key:" or "-", at this depth. Returns 0, or -1 when memory ran out. */
static int yaml_value(FILE *to, const json_t *value, int depth, bool after_dash)
{
    if (is_empty(value)) {
        if (depth)
            fputc(' ', to);
        return yaml_scalar(to, value);
    }
    const char *key;
    json_t *member;
    size_t i;
    int r = 0;
    if (depth && (json_is_array(value) || !after_dash))
        fputc('\n', to);
    if (json_is_array(value)) {
        json_array_foreach(value, i, member)
        {
            fprintf(to, "%*s-", depth * 2, "");
            r |= yaml_value(to, member, depth + 1, true);
        }
        return r;
    }
    bool beside_dash = after_dash; /* the first key stands in the dash's line */
    json_object_foreach((json_t *)(uintptr_t)value, key, member)
    {
        fprintf(to, "%*s%s:", beside_dash ? 1 : depth * 2, "", key); /* keys are names of columns: plain words */
        beside_dash = false;
        r |= yaml_value(to, member, depth + 1, false);
    }
    return r;
}

int out_print(const struct out *o, FILE *to, enum out_form form, bool colour)
{
    if (is_broken(o))
        return -ENOMEM;
    assert(o->n % o->n_columns == 0); /* whole rows */
    errno = 0;
    if (form == OUT_TABLE || form == OUT_WIDE) {
        int r = print_people(o, to, form, colour);
        if (r < 0)
            return r;
    } else {
        json_t *tree = to_json(o);
        if (!tree)
            return -ENOMEM;
        int r;
        if (form == OUT_AS_JSON) {
            r = json_dumpf(tree, to, JSON_INDENT(2));
            fputc('\n', to);
        } else {
            r = yaml_value(to, tree, 0, false);
        }
        json_decref(tree);
        if (r < 0 && !ferror(to))
            return -ENOMEM;
    }
    return fflush(to) != 0 || ferror(to) ? (errno ? -errno : -EIO) : 0;
}
