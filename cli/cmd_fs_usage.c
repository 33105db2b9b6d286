/* SPDX-License-Identifier: Apache-2.0 */
/* cv fs df, du, blocks: how much there is, and where. */
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

#include "base/error.h"
#include "cli/cluster_map.h"
#include "cli/connect.h"
#include "cli/tree.h"
#include "client/client_ask.h"
#include "wire/data_flags.h"

#define PATH_SIZE  4400
#define BLOCKS_MAX 100000 /* shown */

/* ---- df ------------------------------------------------------------------------------------------------------------------- */

static void add_space(struct out *o, const char *name, const char *state, uint64_t capacity, uint64_t used)
{
    char percent[16];
    out_text(o, name);
    out_text(o, state);
    out_number(o, capacity);
    out_number(o, used);
    out_number(o, capacity > used ? capacity - used : 0);
    snprintf(percent, sizeof(percent), "%.0f%%", capacity ? (double)used * 100 / (double)capacity : 0);
    out_text(o, percent);
}

int cmd_fs_df(struct cli *cli, int argc, char **argv)
{
    static const struct out_column columns[] = {
        {"worker", OUT_TEXT}, {"state", OUT_TEXT}, {"capacity", OUT_SIZE}, {"used", OUT_SIZE},
        {"free", OUT_SIZE},   {"full", OUT_TEXT},  {"address", OUT_TEXT},
    };
    if (cli_option(cli, argc, argv, "", NULL) != -1)
        return cli_option_status();
    if (argc != optind)
        return cli_usage(cli, "takes no arguments");
    struct curvine *cv cleanup(curvine_closep) = NULL;
    struct cluster_map map cleanup(cluster_map_fini) = {0};
    int status = cli_connect(cli, &cv);
    if (status != CLI_OK)
        return status;
    int r = cluster_map_get(cv, &map);
    if (r < 0)
        return cli_fail(cli, r, NULL, "ask for the workers");
    struct out *o = out_table(columns, array_size(columns));
    uint64_t capacity = 0, used = 0;
    for (unsigned i = 0; i < map.count; i++) {
        const struct rec_worker *w = &map.workers[i];
        char id[32];
        snprintf(id, sizeof(id), "%016llx", (unsigned long long)w->worker);
        add_space(o, id, w->up ? w->in ? "up" : "up, out" : "down", w->capacity, w->used);
        out_text_of(o, w->address);
        capacity += w->up ? w->capacity : 0;
        used += w->up ? w->used : 0;
    }
    add_space(o, "all", NULL, capacity, used);
    out_text(o, NULL);
    return cli_print(cli, o);
}

/* ---- du ------------------------------------------------------------------------------------------------------------------- */

struct usage {
    struct curvine *cv;
    struct cluster_map *map; /* NULL: do not ask the workers */
    uint64_t files, directories, bytes, cached, dirty;
    uint64_t inodes[PRESENCE_MAX];
    unsigned n;
};

static int ask_held(struct usage *u)
{
    struct held sums[PRESENCE_MAX];
    int r = u->n ? cluster_held(u->cv, u->map, u->inodes, u->n, sums) : 0;
    for (unsigned i = 0; r == 0 && i < u->n; i++) {
        u->cached += sums[i].cached;
        u->dirty += sums[i].dirty;
    }
    u->n = 0;
    return r;
}

static int add_usage(const struct tree_entry *e, void *arg)
{
    struct usage *u = arg;
    if (S_ISDIR(e->attr.mode)) {
        u->directories++;
        return 0;
    }
    u->files++;
    if (!S_ISREG(e->attr.mode))
        return 0;
    u->bytes += e->attr.size;
    if (u->map)
        u->inodes[u->n++] = e->attr.inode;
    return u->n == PRESENCE_MAX ? ask_held(u) : 0;
}

static int du_one(struct cli *cli, struct usage *u, const char *path, struct out *o)
{
    char where[PATH_SIZE], shown[PATH_SIZE + 1];
    u->files = u->directories = u->bytes = u->cached = u->dirty = u->n = 0;
    int r = tree_walk(u->cv, path, TREE_BEFORE, UINT32_MAX, add_usage, u, where, sizeof(where));
    if (r == 0 && u->map) {
        r = ask_held(u);
        snprintf(where, sizeof(where), "%s", path);
    }
    if (r < 0)
        return cli_fail_path(cli, r, "add up", where);
    snprintf(shown, sizeof(shown), ":%s", path);
    out_text(o, shown);
    out_number(o, u->files);
    out_number(o, u->directories);
    out_number(o, u->bytes);
    if (u->map) {
        out_number(o, u->cached);
        out_number(o, u->dirty);
    }
    return CLI_OK;
}

