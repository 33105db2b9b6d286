/* SPDX-License-Identifier: Apache-2.0 */
#include "base/random.h"

#include <errno.h>
#include <sys/random.h>

#include "base/log.h"

uint64_t random_u64(void)
{
    uint64_t x = 0;
    while (x == 0) {
        ssize_t n = getrandom(&x, sizeof(x), 0);
        if (n < 0 && errno != EINTR)
            log_fatal(-errno, "getrandom");
        if (n != (ssize_t)sizeof(x))
            x = 0;
    }
    return x;
}
