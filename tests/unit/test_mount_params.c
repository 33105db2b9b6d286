/* SPDX-License-Identifier: Apache-2.0 */
#include "tests/unit/unit.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <sys/stat.h>

#include "base/cleanup.h"
#include "cli/mount_params.h"

static char why[512];

static const char *value_of(const struct mount_params *p, const char *name)
{
    for (uint32_t i = 0; i < p->n; i++)
        if (strcmp(p->name[i], name) == 0)
            return p->value[i];
    return NULL;
}

static void clear_environment(void)
{
    static const char *const names[] = {"AWS_ENDPOINT_URL_S3", "AWS_ENDPOINT_URL",  "AWS_REGION",
                                        "AWS_DEFAULT_REGION",  "AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY",
                                        "AWS_SESSION_TOKEN"};
    for (size_t i = 0; i < array_size(names); i++)
        unsetenv(names[i]);
}

TEST(the_first_setting_of_a_name_counts)
{
    struct mount_params p cleanup(mount_params_fini) = {0};
    ck_assert_int_eq(mount_params_add(&p, "s3", "region=eu-west-1", "--param", why, sizeof(why)), 0);
    ck_assert_int_eq(mount_params_add(&p, "s3", "region=mars", "--param", why, sizeof(why)), 0);
    ck_assert_str_eq(value_of(&p, "region"), "eu-west-1");
    ck_assert_int_eq(mount_params_add(&p, "s3", "endpoint=http://h/?a=b", "--param", why, sizeof(why)), 0);
    ck_assert_str_eq(value_of(&p, "endpoint"), "http://h/?a=b");
}

TEST(unknown_names_are_refused_with_what_is_near_and_without_their_values)
{
    struct mount_params p cleanup(mount_params_fini) = {0};
    ck_assert_int_eq(mount_params_add(&p, "s3", "secretkey=hunter2", "--param", why, sizeof(why)), -EINVAL);
    ck_assert_str_eq(why, "s3:// has no parameter 'secretkey', did you mean 'secret_key'?");
    ck_assert_int_eq(mount_params_add(&p, "s3", "hunter2", "--param", why, sizeof(why)), -EINVAL);
    ck_assert_ptr_null(strstr(why, "hunter2"));
    ck_assert_int_eq(mount_params_add(&p, "file", "region=x", "--param", why, sizeof(why)), -EINVAL);
    ck_assert_str_eq(why, "file:// has no parameter 'region'");
    ck_assert_uint_eq(p.n, 0);
}

TEST(a_file_others_can_read_is_refused)
{
    char path[4096];
    struct mount_params p cleanup(mount_params_fini) = {0};
    snprintf(path, sizeof(path), "%s/params", unit_tempdir());
    int fd cleanup(closep) = open(path, O_WRONLY | O_CREAT | O_CLOEXEC, 0600);
    static const char text[] = "# of the test bucket\n\n  access_key=ada\nsecret_key=s=e c\r\nsesion_token=x\n";
    ck_assert_int_eq(write(fd, text, sizeof(text) - 1), sizeof(text) - 1);
    ck_assert_int_eq(fchmod(fd, 0640), 0);
    ck_assert_int_eq(mount_params_read(&p, "s3", path, why, sizeof(why)), -EINVAL);
    ck_assert_ptr_nonnull(strstr(why, "chmod 600"));
    ck_assert_uint_eq(p.n, 0);
    ck_assert_int_eq(fchmod(fd, 0600), 0);
    ck_assert_int_eq(mount_params_read(&p, "s3", path, why, sizeof(why)), -EINVAL);
    ck_assert_ptr_nonnull(
        strstr(why, "/params:5: s3:// has no parameter 'sesion_token', did you mean 'session_token'?"));
    ck_assert_str_eq(value_of(&p, "access_key"), "ada");
    ck_assert_str_eq(value_of(&p, "secret_key"), "s=e c");
    ck_assert_int_eq(mount_params_read(&p, "s3", "/nonexistent/x", why, sizeof(why)), -ENOENT);
}

TEST(the_environment_fills_what_is_missing_but_never_half_a_pair_of_keys)
{
    clear_environment();
    setenv("AWS_ACCESS_KEY_ID", "env-key", 1);
    setenv("AWS_SECRET_ACCESS_KEY", "env-secret", 1);
    setenv("AWS_DEFAULT_REGION", "default", 1);
    setenv("AWS_REGION", "preferred", 1);
    struct mount_params p cleanup(mount_params_fini) = {0};
    mount_params_environment(&p, "s3");
    ck_assert_str_eq(value_of(&p, "access_key"), "env-key");
    ck_assert_str_eq(value_of(&p, "secret_key"), "env-secret");
    ck_assert_str_eq(value_of(&p, "region"), "preferred");
    struct mount_params q cleanup(mount_params_fini) = {0};
    ck_assert_int_eq(mount_params_add(&q, "s3", "access_key=mine", "--param", why, sizeof(why)), 0);
    mount_params_environment(&q, "s3");
    ck_assert_str_eq(value_of(&q, "access_key"), "mine");
    ck_assert_ptr_null(value_of(&q, "secret_key"));
    struct mount_params f cleanup(mount_params_fini) = {0};
    mount_params_environment(&f, "file");
    ck_assert_uint_eq(f.n, 0);
}

TEST(uris_are_checked_before_anybody_is_asked)
{
    char scheme[16];
    ck_assert_int_eq(mount_uri_check("s3://b", scheme, sizeof(scheme), why, sizeof(why)), 0);
    ck_assert_str_eq(scheme, "s3");
    ck_assert_int_eq(mount_uri_check("FILE:///srv", scheme, sizeof(scheme), why, sizeof(why)), 0);
    ck_assert_str_eq(scheme, "file");
    ck_assert_int_eq(mount_uri_check("s4://b", scheme, sizeof(scheme), why, sizeof(why)), -EPROTONOSUPPORT);
    ck_assert_str_eq(why, "unknown scheme 's4://'; this version knows file://, s3://");
    ck_assert_int_eq(mount_uri_check("s3:///x", scheme, sizeof(scheme), why, sizeof(why)), -EINVAL);
    ck_assert_int_eq(mount_uri_check("file://srv/data", scheme, sizeof(scheme), why, sizeof(why)), -EINVAL);
    ck_assert_ptr_nonnull(strstr(why, "whole path"));
}

TEST(a_mount_is_named_after_the_last_part_of_its_uri)
{
    char name[256];
    ck_assert_int_eq(mount_uri_name("s3://bucket", name, sizeof(name)), 0);
    ck_assert_str_eq(name, "bucket");
    ck_assert_int_eq(mount_uri_name("s3://bucket/a/b/", name, sizeof(name)), 0);
    ck_assert_str_eq(name, "b");
    ck_assert_int_eq(mount_uri_name("file:///srv/data", name, sizeof(name)), 0);
    ck_assert_str_eq(name, "data");
    ck_assert_int_eq(mount_uri_name("file:///", name, sizeof(name)), -EINVAL);
    ck_assert_int_eq(mount_uri_name("file:///srv/..", name, sizeof(name)), -EINVAL);
}
