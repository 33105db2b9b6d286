/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Memory that runs out on the n-th call: include in one source of a test program, which then replaces malloc for all of
 * it, libraries too. Not under sanitizers, which have a malloc of their own: tests are left out with FAIL_MALLOC.
 *
 *     for (uint64_t n = 1; n; n++) {
 *         uint64_t before = live_blocks;
 *         fail_malloc_at = n;
 *         ...what is tested; each error but -ENOMEM is a mistake...
 *         if (fail_malloc_over())        the n-th call never came: all were tried
 *             n = -1;
 *         ck_assert_uint_eq(live_blocks, before);
 *     }
 */
#pragma once

#ifndef __has_feature
#define __has_feature(x) 0
#endif
#if !defined(__SANITIZE_ADDRESS__) && !defined(__SANITIZE_THREAD__) && !__has_feature(address_sanitizer) &&            \
    !__has_feature(thread_sanitizer)
#define FAIL_MALLOC 1

#include <errno.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>

static uint64_t fail_malloc_at; /* counts down to the call that fails; 0: none does. One thread only */
static uint64_t live_blocks;    /* allocated and not freed */

extern void *__libc_malloc(size_t n);
extern void *__libc_calloc(size_t count, size_t n);
extern void *__libc_realloc(void *p, size_t n);
extern void __libc_free(void *p);

static bool fails_now(void)
{
    if (!fail_malloc_at || --fail_malloc_at)
        return false;
    errno = ENOMEM;
    return true;
}

static void *counted(void *p)
{
    live_blocks += p != NULL;
    return p;
}

void *malloc(size_t n)
{
    return fails_now() ? NULL : counted(__libc_malloc(n));
}

void *calloc(size_t count, size_t n)
{
    return fails_now() ? NULL : counted(__libc_calloc(count, n));
}

void *realloc(void *p, size_t n)
{
    if (fails_now())
        return NULL;
    return p ? __libc_realloc(p, n) : counted(__libc_malloc(n));
}

void free(void *p)
{
    live_blocks -= p != NULL;
    __libc_free(p);
}

/* Whether the call that was to fail never came; ends the failing. */
static inline bool fail_malloc_over(void)
{
    bool over = fail_malloc_at != 0;
    fail_malloc_at = 0;
    return over;
}
#endif
