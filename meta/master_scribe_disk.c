/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The file system of the metadata database. Less free than the reserve: another master should lead, and does if one can; what
 * is committed is still written. Much less: nothing is written any more, because a database that fails in the middle has to
 * be opened anew; what is committed stays in memory (SCRIBE_DELTA_STALL bounds it) and in the journal, which has it on disk.
 *
 *      room --< reserve--> low: hands over, refuses nothing --nobody else can: the journal says so--> refuses what is new
 *       ^                   |
 *       '-- an eighth more -'--< a quarter of it, 64 MiB at most--> held: writes nothing
 *
 * A write that fails with ENOSPC in spite of it ends in master_keeper.h: opened anew when there is room.
 */
#include <sys/statvfs.h>

#include "meta/master_scribe_internal.h"

enum { HELD_BYTES = 64 << 20 };

void scribe_look_at_disk(struct master_scribe *s)
{
    struct master_core *c = s->core;
    uint64_t reserve = s->options->disk_reserve_bytes;
    struct statvfs fs;
    if (statvfs(s->options->dir, &fs) < 0)
        return;
    bool was = c->disks_low & MASTER_DISK_OWN, held = c->disk_held;
    s->disk_untold |= c->damaged_ns && !s->damage_told;
    s->damage_told = c->damaged_ns;
    c->disk_free = (uint64_t)fs.f_bavail * fs.f_frsize;
    bool low = c->disk_free < reserve + (was ? reserve / 8 : 0);
    c->disk_held = c->disk_free < min(reserve / 4, (uint64_t)HELD_BYTES);
    master_core_note_disk(c, MASTER_DISK_OWN, low);
    if (c->disk_held && !held)
        log_warn(-ENOSPC, "the file system of this master is full: its database is not written until there is room");
    s->disk_untold |= low != was;
}

bool scribe_may_write(const struct master_scribe *s)
{
    return !s->broken && !s->core->disk_held;
}

enum link_unfit scribe_unfit(const struct master_scribe *s)
{
    return s->stopping || s->broken               ? LINK_UNFIT_STOPS
           : s->core->damaged_ns                  ? LINK_UNFIT_DAMAGE
           : s->core->disks_low & MASTER_DISK_OWN ? LINK_UNFIT_DISK
                                                  : LINK_FIT;
}
