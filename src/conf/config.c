/* SPDX-License-Identifier: Apache-2.0 */
#include "conf/config.h"

#include <assert.h>
#include <errno.h>
#include <stdarg.h>
#include <stdio.h>

#include "base/error.h"
#include "conf/config_internal.h"
#include "conf/nearest.h"

static uint32_t section_index(const struct config *c, const struct option_section *s)
{
    uint32_t i = 0;
    while (c->sections[i] != s) {
        assert(c->sections[i]); /* not a section of this configuration */
        i++;
    }
    return i;
}

struct config *config_free(struct config *c)
{
    if (!c)
        return NULL;
    for (uint32_t i = 0; i < c->n; i++) {
        struct config_section *s = &c->filled[i];
        for (uint32_t j = 0; s->values && j < c->sections[i]->n; j++)
            option_clear(&c->sections[i]->options[j], s->values);
        free(s->values);
        for (uint32_t j = 0; s->origins && j < c->sections[i]->n; j++)
            free(s->origins[j]);
        free(s->origins);
        free(s->seen);
    }
    free(c->filled);
    buf_fini(&c->errors);
    free(c);
    return NULL;
}

int config_new(const struct option_section *const *sections, struct config **ret)
{
    struct config *c cleanup(config_free_p) = calloc(1, sizeof(*c));
    if (!c)
        return -ENOMEM;
    c->sections = sections;
    while (sections[c->n])
        c->n++;
    c->filled = calloc(c->n + 1, sizeof(*c->filled));
    if (!c->filled) {
        c->n = 0;
        return -ENOMEM;
    }
    for (uint32_t i = 0; i < c->n; i++) {
        struct config_section *s = &c->filled[i];
        s->values = calloc(1, sections[i]->size);
        s->origins = calloc(sections[i]->n + 1, sizeof(*s->origins));
        s->seen = calloc(sections[i]->n + 1, sizeof(*s->seen));
        if (!s->values || !s->origins || !s->seen)
            return -ENOMEM;
        for (uint32_t j = 0; j < sections[i]->n; j++) {
            int r = option_set_default(&sections[i]->options[j], s->values);
            if (r < 0)
                return r;
        }
    }
    *ret = take(c);
    return 0;
}

int config_refuse(struct config *c, const char *format, ...)
{
    if (c->error_count++ >= CONFIG_ERRORS_MAX)
        return -CV_CONFIG_BAD;
    char line[1024];
    va_list args;
    va_start(args, format);
    vsnprintf(line, sizeof(line), format, args);
    va_end(args);
    for (char *p = line; *p; p++) /* keys and values come from the file: whatever they hold, a problem is one line */
        if ((unsigned char)*p < 0x20 || *p == 0x7f)
            *p = '?';
    (void)buf_printf(&c->errors, "%s\n", line);
    return -CV_CONFIG_BAD;
}

const char *config_errors(struct config *c)
{
    if (c->error_count > CONFIG_ERRORS_MAX && !c->errors_closed) {
        (void)buf_printf(&c->errors, "and %u more\n", c->error_count - CONFIG_ERRORS_MAX);
        c->errors_closed = true;
    }
    if (buf_reserve(&c->errors, 1) < 0)
        return c->error_count ? "out of memory\n" : "";
    c->errors.p[c->errors.n] = 0;
    return (const char *)c->errors.p;
}

/* "unknown section, did you mean 'worker'?" */
static int suggest(const char *what, const char *word, char *why)
{
    if (word)
        snprintf(why, OPTION_MESSAGE_MAX, "unknown %s, did you mean '%s'?", what, word);
    else
        snprintf(why, OPTION_MESSAGE_MAX, "unknown %s", what);
    return -ENOENT;
}

int config_find(const struct option_section *const *sections, struct text section, struct text key,
                struct option_ref *ret, char *why)
{
    const struct option_section *s = option_find_section(sections, section);
    if (!s) {
        struct nearest near = {.wanted = section};
        for (; *sections; sections++)
            nearest_offer(&near, (*sections)->name);
        return suggest("section", near.word, why);
    }
    const struct option_def *o = option_find(s, key);
    if (!o) {
        for (; *sections; sections++)
            if (option_find(*sections, key)) {
                snprintf(why, OPTION_MESSAGE_MAX, "unknown key, it belongs to section '%s'", (*sections)->name);
                break;
            }
        struct nearest near = {.wanted = key};
        for (uint32_t i = 0; i < s->n; i++)
            nearest_offer(&near, s->options[i].name);
        return near.word || !*sections ? suggest("key", near.word, why) : -ENOENT;
    }
    *ret = (struct option_ref){s, o};
    return 0;
}

