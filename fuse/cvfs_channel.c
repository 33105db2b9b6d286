/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The descriptor. Each thread reads a descriptor of its own (a clone, where /dev/fuse may be opened) into a free slot and
 * dispatches what came. The slots are one memfd, so that a request is on record outside of this process's memory the
 * moment the kernel has copied it: whoever holds the memfd and the descriptor can go on after us.
 *
 * No free slot: nobody reads, and the kernel holds callers back. Slots are used again newest first, so few of them ever get
 * memory; of those that carried bulk data CVFS_WARM_MAX keep theirs while idle.
 */
#include <assert.h>
#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdio.h>
#include <sys/mman.h>

#include "base/clock.h"
#include "base/error.h"
#include "base/log.h"
#include "fuse/cvfs_internal.h"

#define WARM_BYTES 65536u
#define KICK       SIGURG /* gets a thread out of read(2); nothing else of ours uses it */

/* ---- threads ----------------------------------------------------------------------------------------------------------- */

/* Nothing more will come. */
static void over(struct cvfs *fs, int error)
{
    if (!atomic_exchange(&fs->channel.over, true) && !atomic_load(&fs->channel.stopping) && fs->config.ended)
        fs->config.ended(fs->config.arg, error);
}

/* Returns false when the thread should end. */
static bool serve(struct cvfs_thread *t)
{
    struct cvfs *fs = t->fs;
    struct cvfs_request *r = cvfs_request_take(fs);
    if (!r)
        return false;
    ssize_t n = read(t->fd, r->slot + CVFS_WRITE_AT, fs->channel.slot_bytes - CVFS_WRITE_AT);
    if (n <= 0) {
        int error = n < 0 ? -errno : -ENODEV;
        cvfs_request_unref(r);
        if (error == -EINTR || error == -EAGAIN || error == -ENOENT) /* ENOENT: it was aborted while being read */
            return !atomic_load(&fs->channel.stopping);
        over(fs, error == -ENODEV ? 0 : error);
        return false;
    }
    r->fd = t->fd;
    if (n > WARM_BYTES)
        r->warm = true;
    atomic_fetch_add_explicit(&r->refs, 1, memory_order_relaxed); /* the operation's */
    cvfs_dispatch(r, (size_t)n);
    cvfs_request_unref(r);
    return true;
}

static void *thread_main(void *arg)
{
    struct cvfs_thread *t = arg;
    sigset_t set;
    sigemptyset(&set);
    sigaddset(&set, KICK);
    pthread_sigmask(SIG_UNBLOCK, &set, NULL);
    while (!atomic_load(&t->fs->channel.stopping) && serve(t))
        ;
    atomic_store(&t->ended, true);
    return NULL;
}

static void on_kick(int signal)
{
}

/* A descriptor of its own for each thread, or the mount's when /dev/fuse may not be opened. */
static int clone_fd(int fd)
{
    int clone = open("/dev/fuse", O_RDWR | O_CLOEXEC);
    uint32_t source = (uint32_t)fd;
    if (clone >= 0 && ioctl(clone, FUSE_DEV_IOC_CLONE, &source) < 0)
        clone = close_fd(clone);
    return clone;
}

static uint32_t thread_count(const struct cvfs_options *o)
{
    uint32_t n = o->threads;
    if (n == 0) {
        long cores = sysconf(_SC_NPROCESSORS_ONLN);
        n = cores < 2 ? 2 : (uint32_t)min(cores, 8l);
    }
    return min(min(n, max(o->requests_max / 2, 1u)), (uint32_t)CVFS_THREADS_MAX);
}

int cvfs_channel_start(struct cvfs *fs)
{
    struct cvfs_channel *c = &fs->channel;
    struct sigaction kick = {.sa_handler = on_kick}; /* without SA_RESTART: read(2) returns */
    sigaction(KICK, &kick, NULL);
    c->thread_count = thread_count(fs->options);
    for (uint32_t i = 0; i < c->thread_count; i++) {
        struct cvfs_thread *t = &c->threads[i];
        char name[16];
        t->fs = fs;
        t->fd = i == 0 ? -1 : clone_fd(c->fd);
        if (t->fd < 0)
            t->fd = c->fd;
        int r = -pthread_create(&t->thread, NULL, thread_main, t);
        if (r < 0) {
            if (t->fd != c->fd)
                close(t->fd);
            if (i > 0)
                break; /* fewer, then */
            return log_error(r, "start a thread");
        }
        t->started = true;
        snprintf(name, sizeof(name), "fuse%u", i);
        pthread_setname_np(t->thread, name);
    }
    return 0;
}

