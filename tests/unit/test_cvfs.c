/* SPDX-License-Identifier: Apache-2.0 */
/* The channel and the handlers of cv-fuse, on a socket in place of /dev/fuse, over a library that does what we say. */
#include "tests/unit/unit.h"

#include <fcntl.h>
#include <poll.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/wait.h>

#include "base/cleanup.h"
#include "base/clock.h"
#include "base/random.h"
#include "fuse/cvfs.h"
#include "fuse/cvfs_internal.h"
#include "tests/unit/fake_curvine.h"

#define ROOT 77 /* the inode that is mounted */

static struct cvfs_options options = {
    .threads = 2,
    .requests_max = 8,
    .write_bytes_max = 65536,
    .entry_timeout_ms = 1000,
    .attr_timeout_ms = 1000,
    .negative_timeout_ms = 500,
    .deadline_ms = 5000,
};

static struct rig {
    struct cvfs *fs;
    int kernel; /* our end */
    _Atomic int ended;
} rig;

static void on_ended(void *arg, int error)
{
    atomic_fetch_add(&rig.ended, 1);
}

static struct {
    struct fuse_out_header head;
    union {
        uint8_t bytes[70000];
        struct cvfs_init_out init;
        struct fuse_entry_out entry;
        struct fuse_open_out open;
        struct fuse_attr_out attr;
        struct fuse_write_out write;
        struct {
            struct fuse_entry_out entry;
            struct fuse_open_out open;
        } create;
    };
} reply;

/* The next answer, into reply; its data's bytes. */
static size_t next_reply(void)
{
    struct pollfd p = {.fd = rig.kernel, .events = POLLIN};
    ck_assert_msg(poll(&p, 1, 10000) == 1, "no answer");
    ssize_t n = read(rig.kernel, &reply, sizeof(reply));
    ck_assert(n >= (ssize_t)sizeof(reply.head));
    ck_assert_uint_eq(reply.head.len, n);
    return (size_t)n - sizeof(reply.head);
}

static bool quiet(void)
{
    struct pollfd p = {.fd = rig.kernel, .events = POLLIN};
    return poll(&p, 1, 50) == 0;
}

static void send_raw(const void *p, size_t n)
{
    ck_assert_int_eq(send(rig.kernel, p, n, 0), n);
}

static uint64_t last_unique;

static uint64_t ask(uint32_t opcode, uint64_t node, const void *arg, size_t arg_n, const void *more, size_t more_n)
{
    static uint8_t message[70000];
    struct fuse_in_header head = {
        .len = (uint32_t)(sizeof(head) + arg_n + more_n),
        .opcode = opcode,
        .unique = last_unique += 2,
        .nodeid = node,
        .pid = (uint32_t)getpid(),
    };
    memcpy(message, &head, sizeof(head));
    if (arg_n)
        memcpy(message + sizeof(head), arg, arg_n);
    if (more_n)
        memcpy(message + sizeof(head) + arg_n, more, more_n);
    send_raw(message, head.len);
    return head.unique;
}

static void start_rig(void)
{
    int fds[2], big = 1 << 20;
    ck_assert_int_eq(socketpair(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0, fds), 0);
    setsockopt(fds[0], SOL_SOCKET, SO_SNDBUF, &big, sizeof(big));
    setsockopt(fds[1], SOL_SOCKET, SO_SNDBUF, &big, sizeof(big));
    rig.kernel = fds[1];
    struct cvfs_config config = {.options = &options, .root = ROOT, .fd = fds[0], .ended = on_ended};
    ck_assert_int_eq(cvfs_new(&config, &rig.fs), 0);
    struct cvfs_init_in init = {
        .major = 7, .minor = 45, .max_readahead = 131072, .flags = UINT32_MAX, .flags2 = UINT32_MAX};
    ask(FUSE_INIT, 0, &init, sizeof(init), NULL, 0);
    ck_assert_int_eq(cvfs_start(rig.fs), 0);
    ck_assert_uint_eq(next_reply(), sizeof(struct cvfs_init_out));
    ck_assert_int_eq(reply.head.error, 0);
}

