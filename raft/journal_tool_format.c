/* SPDX-License-Identifier: Apache-2.0 */
/* The beginning of a log: of a founding voter (format), or of a member that will be added (join). */
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <unistd.h>

#include "base/clock.h"
#include "base/error.h"
#include "base/hash.h"
#include "base/random.h"
#include "conf/config.h"
#include "raft/journal_status.h"
#include "raft/journal_tool_internal.h"

enum { NAME_MAX_SIZE = 64 };

/* "host:port" of a journal to a member with the client address of the master beside it. beside: that master's port;
 * NULL: as configured here. */
static int make_member(const struct tool *t, const char *address, const char *beside, uint64_t id,
                       struct raft_member *ret)
{
    char port[OPTION_WRITTEN_MAX];
    const char *colon = strrchr(address, ':');
    int r = config_text(t->config, "master", "port", port, sizeof(port));
    if (r < 0 || !colon || colon == address || !colon[1])
        return -EINVAL;
    *ret = (struct raft_member){.id = id, .role = RAFT_VOTER};
    int n = snprintf(ret->raft_address, sizeof(ret->raft_address), "%s", address);
    int m = snprintf(ret->client_address, sizeof(ret->client_address), "%.*s:%s", (int)(colon - address), address,
                     beside ? beside : port);
    return n >= (int)sizeof(ret->raft_address) || m >= (int)sizeof(ret->client_address) ? -ENAMETOOLONG : 0;
}

static int single_conf(const struct tool *t, struct raft_conf *conf, uint64_t *ret_node)
{
    char host[NAME_MAX_SIZE] = "localhost", port[OPTION_WRITTEN_MAX], address[NAME_MAX_SIZE + OPTION_WRITTEN_MAX + 1];
    (void)gethostname(host, sizeof(host) - 1);
    int r = config_text(t->config, "journal", "port", port, sizeof(port));
    snprintf(address, sizeof(address), "%s:%s", host, port);
    struct raft_member member;
    *ret_node = random_u64();
    if (r == 0)
        r = make_member(t, t->self ? t->self : address, NULL, *ret_node, &member);
    return r < 0 ? r : raft_conf_put(conf, &member);
}

/* The same ids on every founding member: they follow from cluster and address. */
static uint64_t founding_id(struct uuid cluster, const char *address)
{
    uint64_t id = hash_bytes(hash_bytes(0, cluster.b, UUID_SIZE), address, strlen(address));
    return id ? id : 1;
}

/* Is address one of a list with commas? */
static bool is_listed(const char *list, const char *address)
{
    size_t n = strlen(address);
    for (const char *p = list; p && *p; p += strcspn(p, ","), p += *p == ',')
        if (strcspn(p, ",") == n && memcmp(p, address, n) == 0)
            return true;
    return false;
}

static int peers_conf(const struct tool *t, struct uuid cluster, struct raft_conf *conf, uint64_t *ret_node)
{
    char host[NAME_MAX_SIZE] = "";
    (void)gethostname(host, sizeof(host) - 1);
    char *list cleanup(freep) = strdup(t->peers);
    if (!list)
        return -ENOMEM;
    *ret_node = 0;
    for (char *rest = list, *address; (address = strsep(&rest, ","));) {
        struct raft_member member;
        char *beside = strchr(address, '/');
        if (beside)
            *beside++ = 0;
        uint64_t id = founding_id(cluster, address);
        int r = make_member(t, address, beside, id, &member);
        if (r == 0 && is_listed(t->journal_only, address)) {
            member.journal_only = 1;
            member.client_address[0] = 0;
        }
        if (r == 0)
            r = raft_conf_find(conf, id) ? -EEXIST : raft_conf_put(conf, &member);
        if (r < 0) {
            tool_complain(t, "--peers: '%s': %s (write each as host:port or host:port/port-of-its-master, once)",
                          address, cv_error_text(r));
            return r;
        }
        size_t host_n = strcspn(address, ":");
        bool ours =
            t->self ? strcmp(address, t->self) == 0 : strlen(host) == host_n && memcmp(address, host, host_n) == 0;
        if (ours)
            *ret_node = id;
    }
    uint32_t marked = 0, listed = 0;
    for (uint32_t i = 0; i < conf->count; i++)
        marked += conf->members[i].journal_only;
    for (const char *p = t->journal_only; p && *p; p += strcspn(p, ","), p += *p == ',')
        listed++;
    if (marked != listed) {
        tool_complain(t, "--journal-only %s: one of these is none of --peers", t->journal_only);
        return -EINVAL;
    }
    if (raft_conf_check(conf) < 0) {
        tool_complain(t, "at least one of --peers keeps the namespace: not all can be --journal-only");
        return -EINVAL;
    }
    if (*ret_node == 0) {
        tool_complain(t, "which of --peers is this host? '%s' is none of them: say --self host:port",
                      t->self ? t->self : host);
        return -EINVAL;
    }
    return 0;
}

