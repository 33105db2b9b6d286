/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Fuzz target: the bulk channel, as another journal could use it. The input is a course of things it says, to one that
 * receives (it has taken an offer) and gives (a checkpoint is there) on the same connection: any bytes; any message with any
 * body and data, its checksums right or wrong; and, so that what lies behind is reached, the right manifest, the same with a
 * byte changed, right pieces of its files, pieces with a wrong byte under a right checksum, questions. Nothing may crash or be
 * read beyond its end, and nothing is installed but the files the manifest describes.
 */
#include <assert.h>
#include <poll.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/bytes.h"
#include "base/hash.h"
#include "base/log.h"
#include "tests/unit/bulk_seam.h"
#include "wire/frame.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

enum { FILES = 3, SOURCE = 8, INDEX = 500, TERM = 3, ID = 0x1d, PIECE_MAX = 3000, ITEMS_MAX = 64 };

static const uint32_t sizes[FILES] = {PIECE_MAX, 70, 0};
static const char *const names[FILES] = {"000007.sst", "000009.sst", "CURRENT"};
static uint8_t content[FILES][PIECE_MAX];
static struct loop *loop;
static struct manifest manifest;
static struct buf encoded;

/* ---- the state that is given ---- */

static void make_state(void)
{
    static const struct raft_member member = {.id = SOURCE, .role = RAFT_VOTER, .raft_address = "there:1"};
    struct raft_conf conf = {.count = 0};
    uint8_t bytes[RAFT_CONF_ENCODED_MAX];
    char path[600];
    manifest =
        (struct manifest){.id = ID, .index = INDEX, .term = TERM, .chain = 77, .conf_index = 2, .incarnation = 1};
    int r = raft_conf_put(&conf, &member);
    assert(r == 0);
    r = buf_append(&manifest.conf, bytes, raft_conf_encode(&conf, bytes));
    assert(r == 0);
    snprintf(path, sizeof(path), "%s/" CHECKPOINT_PREFIX "%016x", seam.directory, INDEX);
    r = mkdir(path, 0700);
    assert(r == 0);
    for (int i = 0; i < FILES; i++) {
        struct manifest_file *f;
        for (uint32_t at = 0; at < sizes[i]; at++)
            content[i][at] = (uint8_t)(at * 31 + (uint32_t)i);
        r = manifest_add(&manifest, text_of(names[i]), sizes[i], &f);
        assert(r == 0);
        if (sizes[i])
            f->crcs[0] = crc32c(0, content[i], sizes[i]);
        f->hash = hash_bytes(f->hash, content[i], sizes[i]);
        snprintf(path, sizeof(path), "%s/" CHECKPOINT_PREFIX "%016x/%s", seam.directory, INDEX, names[i]);
        FILE *file = fopen(path, "we");
        assert(file);
        size_t n = fwrite(content[i], 1, sizes[i], file);
        assert(n == sizes[i]);
        fclose(file);
    }
    snprintf(path, sizeof(path), "%s/" CHECKPOINT_PREFIX "%016x", seam.directory, INDEX);
    r = manifest_write(path, &manifest);
    assert(r == 0);
    r = manifest_encode(&manifest, &encoded);
    assert(r == 0);
}

static void remove_rig(void)
{
    char path[600];
    snprintf(path, sizeof(path), "%s/" CHECKPOINT_PREFIX "%016x", seam.directory, INDEX);
    (void)manifest_remove_dir(path);
    (void)rmdir(seam.directory);
}

static void make_rig(void)
{
    static char dir[] = "/tmp/cv-fuzz-bulk-XXXXXX";
    struct loop_options options = {.name = "journal"};
    log_set_level(LOG_LEVEL_ERROR);
    char *made = mkdtemp(dir);
    assert(made);
    snprintf(seam.directory, sizeof(seam.directory), "%s", dir);
    make_state();
    atexit(remove_rig);
    int r = loop_new(&options, &loop);
    assert(r == 0);
    r = loop_start(loop);
    assert(r == 0);
}