static void stop_rig(void)
{
    close(rig.kernel);
    cvfs_stop(rig.fs);
    int fd = rig.fs->config.fd;
    rig.fs = cvfs_free(rig.fs);
    close(fd);
}

static struct curvine_request synced;

static bool answer_sync(struct curvine_request *q)
{
    synced = *q;
    q->result = q->op == CURVINE_FSYNC ? -ETIMEDOUT : 0;
    return true;
}

/* fsync of a directory goes to the master, and says what that says. */
TEST(cvfs_syncs_a_directory)
{
    start_rig();
    fake.answer = answer_sync;
    const struct fuse_fsync_in in = {.fh = 5};
    ask(FUSE_FSYNCDIR, 1, &in, sizeof(in), NULL, 0);
    next_reply();
    ck_assert_int_eq(reply.head.error, -ETIMEDOUT);
    ck_assert(synced.op == CURVINE_FSYNC && synced.inode == ROOT && !synced.file);
    stop_rig();
}

/* ---- FUSE_INIT ------------------------------------------------------------------------------------------------------- */

TEST(init_takes_only_features_from_the_list)
{
    struct cvfs_init_in in = {.major = 7, .minor = 45, .flags = UINT32_MAX, .flags2 = UINT32_MAX};
    struct cvfs_init_out out;
    uint64_t features;
    ck_assert_int_eq(cvfs_negotiate(&options, &in, sizeof(in), &out, &features), 0);
    ck_assert(features & FUSE_ASYNC_READ && features & FUSE_MAX_PAGES && features & CVFS_DIRECT_IO_ALLOW_MMAP);
    ck_assert(!(features & (FUSE_WRITEBACK_CACHE | FUSE_EXPORT_SUPPORT | FUSE_POSIX_LOCKS | FUSE_FLOCK_LOCKS)));
    ck_assert_uint_eq(out.flags, (uint32_t)features);
    ck_assert_uint_eq(out.flags2, features >> 32);
    ck_assert_uint_eq(out.max_write, 65536);
    ck_assert_uint_eq(out.max_pages, 65536 / sysconf(_SC_PAGESIZE));
}

TEST(init_without_the_extension_has_no_second_word_of_flags)
{
    struct cvfs_init_in in = {.major = 7, .minor = 35, .flags = FUSE_ASYNC_READ, .flags2 = UINT32_MAX};
    struct cvfs_init_out out;
    uint64_t features;
    ck_assert_int_eq(cvfs_negotiate(&options, &in, offsetof(struct cvfs_init_in, flags2), &out, &features), 0);
    ck_assert_uint_eq(features, FUSE_ASYNC_READ);
    ck_assert_uint_eq(out.flags2, 0);
}

TEST(init_refuses_kernels_that_are_too_old)
{
    struct cvfs_init_in in = {.major = 7, .minor = 30};
    struct cvfs_init_out out;
    uint64_t features;
    ck_assert_int_eq(cvfs_negotiate(&options, &in, sizeof(in), &out, &features), -EPROTO);
    in = (struct cvfs_init_in){.major = 6, .minor = 45};
    ck_assert_int_eq(cvfs_negotiate(&options, &in, sizeof(in), &out, &features), -EPROTO);
    ck_assert_int_eq(cvfs_negotiate(&options, &in, 8, &out, &features), -EPROTO);
}

/* ---- what arrives ------------------------------------------------------------------------------------------------------ */

static bool says_enoent(struct curvine_request *q)
{
    q->result = -ENOENT;
    return true;
}

TEST(unknown_operations_are_answered_enosys)
{
    fake.answer = says_enoent;
    start_rig();
    static const uint32_t opcodes[] = {0, 7, FUSE_LSEEK, FUSE_IOCTL, FUSE_COPY_FILE_RANGE, 52, 53, 4096, UINT32_MAX};
    for (size_t i = 0; i < array_size(opcodes); i++) {
        uint64_t unique = ask(opcodes[i], 1, &(char[64]){0}, 64, NULL, 0);
        next_reply();
        ck_assert_uint_eq(reply.head.unique, unique);
        ck_assert_int_eq(reply.head.error, -ENOSYS);
    }
    stop_rig();
}

