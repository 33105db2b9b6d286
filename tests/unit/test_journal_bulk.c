/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The bulk channel: a receiver and a source of snapshots (raft/journal_snapshot.h) on a loop of their own, and at the other
 * end of the socket a test that says what another journal says, and what none should. Without a database.
 */
#include <fcntl.h>
#include <stdlib.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/bytes.h"
#include "base/random.h"
#include "tests/unit/bulk_seam.h"
#include "tests/unit/raw_frame.h"

enum { FILES = 3, SOURCE = 8, INDEX = 500, TERM = 3, ID = 0x1d };

static const struct uuid cluster = {{5}};
static struct loop *loop;
static struct journal_snapshots *s;
static int fd = -1; /* the other end */

/* The state that is given: files and what describes them. */
static uint8_t *content[FILES];
static struct manifest manifest;
static struct buf encoded;

/* What came in last. */
static struct frame_header head;
static uint8_t in[BULK_PIECE + 4096];

/* ---- life ---- */

static void make_state(void)
{
    static const char *const names[FILES] = {"000007.sst", "000009.sst", "CURRENT"};
    static const uint64_t sizes[FILES] = {MANIFEST_CHUNK + 2 * BULK_PIECE + 5, 3000, 0};
    manifest = (struct manifest){
        .id = ID, .cluster = cluster, .index = INDEX, .term = TERM, .chain = 77, .conf_index = 2, .incarnation = 1};
    struct raft_conf conf = {.count = 0};
    struct raft_member member = {.id = SOURCE, .role = RAFT_VOTER, .raft_address = "there:1"};
    uint8_t bytes[RAFT_CONF_ENCODED_MAX];
    ck_assert_int_eq(raft_conf_put(&conf, &member), 0);
    ck_assert_int_eq(buf_append(&manifest.conf, bytes, raft_conf_encode(&conf, bytes)), 0);
    for (int i = 0; i < FILES; i++) {
        struct prng p = {(uint64_t)i};
        struct manifest_file *f;
        content[i] = malloc(sizes[i] + 1);
        for (uint64_t at = 0; at < sizes[i]; at++)
            content[i][at] = (uint8_t)(prng_next(&p) >> 8);
        ck_assert_int_eq(manifest_add(&manifest, text_of(names[i]), sizes[i], &f), 0);
        for (uint32_t c = 0; c < manifest_chunks(sizes[i]); c++) {
            const uint8_t *chunk = content[i] + (uint64_t)c * MANIFEST_CHUNK;
            size_t n = min((uint64_t)MANIFEST_CHUNK, sizes[i] - (uint64_t)c * MANIFEST_CHUNK);
            f->crcs[c] = crc32c(0, chunk, n);
            f->hash = hash_bytes(f->hash, chunk, n);
        }
    }
    ck_assert_int_eq(manifest_encode(&manifest, &encoded), 0);
}

static int start(void *arg)
{
    struct journal_snapshots_options options = {
        .loop = loop, .cluster = cluster, .node = 1, .incarnation = 1, .rate = *(uint64_t *)arg};
    ck_assert_int_eq(journal_snapshots_new(&options, &s), 0);
    journal_snapshots_start(s, NULL, NULL, NULL);
    return 0;
}

static void rig_start(uint64_t rate)
{
    struct loop_options options = {.name = "journal"};
    snprintf(seam.directory, sizeof(seam.directory), "%s/master", unit_tempdir());
    ck_assert_int_eq(mkdir(seam.directory, 0700), 0);
    make_state();
    ck_assert_int_eq(loop_new(&options, &loop), 0);
    ck_assert_int_eq(loop_start(loop), 0);
    (void)loop_call(loop, start, &rate);
}

static atomic_bool is_stopped;

static void stopped(void *arg)
{
    is_stopped = true;
}

static int stop(void *arg)
{
    journal_snapshots_stop(s, stopped, NULL);
    return 0;
}

