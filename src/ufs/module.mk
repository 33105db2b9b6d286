# ufs: under file systems: one ops table, one file each
ufs_src  := $(wildcard src/ufs/*.c)
ufs_pkgs := libcurl expat libcrypto