int cmd_fs_du(struct cli *cli, int argc, char **argv)
{
    static const struct option options[] = {{"cached", no_argument, NULL, 1}, {0}};
    static const struct out_column columns[] = {
        {"path", OUT_TEXT},  {"files", OUT_NUMBER}, {"directories", OUT_NUMBER},
        {"bytes", OUT_SIZE}, {"cached", OUT_SIZE},  {"only_here", OUT_SIZE},
    };
    static struct usage u;
    bool cached = false;
    for (int c; (c = cli_option(cli, argc, argv, "", options)) != -1;)
        switch (c) {
        case 1: cached = true; break;
        default: return cli_option_status();
        }
    struct curvine *cv cleanup(curvine_closep) = NULL;
    struct cluster_map map cleanup(cluster_map_fini) = {0};
    static char everything[] = ":/";
    char *root[] = {everything, NULL}, **paths = optind < argc ? argv + optind : root;
    const char *path;
    int status = CLI_OK;
    for (char **p = paths; status == CLI_OK && *p; p++)
        status = cli_path(cli, *p, &path);
    if (status == CLI_OK)
        status = cli_connect(cli, &cv);
    int r = status == CLI_OK && cached ? cluster_map_get(cv, &map) : 0;
    if (r < 0)
        return cli_fail(cli, r, NULL, "ask for the workers");
    if (status != CLI_OK)
        return status;
    u.cv = cv;
    u.map = cached ? &map : NULL;
    struct out *o = out_table(columns, cached ? 6 : 4);
    for (char **p = paths; status == CLI_OK && *p; p++)
        status = du_one(cli, &u, *p + 1, o);
    if (status != CLI_OK) {
        out_free(o);
        return status;
    }
    return cli_print(cli, o);
}

/* ---- blocks ---------------------------------------------------------------------------------------------------------------- */

struct block_table {
    struct out *out;
    struct curvine *cv;
    struct cluster_map map;
    uint64_t inode;
    uint32_t shown;
    /* The answers of the workers about this file, in the map's order, a part of their blocks at a time. */
    struct buf *bodies;
    struct msg_block_list_answer *answers;
    int *errors;
};

/* What worker w says of block index: its list is asked for in portions as the table goes on. */
static int find_state(struct block_table *t, unsigned w, uint32_t index, struct rec_block_state *ret)
{
    if (!t->map.workers[w].up)
        return -CV_UNREACHABLE;
    struct msg_block_list_answer *a = &t->answers[w];
    while (t->errors[w] == 0 && (t->bodies[w].n == 0 || (a->next && a->next <= index))) {
        struct msg_block_list ask = {.inode = t->inode, .first = t->bodies[w].n ? a->next : 0};
        t->bodies[w].n = 0;
        int r = client_ask_worker(t->cv, t->map.workers[w].worker, MSG_block_list, msg_block_list_desc(), &ask, NULL, 0,
                                  0, &t->bodies[w]);
        t->errors[w] = r ? r : msg_block_list_answer_decode(t->bodies[w].p, t->bodies[w].n, a);
    }
    if (t->errors[w] < 0)
        return t->errors[w];
    rec_for_each (block_state, s, &a->blocks)
        if (s.index == index) {
            *ret = s;
            return 0;
        }
    return -ENOENT;
}

static void add_row(struct block_table *t, const struct block_place *b, uint64_t worker, const char *state,
                    uint64_t cached)
{
    out_number(t->out, b->block.index);
    out_number(t->out, (uint64_t)b->block.index * b->block.block_bytes);
    out_text(t->out, b->written ? "written" : "from bucket");
    out_number(t->out, b->written ? max(b->block.valid_length, b->block.base_length) : b->block.base_length);
    out_number(t->out, cached);
    out_id(t->out, worker);
    out_text(t->out, state);
    out_colour(t->out, strcmp(state, "whole") == 0                                           ? OUT_GOOD
                       : strncmp(state, "LOST", 4) == 0 || strncmp(state, "DAMAGED", 7) == 0 ? OUT_BAD
                                                                                             : OUT_DIM);
    out_number(t->out, b->block.version);
    out_number(t->out, b->block.epoch);
}

