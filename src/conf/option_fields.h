/* SPDX-License-Identifier: Apache-2.0 */
/* Expands OPTIONS_DEF into the fields of a section's struct (see conf/options.h). No include guard: once a section. */
#define OPTION_FIELD_bool     bool
#define OPTION_FIELD_u32      uint32_t
#define OPTION_FIELD_u64      uint64_t
#define OPTION_FIELD_size     uint64_t
#define OPTION_FIELD_duration uint64_t
#define OPTION_FIELD_text     char *
#define OPTION_FIELD_list     struct option_list

#define OPT(name, type, initial, low, high, help)        OPTION_FIELD_##type name;
#define OPT_LIVE(name, type, initial, low, high, help)   OPTION_FIELD_##type name;
#define OPT_ENUM(name, type, initial, values, help)      type name;
#define OPT_ENUM_LIVE(name, type, initial, values, help) type name;
#include OPTIONS_DEF
#undef OPT
#undef OPT_LIVE
#undef OPT_ENUM
#undef OPT_ENUM_LIVE
#undef OPTIONS_DEF

#undef OPTION_FIELD_bool
#undef OPTION_FIELD_u32
#undef OPTION_FIELD_u64
#undef OPTION_FIELD_size
#undef OPTION_FIELD_duration
#undef OPTION_FIELD_text
#undef OPTION_FIELD_list
