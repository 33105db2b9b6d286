/* SPDX-License-Identifier: Apache-2.0 */
/* A database in memory under the log store: see sim_rocksdb.c. What was written is what a crash leaves. */
#pragma once

struct rocksdb_t;

struct rocksdb_t *fake_db_new(void);
struct rocksdb_t *fake_db_free(struct rocksdb_t *d);

/* The one that journal_db_open() of this thread opens. */
extern _Thread_local struct rocksdb_t *fake_db_opening;
