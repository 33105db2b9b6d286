/* SPDX-License-Identifier: Apache-2.0 */
#include "cli/tree.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

#include "base/cleanup.h"
#include "base/text.h"

#define DEPTH_MAX 10000 /* each level takes some hundred bytes of stack */

struct walk {
    struct curvine *cv;
    enum tree_order order;
    unsigned depth_max;
    int (*each)(const struct tree_entry *, void *);
    void *arg;
    struct buf path; /* with a final zero behind n */
    char *error_path;
    size_t error_size;
};

static int fail(struct walk *w, int r)
{
    if (w->error_path[0] == '\0')
        snprintf(w->error_path, w->error_size, "%s", (char *)w->path.p);
    return r;
}

static int push(struct walk *w, struct curvine_text name)
{
    int r = w->path.n > 1 ? buf_append(&w->path, "/", 1) : 0;
    r = r ? r : buf_append(&w->path, name.p, name.n);
    r = r ? r : buf_append(&w->path, "", 1);
    w->path.n -= r == 0;
    return r;
}

static void pop(struct walk *w, size_t n)
{
    w->path.n = n;
    w->path.p[n] = '\0';
}

static int visit(struct walk *w, uint64_t parent, uint32_t name_n, const struct curvine_attr *attr, unsigned depth);

/* A page of names, and where the next one begins: not on the stack, since trees are deep. */
struct page {
    struct curvine_request q;
    char after[256];
    uint32_t after_n;
};

static int visit_page(struct walk *w, struct page *p, uint64_t inode, unsigned depth)
{
    p->q = (struct curvine_request){.op = CURVINE_READDIR, .inode = inode, .name = {p->after, p->after_n}, .flags = 1};
    int r = curvine_run(w->cv, &p->q);
    if (tree_is_gone(r))
        r = 0;
    for (uint32_t i = 0; r == 0 && i < p->q.entry_count; i++) {
        const struct curvine_dirent *e = &p->q.entries[i];
        size_t n = w->path.n;
        r = push(w, e->name);
        if (r == 0)
            r = visit(w, inode, e->name.n, &e->attr, depth + 1);
        if (r < 0)
            fail(w, r);
        pop(w, n);
    }
    return r < 0 ? fail(w, r) : 0;
}

static int visit_children(struct walk *w, uint64_t inode, unsigned depth)
{
    struct page *p cleanup(freep) = calloc(1, sizeof(*p));
    if (!p)
        return fail(w, -ENOMEM);
    for (bool more = true; more;) {
        int r = visit_page(w, p, inode, depth);
        more = r == 0 && !p->q.end && p->q.entry_count > 0;
        if (more) {
            struct curvine_text last = p->q.entries[p->q.entry_count - 1].name;
            p->after_n = min(last.n, (uint32_t)sizeof(p->after));
            memcpy(p->after, last.p, p->after_n);
        }
        curvine_request_free(&p->q);
        if (r < 0)
            return r;
    }
    return 0;
}

static int visit(struct walk *w, uint64_t parent, uint32_t name_n, const struct curvine_attr *attr, unsigned depth)
{
    struct tree_entry entry = {
        .depth = depth,
        .parent = parent,
        .attr = *attr,
    };
    int r = 0;
    if (w->order == TREE_BEFORE) {
        entry.path = (char *)w->path.p;
        entry.name = (struct curvine_text){entry.path + w->path.n - name_n, name_n};
        r = w->each(&entry, w->arg);
    }
    if (r == 0 && S_ISDIR(attr->mode) && depth < w->depth_max)
        r = depth < DEPTH_MAX ? visit_children(w, attr->inode, depth) : -ELOOP;
    if (r == 0 && w->order == TREE_AFTER) {
        entry.path = (char *)w->path.p; /* the path may have moved */
        entry.name = (struct curvine_text){entry.path + w->path.n - name_n, name_n};
        r = w->each(&entry, w->arg);
    }
    return r;
}

int tree_walk(struct curvine *cv, const char *path, enum tree_order order, unsigned depth_max,
              int (*each)(const struct tree_entry *entry, void *arg), void *arg, char *error_path, size_t size)
{
    struct walk w = {cv, order, depth_max, each, arg, {0}, error_path, size};
    size_t n = strlen(path);
    while (n > 1 && path[n - 1] == '/')
        n--;
    error_path[0] = '\0';
    struct curvine_attr attr;
    int r = buf_append(&w.path, path, n);
    r = r ? r : buf_append(&w.path, "", 1);
    w.path.n -= r == 0;
    r = r ? r : curvine_stat(cv, path, 0, &attr);
    if (r == 0) {
        const char *slash = memrchr(path, '/', n);
        r = visit(&w, 0, n > 1 ? (uint32_t)(path + n - slash - 1) : 0, &attr, 0);
    }
    if (r < 0 && !error_path[0])
        snprintf(error_path, size, "%s", path);
    buf_fini(&w.path);
    return r;
}
