#!/usr/bin/env bats
# Disks that fill up, and disks whose fsync fails, under one of three journals, or of three masters, and 40 clients: the others
# go on, no client sees an error, nothing acknowledged is lost (tests/tools/linear.h). A journal never says that it has what its
# disk refused.
#
# A disk with errors: ext4 on a loop device whose file lies, full of holes, in a small tmpfs. Fill that, and what the kernel
# writes back into a hole fails: fsync answers EIO, as of a medium that is worn out. (No device mapper is needed for it.)
load ../bats/lib
load ../bats/wire
load wired

setup() {
    JOURNAL_OPTIONS="disk_reserve_bytes: 64MiB"
    MASTER_OPTIONS=$'disk_reserve_bytes: 64MiB\n  flush_interval_ms: 500ms'
    wired_begin disks
}

teardown() {
    local n
    wired_end
    for n in 1 2 3; do
        ! mountpoint -q "disk$n" || umount -l "disk$n"
    done
}

# A tmpfs for the journal, or master, of each node.
small_disks() {
    local n
    for n in 1 2 3; do
        mkdir -p "$NODES/n$n/$1"
        mount -t tmpfs -o size=400M none "$NODES/n$n/$1" || skip "needs tmpfs"
    done
}

# Leave so many MiB free.
fill() {
    local dir=$1 free
    rm -f "$dir/ballast"
    free=$(stat -f -c '%a * %S' "$dir")
    free=$(((free >> 20) - $2))
    [ "$2" = 0 ] && { dd if=/dev/zero of="$dir/ballast" bs=1M 2>/dev/null || true; } && return
    fallocate -l "${free}M" "$dir/ballast"
}

up_again() {
    local n=$1
    if gone "${started[j$n]}"; then
        stop "j$n" || true
        stop "m$n" || true
        wired_start "$n"
    fi
}

@test "the disk of the leader's journal fills up: another leads, it comes back with room" {
    small_disks journal
    wired_format
    wired_start 1 2 3
    until_ok 20 whole
    load_begin
    for rest in 40 0; do
        old=$(until_ok 20 leader >/dev/null && leader)
        mark "leader's disk: $rest MiB" heal
        fill "$NODES/n$old/journal" $rest
        until_ok 20 another_than "$old"
        progress_from
        until_ok 10 goes_on 500
        mark "CONT room" heal
        rm "$NODES/n$old/journal/ballast"
        echo "# $rest MiB: $(gone "${started[j$old]}" && echo "it stopped" || echo "it stayed, without the lead")" >&3
        up_again "$old"
        until_ok 30 whole
    done
    load_end
}

@test "the disk of a follower's journal fills up: nobody notices, it comes back with room" {
    small_disks journal
    wired_format
    wired_start 1 2 3
    until_ok 20 whole
    load_begin
    for rest in 40 0; do
        old=$(until_ok 20 leader >/dev/null && leader)
        before="$old $(term)"
        read -r a b < <(others "$old")
        mark "follower's disk: $rest MiB" heal
        fill "$NODES/n$a/journal" $rest
        progress_from
        until_ok 10 goes_on 2000
        [ "$(leader) $(term)" = "$before" ]
        mark "CONT room" heal
        rm "$NODES/n$a/journal/ballast"
        echo "# $rest MiB: $(gone "${started[j$a]}" && echo "it stopped" || echo "it stayed")" >&3
        up_again "$a"
        until_ok 30 whole
    done
    load_end
}

# ---- the disk of a master ----

# The state of master N: leading, following ...; whether it lacks nothing.
master_is() {
    at_node "$1" curl -s -m 1 http://127.0.0.1:9001/status | jq -r .status.state
}

works() {
    [[ $(master_is "$1") == @(leading|following) ]] && [ "$(gauge "$1" disk_low)" = 0 ]
}

gauge() {
    at_node "$1" curl -s -m 1 http://127.0.0.1:9001/metrics | awk -v name="curvine_master_$2" '$1 == name { print $2 }'
}

