/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The configuration of one process: the sections of its tables (conf/options.h), filled from defaults, then
 * curvine.yaml, then --set, later ones winning:
 *
 *     master:
 *       port: 8995
 *     worker:
 *       dirs: ["[SSD]/mnt/a", "[SSD]/mnt/b"]
 *
 * The whole file is held against all tables, also the sections of other roles: one file serves a cluster, and a
 * mistake in it is found by whoever reads it first. Everything wrong is reported at once, one line each, as
 * "curvine.yaml:7: master.prot: unknown key, did you mean 'port'?". Not thread-safe; read-only use from many threads is.
 */
#pragma once

#include "base/cleanup.h"
#include "conf/options.h"

/* A file larger than this is not a configuration. */
#define CONFIG_FILE_MAX (1u << 20)
/* Problems reported at most; the rest is counted. */
#define CONFIG_ERRORS_MAX 50

struct config;

/* All options at their defaults. sections: NULL-terminated, borrowed. Errors: -ENOMEM. */
int config_new(const struct option_section *const *sections, struct config **ret);
struct config *config_free(struct config *c);
DEFINE_CLEANUP(struct config *, config_free)

/* Read a file over what is there. Errors: -CV_CONFIG_BAD, also when the file cannot be read: config_errors() says why. */
int config_load(struct config *c, const char *path);

/* The same from memory; name is what messages call it. */
int config_load_text(struct config *c, const char *name, const char *p, size_t n);

/* One "section.key=value" from the command line. Errors: -CV_CONFIG_BAD. */
int config_set(struct config *c, const char *assignment);

/* Hold options that depend on each other together; call when all is loaded. Errors: -CV_CONFIG_BAD. */
int config_check(struct config *c);

/* Everything that was refused so far, one line each with a newline, "" when nothing was. Valid until the next call. */
const char *config_errors(struct config *c);

const struct option_section *const *config_sections(const struct config *c);

/* The struct of a section, filled. Valid as long as c. */
const void *config_values(const struct config *c, const struct option_section *s);

/* config_options(c, worker) is the struct worker_options of worker_section. */
#define config_options(c, role) ((const struct role##_options *)config_values((c), &role##_section))

/* Where a value comes from: "default", "curvine.yaml:12", "--set". Valid as long as c. */
const char *config_origin(const struct config *c, struct option_ref ref);

/* Find "section.key". On failure suggests: why (OPTION_MESSAGE_MAX bytes) gets "unknown key, did you mean 'port'?".
 * Errors: -ENOENT. */
#define OPTION_MESSAGE_MAX 256
int config_find(const struct option_section *const *sections, struct text section, struct text key,
                struct option_ref *ret, char *why);

/* The value of an option of any section, as it would be written. Errors: -ENOENT no such option; -ENAMETOOLONG. */
int config_text(const struct config *c, const char *section, const char *key, char *out, size_t size);

/* Call fn for each option whose value differs. Both must be of the same sections. */
void config_diff(const struct config *a, const struct config *b, void (*fn)(void *arg, struct option_ref ref),
                 void *arg);

/* The file that is read when none is named: $CURVINE_CONFIG, else /etc/curvine/curvine.yaml. */
const char *config_default_path(void);
