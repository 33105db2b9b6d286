/* SPDX-License-Identifier: Apache-2.0 */
/*
 * For the tests of the worker daemon: a whole worker in this process, a master that is a few answers, an under file system
 * that is a directory, and clients that wait for their answers.
 */
#pragma once

#include <fcntl.h>
#include <semaphore.h>
#include <stdatomic.h>
#include <stdio.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/bytes.h"
#include "base/clock.h"
#include "base/error.h"
#include "base/hash.h"
#include "base/log.h"
#include "conf/config.h"
#include "rpc/rpc_buffer.h"
#include "rpc/rpc_client.h"
#include "rpc/rpc_server.h"
#include "tests/unit/unit.h"
#include "wire/data_flags.h"
#include "worker/worker_daemon.h"
#include "worker/worker_dir.h"
#include "worker/worker_metrics.h"

#define MIB        (1u << 20)
#define KIB        (1u << 10)
#define TEST_BLOCK (4 * MIB)
#define BASE       100 /* base_version of files of the under file system */
#define SESSION    77

/* ---- a master ---- */

struct fake_master {
    struct loop *loop;
    struct rpc_server *rpc;
    char address[64], uri[512];
    _Atomic uint32_t registered, beats, origins, mounts_asked, changed, sessions_asked, sweeps;
    _Atomic uint64_t dropped, mounts_version;
    _Atomic int refuse;             /* everything is answered with this error */
    _Atomic uint64_t session_ended; /* of sessions_check */
    _Atomic bool register_again;
    struct rec_worker_drop drop; /* told while drop.sequence > dropped */
    _Atomic bool has_drop;
    _Atomic uint64_t orphan, given_up;     /* inodes: of blocks_check */
    _Atomic uint32_t incarnation, checked; /* told at registering; by heartbeats */
    _Atomic uint64_t truncated_base;       /* added to the version of origins */
};

static inline void master_origin(struct fake_master *m, struct rpc_request *q)
{
    struct msg_origin o;
    struct stat st;
    char key[32], path[600], etag[64];
    ck_ok(msg_origin_decode(q->body, q->header.body_len, &o));
    m->origins++;
    snprintf(key, sizeof(key), "f%llu", (unsigned long long)o.inode);
    snprintf(path, sizeof(path), "%s/%s", m->uri + strlen("file://"), key);
    if (stat(path, &st) < 0) {
        rpc_answer(q, -ENODATA, 0, NULL, NULL);
        return;
    }
    snprintf(etag, sizeof(etag), "%llx-%llx", (unsigned long long)st.st_ino,
             (unsigned long long)st.st_mtim.tv_sec * 1000000000ull + (unsigned long long)st.st_mtim.tv_nsec);
    struct msg_origin_answer a = {
        .mount = 1,
        .key = text_of(key),
        .version = BASE + m->truncated_base,
        .base_bytes = (uint64_t)st.st_size,
        .etag = text_of(etag),
        .mtime_ns = (uint64_t)st.st_mtim.tv_sec * NS_PER_S + (uint64_t)st.st_mtim.tv_nsec,
        .size = (uint64_t)st.st_size,
    };
    rpc_answer(q, 0, 0, msg_origin_answer_desc(), &a);
}

static inline void master_beat(struct fake_master *m, struct rpc_request *q)
{
    struct msg_worker_heartbeat h;
    struct msg_worker_heartbeat_answer a = {.mounts_version = m->mounts_version, .register_again = m->register_again};
    struct buf drops = {0};
    ck_ok(msg_worker_heartbeat_decode(q->body, q->header.body_len, &h));
    m->beats++;
    m->dropped = h.dropped;
    m->checked = h.checked;
    m->register_again = false;
    if (m->has_drop && m->drop.sequence > h.dropped) {
        rec_worker_drop_append(&drops, &m->drop);
        a.drops = wire_list_of(&drops, 1);
    }
    rpc_answer(q, 0, 0, msg_worker_heartbeat_answer_desc(), &a);
    buf_fini(&drops);
}

