#!/usr/bin/env bats
# Bytes that are wrong on a worker's disk, and a disk that is full, as an application sees them through the mount: clean
# data heals from the under file system, written data is never passed off as good, a full disk is told to who writes and
# to nobody who reads.
load ../bats/lib
load cluster

setup() {
    needs_fuse
    cluster_begin damage
    mkdir mnt ufs
}

teardown() {
    cluster_end
}

sealed() {
    ! cv --dir "$CLUSTER" fs blocks "$1" | grep -q "no checksums yet"
}

# Its memory of what it has checked is gone with it, and so is what the kernel remembers of the mount.
restart_worker() {
    cv --dir "$CLUSTER" umount mnt 3>&-
    kill_daemon worker
    "$@"
    cluster_up
}

# Turn one bit of each file around, in its middle.
flip() {
    python3 - "$@" <<'END'
import os, sys
for path in sys.argv[1:]:
    with open(path, "r+b") as f:
        f.seek(os.path.getsize(path) // 2)
        byte = f.read(1)
        f.seek(-1, 1)
        f.write(bytes([byte[0] ^ 0x40]))
END
}

flip_files() { flip $(find "$CLUSTER/worker/files" -type f -size +1M); }
flip_segments() { flip $(find "$CLUSTER/worker/segments" -type f); }
flip_index() { flip $(find "$CLUSTER/worker/index" -name '*.sst' -o -name '*.log' -size +0 | grep -v LOG); }

@test "a flipped byte in a backing file, a segment and the index of clean data is healed" {
    head -c $((5 << 20)) /dev/urandom >ufs/large
    for ((i = 0; i < 20; i++)); do head -c 20000 /dev/urandom >"ufs/small.$i"; done
    (cd ufs && sha256sum ./*) >sums
    cluster_up --capacity 2GiB
    cv --dir "$CLUSTER" mount "file://$PWD/ufs" :/ufs 3>&-
    (cd mnt/ufs && sha256sum -c --quiet ../../sums)
    for what in flip_files flip_segments flip_index; do
        restart_worker "$what"
        (cd mnt/ufs && sha256sum -c --quiet ../../sums)
    done
}

@test "written data is never passed off as good when its bytes are wrong" {
    cluster_up --capacity 2GiB
    head -c $((5 << 20)) /dev/urandom >data
    cp data mnt/data
    sync mnt/data
    cmp data mnt/data
    # When writing has paused, what was written gets its checksums.
    until_ok 90 sealed :/data
    cv --dir "$CLUSTER" umount mnt 3>&-
    cv local down --dir "$CLUSTER" 3>&-
    flip_files
    cluster_up
    run cat mnt/data
    [ "$status" != 0 ]
    [[ "$output" == *"Input/output error"* ]]
    # What is not damaged can be read, and the file can be removed.
    cmp -n 1000000 data mnt/data
    rm mnt/data
    grep -q damaged "$CLUSTER/log/worker.log"
}

@test "a full disk is told to who writes, and to nobody who reads" {
    head -c $((300 << 20)) /dev/urandom >ufs/large
    sum=$(sha256sum <ufs/large)
    cluster_up --capacity 256MiB
    cv --dir "$CLUSTER" mount "file://$PWD/ufs" :/ufs 3>&-
    # Larger than the cache: read all the same.
    [ "$(sha256sum <mnt/ufs/large)" = "$sum" ]
    run dd if=/dev/zero of=mnt/much bs=1M count=400 conv=fsync
    [ "$status" != 0 ]
    [[ "$output" == *"No space left on device"* ]]
    [ "$(sha256sum <mnt/ufs/large)" = "$sum" ]
    echo kept >mnt/small
    [ "$(cat mnt/small)" = kept ]
    # Room again for who removes something.
    rm mnt/much
    until_ok 30 dd if=/dev/zero of=mnt/again bs=1M count=100 conv=fsync
}
