/* SPDX-License-Identifier: Apache-2.0 */
/* JSON written piece by piece into a buffer, for the daemons' pages (the command line has jansson). */
#pragma once

#include "base/text.h"

/* Append s as a JSON string: quoted, escaped; bytes that are not UTF-8 become U+FFFD. Errors: -ENOMEM. */
int json_write_text(struct buf *out, const char *s);
