/* SPDX-License-Identifier: Apache-2.0 */
#include "tests/unit/unit.h"

#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/log.h"

/* Log one line with stderr being a file of ours; returns the file's content. */
static const char *logged(const char *stream)
{
    static char line[512];
    char path[] = "/tmp/cv-log-XXXXXX";
    int fd = mkstemp(path), saved = dup(STDERR_FILENO);
    ck_assert_int_ge(fd, 0);
    unlink(path);
    setenv("JOURNAL_STREAM", stream, 1);
    dup2(fd, STDERR_FILENO);
    log_warn(0, "something to say");
    dup2(saved, STDERR_FILENO);
    ssize_t n = pread(fd, line, sizeof(line) - 1, 0);
    ck_assert_int_gt(n, 0);
    line[n] = '\0';
    close(fd);
    close(saved);
    return line;
}

TEST(a_file_gets_whole_lines_also_when_the_service_around_it_logs_to_the_journal)
{
    log_set_name("cv-test");
    const char *line = logged("1:1"); /* of the parent: not this file */
    ck_assert_msg(strstr(line, " cv-test["), "no name: %s", line);
    ck_assert_msg(strstr(line, "warn: something to say\n"), "no level: %s", line);
}
