/* SPDX-License-Identifier: Apache-2.0 */
#include "meta/master_abort.h"

#include <signal.h>
#include <stdio.h>
#include <string.h>
#include <sys/prctl.h>
#include <unistd.h>

static char explanation[512]; /* written before the handler is set */

/* Only what may be called in a handler. abort() goes on to end the process when it returns. */
static void on_abort(int number)
{
    char thread[16] = "";
    (void)prctl(PR_GET_NAME, thread);
    if (strncmp(thread, "rocksdb:", strlen("rocksdb:")) != 0)
        return;
    ssize_t written = write(STDERR_FILENO, explanation, strlen(explanation));
    (void)written;
}

void master_abort_explain(const char *dir)
{
    snprintf(
        explanation, sizeof(explanation),
        "error: RocksDB ended the process, in a thread that writes the metadata database in %.300s: most likely its "
        "disk fails, or is full (dmesg, df); the journal has what is missing, start again when it is mended\n",
        dir);
    struct sigaction a = {.sa_handler = on_abort};
    (void)sigaction(SIGABRT, &a, NULL);
}
