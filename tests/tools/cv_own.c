/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Give the root directory of a namespace to who runs this: it is root's, and tests run as anybody. Who runs the masters may speak
 * for root there. Waits until a master answers; nothing to do for root.
 *
 *      cv-own MASTERS        HOST:PORT,... or unix:PATH
 */
#include <stdio.h>
#include <unistd.h>

#include "client/curvine.h"

int main(int argc, char **argv)
{
    static const struct curvine_caller root = {0};
    struct curvine *cv;
    if (argc != 2)
        return 2;
    if (geteuid() == 0)
        return 0;
    int r = curvine_open(&(struct curvine_options){.masters = argv[1], .program = "cv-own"}, &cv);
    if (r == 0) {
        struct curvine_request q = {.op = CURVINE_SETATTR,
                                    .caller = &root,
                                    .inode = CURVINE_ROOT,
                                    .valid = CURVINE_SET_UID | CURVINE_SET_GID,
                                    .uid = geteuid(),
                                    .gid = getegid()};
        r = curvine_run(cv, &q);
        curvine_request_free(&q);
        curvine_close(cv);
    }
    if (r < 0)
        fprintf(stderr, "cv-own: %s: %s\n", argv[1], curvine_strerror(r));
    return r < 0;
}