static inline void master_mounts(struct fake_master *m, struct rpc_request *q)
{
    struct rec_mount one = {.mount = 1, .inode = 1, .path = text_of("/"), .uri = text_of(m->uri)};
    struct msg_worker_mounts_answer a = {.mounts_version = m->mounts_version};
    struct buf list = {0};
    m->mounts_asked++;
    rec_mount_append(&list, &one);
    a.mounts = wire_list_of(&list, 1);
    rpc_answer(q, 0, 0, msg_worker_mounts_answer_desc(), &a);
    buf_fini(&list);
}

/* Blocks of m->orphan are nobody's. */
static inline void master_blocks(struct fake_master *m, struct rpc_request *q)
{
    struct msg_blocks_check c;
    uint8_t verdicts[1024];
    uint32_t n = 0;
    ck_ok(msg_blocks_check_decode(q->body, q->header.body_len, &c));
    rec_for_each (held_block, b, &c.blocks) {
        verdicts[n++] = b.inode == m->given_up ? BLOCK_GIVEN_UP : b.inode == m->orphan ? BLOCK_DROP : BLOCK_KEEP;
    }
    struct msg_blocks_check_answer a = {.verdicts = {(const char *)verdicts, n}};
    m->sweeps++;
    rpc_answer(q, 0, 0, msg_blocks_check_answer_desc(), &a);
}

static inline void master_request(struct rpc_request *q, void *user)
{
    struct fake_master *m = user;
    if (q->header.type == MSG_leader) {
        const struct msg_leader_answer a = {.serving = !m->refuse};
        rpc_answer(q, 0, 0, msg_leader_answer_desc(), &a);
        return;
    }
    if (m->refuse) {
        rpc_answer(q, m->refuse, 0, NULL, NULL);
        return;
    }
    switch (q->header.type) {
    case MSG_worker_register: {
        struct msg_worker_register_answer a = {
            .heartbeat_ms = 20, .mounts_version = m->mounts_version, .incarnation = m->incarnation};
        m->registered++;
        rpc_answer(q, 0, 0, msg_worker_register_answer_desc(), &a);
        break;
    }
    case MSG_worker_heartbeat: master_beat(m, q); break;
    case MSG_worker_mounts: master_mounts(m, q); break;
    case MSG_origin: master_origin(m, q); break;
    case MSG_origin_changed:
        m->changed++;
        rpc_answer(q, 0, 0, NULL, NULL);
        break;
    case MSG_sessions_check: {
        uint8_t ended[8];
        struct msg_sessions_check_answer a = {0};
        put_le64(ended, m->session_ended);
        m->sessions_asked++;
        if (m->session_ended)
            a.ended = (struct text){(const char *)ended, 8};
        rpc_answer(q, 0, 0, msg_sessions_check_answer_desc(), &a);
        break;
    }
    case MSG_blocks_check: master_blocks(m, q); break;
    default: rpc_answer(q, -CV_UNKNOWN_MESSAGE, 0, NULL, NULL);
    }
}

static inline int master_listen(void *arg)
{
    struct fake_master *m = arg;
    return rpc_server_listen(m->rpc, "127.0.0.1:0", 0, 0);
}

static inline void master_begin(struct fake_master *m)
{
    struct rpc_server_options o = {
        .self = {.role = RPC_MASTER, .program = "fake-master"}, .request = master_request, .user = m};
    snprintf(m->uri, sizeof(m->uri), "file://%s/ufs", unit_tempdir());
    ck_assert_int_eq(mkdir(m->uri + strlen("file://"), 0700), 0);
    ck_ok(loop_new(&(struct loop_options){.name = "master"}, &m->loop));
    ck_ok(rpc_server_new(m->loop, &o, &m->rpc));
    ck_ok(loop_start(m->loop));
    ck_ok(loop_call(m->loop, master_listen, m));
    snprintf(m->address, sizeof(m->address), "127.0.0.1:%u", rpc_server_port(m->rpc));
    m->mounts_version = 1;
}

