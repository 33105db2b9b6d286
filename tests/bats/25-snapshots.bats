#!/usr/bin/env bats
# Snapshots: three journals, each with its master. A follower that was away while the log went on without it fetches the
# state; whoever is killed meanwhile, it gets there, from where it was.

# run-bats: 80 s
load lib
load snapshots

@test "a follower whose log is compacted catches up from a snapshot, under load, without an election" {
    found_masters 3
    run_masters 1 2 3
    until_ok 30 leading
    make_names a 200
    first=$(follower)
    stop_master "$first"
    make_names b 400
    until_ok 30 compacted_past "$first"
    load_names c &
    loader=$!
    term=$(journal_of "$(leading)" .term)
    run_masters "$first"
    until_ok 60 installed "$first" 1
    until_ok 60 caught_up "$first"
    [ "$(journal_of "$(leading)" .term)" = "$term" ]
    touch load.end
    wait $loader
    same_names
    # What is not in use is removed, and the directory of the new state is what it starts from.
    until_ok 20 only_states "$first" 'meta-*'
    stop_master "$first"
    run_masters "$first"
    until_ok 30 caught_up "$first"
}

# Three nodes whose third was away; it is back, and fetches, but a source gives a piece and then as good as nothing until
# let_go is called. $lagging, $source and $leader are set: so they are, and stay, while a file is there and more is missing.
held_fetch() {
    found_masters 3 "snapshot_rate: 1"
    run_masters 1 2 3
    until_ok 30 leading
    lagging=$(follower)
    make_names a 40
    stop_master "$lagging"
    make_names b 60
    until_ok 30 compacted_past "$lagging"
    run_masters "$lagging"
    until_ok 60 fetch_begun "$lagging"
    until_ok 20 leading
    leader=$(leading)
    source=$(source_of "$lagging")
}

# What came is in its file.
fetch_begun() {
    [ "$(snapshot_of "$1" fetch)" = running ] && [ -n "$(find "n$1/master/staging" -type f -size +0)" ]
}

# The node the snapshot comes from: a follower, or the leader if that was not far enough.
source_of() {
    local n from
    from=$(snapshot_of "$1" fetch_from)
    for n in $(seq "$nodes"); do
        [ "$(journal_of "$n" .id)" != "$from" ] || { echo "$n"; return 0; }
    done
    return 1
}

# From now on sources send as fast as they can, those that run and those that are started.
let_go() {
    local n
    for n in $(seq "$nodes"); do
        sed -i 's/snapshot_rate: 1$/snapshot_rate: 0/' "n$n/curvine.yaml"
        [ -z "${started[j$n]:-}" ] || ! kill -0 "${started[j$n]}" 2>/dev/null || kill -HUP "${started[j$n]}"
    done
}

# The receiver found what was there, N times by now, and waits for the rest.
went_on() {
    [ "$(grep -c "bytes of the snapshot are here already" j"$lagging".log)" -ge "$1" ] &&
        [ "$(snapshot_of "$lagging" fetch)" = running ]
}

elected() {
    local n
    for n in $(seq "$nodes"); do
        [ "$(journal_of "$n" .role 2>/dev/null)" != leader ] || return 0
    done
    return 1
}

@test "receiver, source and leader of a snapshot are killed one after the other: it goes on from where it was" {
    held_fetch
    stop_master "$lagging" KILL
    run_masters "$lagging"
    until_ok 60 went_on 1
    source=$(source_of "$lagging")
    stop_master "$source" KILL
    run_masters "$source"
    [ "$source" = "$leader" ] || until_ok 60 went_on 2 # the next leader's files may be others
    until_ok 30 leading
    leader=$(leading)
    stop_master "$leader" KILL
    until_ok 30 elected # who cannot commit anything, and so cannot serve, until the receiver has its state
    let_go
    until_ok 60 installed "$lagging" 1
    run_masters "$leader"
    until_ok 60 caught_up "$lagging"
    same_names
}

@test "a journal without a master that was away takes the place where the log goes on, and no files" {
    log_only=3
    found_masters 3
    run_masters 1 2 3
    until_ok 30 leading
    make_names a 40
    stop_master 3
    make_names b 200
    until_ok 30 compacted_past 3
    run_masters 3
    until_ok 60 installed 3 1
    [ "$(snapshot_of 3 fetched_bytes)" = 0 ]
    # It votes with that log: the cluster lives without one of the others.
    until_ok 30 caught_up 3
    stop_master "$(leading)" KILL
    until_ok 30 leading
    make_names c 20
}
