/* SPDX-License-Identifier: Apache-2.0 */
/* What commands say: results to stdout, what failed to stderr, and the exit status that goes with it. */
#include <errno.h>
#include <stdarg.h>
#include <stdio.h>

#include "base/error.h"
#include "cli/cli.h"

static bool nobody_answers(int r)
{
    return r == -CV_UNREACHABLE || r == -CV_CLOSED || r == -ECONNREFUSED || r == -EHOSTUNREACH || r == -ENETUNREACH;
}

int cli_fail(struct cli *cli, int r, const char *hint, const char *format, ...)
{
    va_list args;
    fprintf(stderr, "cv%s%s: ", cli->command ? " " : "", cli->command ? cli->command->name : "");
    va_start(args, format);
    vfprintf(stderr, format, args);
    va_end(args);
    fprintf(stderr, ": %s (%s)\n", cv_error_text(r), cv_error_name(r));
    if (hint)
        fprintf(stderr, "  try: %s\n", hint);
    return nobody_answers(r) ? CLI_UNREACHABLE : CLI_FAILED;
}

/* The status of having written to stdout, r saying how that went. */
static int written(struct cli *cli, int r)
{
    if (r == -EPIPE) { /* "| head" has seen enough */
        clearerr(stdout);
        return CLI_OK;
    }
    return r < 0 ? cli_fail(cli, r, NULL, "print") : CLI_OK;
}

int cli_print(struct cli *cli, struct out *o)
{
    int r = out_print(o, stdout, cli->form, cli->colour);
    out_free(o);
    return written(cli, r);
}

int cli_printed(struct cli *cli, int r)
{
    errno = 0;
    if (r == 0 && fflush(stdout) != 0)
        r = errno ? -errno : -EIO;
    return written(cli, r);
}

int cli_write(struct cli *cli, const struct buf *text)
{
    errno = 0;
    bool good = fwrite(text->p, 1, text->n, stdout) == text->n && fflush(stdout) == 0;
    return written(cli, good ? 0 : errno ? -errno : -EIO);
}
