#!/usr/bin/env bats
# Snapshots: three journals, each with its master. A follower that was away while the log went on without it fetches the
# state; whoever is killed meanwhile, it gets there, from where it was.

load ../bats/lib
load ../bats/snapshots

@test "a follower whose log is compacted catches up from a snapshot, under load, without an election" {
    found_masters 3
    run_masters 1 2 3
    until_ok 20 leading
    make_names a 200
    first=$(follower)
    stop_master "$first"
    make_names b 400
    until_ok 20 compacted_past "$first"
    load_names c &
    loader=$!
    term=$(journal_of "$(leading)" .term)
    run_masters "$first"
    until_ok 30 installed "$first" 1
    until_ok 30 caught_up "$first"
    [ "$(journal_of "$(leading)" .term)" = "$term" ]
    touch load.end
    wait $loader
    same_names
    # What is not in use is removed, and the directory of the new state is what it starts from.
    until_ok 10 only_states "$first" 'meta-*'
    stop_master "$first"
    run_masters "$first"
    until_ok 20 caught_up "$first"
}

# Three nodes whose third was away; it is back, and fetches slowly. $lagging, $source, $leader are set, and $total bytes.
slow_fetch() {
    found_masters 3 "snapshot_rate: 128KiB"
    run_masters 1 2 3
    until_ok 20 leading
    lagging=$(follower)
    make_names a 40
    stop_master "$lagging"
    make_bulk 12
    until_ok 20 compacted_past "$lagging"
    run_masters "$lagging"
    until_ok 30 fetching "$lagging" 150000
    total=$(snapshot_of "$lagging" fetch_bytes)
    source=$(giving)
    until_ok 20 leading
    leader=$(leading)
    [ "$total" -gt 200000 ] # it may have been made while names were still added
}

# A follower, or the leader if that was not far enough.
giving() {
    local n
    for n in 1 2 3; do
        [ "$(snapshot_of "$n" give)" != ready ] || { echo "$n"; return 0; }
    done
    return 1
}

fetching() {
    [ "$(snapshot_of "$1" fetch)" = running ] && [ "$(snapshot_of "$1" fetched_bytes)" -ge "$2" ]
}

# The state is there, and hardly a byte came twice: pieces on their way when somebody died are lost, no more.
arrived_once() {
    local sent died=${2:-}
    until_ok 60 installed "$lagging" 1
    sent=$(($(snapshot_of "$lagging" fetched_bytes) + ${1:-0}))
    echo "$total bytes of state, $sent came over the wire"
    # Who gave it led, and died: the next leader's files are others.
    [ "$died" = "$source" ] && [ "$source" = "$leader" ] || [ "$sent" -lt $((total * 3 / 2)) ]
    until_ok 30 caught_up "$lagging"
    same_names
}

@test "the receiver of a snapshot is killed: it goes on from where it was" {
    slow_fetch
    before=$(snapshot_of "$lagging" fetched_bytes)
    stop_master "$lagging" KILL
    run_masters "$lagging"
    arrived_once "$before"
    grep -q "bytes of the snapshot are here already" j"$lagging".log
}

@test "the source of a snapshot is killed: the receiver goes on when it is back" {
    slow_fetch
    stop_master "$source" KILL
    run_masters "$source"
    arrived_once 0 "$source"
    [ "$source" = "$leader" ] || grep -q "bytes of the snapshot are here already" j"$lagging".log
}

@test "the leader is killed while a follower fetches a snapshot: the next leader lets it finish" {
    slow_fetch
    stop_master "$leader" KILL
    until_ok 60 installed "$lagging" 1
    run_masters "$leader"
    arrived_once 0 "$leader"
}

@test "a journal without a master that was away takes the place where the log goes on, and no files" {
    log_only=3
    found_masters 3
    run_masters 1 2 3
    until_ok 20 leading
    make_names a 40
    stop_master 3
    make_names b 200
    until_ok 20 compacted_past 3
    run_masters 3
    until_ok 30 installed 3 1
    [ "$(snapshot_of 3 fetched_bytes)" = 0 ]
    # It votes with that log: the cluster lives without one of the others.
    until_ok 20 caught_up 3
    stop_master "$(leading)" KILL
    until_ok 20 leading
    make_names c 20
}
