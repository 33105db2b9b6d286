/* SPDX-License-Identifier: Apache-2.0 */
/* The scribe's part in administration: questions for the journal, and flushes on demand. */
#include <errno.h>
#include <inttypes.h>

#include "meta/master_admin.h"
#include "meta/master_scribe_internal.h"

static void finish(struct master_admin *a, int result)
{
    list_remove(&a->link);
    a->result = result;
    master_admin_done(a);
}

/* ---- flush ---------------------------------------------------------------------------------------------------------- */

static void answer_flushed(struct master_admin *a, uint64_t flushed)
{
    (void)buf_printf(&a->text, "{\"flushed\":%" PRIu64 "}", flushed);
    finish(a, 0);
}

void scribe_admin_flushed(struct master_scribe *s)
{
    uint64_t flushed = master_store_flushed(s->core->store);
    list_for_each_safe (e, &s->admins) {
        struct master_admin *a = list_entry(e, struct master_admin, link);
        if (a->context || flushed < a->flushed_to)
            continue;
        if (a->backup)
            scribe_backup_flushed(s, a);
        else
            answer_flushed(a, flushed);
    }
}

bool scribe_admin_wants_flush(const struct master_scribe *s)
{
    list_for_each (e, &s->admins)
        if (!list_entry(e, struct master_admin, link)->context &&
            list_entry(e, struct master_admin, link)->flushed_to > master_store_flushed(s->core->store))
            return true;
    return false;
}

/* ---- questions for the journal ---------------------------------------------------------------------------------------- */

static int ask_journal(struct master_scribe *s, struct master_admin *a)
{
    const struct msg_raft_admin *m = &a->message;
    a->context = ++s->admin_context;
    struct msg_link_admin ask = {.context = a->context,
                                 .command = m->command,
                                 .node = m->node,
                                 .address = m->address,
                                 .client_address = m->client_address,
                                 .flags = m->flags,
                                 .from = m->from,
                                 .to = m->to};
    return master_link_admin(s->link, &ask);
}

/* This master has no journal now: it says so, and why. */
static void answer_alone(struct master_scribe *s, struct master_admin *a)
{
    a->error = CV_UNREACHABLE;
    finish(a, master_link_why(s->link, &a->text));
}

static void admin_run(struct loop_job *job)
{
    struct master_admin *a = container_of(job, struct master_admin, job);
    struct master_scribe *s = a->scribe;
    list_push_back(&s->admins, &a->link);
    if (!s->stopping && scribe_backup_is(a))
        return scribe_backup_asked(s, a);
    if (s->stopping)
        return finish(a, -CV_STOPPING);
    if (text_equal(a->message.command, TEXT("snapshot"))) {
        a->flushed_to = s->applied;
        if (master_store_flushed(s->core->store) >= a->flushed_to)
            answer_flushed(a, master_store_flushed(s->core->store));
        else
            scribe_ask_for_turn(s);
        return;
    }
    int r = ask_journal(s, a);
    if (r == -CV_CLOSED)
        answer_alone(s, a);
    else if (r < 0)
        finish(a, r);
}

void master_scribe_admin(struct master_scribe *s, struct master_admin *a)
{
    a->scribe = s;
    a->job.run = admin_run;
    loop_post(s->loop, &a->job);
}

void scribe_admin_answered(struct master_scribe *s, const struct msg_link_admin_answer *answer)
{
    list_for_each_safe (e, &s->admins) {
        struct master_admin *a = list_entry(e, struct master_admin, link);
        if (a->context != answer->context)
            continue;
        a->error = answer->error;
        int r = buf_append(&a->text, answer->text.p, answer->text.n);
        return finish(a, r);
    }
}

/* Nobody will answer: the link is gone, or (stopping) all of it. */
void scribe_admin_fail(struct master_scribe *s, int error, bool stopping)
{
    list_for_each_safe (e, &s->admins) {
        struct master_admin *a = list_entry(e, struct master_admin, link);
        if ((a->context || stopping) && a != s->backup.admin)
            finish(a, error);
    }
}
