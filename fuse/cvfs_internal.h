/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Inside cv-fuse.
 *
 *      cvfs.c            starting, stopping
 *      cvfs_init.c       FUSE_INIT: which features, from an allow-list
 *      cvfs_channel.c    the descriptor: threads, slots
 *      cvfs_ops.c        opcode -> handler; checks what arrives
 *      cvfs_ops_*.c      the handlers: names, inodes, files, directories
 *      cvfs_interrupt.c  requests whose caller does not want to wait any more
 *      cvfs_reply.c      answers; attributes as the kernel has them
 *      cvfs_request.c    requests: taken, handed to the library, given back
 *      cvfs_handle.c     open files and directories by number
 *      cvfs_node.c       what is known of inodes that are or were open: may the kernel keep its pages?
 *      cvfs_dir.c        an open directory: pages, cookies
 *      cvfs_groups.c     supplementary groups of a process
 *      cvfs_mount.c      mounting and unmounting, through libfuse
 */
#pragma once

#include <pthread.h>
#include <stdatomic.h>
#include <sys/uio.h>

#include "base/list.h"
#include "fuse/cvfs.h"
#include "fuse/cvfs_groups.h"
#include "fuse/cvfs_handle.h"
#include "fuse/cvfs_metrics.h"
#include "fuse/cvfs_node.h"
#include "fuse/cvfs_proto.h"

#define CVFS_THREADS_MAX 64
#define CVFS_GROUPS_MAX  64

struct cvfs_request;

/* One opcode: a row of cvfs_ops.def. */
struct cvfs_op {
    const char *name;
    uint32_t argument_bytes; /* of the fixed struct behind the header */
    uint32_t names;          /* zero-terminated names behind that */
    void (*run)(struct cvfs_request *r);
};

/*
 * One request of the kernel. Its memory in the memfd:
 *
 *      slot                     slot + CVFS_DATA_AT
 *      | ........ | in_header args | data of a WRITE, or of the answer to a READ ... |
 *                 ^ request begins so that the data of a WRITE lies on a page boundary
 *
 * References: one of whoever dispatches it, one of the operation until it is answered, one of who cancels it: the request is
 * not used for the next one before all are gone.
 */
struct cvfs_request {
    struct cvfs *fs;
    uint8_t *slot;
    int fd; /* where it came from: with cloned descriptors, the answer goes there */
    _Atomic uint32_t refs;
    _Atomic uint64_t unique;      /* 0: idle */
    _Atomic uint64_t interrupted; /* 0, or clock_ns() when its caller wanted it ended */
    _Atomic bool cancellable;     /* the library has it */
    bool warm;                    /* its slot holds more than its first pages */
    const struct cvfs_op *op;
    const struct fuse_in_header *in;
    const void *arg;       /* the fixed struct */
    struct curvine_text a; /* first name */
    struct curvine_text b; /* second, or what follows the first */
    uint64_t start_ns;
    struct cvfs_handle *handle;
    struct list link; /* waiting in a directory */
    uint64_t scratch; /* the handler's: flags of an OPEN, offset of a READDIR, ... */
    uint64_t asked_ns;
    bool as_root; /* what the kernel would do for the caller, whatever he may do himself */

    struct curvine_caller caller;
    uint32_t groups[CVFS_GROUPS_MAX];
    struct curvine_request q;
    void (*then)(struct cvfs_request *r); /* q is done */
};

#define CVFS_DATA_AT  4096u
#define CVFS_WRITE_AT ((uint32_t)(CVFS_DATA_AT - sizeof(struct fuse_in_header) - sizeof(struct fuse_write_in)))
#define CVFS_WARM_MAX 32u /* idle slots that keep their memory */

struct cvfs_channel {
    int fd;        /* the mount's */
    int memory_fd; /* the slots */
    uint8_t *memory;
    size_t slot_bytes;
    struct cvfs_request *requests;
    uint32_t request_count;

    pthread_mutex_t lock; /* guards idle, idle_count, warm_idle */
    pthread_cond_t freed;
    uint32_t *idle; /* a stack of request numbers: the last used is the next */
    uint32_t idle_count, warm_idle;

    struct cvfs_thread {
        struct cvfs *fs;
        pthread_t thread;
        int fd;
        bool started;
        _Atomic bool ended;
    } threads[CVFS_THREADS_MAX];
    uint32_t thread_count;
    _Atomic bool stopping, over;
};

struct cvfs_interrupts {
    pthread_t thread;
    pthread_mutex_t lock; /* guards the two below */
    pthread_cond_t changed;
    uint32_t pending; /* requests that were interrupted since the last look */
    bool stopping, started;
};

#define CVFS_TOUCHED 4096