static void describe(const struct block_place *b, const struct rec_block_state *s, char *out, size_t size)
{
    uint32_t length = b->written ? b->block.valid_length : b->block.base_length;
    const char *state = s->flags & BLOCK_LOST            ? "LOST"
                        : s->flags & BLOCK_DAMAGED       ? "DAMAGED"
                        : s->version != b->block.version ? "old version"
                        : s->cached_bytes >= length      ? "whole"
                        : s->cached_bytes                ? "in part"
                                                         : "empty";
    snprintf(out, size, "%s%s%s%s%s", state, s->flags & BLOCK_DIRTY ? ", only here" : "",
             s->flags & BLOCK_OPEN ? ", no checksums yet" : "", s->flags & BLOCK_PINNED ? ", pinned" : "",
             s->flags & BLOCK_PACKED ? ", packed" : "");
}

/* A row for each worker that has something of the block; at least one, for the worker it belongs to. */
static int show_block(const struct block_place *b, void *arg)
{
    struct block_table *t = arg;
    bool any = false;
    if (t->shown++ == BLOCKS_MAX)
        return -EOVERFLOW;
    for (unsigned w = 0; w < t->map.count; w++) {
        struct rec_block_state s;
        char state[64];
        bool owner = t->map.workers[w].worker == b->worker;
        int r = find_state(t, w, b->block.index, &s);
        if (r == -ENOENT && !owner)
            continue;
        if (r < 0 && !owner)
            continue;
        if (r == 0)
            describe(b, &s, state, sizeof(state));
        else if (r == -ENOENT && b->written && b->block.valid_length == 0)
            snprintf(state, sizeof(state), "reserved"); /* granted ahead of a writer, not written */
        else
            snprintf(state, sizeof(state), "%s", r == -ENOENT ? "not cached" : cv_error_text(r));
        add_row(t, b, t->map.workers[w].worker, state, r == 0 ? s.cached_bytes : 0);
        any = true;
    }
    if (!any)
        add_row(t, b, b->worker, "no worker", 0);
    return 0;
}

static int show_blocks(struct block_table *t)
{
    int r = cluster_map_get(t->cv, &t->map);
    if (r < 0)
        return r;
    t->bodies = calloc(t->map.count + 1, sizeof(*t->bodies));
    t->answers = calloc(t->map.count + 1, sizeof(*t->answers));
    t->errors = calloc(t->map.count + 1, sizeof(*t->errors));
    r = t->bodies && t->answers && t->errors ? cluster_each_block(t->cv, &t->map, t->inode, show_block, t) : -ENOMEM;
    for (unsigned w = 0; t->bodies && w < t->map.count; w++)
        buf_fini(&t->bodies[w]);
    free(t->bodies);
    free(t->answers);
    free(t->errors);
    cluster_map_fini(&t->map);
    return r;
}

int cmd_fs_blocks(struct cli *cli, int argc, char **argv)
{
    static const struct out_column columns[] = {
        {"block", OUT_NUMBER},
        {"offset", OUT_SIZE},
        {"kind", OUT_TEXT},
        {"length", OUT_SIZE},
        {"cached", OUT_SIZE},
        {"worker", OUT_TEXT},
        {"state", OUT_TEXT},
        {"version", OUT_NUMBER, .wide = true},
        {"epoch", OUT_NUMBER, .wide = true},
    };
    if (cli_option(cli, argc, argv, "", NULL) != -1)
        return cli_option_status();
    if (argc - optind != 1)
        return cli_usage(cli, "expected one file");
    const char *path;
    struct curvine *cv cleanup(curvine_closep) = NULL;
    struct curvine_attr attr;
    int status = cli_path(cli, argv[optind], &path);
    if (status == CLI_OK)
        status = cli_connect(cli, &cv);
    if (status != CLI_OK)
        return status;
    int r = curvine_stat(cv, path, CURVINE_FOLLOW, &attr);
    if (r == 0 && !S_ISREG(attr.mode))
        r = S_ISDIR(attr.mode) ? -EISDIR : -EINVAL;
    if (r < 0)
        return cli_fail_path(cli, r, "blocks of", path);
    struct block_table t = {.cv = cv, .inode = attr.inode, .out = out_table(columns, array_size(columns))};
    r = show_blocks(&t);
    if (r < 0 && r != -EOVERFLOW) {
        out_free(t.out);
        return cli_fail_path(cli, r, "blocks of", path);
    }
    status = cli_print(cli, t.out);
    if (r == -EOVERFLOW)
        fprintf(stderr, "only the first %d blocks are shown\n", BLOCKS_MAX);
    else if (t.shown == 0)
        fprintf(stderr, attr.size ? "no blocks: the content is with the name, at the master, or all zeros\n"
                                  : "no blocks: the file is empty\n");
    return status;
}
