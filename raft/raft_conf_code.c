/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Configurations as values: finding and replacing members, and the bytes of a CONF entry:
 *
 *   u8 version (1), u8 members, u16 reserved (0), then each member in ascending order of id:
 *   u64 id, u8 role, u8 journal_only, u8 priority, u8 length and bytes of raft_address, the same of client_address
 *
 * The decoder is exact: it reads what an encoder wrote and nothing else, because every voter acts on it at once.
 */
#include "base/bytes.h"
#include "raft/raft_state.h"

#include <errno.h>

enum { CONF_VERSION = 1, CONF_HEADER = 4, MEMBER_FIXED = 12 };

const struct raft_member *raft_conf_find(const struct raft_conf *conf, uint64_t id)
{
    for (uint32_t i = 0; i < conf->count; i++)
        if (conf->members[i].id == id)
            return &conf->members[i];
    return NULL;
}

uint32_t raft_conf_voters(const struct raft_conf *conf)
{
    uint32_t n = 0;
    for (uint32_t i = 0; i < conf->count; i++)
        n += raft_votes(&conf->members[i]);
    return n;
}

int raft_conf_put(struct raft_conf *conf, const struct raft_member *member)
{
    uint32_t i = 0;
    while (i < conf->count && conf->members[i].id < member->id)
        i++;
    if (i < conf->count && conf->members[i].id == member->id) {
        conf->members[i] = *member;
        return 0;
    }
    if (conf->count == RAFT_MEMBERS_MAX)
        return -ENOSPC;
    memmove(&conf->members[i + 1], &conf->members[i], (conf->count - i) * sizeof(conf->members[0]));
    conf->members[i] = *member;
    conf->count++;
    return 0;
}

int raft_conf_check(const struct raft_conf *conf)
{
    uint32_t full_voters = 0;
    uint64_t before = 0;
    if (conf->count > RAFT_MEMBERS_MAX)
        return -EINVAL;
    for (uint32_t i = 0; i < conf->count; i++) {
        const struct raft_member *m = &conf->members[i];
        if (m->id <= before || (m->role != RAFT_VOTER && m->role != RAFT_LEARNER) || m->journal_only > 1 ||
            !memchr(m->raft_address, 0, RAFT_ADDRESS_SIZE) || !memchr(m->client_address, 0, RAFT_ADDRESS_SIZE))
            return -EINVAL;
        before = m->id;
        full_voters += raft_votes(m) && !m->journal_only;
    }
    return full_voters ? 0 : -EINVAL;
}

static uint8_t *put_address(uint8_t *p, const char *address)
{
    size_t n = strnlen(address, RAFT_ADDRESS_SIZE - 1);
    *p++ = (uint8_t)n;
    memcpy(p, address, n);
    return p + n;
}

size_t raft_conf_encode(const struct raft_conf *conf, uint8_t out[RAFT_CONF_ENCODED_MAX])
{
    uint8_t *p = out;
    *p++ = CONF_VERSION;
    *p++ = (uint8_t)conf->count;
    *p++ = 0;
    *p++ = 0;
    for (uint32_t i = 0; i < conf->count; i++) {
        const struct raft_member *m = &conf->members[i];
        put_le64(p, m->id);
        p[8] = m->role;
        p[9] = m->journal_only;
        p[10] = m->priority;
        p = put_address(p + 11, m->raft_address);
        p = put_address(p, m->client_address);
    }
    return (size_t)(p - out);
}

/* Returns what follows the address, or NULL. */
static const uint8_t *get_address(const uint8_t *p, const uint8_t *end, char out[RAFT_ADDRESS_SIZE])
{
    if (p == end || *p >= RAFT_ADDRESS_SIZE || end - p - 1 < *p)
        return NULL;
    size_t n = *p++;
    if (memchr(p, 0, n))
        return NULL;
    memset(out, 0, RAFT_ADDRESS_SIZE);
    memcpy(out, p, n);
    return p + n;
}

int raft_conf_decode(const uint8_t *p, size_t n, struct raft_conf *ret)
{
    const uint8_t *end = p + n;
    struct raft_conf conf;
    memset(&conf, 0, sizeof(conf));
    if (n < CONF_HEADER)
        return -CV_BAD_FORMAT;
    if (p[0] > CONF_VERSION)
        return -CV_FORMAT_TOO_NEW;
    if (p[0] != CONF_VERSION || p[1] > RAFT_MEMBERS_MAX || p[2] || p[3])
        return -CV_BAD_FORMAT;
    conf.count = p[1];
    p += CONF_HEADER;
    for (uint32_t i = 0; i < conf.count; i++) {
        struct raft_member *m = &conf.members[i];
        if (end - p < MEMBER_FIXED)
            return -CV_BAD_FORMAT;
        m->id = get_le64(p);
        m->role = p[8];
        m->journal_only = p[9];
        m->priority = p[10];
        p = get_address(p + 11, end, m->raft_address);
        if (p)
            p = get_address(p, end, m->client_address);
        if (!p)
            return -CV_BAD_FORMAT;
    }
    if (p != end || raft_conf_check(&conf) < 0)
        return -CV_BAD_FORMAT;
    *ret = conf;
    return 0;
}
