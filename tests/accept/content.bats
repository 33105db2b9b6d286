#!/usr/bin/env bats
# kill -9 of worker, master and journal in a loop under writers and readers of content: every byte read is compared with a
# model in memory (cv-content), at the end by another session, and once more after a restart of everything.
# KILLS: how often (default 12).
load ../bats/lib
load cluster

: "${KILLS:=12}"

setup() {
    cluster_begin content
    cluster_up
}

teardown() {
    cluster_end
}

@test "content is right under kill loops, and what was synced is there after a restart of everything" {
    mkdir model
    start content cv-content run --masters "unix:$CLUSTER/run/master.sock" --threads 4 --seconds 3600 --model model
    until_ok 30 test -s model/0
    for ((round = 0; round < KILLS; round++)); do
        touch -d now before
        until_ok 60 test model/$((round % 4)) -nt before
        case $((round % 4)) in
        0 | 2) kill_daemon worker ;;
        1) kill_daemon master ;;
        3) kill_daemon worker; kill_daemon master; kill_daemon journal ;;
        esac
        alive content
        run -0 cv local up --dir "$CLUSTER" 3>&-
    done
    stop content || { cat content.log; false; }
    cat content.log
    [ "$stopped" = 0 ]
    grep -q ' 0 wrong' content.log
    for daemon in worker master journal; do kill_daemon "$daemon"; done
    run -0 cv local up --dir "$CLUSTER" 3>&-
    run -0 cv-content verify --masters "unix:$CLUSTER/run/master.sock" --threads 4 --model model
    has "0 wrong"
}
