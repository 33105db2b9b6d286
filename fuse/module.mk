# fuse: one mount: the kernel's requests in, client library calls out
cvfs_src  := $(wildcard fuse/cvfs*.c)
cvfs_pkgs := fuse3
