/* SPDX-License-Identifier: Apache-2.0 */
/* What tools say to people. */
#include <errno.h>
#include <stdarg.h>
#include <stdio.h>
#include <unistd.h>

#include "base/error.h"
#include "conf/json.h"
#include "raft/journal_tool_internal.h"

void tool_complain(const struct tool *t, const char *format, ...)
{
    va_list args;
    va_start(args, format);
    fprintf(stderr, "cv-journal %s: ", t->command);
    vfprintf(stderr, format, args);
    fputc('\n', stderr);
    va_end(args);
}

int tool_failed(const struct tool *t, int r, const struct buf *why)
{
    if (why && why->n)
        tool_complain(t, "%s: %.*s", t->dir, (int)why->n, (const char *)why->p);
    else
        tool_complain(t, "%s: %s", t->dir, cv_error_text(r));
    return r == -CV_LOCKED || r == -CV_NOT_FORMATTED || r == -EACCES ? TOOL_UNREACHABLE : TOOL_FAILED;
}

void tool_problem(void *arg, const char *text)
{
    struct tool_problems *p = arg;
    if (p->n++ >= 100)
        return;
    if (!p->tool->json) {
        printf("  problem        %s\n", text);
        return;
    }
    (void)buf_printf(&p->json, p->n > 1 ? "," : "");
    (void)json_write_text(&p->json, text);
}

bool tool_waits(const struct tool *t, const struct journal_state *s, struct uuid cluster)
{
    static const char *const left[] = {"log.old", "rejoin"};
    bool clean = true;
    for (size_t i = 0; i < array_size(left); i++) {
        char path[4096];
        int n = snprintf(path, sizeof(path), "%s/%s", t->dir, left[i]);
        clean = clean && n < (int)sizeof(path) && access(path, F_OK) < 0 && errno == ENOENT;
    }
    return clean && s->term == 0 && s->last == 0 && s->first <= 1 && uuid_equal(s->cluster, cluster) &&
           (t->incarnation == 0 || t->incarnation == s->incarnation);
}
