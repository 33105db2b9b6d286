/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Healing a directory whose index is damaged. Clean data can be fetched again, so nothing is repaired: a new index takes
 * over what the old one still says about backing files with written data (DIR/written names them), everything
 * else is forgotten and its files removed. A written file whose rows cannot be read is kept, charged and marked lost:
 * its inode answers -CV_DATA_DAMAGED. Rows that are older than they should be do no harm: what they say is there is verified, and
 * versions say what it is. Can be cut short at any point and begun again. BLOCKING.
 */
#pragma once

#include "worker/block_dir.h"
#include "worker/block_index.h"

/* Leave a note that the index is damaged: the next open heals. */
void block_heal_remember(struct block_dir *d);
bool block_heal_wanted(struct block_dir *d);

/* Heal the open (locked) directory at path. why: what was found, for the log. *ret_lost: files marked lost. */
int block_heal(const char *path, struct block_dir *d, int why, uint64_t *ret_lost);

/* The first rows of an index: whose it is, numbers from here on. */
int block_heal_first_rows(struct block_index *x, const struct block_identity *d, uint64_t file_id, uint64_t seal,
                          bool all_in_doubt);
