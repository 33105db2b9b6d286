// SPDX-License-Identifier: Apache-2.0
// See master_flush.h. RocksDB's C handles are structs whose first member is the pointer to the C++ object; that is all
// this file relies on, and it checks it by asking the database for its name.
#include "meta/master_flush.h"

#include <cstring>
#include <string>
#include <vector>

#include <rocksdb/db.h>

template <typename Object, typename Handle> static Object *inside(Handle *handle)
{
    return *reinterpret_cast<Object **>(handle);
}

void master_flush_all(rocksdb_t *db, const char *path, rocksdb_column_family_handle_t *const *families, size_t count,
                      char **error)
{
    auto *d = inside<rocksdb::DB>(db);
    if (d->GetName() != path) {
        *error = strdup("the C handle of the database is not laid out as expected");
        return;
    }
    std::vector<rocksdb::ColumnFamilyHandle *> all;
    for (size_t i = 0; i < count; i++)
        all.push_back(inside<rocksdb::ColumnFamilyHandle>(families[i]));
    rocksdb::Status s = d->Flush(rocksdb::FlushOptions(), all);
    if (!s.ok())
        *error = strdup(s.ToString().c_str());
}
