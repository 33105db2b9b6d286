/* SPDX-License-Identifier: Apache-2.0 */
/* What daemon.c (life) and daemon_http.c (pages) share. */
#pragma once

#include <pthread.h>
#include <stdatomic.h>

#include "conf/daemon.h"

enum daemon_phase { DAEMON_STARTING, DAEMON_RUNNING, DAEMON_STOPPING };

#define DAEMON_PAGES 6

struct daemon {
    const struct daemon_program *program;
    void *arg;        /* of the program's functions */
    const char *path; /* of the configuration file; NULL: none, all defaults */
    char **sets;      /* --set; the strings are argv's */
    uint32_t n_sets;
    char **arguments;      /* in argv */
    struct config *config; /* as of the start, never changed */
    struct metrics *metrics;
    struct http *http;
    struct http_page pages[DAEMON_PAGES];
    int signal_fd, stop_fd, lock_fd;
    _Atomic bool failed; /* daemon_fail() was called */

    pthread_mutex_t lock;    /* guards what follows; held while a function of the program is called for a page */
    enum daemon_phase phase; /* the program's functions may be called: RUNNING */
    struct config *latest;   /* as of the last reload, NULL before the first */
};
