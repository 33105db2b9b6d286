/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Object keys as path names and back. Most keys are path names: components separated by '/', and stay as they are. What
 * cannot be a name in a file system is escaped component by component, reversibly:
 *
 *      component of the key                     name in the namespace
 *      "" (in "a//b", "/a", a marker "a/")      %~
 *      "."  and ".."                            %~.   %~..
 *      begins with "%~"                         %~% and the component
 *      over 255 bytes                           pieces, as directories: %~>first240bytes / rest (again at most 255)
 *      an object "a" beside objects "a/..."     %~=a   (the directory keeps the name)
 *
 * Nothing else begins with "%~", so every name has exactly one key.
 */
#pragma once

#include "base/text.h"

/* Append the path (components separated by '/') for a key. beside: the key is also the prefix of others ("a" beside
 * "a/b"). A final '/' of the key (a directory marker) is a component of its own: "a/" is the file "a/%~".
 * Errors: -ENOMEM; -EILSEQ the key holds a zero byte, or is empty. */
int ufs_key_to_path(struct text key, bool beside, struct buf *path);

/* The inverse. Errors: -ENOMEM; -EINVAL a malformed escape: such a name cannot exist in the store. */
int ufs_path_to_key(struct text path, struct buf *key);
