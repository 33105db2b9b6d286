/* SPDX-License-Identifier: Apache-2.0 */
/* Making the directory of a local cluster: configuration, then data formats, then the file that says that it is done. */
#include <errno.h>
#include <fcntl.h>
#include <ftw.h>
#include <netinet/in.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/file.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/statvfs.h>
#include <unistd.h>

#include "base/error.h"
#include "base/random.h"
#include "base/uuid.h"
#include "cli/local.h"
#include "cli/process.h"
#include "conf/config.h"

#define CAPACITY_MIN (256ull << 20)
#define CAPACITY_MAX (16ull << 30)
#define PORT_FIRST   15000u /* below those that the kernel gives to outgoing connections */
#define PORT_END     32000u
#define PORT_TRIES   200
#define PATH_ROOM    (LOCAL_DIR_MAX + 32)

static bool is_free(unsigned port)
{
    int fd cleanup(closep) = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
    const struct sockaddr_in a = {
        .sin_family = AF_INET, .sin_addr.s_addr = htonl(INADDR_LOOPBACK), .sin_port = htons((uint16_t)port)};
    return fd >= 0 && bind(fd, (const struct sockaddr *)&a, sizeof(a)) == 0;
}

/* The file with the port this user's clusters were given last; locked until it is closed. Negative: none, without harm. */
static int open_turn(void)
{
    const char *dir = getenv("XDG_RUNTIME_DIR");
    char path[PATH_ROOM];
    struct stat st;
    snprintf(path, sizeof(path), "%s/cv-local-port.%u", dir && *dir ? dir : "/tmp", (unsigned)geteuid());
    int fd cleanup(closep) = open(path, O_RDWR | O_CREAT | O_NOFOLLOW | O_CLOEXEC, 0600);
    if (fd < 0 || fstat(fd, &st) < 0 || st.st_uid != geteuid() || !S_ISREG(st.st_mode) || flock(fd, LOCK_EX) < 0)
        return -1;
    return take_fd(fd);
}

/* A port nobody uses now; 0: none was found. In turn, so that clusters that are set up at the same time do not get the same,
 * and one that is stopped finds its own free when it is started again. */
static unsigned free_port(void)
{
    static unsigned last;
    char text[16] = "";
    int fd cleanup(closep) = open_turn();
    if (fd >= 0 && pread(fd, text, sizeof(text) - 1, 0) > 0)
        last = (unsigned)strtoul(text, NULL, 10);
    if (last < PORT_FIRST || last >= PORT_END)
        last = PORT_FIRST + (unsigned)(random_u64() % (PORT_END - PORT_FIRST));
    for (int i = 0; i < PORT_TRIES; i++) {
        last = last + 1 < PORT_END ? last + 1 : PORT_FIRST;
        if (!is_free(last))
            continue;
        snprintf(text, sizeof(text), "%5u\n", last);
        ssize_t n = fd < 0 ? 0 : pwrite(fd, text, strlen(text), 0);
        (void)n; /* what is not kept is drawn again */
        return last;
    }
    return 0;
}

