/* SPDX-License-Identifier: Apache-2.0 */
#include "conf/man.h"

#include <ctype.h>

/* n bytes, escaped; a line that begins with a control character gets a zero-width one in front. */
static int escape(struct buf *out, const char *p, size_t n, bool line_start)
{
    int r = 0;
    if (line_start && n && (*p == '.' || *p == '\''))
        r = buf_append(out, "\\&", 2);
    for (size_t i = 0; r == 0 && i < n; i++)
        switch (p[i]) {
        case '\\': r = buf_append(out, "\\e", 2); break;
        case '-': r = buf_append(out, "\\-", 2); break;
        case '^': r = buf_append(out, "\\(ha", 4); break;
        case '~': r = buf_append(out, "\\(ti", 4); break;
        case '\'': r = buf_append(out, "\\(aq", 4); break;
        case '`': r = buf_append(out, "\\(ga", 4); break;
        default: r = buf_append(out, p + i, 1);
        }
    return r;
}

static int escaped_line(struct buf *out, const char *p, size_t n)
{
    int r = escape(out, p, n, true);
    return r < 0 ? r : buf_append(out, "\n", 1);
}

int man_head(struct buf *out, const char *name, int section, const char *summary)
{
    int r = buf_printf(out, ".\\\" Made from the program's own tables; see --help.\n.TH \"");
    for (const char *p = name; r == 0 && *p; p++)
        r = buf_printf(out, "%c", toupper(*p));
    if (r == 0)
        r = buf_printf(out, "\" %d \"\" \"curvine " CV_VERSION "\" \"Curvine\"\n.SH NAME\n", section);
    if (r == 0)
        r = escape(out, name, strlen(name), true);
    if (r == 0)
        r = buf_append(out, " \\- ", 4);
    return r < 0 ? r : escaped_line(out, summary, strlen(summary));
}

int man_section(struct buf *out, const char *heading)
{
    int r = buf_append(out, ".SH ", 4);
    return r < 0 ? r : escaped_line(out, heading, strlen(heading));
}

int man_subsection(struct buf *out, const char *heading)
{
    int r = buf_append(out, ".SS ", 4);
    return r < 0 ? r : escaped_line(out, heading, strlen(heading));
}

int man_text(struct buf *out, const char *text)
{
    int r = buf_append(out, ".PP\n", 4);
    return r < 0 ? r : escaped_line(out, text, strlen(text));
}

int man_lines(struct buf *out, const char *lines)
{
    int r = buf_append(out, ".PP\n.nf\n.RS\n", 12);
    while (r == 0 && *lines) {
        size_t n = strcspn(lines, "\n");
        r = escaped_line(out, lines, n);
        lines += n + (lines[n] == '\n');
    }
    return r < 0 ? r : buf_append(out, ".RE\n.fi\n", 8);
}

static int term(struct buf *out, const char *p, size_t n, const char *text, size_t text_n)
{
    int r = buf_append(out, ".TP\n.B ", 7);
    if (r == 0)
        r = escaped_line(out, p, n);
    return r < 0 || !text_n ? r : escaped_line(out, text, text_n);
}

int man_term(struct buf *out, const char *name, const char *text)
{
    return term(out, name, strlen(name), text, strlen(text));
}

int man_terms(struct buf *out, const char *lines)
{
    size_t column = 0; /* of the second column in the term before; 0: there was none */
    for (int r; *lines; lines += strcspn(lines, "\n"), lines += *lines == '\n') {
        size_t n = strcspn(lines, "\n"), indent = strspn(lines, " "), gap = indent;
        if (indent >= n)
            continue;
        while (gap < n && !(lines[gap] == ' ' && lines[gap + 1] == ' '))
            gap++;
        size_t text = gap + strspn(lines + gap, " ");
        if (column && indent >= column - 1) {
            r = escaped_line(out, lines + indent, n - indent);
        } else if (text < n) {
            column = text;
            r = term(out, lines + indent, gap - indent, lines + text, n - text);
        } else {
            column = 0;
            r = lines[indent] == '-' ? term(out, lines + indent, n - indent, "", 0) : 0;
            if (lines[indent] == '-')
                column = indent + 4;
            else if ((r = buf_append(out, ".PP\n", 4)) == 0)
                r = escaped_line(out, lines + indent, n - indent);
        }
        if (r < 0)
            return r;
    }
    return 0;
}
