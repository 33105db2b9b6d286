/* SPDX-License-Identifier: Apache-2.0 */
/* What config.c and config_yaml.c share. */
#pragma once

#include "conf/config.h"

struct config_section {
    void *values;   /* the section's struct */
    char **origins; /* per option, NULL: default */
    uint32_t *seen; /* per option: line in the file being read, 0: not yet */
    uint32_t seen_section;
};

struct config {
    const struct option_section *const *sections; /* borrowed */
    uint32_t n;
    struct config_section *filled; /* n */
    struct buf errors;
    uint32_t error_count;
    bool errors_closed; /* the "and n more" is appended */
};

/* Note one problem. Returns -CV_CONFIG_BAD. */
int config_refuse(struct config *c, const char *format, ...) __attribute__((format(printf, 2, 3)));

/* Set an option from a scalar (value) or from list items (value NULL); a bad value is noted. where: "curvine.yaml:3". */
int config_assign(struct config *c, struct option_ref ref, const char *where, const char *value, char *const *items,
                  uint32_t n);

int config_set_origin(struct config *c, struct option_ref ref, const char *origin);
