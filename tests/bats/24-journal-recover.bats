#!/usr/bin/env bats
# The tools for when the usual way is gone: compare, force-new-cluster, rejoin, check --repair-tail.
# run-bats: 10 s

load lib

CLUSTER=0f8fad5b-d9cb-469f-a165-70867728950e
OTHER=0f8fad5b-d9cb-469f-a165-70867728950f
: "${CV_TOOLS:=$CV_ROOT/build/tools}"

setup() {
    cd "$BATS_TEST_TMPDIR" || return 1
    declare -gA started=()
    for m in a b c; do
        cv-journal format -d $m --cluster $CLUSTER --peers a:1,b:1,c:1 --self $m:1 --journal-only c:1 >/dev/null
    done
}

node() {
    cv-journal check -d "$1" --json | jq -r .node
}

@test "compare names the furthest log and says what to do" {
    run -2 cv-journal compare a
    has "two or more"
    run -0 cv-journal compare a b c
    has "same to"
    has "force-new-cluster"
    cv-journal force-new-cluster -d b --keep "$(node b)" --yes $CLUSTER
    run -0 cv-journal compare --json a b c
    [ "$(jq -r '.[] | select(.best).dir' <<<"$output")" = b ]
    [ "$(jq -r '.[0].same_to' <<<"$output")" = 1 ]
    cv-journal format -d x --cluster $OTHER --single
    run -1 cv-journal compare a x
    has "different clusters"
    run -4 cv-journal compare a nowhere
    test ! -e nowhere
}

@test "force-new-cluster asks for the cluster's id, says what is lost, and is done once" {
    id=$(node a)
    run -2 cv-journal force-new-cluster -d a
    has "--keep NODE"
    run -2 cv-journal force-new-cluster -d a --keep "$(node b)" --yes $CLUSTER
    has "is node $id's"
    run -2 cv-journal force-new-cluster -d a --keep "$id" --yes $OTHER
    has "Nothing was changed"
    run -1 cv-journal force-new-cluster -d a --keep "$id" </dev/null
    has "LOST"
    has "nothing was changed"
    run -1 cv-journal force-new-cluster -d c --keep "$(node c)" --yes $CLUSTER
    has "journal-only"
    [ "$(cv-journal check -d a --json | jq .incarnation)" = 1 ]
    run -0 cv-journal force-new-cluster -d a --keep "$id" <<<$CLUSTER
    has "incarnation 2"
    [ "$(cv-journal check -d a --json | jq -c '[.incarnation, .term, .last]')" = "[2,1001,2]" ]
    run -0 cv-journal force-new-cluster -d a --keep "$id" --yes $CLUSTER
    has "already"
    [ "$(cv-journal check -d a --json | jq .incarnation)" = 2 ]

    # It runs, alone, and takes proposals.
    start journal cv-journal -s journal.dir="$PWD/a" -s journal.socket="$PWD/sock" -s journal.http_port=0 \
        -s journal.listen=127.0.0.1 -s journal.port=0
    until_ok 10 test -S sock
    "$CV_TOOLS/cv-proposer" --socket sock --cluster $CLUSTER --log oracle --seconds 1
    [ "$(grep -c '^C' oracle)" -gt 0 ]
    run -4 cv-journal force-new-cluster -d a --keep "$id" --yes $CLUSTER
    has "stop it first"
    run -4 cv-journal rejoin -d a --yes $CLUSTER
    has "stop it first"
    stop journal
    cv-journal check -d a
}

@test "rejoin throws the log away under a new id, and never makes one of an empty directory" {
    old=$(node a)
    run -1 cv-journal rejoin -d a </dev/null
    has "thrown away"
    [ "$(node a)" = "$old" ]
    run -0 cv-journal rejoin -d a --yes $CLUSTER
    has "cv raft replace $old"
    has "cv-master rejoin"
    [ "$(node a)" != "$old" ]
    [ "$(cv-journal check -d a --json | jq -c '[.last, .term]')" = "[0,0]" ]
    # Typed again: the id it will be added by stays, unless it is to be another one's.
    new=$(node a)
    run -0 cv-journal rejoin -d a </dev/null
    has "waiting to be added already: nothing was changed"
    has "cv raft replace OLD"
    run -0 cv-journal rejoin -d a --yes $CLUSTER --json
    [ "$(jq -r '.node, .changed' <<<"$output" | xargs)" = "$new false" ]
    [ "$(node a)" = "$new" ]
    run -1 cv-journal rejoin -d a --incarnation 5 </dev/null
    has "thrown away"
    run -0 cv-journal rejoin -d a --incarnation 5 --yes $CLUSTER
    [ "$(node a)" != "$new" ]
    run -4 cv-journal rejoin -d none --yes $CLUSTER
    test ! -e none
    mkdir empty
    run -4 cv-journal rejoin -d empty --cluster $CLUSTER --yes $CLUSTER
    has "cv-journal join"
    test ! -e empty/log
    rm b/log/CURRENT
    run -1 cv-journal rejoin -d b --yes $CLUSTER
    has "--cluster UUID"
    run -0 cv-journal rejoin -d b --cluster $CLUSTER --yes $CLUSTER
    cv-journal check -d b
}

@test "a sound log needs no repair" {
    run -0 cv-journal check -d a --repair-tail
    has "nothing to repair"
}

@test "journal-only founding members are marked in the configuration" {
    cv-journal dump -d a --json >dump
    [ "$(jq -r '.members[] | select(.journal_only).address' dump)" = c:1 ]
    run -2 cv-journal format -d y --cluster $CLUSTER --peers a:1,b:1 --self a:1 --journal-only d:1
    has "none of --peers"
    run -2 cv-journal format -d y --cluster $CLUSTER --peers a:1,b:1 --self a:1 --journal-only a:1,b:1
    has "keeps the namespace"
}
