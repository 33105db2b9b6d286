/* SPDX-License-Identifier: Apache-2.0 */
/*
 * From what arrived to its handler. The header, the fixed struct and the names are checked here, against the bytes that
 * came: handlers find them whole.
 */
#include <errno.h>

#include "base/clock.h"
#include "base/error.h"
#include "fuse/cvfs_internal.h"

/* Indexed by opcode. */
static const struct cvfs_op ops[] = {
#define CVFS_OP(name_, argument, names_, run_)                                                                         \
    [FUSE_##name_] = {                                                                                                 \
        .name = #run_,                                                                                                 \
        .argument_bytes = sizeof(argument),                                                                            \
        .names = names_,                                                                                               \
        .run = cvfs_op_##run_,                                                                                         \
    },
#include "fuse/cvfs_ops.def"
};

/* A zero-terminated text at *p, which moves behind it. */
static bool take_name(const char **p, const char *end, struct curvine_text *ret)
{
    const char *zero = memchr(*p, '\0', (size_t)(end - *p));
    if (!zero)
        return false;
    *ret = (struct curvine_text){*p, (uint32_t)(zero - *p)};
    *p = zero + 1;
    return true;
}

/* Errors: -EINVAL the request is shorter than it says, or than its operation needs; -ENOSYS. */
static int parse(struct cvfs_request *r, size_t n)
{
    const struct fuse_in_header *in = r->in;
    if (n < sizeof(*in) || in->len != n)
        return -EINVAL;
    const struct cvfs_op *op = in->opcode < array_size(ops) && ops[in->opcode].run ? &ops[in->opcode] : NULL;
    if (!op)
        return -ENOSYS;
    const char *p = (const char *)(in + 1), *end = (const char *)in + n;
    size_t extensions = (size_t)cvfs_in_extlen(in) * 8;
    if (extensions > (size_t)(end - p))
        return -EINVAL;
    end -= extensions;
    if ((size_t)(end - p) < op->argument_bytes)
        return -EINVAL;
    r->op = op;
    r->arg = p;
    p += op->argument_bytes;
    if (op->names > 0 && !take_name(&p, end, &r->a))
        return -EINVAL;
    if (op->names > 1 && !take_name(&p, end, &r->b))
        return -EINVAL;
    if (op->names < 2)
        r->b = (struct curvine_text){p, (uint32_t)(end - p)};
    return 0;
}

void cvfs_dispatch(struct cvfs_request *r, size_t n)
{
    r->in = (const void *)(r->slot + CVFS_WRITE_AT);
    r->start_ns = clock_ns();
    memset(&r->q, 0, offsetof(struct curvine_request, reserved));
    atomic_store(&r->unique, n >= sizeof(*r->in) ? r->in->unique : 0);
    int error = parse(r, n);
    if (error < 0 && n < sizeof(*r->in))
        cvfs_reply_none(r); /* from the kernel this cannot come, and there is nobody to answer */
    else if (error < 0)
        cvfs_reply_error(r, error);
    else
        r->op->run(r);
}

void cvfs_op_destroy(struct cvfs_request *r)
{
    cvfs_reply_error(r, 0);
}
