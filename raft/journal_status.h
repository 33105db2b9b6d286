/* SPDX-License-Identifier: Apache-2.0 */
/* The state of a voter as JSON, for cv raft status and the page /status. */
#pragma once

#include "base/text.h"
#include "raft/raft.h"

/* "leader"; "unknown". Static storage. */
const char *journal_role_name(uint8_t role);

/* "batch"; "unknown". Static storage. */
const char *journal_entry_type_name(uint8_t type);

/* "0123456789abcdef" into out; returns out. Nodes are shown like this everywhere. */
char *journal_node_text(uint64_t node, char out[17]);

/* Append one JSON object without its final brace: others add to it. Errors: -ENOMEM. */
int journal_status_write(const struct raft *raft, uint64_t now_ms, struct buf *out);

/* Append a configuration as a JSON array of members. */
int journal_conf_write(const struct raft_conf *conf, struct buf *out);
