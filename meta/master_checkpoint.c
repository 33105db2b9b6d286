/* SPDX-License-Identifier: Apache-2.0 */
#include "meta/master_checkpoint.h"

#include <dirent.h>
#include <errno.h>
#include <stdio.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/clock.h"
#include "base/error.h"
#include "base/log.h"
#include "base/random.h"
#include "wire/link.h"

#define NEW "new." /* in front of the name of what is being made */

char *master_checkpoint_path(const char *dir, const char *prefix, uint64_t id)
{
    char *path;
    return asprintf(&path, "%s/%s%016llx", dir, prefix, (unsigned long long)id) < 0 ? NULL : path;
}

/* Checksums, and to disk: RocksDB synced what it wrote, the directory entries are ours. */
static int describe(const char *path, struct uuid cluster, struct manifest *m)
{
    struct meta_state state;
    int r = master_store_peek(path, cluster, &state);
    if (r < 0)
        return r;
    m->id = random_u64();
    m->cluster = cluster;
    m->index = state.applied;
    m->created_ns = clock_wall_ns();
    m->state_version = LINK_STATE_VERSION;
    m->incarnation = state.incarnation;
    r = manifest_scan(path, m);
    if (r == 0)
        r = manifest_write(path, m);
    return r == 0 ? manifest_sync(path, m) : r;
}

static int make_in(const char *temporary, struct master_store *store, struct uuid cluster, const char *dir,
                   const char *prefix, uint64_t id, struct manifest *m)
{
    int r = master_store_checkpoint(store, temporary);
    if (r == 0)
        r = describe(temporary, cluster, m);
    char *path cleanup(freep) = r == 0 ? master_checkpoint_path(dir, prefix, id ? id : m->index) : NULL;
    if (r == 0 && !path)
        r = -ENOMEM;
    if (r == 0)
        r = manifest_remove_dir(path); /* one of the same index, of an earlier life */
    if (r == 0 && rename(temporary, path) < 0)
        r = -errno;
    return r == 0 ? manifest_sync_dir(dir) : r;
}

int master_checkpoint_make(struct master_store *store, struct uuid cluster, const char *dir, const char *prefix,
                           uint64_t id, struct manifest *ret)
{
    uint64_t began = clock_ns();
    char *temporary cleanup(freep) = master_checkpoint_path(dir, NEW, random_u64());
    if (!temporary)
        return -ENOMEM;
    struct manifest m = {.id = 0};
    int r = make_in(temporary, store, cluster, dir, prefix, id, &m);
    if (r < 0) {
        manifest_fini(&m);
        (void)manifest_remove_dir(temporary);
        return r;
    }
    log_info("checkpoint of the metadata at log entry %llu: %llu bytes in %u files, made in %llu ms",
             (unsigned long long)m.index, (unsigned long long)manifest_bytes(&m), m.file_count,
             (unsigned long long)((clock_ns() - began) / NS_PER_MS));
    *ret = m;
    return 0;
}

void master_checkpoint_remove_all(const char *dir, const char *prefix)
{
    DIR *d = opendir(dir);
    if (!d)
        return;
    for (struct dirent *e; (e = readdir(d));) {
        if (strncmp(e->d_name, prefix, strlen(prefix)) != 0 && strncmp(e->d_name, NEW, strlen(NEW)) != 0)
            continue;
        char *path cleanup(freep) = NULL;
        int r = asprintf(&path, "%s/%s", dir, e->d_name) < 0 ? -ENOMEM : manifest_remove_dir(path);
        if (r < 0)
            log_warn(r, "remove '%s' in %s", e->d_name, dir);
    }
    closedir(d);
}
