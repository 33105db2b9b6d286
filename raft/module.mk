# raft: the pure consensus core (raft_*) and the daemon giving it disk, network and time (journal_*)
raft_src     := $(wildcard raft/raft_*.c)
journal_src  := $(wildcard raft/journal*.c)
journal_pkgs := rocksdb
