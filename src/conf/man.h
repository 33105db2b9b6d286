/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Manual pages from the tables that --help comes from (man(7) macros). All functions append to out and escape what roff
 * would take for its own. Errors: -ENOMEM.
 */
#pragma once

#include "base/text.h"

/* Title and NAME: "cv-master", 8, "the namespace of a Curvine cluster". */
int man_head(struct buf *out, const char *name, int section, const char *summary);

int man_section(struct buf *out, const char *heading);
int man_subsection(struct buf *out, const char *heading);

/* A paragraph. */
int man_text(struct buf *out, const char *text);

/* Lines as they are. */
int man_lines(struct buf *out, const char *lines);

/* Lines of help such as "  -x, --long ARG   what it does", the second column going on in lines indented further: as a
 * list of terms. A line that is neither becomes a paragraph. */
int man_terms(struct buf *out, const char *lines);

/* One term. */
int man_term(struct buf *out, const char *term, const char *text);