/* ---- one life ---- */

struct life {
    struct journal_snapshots *s;
    int fd; /* the other end, which the loop gets */
    bool offered;
    atomic_bool stopped;
};

static void no_frame(struct rpc_conn *c, const struct rpc_frame *f, void *user)
{
}

static void no_closed(struct rpc_conn *c, int reason, void *user)
{
}

static int begin(void *arg)
{
    static const struct rpc_conn_ops ops = {.frame = no_frame, .closed = no_closed};
    static const struct raft_snapshot_offer offer = {.index = INDEX, .term = TERM, .source = SOURCE};
    struct life *l = arg;
    struct journal_snapshots_options options = {.loop = loop, .node = 1, .incarnation = 1};
    struct rpc_conn *c;
    int r = journal_snapshots_new(&options, &l->s);
    assert(r == 0);
    journal_snapshots_start(l->s, NULL, NULL, NULL);
    r = rpc_conn_new(loop, l->fd, &ops, NULL, NULL, &c);
    assert(r == 0);
    journal_snapshots_accept(l->s, c, SOURCE);
    if (l->offered)
        journal_snapshots_driver.offer(l->s, &offer);
    return 0;
}

static void is_stopped(void *arg)
{
    ((struct life *)arg)->stopped = true;
}

static int stop(void *arg)
{
    journal_snapshots_stop(((struct life *)arg)->s, is_stopped, arg);
    return 0;
}

static int is_busy(void *arg)
{
    const struct fetch *f = &((struct life *)arg)->s->fetch;
    return f->working || f->state == FETCH_RESUME || f->state == FETCH_VERIFY;
}

/* Until its file threads have done what came. */
static void settle(struct life *l)
{
    while (loop_call(loop, is_busy, l))
        usleep(20);
}

/* ---- what is said ---- */

struct input {
    const uint8_t *p;
    size_t n;
    int fd;
    bool ended;   /* the other end is */
    bool patched; /* a manifest that was changed was given */
    bool waits;   /* it will ask for pieces */
    struct life *life;
};

static uint8_t next(struct input *in)
{
    if (!in->n)
        return 0;
    in->n--;
    return *in->p++;
}

static const uint8_t *some(struct input *in, size_t *n)
{
    const uint8_t *p = in->p;
    *n = min(*n, in->n);
    in->p += *n;
    in->n -= *n;
    return p;
}

static void say_bytes(struct input *in, const void *p, size_t n)
{
    in->ended = in->ended || send(in->fd, p, n, MSG_NOSIGNAL) < 0;
}

static void say(struct input *in, uint16_t type, const void *body, size_t n, const void *data, size_t data_n,
                uint32_t damage)
{
    uint8_t head[FRAME_HEADER_SIZE];
    struct frame_header h = {.type = type,
                             .flags = FRAME_ONE_WAY,
                             .body_len = (uint32_t)n,
                             .data_len = (uint32_t)data_n,
                             .incarnation = 1,
                             .body_crc = crc32c(0, body, n),
                             .aux = crc32c(0, data, data_n) ^ damage};
    frame_encode(&h, head);
    say_bytes(in, head, sizeof(head));
    say_bytes(in, body, n);
    say_bytes(in, data, data_n);
}

