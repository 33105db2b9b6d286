/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What is known of inodes that are open here, or were and the kernel still has them:
 *
 *  - the version of the content at the last open: when it has not changed, the kernel keeps the pages it has;
 *  - the mode: whether a write has set-id bits to clear;
 *  - until when it may be believed that there are no extended attributes.
 *
 * An entry may go at any time without harm while the inode is not open: the kernel then drops its pages at the next open.
 */
#pragma once

#include <pthread.h>
#include <stdbool.h>
#include <stdint.h>

#define CVFS_NODE_SHARDS 16u
#define CVFS_NODES_MAX   262144u /* entries of inodes that are not open */

struct curvine_attr;

struct cvfs_node; /* cvfs_node.c */

struct cvfs_nodes {
    struct cvfs_node_shard {
        pthread_mutex_t lock; /* guards the shard */
        struct cvfs_node **buckets;
        uint32_t bucket_count, count, idle;
    } shards[CVFS_NODE_SHARDS];
};

int cvfs_nodes_init(struct cvfs_nodes *n);
void cvfs_nodes_fini(struct cvfs_nodes *n);

/* A file with these attributes was opened. Sets *ret_keep when the kernel's pages are still good. Errors: -ENOMEM.
 * Any thread, like all below. */
int cvfs_node_open(struct cvfs_nodes *n, const struct curvine_attr *attr, bool *ret_keep);
void cvfs_node_close(struct cvfs_nodes *n, uint64_t inode);

/* The kernel forgot the inode. */
void cvfs_node_forget(struct cvfs_nodes *n, uint64_t inode);

/* The mode of an inode was changed. */
void cvfs_node_see(struct cvfs_nodes *n, const struct curvine_attr *attr);

/* The mode as last seen of an open inode; 0: not open. */
uint32_t cvfs_node_mode(struct cvfs_nodes *n, uint64_t inode);

/* An open inode has no extended attributes; believed until then (clock_ns()). 0: not any more. */
void cvfs_node_set_plain(struct cvfs_nodes *n, uint64_t inode, uint64_t until_ns);
bool cvfs_node_is_plain(struct cvfs_nodes *n, uint64_t inode, uint64_t now_ns);
