/* SPDX-License-Identifier: Apache-2.0 */
/* Permissions and owners as people write and read them. */
#pragma once

#include <stddef.h>
#include <stdint.h>

/* "644", "u+x,go-w", "a=rX" applied to mode (directory: X counts) under umask. Errors: -EINVAL. */
int mode_parse(const char *s, uint32_t mode, uint32_t umask, uint32_t *ret);

/* "drwxr-sr-t" */
char *mode_format(uint32_t mode, char out[11]);

/* "user:group", "user", ":group", numbers; UINT32_MAX: keep. why: in words. Errors: -EINVAL. */
int owner_parse(const char *s, uint32_t *ret_uid, uint32_t *ret_gid, char *why, size_t size);

/* Name of a user or group, or its number. */
char *user_format(uint32_t uid, char *out, size_t size);
char *group_format(uint32_t gid, char *out, size_t size);

const char *type_name(uint32_t mode); /* "file", "directory", "symlink", ... */
