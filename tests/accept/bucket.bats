#!/usr/bin/env bats
# A bucket of a real S3 server through the mount: every file equal, every byte fetched once, the second pass without the
# server, and 32 readers at once on cold data.
# OBJECTS, LARGEST: how many objects, bytes of the largest (default 10,000 and 1 GiB; the short form of .ci/run takes less).
load ../bats/lib
load ../bats/s3
load cluster

: "${OBJECTS:=10000}" "${LARGEST:=1073741824}"

setup_file() {
    s3_install
}

setup() {
    needs_fuse
    cluster_begin bucket
}

teardown() {
    cluster_end
}

# Names the store allows and a file system does not, or that would be mistaken for one, are escaped (src/ufs/ufs_escape.h).
as_names() {
    sed 's|/%~x|/%~%%~x|'
}

mount_here() {
    mkdir -p mnt
    cv --dir "$CLUSTER" mount :/data mnt 3>&-
}

equal() {
    (cd mnt && sha256sum --quiet -c) <manifest.names
}

@test "every object reads equal, each byte is fetched once, and the second pass needs no server" {
    "$CV_ROOT/tests/tools/make-tree" tree "$OBJECTS" "$LARGEST" >manifest
    as_names <manifest >manifest.names
    bytes=$(find tree -type f -printf '%s\n' | awk '{ sum += $1 } END { printf "%.0f\n", sum }')
    cv local up --dir "$CLUSTER" --capacity $((bytes * 2 + (1 << 30))) 3>&-
    s3_start data
    s3_tree data tree
    rm -rf tree
    cv --dir "$CLUSTER" mount s3://data :/data "${s3_params[@]}" 3>&-
    mount_here
    [ "$(find mnt -type f | wc -l)" = "$OBJECTS" ]
    equal
    echo "fetched $(metric fill_bytes) of $bytes bytes in $(metric fill_gets) requests"
    [ "$(metric fill_bytes)" = "$bytes" ]
    [ "$(metric direct_bytes)" = 0 ]

    # Nothing of the kernel's cache, and no server: it is in the worker.
    cv --dir "$CLUSTER" umount mnt 3>&-
    s3_stop
    mount_here
    equal
    [ "$(metric fill_bytes)" = "$bytes" ]

    # And from the disks of daemons that were killed.
    cv --dir "$CLUSTER" umount mnt 3>&-
    for daemon in worker master journal; do kill_daemon "$daemon"; done
    cv local up --dir "$CLUSTER" 3>&-
    mount_here
    equal
    [ "$(metric fill_bytes)" = 0 ]
}

@test "32 readers of cold data at once fetch it once" {
    cv local up --dir "$CLUSTER" --capacity 2GiB 3>&-
    s3_start data
    head -c $((67108864 + 123)) /dev/urandom >one
    sum=$(sha256sum <one)
    s3_put data one one
    cv --dir "$CLUSTER" mount s3://data :/data "${s3_params[@]}" 3>&-
    mount_here
    pids=()
    for ((i = 0; i < 32; i++)); do
        sha256sum <mnt/one >"sum.$i" 3>&- &
        pids+=($!)
    done
    wait "${pids[@]}"
    for ((i = 0; i < 32; i++)); do
        [ "$(cat "sum.$i")" = "$sum" ]
    done
    [ "$(metric fill_bytes)" = $((67108864 + 123)) ]
}

@test "what is read of a large object is fetched, not all of it" {
    cv local up --dir "$CLUSTER" --capacity 2GiB 3>&-
    s3_start data
    head -c 64M /dev/urandom >one
    s3_put data one one
    cv --dir "$CLUSTER" mount s3://data :/data "${s3_params[@]}" 3>&-
    mount_here
    [ "$(dd if=mnt/one bs=1 skip=50000000 count=1 status=none | od -An -tx1)" = "$(dd if=one bs=1 skip=50000000 count=1 status=none | od -An -tx1)" ]
    echo "one byte fetched $(metric fill_bytes) bytes"
    [ "$(metric fill_bytes)" -le $((2 << 20)) ]
}

@test "a cold read from begin to end is fetched in large ranges, each byte once" {
    cv local up --dir "$CLUSTER" --capacity 2GiB 3>&-
    s3_start data
    head -c 256M /dev/urandom >one
    s3_put data one one
    cv --dir "$CLUSTER" mount s3://data :/data "${s3_params[@]}" 3>&-
    mount_here
    cmp one mnt/one
    echo "$(metric fill_bytes) bytes in $(metric fill_gets) requests"
    [ "$(metric fill_bytes)" = $((256 << 20)) ]
    [ "$(metric fill_gets)" -le 110 ]
}
