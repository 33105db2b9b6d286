/* SPDX-License-Identifier: Apache-2.0 */
/* What the core refuses: an error, and nothing changes. */
#include "sim_lone.h"

#include <string.h>

#include "base/bytes.h"

static void want(struct lone *l, int r, int expected, const char *what)
{
    expect(l->w, r == expected, "%s gets %s, not %s", what, r ? cv_error_name(r) : "ok", cv_error_name(expected));
    expect(l->w, r == 0 || !l->raft || (l->out.write.seq == 0 && l->out.send_count == 0), "%s: refused, but it acts",
           what);
}

CASE(refused_start, 1, "options and states on disk that contradict themselves")
{
    struct lone l;
#define BAD(expected, change)                                                                                          \
    do {                                                                                                               \
        lone_init(&l, w, 3);                                                                                           \
        change;                                                                                                        \
        want(&l, lone_start(&l), expected, #change);                                                                   \
        lone_fini(&l);                                                                                                 \
    } while (0)
    BAD(-EINVAL, l.options.id = 0);
    BAD(-EINVAL, l.options.heartbeat_ms = 200);
    BAD(-EINVAL, l.options.drift_percent = 60);
    BAD(-EINVAL, l.options.append_entries_max = 65);
    BAD(-EINVAL, l.options.election_ms = 700000);
    BAD(-CV_LOG_DAMAGED, l.restart.first = 0);
    BAD(-CV_LOG_DAMAGED, l.restart.first = 9);
    BAD(-CV_LOG_DAMAGED, l.restart.conf_count = 3);
    BAD(-CV_LOG_DAMAGED, l.restart.base_term = 1);
    BAD(-CV_LOG_DAMAGED, l.restart.first = 2);
    BAD(-CV_LOG_DAMAGED, l.runs[0].first = 2);
    BAD(-CV_LOG_DAMAGED, l.runs[0].first = 0);
    BAD(-CV_LOG_DAMAGED, l.runs[0].term = 0);
    BAD(-CV_LOG_DAMAGED, l.runs[0].term = 9);
    BAD(-CV_LOG_DAMAGED, l.restart.run_count = 0);
    BAD(-CV_LOG_DAMAGED, l.restart.run_count = 2); /* the second is all zero */
    BAD(-CV_LOG_DAMAGED, (l.restart.run_count = 2, l.runs[1] = (struct raft_run){2, 1}));
    BAD(-CV_LOG_DAMAGED, (l.restart.run_count = 2, l.runs[1] = (struct raft_run){9, 1}));
    BAD(-CV_LOG_DAMAGED, (l.restart.run_count = 2, l.restart.base_term = 0, l.runs[0].term = 2,
                          l.runs[1] = (struct raft_run){3, 1}, l.restart.term = 2));
    BAD(-CV_LOG_DAMAGED, l.restart.conf_index[0] = 0);
    BAD(-CV_LOG_DAMAGED, l.restart.conf_index[0] = 4);
    BAD(-CV_LOG_DAMAGED, l.restart.conf[0] = NULL);
    BAD(-CV_LOG_DAMAGED, l.conf.members[0].role = 0);
    BAD(-CV_LOG_DAMAGED, (l.restart.conf_count = 2, l.restart.conf_index[1] = 1, l.restart.conf[1] = &l.conf));
    BAD(-CV_LOG_DAMAGED, l.restart.conf_count = 0);
    BAD(-CV_LOG_DAMAGED, l.restart.applied = 4);
    BAD(0, l.restart.applied = 2);
    lone_init(&l, w, 3);
    l.restart.last = 0;
    want(&l, lone_start(&l), -CV_LOG_DAMAGED, "runs of an empty log");
    lone_fini(&l);
}

CASE(refused_conf, 1, "configurations a cluster may not have, as values and as bytes")
{
    struct lone l;
    lone_init(&l, w, 1);
    struct raft_conf good = l.conf, conf;
    good.members[1].priority = 7;
    snprintf(good.members[1].raft_address, sizeof(good.members[1].raft_address), "host:1");
#define CONF(change)                                                                                                   \
    do {                                                                                                               \
        conf = good;                                                                                                   \
        change;                                                                                                        \
        want(&l, raft_conf_check(&conf), -EINVAL, #change);                                                            \
    } while (0)
    CONF(conf.count = RAFT_MEMBERS_MAX + 1);
    CONF(conf.members[1].id = 1);
    CONF(conf.members[0].id = 0);
    CONF(conf.members[0].role = 3);
    CONF(conf.members[0].journal_only = 2);
    CONF(memset(conf.members[0].raft_address, 'x', RAFT_ADDRESS_SIZE));
    CONF(memset(conf.members[0].client_address, 'x', RAFT_ADDRESS_SIZE));
    CONF(conf.count = 0);
    CONF((conf.count = 1, conf.members[0].journal_only = 1));
    uint8_t bytes[RAFT_CONF_ENCODED_MAX], bad[RAFT_CONF_ENCODED_MAX + 1];
    size_t n = raft_conf_encode(&good, bytes);
    want(&l, raft_conf_decode(bytes, n, &conf), 0, "a good configuration");
    expect(w, raft_conf_encode(&conf, bad) == n && memcmp(bytes, bad, n) == 0, "it is not the same after decoding");
    for (size_t cut = 0; cut < n; cut++)
        want(&l, raft_conf_decode(bytes, cut, &conf), -CV_BAD_FORMAT, "a truncated configuration");
    for (size_t at = 0; at < n; at++)
        for (int bit = 0; bit < 8; bit++) {
            memcpy(bad, bytes, n);
            bad[at] ^= (uint8_t)(1 << bit);
            int r = raft_conf_decode(bad, n, &conf);
            expect(w, r == 0 || r == -CV_BAD_FORMAT || r == -CV_FORMAT_TOO_NEW, "a flipped bit gets %s",
                   cv_error_name(r));
        }
    memcpy(bad, bytes, n);
    bad[n] = 0;
    want(&l, raft_conf_decode(bad, n + 1, &conf), -CV_BAD_FORMAT, "a trailing byte");
    for (uint64_t id = 10; conf = good, good.count < RAFT_MEMBERS_MAX; id++) {
        struct raft_member m = {.id = id, .role = RAFT_LEARNER};
        raft_conf_put(&good, &m);
    }
    struct raft_member one_more = {.id = 99, .role = RAFT_LEARNER};
    want(&l, raft_conf_put(&good, &one_more), -ENOSPC, "a seventeenth member");
}

CASE(refused_values, 1, "messages with values no sender writes")
{
    struct lone l;
    struct raft_entry e[2] = {{.term = 1, .type = RAFT_BARRIER}, {.term = 1, .type = RAFT_BARRIER}};
    struct raft_message good = {.type = RAFT_MSG_APPEND, .entries = e}, m;
    good.append.prev_index = 3;
    good.append.prev_term = good.append.last_term = 1;
    good.append.count = 2;
    lone_init(&l, w, 3);
    lone_start(&l);
#define APPEND(change)                                                                                                 \
    do {                                                                                                               \
        m = good;                                                                                                      \
        e[0] = e[1] = (struct raft_entry){.term = 1, .type = RAFT_BARRIER};                                            \
        change;                                                                                                        \
        want(&l, lone_message(&l, 2, 2, m), -CV_BAD_MESSAGE, #change);                                                 \
    } while (0)
    APPEND(m.append.count = RAFT_APPEND_ENTRIES_MAX + 1);
    APPEND(m.entries = NULL);
    APPEND(m.append.prev_index = UINT64_MAX);
    APPEND(m.append.prev_index = 0);
    APPEND(m.append.prev_term = 0);
    APPEND(e[1].term = 0);
    APPEND((e[0].term = e[1].term = 0, m.append.prev_index = m.append.prev_term = 0));
    APPEND(e[1].type = 0);
    APPEND(e[1].type = RAFT_BARRIER + 1);
    APPEND(m.append.last_term = 2);
    APPEND((e[1].term = m.append.last_term = 3));
    want(&l, lone_message(&l, 2, 0, good), -CV_BAD_MESSAGE, "term 0");
    want(&l, lone_message(&l, 2, UINT64_MAX, good), -CV_BAD_MESSAGE, "the highest term");
    m = (struct raft_message){.type = 99};
    want(&l, lone_message(&l, 2, 2, m), -CV_BAD_MESSAGE, "a type nobody knows");
    m = (struct raft_message){.type = RAFT_MSG_SNAPSHOT, .snapshot = {9, 3, 2}};
    want(&l, lone_message(&l, 2, 2, m), -CV_BAD_MESSAGE, "a snapshot of a later term");
    m.snapshot = (__typeof__(m.snapshot)){9, 1, 0};
    want(&l, lone_message(&l, 2, 2, m), -CV_BAD_MESSAGE, "a snapshot from nobody");
    e[0] = e[1] = (struct raft_entry){.term = 1, .type = RAFT_BARRIER};
    want(&l, lone_message(&l, 2, 2, good), 0, "the good one");
    lone_fini(&l);
}

/* A leader whose log begins at 6, and a peer that has nothing. */
CASE(refused_snapshot, 1, "snapshots nobody waits for, or that cannot be")
{
    struct lone l;
    lone_init(&l, w, 9);
    l.restart.first = 6;
    l.restart.base_term = 1;
    l.restart.commit = 7;
    l.options.handover_alarm_ms = 1000;
    lone_start(&l);
    struct raft_input failed = {.type = RAFT_IN_SNAPSHOT_FAILED, .snapshot_failed.peer = 2};
    want(&l, lone_step(&l, failed), -ENOENT, "a failure at a follower");
    lone_lead(&l);
    struct raft_message no = {.type = RAFT_MSG_APPEND_REPLY};
    no.append_reply.rejected = 1;
    no.append_reply.index = 9;
    want(&l, lone_message(&l, 2, l.out.term, no), 0, "a refusal");
    want(&l, lone_message(&l, 2, l.out.term, no), 0, "a refusal again");
    no.append_reply.index = 5; /* where our log begins */
    want(&l, lone_message(&l, 2, l.out.term, no), 0, "a refusal there, too");
    struct raft_input ready = {.type = RAFT_IN_SNAPSHOT_READY, .snapshot_ready = {2, 0, 7}};
    want(&l, lone_step(&l, ready), -EINVAL, "a snapshot from nobody");
    ready.snapshot_ready.source = 1;
    ready.snapshot_ready.index = 0;
    want(&l, lone_step(&l, ready), -EINVAL, "a snapshot of nothing");
    ready.snapshot_ready.index = 4;
    want(&l, lone_step(&l, ready), -EINVAL, "a snapshot the log does not continue");
    failed.snapshot_failed.peer = 77;
    want(&l, lone_step(&l, failed), -ENOENT, "a failure for a stranger");
    ready.snapshot_ready.peer = 77;
    want(&l, lone_step(&l, ready), -ENOENT, "a snapshot for a stranger");
    ready.snapshot_ready.peer = 2;
    ready.snapshot_ready.index = 7;
    want(&l, lone_step(&l, ready), 0, "a good one");
    lone_fini(&l);
    /* Receiving. */
    lone_init(&l, w, 3);
    lone_start(&l);
    struct raft_conf bad = l.conf;
    bad.count = 0;
    struct raft_input install = {.type = RAFT_IN_SNAPSHOT_INSTALL, .snapshot_install = {9, 1, 1, &bad}};
    want(&l, lone_step(&l, install), -EINVAL, "a snapshot with a configuration nobody may have");
    install.snapshot_install.conf = &l.conf;
    install.snapshot_install.term = 0;
    want(&l, lone_step(&l, install), -EINVAL, "a snapshot of term 0");
    /* A fetch fails that nobody is told of: none was under way; the leader is gone. */
    failed.snapshot_failed.peer = 0;
    want(&l, lone_step(&l, failed), 0, "no fetch fails");
    struct raft_message offer = {.type = RAFT_MSG_SNAPSHOT, .snapshot = {.index = 9, .index_term = 1, .source = 2}};
    want(&l, lone_message(&l, 2, 2, offer), 0, "an offer");
    want(&l, lone_message(&l, 3, 3, (struct raft_message){.type = RAFT_MSG_HEARTBEAT_REPLY}), 0, "a higher term");
    want(&l, lone_step(&l, failed), 0, "a fetch fails without a leader");
    /* A learner is told to take over: it may not. */
    lone_fini(&l);
    lone_init(&l, w, 3);
    l.conf.members[0].role = RAFT_LEARNER;
    lone_start(&l);
    struct raft_message now = {.type = RAFT_MSG_TIMEOUT_NOW};
    now.timeout_now.last_index = 1;
    lone_message(&l, 2, 2, (struct raft_message){.type = RAFT_MSG_HEARTBEAT});
    want(&l, lone_message(&l, 2, 2, now), 0, "the word to take over");
    expect(w, l.out.role == RAFT_FOLLOWER && l.out.term == 2, "a learner campaigns");
    lone_fini(&l);
}

/* Every message: all lengths, all single bits. What the decoder lets through, the core must survive. */
CASE(refused_bytes, 1, "messages that are cut or damaged")
{
    struct lone l;
    lone_init(&l, w, 3);
    for (int type = 0; type < 20; type++) {
        struct raft_entry e = {.term = 1, .type = RAFT_BARRIER}, out[RAFT_APPEND_ENTRIES_MAX];
        struct raft_message m = {.type = (uint8_t)type, .from = 2, .to = 1, .term = 2, .entries = &e}, back;
        uint8_t bytes[256], bad[256];
        if (type == RAFT_MSG_PREVOTE)
            m.prevote.next_term = 3;
        if (type == RAFT_MSG_APPEND) {
            m.append.prev_index = 1;
            m.append.prev_term = m.append.last_term = 1;
            m.append.count = 1;
        }
        if (type == RAFT_MSG_SNAPSHOT)
            m.snapshot = (__typeof__(m.snapshot)){7, 1, 3};
        size_t n = raft_message_encode(&m, bytes);
        if (type == RAFT_MSG_APPEND) {
            raft_entry_header_encode(&e, bytes + n);
            n += RAFT_ENTRY_HEADER_SIZE;
        }
        int r = raft_message_decode(bytes, n, out, &back);
        bool known = strcmp(raft_message_name((uint8_t)type), "unknown") != 0;
        expect(w, known ? r == 0 : r == -CV_UNKNOWN_MESSAGE, "message %d: %s", type, cv_error_name(r));
        for (size_t cut = 0; cut < n; cut++)
            expect(w, raft_message_decode(bytes, cut, out, &back) < 0, "message %d cut to %zu bytes is taken", type,
                   cut);
        for (uint32_t bit = 0; bit < n * 8; bit++) {
            memcpy(bad, bytes, n);
            bad[bit / 8] ^= (uint8_t)(1 << bit % 8);
            if (raft_message_decode(bad, n, out, &back) < 0)
                continue;
            lone_start(&l);
            if (bit % 2)
                lone_lead(&l);
            back.from = back.from == 1 ? 2 : back.from;
            lone_step(&l, (struct raft_input){.type = RAFT_IN_MESSAGE, .message = &back});
        }
        /* A shorter, older form: what is missing is 0. */
        put_le16(bytes + 2, 0);
        r = raft_message_decode(bytes, 32, out, &back);
        expect(w, r == 0 || r == -CV_BAD_MESSAGE || r == -CV_UNKNOWN_MESSAGE, "message %d without fields: %s", type,
               cv_error_name(r));
    }
    lone_fini(&l);
}

CASE(refused_messages, 1, "messages that are not for us or contradict themselves")
{
    struct lone l;
    lone_init(&l, w, 3);
    lone_start(&l);
    struct raft_message m = {.type = RAFT_MSG_HEARTBEAT};
    want(&l, lone_step(&l, (struct raft_input){.type = RAFT_IN_MESSAGE}), -CV_BAD_MESSAGE, "no message");
    want(&l, lone_message(&l, 1, 2, m), -CV_BAD_MESSAGE, "one from ourselves");
    want(&l, lone_message(&l, 0, 2, m), -CV_BAD_MESSAGE, "one from nobody");
    want(&l, lone_message(&l, 2, 0, m), -CV_BAD_MESSAGE, "one of no term");
    want(&l, lone_message(&l, 2, UINT64_MAX, m), -CV_BAD_MESSAGE, "one of a term that overflows");
    m.to = 3;
    m.from = 2;
    m.term = 2;
    want(&l, lone_step(&l, (struct raft_input){.type = RAFT_IN_MESSAGE, .message = &m}), -CV_BAD_MESSAGE,
         "one to somebody else");
    want(&l, lone_step(&l, (struct raft_input){.type = 99}), -EINVAL, "an unknown input");
    struct raft_message odd = {.type = RAFT_MSG_PREVOTE};
    want(&l, lone_message(&l, 2, 2, odd), -CV_BAD_MESSAGE, "a pre-vote for another term than the next");
    struct raft_message reply = {.type = RAFT_MSG_APPEND_REPLY};
    reply.append_reply.last_index = UINT64_MAX;
    want(&l, lone_message(&l, 2, 2, reply), -CV_BAD_MESSAGE, "an index that overflows");
    want(&l, lone_append(&l, 2, 2, UINT64_MAX, 1, 0, 0), -CV_BAD_MESSAGE, "an append behind an index that overflows");
    want(&l, lone_append(&l, 2, 2, 0, 1, 0, 0), -CV_BAD_MESSAGE, "an append behind nothing, of a term");
    lone_fini(&l);
}

CASE(refused_inputs, 1, "proposals, changes, transfers, reads, compactions and snapshots that may not be")
{
    struct lone l;
    lone_init(&l, w, 3);
    lone_start(&l);
    struct raft_entry e[RAFT_APPEND_ENTRIES_MAX] = {{.type = RAFT_BARRIER}};
    struct raft_input in = {.type = RAFT_IN_PROPOSE};
    in.propose.entries = e;
    in.propose.count = 1;
    struct raft_input conf = {.type = RAFT_IN_CONF}, transfer = {.type = RAFT_IN_TRANSFER};
    struct raft_input ready = {.type = RAFT_IN_SNAPSHOT_READY, .snapshot_ready = {2, 3, 2}};
    struct raft_input failed = {.type = RAFT_IN_SNAPSHOT_FAILED, .snapshot_failed.peer = 2};
    want(&l, lone_step(&l, in), -CV_NOT_LEADER, "a proposal at a follower");
    want(&l, lone_step(&l, conf), -CV_NOT_LEADER, "a change at a follower");
    want(&l, lone_step(&l, transfer), -CV_NOT_LEADER, "a transfer at a follower");
    want(&l, lone_step(&l, ready), -CV_NOT_LEADER, "a snapshot at a follower");
    want(&l, lone_step(&l, failed), -ENOENT, "a failed snapshot of nobody");
    want(&l, lone_step(&l, (struct raft_input){.type = RAFT_IN_READ}), -CV_NOT_LEADER, "a read without a leader");
    failed.snapshot_failed.peer = 0;
    want(&l, lone_step(&l, failed), 0, "a fetch nobody made");
    lone_lead(&l);
    in.propose.term = l.out.term;
    in.propose.count = 0;
    want(&l, lone_step(&l, in), -EINVAL, "a proposal of nothing");
    in.propose.count = RAFT_APPEND_ENTRIES_MAX + 1;
    want(&l, lone_step(&l, in), -EINVAL, "too many entries");
    in.propose.count = 1;
    static const uint8_t types[] = {0, RAFT_NOOP, RAFT_CONF, RAFT_BARRIER + 1};
    for (uint32_t i = 0; i < array_size(types); i++) {
        e[0].type = types[i];
        want(&l, lone_step(&l, in), -EINVAL, "a type that is not for proposals");
    }
    want(&l, lone_step(&l, (struct raft_input){.type = RAFT_IN_CAMPAIGN}), -EINVAL, "a leader that campaigns");
    transfer.transfer.to = 9;
    want(&l, lone_step(&l, transfer), -ENOENT, "a transfer to nobody we know");
    transfer.transfer.to = 2;
    want(&l, lone_step(&l, transfer), -CV_UNREACHABLE, "a transfer to who does not answer");
    want(&l, lone_step(&l, ready), -ENOENT, "a snapshot nobody wants");
    struct raft_input compact = {.type = RAFT_IN_COMPACT, .compact.first = 0};
    want(&l, lone_step(&l, compact), -EINVAL, "a compaction to nowhere");
    compact.compact.first = 3;
    want(&l, lone_step(&l, compact), -EINVAL, "a compaction of what is needed");
    compact.compact.first = 1;
    want(&l, lone_step(&l, compact), 0, "a compaction of nothing");
    uint64_t term;
    expect(w, raft_term(l.raft, 9, &term) == -ENOENT && raft_term(l.raft, 2, &term) == 0 && term == 1, "raft_term");
    /* A change needs this term's first entry committed, and members that are (not) there. */
    struct raft_message ack = {.type = RAFT_MSG_APPEND_REPLY};
    ack.append_reply.index = l.out.last;
    lone_message(&l, 2, l.out.term, ack);
    expect(w, l.out.commit == l.out.last, "the first entry is not committed");
    conf.conf.member.id = 2;
    conf.conf.op = RAFT_ADD_LEARNER;
    want(&l, lone_step(&l, conf), -EEXIST, "adding a member");
    conf.conf.op = RAFT_PROMOTE;
    want(&l, lone_step(&l, conf), -EEXIST, "promoting a voter");
    conf.conf.op = RAFT_DEMOTE;
    struct raft_input learner = {.type = RAFT_IN_CONF, .conf = {RAFT_ADD_LEARNER, {.id = 5}}};
    want(&l, lone_step(&l, learner), 0, "adding a learner");
    ack.append_reply.index = l.out.last;
    lone_message(&l, 2, l.out.term, ack);
    conf.conf.member.id = 5;
    want(&l, lone_step(&l, conf), -EEXIST, "demoting a learner");
    conf.conf.op = RAFT_PROMOTE;
    want(&l, lone_step(&l, conf), -EAGAIN, "promoting a learner that never answered");
    conf.conf.op = 99;
    want(&l, lone_step(&l, conf), -EINVAL, "an unknown change");
    conf.conf.member.id = 9;
    conf.conf.op = RAFT_REMOVE;
    want(&l, lone_step(&l, conf), -ENOENT, "removing who is not there");
    conf.conf.op = RAFT_ADD_LEARNER;
    conf.conf.member.journal_only = 5;
    want(&l, lone_step(&l, conf), -EINVAL, "a member of no known kind");
    /* Snapshots to install: at the leader, and contradictions. */
    struct raft_input install = {.type = RAFT_IN_SNAPSHOT_INSTALL, .snapshot_install = {9, 1, 1, &l.conf}};
    want(&l, lone_step(&l, install), -EINVAL, "installing at the leader");
    lone_start(&l);
    install.snapshot_install.conf = NULL;
    want(&l, lone_step(&l, install), -EINVAL, "installing without a configuration");
    install.snapshot_install.conf = &l.conf;
    install.snapshot_install.term = 0;
    want(&l, lone_step(&l, install), -EINVAL, "installing a state of no term");
    install.snapshot_install.term = 1;
    install.snapshot_install.conf_index = 0;
    want(&l, lone_step(&l, install), -EINVAL, "installing a configuration from nowhere");
    install.snapshot_install.conf_index = 10;
    want(&l, lone_step(&l, install), -EINVAL, "installing a configuration from behind it");
    lone_fini(&l);
}

CASE(refused_full, 1, "more than the limits: members, writes waiting, reads waiting, messages a step")
{
    struct lone l;
    lone_init(&l, w, 3);
    for (uint64_t id = 4; id <= RAFT_MEMBERS_MAX; id++) {
        struct raft_member m = {.id = id, .role = RAFT_LEARNER};
        raft_conf_put(&l.conf, &m);
    }
    lone_start(&l);
    lone_lead(&l);
    struct raft_message ack = {.type = RAFT_MSG_APPEND_REPLY};
    ack.append_reply.index = l.out.last;
    lone_message(&l, 2, l.out.term, ack);
    struct raft_input conf = {.type = RAFT_IN_CONF, .conf = {RAFT_ADD_LEARNER, {.id = 99}}};
    want(&l, lone_step(&l, conf), -ENOSPC, "a seventeenth member");
    conf.conf.op = RAFT_REMOVE;
    conf.conf.member.id = 16;
    want(&l, lone_step(&l, conf), 0, "a removal");
    struct raft_entry e = {.type = RAFT_BARRIER};
    struct raft_input in = {.type = RAFT_IN_PROPOSE};
    in.propose.term = l.out.term;
    in.propose.entries = &e;
    in.propose.count = 1;
    l.slow_disk = true;
    int r = 0;
    for (int i = 0; i < RAFT_WRITES_MAX && r == 0; i++)
        r = lone_step(&l, in);
    want(&l, r, -CV_BUSY, "a proposal when the disk is far behind");
    want(&l, lone_step(&l, conf), -EBUSY, "a change when the disk is far behind");
    struct raft_input read = {.type = RAFT_IN_READ};
    for (r = 0; r == 0;)
        r = lone_step(&l, read);
    want(&l, r, -CV_BUSY, "too many reads");
    struct raft_message ask = {.type = RAFT_MSG_READ};
    want(&l, lone_message(&l, 2, l.out.term, ask), 0, "a follower's read among too many");
    /* Time passes: what waits is refused, in as many steps as it takes. */
    l.now_ms += 10000;
    lone_step(&l, (struct raft_input){.type = RAFT_IN_TICK});
    /* As a follower: its reads ask the leader, each message queues a write. */
    lone_fini(&l);
    lone_init(&l, w, 3);
    lone_start(&l);
    lone_append(&l, 2, 2, 3, 1, 1, 3);
    for (r = 0; r == 0;)
        r = lone_step(&l, read);
    want(&l, r, -CV_BUSY, "too many reads at a follower");
    l.slow_disk = true;
    r = 0;
    for (uint64_t i = 4; i < 4 + 2 * RAFT_WRITES_MAX && r == 0; i++)
        r = lone_append(&l, 2, 2, i, 2, 1, 3);
    want(&l, r, -CV_BUSY, "a message when the disk is far behind");
    struct raft_input install = {.type = RAFT_IN_SNAPSHOT_INSTALL, .snapshot_install = {99999, 2, 1, &l.conf}};
    want(&l, lone_step(&l, install), -CV_BUSY, "installing when the disk is far behind");
    lone_fini(&l);
}

/* The entries came from another leader while the snapshot was fetched; they are not known to be committed. */
CASE(install_behind_log, 1, "a snapshot that ends inside the log: what lies behind it stays")
{
    struct lone l;
    lone_init(&l, w, 9);
    l.restart.conf_index[0] = 7; /* the configuration before it is not known any more */
    lone_start(&l);
    struct raft_conf old = l.conf;
    old.count = 2;
    struct raft_input install = {.type = RAFT_IN_SNAPSHOT_INSTALL, .snapshot_install = {6, 1, 1, &old}};
    want(&l, lone_step(&l, install), 0, "installing");
    uint64_t index;
    expect(w, l.out.last == 9 && l.out.commit == 6, "log to %llu, commit %llu", (unsigned long long)l.out.last,
           (unsigned long long)l.out.commit);
    expect(w, raft_conf_newest(l.raft, &index)->count == 3 && index == 7, "the newest configuration is not the log's");
    expect(w, raft_conf_at(l.raft, 6, &index)->count == 2 && index == 1,
           "the configuration at 6 is not the snapshot's");
    /* Again, when two are known; and while it campaigns, when the log does not reach so far. */
    install.snapshot_install.index = 8;
    install.snapshot_install.conf_index = 7;
    install.snapshot_install.conf = &l.conf;
    want(&l, lone_step(&l, install), 0, "installing another");
    struct raft_input campaign = {.type = RAFT_IN_CAMPAIGN};
    campaign.campaign.force = true;
    lone_step(&l, campaign);
    install.snapshot_install.index = 20;
    want(&l, lone_step(&l, install), 0, "installing as a candidate");
    expect(w, l.out.last == 20 && l.out.role == RAFT_FOLLOWER, "it is not a follower of the snapshot");
    /* Offers: the same twice, then of another term. */
    struct raft_message offer = {.type = RAFT_MSG_SNAPSHOT, .snapshot = {30, 3, 2}};
    lone_message(&l, 2, 5, offer);
    expect(w, l.out.offer.index == 30, "no offer");
    lone_message(&l, 2, 5, offer);
    expect(w, l.out.offer.index == 0, "the same offer again");
    offer.snapshot.index_term = 4;
    lone_message(&l, 2, 5, offer);
    expect(w, l.out.offer.index == 30, "no offer of another term");
    lone_fini(&l);
}

CASE(questions, 1, "what tools ask")
{
    struct lone l;
    struct raft_status s;
    lone_init(&l, w, 9);
    l.restart.first = 5;
    l.restart.base_term = 1;
    lone_start(&l);
    raft_status(l.raft, &s);
    expect(w, s.id == 1 && s.first == 5 && s.last == 9 && s.conf_index == 1 && s.role == RAFT_FOLLOWER, "status");
    uint64_t term;
    expect(w, raft_term(l.raft, 3, &term) == -ENOENT && raft_term(l.raft, 10, &term) == -ENOENT, "terms of nothing");
    expect(w, raft_term(l.raft, 4, &term) == 0 && term == 1, "the term before the first entry");
    lone_lead(&l);
    raft_status(l.raft, &s);
    expect(w, s.role == RAFT_LEADER && s.peer_count == 2 && s.peers[0].id == 2, "a leader's status");
    struct raft_message ack = {.type = RAFT_MSG_APPEND_REPLY};
    ack.append_reply.index = l.out.last;
    lone_message(&l, 2, l.out.term, ack);
    raft_status(l.raft, &s);
    expect(w, s.conf_committed && s.commit == s.last, "the status of a leader that committed");
    struct raft_input conf = {.type = RAFT_IN_CONF, .conf = {RAFT_REMOVE, {.id = 3}}};
    want(&l, lone_step(&l, conf), 0, "a removal");
    raft_status(l.raft, &s);
    expect(w, !s.conf_committed && s.conf_index == s.last, "the status of a change that is under way");
    lone_fini(&l);
    l.restart = (struct raft_restart){.now_ms = 1, .first = 1};
    lone_start(&l);
    raft_status(l.raft, &s);
    expect(w, s.conf_index == 0 && !s.conf_committed, "the status of a node that waits to be added");
    lone_fini(&l);
}

/* Member 3 is silent: it holds compaction up until a log is full and its time is over. */
CASE(left_behind, 1, "compaction goes on without a silent member, with a warning")
{
    struct lone l;
    lone_init(&l, w, 3);
    l.options.silent_ms = 2000;
    l.conf.members[0].journal_only = 1; /* it keeps what full members may need */
    lone_start(&l);
    lone_lead(&l);
    struct raft_message h = {.type = RAFT_MSG_HEARTBEAT_REPLY};
    h.heartbeat_reply.match = h.heartbeat_reply.accepted = h.heartbeat_reply.flushed = 4;
    for (int i = 0; i < 300; i++) {
        l.now_ms += 10;
        lone_step(&l, (struct raft_input){.type = RAFT_IN_TICK});
        h.heartbeat_reply.round++;
        lone_message(&l, 2, l.out.term, h);
        if (i == 250)
            expect(w, l.out.compact_to == 0, "compaction to %llu", (unsigned long long)l.out.compact_to);
        struct raft_input app = {.type = RAFT_IN_APP, .app.log_full = i > 250};
        lone_step(&l, app);
    }
    expect(w, l.out.compact_to == 4 && l.out.warnings & RAFT_WARN_LEFT_BEHIND, "compaction to %llu, warnings %x",
           (unsigned long long)l.out.compact_to, l.out.warnings);
    lone_fini(&l);
}

CASE(entries_first, 1, "the entries come before the snapshot that was offered, or the log is past it")
{
    struct lone l;
    lone_init(&l, w, 9);
    l.restart.first = 6;
    l.restart.base_term = 1;
    l.restart.commit = 7;
    lone_start(&l);
    struct raft_input install = {.type = RAFT_IN_SNAPSHOT_INSTALL, .snapshot_install = {3, 1, 1, &l.conf}};
    want(&l, lone_step(&l, install), -EALREADY, "a snapshot of what was compacted");
    struct raft_message offer = {.type = RAFT_MSG_SNAPSHOT, .snapshot = {12, 2, 2}};
    lone_message(&l, 2, 2, offer);
    expect(w, l.out.offer.index == 12, "no offer");
    lone_append(&l, 2, 2, 9, 1, 4, 13);
    expect(w, l.out.commit == 13, "no append");
    want(&l, lone_message(&l, 2, 2, offer), 0, "the offer again");
    expect(w, l.out.offer.index == 0, "what is here is fetched");
    lone_fini(&l);
}

/* Found by reading: who can write no vote asks for none. */
CASE(disk_stands_still, 1, "a node whose disk is far behind does not campaign")
{
    struct lone l;
    lone_init(&l, w, 3);
    l.slow_disk = true;
    lone_start(&l);
    int r = 0;
    for (uint64_t i = 3; i < 3 + 2 * RAFT_WRITES_MAX && r == 0; i++)
        r = lone_append(&l, 2, 2, i, i == 3 ? 1 : 2, 1, 3);
    want(&l, r, -CV_BUSY, "a message when the disk is far behind");
    struct raft_input campaign = {.type = RAFT_IN_CAMPAIGN};
    campaign.campaign.force = true;
    l.now_ms += 10000;
    lone_step(&l, campaign);
    expect(w, l.out.role == RAFT_FOLLOWER && l.out.term == 2, "it campaigns in term %llu",
           (unsigned long long)l.out.term);
    lone_fini(&l);
}

/* Everything that makes a member no heir. */
CASE(no_heir, 1, "leadership is not given to who may not lead")
{
    struct lone l;
    lone_init(&l, w, 3);
    struct raft_member learner = {.id = 5, .role = RAFT_LEARNER};
    raft_conf_put(&l.conf, &learner);
    l.conf.members[2].journal_only = 1;
    lone_start(&l);
    lone_lead(&l);
    static const uint64_t heirs[] = {1, 3, 5, 99};
    for (uint32_t i = 0; i < array_size(heirs); i++) {
        struct raft_input in = {.type = RAFT_IN_TRANSFER, .transfer.to = heirs[i]};
        want(&l, lone_step(&l, in), -ENOENT, "a transfer to who may not lead");
    }
    lone_fini(&l);
}

/* Leads, should not, and nobody else can: it says so after a while. */
CASE(handover_warning, 1, "a leader that cannot hand over warns")
{
    struct lone l;
    lone_init(&l, w, 3);
    l.conf.members[0].journal_only = 1;
    lone_start(&l);
    lone_lead(&l);
    struct raft_message h = {.type = RAFT_MSG_HEARTBEAT_REPLY};
    bool warned = false;
    for (int i = 0; i < 700 && !warned; i++) {
        l.now_ms += 10;
        lone_step(&l, (struct raft_input){.type = RAFT_IN_TICK});
        h.heartbeat_reply.round++;
        lone_message(&l, 2, l.out.term, h); /* answers, but its application cannot lead */
        warned = l.out.warnings & RAFT_WARN_HANDOVER;
    }
    expect(w, warned, "no warning in 7 s");
    lone_fini(&l);
}
