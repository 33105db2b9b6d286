/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What commands print: one model of tables and records, four forms. A command says what it knows, once:
 *
 *     static const struct out_column columns[] = {
 *         {"name", OUT_TEXT}, {"size", OUT_SIZE}, {"modified", OUT_TIME}, {"inode", OUT_NUMBER, .wide = true},
 *     };
 *     struct out *o = out_table(columns, array_size(columns));
 *     for (...) {
 *         out_text(o, name);  out_number(o, size);  out_number(o, mtime_ns);  out_number(o, inode);
 *     }
 *     return cli_print(cli, o);                      prints in the form asked for, frees o
 *
 * and people read aligned columns with human sizes and times, scripts read exact values:
 *
 *     type          cell is given as        table, wide            json, yaml
 *     OUT_TEXT      text                    text, control          string (bytes that are no UTF-8: U+FFFD)
 *                                           characters as \x1b
 *     OUT_NUMBER    number                  number                 number
 *     OUT_SIZE      bytes                   1.50 MiB               bytes
 *     OUT_TIME      ns since 1970           2026-01-31 12:30:00    "2026-01-31T11:30:00.123456789Z"
 *     OUT_DURATION  ms                      1m30s                  ms
 *     OUT_BOOL      0 or 1                  yes, no                true, false
 *     OUT_JSON      text and a json value   text                   the value
 *
 * Memory that runs out in between is remembered and reported by out_print(), so building needs no checks.
 * Everything is buffered: commands with unbounded output print it in portions of their own.
 */
#pragma once

#include <jansson.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>

#include "base/cleanup.h"
#include "base/text.h"

enum out_type { OUT_TEXT, OUT_NUMBER, OUT_SIZE, OUT_TIME, OUT_DURATION, OUT_BOOL, OUT_JSON };

struct out_column {
    const char *name; /* key in json; the heading is the same in capitals, '_' as ' ' */
    enum out_type type;
    bool wide; /* left out of "table" */
};

enum out_form { OUT_TABLE, OUT_WIDE, OUT_AS_JSON, OUT_AS_YAML };
int out_form_parse(const char *name, enum out_form *ret); /* "table", "wide", "json", "yaml"; -EINVAL */

enum out_colour { OUT_PLAIN, OUT_GOOD, OUT_WARN, OUT_BAD, OUT_DIM };

struct out;

/* Rows of the same columns; in json an array of objects. columns is borrowed. NULL: out of memory, which all functions
 * take and out_print() reports. */
struct out *out_table(const struct out_column *columns, uint32_t n);

/* One thing: its fields one below the other; in json an object. Fill it like one row of a table. */
struct out *out_record(const struct out_column *columns, uint32_t n);

struct out *out_free(struct out *o);
DEFINE_CLEANUP(struct out *, out_free)

/* The next cell, from left to right; behind the last column the next row begins. */
void out_text(struct out *o, const char *value);                /* NULL: nothing known; null in json. For every type. */
void out_text_of(struct out *o, struct text value);             /* the same of a text; empty: nothing known */
void out_id(struct out *o, uint64_t id);                        /* 16 hexadecimal digits; 0: nothing known */
void out_number(struct out *o, uint64_t value);                 /* for all types but OUT_TEXT and OUT_JSON */
void out_json(struct out *o, const char *shown, json_t *value); /* takes the reference to value */

/* Colour the cell added last, on terminals that have colour. */
void out_colour(struct out *o, enum out_colour colour);

/* Put child into the record o under a name: a heading and the child below; a member in json. o owns child then. */
void out_nest(struct out *o, const char *name, struct out *child);

bool out_is_utf8(const char *s);

/* What a terminal may be sent: control characters, and bytes that are not UTF-8, as \xNN. The caller's to free; NULL: no
 * memory. */
char *out_printable(const char *s);

/* Print. Errors: -ENOMEM; -EIO and such when the stream does not take it. */
int out_print(const struct out *o, FILE *to, enum out_form form, bool colour);

/* "1m30s", "250ms", "3d4h": at most two units. Returns out (32 bytes are enough). */
char *out_format_duration(uint64_t ms, char *out, size_t size);
