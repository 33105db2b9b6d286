/* SPDX-License-Identifier: Apache-2.0 */
#include "cli/host.h"

#include <dirent.h>
#include <errno.h>
#include <stdio.h>
#include <string.h>

#include "base/error.h"
#include "cli/process.h"
#include "conf/dir_lock.h"

/* "[SSD:10GiB]/data" is /data. */
static const char *without_kind(const char *dir)
{
    const char *end = dir[0] == '[' ? strchr(dir, ']') : NULL;
    return end ? end + 1 : dir;
}

static int find_dir(const struct config *config, const char *section, const char *key, char *out, size_t size)
{
    struct option_ref ref;
    char why[OPTION_MESSAGE_MAX];
    int r = config_find(config_sections(config), text_of(section), text_of(key), &ref, why);
    if (r < 0)
        return r;
    const char *value = (const char *)config_values(config, ref.section) + ref.option->offset;
    const char *dir = ref.option->type == OPTION_LIST ? ((const struct option_list *)(const void *)value)->items[0]
                                                      : *(char *const *)(const void *)value;
    return snprintf(out, size, "%s", without_kind(dir)) < (int)size ? 0 : -ENAMETOOLONG;
}

static enum host_state look_into(const char *dir)
{
    DIR *d = opendir(dir);
    if (!d)
        return errno == ENOENT ? HOST_UNFORMATTED : HOST_HIDDEN;
    bool empty = true;
    for (struct dirent *e; empty && (e = readdir(d));)
        empty = strcmp(e->d_name, ".") == 0 || strcmp(e->d_name, "..") == 0 || strcmp(e->d_name, "lock") == 0;
    closedir(d);
    if (empty)
        return HOST_UNFORMATTED;
    int fd cleanup(closep) = -1;
    pid_t holder = 0;
    int r = dir_lock(dir, &fd, &holder);
    return r == 0 ? HOST_STOPPED : r == -CV_LOCKED ? HOST_RUNNING : HOST_HIDDEN;
}

int host_look(struct cli *cli, struct host_daemon ret[HOST_DAEMONS])
{
    static const struct {
        const char *name, *program, *key;
    } known[HOST_DAEMONS] = {
        {"journal", "cv-journal", "dir"}, {"master", "cv-master", "dir"}, {"worker", "cv-worker", "dirs"}};
    const struct config *config;
    if (cli_config(cli, &config) < 0)
        return CLI_USAGE;
    for (size_t i = 0; i < HOST_DAEMONS; i++) {
        char path[4096];
        ret[i] = (struct host_daemon){.name = known[i].name, .program = known[i].program};
        process_path(known[i].program, path, sizeof(path));
        if (find_dir(config, known[i].name, known[i].key, ret[i].dir, sizeof(ret[i].dir)) == 0 && path[0] == '/')
            ret[i].state = look_into(ret[i].dir);
    }
    return CLI_OK;
}

const char *host_state_name(enum host_state state)
{
    static const char *const names[] = {[HOST_ABSENT] = "not installed",
                                        [HOST_UNFORMATTED] = "not formatted",
                                        [HOST_STOPPED] = "formatted, does not run",
                                        [HOST_RUNNING] = "runs",
                                        [HOST_HIDDEN] = "cannot be looked at (be root)"};
    return names[state];
}

bool host_is_one(const struct cli *cli, const struct host_daemon daemons[HOST_DAEMONS])
{
    bool any = false;
    for (size_t i = 0; i < HOST_DAEMONS; i++)
        any |= daemons[i].state != HOST_ABSENT;
    return any && !cli->masters && !cli->dir;
}

void host_advise(const struct host_daemon daemons[HOST_DAEMONS])
{
    bool unformatted = false, hidden = false, stopped = false, runs = false;
    fprintf(stderr, "  on this host:\n");
    for (size_t i = 0; i < HOST_DAEMONS; i++) {
        enum host_state s = daemons[i].state;
        if (s == HOST_ABSENT)
            continue;
        fprintf(stderr, "    %-10s  %s: %s\n", daemons[i].program, daemons[i].dir, host_state_name(s));
        unformatted |= s == HOST_UNFORMATTED;
        stopped |= s == HOST_STOPPED;
        hidden |= s == HOST_HIDDEN;
        runs |= s == HOST_RUNNING;
    }
    if (unformatted) {
        fprintf(stderr, "  next: cv cluster init%s\n",
                stopped || runs ? ""
                                : " --single                (this host alone)\n"
                                  "     or: cv cluster init --peers A:8996,B:8996,C:8996   (the same on each of them)");
    } else if (stopped) {
        fprintf(stderr, "  next: systemctl enable --now curvine.target");
        for (size_t i = 0; i < HOST_DAEMONS; i++)
            if (daemons[i].state == HOST_STOPPED)
                fprintf(stderr, " %s", daemons[i].program);
        fprintf(stderr, "\n  if one ends again: journalctl -u %s -n 20\n", daemons[0].program);
    } else if (hidden) {
        fprintf(stderr, "  next: sudo cv cluster status\n");
    } else {
        fprintf(stderr, "  next: journalctl -u cv-journal -u cv-master -n 20\n");
    }
}
