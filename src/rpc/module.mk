# rpc: both ends of a call
rpc_src  := $(wildcard src/rpc/*.c)
rpc_pkgs := 
