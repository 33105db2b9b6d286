/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Names of clusters (and of what else must be told apart for ever): 128 random bits, written as
 * "0f8fad5b-d9cb-469f-a165-70867728950e" (RFC 4122, version 4). All zero is "none".
 */
#pragma once

#include <stdbool.h>
#include <stdint.h>
#include <string.h>

#include "base/text.h"

#define UUID_SIZE   16
#define UUID_STRING 37 /* with the final zero */

struct uuid {
    uint8_t b[UUID_SIZE];
};

/* A new random one. */
struct uuid uuid_new(void);

static inline bool uuid_equal(struct uuid a, struct uuid b)
{
    return memcmp(a.b, b.b, UUID_SIZE) == 0;
}

static inline bool uuid_is_none(struct uuid u)
{
    return uuid_equal(u, (struct uuid){{0}});
}

/* As people write it, upper or lower case. Errors: -EINVAL. */
int uuid_parse(const char *s, struct uuid *ret);

/* Into out (UUID_STRING bytes); returns out. */
char *uuid_format(struct uuid u, char out[UUID_STRING]);

/* Its 16 bytes as they go over the wire; borrows from *u. */
static inline struct text uuid_bytes(const struct uuid *u)
{
    return (struct text){(const char *)u->b, UUID_SIZE};
}

/* From the wire: none unless there are exactly 16 bytes. */
static inline struct uuid uuid_from_bytes(struct text t)
{
    struct uuid u = {{0}};
    if (t.n == UUID_SIZE)
        memcpy(u.b, t.p, UUID_SIZE);
    return u;
}
