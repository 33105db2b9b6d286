/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What the snapshots of a journal stand on (driver, link, peers, log), made of nothing: for tests and noise that drive
 * raft/journal_snapshot*.c alone, without RocksDB. Include it once in a program; its functions take the place of the real
 * ones. Dialing always fails: connections are given with journal_snapshots_accept().
 */
#pragma once

#include <errno.h>
#include <inttypes.h>
#include <stdatomic.h>
#include <stdio.h>

#include "raft/journal_snapshot_internal.h"
#include "raft/journal_status.h"

static struct {
    char directory[256];   /* the master's; empty: none is attached */
    _Atomic int failed;    /* told to the core: this snapshot will not do */
    _Atomic int installs;  /* asked for: the log switches */
    _Atomic int taken;     /* told to the master */
    char name[64];         /* of the state installed last */
    uint64_t index, chain; /* of the same */
    struct journal_view view;
    struct raft_conf conf; /* count 0: none */
} seam;

int journal_link_directory(const struct journal_link *l, const char **ret_directory, const char **ret_state)
{
    if (!seam.directory[0])
        return -ENOENT;
    *ret_directory = seam.directory;
    *ret_state = "rows";
    return 0;
}

int journal_link_checkpoint(struct journal_link *l, uint64_t context, uint64_t index)
{
    return -ENOENT;
}

void journal_link_installed(struct journal_link *l)
{
    seam.taken++;
}

const struct raft_conf *journal_driver_conf(const struct journal_driver *d)
{
    return seam.conf.count ? &seam.conf : NULL;
}

const struct journal_view *journal_driver_view(const struct journal_driver *d)
{
    return &seam.view;
}

const struct raft *journal_driver_raft(const struct journal_driver *d)
{
    return NULL;
}

struct journal_store *journal_driver_store(struct journal_driver *d)
{
    return NULL;
}

int journal_store_chain(const struct journal_store *s, uint64_t index, uint64_t *ret)
{
    return -ENOENT;
}

int journal_driver_snapshot_ready(struct journal_driver *d, uint64_t peer, uint64_t source, uint64_t index)
{
    return 0;
}

int journal_driver_snapshot_failed(struct journal_driver *d, uint64_t peer)
{
    seam.failed++;
    return 0;
}

int journal_driver_install(struct journal_driver *d, const struct journal_install *install,
                           const struct raft_conf *conf)
{
    snprintf(seam.name, sizeof(seam.name), "%s", install->directory);
    seam.index = install->index;
    seam.chain = install->chain;
    seam.installs++;
    return 0;
}

uint64_t journal_driver_installed(const struct journal_driver *d, const char **ret_directory)
{
    *ret_directory = "";
    return 0;
}

int journal_peers_dial(struct journal_peers *p, uint64_t node, enum peer_channel channel, struct journal_dial *d)
{
    return -CV_UNREACHABLE;
}

void journal_dial_start(struct journal_dial *d)
{
}

void journal_dial_stop(struct journal_dial *d)
{
}

char *journal_node_text(uint64_t node, char out[17])
{
    snprintf(out, 17, "%016" PRIx64, node);
    return out;
}
