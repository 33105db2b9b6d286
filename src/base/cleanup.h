/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Scope cleanup: a variable marked cleanup(fn) is handed to fn(&variable) when its scope ends, so each early
 * return frees what it must. take(x) moves the value out and leaves the empty value behind: ownership shows.
 */
#pragma once

#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#define cleanup(fn) __attribute__((cleanup(fn)))

/* Move the pointer out of p, leaving NULL: what cleanup() then frees is nothing. */
#define take(p)                                                                                                        \
    ({                                                                                                                 \
        __typeof__(p) *take_p_ = &(p);                                                                                 \
        __typeof__(p) take_v_ = *take_p_;                                                                              \
        *take_p_ = NULL;                                                                                               \
        take_v_;                                                                                                       \
    })

#define take_fd(fd)                                                                                                    \
    ({                                                                                                                 \
        int *take_p_ = &(fd);                                                                                          \
        int take_v_ = *take_p_;                                                                                        \
        *take_p_ = -1;                                                                                                 \
        take_v_;                                                                                                       \
    })

/* Define name_free_p(T **) for use with cleanup(), from a T *name_free(T *). */
#define DEFINE_CLEANUP(T, fn)                                                                                          \
    static inline void fn##_p(T *p)                                                                                    \
    {                                                                                                                  \
        if (*p)                                                                                                        \
            fn(*p);                                                                                                    \
    }

static inline void freep(void *p)
{
    free(*(void **)p);
}

static inline void closep(int *fd)
{
    if (*fd >= 0)
        close(*fd);
}

/* Close and return -1, so that "fd = close_fd(fd)" leaves nothing to close twice. */
static inline int close_fd(int fd)
{
    if (fd >= 0)
        close(fd);
    return -1;
}

#define array_size(a) (sizeof(a) / sizeof((a)[0]))

#define container_of(p, type, member) ((type *)((char *)(p)-offsetof(type, member)))

/* Each use has names of its own, so that they nest. */
#define BASE_PASTE_(a, b) a##b
#define BASE_PASTE(a, b)  BASE_PASTE_(a, b)
#define BASE_PICK(a, b, op, x, y)                                                                                      \
    ({                                                                                                                 \
        __auto_type x = (a);                                                                                           \
        __auto_type y = (b);                                                                                           \
        x op y ? x : y;                                                                                                \
    })
#define BASE_PICK_(a, b, op, n) BASE_PICK(a, b, op, BASE_PASTE(pick_a_, n), BASE_PASTE(pick_b_, n))
#define min(a, b)               BASE_PICK_(a, b, <, __COUNTER__)
#define max(a, b)               BASE_PICK_(a, b, >, __COUNTER__)
