/* SPDX-License-Identifier: Apache-2.0 */
/*
 * cv-fuse :/PATH MOUNTPOINT. Its threads:
 *
 *      cv-fuse      main: signals, watchdog, mounting and unmounting
 *      fuse0..      each reads requests of the kernel and answers what can be answered at once
 *      curvine      the client library's loop: everything that asks the cluster; answers leave from there too
 *      interrupts   ends requests whose caller was killed
 *      file threads of the loop, one of the HTTP port
 */
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>

#include "base/error.h"
#include "base/log.h"
#include "bin/healthy.h"
#include "bin/sections.h"
#include "conf/daemon.h"
#include "fuse/cvfs.h"
#include "fuse/cvfs_mount.h"

#define CONNECT_WAIT_MS 10000

static void has_ended(void *arg, int error)
{
    if (error < 0) {
        log_error(error, "the mount is broken");
        daemon_fail(arg);
    } else {
        log_info("unmounted");
        daemon_stop(arg);
    }
}

static const struct option_section *const own_sections[] = {&cluster_section, &cvfs_section, &client_section,
                                                            &log_section, NULL};

static const struct daemon_program program = {
    .name = "cv-fuse",
    .summary = "a directory of the namespace mounted on this host",
    .sections = curvine_sections,
    .own = own_sections,
    .healthy = loops_turn,
    .arguments = ":/PATH MOUNTPOINT",
};

/* ":/data" is the namespace's, what has no colon in front is local. */
static int check_arguments(char **arguments)
{
    if (!arguments[0] || !arguments[1] || arguments[2]) {
        fprintf(stderr, "usage: cv-fuse [OPTIONS] :/PATH MOUNTPOINT\n");
        return DAEMON_USAGE;
    }
    if (strncmp(arguments[0], ":/", 2) != 0) {
        fprintf(stderr, "cv-fuse: paths of the namespace begin with a colon and a slash: ':/data', not '%s'\n",
                arguments[0]);
        return DAEMON_USAGE;
    }
    if (arguments[1][0] == ':') {
        fprintf(stderr, "cv-fuse: the mount point is a local directory, without a colon: '%s'\n", arguments[1]);
        return DAEMON_USAGE;
    }
    return DAEMON_OK;
}

/* Cluster addresses as the library wants them: one text. */
static int join_masters(const struct option_list *masters, struct buf *out)
{
    int r = 0;
    for (uint32_t i = 0; r == 0 && i < masters->n; i++)
        r = buf_printf(out, "%s%s", i ? "," : "", masters->items[i]);
    return r < 0 ? r : buf_append(out, "", 1);
}

static int connect_cluster(const struct config *config, const char *point, struct curvine **ret)
{
    struct buf masters cleanup(buf_fini) = {0};
    int r = join_masters(&config_options(config, cluster)->masters, &masters);
    if (r < 0)
        return log_error(r, "connect");
    struct curvine_options o = {
        .masters = (const char *)masters.p,
        .timeout_ms = CONNECT_WAIT_MS,
        .program = "cv-fuse",
        .mount_point = point,
        .memory_bytes = config_options(config, client)->memory_bytes,
    };
    r = curvine_open(&o, ret);
    return r < 0 ? log_error(r, "no master answers at %s", o.masters) : 0;
}

static int find_root(struct curvine *cv, const char *path, uint64_t *ret)
{
    struct curvine_attr attr;
    int r = curvine_resolve(cv, path, CURVINE_FOLLOW, ret, &attr);
    if (r == 0 && !S_ISDIR(attr.mode))
        r = -ENOTDIR;
    return r < 0 ? log_error(r, "':%s'", path) : 0;
}

static void close_client(struct curvine **cv)
{
    curvine_close(*cv);
}

int main(int argc, char **argv)
{
    struct daemon *d cleanup(daemon_free_p) = NULL;
    int status = daemon_new(&program, argc, argv, &d);
    if (!d)
        return status;
    char **arguments = daemon_arguments(d);
    status = check_arguments(arguments);
    if (status != DAEMON_OK)
        return status;
    const struct cvfs_options *o = config_options(daemon_config(d), cvfs);
    const char *path = arguments[0] + 1, *point = arguments[1];
    struct cvfs_mount_options mount = {.path = path,
                                       .point = point,
                                       .allow_other = o->allow_other,
                                       .read_only = o->read_only,
                                       .nonempty = o->nonempty};
    struct curvine *cv cleanup(close_client) = NULL;
    struct cvfs_mount *m cleanup(cvfs_mount_free_p) = NULL;
    struct cvfs *fs cleanup(cvfs_free_p) = NULL;
    struct cvfs_config config = {.options = o, .metrics = daemon_metrics(d), .ended = has_ended, .arg = d};
    if (cvfs_mount_check(&mount) < 0 || connect_cluster(daemon_config(d), point, &cv) < 0 ||
        find_root(cv, path, &config.root) < 0 || cvfs_mount_new(&mount, &m) < 0)
        return DAEMON_FAILED;
    config.client = cv;
    config.fd = cvfs_mount_fd(m);
    int r = cvfs_new(&config, &fs);
    if (r < 0) {
        log_error(r, "start");
        return DAEMON_FAILED;
    }
    if (cvfs_start(fs) == 0 && daemon_http(d, o->http_listen, o->http_port) == 0) {
        log_info("curvine:%s is mounted at '%s'", path, point);
        status = daemon_run(d);
    } else {
        status = DAEMON_FAILED;
    }
    cvfs_mount_detach(m);
    cvfs_stop(fs);
    return status;
}
