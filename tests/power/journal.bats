#!/usr/bin/env bats
# Power cuts under the journal: what a master was told committed is on the disk, whatever the page cache lost.

load lib

CLUSTER=0f8fad5b-d9cb-469f-a165-70867728950e

journal() { # BIN
    start journal "$1/cv-journal" -s journal.dir="$PWD/disk/j" -s journal.socket="$PWD/sock" -s journal.http_port=0
    until_ok 20 test -S sock
}

more_told() { # N
    local told
    told=$(grep -c '^C' oracle 2>/dev/null || true)
    until_ok 30 bash -c "[ \$(grep -c '^C' oracle) -gt $((${told:-0} + $1)) ]"
}

# Cut the power n times under proposals by the programs in $1. Status 0: nothing was lost.
cut_and_look() { # BIN N
    local i
    for i in $(seq 1 "$2"); do
        rm -f sock
        journal "$1"
        start proposer "$CV_TOOLS/cv-proposer" --socket "$PWD/sock" --cluster $CLUSTER --log oracle --window 16
        more_told 200
        power_cut disk proposer
        until_ok 20 bash -c "! kill -0 ${started[journal]} 2>/dev/null" || return 9
        stop journal KILL
        stop proposer KILL
        power_back disk
        cv-journal check -d disk/j || return 1
        cv-journal dump -d disk/j --json >dump || return 1
        "$CV_ROOT/tests/tools/journal-oracle" oracle dump || return 1
    done
}

@test "power cut: nothing told committed is lost, and the journal ends by itself when its disk fails" {
    need_power
    power_disk disk
    cv-journal format -d disk/j --cluster $CLUSTER --single
    sync -f disk
    cut_and_look "$CV_BIN" 4
}

@test "power cut: a journal that does not sync is caught" {
    need_power
    [ -x "$CV_BIN_NOSYNC/cv-journal" ] || skip "needs the programs without fsync: make power"
    power_disk disk
    cv-journal format -d disk/j --cluster $CLUSTER --single
    sync -f disk
    run cut_and_look "$CV_BIN_NOSYNC" 2
    echo "$output"
    [ "$status" = 1 ]
}

@test "power cut right after format: the log is there, or there was none" {
    need_power
    power_disk disk 64M
    cv-journal format -d disk/j --cluster $CLUSTER --single
    power_cut disk
    power_back disk
    run -0 cv-journal check -d disk/j
    has "sound"
}
