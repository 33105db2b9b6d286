/* SPDX-License-Identifier: Apache-2.0 */
#include "conf/options_doc.h"

#include <stdarg.h>
#include <stdio.h>

#include "base/cleanup.h"
#include "conf/man.h"

/* The pieces every form is made of, zero-terminated. */
struct described {
    struct buf initial, allowed;
};

static void described_fini(struct described *d)
{
    buf_fini(&d->initial);
    buf_fini(&d->allowed);
}

static int describe(const struct option_def *o, struct described *d)
{
    int r = option_format_default(o, &d->initial);
    if (r == 0)
        r = option_allowed(o, &d->allowed);
    if (r == 0)
        r = buf_append(&d->initial, "", 1);
    return r < 0 ? r : buf_append(&d->allowed, "", 1);
}

static const char *change(const struct option_def *o)
{
    return o->live ? "reload (SIGHUP)" : "restart";
}

typedef int (*write_option)(const struct option_section *s, const struct option_def *o, const char *initial,
                            const char *allowed, struct buf *out);

static int for_each_option(const struct option_section *s, write_option write, struct buf *out)
{
    int r = 0;
    for (uint32_t i = 0; r == 0 && i < s->n; i++) {
        struct described d cleanup(described_fini) = {0};
        r = describe(&s->options[i], &d);
        if (r == 0)
            r = write(s, &s->options[i], (char *)d.initial.p, (char *)d.allowed.p, out);
    }
    return r;
}

static int write_help(const struct option_section *s, const struct option_def *o, const char *initial,
                      const char *allowed, struct buf *out)
{
    char key[96];
    snprintf(key, sizeof(key), "%s.%s", s->name, o->name);
    return buf_printf(out, "  %-30s %s [%s]\n", key, o->help, initial);
}

int options_help(const struct option_section *s, struct buf *out)
{
    int r = buf_printf(out, "Section '%s', %s (default in brackets):\n", s->name, s->summary);
    return r < 0 ? r : for_each_option(s, write_help, out);
}

int options_explain(struct option_ref ref, struct buf *out)
{
    struct described d cleanup(described_fini) = {0};
    int r = describe(ref.option, &d);
    if (r < 0)
        return r;
    return buf_printf(out,
                      "%s.%s: %s\n"
                      "  type        %s\n"
                      "  allowed     %s\n"
                      "  default     %s\n"
                      "  to change   %s\n",
                      ref.section->name, ref.option->name, ref.option->help, option_type_name(ref.option->type),
                      (char *)d.allowed.p, (char *)d.initial.p, change(ref.option));
}

static int write_sample(const struct option_section *s, const struct option_def *o, const char *initial,
                        const char *allowed, struct buf *out)
{
    return buf_printf(out, "\n  # %s\n  # (%s%s)\n  #%s: %s\n", o->help, allowed, o->live ? "; live" : "", o->name,
                      initial);
}

int options_sample(const struct option_section *const *sections, struct buf *out)
{
    int r = buf_printf(out,
                       "# curvine.yaml: the configuration of all Curvine programs on this host. Every option is here,\n"
                       "# commented out, at its default. Check it with: cv config check\n");
    for (; r == 0 && *sections; sections++) {
        r = buf_printf(out, "\n# %s\n%s:\n", (*sections)->summary, (*sections)->name);
        if (r == 0)
            r = for_each_option(*sections, write_sample, out);
    }
    return r;
}

static int write_markdown(const struct option_section *s, const struct option_def *o, const char *initial,
                          const char *allowed, struct buf *out)
{
    return buf_printf(out, "| `%s` | `%s` | %s | %s | %s |\n", o->name, initial, o->help, allowed, change(o));
}

int options_markdown(const struct option_section *const *sections, struct buf *out)
{
    int r = buf_printf(out, "# Options of curvine.yaml\n");
    for (; r == 0 && *sections; sections++) {
        r = buf_printf(out, "\n## %s\n\n%s\n\n| key | default | what | allowed | change by |\n|---|---|---|---|---|\n",
                       (*sections)->name, (*sections)->summary);
        if (r == 0)
            r = for_each_option(*sections, write_markdown, out);
    }
    return r;
}

static int write_man(const struct option_section *s, const struct option_def *o, const char *initial,
                     const char *allowed, struct buf *out)
{
    struct buf text cleanup(buf_fini) = {0};
    int r = buf_printf(&text, "%s. Default: %s. Allowed: %s. Changed by a %s.", o->help,
                       *initial == '"' ? "empty" : initial, allowed, change(o));
    if (r == 0)
        r = buf_append(&text, "", 1);
    return r < 0 ? r : man_term(out, o->name, (char *)text.p);
}

static int man_section_of_options(const struct option_section *s, struct buf *out)
{
    int r = man_subsection(out, s->name);
    if (r == 0)
        r = man_text(out, s->summary);
    return r < 0 ? r : for_each_option(s, write_man, out);
}

int options_man(const struct option_section *const *sections, struct buf *out)
{
    int r = 0;
    for (; r == 0 && *sections; sections++)
        r = man_section_of_options(*sections, out);
    return r;
}

int options_man_page(const struct option_section *const *sections, struct buf *out)
{
    int r = man_head(out, "curvine.yaml", 5, "configuration of all Curvine programs on a host");
    if (r == 0)
        r = man_section(out, "DESCRIPTION");
    if (r == 0)
        r = man_text(out,
                     "/etc/curvine/curvine.yaml is read by every Curvine program: one section for each program, and "
                     "those they share. What is not in it has its default. An unknown key or a bad value is "
                     "refused with the number of its line.");
    if (r == 0)
        r = man_lines(out, "cluster:\n  masters: [host1:8995, host2:8995, host3:8995]\nlog:\n  level: info\n");
    if (r == 0)
        r = man_text(
            out, "Check a file with cv config check, compare with the defaults by cv config diff, and ask about one "
                 "option by cv config explain SECTION.KEY.");
    if (r == 0)
        r = man_section(out, "OPTIONS");
    if (r == 0)
        r = options_man(sections, out);
    if (r == 0)
        r = man_section(out, "SEE ALSO");
    return r < 0 ? r : man_text(out, "cv(1), cv-master(8), cv-journal(8), cv-worker(8), cv-fuse(8)");
}
