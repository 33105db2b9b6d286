#!/usr/bin/env bats
# kill -9 of each daemon, and of all, in a loop under 40 mutating clients: no answer may be wrong, nothing acknowledged
# lost or doubled. The oracle is cv-oracle (tests/tools), whose log of acknowledgements no daemon knows of.
# KILLS: how often (default 30; the short form of .ci/run takes fewer).
load ../bats/lib
load cluster

: "${KILLS:=30}"

setup() {
    cluster_begin kill
    cluster_up
}

teardown() {
    cluster_end
}

acknowledged() {
    [ "$(grep -c E oracle.ack)" -gt "$1" ]
}

@test "kill loops lose and double nothing" {
    start oracle cv-oracle run --masters "unix:$CLUSTER/run/master.sock" --log oracle.ack --threads 40 --seconds 3600
    until_ok 20 test -s oracle.ack
    for ((round = 0; round < KILLS; round++)); do
        count=$(grep -c E oracle.ack || true)
        until_ok 60 acknowledged $((count + 200 + RANDOM % 2000))
        case $((round % 3)) in
        0) kill_daemon master ;;
        1) kill_daemon journal ;;
        2) kill_daemon master; kill_daemon journal ;;
        esac
        alive oracle
        run -0 cv local up --dir "$CLUSTER" 3>&-
    done
    count=$(grep -c E oracle.ack)
    until_ok 60 acknowledged $((count + 100))
    stop oracle || { cat oracle.log; false; }
    cat oracle.log
    [ "$stopped" = 0 ]
    grep -q '^ok: 40 threads' oracle.log
    # And once more from the log alone, after a restart of everything.
    kill_daemon master
    kill_daemon journal
    cv local up --dir "$CLUSTER" 3>&-
    cv-oracle verify --masters "unix:$CLUSTER/run/master.sock" --log oracle.ack
}
