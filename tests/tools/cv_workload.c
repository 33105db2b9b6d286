/* SPDX-License-Identifier: Apache-2.0 */
/*
 * cv-workload ADDRESS SECONDS SEED: writes to a worker, syncs, reads back, and holds everything read against what was
 * acknowledged, while somebody else kills the worker and starts it again. No master is needed: the epochs are ours.
 *
 * One request at a time, so at most one write has an unknown outcome when the connection breaks; each 4 KiB page of it must
 * then be the old or the new one. Acknowledged writes must survive a kill, synced or not (the page cache does). After
 * each break all files are read. Ends with 0 and a summary, or 1 and what was wrong.
 */
#include <semaphore.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "base/clock.h"
#include "base/error.h"
#include "base/hash.h"
#include "base/random.h"
#include "rpc/rpc_client.h"
#include "wire/data_flags.h"

#define FILES       4
#define BLOCK_BYTES (4u << 20)
#define BLOCKS      2
#define PAGE        4096u
#define PAGES       (BLOCK_BYTES / PAGE)
#define WRITE_MAX   64 /* pages */
#define PATIENCE_NS (20 * NS_PER_S)

struct page {
    uint32_t value, maybe; /* sequence numbers of what was written; 0: nothing. maybe: outcome unknown */
};

struct file_block {
    struct page pages[PAGES];
    uint32_t length; /* acknowledged */
    uint64_t epoch;
};

static struct file_block blocks[FILES][BLOCKS];
static struct loop *loop;
static struct rpc_client *client;
static struct prng prng;
static uint64_t seed, epoch, writes, syncs, reads, breaks;
static uint32_t sequence;
static const char *address;

/* ---- one request at a time -------------------------------------------------------------------------------------- */

struct request {
    struct rpc_call call;
    uint16_t type;
    struct buf body;
    const void *data;
    uint32_t data_n;
    int result;
    uint8_t *answer; /* data of the answer */
    uint32_t answer_n;
    sem_t done;
};

static void on_done(struct rpc_call *call, int result, const struct rpc_frame *f)
{
    struct request *q = container_of(call, struct request, call);
    q->result = result;
    if (result == 0 && f->header.data_len) {
        q->answer_n = f->header.data_len;
        q->answer = malloc(q->answer_n);
        memcpy(q->answer, f->data, q->answer_n);
    }
    sem_post(&q->done);
}

static int send_here(void *arg)
{
    struct request *q = arg;
    q->call.done = on_done;
    rpc_client_call_body(client, &q->call, q->type, 0, q->body.p, (uint32_t)q->body.n, q->data, q->data_n,
                         clock_ns() + 10 * NS_PER_S);
    return 0;
}

static int ask(struct request *q, uint16_t type, const struct wire_desc *desc, const void *record, const void *data,
               uint32_t n)
{
    *q = (struct request){.type = type, .data = data, .data_n = n};
    sem_init(&q->done, 0, 0);
    if (wire_encode(desc, record, &q->body) < 0)
        abort();
    loop_call(loop, send_here, q);
    while (sem_wait(&q->done) < 0)
        ;
    buf_fini(&q->body);
    return q->result;
}

static int connect_here(void *arg)
{
    struct rpc_client_options o = {
        .address = address, .self = {.role = RPC_CLIENT, .program = "cv-workload"}, .session = 1};
    return rpc_client_new(loop, &o, &client);
}

static bool broken(int r)
{
    return r == -CV_CLOSED || r == -CV_UNREACHABLE || r == -CV_STOPPING || r == -CV_DEADLINE;
}

static _Noreturn void wrong(const char *what, uint32_t file, uint32_t block, uint32_t page, int r)
{
    fprintf(stderr, "cv-workload: seed %llu: %s: file %u block %u page %u: %s\n", (unsigned long long)seed, what, file,
            block, page, r ? cv_error_name(r) : "");
    exit(1);
}

/* ---- content ---------------------------------------------------------------------------------------------------- */

static void fill_page(uint8_t *p, uint32_t file, uint32_t page, uint32_t value)
{
    if (value == 0) {
        memset(p, 0, PAGE);
        return;
    }
    for (uint32_t i = 0; i < PAGE; i += 8) {
        uint64_t word = hash_u64(seed * 31 + file * 1000003ull + page * 7919ull + value * 0x9e3779b97f4a7c15ull + i);
        memcpy(p + i, &word, 8);
    }
}

static bool page_is(const uint8_t *p, uint32_t file, uint32_t page, uint32_t value)
{
    uint8_t want[PAGE];
    fill_page(want, file, page, value);
    return memcmp(p, want, PAGE) == 0;
}

static struct rec_block describe(uint32_t file, uint32_t block)
{
    struct file_block *b = &blocks[file][block];
    return (struct rec_block){
        .inode = seed * 1000 + file + 1,
        .index = block,
        .version = b->epoch,
        .epoch = b->epoch,
        .valid_length = b->length,
        .block_bytes = BLOCK_BYTES,
        .file_bytes = (uint64_t)BLOCKS * BLOCK_BYTES,
    };
}

