/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The namespace's end of importing: takes batches of names to the scribe like any other request, and asks where a directory
 * lies. Lives on the loop of master_ufs.h, which is one more home of the scribe.
 */
#pragma once

#include "meta/master_core.h"
#include "meta/master_import.h"
#include "meta/master_scribe.h"

struct master_import_core; /* opaque */

/* Before the scribe runs. Errors: -ENOMEM; -ENOSPC too many homes. */
int master_import_core_new(struct master_core *core, struct master_scribe *scribe, struct loop *loop,
                           struct master_import_core **ret);
struct master_import_core *master_import_core_free(struct master_import_core *c); /* nothing is with it. NULL is fine */
DEFINE_CLEANUP(struct master_import_core *, master_import_core_free)

struct master_import_sink master_import_core_sink(struct master_import_core *c);