static inline void posted(void *arg)
{
    sem_post(arg);
}

struct stopping {
    struct rpc_server *rpc;
    struct rpc_client *client;
    sem_t done;
};

static inline int master_stop_here(void *arg)
{
    struct stopping *s = arg;
    rpc_server_stop(s->rpc, 0, posted, &s->done);
    return 0;
}

static inline void master_end(struct fake_master *m)
{
    struct stopping s = {.rpc = m->rpc};
    sem_init(&s.done, 0, 0);
    ck_ok(loop_call(m->loop, master_stop_here, &s));
    sem_wait(&s.done);
    loop_stop(m->loop);
    loop_join(m->loop);
    rpc_server_free(m->rpc);
    loop_free(m->loop);
}

/* ---- a worker ---- */

struct rig {
    struct fake_master master;
    struct config *config;
    const struct worker_options *options;
    struct worker_config wc;
    struct metrics *metrics;
    struct worker *worker;
    struct uuid cluster;
    char dir[512], address[64], socket[256];
};

static const struct option_section *const rig_sections[] = {&cluster_section, &worker_section, NULL};

static inline void rig_start(struct rig *g)
{
    ck_ok(metrics_new(&g->metrics));
    g->wc = (struct worker_config){
        .options = config_options(g->config, worker),
        .cluster = config_options(g->config, cluster),
        .metrics = g->metrics,
    };
    ck_ok(worker_new(&g->wc, &g->worker));
    ck_ok(worker_start(g->worker));
    snprintf(g->address, sizeof(g->address), "127.0.0.1:%u", worker_port(g->worker));
    snprintf(g->socket, sizeof(g->socket), "unix:%s", worker_socket(g->worker));
}

/* capacity: "256MiB"; more: further lines of the worker's section. */
static inline void rig_begin(struct rig *g, const char *capacity, const char *more)
{
    char path[600];
    uint64_t id;
    struct worker_dir d;
    *g = (struct rig){.cluster = uuid_new()};
    log_set_level(getenv("TEST_LOG") ? LOG_LEVEL_DEBUG : LOG_LEVEL_ERROR);
    master_begin(&g->master);
    snprintf(g->dir, sizeof(g->dir), "%s/data", unit_tempdir());
    ck_ok(worker_dir_parse(g->dir, &d));
    ck_ok(worker_dir_format(&d, g->cluster, &id));
    snprintf(path, sizeof(path), "%s/curvine.yaml", unit_tempdir());
    FILE *f = fopen(path, "w");
    ck_assert_ptr_nonnull(f);
    fprintf(f,
            "cluster:\n  run_dir: %s\n  masters: [\"%s\"]\nworker:\n  dirs: [\"[SSD:%s]%s\"]\n  listen: 127.0.0.1\n"
            "  port: 0\n  http_port: 0\n  threads: 1\n%s",
            unit_tempdir(), g->master.address, capacity, g->dir, more);
    fclose(f);
    ck_ok(config_new(rig_sections, &g->config));
    ck_assert_msg(config_load(g->config, path) == 0, "%s", config_errors(g->config));
    rig_start(g);
}

static inline void rig_stop(struct rig *g)
{
    g->worker = worker_free(g->worker);
    g->metrics = metrics_free(g->metrics);
}

static inline void rig_end(struct rig *g)
{
    rig_stop(g);
    config_free(g->config);
    master_end(&g->master);
}

/* The value of a metric, as a scrape shows it: "fill_bytes_total". */
static inline double rig_metric(struct rig *g, const char *name)
{
    struct buf out = {0};
    char line[128];
    ck_ok(metrics_write_text(g->metrics, &out));
    ck_ok(buf_append(&out, "", 1));
    snprintf(line, sizeof(line), "\ncurvine_worker_%s ", name);
    const char *at = strstr((char *)out.p, line);
    ck_assert_msg(at != NULL, "no metric %s", name);
    double value = strtod(at + strlen(line), NULL);
    buf_fini(&out);
    return value;
}

