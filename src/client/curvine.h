/* SPDX-License-Identifier: Apache-2.0 */
/*
 * libcurvine: the C library of the Curvine file cache. One public header, shared and static, symbols versioned.
 *
 *      struct curvine *cv;
 *      int r = curvine_open(&(struct curvine_options){.masters = "unix:/run/curvine/master.sock"}, &cv);
 *      struct curvine_attr attr;
 *      r = curvine_stat(cv, "/data/x", CURVINE_FOLLOW, &attr);
 *      curvine_close(cv);
 *
 * Two layers. Calls by path at the end of this header are for tools and applications. Below them every operation is a
 * struct curvine_request, by inode number, like the kernel's own file system interface: curvine_submit() starts it and
 * calls back, curvine_run() waits. Any thread may use both, any number at a time; one library handle holds one session
 * with the cluster.
 *
 * Results are 0 (or a count) or a negative code: -errno, or a code of the project; curvine_strerror() explains both and
 * curvine_errno() maps to errno. Every call ends: with its result, or with -ETIMEDOUT-like codes at its deadline. A
 * mutation is executed exactly once, however often connections and masters fail under it, as long as its session lives.
 * After a deadline its outcome is unknown: it may have happened.
 */
#ifndef CURVINE_H
#define CURVINE_H

#include <stddef.h>
#include <stdint.h>

