# rocks: what the RocksDB of Red Hat 9 (6.26) lacks of the C interface we use; nothing with a newer one
rocks_src  := $(wildcard src/rocks/*.cc)
rocks_pkgs := rocksdb
