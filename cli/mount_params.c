/* SPDX-License-Identifier: Apache-2.0 */
#include "cli/mount_params.h"

#include <ctype.h>
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

#include "base/cleanup.h"
#include "conf/nearest.h"

static const struct {
    const char *scheme, *name;
} rows[] = {
#define UFS_PARAM(scheme, name, value, secret, help) {#scheme, #name},
#include "ufs/ufs_params.def"
#undef UFS_PARAM
};

static const char *const schemes[] = {"file", "s3"};

/* What the tools of the service read, in the order they prefer. */
static const struct {
    const char *variable, *name;
} environment[] = {
    {"AWS_ENDPOINT_URL_S3", "endpoint"},
    {"AWS_ENDPOINT_URL", "endpoint"},
    {"AWS_REGION", "region"},
    {"AWS_DEFAULT_REGION", "region"},
    {"AWS_ACCESS_KEY_ID", "access_key"},
    {"AWS_SECRET_ACCESS_KEY", "secret_key"},
    {"AWS_SESSION_TOKEN", "session_token"},
};

void mount_params_fini(struct mount_params *p)
{
    for (uint32_t i = 0; i < p->n; i++) {
        explicit_bzero(p->value[i], strlen(p->value[i]));
        free(p->value[i]);
        free(p->name[i]);
    }
    p->n = 0;
}

static bool has(const struct mount_params *p, struct text name)
{
    for (uint32_t i = 0; i < p->n; i++)
        if (text_equal(text_of(p->name[i]), name))
            return true;
    return false;
}

static int refuse_name(const char *scheme, struct text name, char *why, size_t size)
{
    struct nearest near = {.wanted = name};
    bool any = false;
    for (size_t i = 0; i < array_size(rows); i++)
        if (strcmp(rows[i].scheme, scheme) == 0) {
            nearest_offer(&near, rows[i].name);
            any = true;
        }
    int n = snprintf(why, size, "%s:// has no parameter '" TEXT_FMT "'", scheme, TEXT_ARG(name));
    if (near.word) {
        snprintf(why + n, size - (size_t)n, ", did you mean '%s'?", near.word);
    } else if (any) {
        n += snprintf(why + n, size - (size_t)n, "; it has");
        for (size_t i = 0; i < array_size(rows) && n < (int)size; i++)
            if (strcmp(rows[i].scheme, scheme) == 0)
                n += snprintf(why + n, size - (size_t)n, " %s", rows[i].name);
    }
    return -EINVAL;
}

static int add(struct mount_params *p, struct text name, const char *value, const char *from)
{
    if (p->n == MOUNT_PARAMS_MAX)
        return -E2BIG;
    char *n = strndup(name.p, name.n), *v = strdup(value);
    if (!n || !v) {
        free(n);
        free(v);
        return -ENOMEM;
    }
    p->name[p->n] = n;
    p->value[p->n] = v;
    p->from[p->n++] = from;
    return 0;
}

int mount_params_add(struct mount_params *p, const char *scheme, const char *setting, const char *from, char *why,
                     size_t size)
{
    const char *equals = strchr(setting, '=');
    if (!equals || equals == setting) {
        /* It may be a bare secret: not repeated. */
        snprintf(why, size, "%s: expected NAME=VALUE, such as endpoint=http://127.0.0.1:9000", from);
        return -EINVAL;
    }
    struct text name = {setting, (uint32_t)(equals - setting)};
    bool known = false;
    for (size_t i = 0; i < array_size(rows); i++)
        known |= strcmp(rows[i].scheme, scheme) == 0 && text_equal(text_of(rows[i].name), name);
    if (!known)
        return refuse_name(scheme, name, why, size);
    if (has(p, name))
        return 0;
    int r = add(p, name, equals + 1, from);
    if (r < 0)
        snprintf(why, size, "too many parameters");
    return r;
}