gauge_is() {
    [ "$(gauge "$1" "$2")" = "$3" ]
}

cv_at() {
    cv-wire "$WIRE" exec "$CLIENTS" cv -c "$NODES/n1/node.yaml" "$@"
}

@test "the disk of the leader's master fills up: another leads, it comes back with room" {
    small_disks master
    wired_format
    wired_start 1 2 3
    until_ok 20 whole
    load_begin
    for rest in 40 0 40 0; do
        old=$(until_ok 20 leader >/dev/null && leader)
        mark "leader's master: $rest MiB" heal
        fill "$NODES/n$old/master" $rest
        until_ok 20 another_than "$old"
        progress_from
        until_ok 10 goes_on 500
        mark "CONT room" heal
        rm "$NODES/n$old/master/ballast"
        alive "m$old"
        until_ok 30 whole
        until_ok 10 works "$old"
    done
    load_end
}

@test "masters run out of room by turns: leadership goes on once for each, not to and fro" {
    small_disks master
    wired_format
    wired_start 1 2 3
    until_ok 20 whole
    load_begin
    first=$(term) before=
    for turn in 1 2 3 4 5 6; do
        old=$(until_ok 20 leader >/dev/null && leader)
        mark "by turns" heal
        fill "$NODES/n$old/master" 40
        until_ok 20 another_than "$old"
        mark "CONT by turns" heal
        [ -z "$before" ] || rm "$NODES/n$before/master/ballast"
        [ -z "$before" ] || until_ok 10 works "$before"
        before=$old
    done
    progress_from
    until_ok 10 goes_on 500
    echo "# 6 turns, $(($(term) - first)) terms" >&3
    [ $(($(term) - first)) -le 8 ]
    load_end
}

@test "the disks of all masters are nearly full: one leads on, refuses what is new after a while, and takes what removes" {
    small_disks master
    wired_format
    wired_start 1 2 3
    until_ok 20 whole
    cv_at fs mkdir :/a
    for n in 1 2 3; do
        fill "$NODES/n$n/master" 40
    done
    until_ok 30 refuses_new
    old=$(leader) first=$(term)
    run -0 cv_at fs ls :/
    run -0 cv_at fs rm -r :/a
    run -1 cv_at fs mkdir :/b
    has ENOSPC
    run -3 cv_at cluster status
    has "DEGRADED: a disk is nearly full"
    has "master.disk_reserve_bytes"
    for ((until = SECONDS + 3; SECONDS < until; )); do # it must not go to and fro: at no moment another one, or another term
        [ "$(leader) $(term)" = "$old $first" ]
    done
    # One has room again: it leads, and all is as it was.
    read -r a b < <(others "$old")
    rm "$NODES/n$a/master/ballast"
    until_ok 10 cv_at fs mkdir :/b
    [ "$(leader)" = "$a" ]
    rm "$NODES/n$b/master/ballast" "$NODES/n$old/master/ballast"
    for n in 1 2 3; do
        until_ok 10 works $n
    done
}

refuses_new() {
    ! cv_at fs mkdir :/new 2>refused || { cv_at fs rm -r :/new; return 1; }
    grep -q ENOSPC refused
}

@test "the disk of a follower's master fills up: nobody notices but who looks, it comes back with room" {
    small_disks master
    wired_format
    wired_start 1 2 3
    until_ok 20 whole
    load_begin
    for rest in 40 0; do
        old=$(until_ok 20 leader >/dev/null && leader)
        before="$old $(term)"
        read -r a b < <(others "$old")
        mark "follower's master: $rest MiB" heal
        fill "$NODES/n$a/master" $rest
        until_ok 10 noticed "$a"
        progress_from
        until_ok 10 goes_on 2000
        [ "$(leader) $(term)" = "$before" ]
        run -3 cv_at cluster status
        echo "$output" >status.$rest
        has DEGRADED
        mark "CONT room" heal
        rm "$NODES/n$a/master/ballast"
        alive "m$a"
        until_ok 30 whole
        until_ok 20 works "$a"
    done
    load_end
}