#define SAY(in, name, data_, data_n_, ...)                                                                             \
    do {                                                                                                               \
        struct msg_bulk_##name m_ = {__VA_ARGS__};                                                                     \
        struct buf b_ cleanup(buf_fini) = {0};                                                                         \
        if (msg_bulk_##name##_encode(&m_, &b_) == 0)                                                                   \
            say(in, MSG_bulk_##name, b_.p, b_.n, data_, data_n_, 0);                                                   \
    } while (0)

/* What it asks for, once it knows: pieces that were not asked for end the connection. */
static void hear_needs(struct input *in)
{
    uint8_t needs[4096];
    struct pollfd p = {.fd = in->fd, .events = POLLIN};
    if (in->waits && poll(&p, 1, 20) > 0)
        (void)recv(in->fd, needs, sizeof(needs), 0);
    in->waits = false;
}

static void say_manifest(struct input *in, bool changed)
{
    struct buf b cleanup(buf_fini) = {0};
    uint8_t question[4096];
    if (buf_append(&b, encoded.p, encoded.n) < 0)
        return;
    if (changed) {
        in->patched = true;
        size_t at = next(in) | (size_t)next(in) << 8;
        b.p[at % (b.n - 4)] ^= next(in);
        put_le32(b.p + b.n - 4, crc32c(0, b.p, b.n - 4)); /* so that what lies behind its checksum is reached */
    }
    settle(in->life); /* its question for it has left */
    (void)recv(in->fd, question, sizeof(question), MSG_DONTWAIT);
    SAY(in, manifest, b.p, b.n, .id = ID);
    hear_needs(in);
}

static void say_piece(struct input *in, bool wrong)
{
    uint8_t piece[PIECE_MAX];
    uint32_t file = next(in) % FILES;
    memcpy(piece, content[file], sizes[file]);
    if (wrong && sizes[file])
        piece[next(in) % sizes[file]] ^= 1;
    SAY(in, data, piece, sizes[file], .id = ID, .file = file);
}

static void say_next(struct input *in)
{
    uint8_t kind = next(in);
    size_t n = next(in), data_n;
    const uint8_t *p, *d;
    switch (kind % 8) {
    case 0:
        p = some(in, &n);
        say_bytes(in, p, n);
        break;
    case 1:
        data_n = next(in);
        p = some(in, &n);
        d = some(in, &data_n);
        say(in, (uint16_t)(MSG_bulk_prepare + kind / 8 % 6), p, n, d, data_n, kind & 0x80);
        break;
    case 2: say_manifest(in, false); break;
    case 3: say_manifest(in, true); break;
    case 4: say_piece(in, false); break;
    case 5: say_piece(in, true); break;
    case 6: SAY(in, open, NULL, 0, .index = INDEX, .term = TERM); break;
    case 7:
        SAY(in, need, NULL, 0, .id = ID, .file = (uint32_t)n % (FILES + 1), .offset = (uint64_t)next(in) * 16,
            .length = next(in));
        break;
    default: break;
    }
}

/* Its answers are not looked at; they end when it has read all of ours, and our end. */
static void hear_out(int fd)
{
    uint8_t in[65536];
    struct pollfd p = {.fd = fd, .events = POLLIN};
    shutdown(fd, SHUT_WR);
    while (poll(&p, 1, 5000) > 0 && recv(fd, in, sizeof(in), 0) > 0)
        ;
}

static void check_installed(const struct input *in)
{
    char path[600];
    if (seam.installs) {
        snprintf(path, sizeof(path), "%s/%s", seam.directory, seam.name);
        assert(!strchr(seam.name, '/'));
        assert(in->patched || manifest_verify(path, &manifest, NULL) == 0);
        (void)manifest_remove_dir(path);
    }
    snprintf(path, sizeof(path), "%s/" STAGING, seam.directory);
    (void)manifest_remove_dir(path);
    seam.installs = seam.failed = seam.taken = 0;
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    if (!loop)
        make_rig();
    if (size < 2)
        return 0;
    int pair[2];
    int r = socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, pair);
    assert(r == 0);
    struct life l = {.fd = pair[0], .offered = data[0] & 1};
    struct input in = {.p = data + 1, .n = size - 1, .fd = pair[1], .waits = l.offered, .life = &l};
    (void)loop_call(loop, begin, &l);
    for (int i = 0; i < ITEMS_MAX && in.n && !in.ended; i++)
        say_next(&in);
    settle(&l);
    hear_out(pair[1]);
    settle(&l);
    (void)loop_call(loop, stop, &l);
    while (!l.stopped)
        usleep(50);
    journal_snapshots_free(l.s);
    close(pair[1]);
    check_installed(&in);
    return 0;
}
