/* SPDX-License-Identifier: Apache-2.0 */
#include "raft/journal_digest.h"

#include <errno.h>
#include <inttypes.h>

#include "base/error.h"
#include "raft/journal_format.h"
#include "raft/journal_status.h"

enum { READ_BYTES = 1 << 20 };

/* What is no damage, but a question that cannot be answered. */
static bool is_error(int r)
{
    return r == -ENOENT || r == -ENOMEM;
}

int journal_digest_read(const struct journal_store *s, struct journal_digest *d)
{
    struct journal_read read cleanup(journal_read_fini) = {.count = 0};
    uint64_t chain, to = min(d->last, d->commit);
    to = min(to, d->to - d->from < DIGEST_ENTRIES_MAX ? d->to : d->from + DIGEST_ENTRIES_MAX - 1);
    d->digest = d->damaged = d->before = d->covered = 0;
    if (d->from == 0)
        return 0;
    d->covered = d->from - 1;
    if (d->from > d->to || d->from < d->first || d->from > to)
        return -ENOENT;
    int r = journal_store_chain(s, d->from - 1, &d->before);
    if (r < 0)
        return is_error(r) ? r : (d->damaged = d->from - 1, 0);
    chain = d->before;
    for (uint64_t at = d->from; at <= to; at += read.count) {
        r = journal_store_read(s, at, to, READ_BYTES, &read);
        if (is_error(r))
            return r;
        if (r < 0) {
            d->damaged = at + read.count;
            return 0;
        }
        for (uint32_t i = 0; i < read.count; i++) {
            const struct journal_entry *e = &read.entries[i];
            chain = journal_chain(chain, e->term, e->type, e->data, e->size);
            if (chain != e->chain) {
                d->damaged = e->index;
                return 0;
            }
            d->digest = journal_chain(d->digest, e->term, e->type, e->data, e->size);
            d->covered = e->index;
        }
    }
    return 0;
}

int journal_digest_write(const struct journal_digest *d, uint64_t node, struct buf *out)
{
    char text[17];
    return buf_printf(out,
                      "{\"node\":\"%s\",\"first\":%" PRIu64 ",\"last\":%" PRIu64 ",\"commit\":%" PRIu64
                      ",\"from\":%" PRIu64 ",\"covered\":%" PRIu64 ",\"digest\":\"%016" PRIx64
                      "\",\"before\":\"%016" PRIx64 "\",\"damaged\":%" PRIu64 "}",
                      journal_node_text(node, text), d->first, d->last, d->commit, d->from, d->covered, d->digest,
                      d->before, d->damaged);
}

static int work(void *arg)
{
    struct journal_digest_job *job = arg;
    return journal_digest_read(job->store, &job->digest);
}

static void worked(struct io_op *op, int result)
{
    struct journal_digest_job *job = container_of(op, struct journal_digest_job, op);
    job->done(job, result);
}

void journal_digest_start(struct loop *loop, struct journal_driver *driver, struct journal_digest_job *job)
{
    const struct journal_view *v = journal_driver_view(driver);
    job->store = journal_driver_store(driver);
    job->digest.first = v->first;
    job->digest.last = v->durable;
    job->digest.commit = v->commit;
    io_work(loop, &job->op, work, job, worked);
}