/* ---- content ---- */

/* Byte i of version v of a file. */
static inline uint8_t byte_of(uint64_t inode, uint64_t version, uint64_t at)
{
    return (uint8_t)(hash_u64(inode * 1000003 + version * 7919 + at / 8) >> (8 * (at % 8)));
}

static inline void pattern(uint64_t inode, uint64_t version, uint64_t at, uint8_t *p, uint32_t n)
{
    for (uint32_t i = 0; i < n; i++)
        p[i] = byte_of(inode, version, at + i);
}

static inline void ck_pattern(uint64_t inode, uint64_t version, uint64_t at, const uint8_t *p, uint32_t n)
{
    uint32_t i = 0;
    while (i < n && p[i] == byte_of(inode, version, at + i))
        i++;
    /* One assertion: Check writes a line of its own for each, also for those that hold. */
    ck_assert_msg(i == n, "byte %llu of inode %llu", (unsigned long long)(at + i), (unsigned long long)inode);
}

/* A file of the under file system. */
static inline void ufs_file(struct rig *g, uint64_t inode, uint64_t version, uint64_t bytes)
{
    char path[600];
    uint8_t *p = malloc(bytes + 1);
    snprintf(path, sizeof(path), "%s/f%llu", g->master.uri + strlen("file://"), (unsigned long long)inode);
    pattern(inode, version, 0, p, (uint32_t)bytes);
    FILE *f = fopen(path, "w");
    ck_assert_ptr_nonnull(f);
    ck_assert_uint_eq(fwrite(p, 1, bytes, f), bytes);
    fclose(f);
    free(p);
}

static inline struct rec_block clean_block(uint64_t inode, uint32_t index, uint64_t file_bytes)
{
    uint64_t start = (uint64_t)index * TEST_BLOCK;
    return (struct rec_block){
        .inode = inode,
        .index = index,
        .version = BASE,
        .base_version = BASE,
        .base_length = (uint32_t)(file_bytes > start ? min(file_bytes - start, (uint64_t)TEST_BLOCK) : 0),
        .block_bytes = TEST_BLOCK,
        .file_bytes = file_bytes,
        .mount = 1,
    };
}

static inline struct rec_block written_block(uint64_t inode, uint64_t epoch, uint32_t valid_length)
{
    return (struct rec_block){
        .inode = inode,
        .version = epoch,
        .epoch = epoch,
        .valid_length = valid_length,
        .block_bytes = TEST_BLOCK,
        .file_bytes = valid_length,
        .mount = 0,
    };
}

/* ---- a client ---- */

struct peer {
    struct loop *loop;
    struct rpc_client *client;
};

struct answer {
    int result;
    uint8_t *body, *data;
    uint32_t body_n, data_n;
    int fd; /* -1: none came */
};

static inline int peer_make(void *arg)
{
    void **a = arg;
    struct peer *p = a[0];
    struct rpc_client_options o = {
        .address = a[1],
        .self = {.role = RPC_CLIENT, .program = "test"},
        .session = *(uint64_t *)a[2],
        .limits = {.receive_fds = true},
    };
    return rpc_client_new(p->loop, &o, &p->client);
}

static inline void peer_begin(struct peer *p, const char *address, uint64_t session)
{
    ck_ok(loop_new(&(struct loop_options){.name = "peer"}, &p->loop));
    ck_ok(loop_start(p->loop));
    ck_ok(loop_call(p->loop, peer_make, (void *[]){p, (void *)(uintptr_t)address, &session}));
}

static inline int peer_close(void *arg)
{
    struct stopping *s = arg;
    rpc_client_close(s->client, posted, &s->done);
    return 0;
}

