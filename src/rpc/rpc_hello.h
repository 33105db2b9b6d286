/* SPDX-License-Identifier: Apache-2.0 */
/*
 * HELLO: who we are, said by both ends before anything else. A connection between two clusters, incarnations or versions
 * that do not fit is refused with a reason in words.
 */
#pragma once

#include <stdint.h>

#include "wire/message.h"

#define RPC_VERSION_MIN 1
#define RPC_VERSION_MAX 1

enum rpc_role { RPC_CLIENT = 1, RPC_MASTER = 2, RPC_JOURNAL = 3, RPC_WORKER = 4, RPC_FUSE = 5 };

/* What one end says of itself. Texts are borrowed for as long as the server or client lives. */
struct rpc_self {
    enum rpc_role role;
    uint64_t node;        /* 0: none */
    uint8_t cluster[16];  /* all zero: not known (yet), fits every cluster */
    uint32_t incarnation; /* 0: not known */
    const char *program;  /* "cv-master 0.1.0" */
};

/* Does what a client said fit? Returns 0 with the version to speak in answer->version, or the code to refuse with, and
 * answer->reason (static text). -CV_WRONG_CLUSTER, -CV_WRONG_INCARNATION, -EPROTONOSUPPORT. */
int rpc_hello_check(const struct rpc_self *self, const struct msg_hello *hello, struct msg_hello_answer *answer);

/* The client's view of an answer. Errors as above. */
int rpc_hello_accept(const struct rpc_self *self, const struct msg_hello_answer *answer);

void rpc_hello_fill(const struct rpc_self *self, struct msg_hello *ret);
