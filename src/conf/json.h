/* SPDX-License-Identifier: Apache-2.0 */
/* JSON written piece by piece into a buffer, for the daemons' pages (the command line has jansson). */
#pragma once

#include "base/text.h"

/* Length of the well-formed UTF-8 sequence p begins with; 0 when there is none. p is zero-terminated, *p not zero. */
size_t utf8_length(const unsigned char *p);

/* Append s as a JSON string: quoted, escaped; bytes that are not UTF-8 become U+FFFD. Errors: -ENOMEM. */
int json_write_text(struct buf *out, const char *s);
