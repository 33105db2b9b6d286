#!/usr/bin/env bats
# cv mount and cv umount: what is refused before anything is changed.
load lib

@test "mistakes in the arguments are named and change nothing" {
    run -2 cv mount gopher://b :/data
    has "unknown scheme 'gopher://'; this version knows file://, s3://"
    run -2 cv mount s3:// :/data
    has "names no bucket"
    run -2 cv mount file://srv :/data
    has "whole path"
    run -2 cv mount s3://b
    has ":/PATH attaches, DIR attaches and mounts"
    run -2 cv mount :/data
    has "where shall :/data go?"
    run -2 cv mount /srv/data :/data
    has "cv mount file:///srv/data :/data"
    run -2 cv mount :/a :/b
    has "expected URI :/PATH, :/PATH DIR or URI DIR"
    run -2 cv mount :/a s3://b
    has "expected URI :/PATH, :/PATH DIR or URI DIR"
    run -2 cv mount s3://b :/data --mode turbo
    has "expected cache, fs or scratch"
    run -2 cv mount s3://b :/data --mode scratch
    has "without s3://b"
    run -2 cv mount :/a here --mode cache
    has "belong to attaching"
    run -2 cv umount s3://b
    has "name the path it is attached at"
}

@test "parameters are checked, and secrets are not repeated" {
    run -2 cv mount s3://b :/data --param secretkey=hunter2
    has "did you mean 'secret_key'?"
    lacks hunter2
    run -2 cv mount s3://b :/data --param hunter2
    has "expected NAME=VALUE"
    lacks hunter2
    echo secret_key=hunter2 > params
    chmod 644 params
    run -2 cv mount s3://b :/data --param-file params
    has "chmod 600"
    lacks hunter2
    run -2 cv mount s3://b :/data --param-file nowhere
    has "cannot read 'nowhere'"
}

@test "what is no mount is not unmounted" {
    mkdir plain
    run -1 cv umount plain
    has "nothing is mounted at '$BATS_TEST_TMPDIR/plain'"
    run -1 cv umount nowhere
    has "unmount 'nowhere'"
    run -1 cv umount /proc
    has "none of ours"
}

@test "a busy, missing or full mount point is refused, whether or not there is a cluster" {
    [ -w /dev/fuse ] || skip "no /dev/fuse"
    run -1 cv mount :/ /proc
    has "'/proc' is busy"
    run -1 cv mount :/ nowhere
    has "mkdir -p"
    touch file
    run -1 cv mount :/ file
    has "file"
    mkdir full
    touch full/x
    run -1 cv mount :/ full
    has "--over hides what is in this one"
}

@test "without a master cv mount says so and still lists what is mounted here" {
    run -4 cv --cluster unix:nowhere.sock --timeout 300ms mount
    has "no master at unix:nowhere.sock"
    has "KIND"
}
