/* SPDX-License-Identifier: Apache-2.0 */
/* Broken promises of others that the core must notice, and stop (raft_alarm.def). */
#include "sim_lone.h"

#include <string.h>

/* It stopped, says why, and stays stopped. */
static void expect_alarm(struct lone *l, int r, const char *what)
{
    const char *text = raft_alarm(l->raft);
    expect(l->w, r == -CV_LOG_DIVERGED && text, "%s is not noticed: %s", what, cv_error_name(r));
    r = lone_step(l, (struct raft_input){.type = RAFT_IN_TICK});
    expect(l->w, r == -CV_LOG_DIVERGED && l->out.send_count == 0 && l->out.lease_until_ms == 0, "it goes on after '%s'",
           text);
    lone_fini(l);
}

/* A follower of 2 in term 2 that has entries 1..5 and knows 3 to be committed. */
static void follower(struct lone *l, struct world *w)
{
    lone_init(l, w, 3);
    int r = lone_start(l);
    expect(w, r == 0 && raft_alarm(l->raft) == NULL, "no start: %s", cv_error_name(r));
    r = lone_append(l, 2, 2, 3, 1, 2, 3);
    expect(w, r == 0 && l->out.last == 5 && l->out.commit == 3, "no append: %s", cv_error_name(r));
}

CASE(alarm_follower, 1, "a follower stops when its leader, or another, breaks a promise")
{
    struct lone l;
    follower(&l, w);
    expect_alarm(&l, lone_append(&l, 3, 2, 5, 2, 1, 3), "a second leader of the term");
    follower(&l, w);
    expect_alarm(&l, lone_append(&l, 3, 3, 1, 1, 1, 3), "a leader without a committed entry");
    follower(&l, w);
    expect_alarm(&l, lone_append(&l, 3, 3, 3, 2, 1, 3), "a leader that differs at a committed entry");
    struct raft_message m = {.type = RAFT_MSG_HEARTBEAT};
    m.heartbeat.commit = 9;
    follower(&l, w);
    expect_alarm(&l, lone_message(&l, 2, 2, m), "a commit beyond our log");
    /* Entry 5 of term 2 was accepted in term 2: its leader may not send another. */
    follower(&l, w);
    struct raft_entry e = {.term = 3, .type = RAFT_BARRIER};
    struct raft_message a = {.type = RAFT_MSG_APPEND, .entries = &e};
    a.append.prev_index = 5;
    a.append.prev_term = 2;
    a.append.count = 1;
    a.append.last_term = 3;
    int r = lone_message(&l, 2, 4, a);
    expect(w, r == 0 && l.out.last == 6, "no append: %s", cv_error_name(r));
    e.term = 4;
    a.append.last_term = 4;
    expect_alarm(&l, lone_message(&l, 2, 4, a), "a leader that changed its own log");
    follower(&l, w);
    e = (struct raft_entry){.term = 2, .type = RAFT_CONF, .data = (const uint8_t *)"rubbish", .size = 7};
    a.append.last_term = 2;
    expect_alarm(&l, lone_message(&l, 2, 2, a), "a configuration nobody can read");
    follower(&l, w);
    e.data = NULL;
    expect_alarm(&l, lone_message(&l, 2, 2, a), "a configuration without bytes");
}

CASE(alarm_compacted, 1, "a leader that differs from what was compacted here is noticed")
{
    struct lone l;
    lone_init(&l, w, 8);
    l.restart.first = 6;
    l.restart.base_term = 1;
    l.restart.commit = 7;
    l.runs[0].first = 1;
    int r = lone_start(&l);
    expect(w, r == 0, "no start: %s", cv_error_name(r));
    r = lone_append(&l, 2, 2, 2, 1, 2, 3);
    expect(w, r == 0, "entries that are gone here already: %s", cv_error_name(r));
    expect_alarm(&l, lone_append(&l, 2, 2, 2, 1, 5, 7), "another entry 5");
}

CASE(alarm_joining, 1, "a joining node whose only configuration is taken back")
{
    struct lone l;
    lone_init(&l, w, 0);
    l.restart.conf_count = 0;
    l.restart.run_count = 0;
    l.restart.term = 0;
    int r = lone_start(&l);
    expect(w, r == 0, "no start: %s", cv_error_name(r));
    uint64_t index;
    expect(w, !raft_conf_newest(l.raft, &index) && !raft_conf_at(l.raft, 5, &index), "it knows members");
    uint8_t data[RAFT_CONF_ENCODED_MAX];
    struct raft_entry e = {.term = 1, .type = RAFT_CONF, .data = data};
    e.size = (uint32_t)raft_conf_encode(&l.conf, data);
    struct raft_message a = {.type = RAFT_MSG_APPEND, .entries = &e};
    a.append.count = 1;
    a.append.last_term = 1;
    r = lone_message(&l, 2, 2, a);
    expect(w, r == 0 && raft_conf_at(l.raft, 1, &index) && index == 1 && !raft_conf_at(l.raft, 0, &index),
           "no append: %s", cv_error_name(r));
    expect_alarm(&l, lone_append(&l, 3, 3, 0, 0, 1, 0), "no configuration left");
}

CASE(alarm_leader, 1, "a leader stops when somebody acknowledges what it never had")
{
    struct lone l;
    struct raft_message a = {.type = RAFT_MSG_APPEND_REPLY};
    a.append_reply.index = 99;
    lone_init(&l, w, 3);
    lone_start(&l);
    lone_lead(&l);
    expect_alarm(&l, lone_message(&l, 2, l.out.term, a), "an ack beyond the log");
    struct raft_message h = {.type = RAFT_MSG_HEARTBEAT_REPLY};
    h.heartbeat_reply.round = 1;
    h.heartbeat_reply.accepted = 99;
    lone_init(&l, w, 3);
    lone_start(&l);
    lone_lead(&l);
    expect_alarm(&l, lone_message(&l, 2, l.out.term, h), "a heartbeat answered with too much");
    h.heartbeat_reply.accepted = 2;
    h.heartbeat_reply.match = 3;
    lone_init(&l, w, 3);
    lone_start(&l);
    lone_lead(&l);
    expect_alarm(&l, lone_message(&l, 2, l.out.term, h), "more durable than there is");
    /* Two leaders of one term. */
    lone_init(&l, w, 3);
    lone_start(&l);
    lone_lead(&l);
    struct raft_message hb = {.type = RAFT_MSG_HEARTBEAT};
    expect_alarm(&l, lone_message(&l, 2, l.out.term, hb), "another leader of its term");
}

CASE(alarm_driver, 1, "a driver that contradicts what it was told")
{
    struct lone l;
    follower(&l, w);
    struct raft_input in = {.type = RAFT_IN_WRITTEN, .written.seq = 99};
    expect_alarm(&l, lone_step(&l, in), "a write nobody asked for");
    follower(&l, w);
    in = (struct raft_input){.type = RAFT_IN_WRITTEN, .written.seq = 1};
    int r = lone_step(&l, in);
    expect(w, r == 0, "the same word again: %s", cv_error_name(r));
    in = (struct raft_input){.type = RAFT_IN_APP, .app.applied = 5};
    expect_alarm(&l, lone_step(&l, in), "a state ahead of what is committed");
    follower(&l, w);
    in = (struct raft_input){.type = RAFT_IN_SNAPSHOT_INSTALL};
    in.snapshot_install.index = 2;
    in.snapshot_install.term = 2; /* entry 2 is of term 1 */
    in.snapshot_install.conf_index = 1;
    in.snapshot_install.conf = &l.conf;
    expect_alarm(&l, lone_step(&l, in), "a snapshot that differs from a committed entry");
}
