/* SPDX-License-Identifier: Apache-2.0 */
/* What commands that talk to the cluster share: the connection, and namespace paths. */
#pragma once

#include "cli/cli.h"
#include "client/curvine.h"
#include "wire/message.h"

static inline void curvine_closep(struct curvine **cv)
{
    curvine_close(*cv);
}

/* Open a session as the configuration says. Returns CLI_OK, or reports and returns the status to exit with. */
int cli_connect(struct cli *cli, struct curvine **ret);

/* What to try when no master answers: how the cluster is started that this command was to talk to. */
const char *cli_start_hint(struct cli *cli);

/* The namespace path of an argument ":/x". Returns CLI_OK, or reports what is wrong with it. */
int cli_path(struct cli *cli, const char *argument, const char **ret);

/* The namespace path of ":/x" or of a local path below a mount of ours. Returns CLI_OK, or reports what is wrong. */
int cli_any_path(struct cli *cli, const char *argument, char *out, size_t size);

/* Of a command with one namespace path as its only argument: that path, and a session. Returns CLI_OK, or reports. */
int cli_connect_path(struct cli *cli, int argc, char **argv, const char **ret_path, struct curvine **ret);

/* Report a failed operation on a path. Returns the status. */
int cli_fail_path(struct cli *cli, int r, const char *what, const char *path);

/* Who asks, for messages of client_ask() that go by permissions: this process's effective ids. */
struct rec_op_head cli_head(void);

/* What is attached; the list borrows from *body. Errors: of client_ask(). */
int cli_mount_list(struct curvine *cv, struct buf *body, struct msg_mount_list_answer *ret);