/* A thread may be about to read when it is kicked: kick until it has ended. */
static void end_thread(struct cvfs_thread *t)
{
    while (!atomic_load(&t->ended)) {
        pthread_kill(t->thread, KICK);
        nanosleep(&(struct timespec){.tv_nsec = 2 * NS_PER_MS}, NULL);
    }
    pthread_join(t->thread, NULL);
}

void cvfs_channel_stop(struct cvfs *fs)
{
    struct cvfs_channel *c = &fs->channel;
    pthread_mutex_lock(&c->lock);
    atomic_store(&c->stopping, true);
    pthread_cond_broadcast(&c->freed);
    pthread_mutex_unlock(&c->lock);
    for (uint32_t i = 0; i < c->thread_count; i++)
        if (c->threads[i].started)
            end_thread(&c->threads[i]);

    struct timespec until;
    clock_gettime(CLOCK_REALTIME, &until);
    until.tv_sec++;
    pthread_mutex_lock(&c->lock);
    while (c->idle_count < c->request_count)
        if (pthread_cond_timedwait(&c->freed, &c->lock, &until) == ETIMEDOUT) {
            pthread_mutex_unlock(&c->lock);
            cvfs_cancel_all(fs);
            pthread_mutex_lock(&c->lock);
            clock_gettime(CLOCK_REALTIME, &until);
            until.tv_sec++;
        }
    pthread_mutex_unlock(&c->lock);
}

/* ---- memory ---------------------------------------------------------------------------------------------------------------- */

static int map_slots(struct cvfs_channel *c, size_t bytes)
{
    c->memory_fd = memfd_create("cv-fuse-requests", MFD_CLOEXEC);
    if (c->memory_fd < 0 || ftruncate(c->memory_fd, (off_t)bytes) < 0)
        return -errno;
    void *p = mmap(NULL, bytes, PROT_READ | PROT_WRITE, MAP_SHARED, c->memory_fd, 0);
    if (p == MAP_FAILED)
        return -errno;
    c->memory = p;
    return 0;
}

int cvfs_channel_init(struct cvfs *fs)
{
    struct cvfs_channel *c = &fs->channel;
    uint32_t n = fs->options->requests_max;
    size_t page = (size_t)sysconf(_SC_PAGESIZE);
    c->fd = fs->config.fd;
    c->memory_fd = -1;
    pthread_mutex_init(&c->lock, NULL);
    pthread_cond_init(&c->freed, NULL);
    c->slot_bytes = (CVFS_DATA_AT + fs->options->write_bytes_max + page - 1) / page * page;
    int r = map_slots(c, c->slot_bytes * n);
    if (r < 0)
        return r;
    c->requests = calloc(n, sizeof(*c->requests));
    c->idle = calloc(n, sizeof(*c->idle));
    if (!c->requests || !c->idle)
        return -ENOMEM;
    c->request_count = n;
    for (uint32_t i = 0; i < n; i++) {
        c->requests[i].fs = fs;
        c->requests[i].slot = c->memory + c->slot_bytes * i;
        list_init(&c->requests[i].link);
        c->idle[n - 1 - i] = i;
    }
    c->idle_count = n;
    return 0;
}

void cvfs_channel_fini(struct cvfs *fs)
{
    struct cvfs_channel *c = &fs->channel;
    assert(c->idle_count == c->request_count);
    for (uint32_t i = 0; i < c->thread_count; i++)
        if (c->threads[i].started && c->threads[i].fd != c->fd)
            close(c->threads[i].fd);
    if (c->memory)
        munmap(c->memory, c->slot_bytes * c->request_count);
    close_fd(c->memory_fd);
    free(c->requests);
    free(c->idle);
    pthread_cond_destroy(&c->freed);
    pthread_mutex_destroy(&c->lock);
}
