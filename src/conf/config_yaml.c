/* SPDX-License-Identifier: Apache-2.0 */
/*
 * curvine.yaml by libyaml's events: one document, a mapping of sections, each a mapping of keys to scalars or lists
 * of scalars. What is not of that shape is refused with its line and stepped over, so that one reading finds all
 * mistakes; only YAML that does not parse ends the reading.
 */
#include <assert.h>
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <sys/stat.h>
#include <yaml.h>

#include "base/error.h"
#include "conf/config_internal.h"

/* A list longer than this is refused whatever the table says. */
#define LIST_ITEMS_MAX 1024

struct reader {
    struct config *c;
    const char *name; /* of the file */
    yaml_parser_t parser;
    yaml_event_t event; /* current; owned */
    bool ended;         /* the parser failed: no more events */
    int result;         /* the first error */
};

static uint32_t line_of(const struct reader *r)
{
    return (uint32_t)r->event.start_mark.line + 1;
}

static void note(struct reader *r, int error)
{
    if (error < 0 && r->result == 0)
        r->result = error;
}

#define refuse(r, line, format, ...)                                                                                   \
    note((r), config_refuse((r)->c, "%s:%u: " format, (r)->name, (line), ##__VA_ARGS__))

/* Move to the next event. False at the end of what can be read. */
static bool next(struct reader *r)
{
    if (r->ended)
        return false;
    yaml_event_delete(&r->event);
    if (!yaml_parser_parse(&r->parser, &r->event)) {
        r->ended = true;
        memset(&r->event, 0, sizeof(r->event));
        if (r->parser.error == YAML_MEMORY_ERROR)
            note(r, -ENOMEM);
        else
            refuse(r, (uint32_t)r->parser.problem_mark.line + 1, "not valid YAML: %s%s%s",
                   r->parser.context ? r->parser.context : "", r->parser.context ? ", " : "",
                   r->parser.problem ? r->parser.problem : "unreadable");
        return false;
    }
    if (r->event.type == YAML_NO_EVENT) { /* behind the end, or libyaml gave an event in spite of an error */
        r->ended = true;
        if (r->parser.error)
            note(r, -ENOMEM);
        return false;
    }
    return true;
}

/* Step over the value the current event begins, to its last event. */
static void skip(struct reader *r)
{
    uint64_t depth = 0;
    do {
        switch (r->event.type) {
        case YAML_MAPPING_START_EVENT:
        case YAML_SEQUENCE_START_EVENT: depth++; break;
        case YAML_MAPPING_END_EVENT:
        case YAML_SEQUENCE_END_EVENT: depth--; break;
        default: break;
        }
    } while (depth && next(r));
}

/* The text of a scalar event, NULL when it holds a zero byte. */
static const char *scalar(const struct reader *r)
{
    const char *s = (const char *)r->event.data.scalar.value;
    return memchr(s, 0, r->event.data.scalar.length) ? NULL : s;
}

/* "key:" with nothing behind it. */
static bool scalar_is_null(const struct reader *r)
{
    const char *s = (const char *)r->event.data.scalar.value;
    return r->event.data.scalar.style == YAML_PLAIN_SCALAR_STYLE &&
           (!*s || strcmp(s, "~") == 0 || strcmp(s, "null") == 0);
}

static void free_items(char **items)
{
    for (uint32_t i = 0; items[i]; i++)
        free(items[i]);
    free(items);
}

static void free_items_p(char ***items)
{
    if (*items)
        free_items(*items);
}

/* At the start of a sequence: read it into the option (NULL: only step over it). */
static void read_list(struct reader *r, struct option_ref ref, const char *where)
{
    uint32_t line = line_of(r), n = 0;
    char **items cleanup(free_items_p) = calloc(LIST_ITEMS_MAX + 1, sizeof(*items));
    if (!items)
        return note(r, -ENOMEM);
    bool good = true;
    while (next(r) && r->event.type != YAML_SEQUENCE_END_EVENT) {
        const char *s = r->event.type == YAML_SCALAR_EVENT ? scalar(r) : NULL;
        if (!s || n == LIST_ITEMS_MAX) {
            if (good)
                refuse(r, line_of(r), "%s.%s: %s", ref.section->name, ref.option->name,
                       s ? "too many items" : "an item must be plain text");
            good = false;
            skip(r);
            continue;
        }
        items[n] = strdup(s);
        if (!items[n])
            return note(r, -ENOMEM);
        n++;
    }
    if (!good || r->ended)
        return;
    if (ref.option->type != OPTION_LIST)
        refuse(r, line, "%s.%s: a list where one %s is expected", ref.section->name, ref.option->name,
               option_type_name(ref.option->type));
    else
        note(r, config_assign(r->c, ref, where, NULL, items, n));
}

/* At the value of a known key. */
static void read_value(struct reader *r, struct option_ref ref, uint32_t line)
{
    char where[512];
    snprintf(where, sizeof(where), "%s:%u", r->name, line);
    const char *section = ref.section->name, *key = ref.option->name;
    switch (r->event.type) {
    case YAML_SCALAR_EVENT:
        if (scalar_is_null(r))
            refuse(r, line, "%s.%s: no value; leave the line out to get the default", section, key);
        else if (!scalar(r))
            refuse(r, line, "%s.%s: the value holds a zero byte", section, key);
        else
            note(r, config_assign(r->c, ref, where, scalar(r), NULL, 0));
        return;
    case YAML_SEQUENCE_START_EVENT: return read_list(r, ref, where);
    case YAML_ALIAS_EVENT: return refuse(r, line, "%s.%s: YAML aliases are not supported", section, key);
    default:
        refuse(r, line, "%s.%s: a mapping where one %s is expected", section, key, option_type_name(ref.option->type));
        skip(r);
    }
}

/* At the start of a section's mapping: read to its end. */
static void read_section(struct reader *r, struct config_section *filled, const struct option_section *s)
{
    while (next(r) && r->event.type != YAML_MAPPING_END_EVENT) {
        uint32_t line = line_of(r);
        const char *key = r->event.type == YAML_SCALAR_EVENT ? scalar(r) : NULL;
        if (!key) {
            refuse(r, line, "%s: a key must be plain text", s->name);
            skip(r);
            if (next(r))
                skip(r);
            continue;
        }
        struct option_ref ref = {0};
        char why[OPTION_MESSAGE_MAX];
        bool known = config_find(r->c->sections, text_of(s->name), text_of(key), &ref, why) == 0;
        if (!known)
            refuse(r, line, "%s.%.64s: %s", s->name, key, why);
        uint32_t *seen = known ? &filled->seen[ref.option - s->options] : NULL;
        if (known && *seen) {
            refuse(r, line, "%s.%s: given twice, first on line %u", s->name, ref.option->name, *seen);
            known = false;
        } else if (known) {
            *seen = line;
        }
        if (!next(r))
            return;
        if (known)
            read_value(r, ref, line);
        else
            skip(r);
    }
}

/* At the start of the top mapping: read to its end. */
static void read_sections(struct reader *r)
{
    while (next(r) && r->event.type != YAML_MAPPING_END_EVENT) {
        uint32_t line = line_of(r);
        const char *name = r->event.type == YAML_SCALAR_EVENT ? scalar(r) : NULL;
        const struct option_section *s = name ? option_find_section(r->c->sections, text_of(name)) : NULL;
        struct config_section *filled = NULL;
        if (!name) {
            refuse(r, line, "the name of a section must be plain text");
            skip(r);
        } else if (!s) {
            char why[OPTION_MESSAGE_MAX];
            struct option_ref ref;
            (void)config_find(r->c->sections, text_of(name), TEXT(""), &ref, why);
            refuse(r, line, "%.64s: %s", name, why);
        } else {
            for (uint32_t i = 0; r->c->sections[i]; i++)
                if (r->c->sections[i] == s)
                    filled = &r->c->filled[i];
            assert(filled);
            if (filled->seen_section)
                refuse(r, line, "%s: given twice, first on line %u", s->name, filled->seen_section);
            filled->seen_section = line;
        }
        if (!next(r))
            return;
        if (!s) {
            skip(r);
        } else if (r->event.type == YAML_MAPPING_START_EVENT) {
            read_section(r, filled, s);
        } else if (r->event.type != YAML_SCALAR_EVENT || !scalar_is_null(r)) {
            refuse(r, line, "%s: a section is a mapping of keys to values", s->name);
            skip(r);
        }
    }
}

static void read_document(struct reader *r)
{
    bool any = false;
    while (next(r) && r->event.type != YAML_STREAM_END_EVENT) {
        switch (r->event.type) {
        case YAML_DOCUMENT_START_EVENT:
            if (any)
                refuse(r, line_of(r), "a second YAML document");
            any = true;
            break;
        case YAML_MAPPING_START_EVENT: read_sections(r); break;
        case YAML_SCALAR_EVENT:
            if (scalar_is_null(r))
                break; /* an empty document: all defaults */
            __attribute__((fallthrough));
        case YAML_SEQUENCE_START_EVENT:
        case YAML_ALIAS_EVENT:
            refuse(r, line_of(r), "expected sections (%s: and so on)",
                   r->c->sections[0] ? r->c->sections[0]->name : "");
            skip(r);
            break;
        default: break;
        }
    }
}

int config_load_text(struct config *c, const char *name, const char *p, size_t n)
{
    for (uint32_t i = 0; i < c->n; i++) {
        memset(c->filled[i].seen, 0, sizeof(*c->filled[i].seen) * c->sections[i]->n);
        c->filled[i].seen_section = 0;
    }
    struct reader r = {.c = c, .name = name};
    if (!yaml_parser_initialize(&r.parser))
        return -ENOMEM;
    yaml_parser_set_input_string(&r.parser, (const unsigned char *)p, n);
    read_document(&r);
    yaml_event_delete(&r.event);
    yaml_parser_delete(&r.parser);
    return r.result;
}

int config_load(struct config *c, const char *path)
{
    int fd cleanup(closep) = open(path, O_RDONLY | O_CLOEXEC | O_NOCTTY);
    struct stat st;
    if (fd < 0 || fstat(fd, &st) < 0)
        return config_refuse(c, "%s: %s", path, cv_error_text(errno));
    if (!S_ISREG(st.st_mode) || st.st_size > CONFIG_FILE_MAX)
        return config_refuse(c, "%s: not a configuration file (a regular file of at most 1 MiB)", path);
    size_t n = (size_t)st.st_size;
    char *p cleanup(freep) = malloc(n + 1);
    if (!p)
        return -ENOMEM;
    ssize_t got = pread(fd, p, n, 0);
    if (got < 0)
        return config_refuse(c, "%s: %s", path, cv_error_text(errno));
    return config_load_text(c, path, p, (size_t)got);
}