/* What dir's names are now they stay, also after a power cut. */
static int sync_dir(const char *dir)
{
    int fd cleanup(closep) = open(dir, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    return fd < 0 || fsync(fd) < 0 ? -errno : 0;
}

/* A new file under another name: what is under its own is always whole. */
static FILE *begin_file(const char *path)
{
    char temporary[LOCAL_DIR_MAX + 64];
    snprintf(temporary, sizeof(temporary), "%s.tmp", path);
    return fopen(temporary, "we");
}

static int end_file(FILE *f, const char *path, const char *dir)
{
    char temporary[LOCAL_DIR_MAX + 64];
    snprintf(temporary, sizeof(temporary), "%s.tmp", path);
    int r = ferror(f) || fflush(f) != 0 || fsync(fileno(f)) < 0 ? -EIO : 0;
    fclose(f);
    if (r == 0 && rename(temporary, path) < 0)
        r = -errno;
    return r < 0 ? r : sync_dir(dir);
}

/* A tenth of what is free, not more than a developer's machine has to spare. */
static uint64_t default_capacity(const char *dir)
{
    struct statvfs s;
    uint64_t available = statvfs(dir, &s) == 0 ? (uint64_t)s.f_bavail * s.f_frsize : 0;
    return min(max(available / 10, CAPACITY_MIN), CAPACITY_MAX) >> 20 << 20;
}

/* "run", "run-2": of a node. */
static const char *of_node(const char *folder, unsigned node, char out[24])
{
    snprintf(out, 24, node > 1 ? "%s-%u" : "%s", folder, node);
    return out;
}

/* What a journal and a master are told, and who talks to them. */
static void write_node(FILE *f, const char *dir, unsigned node, unsigned masters)
{
    char name[24];
    fprintf(f, "cluster:\n  masters: [");
    for (unsigned i = 1; i <= masters; i++)
        fprintf(f, "%s\"unix:%s/%s/master.sock\"", i > 1 ? ", " : "", dir, of_node("run", i, name));
    fprintf(f, "]\n  run_dir: \"%s/%s\"\n", dir, of_node("run", node, name));
    fprintf(f,
            "journal:\n"
            "  dir: \"%s/%s\"\n"
            "  listen: 127.0.0.1\n"
            "  port: %u\n"
            "  http_port: %u\n",
            dir, of_node("journal", node, name), masters > 1 ? free_port() : 0, free_port());
    fprintf(f,
            "master:\n"
            "  dir: \"%s/%s\"\n"
            "  listen: 127.0.0.1\n"
            "  port: %u\n"
            "  http_port: %u\n",
            dir, of_node("master", node, name), masters > 1 ? free_port() : 0, free_port());
}

static int write_config(const char *dir, unsigned node, unsigned masters, uint64_t capacity)
{
    char path[PATH_ROOM];
    local_config(dir, node, path, sizeof(path));
    FILE *f = begin_file(path);
    if (!f)
        return -errno;
    if (node > 1) {
        fprintf(f, "# Journal and master %u of the cluster in this directory: see curvine.yaml.\n", node);
        write_node(f, dir, node, masters);
        return end_file(f, path, dir);
    }
    fprintf(
        f,
        "# A cluster on one machine, made by \"cv local up\". Yours to edit: \"cv config explain\" lists all options,\n"
        "# \"cv config check FILE\" checks them, \"cv local down\" and \"up\" apply them.\n");
    if (masters > 1)
        fprintf(f,
                "# This file is for clients, the worker, and the first journal and master; curvine-2.yaml and on are\n"
                "# for the others. What they should agree on, change in all.\n");
    write_node(f, dir, node, masters);
    fprintf(f,
            "worker:\n"
            "  dirs: [\"[SSD:%lluMiB]%s/worker\"]\n"
            "  listen: 127.0.0.1\n"
            "  advertise: 127.0.0.1\n"
            "  port: 0\n"
            "  http_port: %u\n"
            "  reserve_bytes: 256MiB\n",
            (unsigned long long)((capacity ? capacity : default_capacity(dir)) >> 20), dir, free_port());
    return end_file(f, path, dir);
}

/* curvine.yaml last: when it is there, all are, and are the user's from then on. */
static int write_configs(const char *dir, unsigned masters, uint64_t capacity)
{
    char path[PATH_ROOM];
    local_config(dir, 1, path, sizeof(path));
    if (access(path, F_OK) == 0)
        return 0;
    int r = 0;
    for (unsigned node = masters; r == 0 && node > 0; node--)
        r = write_config(dir, node, masters, capacity);
    return r;
}

static int make_dir(const char *path)
{
    return mkdir(path, 0700) < 0 && errno != EEXIST ? -errno : 0;
}

/* The id of the cluster to be, on disk before anything is formatted. again: an attempt before this one got as far. */
static int cluster_id(const char *dir, char id[UUID_STRING], bool *ret_again)
{
    char path[LOCAL_DIR_MAX + 32];
    snprintf(path, sizeof(path), "%s/cluster-id.new", dir);
    FILE *f = fopen(path, "re");
    struct uuid u;
    *ret_again = f && fscanf(f, "%36s", id) == 1 && uuid_parse(id, &u) == 0;
    if (f)
        fclose(f);
    if (*ret_again)
        return 0;
    uuid_format(uuid_new(), id);
    f = begin_file(path);
    if (!f)
        return -errno;
    fprintf(f, "%s\n", id);
    return end_file(f, path, dir);
}

static int remove_entry(const char *path, const struct stat *st, int type, struct FTW *ftw)
{
    return remove(path);
}

/* What an attempt that was cut short has formatted, perhaps half: no daemon has ever run there. */
static void remove_folder(const char *dir, const char *folder)
{
    char path[LOCAL_DIR_MAX + 32];
    snprintf(path, sizeof(path), "%s/%.23s", dir, folder);
    nftw(path, remove_entry, 16, FTW_DEPTH | FTW_PHYS);
}

struct set_up {
    struct cli *cli;
    const char *dir, *id;
    unsigned masters;
    struct buf peers; /* "127.0.0.1:journal/master,...", zero-terminated; empty with one */
};

static int write_peer(struct set_up *s, unsigned node)
{
    struct config *c cleanup(config_free_p) = NULL;
    char path[PATH_ROOM];
    local_config(s->dir, node, path, sizeof(path));
    int r = config_new(s->cli->sections, &c);
    if (r == 0)
        r = config_load(c, path);
    if (r < 0) {
        fprintf(stderr, "%s", c ? config_errors(c) : "");
        return r;
    }
    char journal[OPTION_WRITTEN_MAX], master[OPTION_WRITTEN_MAX];
    r = config_text(c, "journal", "port", journal, sizeof(journal));
    if (r == 0)
        r = config_text(c, "master", "port", master, sizeof(master));
    return r < 0 ? r : buf_printf(&s->peers, "%s127.0.0.1:%s/%s", node > 1 ? "," : "", journal, master);
}

static int find_peers(struct set_up *s)
{
    int r = 0;
    for (unsigned node = 1; r == 0 && s->masters > 1 && node <= s->masters; node++)
        r = write_peer(s, node);
    return r ? r : buf_append(&s->peers, "", 1);
}

/* Address of the n-th of the peers. */
static void peer(const struct set_up *s, unsigned node, char *out, size_t size)
{
    const char *p = (const char *)s->peers.p;
    while (--node && strchr(p, ','))
        p = strchr(p, ',') + 1;
    snprintf(out, size, "%.*s", (int)strcspn(p, "/,"), p);
}

static int format_node(const struct set_up *s, unsigned node)
{
    char config[PATH_ROOM], self[64];
    local_config(s->dir, node, config, sizeof(config));
    peer(s, node, self, sizeof(self));
    const char *const single[] = {"cv-journal", "format", "--cluster", s->id, "--single", "--config", config, NULL};
    const char *const several[] = {"cv-journal", "format", "--cluster", s->id,  "--peers", (const char *)s->peers.p,
                                   "--self",     self,     "--config",  config, NULL};
    const char *const master[] = {"cv-master", "--config", config, "format", "--cluster", s->id, NULL};
    int r = process_run(s->masters > 1 ? several : single);
    return r < 0 ? r : process_run(master);
}

static int format_all(const struct set_up *s)
{
    char config[PATH_ROOM], data[PATH_ROOM];
    local_config(s->dir, 1, config, sizeof(config));
    snprintf(data, sizeof(data), "%s/worker", s->dir);
    const char *const worker[] = {"cv-worker", "--config", config, "format", "--cluster", s->id, "--dir", data, NULL};
    int r = 0;
    for (unsigned node = 1; r == 0 && node <= s->masters; node++)
        r = format_node(s, node);
    if (r == 0)
        r = process_run(worker);
    return r < 0 ? r : sync_dir(s->dir);
}

static int make_dirs(const char *dir, unsigned masters)
{
    char path[PATH_ROOM], name[24];
    int r = make_dir(dir);
    for (unsigned node = 1; r == 0 && node <= masters; node++) {
        snprintf(path, sizeof(path), "%s/%s", dir, of_node("run", node, name));
        r = make_dir(path);
    }
    snprintf(path, sizeof(path), "%s/log", dir);
    return r < 0 ? r : make_dir(path);
}

int local_set_up(struct cli *cli, const char *dir, unsigned masters, uint64_t capacity)
{
    char path[PATH_ROOM], done[PATH_ROOM], id[UUID_STRING];
    struct local_daemon daemons[LOCAL_DAEMONS_MAX];
    bool again = false;
    int r = make_dirs(dir, masters);
    if (r == 0)
        r = write_configs(dir, masters, capacity);
    if (r == 0)
        r = cluster_id(dir, id, &again);
    if (r < 0)
        return cli_fail(cli, r, "choose another directory: cv local up --dir DIR", "set up '%s'", dir);
    if (local_masters(dir) != masters)
        return cli_usage(cli, "'%s' holds an attempt with --masters %u: go on with that, or choose another --dir", dir,
                         local_masters(dir));
    unsigned n = local_daemons(dir, daemons);
    for (unsigned i = 0; again && i < n; i++)
        remove_folder(dir, daemons[i].name);
    struct set_up s = {.cli = cli, .dir = dir, .id = id, .masters = masters};
    r = find_peers(&s);
    if (r == 0)
        r = format_all(&s);
    buf_fini(&s.peers);
    if (r < 0)
        return cli_fail(cli, r, NULL, "format the data directories in '%s'", dir);
    snprintf(path, sizeof(path), "%s/cluster-id.new", dir);
    snprintf(done, sizeof(done), "%s/cluster-id", dir);
    r = rename(path, done) < 0 ? -errno : sync_dir(dir); /* before a daemon runs: see remove_folder */
    return r < 0 ? cli_fail(cli, r, NULL, "write '%s'", done) : CLI_OK;
}
