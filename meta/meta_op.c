/* SPDX-License-Identifier: Apache-2.0 */
/* The table of operations. */
#include "meta/meta_core.h"
#include "meta/meta_op.h"
#include "wire/meta_flags.h"

#define ONCE_READ   META_FREE
#define ONCE_SCRIBE META_ONCE

static const struct meta_op ops[] = {
#define OP(name_, class_, head_)                                                                                       \
    {.name = #name_,                                                                                                   \
     .type = MSG_##name_,                                                                                              \
     .op_class = META_##class_,                                                                                        \
     .has_head = head_,                                                                                                \
     .once = MSG_##name_ == MSG_open           ? META_ONCE_MAYBE                                                       \
             : MSG_##name_ == MSG_close        ? META_FREE                                                             \
             : MSG_##name_ == MSG_mount_add    ? META_ONCE_ADMIN                                                       \
             : MSG_##name_ == MSG_mount_remove ? META_ONCE_ADMIN                                                       \
             : MSG_##name_ == MSG_mount_set    ? META_ONCE_ADMIN                                                       \
             : MSG_##name_ == MSG_upgrade      ? META_ONCE_ADMIN                                                       \
             : MSG_##name_ == MSG_reassert     ? META_FREE                                                             \
                                               : ONCE_##class_,                                                            \
     .run = op_##name_},
    META_OPS_(OP)
#undef OP
};

static const struct meta_op inner_ops[] = {
#define INNER(name_) [META_OP_##name_] = {.name = #name_, .op_class = META_SCRIBE, .run = inner_##name_},
    META_INNER_OPS_(INNER)
#undef INNER
};

const struct meta_op *meta_op_find(uint16_t type)
{
    for (size_t i = 0; i < array_size(ops); i++)
        if (ops[i].type == type)
            return &ops[i];
    return NULL;
}

const struct meta_op *meta_op_inner(enum meta_inner what)
{
    assert((size_t)what < array_size(inner_ops));
    return &inner_ops[what];
}
