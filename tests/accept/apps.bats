#!/usr/bin/env bats
# Programs that were not written for us, on a mount: git and a build, tar, rsync, an SQLite database with concurrent
# writers, fio --verify, mmap; and the same while worker, master and journal are killed with -9 and started again under
# them: a pause, never an error or a wrong byte.
# KILLS: how often each is hit (default 9).
load ../bats/lib
load cluster

: "${KILLS:=9}"

setup() {
    needs_fuse
    cluster_begin apps
    mkdir mnt
    cluster_up
}

teardown() {
    touch killed.enough
    cluster_end
}

# KILLS times; then whatever is under way may come to its end in peace.
kill_loop() {
    local round=0
    while [ ! -e killed.enough ] && [ $round -lt "$KILLS" ]; do
        sleep "0.$((RANDOM % 9 + 1))" # anywhere in the work
        case $((round++ % 4)) in
        0) kill_daemon worker ;;
        1) kill_daemon master ;;
        2) kill_daemon journal ;;
        3) kill_daemon worker; kill_daemon master; kill_daemon journal ;;
        esac
        cv local up --dir "$CLUSTER" || return 1
        echo "$round" >killed
    done
}

killed() {
    [ "$(cat killed 2>/dev/null || echo 0)" -ge "$1" ]
}

# Run CMD over and over until the daemons were killed KILLS times under it.
while_killing() {
    rm -f killed killed.enough
    start killer kill_loop
    local turn=0
    until killed "$KILLS"; do
        alive killer || killed "$KILLS"
        "$@" $((turn++))
    done
    touch killed.enough
    stop killer 0
    [ "$stopped" = 0 ]
}

a_clone() { # NAME
    git clone -q --no-hardlinks "$CV_ROOT" "mnt/clone$1"
    git -C "mnt/clone$1" fsck --strict
    [ -z "$(git -C "mnt/clone$1" status --porcelain)" ]
    rm -rf "mnt/clone$1"
}

a_build() {
    git clone -q --no-hardlinks "$CV_ROOT" "mnt/build$1"
    make -s -C "mnt/build$1" build/lib/libcv_base.a build/lib/libcv_wire.a build/lib/libcv_conf.a >/dev/null
    (cd "mnt/build$1" && nm -A build/lib/libcv_base.a | grep -q log_set_level)
    rm -rf "mnt/build$1"
}

a_copy() { # by tar and by rsync, compared by content
    mkdir "mnt/tar$1"
    tar -C "$CV_ROOT" -c src meta raft worker tests/unit | tar -C "mnt/tar$1" -x
    rsync -a "$CV_ROOT/src" "$CV_ROOT/meta" "mnt/rsync$1/"
    diff -r "$CV_ROOT/src" "mnt/tar$1/src"
    diff -r "$CV_ROOT/src" "mnt/rsync$1/src"
    [ -z "$(rsync -anci --no-times "$CV_ROOT/src" "$CV_ROOT/meta" "mnt/rsync$1/")" ]
    rm -rf "mnt/tar$1" "mnt/rsync$1"
}

a_database() { # four writers, each insert a transaction; a writer is told "busy", never "malformed"
    local db=mnt/db$1 writer pids=()
    sqlite3 "$db" "create table t(writer, n, filler); create index i on t(n);" >/dev/null
    for writer in 1 2 3 4; do
        for n in $(seq 25); do
            echo "insert into t values($writer, $n, hex(randomblob(500)));"
        done | sqlite3 -bail -cmd ".timeout 60000" "$db" >/dev/null &
        pids+=($!)
    done
    for writer in "${pids[@]}"; do
        wait "$writer"
    done
    [ "$(sqlite3 "$db" 'pragma integrity_check')" = ok ]
    [ "$(sqlite3 "$db" 'select count(*), count(distinct writer * 1000 + n) from t')" = "100|100" ]
    rm "$db"
}

a_fio() {
    fio --name=v --directory=mnt --filename="fio$1" --size=24m --rw=randwrite --bs=12k --ioengine=psync --verify=crc32c \
        --do_verify=1 --verify_fatal=1 --fsync=64 --randrepeat=0 --output=fio.txt || { cat fio.txt; false; }
    rm "mnt/fio$1"
}

a_map() {
    cv-fsx -n 1500 -s "$((RANDOM + $1))" -l 3000000 "mnt/fsx$1"
    rm -f "mnt/fsx$1"
}

@test "git clone, fsck and a build" {
    a_clone 0
    a_build 0
}

@test "tar and rsync: every file equal" {
    a_copy 0
}

@test "SQLite: concurrent writers lose nothing" {
    a_database 0
}

@test "fio --verify, and random operations with shared mappings" {
    a_fio 0
    a_map 0
}

@test "kill loops under git, tar and rsync" {
    both() {
        a_clone "$1"
        a_copy "$1"
    }
    while_killing both
}

@test "kill loops under SQLite" {
    while_killing a_database
}

@test "kill loops under fio --verify and shared mappings" {
    both() {
        a_fio "$1"
        a_map "$1"
    }
    while_killing both
}
