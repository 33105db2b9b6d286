/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Arena: small objects of any size up to ARENA_OBJECT_MAX, named by 32-bit handles instead of pointers. Memory comes in
 * slabs of 64 KiB, each holding objects of one size; an emptied slab may take another size. So a million objects cost
 * their own bytes rounded up to 8 (beyond 256 bytes: to an eighth) and nothing else, and memory freed by one size can
 * serve another. Handles stay valid until the object is freed; up to 32 GiB.
 *
 * Each object begins with struct arena_object. Walking a slab shows all live objects in it: what the clock of a cache
 * needs. Owner: one thread at a time; readers may use arena_at() as long as nobody allocates.
 */
#pragma once

#include <stdbool.h>
#include <stdint.h>

#define ARENA_SLAB_BYTES (64u << 10)
#define ARENA_UNIT       8u
#define ARENA_SLAB_UNITS (ARENA_SLAB_BYTES / ARENA_UNIT) /* 13 bits of a handle; the other 19 are the slab */
#define ARENA_SLABS_MAX  (1u << 19)
#define ARENA_OBJECT_MAX (9u << 10)
#define ARENA_CLASSES    80

/* What every object begins with. */
struct arena_object {
    uint32_t next; /* the owner's; of a free object: the next free one of the slab */
    uint8_t kind;  /* 0: free; else the owner's */
    uint8_t used;  /* the owner's: the bit of a clock. Any thread, atomic */
    union {        /* the owner's */
        uint16_t size;
        struct {
            uint8_t length, type;
        };
    };
};

struct arena_slab {
    uint8_t *memory;
    uint32_t free;           /* handle of a free object, 0: none */
    uint32_t next, previous; /* slab + 1 in the list of its class with room, or of empty slabs */
    uint16_t object_units;   /* size of its objects; 0: empty */
    uint16_t live;           /* objects */
    uint16_t fresh;          /* units from here on have never been used */
};

struct arena {
    struct arena_slab *slabs;
    uint32_t slab_count, slab_room;
    uint32_t with_room[ARENA_CLASSES]; /* slab + 1 of each class that has a free object; 0: none */
    uint32_t empty;                    /* slab + 1 */
    uint64_t live_bytes;
};

void arena_fini(struct arena *a);

static inline void *arena_at(const struct arena *a, uint32_t handle)
{
    return a->slabs[handle / ARENA_SLAB_UNITS].memory + handle % ARENA_SLAB_UNITS * ARENA_UNIT;
}

/* Bytes an object of n bytes really takes: n may grow to that in place. */
uint32_t arena_room(uint32_t n);

/* An object of at least n bytes, undefined but for kind, which the caller sets at once. slab_limit: slabs there may be.
 * Returns 0: no room within the limit, or no memory. */
uint32_t arena_alloc(struct arena *a, uint32_t n, uint32_t slab_limit);

void arena_free(struct arena *a, uint32_t handle);

/* Call each() for every live object of a slab; it may free the object, and no other. Stops when each() returns false. */
void arena_walk(struct arena *a, uint32_t slab, bool (*each)(void *arg, uint32_t handle, struct arena_object *o),
                void *arg);

/* Bytes held. */
uint64_t arena_bytes(const struct arena *a);