/* Every operation, cut at every length and with wrong lengths: an answer or silence, never a crash. */
TEST_TIMEOUT(truncated_requests_are_refused, 60)
{
    fake.answer = says_enoent;
    start_rig();
    for (uint32_t opcode = 1; opcode < 54; opcode++) {
        if (opcode == FUSE_FORGET || opcode == FUSE_BATCH_FORGET || opcode == FUSE_INTERRUPT || opcode == FUSE_OPENDIR)
            continue;
        for (uint32_t n = 0; n < 130; n++) {
            uint8_t message[256];
            struct fuse_in_header head = {
                .len = sizeof(head) + n, .opcode = opcode, .unique = last_unique += 2, .nodeid = 1};
            memset(message, 'x', sizeof(message));
            memcpy(message, &head, sizeof(head));
            send_raw(message, head.len);
            next_reply();
            ck_assert_uint_eq(reply.head.unique, head.unique);
            ck_assert_int_le(reply.head.error, 0);
        }
    }
    struct fuse_in_header head = {.len = 4000, .opcode = FUSE_LOOKUP, .unique = last_unique += 2};
    send_raw(&head, sizeof(head));
    next_reply();
    ck_assert_int_eq(reply.head.error, -EINVAL);
    send_raw(&head, 20); /* not even a header: nobody to answer */
    ck_assert(quiet());
    stop_rig();
}

TEST(names_without_an_end_are_refused)
{
    fake.answer = says_enoent;
    start_rig();
    ask(FUSE_LOOKUP, 1, "name", 4, NULL, 0);
    next_reply();
    ck_assert_int_eq(reply.head.error, -EINVAL);
    ask(FUSE_SYMLINK, 1, "name\0target", 11, NULL, 0);
    next_reply();
    ck_assert_int_eq(reply.head.error, -EINVAL);
    stop_rig();
}

static bool knows_file(struct curvine_request *q)
{
    q->result = 0;
    q->lease_ms = 300;
    q->attr = (struct curvine_attr){.inode = 1234, .mode = S_IFREG | 0644, .nlink = 1, .size = 10, .version = 5};
    q->file = (struct curvine_file *)(uintptr_t)0x1000;
    if (q->op == CURVINE_LOOKUP && (q->inode != ROOT || q->name.n != 1 || q->name.p[0] != 'f'))
        q->result = -ENOENT;
    return true;
}

TEST(looking_up_keeps_to_the_lease_and_knows_the_root)
{
    fake.answer = knows_file;
    start_rig();
    ask(FUSE_LOOKUP, 1, "f", 2, NULL, 0);
    ck_assert_uint_eq(next_reply(), sizeof(struct fuse_entry_out));
    ck_assert_uint_eq(reply.entry.nodeid, 1234);
    ck_assert_uint_eq(reply.entry.entry_valid, 0);
    ck_assert_uint_eq(reply.entry.entry_valid_nsec, 300 * NS_PER_MS);
    ck_assert_uint_eq(reply.entry.attr.size, 10);
    ask(FUSE_LOOKUP, 1, "g", 2, NULL, 0); /* none: for as long as the option says */
    ck_assert_uint_eq(next_reply(), sizeof(struct fuse_entry_out));
    ck_assert_uint_eq(reply.entry.nodeid, 0);
    ck_assert_uint_eq(reply.entry.entry_valid_nsec, 500 * NS_PER_MS);
    stop_rig();
}

static bool answer_times(struct curvine_request *q)
{
    q->attr = (struct curvine_attr){
        .inode = q->inode, .mode = S_IFREG | 0644, .atime_ns = q->atime_ns, .mtime_ns = q->mtime_ns, .ctime_ns = 1};
    return true;
}

