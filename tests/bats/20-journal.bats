#!/usr/bin/env bats
# cv-journal from outside: its tools, and kill -9 under proposals with an oracle that the journal does not know of.
# run-bats: 20 s

load lib

CLUSTER=0f8fad5b-d9cb-469f-a165-70867728950e
: "${CV_TOOLS:=$CV_ROOT/build/tools}"

journal() {
    start journal cv-journal -s journal.dir="$PWD/j" -s journal.socket="$PWD/sock" -s journal.http_port=0 "$@"
}

proposer() {
    start proposer "$CV_TOOLS/cv-proposer" --socket "$PWD/sock" --cluster $CLUSTER --log oracle "$@"
}

@test "format, check, dump: each says what it did and what to do" {
    run -4 cv-journal check -d j
    has "cv-journal format"
    run -2 cv-journal format -d j
    has "--cluster"
    run -2 cv-journal format -d j --cluster nonsense --single
    has "not a UUID"
    run -2 cv-journal format -d j --cluster $CLUSTER
    has "--single"
    run -2 cv-journal format -d j --cluster $CLUSTER --peers a:1,b:2,a:1 --self a:1
    has "once"
    run -2 cv-journal format -d j --cluster $CLUSTER --peers a:1,b:2 --self c:1
    has "--self"
    test ! -e j
    run -0 cv-journal format -d j --cluster $CLUSTER --single
    has "only voter"
    run -1 cv-journal format -d j --cluster $CLUSTER --single
    has "holds the log of node"
    run -0 cv-journal check -d j
    has "sound"
    run -0 cv-journal check -d j --json
    [ "$(jq -r .cluster <<<"$output")" = $CLUSTER ]
    run -0 cv-journal dump -d j --json
    [ "$(jq -r .type <<<"$output")" = conf ]
    run -2 cv-journal dump -d j --from x
}

@test "founding members have the same configuration and different nodes; a joining one has none" {
    for m in a b c; do
        cv-journal format -d $m --cluster $CLUSTER --peers a:1,b:1,c:1 --self $m:1
        cv-journal dump -d $m --json >$m.json
    done
    cmp a.json b.json
    cmp a.json c.json
    [ "$(jq -r '.members | length' a.json)" = 3 ]
    [ "$(for m in a b c; do cv-journal check -d $m --json | jq -r .node; done | sort -u | wc -l)" = 3 ]
    run -0 cv-journal join -d d --cluster $CLUSTER
    has "cv raft add"
    run -0 cv-journal dump -d d --json
    [ -z "$output" ]
}

@test "tools refuse beside a running journal, and a second journal too" {
    cv-journal format -d j --cluster $CLUSTER --single
    journal
    until_ok 10 test -S sock
    for c in "check" "dump" "format --cluster $CLUSTER --single"; do
        # shellcheck disable=SC2086
        run -4 cv-journal $c -d j
        has "stop it first"
    done
    run -1 cv-journal -s journal.dir="$PWD/j" -s journal.socket="$PWD/sock2" -s journal.http_port=0
    has "stop it first"
    alive journal
    stop journal
    [ "$stopped" = 0 ]
    test ! -e sock
    cv-journal check -d j
}

@test "an unformatted directory and an unknown command are refused" {
    run -2 cv-journal -s journal.dir="$PWD/none" -s journal.socket="$PWD/sock" -s journal.http_port=0
    has "cv-journal format"
    test ! -e none
    run -2 cv-journal fromat
    has "unknown command 'fromat'"
    run -0 cv-journal check --help
    has "Exit status"
    # Options before a command and behind it are the same.
    printf 'journal:\n  dir: %s/d\n' "$PWD" >some.yaml
    run -0 cv-journal --config some.yaml join --cluster $CLUSTER
    run -0 cv-journal join -d d --cluster $CLUSTER
    has "waiting to be added already"
    run -1 cv-journal join -d d --cluster 1f8fad5b-d9cb-469f-a165-70867728950e
    has "cv-journal rejoin"
    run -0 cv-journal check --config some.yaml
    run -0 cv-journal -d d check
    run -0 cv-journal --config=some.yaml -s journal.port=1 check --json
    run -0 cv-journal --help
    has "cv-journal force-new-cluster --keep NODE"
    run -0 cv-journal --man
    has "throw this log away"
}

@test "a flipped byte in the log: quarantine, check says where" {
    cv-journal format -d j --cluster $CLUSTER --single
    journal
    until_ok 10 test -S sock
    "$CV_TOOLS/cv-proposer" --socket sock --cluster $CLUSTER --log oracle --seconds 1
    stop journal KILL
    wal=$(ls -S j/log/*.log | head -1)
    python3 - "$wal" <<-END
	import sys
	f = open(sys.argv[1], "r+b")
	f.seek(0, 2); middle = f.tell() // 2
	f.seek(middle); b = f.read(1); f.seek(middle); f.write(bytes([b[0] ^ 16]))
	END
    journal
    until_ok 10 grep -q "quarantine" journal.log
    alive journal
    run -1 "$CV_TOOLS/cv-proposer" --socket sock --cluster $CLUSTER --log oracle --seconds 5
    has "CV_LOG_DAMAGED"
    stop journal
    run -1 cv-journal check -d j
    has "Corruption"
}

@test "kill -9 in a loop under proposals: nothing told committed is lost, nothing is there twice" {
    cv-journal format -d j --cluster $CLUSTER --single
    journal
    until_ok 10 test -S sock
    proposer --window 32
    for i in $(seq 1 "${CV_KILLS:-12}"); do
        told=$(grep -c '^C' oracle || true)
        until_ok 20 bash -c "[ \$(grep -c '^C' oracle) -gt $((told + 50)) ]"
        stop journal KILL
        alive proposer
        journal
    done
    told=$(grep -c '^C' oracle)
    until_ok 20 bash -c "[ \$(grep -c '^C' oracle) -gt $((told + 50)) ]"
    stop proposer
    [ "$stopped" = 0 ]
    stop journal
    cv-journal check -d j
    cv-journal dump -d j --json >dump
    run -0 "$CV_ROOT/tests/tools/journal-oracle" oracle dump
    echo "# $output" >&3
    # The oracle finds what it should.
    sed '/"type":"batch"/{0,/batch/d}' dump >short
    run -1 "$CV_ROOT/tests/tools/journal-oracle" oracle short
}

@test "kill -9 of the master: its successor is told everything that was committed" {
    cv-journal format -d j --cluster $CLUSTER --single
    journal
    until_ok 10 test -S sock
    for i in 1 2 3 4 5; do
        told=$(grep -c '^C' oracle 2>/dev/null || true)
        proposer --window 64
        until_ok 20 bash -c "[ \$(grep -c '^C' oracle) -gt $((${told:-0} + 100)) ]"
        stop proposer KILL
    done
    stop journal
    cv-journal dump -d j --json >dump
    "$CV_ROOT/tests/tools/journal-oracle" oracle dump
}