# Says its log, and its metrics as long as it is there to be asked.
noticed() {
    grep -q "nearly full" "m$1.log" && { gauge_is "$1" disk_low 1 || grep -q "waits for room" "m$1.log"; }
}

# ---- damage ----

flushed_by_all() {
    local n
    for n in 1 2 3; do
        [ -n "$(needle_in "$n")" ] || return 1
    done
}

needle_in() {
    grep -l Qneedlewithoutrepeat "$NODES/n$1/master"/*/*.sst 2>/dev/null
}

@test "a leader that cannot read what others can: they lead, and nobody sees an error" {
    wired_format
    wired_start 1 2 3
    until_ok 20 whole
    cv_at fs mkdir :/Qneedlewithoutrepeat
    until_ok 20 flushed_by_all
    old=$(leader)
    read -r a b < <(others "$old")
    stop "m$a"
    for file in $(needle_in "$a"); do
        sed -i s/Qneedle/Xneedle/ "$file"
    done
    start "m$a" cv-wire "$WIRE" exec "$a" cv-master --config "$NODES/n$a/node.yaml"
    until_ok 20 works "$a"
    until_ok 20 leads_after_transfer "$a"
    load_begin
    mark "a row cannot be read" heal
    run -0 cv_at fs stat :/Qneedlewithoutrepeat
    until_ok 20 another_than "$a"
    mark "CONT others lead" heal
    run -3 cv_at cluster status
    has "DEGRADED: a master cannot read all of its database"
    alive "m$a"
    gauge_is "$a" damaged 1
    grep -q "read the metadata database: another master leads" "m$a.log"
    load_end
    # Thrown away, its state comes again: the log goes back to the beginning.
    stop "m$a"
    cv-master --config "$NODES/n$a/node.yaml" rejoin --yes $WIRED_CLUSTER
    start "m$a" cv-wire "$WIRE" exec "$a" cv-master --config "$NODES/n$a/node.yaml"
    until_ok 20 works "$a"
    until_ok 20 leads_after_transfer "$a"
    run -0 cv_at fs stat :/Qneedlewithoutrepeat
    [ "$(leader)" = "$a" ]
    gauge_is "$a" damaged 0
}

leads_after_transfer() {
    [ "$(leader)" != "$1" ] || return 0
    cv_at raft transfer "$(of_state "$1" .id)" >/dev/null || true
    [ "$(leader)" = "$1" ]
}

# ---- EIO ----

# holed_disks journal|master [OPTIONS]. Of a file's data ext4 says ENOSPC then, of its own journal EIO: data=journal.
holed_disks() {
    local n
    losetup -f >/dev/null 2>&1 || skip "needs loop devices"
    for n in 1 2 3; do
        mkdir -p "disk$n" "$NODES/n$n/$1"
        mount -t tmpfs -o size=200M none "disk$n" || skip "needs tmpfs"
        truncate -s 1G "disk$n/image"
        mkfs.ext4 -q "disk$n/image"
        mount -o "loop,${2:-defaults}" "disk$n/image" "$NODES/n$n/$1"
    done
}

# What it said that it has on disk, again and again, until it ends.
watch_durable() {
    while at_node "$1" curl -s -m 1 http://127.0.0.1:9004/status | jq -r .status.durable; do
        :
    done
}

eio() {
    local n=$1
    : >durable.log
    start durable watch_durable "$n"
    until_ok 10 test -s durable.log
    dd if=/dev/zero of="disk$n/ballast" bs=1M 2>/dev/null || true
    until_ok 30 gone "${started[j$n]}" # or it goes on with a disk that fails
    stop durable
    durable=$(grep -E '^[0-9]+$' durable.log | tail -n 1)
    stop "j$n" || true
    echo "# $2: $(grep -iE 'i/o error|input/output|read-only|EIO' "j$n.log" | tail -n 1)" >&3
    grep -qiE 'i/o error|input/output|EIO' "j$n.log"
    [ "$stopped" != 0 ]
    progress_from
    until_ok 10 goes_on 500
    # A new medium, with what was on the old one.
    rm "disk$n/ballast"
    stop "m$n" || true
    until_ok 10 umount "$NODES/n$n/journal"
    e2fsck -fy "disk$n/image" >fsck.log 2>&1 || [ $? -le 2 ]
    mount -o loop "disk$n/image" "$NODES/n$n/journal"
    mark "CONT repaired" heal
    run cv-journal check -d "$NODES/n$n/journal/"
    if [ "$status" = 0 ]; then
        last=$(cv-journal dump -d "$NODES/n$n/journal/" --json | tail -n 1 | jq .index)
        echo "# $2: it had said that it has $durable entries, it has $last" >&3
        [ "$last" -ge "$durable" ]
        wired_start "$n"
        until_ok 30 whole
    else # what was not written may have been the middle of a record: then it does not guess
        has "must not vote or acknowledge any more"
        echo "# $2: its log is damaged, and it says so" >&3
    fi
}

@test "fsync fails under the leader's journal: it stops with the reason, says nothing it has not, and the others go on" {
    holed_disks journal
    wired_format
    wired_start 1 2 3
    until_ok 20 whole
    load_begin
    old=$(until_ok 20 leader >/dev/null && leader)
    mark "leader's disk fails" heal
    eio "$old" leader
    load_end
}

@test "fsync fails under a follower's journal: it stops with the reason, says nothing it has not, and nobody notices" {
    holed_disks journal
    wired_format
    wired_start 1 2 3
    until_ok 20 whole
    load_begin
    old=$(until_ok 20 leader >/dev/null && leader)
    read -r a b < <(others "$old")
    mark "follower's disk fails" heal
    eio "$a" follower
    load_end
}

# Of a master: it ends with the reason, and follows warm when the medium is repaired.
eio_master() {
    local n=$1
    dd if=/dev/zero of="disk$n/ballast" bs=1M 2>/dev/null || true
    until_ok 60 gone "${started[m$n]}" # or it goes on with a disk that fails
    stop "m$n" || true
    echo "# $2: $(tail -n 1 "m$n.log")" >&3
    # Some builds of RocksDB end the process before anybody hears of the error.
    grep -qE "write the metadata database: stopping.*\(EIO\)|RocksDB ended the process.* disk fails" "m$n.log"
    [ "$stopped" != 0 ]
    progress_from
    until_ok 10 goes_on 500
    alive "j$n" # its vote, and its copy of the log, are there
    rm "disk$n/ballast"
    until_ok 10 umount "$NODES/n$n/master"
    e2fsck -fy "disk$n/image" >fsck.log 2>&1 || [ $? -le 2 ]
    mount -o loop "disk$n/image" "$NODES/n$n/master"
    mark "CONT repaired" heal
    start "m$n" cv-wire "$WIRE" exec "$n" cv-master --config "$NODES/n$n/node.yaml"
    until_ok 30 works "$n"
    until_ok 30 whole
}

@test "fsync fails under the leader's master: it stops with the reason, another leads, it comes back after the repair" {
    holed_disks master data=journal
    wired_format
    wired_start 1 2 3
    until_ok 20 whole
    load_begin
    old=$(until_ok 20 leader >/dev/null && leader)
    mark "leader's master fails" heal
    eio_master "$old" leader
    load_end
}

@test "fsync fails under a follower's master: it stops with the reason, nobody notices, it comes back after the repair" {
    holed_disks master data=journal
    wired_format
    wired_start 1 2 3
    until_ok 20 whole
    load_begin
    old=$(until_ok 20 leader >/dev/null && leader)
    before="$old $(term)"
    read -r a b < <(others "$old")
    mark "follower's master fails" heal
    eio_master "$a" follower
    [ "$(leader) $(term)" = "$before" ]
    load_end
}