TEST(times_before_1970_and_after_2262)
{
    static const struct {
        int64_t s;
        uint32_t ns;
        int64_t then_s;
        uint32_t then_ns;
    } times[] = {
        {0, 0, 0, 0},
        {-1, 0, -1, 0},
        {-1, 999999999, -1, 999999999},
        {-2147483648, 5, -2147483648, 5},
        {1ll << 33, 7, 1ll << 33, 7},
        {10413792000, 0, 9223372036, 854775807}, /* the year 2300: the last we know */
        {-20000000000, 3, -9223372037, 145224192},
        {INT64_MAX, 0, 9223372036, 854775807},
    };
    fake.answer = answer_times;
    start_rig();
    for (size_t i = 0; i < array_size(times); i++) {
        struct fuse_setattr_in in = {.valid = FATTR_ATIME | FATTR_MTIME,
                                     .atime = (uint64_t)times[i].s,
                                     .atimensec = times[i].ns,
                                     .mtime = (uint64_t)times[i].s,
                                     .mtimensec = times[i].ns};
        ask(FUSE_SETATTR, 1234, &in, sizeof(in), NULL, 0);
        ck_assert_uint_eq(next_reply(), sizeof(struct fuse_attr_out));
        ck_assert_int_eq((int64_t)reply.attr.attr.mtime, times[i].then_s);
        ck_assert_uint_eq(reply.attr.attr.mtimensec, times[i].then_ns);
        ck_assert_int_eq((int64_t)reply.attr.attr.atime, times[i].then_s);
        ck_assert_uint_eq(reply.attr.attr.atimensec, times[i].then_ns);
    }
    stop_rig();
}

/* ---- files ----------------------------------------------------------------------------------------------------------------- */

static uint64_t open_file(uint32_t flags)
{
    struct fuse_open_in in = {.flags = flags};
    ask(FUSE_OPEN, 1234, &in, sizeof(in), NULL, 0);
    ck_assert_uint_eq(next_reply(), sizeof(struct fuse_open_out));
    return reply.open.fh;
}

TEST(pages_are_kept_while_the_version_is_the_same)
{
    fake.answer = knows_file;
    start_rig();
    uint64_t fh = open_file(O_RDONLY);
    ck_assert(!(reply.open.open_flags & CVFS_FOPEN_KEEP_CACHE));
    ck_assert(reply.open.open_flags & CVFS_FOPEN_NOFLUSH);
    uint64_t other = open_file(O_RDWR);
    ck_assert_uint_ne(fh, other);
    ck_assert(reply.open.open_flags & CVFS_FOPEN_KEEP_CACHE);
    ck_assert(!(reply.open.open_flags & CVFS_FOPEN_NOFLUSH));
    struct fuse_release_in release = {.fh = fh};
    ask(FUSE_RELEASE, 1234, &release, sizeof(release), NULL, 0);
    next_reply();
    ck_assert_int_eq(reply.head.error, 0);
    ask(FUSE_RELEASE, 1234, &release, sizeof(release), NULL, 0); /* a number that means nothing any more */
    next_reply();
    ck_assert_int_eq(reply.head.error, -EBADF);
    stop_rig(); /* the other is open: released by stopping */
}

static int asked_xattr;
static uint32_t attr_flags;

static bool counts_xattr(struct curvine_request *q)
{
    if (q->op == CURVINE_SETXATTR)
        return true;
    if (q->op != CURVINE_GETXATTR) {
        bool r = knows_file(q);
        q->attr.flags = attr_flags;
        q->lease_ms = 60000;
        return r;
    }
    asked_xattr++;
    q->result = -ENODATA;
    return true;
}

static void ask_xattr(const char *name, int asked)
{
    struct fuse_getxattr_in in = {0};
    ask(FUSE_GETXATTR, 1234, &in, sizeof(in), name, strlen(name) + 1);
    next_reply();
    ck_assert_int_eq(reply.head.error, -ENODATA);
    ck_assert_int_eq(asked_xattr, asked);
}

/* The kernel asks before the first write to each file. */
TEST(a_file_without_extended_attributes_is_not_asked_for_its_capabilities)
{
    struct fuse_setxattr_in set = {0};
    fake.answer = counts_xattr;
    options.attr_timeout_ms = 60000;
    start_rig();
    ask_xattr("security.capability", 1); /* nothing is known of it */
    open_file(O_RDWR);
    ask_xattr("security.capability", 1);
    ask_xattr("user.colour", 2); /* whom others gave one a moment ago is told so */
    ask(FUSE_SETXATTR, 1234, &set, FUSE_COMPAT_SETXATTR_IN_SIZE, "security.capability\0", 21);
    next_reply();
    ck_assert_int_eq(reply.head.error, 0);
    ask_xattr("security.capability", 3);
    attr_flags = CURVINE_HAS_XATTR;
    open_file(O_RDWR);
    ask_xattr("security.capability", 4);
    attr_flags = 0;
    open_file(O_RDWR);
    ask_xattr("security.capability", 4);
    stop_rig();
}

