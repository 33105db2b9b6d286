/* SPDX-License-Identifier: Apache-2.0 */
/* The functions behind META_OPS_ and META_INNER_OPS_ (meta.h), each described at its definition in meta_op_*.c. */
#pragma once

#include "meta/meta_core.h"

#define OP(name, class, head) int op_##name(struct run *u);
META_OPS_(OP)
#undef OP
#define INNER(name) int inner_##name(struct run *u);
META_INNER_OPS_(INNER)
#undef INNER