int mount_params_read(struct mount_params *p, const char *scheme, const char *file, char *why, size_t size)
{
    FILE *f = fopen(file, "re");
    char *line = NULL, reason[256];
    size_t room = 0;
    unsigned number = 0;
    int r = 0;
    if (!f) {
        r = -errno;
        snprintf(why, size, "cannot read '%s': %s", file, strerror(-r));
        return r;
    }
    struct stat st;
    if (fstat(fileno(f), &st) == 0 && S_ISREG(st.st_mode) && (st.st_mode & 077)) {
        snprintf(why, size, "'%s' can be read by others and may hold secrets: chmod 600 it first", file);
        r = -EINVAL;
    }
    while (r == 0 && getline(&line, &room, f) > 0) {
        number++;
        size_t n = strcspn(line, "\r\n");
        while (n && isspace((unsigned char)line[n - 1]))
            n--;
        line[n] = '\0';
        const char *start = line + strspn(line, " \t");
        if (*start == '\0' || *start == '#')
            continue;
        r = mount_params_add(p, scheme, start, file, reason, sizeof(reason));
        if (r < 0)
            snprintf(why, size, "%s:%u: %s", file, number, reason);
    }
    if (line)
        explicit_bzero(line, room);
    free(line);
    fclose(f);
    return r;
}

void mount_params_environment(struct mount_params *p, const char *scheme)
{
    if (strcmp(scheme, "s3") != 0)
        return;
    /* A key of one source with the secret of another is never what was meant. */
    bool keys_given = has(p, TEXT("access_key")) || has(p, TEXT("secret_key")) || has(p, TEXT("session_token"));
    for (size_t i = 0; i < array_size(environment); i++) {
        const char *value = getenv(environment[i].variable), *name = environment[i].name;
        bool is_key = strcmp(name, "endpoint") != 0 && strcmp(name, "region") != 0;
        if (value && *value && !has(p, text_of(name)) && !(is_key && keys_given))
            add(p, text_of(name), value, environment[i].variable);
    }
}

int mount_uri_check(const char *uri, char *scheme, size_t scheme_size, char *why, size_t size)
{
    size_t n = strcspn(uri, ":");
    char lower[16] = "";
    for (size_t i = 0; i < n && i < sizeof(lower) - 1; i++)
        lower[i] = (char)tolower((unsigned char)uri[i]);
    for (size_t i = 0; i < array_size(schemes); i++)
        if (strcmp(schemes[i], lower) == 0 && n == strlen(lower)) {
            const char *rest = uri + n + 3;
            if (strcmp(lower, "file") == 0 && *rest != '/') {
                snprintf(why, size, "'%s': a local directory is written with its whole path: file:///srv/data", uri);
                return -EINVAL;
            }
            if (*rest == '\0' || (*rest == '/' && strcmp(lower, "file") != 0)) {
                snprintf(why, size, "'%s' names no bucket: expected e.g. %s://bucket/prefix", uri, lower);
                return -EINVAL;
            }
            snprintf(scheme, scheme_size, "%s", lower);
            return 0;
        }
    int at = snprintf(why, size, "unknown scheme '%.*s://'; this version knows", (int)n, uri);
    for (size_t i = 0; i < array_size(schemes) && at < (int)size; i++)
        at += snprintf(why + at, size - (size_t)at, "%s %s://", i ? "," : "", schemes[i]);
    return -EPROTONOSUPPORT;
}

int mount_uri_name(const char *uri, char *out, size_t size)
{
    const char *p = strstr(uri, "://");
    p = p ? p + 3 : uri;
    size_t n = strlen(p);
    while (n && p[n - 1] == '/')
        n--;
    const char *slash = n ? memrchr(p, '/', n) : NULL;
    const char *name = slash ? slash + 1 : p;
    int length = snprintf(out, size, "%.*s", (int)(p + n - name), name);
    return length == 0 || length >= (int)min(size, (size_t)256) || strcmp(out, ".") == 0 || strcmp(out, "..") == 0
               ? -EINVAL
               : 0;
}
