/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Backups, the scribe's part (cv backup): a checkpoint beside the state, for somebody on this host who copies it and then
 * says that it may go. What nobody ends goes when the master starts again.
 */
#include <errno.h>
#include <inttypes.h>
#include <stdio.h>
#include <unistd.h>

#include "meta/master_admin.h"
#include "meta/master_checkpoint.h"
#include "meta/master_scribe_internal.h"

bool scribe_backup_is(const struct master_admin *a)
{
    return text_equal(a->message.command, TEXT("backup")) || text_equal(a->message.command, TEXT("backup-end"));
}

static void finish(struct master_admin *a, int error)
{
    list_remove(&a->link);
    a->error = (uint32_t)-error;
    master_admin_done(a);
}

static int make(void *arg)
{
    struct master_scribe *s = arg;
    return master_checkpoint_make(s->core->store, s->o.cluster, s->o.dir, MASTER_BACKUP_PREFIX,
                                  s->backup.admin->message.node, &s->backup.manifest);
}

static void made(struct io_op *op, int result)
{
    struct master_scribe *s = container_of(op, struct master_scribe, backup.op);
    struct master_admin *a = take(s->backup.admin);
    const struct manifest *m = &s->backup.manifest;
    if (result == 0)
        (void)buf_printf(&a->text,
                         "{\"directory\":\"%s/" MASTER_BACKUP_PREFIX "%016" PRIx64 "\",\"index\":%" PRIu64
                         ",\"bytes\":%" PRIu64 ",\"files\":%u}",
                         s->o.dir, a->message.node, m->index, manifest_bytes(m), m->file_count);
    else
        (void)buf_printf(&a->text, "checkpoint of the metadata in %s: %s", s->o.dir, cv_error_text(result));
    manifest_fini(&s->backup.manifest);
    finish(a, result);
    scribe_ask_for_turn(s); /* stopping may wait for us */
}

static int drop(void *arg)
{
    struct master_scribe *s = arg;
    char *path cleanup(freep) = master_checkpoint_path(s->o.dir, MASTER_BACKUP_PREFIX, s->backup.admin->message.node);
    return path ? manifest_remove_dir(path) : -ENOMEM;
}

static void dropped(struct io_op *op, int result)
{
    struct master_scribe *s = container_of(op, struct master_scribe, backup.op);
    finish(take(s->backup.admin), result);
    scribe_ask_for_turn(s);
}

void scribe_backup_flushed(struct master_scribe *s, struct master_admin *a)
{
    if (s->backup.admin == a)
        return;
    if (s->backup.admin)
        return finish(a, -CV_BUSY);
    s->backup.admin = a;
    io_work(s->loop, &s->backup.op, make, s, made);
}

void scribe_backup_asked(struct master_scribe *s, struct master_admin *a)
{
    char host[256] = "";
    (void)gethostname(host, sizeof(host) - 1);
    a->backup = true;
    a->flushed_to = 0;
    if (!text_equal(a->message.address, text_of(host))) {
        (void)buf_printf(&a->text, "this master is on host %s: a backup is made on a host of a master", host);
        return finish(a, -EXDEV);
    }
    if (!s->o.dir || a->message.node == 0)
        return finish(a, -EINVAL);
    if (s->backup.admin)
        return finish(a, -CV_BUSY);
    if (text_equal(a->message.command, TEXT("backup-end"))) {
        s->backup.admin = a;
        io_work(s->loop, &s->backup.op, drop, s, dropped);
        return;
    }
    a->flushed_to = s->applied;
    if (master_store_flushed(s->core->store) >= a->flushed_to)
        scribe_backup_flushed(s, a);
    else
        scribe_ask_for_turn(s);
}
