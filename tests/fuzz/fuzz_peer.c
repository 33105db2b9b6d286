/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Fuzz target: bytes as another journal could send them. The first byte says what they are: a whole frame; a hello or an
 * answer (body only); the head and data of a peer_raft frame whose checksums fit, so that what lies behind them is
 * reached. Nothing may crash, be read beyond its end, or come out that a journal does not say.
 */
#include <stdlib.h>
#include <string.h>

#include "base/cleanup.h"
#include "base/hash.h"
#include "raft/journal_peer_internal.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

#define CHECK(x)                                                                                                       \
    do {                                                                                                               \
        if (!(x))                                                                                                      \
            abort();                                                                                                   \
    } while (0)

enum { SELF = 1, FROM = 2 };

static struct journal_self self = {.cluster = {{1}}, .node = SELF, .incarnation = 1, .address = "x:1"};

static void check_message(const struct rpc_frame *f)
{
    struct raft_entry entries[RAFT_APPEND_ENTRIES_MAX];
    struct raft_message m;
    if (peer_decode(&self, FROM, f, entries, &m) < 0)
        return;
    CHECK(m.from == FROM && m.to == SELF && m.term > 0);
    if (m.type != RAFT_MSG_APPEND)
        return;
    CHECK(m.append.count <= RAFT_APPEND_ENTRIES_MAX);
    for (uint32_t i = 0; i < m.append.count; i++) {
        const struct raft_entry *e = &m.entries[i];
        CHECK(e->data >= f->body && e->data + e->size <= f->data + f->header.data_len);
    }
}

static void check_hello(const uint8_t *p, size_t n)
{
    struct msg_peer_hello hello;
    struct msg_peer_hello_answer answer;
    struct text reason;
    if (msg_peer_hello_decode(p, n, &hello) == 0) {
        int r = journal_hello_check(&self, &hello, &answer);
        CHECK(r <= 0 && answer.error == (uint32_t)-r && (r == 0 || answer.reason.n));
        CHECK(r < 0 || (hello.node && hello.node != SELF && hello.channel && hello.channel < PEER_CHANNELS));
    }
    if (msg_peer_hello_answer_decode(p, n, &answer) == 0) {
        int r = journal_hello_accept(&self, FROM, &answer, &reason);
        CHECK(r < 0 || answer.node == FROM);
    }
}

/* Exactly n bytes, so that reading beyond them is noticed. */
static uint8_t *exact(const uint8_t *p, size_t n)
{
    uint8_t *copy = malloc(n ? n : 1);
    CHECK(copy);
    if (n)
        memcpy(copy, p, n);
    return copy;
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    if (size < 3)
        return 0;
    uint8_t kind = data[0], split = data[1];
    uint8_t *p cleanup(freep) = exact(data + 2, size - 2);
    size_t n = size - 2;
    struct rpc_frame f = {.body = p};
    if (kind % 3 == 0) {
        if (n < FRAME_HEADER_SIZE || frame_decode(p, &f.header) < 0 ||
            n != FRAME_HEADER_SIZE + (size_t)f.header.body_len + f.header.data_len)
            return 0;
        f.body = p + FRAME_HEADER_SIZE;
        f.data = f.body + f.header.body_len;
        check_message(&f);
    } else if (kind % 3 == 1) {
        check_hello(p, n);
    } else {
        uint32_t body = (uint32_t)min(n, (size_t)split * 8);
        f.header = (struct frame_header){.type = MSG_peer_raft, .incarnation = 1, .body_len = body};
        f.header.data_len = (uint32_t)n - body;
        f.data = p + body;
        f.header.aux = crc32c(0, f.data, f.header.data_len);
        check_message(&f);
    }
    return 0;
}