/* What join would make is here. */
static bool joined_already(const struct tool *t, struct uuid cluster)
{
    struct journal_store *s cleanup(journal_store_free_p) = NULL;
    struct journal_store_options options = {.read_only = true, .no_check = true};
    char node[17], id[UUID_STRING];
    if (journal_store_open(t->dir, &options, NULL, &s) < 0 || !tool_waits(t, journal_store_state(s), cluster))
        return false;
    printf("%s: node %s of cluster %s, waiting to be added already: nothing was changed\n", t->dir,
           journal_node_text(journal_store_state(s)->node, node), uuid_format(cluster, id));
    return true;
}

int tool_format(struct tool *t)
{
    bool join = strcmp(t->command, "join") == 0;
    struct journal_format format = {.node = 0};
    if (!t->cluster) {
        tool_complain(t, "--cluster UUID says which cluster this log belongs to (%s)",
                      join ? "cv raft status shows it" : "--cluster new: make one up");
        return TOOL_USAGE;
    }
    if (strcmp(t->cluster, "new") == 0 && !join)
        format.cluster = uuid_new();
    else if (uuid_parse(t->cluster, &format.cluster) < 0) {
        tool_complain(t, "'%s' is not a UUID", t->cluster);
        return TOOL_USAGE;
    }
    if (!join && t->single == (t->peers != NULL)) {
        tool_complain(t, "say either --single, or --peers a:8996,b:8996,c:8996 with the same list on each of them. "
                         "A new member of a cluster that exists: cv-journal join");
        return TOOL_USAGE;
    }
    struct raft_conf conf = {.count = 0};
    uint8_t encoded[RAFT_CONF_ENCODED_MAX];
    struct buf why cleanup(buf_fini) = {0};
    int r = 0;
    if (!join) {
        r = t->single ? single_conf(t, &conf, &format.node) : peers_conf(t, format.cluster, &conf, &format.node);
        if (r < 0 && t->single)
            tool_complain(t, "--self '%s': expected host:port, where others will reach it", t->self ? t->self : "");
        if (r < 0)
            return TOOL_USAGE;
        format.conf = encoded;
        format.conf_size = (uint32_t)raft_conf_encode(&conf, encoded);
        format.behind = t->behind;
    } else {
        format.node = random_u64();
    }
    format.incarnation = (uint32_t)t->incarnation;
    r = journal_store_format(t->dir, &format, &why);
    if (r == -CV_ALREADY_FORMATTED) {
        if (join && joined_already(t, format.cluster))
            return TOOL_OK;
        (void)buf_printf(&why, ". To throw it away and be a new member: cv-journal rejoin");
    }
    if (r < 0)
        return tool_failed(t, r, &why);
    char node[17], cluster[UUID_STRING];
    printf("formatted %s: node %s of cluster %s, %s\n", t->dir, journal_node_text(format.node, node),
           uuid_format(format.cluster, cluster),
           join              ? "waiting to be added (cv raft add)"
           : conf.count == 1 ? "the only voter"
                             : "one of several voters");
    return TOOL_OK;
}
