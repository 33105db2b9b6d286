/* SPDX-License-Identifier: Apache-2.0 */
#include "cli/modes.h"

#include <errno.h>
#include <grp.h>
#include <pwd.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

/* One clause "who op perms" of a symbolic mode (chmod in POSIX), where who and perms are masks. */
static int apply_clause(const char **s, uint32_t mode, uint32_t umask, uint32_t *ret)
{
    uint32_t who = 0;
    const char *p = *s;
    for (;; p++) {
        if (*p == 'u')
            who |= 04700;
        else if (*p == 'g')
            who |= 02070;
        else if (*p == 'o')
            who |= 01007;
        else if (*p == 'a')
            who |= 07777;
        else
            break;
    }
    uint32_t mask = who ? who : 07777 & ~umask;
    if (!strchr("+-=", *p) || !*p)
        return -EINVAL;
    while (*p && strchr("+-=", *p)) {
        char op = *p++;
        uint32_t bits = 0;
        for (; *p && strchr("rwxXst", *p); p++) {
            bool some_x = S_ISDIR(mode) || mode & 0111;
            bits |= *p == 'r'   ? 0444
                    : *p == 'w' ? 0222
                    : *p == 'x' ? 0111
                    : *p == 'X' ? (some_x ? 0111 : 0)
                    : *p == 's' ? 06000
                                : 01000;
        }
        bits &= mask;
        if (op == '+')
            mode |= bits;
        else if (op == '-')
            mode &= ~bits;
        else
            mode = (mode & ~(mask & 07777)) | bits;
    }
    *s = p;
    *ret = mode;
    return 0;
}

int mode_parse(const char *s, uint32_t mode, uint32_t umask, uint32_t *ret)
{
    if (*s >= '0' && *s <= '7') {
        char *end;
        unsigned long value = strtoul(s, &end, 8);
        if (*end || value > 07777)
            return -EINVAL;
        *ret = (uint32_t)value;
        return 0;
    }
    for (;; s++) {
        int r = apply_clause(&s, mode, umask, &mode);
        if (r < 0 || (*s && *s != ','))
            return -EINVAL;
        if (!*s)
            break;
    }
    *ret = mode & 07777;
    return 0;
}

char *mode_format(uint32_t mode, char out[11])
{
    static const char letters[] = "rwxrwxrwx";
    out[0] = S_ISDIR(mode)    ? 'd'
             : S_ISLNK(mode)  ? 'l'
             : S_ISFIFO(mode) ? 'p'
             : S_ISSOCK(mode) ? 's'
             : S_ISCHR(mode)  ? 'c'
             : S_ISBLK(mode)  ? 'b'
                              : '-';
    for (int i = 0; i < 9; i++)
        out[i + 1] = mode & (0400u >> i) ? letters[i] : '-';
    if (mode & S_ISUID)
        out[3] = mode & 0100 ? 's' : 'S';
    if (mode & S_ISGID)
        out[6] = mode & 0010 ? 's' : 'S';
    if (mode & S_ISVTX)
        out[9] = mode & 0001 ? 't' : 'T';
    out[10] = '\0';
    return out;
}

static bool number(const char *s, uint32_t *ret)
{
    char *end;
    errno = 0;
    unsigned long v = strtoul(s, &end, 10);
    if (*s < '0' || *s > '9' || *end || errno || v >= UINT32_MAX)
        return false;
    *ret = (uint32_t)v;
    return true;
}

int owner_parse(const char *s, uint32_t *ret_uid, uint32_t *ret_gid, char *why, size_t size)
{
    char user[128];
    const char *colon = strchr(s, ':');
    size_t n = colon ? (size_t)(colon - s) : strlen(s);
    *ret_uid = *ret_gid = UINT32_MAX;
    if (n >= sizeof(user) || (n == 0 && (!colon || !colon[1]))) {
        snprintf(why, size, "'%s': expected USER, USER:GROUP or :GROUP", s);
        return -EINVAL;
    }
    memcpy(user, s, n);
    user[n] = '\0';
    if (n && !number(user, ret_uid)) {
        const struct passwd *pw = getpwnam(user);
        if (!pw) {
            snprintf(why, size, "no user '%s' on this host: give a number", user);
            return -EINVAL;
        }
        *ret_uid = pw->pw_uid;
    }
    if (colon && colon[1] && !number(colon + 1, ret_gid)) {
        const struct group *gr = getgrnam(colon + 1);
        if (!gr) {
            snprintf(why, size, "no group '%s' on this host: give a number", colon + 1);
            return -EINVAL;
        }
        *ret_gid = gr->gr_gid;
    }
    return 0;
}

char *user_format(uint32_t uid, char *out, size_t size)
{
    const struct passwd *pw = getpwuid(uid);
    if (pw)
        snprintf(out, size, "%s", pw->pw_name);
    else
        snprintf(out, size, "%u", uid);
    return out;
}

char *group_format(uint32_t gid, char *out, size_t size)
{
    const struct group *gr = getgrgid(gid);
    if (gr)
        snprintf(out, size, "%s", gr->gr_name);
    else
        snprintf(out, size, "%u", gid);
    return out;
}

const char *type_name(uint32_t mode)
{
    return S_ISREG(mode)    ? "file"
           : S_ISDIR(mode)  ? "directory"
           : S_ISLNK(mode)  ? "symlink"
           : S_ISFIFO(mode) ? "fifo"
           : S_ISSOCK(mode) ? "socket"
           : S_ISCHR(mode)  ? "character device"
           : S_ISBLK(mode)  ? "block device"
                            : "unknown";
}