static void rig_stop(void)
{
    (void)loop_call(loop, stop, NULL);
    until(is_stopped);
    loop_stop(loop);
    ck_assert_int_eq(loop_join(loop), 0);
    s = journal_snapshots_free(s);
    loop = loop_free(loop);
    closep(&fd);
    for (int i = 0; i < FILES; i++)
        free(content[i]);
    manifest_fini(&manifest);
    buf_fini(&encoded);
}

static void no_frame(struct rpc_conn *c, const struct rpc_frame *f, void *user)
{
}

static void no_closed(struct rpc_conn *c, int reason, void *user)
{
}

static int accept_on_loop(void *arg)
{
    static const struct rpc_conn_ops ops = {.frame = no_frame, .closed = no_closed};
    struct rpc_conn *c;
    ck_assert_int_eq(rpc_conn_new(loop, *(int *)arg, &ops, NULL, NULL, &c), 0);
    journal_snapshots_accept(s, c, SOURCE);
    return 0;
}

/* A connection of node SOURCE. */
static void connect_to_it(void)
{
    int pair[2];
    ck_assert_int_eq(socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, pair), 0);
    closep(&fd);
    fd = pair[1];
    (void)loop_call(loop, accept_on_loop, &pair[0]);
}

/* ---- what is said ---- */