static uint8_t *mapped;

static int64_t give_pieces(uint64_t offset, uint32_t length, struct curvine_piece *pieces, unsigned *ret_count)
{
    pieces[0] = (struct curvine_piece){.p = mapped, .n = 100};
    pieces[1] = (struct curvine_piece){.fd = -1, .n = 100000 - 40000};
    *ret_count = 2;
    return 100 + 60000;
}

static bool reads_sevens(struct curvine_request *q)
{
    if (q->op != CURVINE_READ)
        return knows_file(q);
    memset(q->buffer, 7, q->length);
    q->result = (int)q->length;
    return true;
}

TEST(reads_are_answered_from_mapped_pieces)
{
    mapped = malloc(100);
    memset(mapped, 9, 100);
    fake.answer = reads_sevens;
    fake.pieces = give_pieces;
    fake.file_size = 60100;
    start_rig();
    struct fuse_read_in in = {.fh = open_file(O_RDONLY), .size = 65536};
    ask(FUSE_READ, 1234, &in, sizeof(in), NULL, 0);
    ck_assert_uint_eq(next_reply(), 60100);
    ck_assert_uint_eq(reply.bytes[99], 9);
    ck_assert_uint_eq(reply.bytes[100], 0);
    /* Shorter than the file: to the kernel that would be its end, so it is read. */
    fake.file_size = 70000;
    ask(FUSE_READ, 1234, &in, sizeof(in), NULL, 0);
    ck_assert_uint_eq(next_reply(), 65536);
    ck_assert_uint_eq(reply.bytes[99], 7);
    stop_rig();
    ck_assert_uint_eq(fake.pins, 0);
    free(mapped);
}