static inline void peer_end(struct peer *p)
{
    struct stopping s = {.client = p->client};
    sem_init(&s.done, 0, 0);
    ck_ok(loop_call(p->loop, peer_close, &s));
    sem_wait(&s.done);
    loop_stop(p->loop);
    loop_join(p->loop);
    loop_free(p->loop);
}

struct pending {
    struct rpc_call call;
    struct loop_job job;
    struct peer *peer;
    struct answer answer;
    uint16_t type;
    struct buf body;
    const void *data;
    uint32_t data_n;
    sem_t done;
};

static inline void pending_done(struct rpc_call *call, int result, const struct rpc_frame *f)
{
    struct pending *p = container_of(call, struct pending, call);
    p->answer = (struct answer){.result = result, .fd = -1};
    if (f) {
        p->answer.body_n = f->header.body_len;
        p->answer.body = memcpy(malloc(f->header.body_len + 1), f->body, f->header.body_len);
        p->answer.data_n = f->header.data_len;
        p->answer.data = memcpy(malloc(f->header.data_len + 1), f->data, f->header.data_len);
        if (f->fd_count)
            p->answer.fd = take_fd(f->fds[0]);
    }
    sem_post(&p->done);
}

static inline void pending_send(struct loop_job *job)
{
    struct pending *p = container_of(job, struct pending, job);
    p->call.done = pending_done;
    rpc_client_call_body(p->peer->client, &p->call, p->type, 0, p->body.p, (uint32_t)p->body.n, p->data, p->data_n,
                         clock_ns() + 15 * NS_PER_S);
}

static inline void ask_begin(struct peer *peer, struct pending *p, uint16_t type, const struct wire_desc *desc,
                             const void *record, const void *data, uint32_t data_n)
{
    *p = (struct pending){.peer = peer, .type = type, .data = data, .data_n = data_n, .job.run = pending_send};
    ck_ok(wire_encode(desc, record, &p->body));
    sem_init(&p->done, 0, 0);
    loop_post(peer->loop, &p->job);
}

static inline struct answer ask_end(struct pending *p)
{
    while (sem_wait(&p->done) < 0)
        ;
    buf_fini(&p->body);
    return p->answer;
}

static inline struct answer ask(struct peer *peer, uint16_t type, const struct wire_desc *desc, const void *record,
                                const void *data, uint32_t data_n)
{
    struct pending p;
    ask_begin(peer, &p, type, desc, record, data, data_n);
    return ask_end(&p);
}

static inline void answer_free(struct answer *a)
{
    free(a->body);
    free(a->data);
    a->fd = close_fd(a->fd);
    a->body = a->data = NULL;
}

/* Hold the data against its checksums. */
static inline void ck_checksums(const struct msg_block_read_answer *m, uint32_t offset, const struct answer *a)
{
    ck_assert_uint_eq(m->length, a->data_n);
    if (!(m->flags & BLOCK_CRC_UNITS)) {
        ck_assert_uint_eq(m->crc, crc32c(0, a->data, a->data_n));
        return;
    }
    ck_assert_uint_eq(offset % 65536, 0);
    ck_assert_uint_eq(m->crcs.n, 4 * ((a->data_n + 65535) / 65536));
    for (uint32_t i = 0; i * 65536 < a->data_n; i++)
        ck_assert_uint_eq(get_le32(m->crcs.p + 4 * (size_t)i),
                          crc32c(0, a->data + i * 65536, min(a->data_n - i * 65536, 65536u)));
}

/* Read; *ret_data is to be freed. Returns the length, or the error. */
static inline int get(struct peer *p, const struct rec_block *b, uint32_t offset, uint32_t length, uint32_t flags,
                      uint8_t **ret_data, uint32_t *ret_flags)
{
    struct msg_block_read q = {.block = *b, .offset = offset, .length = length, .flags = flags};
    struct answer a = ask(p, MSG_block_read, msg_block_read_desc(), &q, NULL, 0);
    struct msg_block_read_answer m = {0};
    if (a.result == 0) {
        ck_ok(msg_block_read_answer_decode(a.body, a.body_n, &m));
        ck_checksums(&m, offset, &a);
    }
    int r = a.result < 0 ? a.result : (int)m.length;
    if (ret_flags)
        *ret_flags = m.flags;
    if (ret_data && a.result == 0)
        *ret_data = take(a.data);
    answer_free(&a);
    return r;
}

