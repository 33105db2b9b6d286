/* SPDX-License-Identifier: Apache-2.0 */
/* Everything people read about options, from the tables. All functions append to out. Errors: -ENOMEM. */
#pragma once

#include "conf/options.h"

/* Lines for --help: key, default and help of each option of a section. */
int options_help(const struct option_section *s, struct buf *out);

/* What there is to say about one option: help, type, range, default, and what it takes to change it. */
int options_explain(struct option_ref ref, struct buf *out);

/* A commented curvine.yaml with every option at its default, commented out. */
int options_sample(const struct option_section *const *sections, struct buf *out);

/* The reference as a page of markdown, as the options of a manual page (conf/man.h), and as curvine.yaml(5). */
int options_markdown(const struct option_section *const *sections, struct buf *out);
int options_man(const struct option_section *const *sections, struct buf *out);
int options_man_page(const struct option_section *const *sections, struct buf *out);
