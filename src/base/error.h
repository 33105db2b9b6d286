/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Error codes: every function returns 0 (or a count) on success and a negative code on failure, either -errno or
 * -CV_<NAME> from error.def. Both kinds share one number space, so a code passes through all layers unchanged.
 */
#pragma once

#include <errno.h>

enum cv_error {
#define CV_ERR(name, code, errno_value, text) CV_##name = code,
#include "base/error.def"
#undef CV_ERR
};

/* "ENOENT", "CV_NOT_LEADER"; "E<number>" for codes nobody knows. Takes either sign. Static storage or thread-local. */
const char *cv_error_name(int code);

/* What to show a person: "no such file or directory". Takes either sign. Static or thread-local storage. */
const char *cv_error_text(int code);

/* The errno (positive) an application sees for this code. Takes either sign. */
int cv_error_errno(int code);
