/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The log store (raft/journal_store.h, the very object files) beside a machine's simulated disk: in seeds with
 * params.store it is given each unit that reaches the disk, opens anew with each start of the journal, and must then
 * say of the log exactly what the disk says: hard state, ends, terms, configurations, every entry, its chain. Under it
 * lies sim_rocksdb.c in RocksDB's place, and real files for lock and durable.mark, in a directory of the run.
 */
#pragma once

#include <stdbool.h>

struct node;
struct disk_unit;
struct world;
struct store;

/* The unit is durable. */
void store_take(struct node *n, const struct disk_unit *u);

/* The journal starts, stops. */
void store_start(struct node *n);
void store_stop(struct node *n);

/* While the journal runs. */
struct journal_store;
struct journal_store *store_open(struct node *n);

/* All of a world: before its memory goes; the directory too. */
void store_clear(struct world *w, bool directory);
