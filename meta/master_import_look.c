/* SPDX-License-Identifier: Apache-2.0 */
/* Looks: single names, as long as so few are asked for that listing the directory would be more work. */
#include <errno.h>
#include <stdlib.h>

#include "base/clock.h"
#include "base/error.h"
#include "meta/master_import_internal.h"
#include "ufs/ufs_escape.h"

#define LOOK_NS (10 * NS_PER_S) /* shorter than people wait: they shall hear why */

static void look_end(struct import_look *k, int result)
{
    struct import_directory *d = k->of;
    struct master_import *m = d->import;
    import_waits_end(&k->waits, import_result_of(m, result));
    list_remove(&k->link);
    buf_fini(&k->name);
    buf_fini(&k->key);
    free(k);
    import_idle(d);
    atomic_fetch_sub(&m->active, 1);
}

void import_look_imported(struct import_look *k, int error)
{
    look_end(k, error == 0 && k->other ? -ENOENT : error);
}

static int look_add(struct master_import_batch *b, struct text component, bool beside, const struct ufs_entry *e)
{
    struct buf name = {0};
    int r = import_name_of(component, beside, &name);
    if (r == 0)
        r = import_batch_add(b, (struct text){(const char *)name.p, (uint32_t)name.n}, component, e);
    buf_fini(&name);
    return r == -ENOTSUP ? -ENOENT : r;
}

/* What was found becomes one name, or two when object and directory share one. */
static int look_import(struct import_look *k)
{
    static const struct ufs_entry directory = {.type = UFS_DIRECTORY};
    uint32_t prefix = (uint32_t)k->of->prefix.n;
    struct text component = {(const char *)k->key.p + prefix, (uint32_t)k->key.n - prefix};
    struct master_import_batch *b = import_batch_new(k->of, 2);
    if (!b)
        return -ENOMEM;
    b->look = k;
    int r = look_add(b, component, k->beside, &k->found);
    if (r == 0 && k->beside)
        r = look_add(b, component, false, &directory);
    if (r < 0) {
        import_batch_free(b);
        return r;
    }
    const struct text wanted = {(const char *)k->name.p, (uint32_t)k->name.n};
    k->other = true;
    import_batch_seal(b);
    for (uint32_t i = 0; i < b->count; i++)
        k->other &= !text_equal(b->names[i].name, wanted);
    import_batch_give(b);
    return 0;
}

static void look_go_on(struct import_look *k, int r)
{
    if (r == 0)
        r = k->found.type == UFS_SYMLINK ? -ENOENT : look_import(k);
    if (r < 0)
        look_end(k, r);
}

static int look_any(struct ufs_op *op, const struct ufs_entry *e)
{
    container_of(op, struct import_look, op)->beside = true;
    return 0;
}

static void look_listed(struct ufs_op *op)
{
    struct import_look *k = container_of(op, struct import_look, op);
    int r = import_said(op->result);
    k->asking = false;
    if (r == 0 && k->key.n == 0) { /* of a directory without a name, its directory was not asked for */
        r = k->beside ? 0 : -ENOENT;
        k->found.type = UFS_DIRECTORY;
        k->beside = false;
    }
    look_go_on(k, r);
}

/* Of an object store: may there be objects below what is an object? */
static int look_for_directory(struct import_look *k)
{
    struct ufs *u;
    int r = buf_append(&k->key, "/", 1);
    if (r == 0)
        r = master_ufs_of(k->of->import->ufs, k->of->mount, &u);
    if (r < 0)
        return r;
    k->asking = true;
    ufs_list(u, &k->op, (struct text){(const char *)k->key.p, (uint32_t)k->key.n}, (struct text){0}, 1, false, look_any,
             look_listed);
    k->key.n--; /* the call has made its own copy */
    return 0;
}

static void look_statted(struct ufs_op *op)
{
    struct import_look *k = container_of(op, struct import_look, op);
    struct import_directory *d = k->of;
    k->asking = false;
    master_ufs_note(d->import->ufs, d->mount, op->result, op->message);
    k->found = op->entry;
    int r = import_said(op->result);
    if (r == 0 && op->entry.type == UFS_FILE && op->entry.mode == 0)
        r = look_for_directory(k);
    if (!k->asking)
        look_go_on(k, r);
}

/* The key a name stands for, behind the prefix. Errors: -ENOENT: there can be none. */
static int look_key(struct import_look *k)
{
    const struct text name = {(const char *)k->name.p, (uint32_t)k->name.n};
    int r = buf_append(&k->key, k->of->prefix.p, k->of->prefix.n);
    if (r == 0)
        r = ufs_path_to_key(name, &k->key);
    return r == -EINVAL ? -ENOENT : r;
}

static int look_ask(struct import_look *k)
{
    struct import_directory *d = k->of;
    struct ufs *u = NULL;
    int r = look_key(k);
    k->op.deadline_ns = clock_ns() + LOOK_NS;
    if (r == 0 && k->key.n == 0)
        return look_for_directory(k); /* nothing has no name at all, but "/x" may be there */
    if (r == 0)
        r = master_ufs_of(d->import->ufs, d->mount, &u);
    if (r < 0)
        return r;
    k->asking = true;
    ufs_stat(u, &k->op, (struct text){(const char *)k->key.p, (uint32_t)k->key.n}, look_statted);
    return 0;
}

static struct import_look *look_find(struct import_directory *d, struct text name)
{
    list_for_each (e, &d->looks) {
        struct import_look *k = list_entry(e, struct import_look, link);
        if (text_equal((struct text){(const char *)k->name.p, (uint32_t)k->name.n}, name))
            return k;
    }
    return NULL;
}

void import_look_for(struct import_directory *d, struct master_import_wait *w)
{
    struct master_import *m = d->import;
    struct import_look *k = look_find(d, w->name);
    if (k) {
        list_push_back(&k->waits, &w->link);
        return;
    }
    k = calloc(1, sizeof(*k));
    if (!k || buf_append(&k->name, w->name.p, w->name.n) < 0) {
        free(k);
        import_wait_end(w, -ENOMEM);
        return import_idle(d);
    }
    k->of = d;
    list_init(&k->waits);
    list_push_back(&k->waits, &w->link);
    list_push_back(&d->looks, &k->link);
    atomic_fetch_add(&m->active, 1);
    atomic_fetch_add(&m->looks, 1);
    int r = look_ask(k);
    if (r < 0)
        look_end(k, r);
}