/* Send a message with data; struct as the row. */
#define SAY(name, bytes_, count_, ...)                                                                                 \
    do {                                                                                                               \
        struct msg_bulk_##name m_ = {__VA_ARGS__};                                                                     \
        struct buf b_ cleanup(buf_fini) = {0};                                                                         \
        ck_assert_int_eq(msg_bulk_##name##_encode(&m_, &b_), 0);                                                       \
        raw_send(fd, MSG_bulk_##name, b_.p, b_.n, bytes_, count_);                                                     \
    } while (0)

/* Read the next, which must be of this row, into ret. */
#define HEAR(name, ret)                                                                                                \
    do {                                                                                                               \
        ck_assert_msg(raw_frame(fd, &head, in, sizeof(in), ENDS_MS), "no " #name);                                     \
        ck_assert_int_eq(head.type, MSG_bulk_##name);                                                                  \
        ck_assert_int_eq(msg_bulk_##name##_decode(in, head.body_len, (ret)), 0);                                       \
    } while (0)

static int offer_on_loop(void *arg)
{
    const struct raft_snapshot_offer offer = {.index = INDEX, .term = TERM, .source = SOURCE};
    journal_snapshots_driver.offer(s, &offer);
    return 0;
}

static void offer(void)
{
    (void)loop_call(loop, offer_on_loop, NULL);
}

/* The receiver asks for the manifest: give it. */
static void give_manifest(void)
{
    struct msg_bulk_open m;
    HEAR(open, &m);
    ck_assert_uint_eq(m.index, INDEX);
    ck_assert_uint_eq(m.term, TERM);
    SAY(manifest, encoded.p, (uint32_t)encoded.n, .id = ID);
}

static void give_piece(const struct msg_bulk_need *n)
{
    SAY(data, content[n->file] + n->offset, n->length, .id = n->id, .file = n->file, .offset = n->offset);
}

/* What it needs, in order, until nothing was asked for a while or `most` came. Returns how many. */
static uint32_t hear_needs(struct msg_bulk_need *needs, uint32_t most)
{
    uint32_t count = 0;
    while (count < most && raw_frame(fd, &head, in, sizeof(in), count ? STAYS_MS : ENDS_MS)) {
        ck_assert_int_eq(head.type, MSG_bulk_need);
        ck_assert_int_eq(msg_bulk_need_decode(in, head.body_len, &needs[count]), 0);
        ck_assert_uint_eq(needs[count].id, ID);
        count++;
    }
    return count;
}

enum { PIECES = 8 }; /* of the whole state */

/* From its question for the manifest on. */
static uint64_t give_everything(void)
{
    struct msg_bulk_need needs[2 * PIECES];
    uint64_t bytes = 0;
    give_manifest();
    uint32_t count = hear_needs(needs, array_size(needs));
    for (uint32_t i = 0; i < count; i++) {
        give_piece(&needs[i]);
        bytes += needs[i].length;
    }
    return bytes;
}

static int installed_on_loop(void *arg)
{
    journal_snapshots_driver.installed(s);
    return 0;
}

/* The state is in its place, byte by byte, and the log is told to go on behind it. */
static void check_arrived(void)
{
    until(seam.installs == 1);
    (void)loop_call(loop, installed_on_loop, NULL);
    ck_assert_int_eq(seam.taken, 1);
    ck_assert_uint_eq(seam.index, INDEX);
    ck_assert_uint_eq(seam.chain, 77);
    char path[512];
    snprintf(path, sizeof(path), "%s/%s", seam.directory, seam.name);
    ck_assert_int_eq(manifest_verify(path, &manifest, NULL), 0);
}

static void whole_bytes(uint64_t expected)
{
    ck_assert_uint_eq(expected, manifest_bytes(&manifest));
}

/* ---- receiving ---- */

TEST(receiver_asks_for_every_byte_once_and_puts_the_state_in_its_place)
{
    rig_start(0);
    connect_to_it();
    offer();
    whole_bytes(give_everything());
    check_arrived();
    ck_assert_int_eq(seam.failed, 0);
    rig_stop();
}

TEST(receiver_goes_on_behind_the_chunks_that_are_there_when_its_source_was_gone)
{
    struct msg_bulk_need needs[PIECES];
    rig_start(0);
    connect_to_it();
    offer();
    give_manifest();
    ck_assert_uint_eq(hear_needs(needs, PIECES), PIECES);
    for (int i = 0; i < 5; i++) /* a chunk of four pieces, and one more */
        give_piece(&needs[i]);
    SAY(data, content[0] + needs[5].offset, needs[5].length, .id = ID + 1, .file = 0, .offset = needs[5].offset);
    char path[512];
    struct stat st;
    snprintf(path, sizeof(path), "%s/staging/%s", seam.directory, manifest.files[0].name);
    until(stat(path, &st) == 0 && st.st_size == 5 * BULK_PIECE); /* that of another manifest was left alone */
    connect_to_it();                                             /* the old one ends */
    ck_assert_uint_eq(give_everything(), manifest_bytes(&manifest) - MANIFEST_CHUNK);
    check_arrived();
    rig_stop();
}

TEST(receiver_begins_again_from_the_manifest_when_the_source_has_another_checkpoint_now)
{
    struct msg_bulk_need needs[PIECES];
    rig_start(0);
    connect_to_it();
    offer();
    give_manifest();
    ck_assert_uint_eq(hear_needs(needs, PIECES), PIECES);
    SAY(data, NULL, 0, .id = ID, .file = needs[0].file, .offset = needs[0].offset, .error = ENOENT);
    whole_bytes(give_everything());
    check_arrived();
    rig_stop();
}

TEST(receiver_ends_a_connection_whose_bytes_do_not_fit_their_checksum)
{
    struct msg_bulk_need needs[PIECES];
    rig_start(0);
    connect_to_it();
    offer();
    give_manifest();
    ck_assert_uint_eq(hear_needs(needs, PIECES), PIECES);
    raw_damage = 1;
    give_piece(&needs[0]);
    raw_damage = 0;
    raw_ends(fd);
    fd = -1;
    connect_to_it();
    whole_bytes(give_everything());
    check_arrived();
    rig_stop();
}

/* The checksum on the wire fits, that of the manifest does not: the disk of the source, or ours. */
TEST(receiver_fetches_a_wrong_file_again_and_gives_the_source_up_the_third_time)
{
    rig_start(0);
    connect_to_it();
    offer();
    content[1][7] ^= 1;
    whole_bytes(give_everything());
    ck_assert_uint_eq(give_everything(), 3000); /* the other one is kept */
    ck_assert_int_eq(seam.failed, 0);
    ck_assert_uint_eq(give_everything(), 3000);
    until(seam.failed == 1);
    content[1][7] ^= 1;
    offer(); /* the leader names another source, with the same state */
    ck_assert_uint_eq(give_everything(), 3000);
    check_arrived();
    rig_stop();
}

TEST(receiver_ends_a_connection_that_sends_what_was_not_asked_for)
{
    const uint64_t size = MANIFEST_CHUNK + 2 * BULK_PIECE + 5;
    static uint8_t big[BULK_PIECE + 1];
    const struct {
        struct msg_bulk_data m;
        uint32_t n;
    } cases[] = {
        {{.id = ID, .file = FILES}, 5},                       /* no such file */
        {{.id = ID, .file = UINT32_MAX}, 5},                  /* nor that */
        {{.id = ID, .file = 0, .offset = size}, 5},           /* behind its end */
        {{.id = ID, .file = 0, .offset = size - 4}, 5},       /* beyond it */
        {{.id = ID, .file = 0, .offset = UINT64_MAX - 2}, 5}, /* around */
        {{.id = ID, .file = 2}, 1},                           /* of an empty file */
        {{.id = ID, .file = 0}, 0},                           /* nothing */
        {{.id = ID, .file = 0}, BULK_PIECE + 1},              /* too much */
    };
    rig_start(0);
    offer();
    for (size_t i = 0; i < array_size(cases); i++) {
        struct msg_bulk_need needs[PIECES];
        connect_to_it();
        give_manifest();
        ck_assert_uint_eq(hear_needs(needs, PIECES), PIECES);
        SAY(data, big, cases[i].n, .id = cases[i].m.id, .file = cases[i].m.file, .offset = cases[i].m.offset);
        raw_ends(fd);
        fd = -1;
    }
    connect_to_it();
    whole_bytes(give_everything());
    check_arrived();
    rig_stop();
}

TEST(receiver_refuses_a_manifest_that_is_not_that_of_the_offer)
{
    rig_start(0);
    struct {
        uint64_t *field, wrong;
    } fields[] = {
        {&manifest.index, 7}, {&manifest.term, 7}, {&manifest.conf_index, 0}, {&manifest.conf_index, INDEX + 1}};
    connect_to_it();
    for (size_t i = 0; i < array_size(fields) + 5; i++) {
        struct msg_bulk_open m;
        struct manifest was = manifest;
        uint8_t b = cluster.b[0];
        if (i < array_size(fields))
            *fields[i].field = fields[i].wrong;
        b ^= i == array_size(fields);
        manifest.cluster.b[0] = b;
        manifest.incarnation += i == array_size(fields) + 1;
        manifest.state_version += i == array_size(fields) + 2 ? 1000 : 0;
        encoded.n = 0;
        ck_assert_int_eq(manifest_encode(&manifest, &encoded), 0);
        uint32_t n = (uint32_t)encoded.n - (i == array_size(fields) + 3); /* cut */
        manifest = was;
        offer();
        HEAR(open, &m);
        raw_damage = i == array_size(fields) + 4; /* and damaged on its way */
        SAY(manifest, encoded.p, n, .id = ID);
        raw_damage = 0;
        until(seam.failed == (int)i + 1);
    }
    encoded.n = 0;
    ck_assert_int_eq(manifest_encode(&manifest, &encoded), 0);
    offer();
    whole_bytes(give_everything());
    check_arrived();
    rig_stop();
}

TEST(a_connection_that_speaks_no_bulk_is_ended_and_messages_of_a_newer_journal_are_left_alone)
{
    static const uint16_t types[] = {MSG_bulk_prepare,  MSG_bulk_prepared, MSG_bulk_open,
                                     MSG_bulk_manifest, MSG_bulk_need,     MSG_bulk_data};
    rig_start(0);
    for (size_t i = 0; i < array_size(types); i++) {
        connect_to_it();
        raw_send(fd, types[i], "xx", 2, NULL, 0); /* cut in its first field */
        raw_ends(fd);
        fd = -1;
    }
    connect_to_it();
    raw_send(fd, 0x05ff, "?", 1, NULL, 0);
    SAY(prepared, NULL, 0, .index = 9); /* nobody asked: of no use, no harm */
    SAY(data, "x", 1, .id = 4);
    SAY(manifest, "x", 1, .id = 4);
    offer();
    whole_bytes(give_everything());
    check_arrived();
    rig_stop();
}

/* ---- giving ---- */

/* A checkpoint an earlier life left, complete. */
static void make_checkpoint(void)
{
    char dir[300], path[400];
    snprintf(dir, sizeof(dir), "%s/" CHECKPOINT_PREFIX "%016x", seam.directory, INDEX);
    ck_assert_int_eq(mkdir(dir, 0700), 0);
    for (int i = 0; i < FILES; i++) {
        snprintf(path, sizeof(path), "%s/%s", dir, manifest.files[i].name);
        int file = open(path, O_WRONLY | O_CREAT | O_EXCL, 0600);
        ck_assert_int_eq(write(file, content[i], manifest.files[i].size), (ssize_t)manifest.files[i].size);
        close(file);
    }
    ck_assert_int_eq(manifest_write(dir, &manifest), 0);
}

static void open_checkpoint(void)
{
    struct msg_bulk_manifest m;
    SAY(open, NULL, 0, .index = INDEX, .term = TERM);
    HEAR(manifest, &m);
    ck_assert_uint_eq(m.error, 0);
    ck_assert_uint_eq(m.id, ID);
    ck_assert_uint_eq(head.data_len, encoded.n);
    ck_assert_int_eq(memcmp(in + head.body_len, encoded.p, encoded.n), 0);
    ck_assert_uint_eq(head.aux, crc32c(0, encoded.p, encoded.n));
}

static void hear_piece(uint32_t file, uint64_t offset, uint32_t n)
{
    struct msg_bulk_data m;
    HEAR(data, &m);
    ck_assert_uint_eq(m.error, 0);
    ck_assert_uint_eq(m.file, file);
    ck_assert_uint_eq(m.offset, offset);
    ck_assert_uint_eq(head.data_len, n);
    ck_assert_int_eq(memcmp(in + head.body_len, content[file] + offset, n), 0);
    ck_assert_uint_eq(head.aux, crc32c(0, content[file] + offset, n));
}

TEST(source_gives_the_manifest_and_any_bytes_of_its_files_in_the_order_asked_for)
{
    rig_start(0);
    make_checkpoint();
    connect_to_it();
    open_checkpoint();
    SAY(need, NULL, 0, .id = ID, .file = 1, .offset = 17, .length = 2983);
    SAY(need, NULL, 0, .id = ID, .file = 0, .offset = MANIFEST_CHUNK - 1, .length = BULK_PIECE);
    SAY(need, NULL, 0, .id = ID, .file = 0, .offset = 0, .length = 1);
    hear_piece(1, 17, 2983);
    hear_piece(0, MANIFEST_CHUNK - 1, BULK_PIECE);
    hear_piece(0, 0, 1);
    struct msg_bulk_data m;
    SAY(need, NULL, 0, .id = ID + 1, .file = 1, .offset = 0, .length = 10); /* of one it had before */
    HEAR(data, &m);
    ck_assert_uint_eq(m.error, ENOENT);
    rig_stop();
}

TEST(source_says_that_a_checkpoint_is_not_here_any_more)
{
    struct msg_bulk_manifest m;
    rig_start(0);
    make_checkpoint();
    connect_to_it();
    SAY(open, NULL, 0, .index = INDEX - 1, .term = TERM);
    HEAR(manifest, &m);
    ck_assert_uint_eq(m.error, ENOENT);
    SAY(open, NULL, 0, .index = INDEX, .term = TERM + 1);
    HEAR(manifest, &m);
    ck_assert_uint_eq(m.error, ENOENT);
    open_checkpoint();
    rig_stop();
}

TEST(source_ends_a_connection_that_asks_for_what_is_not_there)
{
    const uint64_t size = MANIFEST_CHUNK + 2 * BULK_PIECE + 5;
    const struct msg_bulk_need cases[] = {
        {.id = ID, .file = FILES, .length = 1},
        {.id = ID, .file = 0, .offset = size, .length = 1},
        {.id = ID, .file = 0, .offset = UINT64_MAX, .length = 2},
        {.id = ID, .file = 0, .length = 0},
        {.id = ID, .file = 0, .length = BULK_PIECE + 1},
        {.id = ID + 1, .file = 0, .length = UINT32_MAX},
    };
    rig_start(0);
    make_checkpoint();
    for (size_t i = 0; i < array_size(cases); i++) {
        connect_to_it();
        open_checkpoint();
        SAY(need, NULL, 0, .id = cases[i].id, .file = cases[i].file, .offset = cases[i].offset,
            .length = cases[i].length);
        raw_ends(fd);
        fd = -1;
    }
    rig_stop();
}

static int set_rate(void *arg)
{
    journal_snapshots_set_rate(s, *(const uint64_t *)arg);
    return 0;
}

TEST(source_sends_at_its_rate_which_may_change_meanwhile_and_bounds_what_is_asked_of_it)
{
    static const uint64_t free_rate = 0;
    rig_start(1);
    make_checkpoint();
    connect_to_it();
    open_checkpoint();
    for (int i = 0; i < 3; i++)
        SAY(need, NULL, 0, .id = ID, .file = 1, .offset = 1000 * (uint64_t)i, .length = 1000);
    hear_piece(1, 0, 1000);
    ck_assert(!raw_frame(fd, &head, in, sizeof(in), STAYS_MS)); /* the next is due in 1000 s */
    (void)loop_call(loop, set_rate, (void *)(uintptr_t)&free_rate);
    hear_piece(1, 1000, 1000);
    hear_piece(1, 2000, 1000);
    static const uint64_t slow = 1;
    (void)loop_call(loop, set_rate, (void *)(uintptr_t)&slow);
    SAY(need, NULL, 0, .id = ID, .file = 1, .offset = 0, .length = 1000);
    hear_piece(1, 0, 1000);
    for (int i = 0; i <= BULK_WINDOW; i++) /* one more than may be under way */
        SAY(need, NULL, 0, .id = ID, .file = 1, .offset = 0, .length = 1000);
    raw_ends(fd);
    fd = -1;
    rig_stop();
}

TEST(more_connections_than_there_may_be_are_ended)
{
    int fds[BULK_MAX];
    rig_start(0);
    for (int i = 0; i < BULK_MAX; i++) {
        connect_to_it();
        fds[i] = fd;
        fd = -1;
    }
    connect_to_it();
    raw_ends(fd);
    fd = -1;
    for (int i = 0; i < BULK_MAX; i++)
        close(fds[i]);
    rig_stop();
}

/* ---- noise ---- */

/* A frame as raw_send() makes it, to an end that may be gone by now. */
static void noise_send(uint16_t type, const struct buf *body, const uint8_t *data, uint32_t data_n)
{
    uint8_t frame[FRAME_HEADER_SIZE];
    struct frame_header h = {.type = type,
                             .flags = FRAME_ONE_WAY,
                             .body_len = (uint32_t)body->n,
                             .data_len = data_n,
                             .incarnation = 1,
                             .body_crc = crc32c(0, body->p, body->n),
                             .aux = crc32c(0, data, data_n)};
    frame_encode(&h, frame);
    struct iovec parts[] = {{frame, sizeof(frame)}, {body->p, body->n}, {(void *)(uintptr_t)data, data_n}};
    const struct msghdr m = {.msg_iov = parts, .msg_iovlen = 3};
    (void)sendmsg(fd, &m, MSG_NOSIGNAL);
}

/* Numbers that mean something, and their neighbours, more often than others. */
static uint64_t noise_number(struct prng *p)
{
    static const uint64_t known[] = {0, 1, ID, INDEX, TERM, FILES, BULK_PIECE, MANIFEST_CHUNK, UINT32_MAX, UINT64_MAX};
    uint64_t n = prng_below(p, 8) ? known[prng_below(p, array_size(known))] : prng_next(p);
    return prng_below(p, 4) ? n : n - 1 + prng_below(p, 3);
}

static void noise_frame(struct prng *p)
{
    static uint8_t data[4096];
    struct buf b cleanup(buf_fini) = {0};
    uint16_t type = (uint16_t)(MSG_bulk_prepare + prng_below(p, 6));
    uint32_t n = (uint32_t)prng_below(p, prng_below(p, 2) ? 8 : sizeof(data));
    uint8_t number[8];
    for (uint32_t i = 0; i < n; i++)
        data[i] = (uint8_t)prng_next(p);
    if (type == MSG_bulk_manifest && prng_below(p, 2)) { /* one that is good, or nearly */
        struct msg_bulk_manifest m = {.id = ID};
        ck_assert_int_eq(msg_bulk_manifest_encode(&m, &b), 0);
        n = (uint32_t)min(encoded.n, sizeof(data));
        memcpy(data, encoded.p, n);
        if (prng_below(p, 2))
            data[prng_below(p, n)] ^= 1;
    } else if (type == MSG_bulk_data) {
        struct msg_bulk_data m = {.id = prng_below(p, 8) ? ID : noise_number(p),
                                  .file = (uint32_t)noise_number(p),
                                  .offset = noise_number(p),
                                  .error = prng_below(p, 8) ? 0 : ENOENT};
        ck_assert_int_eq(msg_bulk_data_encode(&m, &b), 0);
    } else if (type == MSG_bulk_need) {
        struct msg_bulk_need m = {.id = noise_number(p),
                                  .file = (uint32_t)noise_number(p),
                                  .offset = noise_number(p),
                                  .length = (uint32_t)noise_number(p)};
        ck_assert_int_eq(msg_bulk_need_encode(&m, &b), 0);
    } else {
        for (uint32_t i = 0; i < 3; i++) {
            put_le64(number, noise_number(p));
            ck_assert_int_eq(buf_append(&b, number, 1 + prng_below(p, 8)), 0);
        }
    }
    noise_send(type, &b, data, n);
}

/* Whatever came before, what is right is taken afterwards, and nothing that is wrong is installed. */
TEST_TIMEOUT(noise_on_the_channel_installs_nothing_and_stops_nothing, 60)
{
    struct prng p = {11};
    rig_start(0);
    make_checkpoint();
    for (int round = 0; round < 150; round++) {
        connect_to_it();
        offer();
        for (uint64_t n = 1 + prng_below(&p, 12); n; n--)
            noise_frame(&p);
    }
    ck_assert_int_eq(seam.installs, 0);
    connect_to_it();
    offer();
    (void)give_everything();
    check_arrived();
    connect_to_it();
    open_checkpoint();
    SAY(need, NULL, 0, .id = ID, .file = 1, .offset = 0, .length = 3000);
    hear_piece(1, 0, 3000);
    rig_stop();
}

TEST(receiver_takes_an_error_no_errno_has_for_an_error)
{
    struct msg_bulk_open m;
    rig_start(0);
    connect_to_it();
    for (int i = 0; i < 2; i++) {
        offer();
        HEAR(open, &m);
        SAY(manifest, NULL, 0, .id = ID, .error = i ? UINT32_MAX : 1u << 31);
        until(seam.failed == i + 1);
    }
    rig_stop();
}
