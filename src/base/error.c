/* SPDX-License-Identifier: Apache-2.0 */
#include "base/error.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/cleanup.h"

static const struct {
    int code, errno_value;
    const char *name, *text;
} errors[] = {
#define CV_ERR(name, code, errno_value, text) {code, errno_value, "CV_" #name, text},
#include "base/error.def"
#undef CV_ERR
};

static int find(int code)
{
    code = abs(code);
    for (size_t i = 0; i < array_size(errors); i++)
        if (errors[i].code == code)
            return (int)i;
    return -1;
}

const char *cv_error_name(int code)
{
    static _Thread_local char unknown[16];
    int i = find(code);
    if (i >= 0)
        return errors[i].name;
    const char *name = strerrorname_np(abs(code));
    if (name)
        return name;
    snprintf(unknown, sizeof(unknown), "E%d", abs(code));
    return unknown;
}

const char *cv_error_text(int code)
{
    static _Thread_local char text[96];
    int i = find(code);
    if (i >= 0)
        return errors[i].text;
    return strerror_r(abs(code), text, sizeof(text));
}

int cv_error_errno(int code)
{
    int i = find(code);
    if (i >= 0)
        return errors[i].errno_value;
    code = abs(code);
    return code < 1000 ? code : EIO;
}
