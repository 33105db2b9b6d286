#!/usr/bin/env bats
# Snapshots: three journals, each with its master. A follower that was away while the log went on without it fetches the
# state; whoever is killed meanwhile, it gets there, from where it was.

load lib
load snapshots

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
    kill $loader; wait $loader 2>/dev/null || true
    same_names
    # What is not in use is removed, and the directory of the new state is what it starts from.
    until_ok 10 only_states "$first" 'meta-*'
    stop_master "$first"
    run_masters "$first"
    until_ok 20 caught_up "$first"
}