TEST(a_mapping_that_went_away_is_read_instead)
{
    mapped = mmap(NULL, 4096, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    fake.answer = reads_sevens;
    fake.pieces = give_pieces;
    fake.file_size = 60100;
    start_rig();
    struct fuse_read_in in = {.fh = open_file(O_RDONLY), .size = 65536};
    ask(FUSE_READ, 1234, &in, sizeof(in), NULL, 0);
    ck_assert_uint_eq(next_reply(), 65536);
    ck_assert_int_eq(reply.head.error, 0);
    ck_assert_uint_eq(reply.bytes[0], 7);
    stop_rig();
    ck_assert_uint_eq(fake.pins, 0);
}

static _Atomic uint32_t mode_set;
static uint8_t written[65536];

static bool takes_writes(struct curvine_request *q)
{
    knows_file(q);
    q->attr.mode = S_IFREG | (mode_set ? mode_set : 06775);
    if (q->op == CURVINE_SETATTR) {
        ck_assert_uint_eq(q->valid, CURVINE_SET_MODE);
        ck_assert_uint_eq(q->caller->uid, 0);
        mode_set = q->mode;
        q->attr.mode = S_IFREG | q->mode;
    }
    if (q->op == CURVINE_WRITE) {
        memcpy(written, q->value.p, q->value.n);
        q->result = (int)q->value.n;
    }
    return true;
}

TEST(writes_come_whole_and_clear_set_id_bits_once)
{
    static uint8_t data[65536];
    fake.answer = takes_writes;
    start_rig();
    for (size_t i = 0; i < sizeof(data); i++)
        data[i] = (uint8_t)(i * 7);
    struct fuse_write_in in = {.fh = open_file(O_RDWR), .size = sizeof(data), .write_flags = CVFS_WRITE_KILL_SUIDGID};
    ask(FUSE_WRITE, 1234, &in, sizeof(in), data, sizeof(data));
    ck_assert_uint_eq(next_reply(), sizeof(struct fuse_write_out));
    ck_assert_uint_eq(reply.write.size, sizeof(data));
    ck_assert_mem_eq(written, data, sizeof(data));
    ck_assert_uint_eq(mode_set, 0775);
    mode_set = 0777;                                  /* would be seen again */
    ask(FUSE_WRITE, 1234, &in, sizeof(in), data, 16); /* shorter than it says */
    next_reply();
    ck_assert_int_eq(reply.head.error, -EINVAL);
    in.size = 16;
    ask(FUSE_WRITE, 1234, &in, sizeof(in), data, 16);
    next_reply();
    ck_assert_uint_eq(mode_set, 0777);
    stop_rig();
}

static int create_error;
static uint32_t create_mode;
static unsigned released;

static bool found_something(struct curvine_request *q)
{
    released += q->op == CURVINE_RELEASE;
    q->result = q->op == CURVINE_CREATE ? create_error : 0;
    q->attr = (struct curvine_attr){.inode = 1234, .mode = create_mode};
    q->file = (void *)(uintptr_t)(q->op == CURVINE_CREATE && !create_error);
    return true;
}

/* The kernel looks again and finds what another host made there. */
TEST(creating_over_what_is_no_file_has_the_kernel_look_again)
{
    static const struct fuse_create_in in = {.flags = O_CREAT | O_RDWR, .mode = S_IFREG | 0644};
    fake.answer = found_something;
    start_rig();
    create_error = -ELOOP;
    for (unsigned i = 0; i < 2; i++) {
        ask(FUSE_CREATE, 1, &in, sizeof(in), "f", 2);
        next_reply();
        ck_assert_int_eq(reply.head.error, -ESTALE);
        ck_assert_uint_eq(released, i);
        create_error = 0;
        create_mode = S_IFIFO | 0644;
    }
    create_error = -EACCES;
    ask(FUSE_CREATE, 1, &in, sizeof(in), "f", 2);
    next_reply();
    ck_assert_int_eq(reply.head.error, -EACCES);
    stop_rig();
}

static uint32_t mode_there; /* by now */

static bool mode_changed(struct curvine_request *q)
{
    takes_writes(q);
    if (q->op == CURVINE_GETATTR)
        q->attr.mode = S_IFREG | mode_there;
    return true;
}

TEST(clearing_set_id_bits_gives_back_nothing_that_was_taken_away_meanwhile)
{
    fake.answer = mode_changed;
    start_rig();
    struct fuse_write_in in = {.fh = open_file(O_RDWR), .size = 1, .write_flags = CVFS_WRITE_KILL_SUIDGID};
    mode_there = 04700; /* 06775 when it was opened */
    ask(FUSE_WRITE, 1234, &in, sizeof(in), "x", 1);
    ck_assert_uint_eq(next_reply(), sizeof(struct fuse_write_out));
    ck_assert_uint_eq(mode_set, 0700);
    stop_rig();
}

/* ---- waiting, interrupting, stopping ------------------------------------------------------------------------------------------ */

static uint32_t where;

static bool tells_where(struct curvine_request *q)
{
    if (q->op != CURVINE_WRITE)
        return takes_writes(q);
    where = q->flags;
    q->result = (int)q->value.n;
    return true;
}

/* The kernel takes any file that is open for writing to bring pages of a mapping back: they belong where they are from. */
TEST(writes_go_to_the_end_when_their_caller_appends_and_pages_where_they_are_from)
{
    static const struct {
        uint32_t opened, flags, write_flags, where;
    } writes[] = {
        {O_RDWR, O_RDWR, 0, CURVINE_WRITE_AT_OFFSET},
        {O_RDWR | O_APPEND, O_RDWR | O_APPEND, 0, CURVINE_WRITE_AT_END},
        {O_RDWR | O_APPEND, O_RDWR, 0, CURVINE_WRITE_AT_OFFSET}, /* fcntl(2) took it away */
        {O_RDWR, O_RDWR | O_APPEND, 0, CURVINE_WRITE_AT_END},
        {O_RDWR | O_APPEND, 0, CVFS_WRITE_CACHE, CURVINE_WRITE_AT_OFFSET},
        {O_RDWR | O_APPEND, O_RDWR | O_APPEND, CVFS_WRITE_CACHE, CURVINE_WRITE_AT_OFFSET},
    };
    fake.answer = tells_where;
    start_rig();
    for (size_t i = 0; i < array_size(writes); i++) {
        struct fuse_write_in in = {.fh = open_file(writes[i].opened),
                                   .size = 5,
                                   .flags = writes[i].flags,
                                   .write_flags = writes[i].write_flags};
        ask(FUSE_WRITE, 1234, &in, sizeof(in), "hello", 5);
        ck_assert_uint_eq(next_reply(), sizeof(struct fuse_write_out));
        ck_assert_uint_eq(where, writes[i].where);
    }
    stop_rig();
}

TEST(callers_are_held_back_when_all_slots_are_taken)
{
    fake.answer = NULL;
    start_rig();
    enum { ASKED = 20 };
    for (int i = 0; i < ASKED; i++)
        ask(FUSE_STATFS, 1, NULL, 0, NULL, 0);
    for (int i = 0; i < ASKED; i++) {
        struct curvine_request *q = fake_next();
        ck_assert_uint_le(fake.count, options.requests_max);
        fake_end(q, -EIO);
        next_reply();
        ck_assert_int_eq(reply.head.error, -EIO);
    }
    stop_rig();
}

TEST(interrupting_what_is_unknown_is_asked_again)
{
    start_rig();
    struct fuse_interrupt_in in = {.unique = 999};
    ask(FUSE_INTERRUPT, 0, &in, sizeof(in), NULL, 0);
    next_reply();
    ck_assert_int_eq(reply.head.error, -EAGAIN);
    stop_rig();
}

TEST(an_interrupted_request_is_cancelled_when_it_does_not_end_soon)
{
    start_rig();
    struct fuse_interrupt_in in = {.unique = ask(FUSE_STATFS, 1, NULL, 0, NULL, 0)};
    fake_next();
    uint64_t since = clock_ms();
    ask(FUSE_INTERRUPT, 0, &in, sizeof(in), NULL, 0);
    next_reply();
    ck_assert_uint_eq(reply.head.unique, in.unique);
    ck_assert_int_eq(reply.head.error, -EINTR);
    ck_assert_uint_ge(clock_ms() - since, 900); /* a signal that changes nothing has not ended it */
    ck_assert_uint_eq(fake.cancelled, 1);
    stop_rig();
}

/* A process that has SIGKILL pending cannot be seen from here; one that is gone counts like it. */
TEST(a_request_of_a_process_that_is_gone_ends_at_once)
{
    start_rig();
    pid_t pid = fork();
    if (pid == 0)
        _exit(0);
    waitpid(pid, NULL, 0);
    struct fuse_in_header head = {
        .len = sizeof(head), .opcode = FUSE_STATFS, .unique = 4242, .nodeid = 1, .pid = (uint32_t)pid};
    send_raw(&head, sizeof(head));
    fake_next();
    struct fuse_interrupt_in in = {.unique = 4242};
    uint64_t since = clock_ms();
    ask(FUSE_INTERRUPT, 0, &in, sizeof(in), NULL, 0);
    next_reply();
    ck_assert_uint_eq(reply.head.unique, 4242);
    ck_assert_int_eq(reply.head.error, -EINTR);
    ck_assert_uint_lt(clock_ms() - since, 900);
    stop_rig();
}

static _Atomic int releases;

static bool counts_releases(struct curvine_request *q)
{
    if (q->op == CURVINE_RELEASE)
        atomic_fetch_add(&releases, 1);
    return knows_file(q);
}

TEST(stopping_cancels_what_hangs_and_releases_what_is_open)
{
    fake.answer = counts_releases;
    start_rig();
    open_file(O_RDWR);
    open_file(O_RDONLY);
    fake.answer = NULL;
    ask(FUSE_STATFS, 1, NULL, 0, NULL, 0);
    fake_next();
    fake.answer = counts_releases;
    stop_rig();
    ck_assert_uint_eq(fake.cancelled, 1);
    ck_assert_int_eq(releases, 2);
    ck_assert_int_eq(rig.ended, 1);
}
