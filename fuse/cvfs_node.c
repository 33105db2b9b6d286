/* SPDX-License-Identifier: Apache-2.0 */
/* A hash table in shards, each with its lock. */
#include "fuse/cvfs_node.h"

#include <assert.h>
#include <errno.h>

#include "base/cleanup.h"
#include "base/hash.h"
#include "client/curvine.h"

#define BUCKETS_MIN 64u

struct cvfs_node {
    struct cvfs_node *next;
    uint64_t inode, version, plain_until_ns;
    uint32_t mode, opens;
};

int cvfs_nodes_init(struct cvfs_nodes *n)
{
    *n = (struct cvfs_nodes){0};
    for (uint32_t i = 0; i < CVFS_NODE_SHARDS; i++) {
        struct cvfs_node_shard *s = &n->shards[i];
        pthread_mutex_init(&s->lock, NULL);
        s->buckets = calloc(BUCKETS_MIN, sizeof(struct cvfs_node *));
        s->bucket_count = s->buckets ? BUCKETS_MIN : 0;
        if (!s->buckets)
            return -ENOMEM;
    }
    return 0;
}

void cvfs_nodes_fini(struct cvfs_nodes *n)
{
    for (uint32_t i = 0; i < CVFS_NODE_SHARDS; i++) {
        struct cvfs_node_shard *s = &n->shards[i];
        for (uint32_t b = 0; b < s->bucket_count; b++)
            for (struct cvfs_node *node = s->buckets[b], *next; node; node = next) {
                next = node->next;
                free(node);
            }
        free(s->buckets);
        pthread_mutex_destroy(&s->lock);
    }
}

static struct cvfs_node_shard *shard_lock(struct cvfs_nodes *n, uint64_t inode)
{
    struct cvfs_node_shard *s = &n->shards[hash_u64(inode) % CVFS_NODE_SHARDS];
    pthread_mutex_lock(&s->lock);
    return s;
}

static struct cvfs_node **find(struct cvfs_node_shard *s, uint64_t inode)
{
    struct cvfs_node **at = &s->buckets[(hash_u64(inode) >> 8) % s->bucket_count];
    while (*at && (*at)->inode != inode)
        at = &(*at)->next;
    return at;
}

static void grow(struct cvfs_node_shard *s)
{
    uint32_t count = s->bucket_count * 2;
    struct cvfs_node **old = s->buckets, **fresh = calloc(count, sizeof(struct cvfs_node *));
    if (!fresh)
        return; /* longer chains, then */
    uint32_t old_count = s->bucket_count;
    s->buckets = fresh;
    s->bucket_count = count;
    for (uint32_t b = 0; b < old_count; b++)
        for (struct cvfs_node *node = old[b], *next; node; node = next) {
            next = node->next;
            struct cvfs_node **at = find(s, node->inode);
            node->next = NULL;
            *at = node;
        }
    free(old);
}

static struct cvfs_node *find_or_add(struct cvfs_node_shard *s, uint64_t inode)
{
    struct cvfs_node **at = find(s, inode);
    if (*at)
        return *at;
    struct cvfs_node *node = calloc(1, sizeof(*node));
    if (!node)
        return NULL;
    node->inode = inode;
    *at = node;
    s->idle++;
    if (++s->count > s->bucket_count)
        grow(s);
    return node;
}

static void drop(struct cvfs_node_shard *s, struct cvfs_node **at)
{
    struct cvfs_node *node = *at;
    assert(node->opens == 0);
    *at = node->next;
    s->count--;
    s->idle--;
    free(node);
}

int cvfs_node_open(struct cvfs_nodes *n, const struct curvine_attr *attr, bool *ret_keep)
{
    struct cvfs_node_shard *s = shard_lock(n, attr->inode);
    struct cvfs_node *node = find_or_add(s, attr->inode);
    if (node) {
        *ret_keep = node->version && node->version == attr->version;
        node->version = attr->version;
        node->mode = attr->mode;
        if (node->opens++ == 0)
            s->idle--;
    }
    pthread_mutex_unlock(&s->lock);
    return node ? 0 : -ENOMEM;
}

void cvfs_node_close(struct cvfs_nodes *n, uint64_t inode)
{
    struct cvfs_node_shard *s = shard_lock(n, inode);
    struct cvfs_node **at = find(s, inode);
    assert(*at && (*at)->opens > 0);
    if (--(*at)->opens == 0) {
        s->idle++;
        if (s->idle > CVFS_NODES_MAX / CVFS_NODE_SHARDS)
            drop(s, at);
    }
    pthread_mutex_unlock(&s->lock);
}

void cvfs_node_forget(struct cvfs_nodes *n, uint64_t inode)
{
    struct cvfs_node_shard *s = shard_lock(n, inode);
    struct cvfs_node **at = find(s, inode);
    if (*at && (*at)->opens == 0)
        drop(s, at);
    pthread_mutex_unlock(&s->lock);
}

void cvfs_node_see(struct cvfs_nodes *n, const struct curvine_attr *attr)
{
    struct cvfs_node_shard *s = shard_lock(n, attr->inode);
    struct cvfs_node *node = *find(s, attr->inode);
    if (node)
        node->mode = attr->mode;
    pthread_mutex_unlock(&s->lock);
}

uint32_t cvfs_node_mode(struct cvfs_nodes *n, uint64_t inode)
{
    struct cvfs_node_shard *s = shard_lock(n, inode);
    struct cvfs_node *node = *find(s, inode);
    uint32_t mode = node && node->opens ? node->mode : 0;
    pthread_mutex_unlock(&s->lock);
    return mode;
}

void cvfs_node_set_plain(struct cvfs_nodes *n, uint64_t inode, uint64_t until_ns)
{
    struct cvfs_node_shard *s = shard_lock(n, inode);
    struct cvfs_node *node = *find(s, inode);
    if (node)
        node->plain_until_ns = until_ns;
    pthread_mutex_unlock(&s->lock);
}

bool cvfs_node_is_plain(struct cvfs_nodes *n, uint64_t inode, uint64_t now_ns)
{
    struct cvfs_node_shard *s = shard_lock(n, inode);
    const struct cvfs_node *node = *find(s, inode);
    bool plain = node && now_ns < node->plain_until_ns;
    pthread_mutex_unlock(&s->lock);
    return plain;
}
