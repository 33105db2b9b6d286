/* SPDX-License-Identifier: Apache-2.0 */
/* Messages as text, for traces. */
#include "sim_node.h"

#include <stdio.h>

const char *message_text(const struct raft_message *m)
{
    static _Thread_local char text[256];
    int n = snprintf(text, sizeof(text), "%s t%llu", raft_message_name(m->type), (unsigned long long)m->term);
    switch (m->type) {
#define FIELD(type, name)                                                                                              \
    n += snprintf(text + n, sizeof(text) - (size_t)n, " " #name "=%llu", (unsigned long long)part->name);
#define RAFT_MESSAGE(code, NAME, name, ...)                                                                            \
    case RAFT_MSG_##NAME: {                                                                                            \
        const __typeof__(m->name) *part = &m->name;                                                                    \
        __VA_ARGS__                                                                                                    \
        break;                                                                                                         \
    }
#include "raft/raft_message.def"
#undef RAFT_MESSAGE
#undef FIELD
    default: break;
    }
    return text;
}
