/* SPDX-License-Identifier: Apache-2.0 */
#include "ufs/ufs_impl.h"

#include <assert.h>
#include <stdio.h>
#include <strings.h>

#include "base/cleanup.h"
#include "base/error.h"

static const struct ufs_ops *const schemes[] = {&ufs_file_ops, &ufs_s3_ops};

static const char *const verb_names[UFS_VERBS] = {"GET", "HEAD", "PUT", "DELETE", "LIST", "POST"};

const char *ufs_verb_name(enum ufs_verb verb)
{
    return verb_names[verb];
}

const struct ufs_counters *ufs_counters(const struct ufs *u)
{
    return &u->counters;
}

static struct ufs *ufs_free(struct ufs *u)
{
    if (!u)
        return NULL;
    for (unsigned i = 0; i < u->param_count; i++) {
        explicit_bzero(u->params[i].value, strlen(u->params[i].value)); /* may be a secret */
        free(u->params[i].value);
    }
    free(u->uri);
    free(u->prefix);
    free(u);
    return NULL;
}
DEFINE_CLEANUP(struct ufs *, ufs_free)

static int take_params(struct ufs *u, const struct ufs_param *params, unsigned n, char *message, size_t size)
{
    for (unsigned i = 0; i < n; i++) {
        const char *usual, *known = ufs_param_row(u->ops->scheme, params[i].name, &usual);
        if (!known || u->param_count == UFS_PARAMS_MAX) {
            snprintf(message, size, "%s:// has no parameter '%s'", u->ops->scheme, params[i].name);
            return -EINVAL;
        }
        for (unsigned k = 0; k < u->param_count; k++) {
            if (u->params[k].name != known)
                continue;
            snprintf(message, size, "parameter '%s' is given twice", known);
            return -EINVAL;
        }
        u->params[u->param_count].name = known;
        if (!(u->params[u->param_count].value = strdup(params[i].value)))
            return -ENOMEM;
        u->param_count++;
    }
    return 0;
}

/* "/a/b" behind the authority becomes "a/b/"; for files the path stays absolute and is the implementation's. */
static char *prefix_of(const char *path)
{
    while (*path == '/')
        path++;
    size_t n = strlen(path);
    while (n && path[n - 1] == '/')
        n--;
    char *prefix = malloc(n + 2);
    if (prefix) {
        memcpy(prefix, path, n);
        strcpy(prefix + n, n ? "/" : "");
    }
    return prefix;
}

int ufs_open(struct loop *loop, const char *uri, const struct ufs_param *params, unsigned n, struct ufs **ret,
             char *message, size_t message_size)
{
    snprintf(message, message_size, "out of memory");
    const char *colon = strstr(uri, "://");
    if (!colon) {
        snprintf(message, message_size, "'%s' is no URI: expected e.g. s3://bucket/prefix or file:///directory", uri);
        return -EINVAL;
    }
    struct ufs *u cleanup(ufs_free_p) = calloc(1, sizeof(*u));
    if (!u)
        return -ENOMEM;
    for (size_t i = 0; i < array_size(schemes); i++)
        if (strlen(schemes[i]->scheme) == (size_t)(colon - uri) &&
            strncasecmp(uri, schemes[i]->scheme, (size_t)(colon - uri)) == 0)
            u->ops = schemes[i];
    if (!u->ops) {
        snprintf(message, message_size, "unknown scheme '%.*s://': this version knows file:// and s3://",
                 (int)(colon - uri), uri);
        return -EPROTONOSUPPORT;
    }
    u->loop = loop;
    list_init(&u->running);
    int r = take_params(u, params, n, message, message_size);
    if (r < 0)
        return r;
    const char *authority = colon + 3, *path = strchrnul(authority, '/');
    u->uri = strdup(uri);
    u->prefix = prefix_of(path);
    if (!u->uri || !u->prefix)
        return -ENOMEM;
    r = u->ops->open(u, (struct text){authority, (uint32_t)(path - authority)}, message, message_size);
    if (r < 0)
        return r;
    *ret = take(u);
    return 0;
}

static void close_now(struct loop_job *job)
{
    struct ufs *u = container_of(job, struct ufs, close_job);
    void (*closed)(void *) = u->closed;
    void *arg = u->closed_arg;
    u->ops->close(u);
    ufs_free(u);
    if (closed)
        closed(arg);
}

void ufs_close(struct ufs *u, void (*closed)(void *arg), void *arg)
{
    assert_on_loop(u->loop);
    assert(!u->closing);
    u->closing = true;
    u->closed = closed;
    u->closed_arg = arg;
    u->close_job.run = close_now;
    list_for_each_safe (e, &u->running)
        u->ops->cancel(list_entry(e, struct ufs_op, link));
    if (list_empty(&u->running))
        loop_post(u->loop, &u->close_job);
}

static void start(struct ufs *u, struct ufs_op *op, void (*done)(struct ufs_op *))
{
    assert_on_loop(u->loop);
    assert(!u->closing);
    op->ufs = u;
    op->done = done;
    op->result = 0;
    op->message[0] = '\0';
    op->entry = (struct ufs_entry){0};
    op->bytes = 0;
    op->more = false;
    op->state = NULL;
    list_push_back(&u->running, &op->link);
}

void ufs_check(struct ufs *u, struct ufs_op *op, void (*done)(struct ufs_op *))
{
    start(u, op, done);
    u->ops->check(u, op);
}

void ufs_stat(struct ufs *u, struct ufs_op *op, struct text key, void (*done)(struct ufs_op *))
{
    start(u, op, done);
    u->ops->stat(u, op, key);
}

void ufs_list(struct ufs *u, struct ufs_op *op, struct text prefix, struct text after, uint32_t max, bool recursive,
              int (*each)(struct ufs_op *, const struct ufs_entry *), void (*done)(struct ufs_op *))
{
    start(u, op, done);
    op->each = each;
    u->ops->list(u, op, prefix, after, max, recursive);
}

void ufs_get(struct ufs *u, struct ufs_op *op, struct text key, const struct ufs_identity *identity, uint64_t offset,
             uint64_t length, int (*piece)(struct ufs_op *, const void *, size_t), void (*done)(struct ufs_op *))
{
    start(u, op, done);
    op->piece = piece;
    u->ops->get(u, op, key, identity, offset, length);
}

void ufs_put(struct ufs *u, struct ufs_op *op, struct text key, const struct ufs_identity *identity, int fd,
             uint64_t offset, uint64_t size, void (*done)(struct ufs_op *))
{
    start(u, op, done);
    u->ops->put(u, op, key, identity, fd, offset, size);
}

void ufs_delete(struct ufs *u, struct ufs_op *op, struct text key, void (*done)(struct ufs_op *))
{
    start(u, op, done);
    u->ops->remove(u, op, key);
}

void ufs_cancel(struct ufs_op *op)
{
    if (op->ufs && op->state)
        op->ufs->ops->cancel(op);
}
