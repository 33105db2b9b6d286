/* SPDX-License-Identifier: Apache-2.0 */
#include "meta/meta_arena.h"

#include <assert.h>
#include <stdlib.h>

/* Classes: one per unit up to 32 units, then eight per doubling. */
static unsigned class_of(uint32_t units, uint32_t *rounded)
{
    if (units <= 32) {
        *rounded = units;
        return units - 1;
    }
    unsigned doubling = 31 - (unsigned)__builtin_clz(units - 1); /* 2^doubling < units <= 2^(doubling + 1) */
    uint32_t step = (1u << doubling) / 8;
    uint32_t steps = (units - (1u << doubling) + step - 1) / step; /* 1 to 8 */
    *rounded = (1u << doubling) + steps * step;
    return 32 + (doubling - 5) * 8 + steps - 1;
}

static uint32_t units_of(uint32_t n)
{
    assert(n >= sizeof(struct arena_object) && n <= ARENA_OBJECT_MAX);
    return (n + ARENA_UNIT - 1) / ARENA_UNIT;
}

uint32_t arena_room(uint32_t n)
{
    uint32_t rounded;
    class_of(units_of(n), &rounded);
    return rounded * ARENA_UNIT;
}

static void list_put(struct arena *a, uint32_t *head, uint32_t slab)
{
    struct arena_slab *s = &a->slabs[slab];
    s->previous = 0;
    s->next = *head;
    if (*head)
        a->slabs[*head - 1].previous = slab + 1;
    *head = slab + 1;
}

static void list_take(struct arena *a, uint32_t *head, uint32_t slab)
{
    struct arena_slab *s = &a->slabs[slab];
    if (s->next)
        a->slabs[s->next - 1].previous = s->previous;
    if (s->previous)
        a->slabs[s->previous - 1].next = s->next;
    else
        *head = s->next;
    s->next = s->previous = 0;
}

static bool slab_has_room(const struct arena_slab *s)
{
    return s->free || s->fresh + s->object_units <= (int)ARENA_SLAB_UNITS;
}

/* A slab without objects: an emptied one, or a new one within the limit. Returns slab + 1, or 0. */
static uint32_t slab_find(struct arena *a, uint32_t slab_limit)
{
    if (a->empty) {
        uint32_t slab = a->empty - 1;
        list_take(a, &a->empty, slab);
        return slab + 1;
    }
    if (a->slab_count >= slab_limit || a->slab_count >= ARENA_SLABS_MAX)
        return 0;
    if (a->slab_count == a->slab_room) {
        uint32_t room = a->slab_room ? a->slab_room * 2 : 16;
        struct arena_slab *slabs = realloc(a->slabs, room * sizeof(*slabs));
        if (!slabs)
            return 0;
        a->slabs = slabs;
        a->slab_room = room;
    }
    uint8_t *memory = malloc(ARENA_SLAB_BYTES);
    if (!memory)
        return 0;
    a->slabs[a->slab_count] = (struct arena_slab){.memory = memory};
    return ++a->slab_count;
}

uint32_t arena_alloc(struct arena *a, uint32_t n, uint32_t slab_limit)
{
    uint32_t units;
    unsigned class = class_of(units_of(n), &units);
    assert(class < ARENA_CLASSES);
    if (!a->with_room[class]) {
        uint32_t found = slab_find(a, slab_limit);
        if (!found)
            return 0;
        struct arena_slab *fresh = &a->slabs[found - 1];
        fresh->object_units = (uint16_t)units;
        fresh->free = 0;
        fresh->fresh = 1; /* unit 0 stays unused, so that no handle is 0 */
        list_put(a, &a->with_room[class], found - 1);
    }
    uint32_t slab = a->with_room[class] - 1;
    struct arena_slab *s = &a->slabs[slab];
    uint32_t handle = s->free;
    if (handle) {
        s->free = ((struct arena_object *)arena_at(a, handle))->next;
    } else {
        handle = slab * ARENA_SLAB_UNITS + s->fresh;
        s->fresh = (uint16_t)(s->fresh + units);
    }
    s->live++;
    a->live_bytes += units * ARENA_UNIT;
    if (!slab_has_room(s))
        list_take(a, &a->with_room[class], slab);
    return handle;
}

void arena_free(struct arena *a, uint32_t handle)
{
    uint32_t slab = handle / ARENA_SLAB_UNITS, units;
    struct arena_slab *s = &a->slabs[slab];
    struct arena_object *o = arena_at(a, handle);
    assert(o->kind && s->live);
    unsigned class = class_of(s->object_units, &units);
    bool had_room = slab_has_room(s);
    o->kind = 0;
    o->next = s->free;
    s->free = handle;
    s->live--;
    a->live_bytes -= units * ARENA_UNIT;
    if (!had_room)
        list_put(a, &a->with_room[class], slab);
    if (s->live == 0) {
        list_take(a, &a->with_room[class], slab);
        s->object_units = 0;
        list_put(a, &a->empty, slab);
    }
}

void arena_walk(struct arena *a, uint32_t slab, bool (*each)(void *arg, uint32_t handle, struct arena_object *o),
                void *arg)
{
    struct arena_slab *s = &a->slabs[slab];
    uint32_t units = s->object_units, end = s->fresh;
    if (!units)
        return;
    for (uint32_t unit = 1; unit + units <= end && s->object_units == units; unit += units) {
        uint32_t handle = slab * ARENA_SLAB_UNITS + unit;
        struct arena_object *o = arena_at(a, handle);
        if (o->kind && !each(arg, handle, o))
            return;
    }
}

uint64_t arena_bytes(const struct arena *a)
{
    return (uint64_t)a->slab_count * ARENA_SLAB_BYTES + (uint64_t)a->slab_room * sizeof(struct arena_slab);
}

void arena_fini(struct arena *a)
{
    for (uint32_t i = 0; i < a->slab_count; i++)
        free(a->slabs[i].memory);
    free(a->slabs);
    *a = (struct arena){0};
}
