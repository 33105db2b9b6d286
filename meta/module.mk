# meta: the namespace as a pure state machine (meta_*) and the daemon around it (master_*)
meta_src    := $(wildcard meta/meta_*.c)
master_src  := $(wildcard meta/master_*.c meta/master_*.cc)
master_pkgs := rocksdb
