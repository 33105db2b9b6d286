#!/usr/bin/env bats
# Three masters: whoever leads is killed, stopped and told to stop, journal, master and both by turns, under 40 clients that
# share their names, and under a mount. No client may see an error that a file system cannot give, nothing acknowledged may
# be lost or doubled, and the history of all of them must be linearizable (tests/tools/linear.h). How long failovers take is
# printed: from the signal to the first acknowledged change that was begun after it, of any client and of each.
# FAILOVERS: kills (default 100; the short form of .ci/run takes a few; a third of it for the others).
load ../bats/lib
load cluster

: "${FAILOVERS:=100}"
: "${FAILOVER_MAX_MS:=10000}" # on a machine that does many things at once; the aim is 1500

setup() {
    cluster_begin failover
    kills=$BATS_TEST_TMPDIR/kills
}

teardown() {
    cluster_end
}

load_begin() {
    start load cv-failover run --masters "$(masters)" --history history --kills "$kills" --seconds 7200
    until_ok 60 grep -q running load.log
}

# The load ends and judges itself; its figures are shown.
load_end() {
    kill "${started[load]}"
    until_ok 120 gone "${started[load]}" || { cat load.log; false; }
    stop load
    sed 's/^/# /' load.log >&3
    [ "$stopped" = 0 ]
    grep -q '^ok:' load.log
    awk -v most="$FAILOVER_MAX_MS" '/^failover all +client/ { seen = 1; if ($NF > most) bad = 1 } END { exit bad || !seen }' load.log
}

# led SIGNAL WHAT: to the journal, the master, or both of the node that leads.
led() {
    local at pids=()
    at=$(leader)
    [ "$2" = master ] || pids+=("$(pid_of "journal$at")")
    [ "$2" = journal ] || pids+=("$(pid_of "master$at")")
    cv-failover signal "$1" --kills "$kills" --what "$2" "${pids[@]}"
    hit=("${pids[@]}")
}

by_turns() {
    local all=(journal master both)
    echo "${all[$1 % 3]}"
}

another_leads() {
    leader > /dev/null
}

@test "kill -9 of whoever leads: clients notice nothing" {
    cluster_up --masters 3
    load_begin
    for ((round = 0; round < FAILOVERS; round++)); do
        until_ok 60 whole
        led KILL "$(by_turns $round)"
        for pid in "${hit[@]}"; do until_ok 10 gone "$pid"; done
        until_ok 30 another_leads
        alive load
        run -0 cv local up --dir "$CLUSTER" 3>&-
    done
    until_ok 60 whole
    load_end
}

@test "SIGSTOP of whoever leads: clients notice nothing, and what it had not told anybody counts for nothing" {
    cluster_up --masters 3
    load_begin
    for ((round = 0; round < (FAILOVERS + 2) / 3; round++)); do
        until_ok 60 whole
        led STOP "$(by_turns $round)"
        until_ok 30 another_leads
        cv-failover signal CONT --kills "$kills" --what again "${hit[@]}"
        alive load
    done
    until_ok 60 whole
    load_end
}

@test "whoever leads is told to stop: it hands over first" {
    cluster_up --masters 3
    load_begin
    for ((round = 0; round < (FAILOVERS + 2) / 3; round++)); do
        until_ok 60 whole
        led TERM "$(by_turns $round)"
        for pid in "${hit[@]}"; do until_ok 30 gone "$pid"; done
        alive load
        run -0 cv local up --dir "$CLUSTER" 3>&-
    done
    until_ok 60 whole
    load_end
}

@test "a mount stays busy while leaders are killed, and files without a name stay open" {
    needs_fuse
    mkdir mnt
    cluster_up --masters 3
    start oracle "$CV_ROOT/tests/tools/content-oracle" run mnt acks --threads 4 --seconds 7200
    start held "$CV_ROOT/tests/tools/held-open" mnt rounds
    until_ok 30 test -s acks
    until_ok 30 test -s rounds
    for ((round = 0; round < (FAILOVERS + 2) / 3; round++)); do
        until_ok 60 whole
        led KILL "$(by_turns $round)"
        for pid in "${hit[@]}"; do until_ok 10 gone "$pid"; done
        acks=$(wc -l < acks) rounds=$(wc -l < rounds)
        until_ok 60 go_on
        alive oracle
        alive held
        run -0 cv local up --dir "$CLUSTER" 3>&-
    done
    for name in oracle held; do
        stop $name || { cat $name.log; false; }
        cat $name.log
        [ "$stopped" = 0 ]
    done
}

go_on() {
    [ "$(wc -l < acks)" -gt $((acks + 20)) ] && [ "$(wc -l < rounds)" -gt $((rounds + 2)) ]
}