struct cvfs {
    struct cvfs_config config;
    const struct cvfs_options *options;
    struct curvine *client;
    uint32_t write_max; /* bytes of a READ or WRITE */
    uint64_t features;  /* init flags in use */
    struct cvfs_channel channel;
    struct cvfs_interrupts interrupts;
    struct cvfs_handles handles;
    struct cvfs_nodes nodes;
    struct cvfs_groups groups;
    /* When something about an inode of this hash was last changed through this mount: attributes older than that are not
     * given to the kernel with a listing. */
    _Atomic uint64_t touched[CVFS_TOUCHED];
    pthread_mutex_t metrics_lock; /* guards the list of blocks */
    struct cvfs_block {
        struct cvfs_block *next;
        struct cvfs_metrics *metrics;
    } * blocks;
    uint64_t number; /* of this struct in this process: which blocks are a thread's */
};

/* ---- cvfs_channel.c ------------------------------------------------------------------------------------------------ */

int cvfs_channel_init(struct cvfs *fs);
int cvfs_channel_start(struct cvfs *fs);
void cvfs_channel_stop(struct cvfs *fs); /* threads end, then every request has been answered */
void cvfs_channel_fini(struct cvfs *fs);

/* ---- cvfs_request.c ------------------------------------------------------------------------------------------------ */

struct cvfs_request *cvfs_request_take(struct cvfs *fs); /* waits; NULL: stopping */
void cvfs_request_unref(struct cvfs_request *r);
/* A reference, if it is under way and is this one. */
bool cvfs_request_ref_unique(struct cvfs_request *r, uint64_t unique);
/* Fill r->q.caller and what every call has, and hand r->q to the library; then(r) runs with the result, on its thread. */
void cvfs_submit(struct cvfs_request *r, void (*then)(struct cvfs_request *r));

/* ---- cvfs_init.c --------------------------------------------------------------------------------------------------- */

/* What to answer. Errors: -EPROTO. */
int cvfs_negotiate(const struct cvfs_options *options, const struct cvfs_init_in *in, uint32_t in_bytes,
                   struct cvfs_init_out *out, uint64_t *ret_features);
int cvfs_init_answer(struct cvfs *fs); /* wait for FUSE_INIT and answer it */

/* ---- cvfs_interrupt.c ---------------------------------------------------------------------------------------------- */

int cvfs_interrupts_start(struct cvfs *fs);
void cvfs_interrupts_stop(struct cvfs *fs);
void cvfs_cancel_all(struct cvfs *fs);

/* ---- cvfs_ops.c ---------------------------------------------------------------------------------------------------- */

/* A request of n bytes has arrived in the slot. */
void cvfs_dispatch(struct cvfs_request *r, size_t n);

static inline uint64_t cvfs_inode_of(const struct cvfs *fs, uint64_t node)
{
    return node == CVFS_ROOT_NODE ? fs->config.root : node;
}

static inline uint64_t cvfs_node_of(const struct cvfs *fs, uint64_t inode)
{
    return inode == fs->config.root ? CVFS_ROOT_NODE : inode;
}

/* ---- cvfs_reply.c: each ends the request ------------------------------------------------------------------------------ */

void cvfs_reply_error(struct cvfs_request *r, int code); /* 0: success without data; else negative, any of ours */
void cvfs_reply_data(struct cvfs_request *r, const void *p, size_t n);
void cvfs_reply_none(struct cvfs_request *r); /* requests that get no answer */
void cvfs_reply_entry(struct cvfs_request *r, const struct curvine_attr *attr);
void cvfs_reply_attr(struct cvfs_request *r, const struct curvine_attr *attr);
/* 0, or -EFAULT (iov[1..] went away: the request is still to be answered). iov[0] is ours. */
int cvfs_reply_iov(struct cvfs_request *r, struct iovec *iov, unsigned count);

void cvfs_fill_attr(const struct curvine_attr *attr, struct fuse_attr *out);
void cvfs_fill_entry(struct cvfs *fs, const struct curvine_attr *attr, uint32_t lease_ms, struct fuse_entry_out *out);

/* Something about inode changed through this mount. */
void cvfs_touch(struct cvfs *fs, uint64_t inode);
uint64_t cvfs_touched_ns(struct cvfs *fs, uint64_t inode);

/* This thread's counters; NULL when there is no memory. */
struct cvfs_metrics *cvfs_count(struct cvfs *fs);

#define cvfs_add(fs, counter, n)                                                                                       \
    do {                                                                                                               \
        struct cvfs_metrics *count_ = cvfs_count(fs);                                                                  \
        if (count_)                                                                                                    \
            counter_add(&count_->counter, (n));                                                                        \
    } while (0)

/* ---- handlers: named in cvfs_ops.def ---------------------------------------------------------------------------------- */

#define CVFS_OP(name, argument, names, run) void cvfs_op_##run(struct cvfs_request *r);
#include "fuse/cvfs_ops.def"
