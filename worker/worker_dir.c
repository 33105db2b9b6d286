/* SPDX-License-Identifier: Apache-2.0 */
#include "worker/worker_dir.h"

#include <errno.h>
#include <stdio.h>
#include <sys/stat.h>
#include <sys/statvfs.h>

#include "base/error.h"
#include "base/log.h"
#include "base/random.h"

#define CAPACITY_MIN (64ull << 20)

static const char *const kind_names[] = {[BLOCK_MEM] = "MEM", [BLOCK_SSD] = "SSD", [BLOCK_HDD] = "HDD"};

const char *worker_kind_name(enum block_kind kind)
{
    return kind_names[kind];
}

static bool parse_kind(const char *text, enum block_kind *ret)
{
    for (size_t i = 0; i < array_size(kind_names); i++)
        if (strcmp(text, kind_names[i]) == 0) {
            *ret = (enum block_kind)i;
            return true;
        }
    return false;
}

int worker_dir_parse(const char *text, struct worker_dir *ret)
{
    struct worker_dir d = {.kind = BLOCK_SSD};
    const char *path = text;
    if (text[0] == '[') {
        const char *end = strchr(text, ']');
        char inside[64];
        if (!end || (size_t)(end - text) > sizeof(inside))
            return -EINVAL;
        snprintf(inside, sizeof(inside), "%.*s", (int)(end - text - 1), text + 1);
        path = end + 1;
        char *size = strchr(inside, ':');
        if (size)
            *size++ = 0;
        if (inside[0] && !parse_kind(inside, &d.kind)) {
            if (size)
                return -EINVAL;
            size = inside;
        }
        if (size && *size && parse_size(size, &d.capacity_bytes) < 0)
            return -EINVAL;
    }
    if (!path[0])
        return -EINVAL;
    if (snprintf(d.path, sizeof(d.path), "%s", path) >= (int)sizeof(d.path))
        return -ENAMETOOLONG;
    *ret = d;
    return 0;
}

int worker_dir_choose(const struct worker_options *o, const char *override, struct worker_dir *ret)
{
    const char *text = override ? override : o->dirs.items[0];
    if (!override && o->dirs.n > 1)
        return log_error(-EINVAL, "worker.dirs names %u directories: one is supported for now", o->dirs.n);
    int r = worker_dir_parse(text, ret);
    return r < 0 ? log_error(r, "directory '%s' (write [KIND:SIZE]PATH, e.g. [SSD:100GiB]/data)", text) : 0;
}

int worker_dir_format(const struct worker_dir *d, struct uuid cluster, uint64_t *ret_worker)
{
    struct block_identity_options id = {.worker_id = random_u64(), .directory_id = 1, .kind = d->kind};
    memcpy(id.cluster, cluster.b, UUID_SIZE);
    if (mkdir(d->path, 0700) < 0 && errno != EEXIST)
        return -errno;
    int r = block_store_format(d->path, &id);
    if (r == 0)
        *ret_worker = id.worker_id;
    return r;
}

/* The store wants 5 % of the file system free (it notices when others fill it). */
static uint64_t default_capacity(const char *path, uint64_t reserve)
{
    struct statvfs v;
    if (statvfs(path, &v) < 0)
        return CAPACITY_MIN;
    uint64_t total = (uint64_t)v.f_blocks * v.f_frsize / 100 * 95;
    return total > reserve + CAPACITY_MIN ? total - reserve : max(total / 2, CAPACITY_MIN);
}

int worker_dir_open(struct worker_dir *d, const struct worker_options *o, struct block_identity_options *ret_identity,
                    struct block_store **ret)
{
    int r = block_store_identity(d->path, ret_identity);
    if (r == -CV_NOT_FORMATTED)
        return log_error(r, "data directory '%s' (cv cluster init formats it, or cv-worker format)", d->path);
    if (r < 0)
        return log_error(r, "data directory '%s'", d->path);
    if (!d->capacity_bytes)
        d->capacity_bytes = default_capacity(d->path, o->reserve_bytes);
    d->kind = ret_identity->kind;
    struct block_store_options so = {
        .dir_count = 1,
        .worker_id = ret_identity->worker_id,
        .index_cache_bytes = o->index_cache_bytes,
    };
    so.dirs[0].path = d->path;
    so.dirs[0].capacity_bytes = d->capacity_bytes;
    memcpy(so.cluster, ret_identity->cluster, sizeof(so.cluster));
    r = block_store_open(&so, ret);
    return r < 0 ? log_error(r, "block store in '%s'", d->path) : 0;
}
