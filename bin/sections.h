/* SPDX-License-Identifier: Apache-2.0 */
/* All sections of curvine.yaml, in the order people read them. Every program knows all of them (conf/config.h). */
#pragma once

#include "client/client_options.h"
#include "conf/common_options.h"
#include "fuse/cvfs_options.h"
#include "io/loop.h"
#include "meta/master_options.h"
#include "raft/journal_options.h"
#include "worker/worker_options.h"

/* conf does not see io: the values of cluster.io are those of enum loop_backend. */
_Static_assert((int)IO_AUTO == (int)LOOP_AUTO && (int)IO_URING == (int)LOOP_URING && (int)IO_EPOLL == (int)LOOP_EPOLL,
               "cluster.io and enum loop_backend differ");

static const struct option_section *const curvine_sections[] = {
    &cluster_section, &master_section, &journal_section, &worker_section,
    &cvfs_section,    &client_section, &log_section,     NULL,
};