/* ---- what is done ----------------------------------------------------------------------------------------------- */

static int check_block(uint32_t file, uint32_t block)
{
    struct file_block *b = &blocks[file][block];
    struct request q;
    struct msg_block_read m = {.block = describe(file, block), .length = BLOCK_BYTES};
    if (b->epoch == 0 || b->length == 0)
        return 0;
    int r = ask(&q, MSG_block_read, msg_block_read_desc(), &m, NULL, 0);
    if (r < 0 && !broken(r))
        wrong("read", file, block, 0, r);
    if (r == 0 && q.answer_n < b->length)
        wrong("shorter than acknowledged", file, block, q.answer_n / PAGE, 0);
    for (uint32_t i = 0; r == 0 && i < b->length / PAGE; i++) {
        struct page *p = &b->pages[i];
        const uint8_t *at = q.answer + (size_t)i * PAGE;
        if (p->maybe && page_is(at, file, i, p->maybe))
            p->value = p->maybe;
        else if (!page_is(at, file, i, p->value))
            wrong("neither what was acknowledged nor what was sent last", file, block, i, 0);
        p->maybe = 0;
    }
    reads += r == 0;
    free(q.answer);
    return r;
}

static int check_all(void)
{
    int r = 0;
    for (uint32_t f = 0; r == 0 && f < FILES; f++)
        for (uint32_t b = 0; r == 0 && b < BLOCKS; b++)
            r = check_block(f, b);
    return r;
}

/* A write that may not have arrived is sent again, as a client would, before the length counts. */
static int write_some(uint32_t file, uint32_t block)
{
    static uint8_t data[WRITE_MAX * PAGE];
    struct file_block *b = &blocks[file][block];
    struct request q;
    uint32_t n = 1 + prng_below(&prng, WRITE_MAX), first = prng_below(&prng, PAGES - n + 1);
    if (first > b->length / PAGE)
        first = b->length / PAGE; /* no holes: their content is nobody's promise here */
    if (b->epoch == 0 || prng_below(&prng, 64) == 0)
        b->epoch = ++epoch; /* a new grant */
    sequence++;
    for (uint32_t i = 0; i < n; i++) {
        fill_page(data + (size_t)i * PAGE, file, first + i, sequence);
        b->pages[first + i].maybe = sequence;
    }
    struct msg_block_write m = {
        .block = describe(file, block), .offset = first * PAGE, .crc = crc32c(0, data, n * PAGE)};
    int r = ask(&q, MSG_block_write, msg_block_write_desc(), &m, data, n * PAGE);
    if (r < 0 && !broken(r))
        wrong("write", file, block, first, r);
    for (uint32_t i = first; r == 0 && i < first + n; i++)
        b->pages[i] = (struct page){.value = sequence};
    if (r == 0 && b->length < (first + n) * PAGE)
        b->length = (first + n) * PAGE;
    writes += r == 0;
    return r;
}

static int sync_some(uint32_t file)
{
    struct request q;
    struct msg_block_sync m = {.inode = seed * 1000 + file + 1};
    int r = ask(&q, MSG_block_sync, msg_block_sync_desc(), &m, NULL, 0);
    if (r < 0 && !broken(r))
        wrong("sync", file, 0, 0, r);
    syncs += r == 0;
    return r;
}

static int step(void)
{
    uint32_t file = prng_below(&prng, FILES), block = prng_below(&prng, BLOCKS), what = prng_below(&prng, 16);
    return what == 0 ? sync_some(file) : what < 3 ? check_block(file, block) : write_some(file, block);
}

/* Until it is there again, and everything is as it should be. */
static void come_back(void)
{
    uint64_t until = clock_ns() + PATIENCE_NS;
    breaks++;
    while (check_all() < 0) {
        if (clock_ns() > until)
            wrong("the worker does not come back", 0, 0, 0, 0);
        usleep(20000);
    }
}

int main(int argc, char **argv)
{
    if (argc != 4) {
        fprintf(stderr, "usage: cv-workload ADDRESS SECONDS SEED\n");
        return 2;
    }
    address = argv[1];
    seed = strtoull(argv[3], NULL, 10);
    prng.state = seed;
    epoch = seed * 1000000;
    if (loop_new(NULL, &loop) < 0 || loop_start(loop) < 0 || loop_call(loop, connect_here, NULL) < 0)
        return 1;
    uint64_t until = clock_ns() + strtoull(argv[2], NULL, 10) * NS_PER_S;
    while (clock_ns() < until)
        if (step() < 0)
            come_back();
    come_back();
    printf("%llu writes, %llu syncs, %llu reads, %llu times without the worker\n", (unsigned long long)writes,
           (unsigned long long)syncs, (unsigned long long)reads, (unsigned long long)(breaks - 1));
    return 0;
}
