/* SPDX-License-Identifier: Apache-2.0 */
/* Any bytes as curvine.yaml: refused with messages or accepted, and what was accepted can be written out. */
#include <assert.h>

#include "base/error.h"
#include "bin/sections.h"
#include "conf/config.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    struct config *c = NULL;
    int r = config_new(curvine_sections, &c);
    assert(r == 0);
    r = config_load_text(c, "fuzz", (const char *)data, size);
    assert(r == 0 || r == -CV_CONFIG_BAD);
    assert((r == 0) == (*config_errors(c) == 0)); /* refused is said, said is refused */
    (void)config_check(c);

    /* Every value reads back as itself. */
    struct config *again = NULL;
    r = config_new(curvine_sections, &again);
    assert(r == 0);
    struct buf text = {0};
    for (uint32_t i = 0; curvine_sections[i]; i++) {
        r = buf_printf(&text, "%s:\n", curvine_sections[i]->name);
        assert(r == 0);
        for (uint32_t j = 0; j < curvine_sections[i]->n; j++) {
            const struct option_def *o = &curvine_sections[i]->options[j];
            r = buf_printf(&text, "  %s: ", o->name);
            assert(r == 0);
            r = option_format(o, config_values(c, curvine_sections[i]), &text);
            assert(r == 0);
            r = buf_printf(&text, "\n");
            assert(r == 0);
        }
    }
    r = config_load_text(again, "again", (const char *)text.p, text.n);
    assert(r == 0);
    for (uint32_t i = 0; curvine_sections[i]; i++)
        for (uint32_t j = 0; j < curvine_sections[i]->n; j++)
            assert(option_equal(&curvine_sections[i]->options[j], config_values(c, curvine_sections[i]),
                                config_values(again, curvine_sections[i])));
    buf_fini(&text);
    config_free(again);
    config_free(c);
    return 0;
}
