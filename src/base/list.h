/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Intrusive doubly linked list. A list is a circle through its head; an element not on a list points at itself
 * (list_init) so that list_remove() may be called on it.
 */
#pragma once

#include <stdbool.h>
#include <stddef.h>

#include "base/cleanup.h"

struct list {
    struct list *next, *prev;
};

#define LIST_INIT(head)                                                                                                \
    {                                                                                                                  \
        &(head), &(head)                                                                                               \
    }

static inline void list_init(struct list *l)
{
    l->next = l->prev = l;
}

static inline bool list_empty(const struct list *l)
{
    return l->next == l;
}

static inline void list_insert_after(struct list *where, struct list *e)
{
    e->next = where->next;
    e->prev = where;
    where->next->prev = e;
    where->next = e;
}

static inline void list_push_front(struct list *head, struct list *e)
{
    list_insert_after(head, e);
}

static inline void list_push_back(struct list *head, struct list *e)
{
    list_insert_after(head->prev, e);
}

static inline void list_remove(struct list *e)
{
    e->prev->next = e->next;
    e->next->prev = e->prev;
    list_init(e);
}

/* The first element unlinked, or NULL. */
static inline struct list *list_pop_front(struct list *head)
{
    if (list_empty(head))
        return NULL;
    struct list *e = head->next;
    list_remove(e);
    return e;
}

/* Move all of src to the end of dst; src is empty afterwards. */
static inline void list_append_all(struct list *dst, struct list *src)
{
    if (list_empty(src))
        return;
    src->next->prev = dst->prev;
    dst->prev->next = src->next;
    src->prev->next = dst;
    dst->prev = src->prev;
    list_init(src);
}

#define list_entry(e, type, member) container_of(e, type, member)

#define list_for_each(e, head) for (struct list *e = (head)->next; e != (head); e = e->next)

/* The element may be removed (or freed) in the body. */
#define list_for_each_safe(e, head)                                                                                    \
    for (struct list *e = (head)->next, *e##_next = e->next; e != (head); e = e##_next, e##_next = e->next)
