#!/usr/bin/env bats
# Power cuts under a cluster of "cv local" with a mount: what fsync() returned for is in the files afterwards, and no byte
# is of anything that was not written there. Master, journal and worker are on the disk that loses what was not synced.

load lib

: "${CUTS:=3}"

setup() {
    cd "$BATS_TEST_TMPDIR" || return 1
    declare -gA started=()
    [ -c /dev/fuse ] || skip "needs /dev/fuse"
    mkdir mnt
}

synced() { # LOG N
    [ "$(grep -c '^S' "$1" 2>/dev/null)" -gt "$2" ]
}

many_closed() { # LOG N
    [ "$(grep -c '^C' "$1" 2>/dev/null)" -gt "$2" ]
}

pids() {
    "$1/cv" local status --dir "$cluster" -o json | jq -r '.[].pid // empty'
}

gone() {
    ! kill -0 "$1" 2>/dev/null
}

begin() { # BIN
    "$1/cv" local up --dir "$cluster" 3>&- && "$1/cv" --dir "$cluster" mount :/ "$PWD/mnt" 3>&-
}

# Status 0: all that was synced is there. 1: not. Others: the test itself failed.
cut_and_look() { # BIN N
    local i pid daemons
    cluster=$BATS_TEST_TMPDIR/disk/c
    for ((i = 1; i <= $2; i++)); do
        begin "$1" || return 1
        mapfile -t daemons < <(pids "$1")
        [ ${#daemons[@]} -ge 4 ] || return 2
        start oracle "$CV_ROOT/tests/tools/content-oracle" run "mnt/round$i" "oracle.$i"
        until_ok 60 synced "oracle.$i" $((100 + RANDOM % 200)) || return 2
        power_cut disk oracle
        for pid in "${daemons[@]}"; do
            kill -9 "$pid" 2>/dev/null || true
        done
        for pid in "${daemons[@]}"; do
            until_ok 20 gone "$pid" || return 3
        done
        stop oracle KILL || return 4
        umount -l mnt
        power_back disk || return 5
        begin "$1" || return 1
        timeout 120 "$CV_ROOT/tests/tools/content-oracle" verify "mnt/round$i" "oracle.$i" || return 1
        "$1/cv" umount "$PWD/mnt"
    done
    "$1/cv" local down --dir "$cluster"
}

@test "power cut behind a close without fsync: the bytes are there, or reading them fails; zeros never" {
    need_power
    power_disk disk 1G
    cluster=$BATS_TEST_TMPDIR/disk/c
    local i pid daemons
    for ((i = 1; i <= CUTS; i++)); do
        begin "$CV_BIN"
        mapfile -t daemons < <(pids "$CV_BIN")
        start writer "$CV_ROOT/tests/tools/content-oracle" write "mnt/closed$i" "closed.$i"
        until_ok 60 many_closed "closed.$i" $((10 + RANDOM % 15))
        power_cut disk writer
        kill -9 "${daemons[@]}"
        for pid in "${daemons[@]}"; do
            until_ok 20 gone "$pid"
        done
        stop writer KILL
        umount -l mnt
        power_back disk
        begin "$CV_BIN"
        timeout 300 "$CV_ROOT/tests/tools/content-oracle" closed "mnt/closed$i" "closed.$i"
        "$CV_BIN/cv" umount "$PWD/mnt"
    done
    "$CV_BIN/cv" local down --dir "$cluster"
}

@test "power cut under writers on a mount: what was synced is there" {
    need_power
    power_disk disk 1G
    cut_and_look "$CV_BIN" "$CUTS"
}

@test "power cut under writers on a mount: a worker that does not sync is caught" {
    need_power
    [ -x "$CV_BIN_NOSYNC/cv-worker" ] || skip "needs the programs without fsync: make power"
    power_disk disk 1G
    mkdir bin # cv looks for the daemons beside itself
    cp "$CV_BIN"/cv* bin
    cp "$CV_BIN_NOSYNC/cv-worker" bin
    run cut_and_look "$PWD/bin" 3
    echo "$output"
    kill -9 $(pids "$PWD/bin") || true
    umount -l mnt || true
    [ "$status" = 1 ]
}
