/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Option tables: each section of curvine.yaml is declared once, as rows of a .def file, and everything else
 * (typed struct, defaults, range check, help, sample file, documentation) comes from those rows.
 *
 *     OPT(heartbeat_ms, duration, 3s, 100ms, 1m, "how often the master hears from us")        worker_options.def
 *     OPT_LIVE(...)                                 the same, and a reload (SIGHUP) is enough to change it
 *     OPT_ENUM(ack_mode, enum ack_mode, ACK_QUORUM, (ACK_QUORUM, ACK_LOCAL), "when ...")       written quorum, local
 *
 *     name      key in the file and field of the struct; unit last (_ms, _bytes, _max)
 *     type      bool | u32 | u64 | size (bytes) | duration (ms) | text | list (of text)
 *     default, low, high   as people write them: 3s, 64MiB, 100, true, "text", "a, b". For text low and high bound the
 *               length, for lists the number of elements.
 *     help      one line, lower case, no full stop
 *
 * No option is a secret: secrets live in files of mode 0600 and options name them, so all options may be shown.
 *
 * A section is declared by a header and a source of its own:
 *
 *     #define OPTIONS_DEF "worker/worker_options.def"          #define OPTIONS_DEF    "worker/worker_options.def"
 *     struct worker_options {                                  #define OPTIONS_STRUCT struct worker_options
 *     #include "conf/option_fields.h"                          static const struct option_def rows[] = {
 *     };                                                       #include "conf/option_rows.h"
 *     extern const struct option_section worker_section;       };
 *                                                              const struct option_section worker_section = {...};
 */
#pragma once

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "base/text.h"

enum option_type {
    OPTION_BOOL,     /* bool */
    OPTION_U32,      /* uint32_t */
    OPTION_U64,      /* uint64_t */
    OPTION_SIZE,     /* uint64_t, bytes */
    OPTION_DURATION, /* uint64_t, milliseconds */
    OPTION_TEXT,     /* char *, never NULL, one line */
    OPTION_LIST,     /* struct option_list */
    OPTION_ENUM,     /* an enum, 4 bytes */
};

struct option_list {
    char **items;
    uint32_t n;
};

struct option_def {
    const char *name, *help;
    enum option_type type;
    bool live;                /* a reload changes it; otherwise a restart does */
    uint32_t offset;          /* of the field in the section's struct */
    const char *initial;      /* the default, as in the table */
    const char *low, *high;   /* as in the table */
    const char *choices;      /* enum: "(ACK_QUORUM, ACK_LOCAL)" */
    const int *choice_values; /* enum: the value of each */
};

struct option_section {
    const char *name;    /* key of the section in the file */
    const char *summary; /* one line */
    const struct option_def *options;
    uint32_t n;
    uint32_t size; /* bytes of the struct */
    /* What ranges cannot say, about options that depend on each other. Returns 0, or -CV_CONFIG_BAD with the reason
     * in why: "election_ms must be at least 4 times heartbeat_ms". May be NULL. */
    int (*check)(const void *options, char *why, size_t why_size);
};

#define OPTION_SECTION(name_, summary_, type_, rows_)                                                                  \
    .name = (name_), .summary = (summary_), .options = (rows_), .n = sizeof(rows_) / sizeof((rows_)[0]),               \
    .size = sizeof(type_)

/* Room for one option written out (lists and texts are cut to it in messages only). */
#define OPTION_WRITTEN_MAX 64

/* Parse value (zero-terminated, as written in a file) into the struct at options, after freeing what was there.
 * Errors: -EINVAL not of this type or out of range (option_allowed() says what is), -ENOMEM. Nothing changes then. */
int option_set(const struct option_def *o, void *options, const char *value);

/* The same for the items of a list. */
int option_set_list(const struct option_def *o, void *options, char *const *items, uint32_t n);

/* Set to the default. The table's defaults are valid: a unit test holds all of them against their ranges. */
int option_set_default(const struct option_def *o, void *options);

/* Free what an option's value owns. */
void option_clear(const struct option_def *o, void *options);

/* Append the value as it would be written in a file: "3s", "64MiB", "quorum", "[a, b]". Errors: -ENOMEM. */
int option_format(const struct option_def *o, const void *options, struct buf *out);

/* Append the default, likewise. */
int option_format_default(const struct option_def *o, struct buf *out);

/* Append what is allowed: "a duration from 100ms to 1m", "one of quorum, local, applied". */
int option_allowed(const struct option_def *o, struct buf *out);

/* Append the value as JSON: numbers exact, durations in ms, sizes in bytes. */
int option_format_json(const struct option_def *o, const void *options, struct buf *out);

bool option_equal(const struct option_def *o, const void *options_a, const void *options_b);

/* "duration", "size", ... as the documentation names it. */
const char *option_type_name(enum option_type type);

/* An option of a NULL-terminated list of sections. */
struct option_ref {
    const struct option_section *section;
    const struct option_def *option;
};

/* NULL when there is none. */
const struct option_section *option_find_section(const struct option_section *const *sections, struct text name);
const struct option_def *option_find(const struct option_section *section, struct text name);
