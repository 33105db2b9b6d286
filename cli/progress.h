/* SPDX-License-Identifier: Apache-2.0 */
/*
 * How far long work is, for people who wait: load, free, get, put, cp.
 *
 *      struct progress p;
 *      progress_start(&p, cli, "load");
 *      progress_expect(&p, 1, size);          any thread, whenever something to do is found
 *      progress_counted(&p);                  nothing more will be found: percent and ETA from now on
 *      progress_add(&p, 1, bytes);            any thread, whenever something is done
 *      progress_fail(&p, r, path, why);       any thread
 *      return progress_end(&p);               summary with exact totals; CLI_FAILED when something failed
 *
 * A thread of its own shows it, so callers may block. On a terminal that is one line that changes in place, as wide as the
 * terminal; otherwise a plain line every few seconds; with -o json one object a line on stdout:
 * {"event": "progress" | "failed" | "done", ...}. What fails is reported at once, with its reason.
 */
#pragma once

#include <pthread.h>
#include <stdatomic.h>

#include "base/text.h"
#include "cli/cli.h"

#define PROGRESS_SAMPLES  16 /* of bytes done, for the rate now: 4 s on a terminal */
#define PROGRESS_FAILURES 20 /* shown to people one by one; json has all */

enum progress_form {
    PROGRESS_LIVE,  /* one line in place */
    PROGRESS_LINES, /* a line every few seconds */
    PROGRESS_JSON,
};

/* What one line says. */
struct progress_view {
    const char *verb;
    uint64_t files, files_total, bytes, bytes_total, failed;
    bool counted;  /* the totals are whole */
    uint64_t rate; /* bytes a second now */
    uint64_t elapsed_ms;
};

struct progress_style {
    unsigned width; /* columns; LIVE only */
    bool colour, utf8;
};

/* Append one line, without its end. LIVE never exceeds style->width columns: what matters least is left out first.
 * Errors: -ENOMEM. */
int progress_render(const struct progress_view *v, enum progress_form form, const struct progress_style *style,
                    struct buf *ret);

/* ms until all is done, from what was done so far; UINT64_MAX: nobody knows. */
uint64_t progress_eta_ms(const struct progress_view *v);

struct progress {
    struct cli *cli;
    const char *verb;
    enum progress_form form;
    struct progress_style style;
    FILE *to, *summary_to;
    _Atomic uint64_t files, files_total, bytes, bytes_total, failed;
    _Atomic bool counted;
    uint64_t began_ns;
    pthread_t thread;
    pthread_mutex_t mutex; /* guards what follows, and to */
    pthread_cond_t changed;
    bool stopping, shown; /* shown: a live line stands on the terminal */
    uint64_t sample_ns[PROGRESS_SAMPLES], sample_bytes[PROGRESS_SAMPLES];
    unsigned samples;
};

/* summary_to: where the summary goes (and json); NULL: stdout; stderr for commands whose result is data on stdout. */
void progress_start(struct progress *p, struct cli *cli, const char *verb, FILE *summary_to);

void progress_expect(struct progress *p, uint64_t files, uint64_t bytes);
void progress_counted(struct progress *p);
void progress_add(struct progress *p, uint64_t files, uint64_t bytes);
void progress_forget(struct progress *p, uint64_t bytes); /* of a file that failed: totals count whole files */

/* One file failed: code, path as the user knows it, reason in words (NULL: the code's). */
void progress_fail(struct progress *p, int r, const char *path, const char *why);

/* A line of text above the live line; not in json. */
void progress_note(struct progress *p, const char *format, ...) __attribute__((format(printf, 2, 3)));

/* Stop showing and print the summary. Returns CLI_OK, or CLI_FAILED when something failed. */
int progress_end(struct progress *p);
