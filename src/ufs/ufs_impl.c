/* SPDX-License-Identifier: Apache-2.0 */
/* What under file systems stand on: their parameters, and the end of an operation. */
#include "ufs/ufs_impl.h"

#include <assert.h>
#include <stdarg.h>
#include <stdio.h>

#include "base/cleanup.h"
#include "base/error.h"

static const struct {
    const char *scheme, *name, *value;
} param_rows[] = {
#define UFS_PARAM(scheme, name, value, secret, help) {#scheme, #name, value},
#include "ufs/ufs_params.def"
#undef UFS_PARAM
};

const char *ufs_param_row(const char *scheme, const char *name, const char **ret_default)
{
    for (size_t i = 0; i < array_size(param_rows); i++)
        if (strcmp(param_rows[i].scheme, scheme) == 0 && strcmp(param_rows[i].name, name) == 0) {
            *ret_default = param_rows[i].value;
            return param_rows[i].name;
        }
    return NULL;
}

const char *ufs_param(const struct ufs *u, const char *name)
{
    const char *usual = "";
    for (unsigned i = 0; i < u->param_count; i++)
        if (strcmp(u->params[i].name, name) == 0)
            return u->params[i].value;
    const char *known = ufs_param_row(u->ops->scheme, name, &usual);
    assert(known); /* a parameter of ufs_params.def */
    return usual;
}

bool ufs_identity_equal(const struct ufs_identity *a, const struct ufs_identity *b)
{
    if (a->etag[0] && b->etag[0])
        return strcmp(a->etag, b->etag) == 0 && a->size == b->size;
    return a->mtime_ns == b->mtime_ns && a->size == b->size;
}

void ufs_finish(struct ufs_op *op, int result)
{
    struct ufs *u = op->ufs;
    assert_on_loop(u->loop);
    list_remove(&op->link);
    op->state = NULL;
    op->result = result;
    if (result < 0) {
        u->counters.failures++;
        if (!op->message[0])
            snprintf(op->message, sizeof(op->message), "%s: %s", u->uri, cv_error_text(result));
    }
    bool last = u->closing && list_empty(&u->running);
    op->done(op);
    if (last)
        loop_post(u->loop, &u->close_job);
}

void ufs_fail(struct ufs_op *op, int result, const char *format, ...)
{
    va_list args;
    va_start(args, format);
    vsnprintf(op->message, sizeof(op->message), format, args);
    va_end(args);
    ufs_finish(op, result);
}
