/* SPDX-License-Identifier: Apache-2.0 */
/* Inside libcurvine: open files. */
#pragma once

#include "client/client_internal.h"

struct curvine_file {
    struct curvine *cv;
    uint64_t inode, handle, size;
    int flags;
};

/* On the loop: the answer of an OPEN or CREATE has come: make its file. Errors: -ENOMEM. */
int client_file_new(struct curvine *cv, struct curvine_request *q);

/* On the loop: its RELEASE is over. */
void client_file_free(struct curvine_file *file);
