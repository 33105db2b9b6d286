/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Fuzz target: bytes from the network through the consensus core's decoder into a core (libFuzzer; make fuzz).
 * The input is a sequence of (u16 length, message): what decodes must survive a round trip, and is stepped into one
 * of four voters, whose term and commit must never go back. Length 0 is a tick, 0xffff reports the disk, 0xfffe
 * proposes, 0xfffd reads. Whatever bytes come, nothing may crash; alarms may rise (a fuzzer is a bad neighbour).
 */
#include <stdlib.h>
#include <string.h>

#include "base/bytes.h"
#include "base/cleanup.h"
#include "raft/raft.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

#define CHECK(x)                                                                                                       \
    do {                                                                                                               \
        if (!(x))                                                                                                      \
            abort();                                                                                                   \
    } while (0)

static void check_round_trip(const struct raft_message *m)
{
    static uint8_t out[RAFT_MESSAGE_FIXED_MAX + (1 << 17)];
    size_t n = raft_message_encode(m, out);
    uint32_t count = m->type == RAFT_MSG_APPEND ? m->append.count : 0;
    for (uint32_t i = 0; i < count; i++, n += RAFT_ENTRY_HEADER_SIZE)
        raft_entry_header_encode(&m->entries[i], out + n);
    for (uint32_t i = 0; i < count; n += m->entries[i++].size) {
        if (n + m->entries[i].size > sizeof(out))
            return;
        if (m->entries[i].size)
            memcpy(out + n, m->entries[i].data, m->entries[i].size);
    }
    struct raft_entry entries[RAFT_APPEND_ENTRIES_MAX];
    struct raft_message back;
    CHECK(raft_message_decode(out, n, entries, &back) == 0);
    CHECK(back.type == m->type && back.from == m->from && back.to == m->to && back.term == m->term);
    for (uint32_t i = 0; i < count; i++)
        CHECK(back.entries[i].term == m->entries[i].term && back.entries[i].size == m->entries[i].size);
}

static struct raft *new_core(void)
{
    struct raft_conf conf = {0};
    for (uint64_t id = 1; id <= 4; id++) {
        struct raft_member m = {.id = id, .role = RAFT_VOTER};
        raft_conf_put(&conf, &m);
    }
    struct raft_run run = {1, 1};
    struct raft_options options = {.id = 1, .seed = 1};
    struct raft_restart restart = {.now_ms = 1,
                                   .term = 1,
                                   .first = 1,
                                   .last = 3,
                                   .runs = &run,
                                   .run_count = 1,
                                   .conf_count = 1,
                                   .conf_index = {1},
                                   .conf = {&conf}};
    struct raft *r;
    CHECK(raft_new(&options, &restart, &r) == 0);
    return r;
}

/* What must hold after every step, whatever came in. */
struct watch {
    struct raft *r;
    uint64_t now_ms, seq, term, commit;
};

/* False: an alarm stopped the core. */
static bool step(struct watch *w, struct raft_input in)
{
    struct raft_output o;
    in.now_ms = w->now_ms;
    if (raft_step(w->r, &in, &o) == -CV_LOG_DIVERGED)
        return false;
    CHECK(o.term >= w->term && o.commit >= w->commit && o.commit <= o.last && o.apply_to <= o.durable);
    w->seq = max(w->seq, o.write.seq);
    w->term = o.term;
    w->commit = o.commit;
    return true;
}

static bool step_bytes(struct watch *w, const uint8_t *p, size_t n)
{
    uint8_t *exact = malloc(n); /* so that the sanitizer sees a read beyond */
    memcpy(exact, p, n);
    struct raft_entry entries[RAFT_APPEND_ENTRIES_MAX];
    struct raft_message m;
    bool goes_on = true;
    if (raft_message_decode(exact, n, entries, &m) == 0) {
        check_round_trip(&m);
        m.to = 1;
        m.from = 2 + m.from % 3;
        goes_on = step(w, (struct raft_input){.type = RAFT_IN_MESSAGE, .message = &m});
    }
    free(exact);
    return goes_on;
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    struct raft_conf conf;
    if (raft_conf_decode(data, size, &conf) == 0) {
        uint8_t out[RAFT_CONF_ENCODED_MAX];
        CHECK(raft_conf_encode(&conf, out) == size && memcmp(out, data, size) == 0);
    }
    struct watch w = {.r = new_core(), .now_ms = 1, .term = 1};
    struct raft_entry proposal = {.type = RAFT_BATCH};
    bool goes_on = true;
    for (size_t at = 0; goes_on && at + 2 <= size;) {
        size_t n = get_le16(data + at);
        at += 2;
        switch (n) {
        case 0:
            w.now_ms += 100;
            goes_on = step(&w, (struct raft_input){.type = RAFT_IN_TICK});
            break;
        case 0xffff: goes_on = step(&w, (struct raft_input){.type = RAFT_IN_WRITTEN, .written.seq = w.seq}); break;
        case 0xfffe:
            goes_on = step(&w, (struct raft_input){.type = RAFT_IN_PROPOSE, .propose = {w.term, &proposal, 1}});
            break;
        case 0xfffd: goes_on = step(&w, (struct raft_input){.type = RAFT_IN_READ, .read.context = at}); break;
        default:
            n = min(n, size - at);
            goes_on = step_bytes(&w, data + at, n);
            at += n;
        }
    }
    raft_free(w.r);
    return 0;
}