/* Read and hold against the content of a version. */
static inline int get_checked(struct peer *p, const struct rec_block *b, uint32_t offset, uint32_t length,
                              uint64_t version)
{
    uint8_t *data = NULL;
    int r = get(p, b, offset, length, 0, &data, NULL);
    if (r > 0)
        ck_pattern(b->inode, version, (uint64_t)b->index * TEST_BLOCK + offset, data, (uint32_t)r);
    free(data);
    return r;
}

static inline int put(struct peer *p, const struct rec_block *b, uint32_t offset, uint32_t n, uint64_t version)
{
    uint8_t *data = malloc(n);
    pattern(b->inode, version, (uint64_t)b->index * TEST_BLOCK + offset, data, n);
    struct msg_block_write q = {.block = *b, .offset = offset, .crc = crc32c(0, data, n)};
    struct answer a = ask(p, MSG_block_write, msg_block_write_desc(), &q, data, n);
    answer_free(&a);
    free(data);
    return a.result;
}

struct opened {
    int result, fd;
    struct msg_block_open_answer m;
};

static inline struct opened open_block(struct peer *p, const struct rec_block *b, uint64_t have)
{
    struct msg_block_open q = {.block = *b, .have = have};
    struct answer a = ask(p, MSG_block_open, msg_block_open_desc(), &q, NULL, 0);
    struct opened o = {.result = a.result, .fd = take_fd(a.fd)};
    if (a.result == 0)
        ck_ok(msg_block_open_answer_decode(a.body, a.body_n, &o.m));
    answer_free(&a);
    return o;
}

static inline int release_file(struct peer *p, uint64_t file)
{
    uint8_t id[8];
    put_le64(id, file);
    struct msg_block_release q = {.files = {(const char *)id, 8}};
    struct answer a = ask(p, MSG_block_release, msg_block_release_desc(), &q, NULL, 0);
    answer_free(&a);
    return a.result;
}

/* Fill; returns the error, or 0 with the answer. */
static inline int fill(struct peer *p, const struct rec_block *b, uint32_t first, uint32_t count, uint32_t flags,
                       struct msg_block_fill_answer *ret)
{
    struct msg_block_fill q = {.block = *b, .first = first, .count = count, .flags = flags};
    struct answer a = ask(p, MSG_block_fill, msg_block_fill_desc(), &q, NULL, 0);
    if (a.result == 0)
        ck_ok(msg_block_fill_answer_decode(a.body, a.body_n, ret));
    answer_free(&a);
    return a.result;
}

static inline struct rec_presence presence(struct peer *p, uint64_t inode)
{
    uint8_t id[8];
    put_le64(id, inode);
    struct msg_presence q = {.inodes = {(const char *)id, 8}};
    struct answer a = ask(p, MSG_presence, msg_presence_desc(), &q, NULL, 0);
    struct msg_presence_answer m;
    struct rec_presence ret = {0};
    ck_ok(a.result);
    ck_ok(msg_presence_answer_decode(a.body, a.body_n, &m));
    rec_for_each (presence, one, &m.inodes) {
        ret = one;
    }
    ck_assert_uint_eq(ret.inode, inode);
    answer_free(&a);
    return ret;
}

static inline int put_sync_since(struct peer *p, uint64_t inode, uint64_t boot)
{
    struct msg_block_sync q = {.inode = inode, .boot = boot};
    struct answer a = ask(p, MSG_block_sync, msg_block_sync_desc(), &q, NULL, 0);
    answer_free(&a);
    return a.result;
}

static inline int put_sync(struct peer *p, uint64_t inode)
{
    return put_sync_since(p, inode, 0);
}
