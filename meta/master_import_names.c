/* SPDX-License-Identifier: Apache-2.0 */
#include "meta/master_import_names.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "ufs/ufs_escape.h"

struct held_name {
    struct list link;
    struct ufs_entry entry;
    uint32_t n;
    char key[]; /* the component and '/', n + 1 bytes */
};

void import_names_init(struct import_names *n)
{
    list_init(&n->held);
}

void import_names_fini(struct import_names *n)
{
    for (struct list *e; (e = list_pop_front(&n->held));)
        free(list_entry(e, struct held_name, link));
}

int import_name_of(struct text component, bool beside, struct buf *name)
{
    name->n = 0;
    int r = component.n ? ufs_key_to_path(component, beside, name)
            : beside    ? buf_append(name, "%~=%~", 5)
                        : buf_append(name, "%~", 2);
    if (r == -EILSEQ || (r == 0 && memchr(name->p, '/', name->n)))
        return -ENOTSUP;
    return r;
}

static int give(struct text component, bool beside, const struct ufs_entry *e, const struct import_names_out *out)
{
    struct buf name = {0};
    int r = e->type == UFS_SYMLINK ? -ENOTSUP : import_name_of(component, beside, &name);
    if (r == 0)
        r = out->name(out->arg, (struct text){(const char *)name.p, (uint32_t)name.n}, component, e);
    buf_fini(&name);
    if (r != -ENOTSUP)
        return r;
    out->skipped(out->arg, component);
    return 0;
}

/* Give those whose directory would have come before this key, or is it. */
static int let_go(struct import_names *n, const struct text *key, const struct import_names_out *out)
{
    int r = 0;
    list_for_each_safe (e, &n->held) {
        struct held_name *h = list_entry(e, struct held_name, link);
        int order = key ? text_compare(*key, (struct text){h->key, h->n + 1}) : 1;
        if (order < 0 || r < 0)
            continue;
        list_remove(&h->link);
        r = give((struct text){h->key, h->n}, order == 0, &h->entry, out);
        free(h);
    }
    return r;
}

static int hold(struct import_names *n, struct text component, const struct ufs_entry *e)
{
    struct held_name *h = malloc(sizeof(*h) + component.n + 1);
    if (!h)
        return -ENOMEM;
    h->entry = *e;
    h->n = component.n;
    memcpy(h->key, component.p, component.n);
    h->key[component.n] = '/';
    list_push_back(&n->held, &h->link);
    return 0;
}

int import_names_add(struct import_names *n, struct text component, const struct ufs_entry *e,
                     const struct import_names_out *out)
{
    int r = let_go(n, &component, out);
    if (r < 0)
        return r;
    if (e->type == UFS_DIRECTORY) {
        if (component.n && component.p[component.n - 1] == '/')
            component.n--;
        return give(component, false, e, out);
    }
    return hold(n, component, e);
}

int import_names_end(struct import_names *n, const struct import_names_out *out)
{
    return let_go(n, NULL, out);
}
