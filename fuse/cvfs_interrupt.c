/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Requests whose caller does not want to wait any more. The kernel tells us of every signal its caller gets, also of those
 * that programs expect to change nothing (SIGCHLD, SIGALRM, a runtime's own): answering EINTR to those would break programs
 * that know it cannot happen on a disk. So: who is being killed is let go at once; anybody else's request is cancelled only
 * if it is still not done CANCEL_AFTER_MS later. A thread of its own does that, since cancelling waits for the library.
 */
#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdio.h>

#include "base/clock.h"
#include "fuse/cvfs_internal.h"

#define CANCEL_AFTER_MS 1000
#define LOOK_MS         50

/* Is SIGKILL pending for this thread or its process? */
static bool is_killed(uint32_t tid)
{
    char path[32], status[4096];
    snprintf(path, sizeof(path), "/proc/%u/status", tid);
    int fd cleanup(closep) = open(path, O_RDONLY | O_CLOEXEC);
    ssize_t n = fd < 0 ? -1 : read(fd, status, sizeof(status) - 1);
    if (n <= 0)
        return fd < 0; /* it is gone already */
    status[n] = '\0';
    static const char *const fields[] = {"\nSigPnd:", "\nShdPnd:"};
    for (size_t i = 0; i < array_size(fields); i++) {
        const char *p = strstr(status, fields[i]);
        if (p && strtoull(p + strlen(fields[i]), NULL, 16) & 1ull << (SIGKILL - 1))
            return true;
    }
    return false;
}

static bool cancel_one(struct cvfs_request *r)
{
    if (!atomic_load(&r->cancellable))
        return false;
    curvine_cancel(r->fs->client, &r->q);
    return true;
}

/* Cancel what is due; returns how many are not yet. */
static uint32_t look(struct cvfs *fs)
{
    uint64_t now = clock_ns();
    uint32_t left = 0;
    for (uint32_t i = 0; i < fs->channel.request_count; i++) {
        struct cvfs_request *r = &fs->channel.requests[i];
        uint64_t unique = atomic_load(&r->unique), since = atomic_load(&r->interrupted);
        if (!unique || !since || !cvfs_request_ref_unique(r, unique))
            continue;
        bool due = now - since >= CANCEL_AFTER_MS * NS_PER_MS || is_killed(r->in->pid);
        if (!due || !cancel_one(r))
            left++;
        cvfs_request_unref(r);
    }
    return left;
}

static void *interrupts_main(void *arg)
{
    struct cvfs *fs = arg;
    struct cvfs_interrupts *s = &fs->interrupts;
    pthread_mutex_lock(&s->lock);
    while (!s->stopping) {
        if (s->pending == 0) {
            pthread_cond_wait(&s->changed, &s->lock);
            continue;
        }
        s->pending = 0;
        pthread_mutex_unlock(&s->lock);
        uint32_t left = look(fs);
        if (left)
            nanosleep(&(struct timespec){.tv_nsec = LOOK_MS * NS_PER_MS}, NULL);
        pthread_mutex_lock(&s->lock);
        s->pending += left;
    }
    pthread_mutex_unlock(&s->lock);
    return NULL;
}

/* Channel thread. The kernel asks again (EAGAIN) about a request that has been read and not been dispatched yet. */
void cvfs_op_interrupt(struct cvfs_request *r)
{
    struct cvfs *fs = r->fs;
    uint64_t unique = ((const struct fuse_interrupt_in *)r->arg)->unique;
    for (uint32_t i = 0; i < fs->channel.request_count; i++) {
        struct cvfs_request *other = &fs->channel.requests[i];
        if (atomic_load(&other->unique) != unique || !cvfs_request_ref_unique(other, unique))
            continue;
        atomic_store(&other->interrupted, clock_ns());
        cvfs_request_unref(other);
        pthread_mutex_lock(&fs->interrupts.lock);
        fs->interrupts.pending++;
        pthread_cond_signal(&fs->interrupts.changed);
        pthread_mutex_unlock(&fs->interrupts.lock);
        cvfs_reply_none(r);
        return;
    }
    cvfs_reply_error(r, -EAGAIN);
}

void cvfs_cancel_all(struct cvfs *fs)
{
    for (uint32_t i = 0; i < fs->channel.request_count; i++) {
        struct cvfs_request *r = &fs->channel.requests[i];
        uint64_t unique = atomic_load(&r->unique);
        if (unique && cvfs_request_ref_unique(r, unique)) {
            cancel_one(r);
            cvfs_request_unref(r);
        }
    }
}

int cvfs_interrupts_start(struct cvfs *fs)
{
    struct cvfs_interrupts *s = &fs->interrupts;
    int r = -pthread_create(&s->thread, NULL, interrupts_main, fs);
    if (r == 0) {
        s->started = true;
        pthread_setname_np(s->thread, "interrupts");
    }
    return r;
}

void cvfs_interrupts_stop(struct cvfs *fs)
{
    struct cvfs_interrupts *s = &fs->interrupts;
    if (!s->started)
        return;
    pthread_mutex_lock(&s->lock);
    s->stopping = true;
    pthread_cond_signal(&s->changed);
    pthread_mutex_unlock(&s->lock);
    pthread_join(s->thread, NULL);
    s->started = false;
}
