/* SPDX-License-Identifier: Apache-2.0 */
/* The sections every program reads: "cluster" and "log". */
#pragma once

#include "base/log.h"
#include "conf/options.h"

/* The values of enum loop_backend, which conf does not see: bin/sections.h holds them together. */
enum io_choice { IO_AUTO, IO_URING, IO_EPOLL };

#define OPTIONS_DEF "conf/cluster_options.def"
struct cluster_options {
#include "conf/option_fields.h"
};
extern const struct option_section cluster_section;

#define OPTIONS_DEF "conf/log_options.def"
struct log_options {
#include "conf/option_fields.h"
};
extern const struct option_section log_section;