int config_set_origin(struct config *c, struct option_ref ref, const char *origin)
{
    struct config_section *s = &c->filled[section_index(c, ref.section)];
    char **at = &s->origins[ref.option - ref.section->options];
    char *copy = strdup(origin);
    if (!copy)
        return -ENOMEM;
    free(*at);
    *at = copy;
    return 0;
}

int config_assign(struct config *c, struct option_ref ref, const char *where, const char *value, char *const *items,
                  uint32_t n)
{
    void *values = c->filled[section_index(c, ref.section)].values;
    int r = value ? option_set(ref.option, values, value) : option_set_list(ref.option, values, items, n);
    if (r == 0)
        return config_set_origin(c, ref, where);
    if (r != -EINVAL)
        return r;
    struct buf allowed cleanup(buf_fini) = {0};
    struct buf usual cleanup(buf_fini) = {0};
    if (option_allowed(ref.option, &allowed) < 0 || option_format_default(ref.option, &usual) < 0)
        return -ENOMEM;
    char shown[OPTION_WRITTEN_MAX + 8] = "this list";
    if (value)
        snprintf(shown, sizeof(shown), "'%.*s'", OPTION_WRITTEN_MAX, value);
    return config_refuse(c, "%s: %s.%s: %s is not allowed: %.*s (default %.*s)", where, ref.section->name,
                         ref.option->name, shown, (int)allowed.n, (char *)allowed.p, (int)usual.n, (char *)usual.p);
}

int config_set(struct config *c, const char *assignment)
{
    const char *dot = strchr(assignment, '.'), *equals = strchr(assignment, '=');
    if (!dot || !equals || equals < dot)
        return config_refuse(c, "--set %s: expected section.key=value", assignment);
    struct text section = {assignment, (uint32_t)(dot - assignment)}, key = {dot + 1, (uint32_t)(equals - dot - 1)};
    struct option_ref ref;
    char why[OPTION_MESSAGE_MAX];
    if (config_find(c->sections, section, key, &ref, why) < 0)
        return config_refuse(c, "--set: %.*s: %s", (int)(equals - assignment), assignment, why);
    return config_assign(c, ref, "--set", equals + 1, NULL, 0);
}

int config_check(struct config *c)
{
    int result = 0;
    for (uint32_t i = 0; i < c->n; i++) {
        char why[OPTION_MESSAGE_MAX] = "";
        int r = c->sections[i]->check ? c->sections[i]->check(c->filled[i].values, why, sizeof(why)) : 0;
        if (r < 0)
            result = config_refuse(c, "%s: %s", c->sections[i]->name, why);
    }
    return result;
}

const struct option_section *const *config_sections(const struct config *c)
{
    return c->sections;
}

const void *config_values(const struct config *c, const struct option_section *s)
{
    return c->filled[section_index(c, s)].values;
}

const char *config_origin(const struct config *c, struct option_ref ref)
{
    const char *origin = c->filled[section_index(c, ref.section)].origins[ref.option - ref.section->options];
    return origin ? origin : "default";
}

void config_diff(const struct config *a, const struct config *b, void (*fn)(void *arg, struct option_ref ref),
                 void *arg)
{
    assert(a->sections == b->sections);
    for (uint32_t i = 0; i < a->n; i++)
        for (uint32_t j = 0; j < a->sections[i]->n; j++) {
            struct option_ref ref = {a->sections[i], &a->sections[i]->options[j]};
            if (!option_equal(ref.option, a->filled[i].values, b->filled[i].values))
                fn(arg, ref);
        }
}

const char *config_default_path(void)
{
    const char *path = getenv("CURVINE_CONFIG");
    return path && *path ? path : "/etc/curvine/curvine.yaml";
}

int config_text(const struct config *c, const char *section, const char *key, char *out, size_t size)
{
    struct option_ref ref;
    char why[OPTION_MESSAGE_MAX];
    struct buf b cleanup(buf_fini) = {0};
    int r = config_find(config_sections(c), text_of(section), text_of(key), &ref, why);
    if (r == 0)
        r = option_format(ref.option, config_values(c, ref.section), &b);
    if (r < 0)
        return r;
    return snprintf(out, size, "%.*s", (int)b.n, (const char *)b.p) < (int)size ? 0 : -ENAMETOOLONG;
}