#ifdef __cplusplus
extern "C" {
#endif

struct curvine; /* opaque, any thread */
struct curvine_file;

#define CURVINE_ROOT 1 /* inode number of "/" */

struct curvine_options {
    const char *masters;     /* addresses, comma-separated: "host:port" or "unix:/path"; NULL: from CURVINE_MASTERS */
    uint32_t timeout_ms;     /* for each call that names none; 0: 30000 */
    const char *program;     /* shown in session lists; NULL: the process's name */
    const char *mount_point; /* shown in session lists; may be NULL */
    uint64_t memory_bytes;   /* for read-ahead and what is being written, all files together; 0: 128 MiB */
};

/* Open a session. Waits up to timeout_ms for a master that leads. Close with curvine_close().
 * Errors: -EINVAL bad address; -CV_UNREACHABLE (EHOSTUNREACH) nobody answers; -CV_WRONG_CLUSTER; -ENOMEM. */
int curvine_open(const struct curvine_options *options, struct curvine **ret);

/* End the session and free everything. No request may be in flight. NULL is fine. */
void curvine_close(struct curvine *cv);

/* Text for a code, and the errno an application should see (positive). Static or thread-local storage. */
const char *curvine_strerror(int code);
int curvine_errno(int code);

/* ---- requests --------------------------------------------------------------------------------------------------- */

/* Who asks: permissions are checked by the master from this. */
struct curvine_caller {
    uint32_t uid, gid, pid;
    uint32_t group_count;
    const uint32_t *groups; /* supplementary */
};

struct curvine_attr {
    uint64_t inode;
    uint64_t size, blocks; /* blocks of 512 bytes */
    uint64_t rdev;
    uint64_t atime_ns, mtime_ns, ctime_ns, btime_ns; /* since 1970; before it: negative, in two's complement */
    uint64_t version;                                /* changes with the content */
    uint32_t mode;                                   /* type and permission bits as stat(2) */
    uint32_t nlink, uid, gid;
    uint32_t flags; /* CURVINE_HAS_XATTR; others are the cluster's own */
};

#define CURVINE_HAS_XATTR 1u /* there are extended attributes: without it nobody need ask */

/* Bytes with a length: names need no zero at the end. */
struct curvine_text {
    const char *p;
    uint32_t n;
};

enum curvine_op {
    /* name: what of the request is read -> what is filled */
    CURVINE_LOOKUP = 1, /* inode (parent), name -> attr */
    CURVINE_WALK,       /* inode (start), name (path) -> attr, rest, data (symlink target): see messages_meta.def */
    CURVINE_GETATTR,    /* inode -> attr */
    CURVINE_SETATTR,    /* inode, valid (enum curvine_valid), mode, uid, gid, size, atime_ns, mtime_ns -> attr */
    CURVINE_ACCESS,     /* inode, mode (R_OK | W_OK | X_OK) */
    CURVINE_MKDIR,      /* inode (parent), name, mode, umask -> attr, parent */
    CURVINE_MKNOD,      /* inode (parent), name, mode, umask, rdev -> attr, parent */
    CURVINE_SYMLINK,    /* inode (parent), name, value (target) -> attr, parent */
    CURVINE_LINK,       /* inode2 (what), inode (parent), name -> attr, parent */
    CURVINE_UNLINK,     /* inode (parent), name -> attr (of what is gone), parent */
    CURVINE_RMDIR,      /* inode (parent), name -> attr, parent */
    CURVINE_RENAME,    /* inode (parent), name, inode2 (new parent), value (new name), flags -> attr, parent, parent2 */
    CURVINE_READLINK,  /* inode -> data */
    CURVINE_READDIR,   /* inode, name (after), max (entries), size (bytes), flags 1: with attributes -> entries, end */
    CURVINE_SETXATTR,  /* inode, name, value, flags */
    CURVINE_GETXATTR,  /* inode, name -> data */
    CURVINE_LISTXATTR, /* inode -> data (names, each with a zero) */
    CURVINE_REMOVEXATTR, /* inode, name */
    CURVINE_STATFS,      /* inode -> statfs */
    CURVINE_CREATE,      /* inode (parent), name, mode, umask, flags -> attr, parent, handle, created, file */
    CURVINE_OPEN,        /* inode, flags -> attr, handle, file */
    CURVINE_RELEASE,     /* file: its last write error; the file is gone afterwards. Or, without file: inode, handle */
    /* Content, of an open file. Many may run on one file at once; which of two overlapping writes wins is open. */
    CURVINE_READ, /* file, offset, length, buffer -> result: bytes read, less than length only at the end of the file */
    CURVINE_WRITE, /* file, offset, value (stays until done), flags (enum curvine_where) -> result: bytes written */
    /* file, flags 1: content only. Everything written so far survives a power cut, size included, and the loss of a minority
     * of the masters. Without file: inode (a directory, 0: none): the same for all changes of names and attributes that were
     * answered to this handle before. CV_ACK_LOST (EIO): a leader that answered before others had it is gone, and it may be
     * lost; told once. */
    CURVINE_FSYNC,
    CURVINE_FLUSH, /* file: everything written so far is seen by others who open it now; reports write errors */
    CURVINE_OP_COUNT
};

/* Where a WRITE goes. Pages of a mapping go back where they are from, whichever way the file was opened that the kernel took
 * for it; and fcntl(2) changes O_APPEND of what is open. */
enum curvine_where {
    CURVINE_WRITE_AS_OPENED = 0, /* with O_APPEND behind the end, else at offset */
    CURVINE_WRITE_AT_OFFSET = 1,
    CURVINE_WRITE_AT_END = 2,
};

enum curvine_valid {
    CURVINE_SET_MODE = 1,
    CURVINE_SET_UID = 2,
    CURVINE_SET_GID = 4,
    CURVINE_SET_SIZE = 8,
    CURVINE_SET_ATIME = 16,
    CURVINE_SET_MTIME = 32,
    CURVINE_SET_ATIME_NOW = 128, /* with SET_ATIME: the master's time */
    CURVINE_SET_MTIME_NOW = 256,
};

struct curvine_statfs {
    uint64_t total_bytes, free_bytes, inodes, free_inodes;
    uint32_t name_max;
};

/* One entry of a directory page; attr.inode is 0 when attributes were not asked for. */
struct curvine_dirent {
    uint64_t inode;
    struct curvine_text name; /* borrowed like the page */
    uint32_t type;            /* DT_REG, DT_DIR, ... */
    struct curvine_attr attr;
};

/* One operation. The memory is the caller's and must stay until done ran; all zero but what the operation reads.
 * What is pointed at by inputs may go away when curvine_submit() returns. */
struct curvine_request {
    enum curvine_op op;
    const struct curvine_caller *caller; /* NULL: this process's effective ids, without supplementary groups */
    uint64_t inode, inode2;
    struct curvine_text name, value;
    uint32_t mode, umask, flags, valid, uid, gid, max;
    uint32_t timeout_ms; /* 0: the handle's */
    uint64_t size, rdev, atime_ns, mtime_ns;
    uint64_t handle; /* RELEASE: in; CREATE, OPEN: out */
    struct curvine_file
        *file; /* CREATE, OPEN: out; content operations and RELEASE: in. GETATTR, SETATTR: may be given */
    uint64_t offset;
    uint32_t length;
    void *buffer; /* READ: length bytes, the caller's until done */

    /* Runs once, on a thread of the library: it must not block and must not call curvine_run() and its relatives. The
     * request may be reused or freed in it. */
    void (*done)(struct curvine_request *request);
    void *user; /* the caller's */

    /* Results, valid from done on; data, rest and entries only inside done. */
    int result;
    uint8_t created, end;
    uint32_t lease_ms; /* how long attr may be used without asking */
    struct curvine_attr attr, parent, parent2;
    struct curvine_text data, rest;
    struct curvine_statfs statfs;
    const struct curvine_dirent *entries;
    uint32_t entry_count;
    uint64_t index; /* log index the answer depends on */

    void *owned;           /* curvine_run: copies that curvine_request_free() frees */
    uint64_t reserved[72]; /* the library's */
};

/* Start a request. Never fails and never calls done from inside. */
void curvine_submit(struct curvine *cv, struct curvine_request *request);

/* End a request early: done runs soon, with -ECANCELED unless it was faster. A mutation may have happened. Any thread,
 * but only while the caller knows that done has not run. */
void curvine_cancel(struct curvine *cv, struct curvine_request *request);

/* Submit and wait; returns request->result. Sets done and user. What done would have borrowed (data, rest, entries) is
 * copied to memory that curvine_request_free() frees. Not on a thread of the library. */
int curvine_run(struct curvine *cv, struct curvine_request *request);
void curvine_request_free(struct curvine_request *request);

/* ---- open files ------------------------------------------------------------------------------------------------- */

/* An open file, made by CURVINE_OPEN and CURVINE_CREATE of a regular file. Any thread. All open files of one inode in one
 * library handle share what is known of its content; what one wrote, another reads at once. Size and mtime reach the master
 * with FSYNC, FLUSH, RELEASE and at least every second; small files (up to 4 KiB) go to the master whole. */

/* A stretch of content where it lies, to be read without a copy. */
struct curvine_piece {
    const void *p; /* memory; NULL: see fd */
    int fd;        /* p NULL: n bytes of this descriptor from fd_offset (what is behind its end are zeros); -1: zeros */
    uint64_t fd_offset;
    uint32_t n;
};

/* Like CURVINE_READ when everything is at hand (local worker, or in memory): fills up to max pieces and returns the bytes
 * they cover, 0 at the end of the file. Neither waits nor calls back. Call curvine_pieces_done() with *ret_pin when the
 * pieces are not used any more. Errors: -EAGAIN: use CURVINE_READ. */
int64_t curvine_read_pieces(struct curvine_file *file, uint64_t offset, uint32_t length, struct curvine_piece *pieces,
                            unsigned max, unsigned *ret_count, void **ret_pin);
void curvine_pieces_done(struct curvine_file *file, void *pin);

uint64_t curvine_file_inode(const struct curvine_file *file);
uint64_t curvine_file_size(const struct curvine_file *file); /* with what was written here and not told yet */

/* The waiting forms. path as below; flags as open(2): O_ACCMODE, O_CREAT, O_EXCL, O_TRUNC, O_APPEND, O_NOFOLLOW. */
int curvine_file_open(struct curvine *cv, const char *path, int flags, uint32_t mode, struct curvine_file **ret);
int64_t curvine_pread(struct curvine_file *file, void *p, size_t n, uint64_t offset);
int64_t curvine_pwrite(struct curvine_file *file, const void *p, size_t n, uint64_t offset);
int curvine_fsync(struct curvine_file *file);
int curvine_sync(struct curvine *cv, const char *directory); /* fsync of a directory */
int curvine_file_close(struct curvine_file *file); /* the first write error that was not reported; NULL is fine */

/* ---- by path, waiting: for tools and applications ----------------------------------------------------------------- */

/* Paths are absolute in the namespace ("/data/x"); "." and ".." and repeated '/' are understood; symlinks on the way are
 * followed (40 at most: -ELOOP), at the end with CURVINE_FOLLOW. */
enum curvine_path_flag { CURVINE_FOLLOW = 1 };

/* Find an inode; attr may be NULL. */
int curvine_resolve(struct curvine *cv, const char *path, int flags, uint64_t *ret_inode,
                    struct curvine_attr *ret_attr);

/* Find the directory a path's last name is in, for making, removing and renaming. The name borrows from path.
 * Errors: -EBUSY the path is "/"; -EINVAL it ends in "." or "..". */
int curvine_resolve_parent(struct curvine *cv, const char *path, uint64_t *ret_inode, struct curvine_text *ret_name);

int curvine_stat(struct curvine *cv, const char *path, int flags, struct curvine_attr *ret);
int curvine_mkdir(struct curvine *cv, const char *path, uint32_t mode);
int curvine_mkdirs(struct curvine *cv, const char *path, uint32_t mode); /* with missing parents; existing is fine */
int curvine_unlink(struct curvine *cv, const char *path);
int curvine_rmdir(struct curvine *cv, const char *path);
int curvine_rename(struct curvine *cv, const char *from, const char *to, uint32_t flags);
int curvine_symlink(struct curvine *cv, const char *target, const char *path);
int curvine_link(struct curvine *cv, const char *existing, const char *path);
int curvine_chmod(struct curvine *cv, const char *path, uint32_t mode);
int curvine_chown(struct curvine *cv, const char *path, uint32_t uid, uint32_t gid, int flags); /* UINT32_MAX: keep */
int curvine_truncate(struct curvine *cv, const char *path, uint64_t size);
int curvine_utimens(struct curvine *cv, const char *path, uint64_t atime_ns, uint64_t mtime_ns, int flags);

/* Read a symlink into out (size bytes with the final zero). Errors: -ENAMETOOLONG. */
int curvine_readlink(struct curvine *cv, const char *path, char *out, size_t size);

/* Call each() for every entry of a directory, in the directory's own order, with attributes; a negative result of
 * each() ends the listing and is returned. */
int curvine_list(struct curvine *cv, uint64_t inode, int (*each)(const struct curvine_dirent *entry, void *arg),
                 void *arg);

#ifdef __cplusplus
}
#endif
#endif
