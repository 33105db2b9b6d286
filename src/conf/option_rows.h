/* SPDX-License-Identifier: Apache-2.0 */
/* Expands OPTIONS_DEF into the rows of struct option_def (see conf/options.h). No include guard: once a section. */
#define OPTION_TYPE_bool     OPTION_BOOL
#define OPTION_TYPE_u32      OPTION_U32
#define OPTION_TYPE_u64      OPTION_U64
#define OPTION_TYPE_size     OPTION_SIZE
#define OPTION_TYPE_duration OPTION_DURATION
#define OPTION_TYPE_text     OPTION_TEXT
#define OPTION_TYPE_list     OPTION_LIST

// clang-format off
#define OPTION_UNPACK(...) __VA_ARGS__
#define OPTION_CHOICES(values_) .choices = #values_, .choice_values = (const int[]){OPTION_UNPACK values_}
#define OPTION_ROW(name_, type_, live_, initial_, low_, high_, help_, ...)                                             \
    {.name = #name_,                                                                                                   \
     .type = type_,                                                                                                    \
     .live = live_,                                                                                                    \
     .offset = offsetof(OPTIONS_STRUCT, name_),                                                                        \
     .initial = initial_,                                                                                              \
     .low = low_,                                                                                                      \
     .high = high_,                                                                                                    \
     .help = help_,                                                                                                    \
     __VA_ARGS__},

#define OPT(name, type, initial, low, high, help)                                                                      \
    OPTION_ROW(name, OPTION_TYPE_##type, false, #initial, #low, #high, help, .choices = NULL)
#define OPT_LIVE(name, type, initial, low, high, help)                                                                 \
    OPTION_ROW(name, OPTION_TYPE_##type, true, #initial, #low, #high, help, .choices = NULL)
#define OPT_ENUM(name, type, initial, values, help)                                                                    \
    OPTION_ROW(name, OPTION_ENUM, false, #initial, "", "", help, OPTION_CHOICES(values))
#define OPT_ENUM_LIVE(name, type, initial, values, help)                                                               \
    OPTION_ROW(name, OPTION_ENUM, true, #initial, "", "", help, OPTION_CHOICES(values))
// clang-format on
#include OPTIONS_DEF
#undef OPT
#undef OPT_LIVE
#undef OPT_ENUM
#undef OPT_ENUM_LIVE
#undef OPTIONS_DEF
#undef OPTIONS_STRUCT

#undef OPTION_TYPE_bool
#undef OPTION_TYPE_u32
#undef OPTION_TYPE_u64
#undef OPTION_TYPE_size
#undef OPTION_TYPE_duration
#undef OPTION_TYPE_text
#undef OPTION_TYPE_list
#undef OPTION_ROW
#undef OPTION_UNPACK
#undef OPTION_CHOICES
