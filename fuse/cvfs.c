/* SPDX-License-Identifier: Apache-2.0 */
/* Starting and stopping. */
#include "fuse/cvfs.h"

#include <errno.h>
#include <fcntl.h>
#include <semaphore.h>

#include "base/clock.h"
#include "base/error.h"
#include "base/log.h"
#include "fuse/cvfs_dir.h"
#include "fuse/cvfs_internal.h"

#define LET_GO_MS 1000 /* the kernel's last requests after unmounting */

static void fill_gauges(void *arg, void *gauges)
{
    struct cvfs *fs = arg;
    struct cvfs_gauges *g = gauges;
    pthread_mutex_lock(&fs->channel.lock);
    uint32_t busy = fs->channel.request_count - fs->channel.idle_count, reading = fs->channel.thread_count;
    pthread_mutex_unlock(&fs->channel.lock);
    g->requests = busy > reading ? busy - reading : 0;
    g->handles = cvfs_handles_open(&fs->handles);
}

int cvfs_new(const struct cvfs_config *config, struct cvfs **ret)
{
    static _Atomic uint64_t numbers;
    struct cvfs *fs cleanup(cvfs_free_p) = calloc(1, sizeof(*fs));
    if (!fs)
        return -ENOMEM;
    fs->config = *config;
    fs->options = config->options;
    fs->client = config->client;
    fs->number = atomic_fetch_add(&numbers, 1) + 1;
    pthread_mutex_init(&fs->metrics_lock, NULL);
    pthread_mutex_init(&fs->interrupts.lock, NULL);
    pthread_cond_init(&fs->interrupts.changed, NULL);
    cvfs_handles_init(&fs->handles);
    cvfs_groups_init(&fs->groups);
    int r = cvfs_nodes_init(&fs->nodes);
    int channel = cvfs_channel_init(fs); /* both, so that both can be freed */
    if (r == 0)
        r = channel;
    if (r == 0 && config->metrics)
        r = metrics_set_gauges(config->metrics, &cvfs_metric_set, fill_gauges, fs);
    if (r < 0)
        return r;
    *ret = take(fs);
    return 0;
}

int cvfs_start(struct cvfs *fs)
{
    int r = cvfs_init_answer(fs);
    if (r == 0)
        r = cvfs_interrupts_start(fs);
    if (r == 0)
        r = cvfs_channel_start(fs);
    return r;
}

/* What is still open is released, so that what was written to it is kept. */
static void release_all(struct cvfs *fs)
{
    uint32_t position = 0;
    for (uint64_t number; cvfs_handle_next(&fs->handles, &position, &number);) {
        struct cvfs_handle *h = cvfs_handle_get(&fs->handles, number);
        if (h->dir) {
            cvfs_dir_free(h->dir);
        } else {
            struct curvine_request q = {
                .op = CURVINE_RELEASE,
                .inode = h->inode,
                .file = h->file,
                .timeout_ms = (uint32_t)fs->options->deadline_ms,
            };
            int r = curvine_run(fs->client, &q);
            if (r < 0)
                log_error(r, "inode %llu was open: what was written to it last may be lost",
                          (unsigned long long)h->inode);
            curvine_request_free(&q);
        }
        cvfs_handle_release(&fs->handles, number);
    }
}

void cvfs_stop(struct cvfs *fs)
{
    uint64_t until = clock_ms() + LET_GO_MS;
    while (fs->channel.thread_count && !atomic_load(&fs->channel.over) && clock_ms() < until)
        nanosleep(&(struct timespec){.tv_nsec = 5 * NS_PER_MS}, NULL);
    cvfs_channel_stop(fs);
    cvfs_interrupts_stop(fs);
    release_all(fs);
}

struct cvfs *cvfs_free(struct cvfs *fs)
{
    if (!fs)
        return NULL;
    if (fs->config.metrics)
        metrics_set_gauges(fs->config.metrics, &cvfs_metric_set, NULL, NULL);
    for (struct cvfs_block *b = fs->blocks, *next; b; b = next) {
        next = b->next;
        metrics_block_free(fs->config.metrics, &cvfs_metric_set, b->metrics);
        free(b);
    }
    cvfs_channel_fini(fs);
    cvfs_nodes_fini(&fs->nodes);
    cvfs_groups_fini(&fs->groups);
    cvfs_handles_fini(&fs->handles);
    pthread_cond_destroy(&fs->interrupts.changed);
    pthread_mutex_destroy(&fs->interrupts.lock);
    pthread_mutex_destroy(&fs->metrics_lock);
    free(fs);
    return NULL;
}
