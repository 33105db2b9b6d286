/* SPDX-License-Identifier: Apache-2.0 */
#include "fuse/cvfs_groups.h"

#include <fcntl.h>
#include <stdio.h>

#include "base/cleanup.h"
#include "base/clock.h"
#include "base/hash.h"

void cvfs_groups_init(struct cvfs_groups *g)
{
    memset(g, 0, sizeof(*g));
    pthread_mutex_init(&g->lock, NULL);
}

void cvfs_groups_fini(struct cvfs_groups *g)
{
    pthread_mutex_destroy(&g->lock);
}

uint32_t cvfs_groups_parse(const char *status, uint32_t *out, uint32_t most)
{
    const char *line = strstr(status, "\nGroups:");
    uint32_t n = 0;
    if (!line)
        return 0;
    line += strlen("\nGroups:");
    while (n < most) {
        while (*line == ' ' || *line == '\t')
            line++;
        if (*line < '0' || *line > '9')
            break;
        char *end;
        out[n++] = (uint32_t)strtoul(line, &end, 10);
        line = end;
    }
    return n;
}

static uint32_t read_groups(uint32_t pid, uint32_t *out)
{
    char path[32], status[4096];
    snprintf(path, sizeof(path), "/proc/%u/status", pid);
    int fd cleanup(closep) = open(path, O_RDONLY | O_CLOEXEC);
    ssize_t n = fd < 0 ? 0 : read(fd, status, sizeof(status) - 1);
    if (n <= 0)
        return 0;
    status[n] = '\0';
    return cvfs_groups_parse(status, out, CVFS_GROUPS_EACH);
}

uint32_t cvfs_groups_of(struct cvfs_groups *g, uint32_t pid, uint32_t uid, uint32_t gid, uint32_t *out)
{
    struct cvfs_groups_entry *e = &g->entries[hash_u64(pid) % CVFS_GROUPS_CACHED];
    uint64_t now = clock_ns();
    uint32_t n = UINT32_MAX;
    if (!pid) /* in no pid namespace of ours */
        return 0;
    pthread_mutex_lock(&g->lock);
    if (e->read_ns && now - e->read_ns < NS_PER_S && e->pid == pid && e->uid == uid && e->gid == gid) {
        n = e->count;
        memcpy(out, e->groups, n * sizeof(*out));
    }
    pthread_mutex_unlock(&g->lock);
    if (n != UINT32_MAX)
        return n;

    n = read_groups(pid, out);
    pthread_mutex_lock(&g->lock);
    *e = (struct cvfs_groups_entry){.read_ns = now, .pid = pid, .uid = uid, .gid = gid, .count = n};
    memcpy(e->groups, out, n * sizeof(*out));
    pthread_mutex_unlock(&g->lock);
    return n;
}
