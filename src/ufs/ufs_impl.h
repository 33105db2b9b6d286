/* SPDX-License-Identifier: Apache-2.0 */
/* What an under file system implements, and what it stands on (ufs_impl.c). Only for src/ufs. */
#pragma once

#include "ufs/ufs.h"

struct ufs_ops {
    const char *scheme;
    /* u->prefix and parameters are set. Set u->impl. message: see ufs_open. */
    int (*open)(struct ufs *u, struct text authority, char *message, size_t size);
    void (*close)(struct ufs *u); /* nothing runs any more */
    void (*check)(struct ufs *u, struct ufs_op *op);
    void (*stat)(struct ufs *u, struct ufs_op *op, struct text key);
    void (*list)(struct ufs *u, struct ufs_op *op, struct text prefix, struct text after, uint32_t max, bool recursive);
    void (*get)(struct ufs *u, struct ufs_op *op, struct text key, const struct ufs_identity *id, uint64_t offset,
                uint64_t n);
    void (*put)(struct ufs *u, struct ufs_op *op, struct text key, const struct ufs_identity *id, int fd,
                uint64_t offset, uint64_t n);
    void (*remove)(struct ufs *u, struct ufs_op *op, struct text key);
    void (*cancel)(struct ufs_op *op); /* op runs */
};

extern const struct ufs_ops ufs_file_ops, ufs_s3_ops;

#define UFS_PARAMS_MAX 16

struct ufs {
    const struct ufs_ops *ops;
    struct loop *loop;
    char *uri;
    char *prefix; /* "" or with a final '/': in front of every key */
    struct {
        const char *name;
        char *value;
    } params[UFS_PARAMS_MAX];
    unsigned param_count;
    struct ufs_counters counters;
    struct list running; /* struct ufs_op.link */
    bool closing;
    void (*closed)(void *arg);
    void *closed_arg;
    struct loop_job close_job;
    void *impl;
};

/* The name of a parameter of this scheme as ufs_params.def has it, and its default. NULL: there is none. */
const char *ufs_param_row(const char *scheme, const char *name, const char **ret_default);

/* The value of a parameter of ufs_params.def: given, or its default. */
const char *ufs_param(const struct ufs *u, const char *name);

/* End op: from the loop, never from inside the call that started it. */
void ufs_finish(struct ufs_op *op, int result);

/* End op with a reason in words. */
void ufs_fail(struct ufs_op *op, int result, const char *format, ...) __attribute__((format(printf, 3, 4)));
