#!/usr/bin/env bats
# A power cut right after a node's log was switched to a state it fetched: the log is gone before that state, so every byte
# of it must be on disk by then. The node goes on from it, and fetches nothing again.

load lib
load ../bats/snapshots

: "${CUTS:=3}"

gone() {
    ! kill -0 "${started[$1]}" 2>/dev/null
}

# Somebody but node 3 leads.
led_by_others() {
    local n
    n=$(leading) || return 1
    [ "$n" != 3 ] || { cv raft transfer "$(journal_of 1 .id)" >/dev/null; false; }
}

# Node 3's master runs on that state, and has what is committed.
works_with_all() {
    [ "$(master_state 3 applied)" -ge "$(journal_of "$(leading)" .commit)" ]
}

# Node 3's journal is of BIN, and its disk the one whose power is cut. Status 0: it went on from what it had fetched. 1: not.
cut_and_look() { # BIN CUTS
    local i
    found_masters 3
    power_disk disk
    mv n3 disk/n3
    ln -s disk/n3 n3
    sync -f disk
    run_masters 1 2
    start j3 "$1/cv-journal" -c n3/curvine.yaml
    start m3 cv-master -c n3/curvine.yaml
    until_ok 30 led_by_others || return 2
    make_names a 40
    for ((i = 1; i <= $2; i++)); do
        stop_master 3
        make_names "b$i" 200
        until_ok 30 compacted_past 3 || return 2
        start j3 "$1/cv-journal" -c n3/curvine.yaml
        start m3 cv-master -c n3/curvine.yaml
        until_ok 60 installed 3 1 || return 2
        power_cut disk
        stop j3 KILL
        stop m3 KILL
        power_back disk
        start j3 "$1/cv-journal" -c n3/curvine.yaml
        start m3 cv-master -c n3/curvine.yaml
        until_ok 20 works_with_all || return 1
        [ "$(snapshot_of 3 installed)" = 0 ] || return 1
    done
    same_names
}

@test "power cut: a state that was fetched is there when the log goes on behind it" {
    need_power
    cut_and_look "$CV_BIN" "$CUTS"
}

@test "power cut: a journal that does not sync what it fetched is caught" {
    need_power
    [ -x "$CV_BIN_NOSYNC/cv-journal" ] || skip "needs the programs without fsync: make power"
    export CV_TEST_SYNC_LOG=1
    run cut_and_look "$CV_BIN_NOSYNC" 3
    echo "$output"
    [ "$status" = 1 ]
}
