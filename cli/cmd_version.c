/* SPDX-License-Identifier: Apache-2.0 */
#include "cli/cli.h"

#ifndef __has_feature /* clang's way to tell */
#define __has_feature(x) 0
#endif
#if defined(__SANITIZE_ADDRESS__) || defined(__SANITIZE_THREAD__) || __has_feature(address_sanitizer) ||               \
    __has_feature(thread_sanitizer)
#define CHECKED true
#else
#define CHECKED false
#endif

int cmd_version(struct cli *cli, int argc, char **argv)
{
    static const struct out_column columns[] = {
        {"version", OUT_TEXT},
        {"compiler", OUT_TEXT},
        {"checked", OUT_BOOL}, /* built with sanitizers: slow, not for production */
    };
    if (cli_option(cli, argc, argv, "", NULL) != -1)
        return cli_option_status();
    if (argv[optind])
        return cli_usage(cli, "takes no arguments");
#ifdef __clang__
    const char *compiler = "clang " __clang_version__;
#else
    const char *compiler = "gcc " __VERSION__;
#endif
    struct out *o = out_record(columns, array_size(columns));
    out_text(o, CV_VERSION);
    out_text(o, compiler);
    out_number(o, CHECKED);
    return cli_print(cli, o);
}
