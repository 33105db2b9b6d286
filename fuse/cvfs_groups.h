/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Supplementary groups of the process that asks. The kernel's requests carry uid and gid only; the rest is read from
 * /proc/PID/status and kept for a second. A process that changes its groups is seen with the old ones until then.
 */
#pragma once

#include <pthread.h>
#include <stdint.h>

#define CVFS_GROUPS_CACHED 128
#define CVFS_GROUPS_EACH   64

struct cvfs_groups {
    pthread_mutex_t lock; /* guards all below */
    struct cvfs_groups_entry {
        uint64_t read_ns; /* clock_ns(); 0: empty */
        uint32_t pid, uid, gid;
        uint32_t count;
        uint32_t groups[CVFS_GROUPS_EACH];
    } entries[CVFS_GROUPS_CACHED];
};

void cvfs_groups_init(struct cvfs_groups *g);
void cvfs_groups_fini(struct cvfs_groups *g);

/* Any thread. Fills up to CVFS_GROUPS_EACH ids and returns how many; none when the process is not to be seen. */
uint32_t cvfs_groups_of(struct cvfs_groups *g, uint32_t pid, uint32_t uid, uint32_t gid, uint32_t *out);

/* The ids in the "Groups:" line of a /proc/PID/status. */
uint32_t cvfs_groups_parse(const char *status, uint32_t *out, uint32_t max);
