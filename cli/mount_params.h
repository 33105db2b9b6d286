/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Parameters of an under file system as a person gives them: --param NAME=VALUE, a file of such lines, and for s3:// what
 * the usual tools take from the environment (AWS_*). Names are those of ufs/ufs_params.def. Values of secrets are never
 * printed, and wiped when freed.
 */
#pragma once

#include <stdbool.h>
#include <stdint.h>

#include "base/text.h"

#define MOUNT_PARAMS_MAX 32

struct mount_params {
    char *name[MOUNT_PARAMS_MAX], *value[MOUNT_PARAMS_MAX];
    const char *from[MOUNT_PARAMS_MAX]; /* "--param", a file's name, "AWS_REGION": borrowed */
    uint32_t n;
};

void mount_params_fini(struct mount_params *p);

/* Each returns 0 or -EINVAL with the reason in why; of two for one name the first given counts. scheme: "s3". */
int mount_params_add(struct mount_params *p, const char *scheme, const char *setting, const char *from, char *why,
                     size_t size);
int mount_params_read(struct mount_params *p, const char *scheme, const char *file, char *why, size_t size);
void mount_params_environment(struct mount_params *p, const char *scheme);

/* Check a URI: the scheme is one this version knows, something is behind it. "s3" goes to scheme. */
int mount_uri_check(const char *uri, char *scheme, size_t scheme_size, char *why, size_t size);

/* A name for the mount from the URI: its last path component, or the bucket: "s3://bucket/a/b/" is "b". -EINVAL: none. */
int mount_uri_name(const char *uri, char *out, size_t size);
