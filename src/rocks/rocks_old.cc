// SPDX-License-Identifier: Apache-2.0
// See rocks_c.h. Of the C handles this relies on how 6.x lays them out: rocksdb_options_t begins with its Options,
// rocksdb_livefiles_t with its vector, rocksdb_env_t with a pointer to its Env, rocksdb_cache_t with a shared pointer.
#include "rocks/rocks_c.h"

#ifdef CV_ROCKS_OLD
#include <cstdlib>
#include <cstring>
#include <memory>
#include <string>
#include <vector>

#include <rocksdb/cache.h>
#include <rocksdb/convenience.h>
#include <rocksdb/metadata.h>
#include <rocksdb/options.h>
#include <rocksdb/utilities/options_util.h>

template <typename Inner, typename Handle> static Inner *inside(Handle *handle)
{
    return reinterpret_cast<Inner *>(handle);
}

static rocksdb_options_t *new_options(const rocksdb::Options &of)
{
    rocksdb_options_t *o = rocksdb_options_create();
    *inside<rocksdb::Options>(o) = of;
    return o;
}

void rocksdb_options_set_avoid_unnecessary_blocking_io(rocksdb_options_t *o, unsigned char v)
{
    inside<rocksdb::Options>(o)->avoid_unnecessary_blocking_io = v;
}

const char *rocksdb_livefiles_column_family_name(const rocksdb_livefiles_t *files, int index)
{
    return (*inside<const std::vector<rocksdb::LiveFileMetaData>>(files))[index].column_family_name.c_str();
}

void rocksdb_load_latest_options(const char *path, rocksdb_env_t *env, bool ignore_unknown, rocksdb_cache_t *cache,
                                 rocksdb_options_t **options, size_t *count, char ***names,
                                 rocksdb_options_t ***family_options, char **error)
{
    rocksdb::ConfigOptions how;
    rocksdb::DBOptions db;
    std::vector<rocksdb::ColumnFamilyDescriptor> families;
    how.ignore_unknown_options = ignore_unknown;
    how.env = *inside<rocksdb::Env *>(env);
    rocksdb::Status s = rocksdb::LoadLatestOptions(how, path, &db, &families,
                                                   cache ? inside<std::shared_ptr<rocksdb::Cache>>(cache) : nullptr);
    *options = nullptr;
    *count = 0;
    *names = nullptr;
    *family_options = nullptr;
    if (!s.ok()) {
        *error = strdup(s.ToString().c_str());
        return;
    }
    *options = new_options(rocksdb::Options(db, rocksdb::ColumnFamilyOptions()));
    *names = static_cast<char **>(malloc(families.size() * sizeof(char *)));
    *family_options = static_cast<rocksdb_options_t **>(malloc(families.size() * sizeof(rocksdb_options_t *)));
    for (const auto &f : families) {
        (*names)[*count] = strdup(f.name.c_str());
        (*family_options)[(*count)++] = new_options(rocksdb::Options(rocksdb::DBOptions(), f.options));
    }
}

void rocksdb_load_latest_options_destroy(rocksdb_options_t *options, char **names, rocksdb_options_t **family_options,
                                         size_t count)
{
    rocksdb_options_destroy(options);
    for (size_t i = 0; i < count; i++) {
        free(names[i]);
        rocksdb_options_destroy(family_options[i]);
    }
    free(names);
    free(family_options);
}
#endif
