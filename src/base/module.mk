# base: what everything stands on: errors, log, clock, lists, buffers, queues, pools, hashes
base_src  := $(wildcard src/base/*.c)
base_pkgs := libisal libxxhash
