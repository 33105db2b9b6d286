# worker: the block store (block_*) and the daemon around it (worker_*)
block_src   := $(wildcard worker/block_*.c)
block_pkgs  := rocksdb
worker_src  := $(wildcard worker/worker_*.c)
