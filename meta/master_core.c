/* SPDX-License-Identifier: Apache-2.0 */
#include "meta/master_core.h"

#include <errno.h>
#include <stdio.h>
#include <string.h>

#include "base/clock.h"
#include "base/error.h"
#include "base/log.h"

/* A while longer than the journal takes to find another one, LINK_HAND_OVER_MS there. */
#define HAND_OVER_NS (5 * NS_PER_S)

/* "Only the disk knows" is the core's "not prepared". */
static int base_error(int r)
{
    return r == -EAGAIN ? -CV_NOT_PREPARED : r;
}

static int base_get(void *context, enum meta_family family, struct text key, bool memory, struct buf *value)
{
    struct master_value v = {0};
    int r = memory ? master_store_try(context, family, key, &v) : master_store_get(context, family, key, &v);
    if (r == 0)
        r = buf_append(value, v.text.p, v.text.n);
    master_value_release(&v);
    return base_error(r);
}

static int base_scan(void *context, enum meta_family family, struct text prefix, struct text from, bool memory,
                     bool (*each)(void *arg, struct text key, struct text value), void *arg)
{
    struct master_iter *it cleanup(master_iter_free_p) = NULL;
    int r = master_iter_new(context, family, memory, &it);
    if (r < 0)
        return r;
    for (bool more = master_iter_seek(it, from); more; more = master_iter_next(it)) {
        struct text key = master_iter_key(it);
        if (key.n < prefix.n || memcmp(key.p, prefix.p, prefix.n) != 0 || !each(arg, key, master_iter_value(it)))
            break;
    }
    return base_error(master_iter_error(it));
}

int master_core_init(struct master_core *c, const struct meta_options *options, struct master_store *store)
{
    *c = (struct master_core){
        .store = store,
        .base = {.context = store, .get = base_get, .scan = base_scan},
    };
    int r = meta_new(options, &c->base, &c->meta);
    if (r < 0)
        return r;
    pthread_rwlockattr_t a;
    pthread_rwlockattr_init(&a);
    pthread_rwlockattr_setkind_np(&a, PTHREAD_RWLOCK_PREFER_WRITER_NONRECURSIVE_NP);
    pthread_rwlock_init(&c->lock, &a);
    pthread_rwlockattr_destroy(&a);
    return 0;
}

void master_core_set_leader(struct master_core *c, uint64_t leader, uint64_t term, struct text address)
{
    bool same = c->leader == leader && c->leader_term == term && text_equal(address, text_of(c->leader_address));
    if (same)
        return;
    master_core_write_lock(c);
    c->leader = leader;
    c->leader_term = term;
    snprintf(c->leader_address, sizeof(c->leader_address), TEXT_FMT, TEXT_ARG(address));
    master_core_unlock(c);
}

void master_core_leader(struct master_core *c, char address[MASTER_ADDRESS_SIZE], struct msg_leader_answer *ret)
{
    master_core_read_lock(c);
    memcpy(address, c->leader_address, MASTER_ADDRESS_SIZE);
    *ret = (struct msg_leader_answer){.node = c->leader, .term = c->leader_term, .address = text_of(address)};
    master_core_unlock(c);
    ret->serving = master_core_leads(c);
}

void master_core_note_disk(struct master_core *c, enum master_disk disk, bool low)
{
    const char *whose = disk == MASTER_DISK_OWN ? "this master" : "its journal";
    uint32_t before = c->disks_low, now = low ? before | disk : before & ~(uint32_t)disk;
    if (now == before)
        return;
    c->disks_low = now;
    if (low)
        log_warn(-ENOSPC,
                 "the file system of %s is nearly full: another master leads, if one can; free space on it, or lower "
                 "disk_reserve_bytes",
                 whose);
    else
        log_info("the file system of %s has room again", whose);
}

void master_core_refuse_new(struct master_core *c, bool refuse)
{
    if (c->refuses_new == refuse)
        return;
    master_core_write_lock(c);
    c->refuses_new = refuse;
    meta_set_full(c->meta, refuse);
    master_core_unlock(c);
    if (refuse)
        log_warn(-ENOSPC,
                 "nothing new is made, names can be removed: a disk is nearly full, and no other master can lead");
    else
        log_info("new names are made again");
}

int master_core_damaged(struct master_core *c, int error)
{
    uint64_t now = clock_ns(), none = 0;
    if (atomic_compare_exchange_strong(&c->damaged_ns, &none, now))
        log_error(error, "read the metadata database: another master leads, if one can; look at the disk (dmesg), then "
                         "bring this node back "
                         "as one that lost its disk: cv raft replace");
    bool alone = atomic_load(&c->lease_until_ns) == UINT64_MAX;
    return !alone && now - min((uint64_t)c->damaged_ns, now) < HAND_OVER_NS ? -CV_BUSY : error;
}

void master_core_fini(struct master_core *c)
{
    if (!c->meta)
        return;
    c->meta = meta_free(c->meta);
    pthread_rwlock_destroy(&c->lock);
}
