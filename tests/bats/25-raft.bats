#!/usr/bin/env bats
# cv raft on one voter: the tables, what is refused and why, and that saying a thing twice is no error.
# run-bats: 10 s

load lib

setup_file() {
    export DIR=$BATS_FILE_TMPDIR/c
    cv_bin=${CV_BIN:-$BATS_TEST_DIRNAME/../../build/bin}
    "$cv_bin/cv" local up --dir "$DIR" --capacity 256MiB 2>/dev/null 3>&-
}

teardown_file() {
    "${CV_BIN:-$BATS_TEST_DIRNAME/../../build/bin}/cv" local down --dir "$DIR" 2>/dev/null
}

raft() {
    cv --dir "$DIR" raft "$@"
}

@test "status: members, positions, and the same as JSON" {
    run -0 raft status
    has "status         OK"
    has "leader"
    run -0 raft status --json
    [ "$(jq -r .status <<<"$output")" = OK ]
    [ "$(jq -r '.members | length' <<<"$output")" = 1 ]
    [ "$(jq -r '.members[0].node' <<<"$output")" = "$(jq -r .leader <<<"$output")" ]
    [ "$(jq .last <<<"$output")" -ge "$(jq .commit <<<"$output")" ]
    run -0 raft status -o wide
    has "FLUSHED"
    has "MASTER"
    run -2 raft status extra
}

@test "nobody to ask: says whom it asked, exit 4" {
    run -4 cv --cluster 127.0.0.1:1 raft status
    has "127.0.0.1:1"
    has "systemctl status cv-master"
}

@test "adding an address where nobody is is refused with the reason, and changes nothing" {
    run -1 raft add 127.0.0.1:1
    has "nobody to add at 127.0.0.1:1"
    has "cv-journal join"
    run -2 raft add noport
    has "host:port"
    run -2 raft add
    [ "$(raft status --json | jq '.members | length')" = 1 ]
}

@test "a dry run says the steps and takes none" {
    run -0 raft add 127.0.0.1:1 --node 00000000000000aa --dry-run --json
    [ "$(jq -r .result <<<"$output")" = "dry run: nothing was changed" ]
    [ "$(jq -r '.steps | length' <<<"$output")" = 3 ]
    [ "$(jq -r '.before | length' <<<"$output")" = 1 ]
    [ "$(raft status --json | jq '.members | length')" = 1 ]
}

@test "a learner that never comes: the wait ends by itself, says how to go on, and is taken back; twice is fine" {
    run -1 raft add 127.0.0.1:1 --node 00000000000000aa --timeout 2s
    has "does not hear from it"
    has "cv raft remove 00000000000000aa"
    run -3 raft status
    has "has not answered this leader"
    run -0 raft add 127.0.0.1:1 --node 00000000000000aa --learner --dry-run
    has "already so"
    run -0 raft set-addr 00000000000000aa 127.0.0.1:2 --clients 127.0.0.1:3
    has "127.0.0.1:2"
    run -0 raft set-addr 127.0.0.1:2 127.0.0.1:2
    has "already so"
    run -0 raft remove 0000000
    has "done"
    run -0 raft remove 00000000000000aa
    has "already so"
    run -0 raft status
}

@test "the last full voter stays" {
    id=$(raft status --json | jq -r .leader)
    for c in remove demote; do
        run -1 raft $c "$id"
        has "last full voter"
        run -1 raft $c "$id" --force
        has "last full voter"
    done
    run -1 raft transfer
    has "no other full voter"
    run -0 raft transfer "$id"
    has "already so"
    run -0 raft promote "$id"
    has "already so"
    run -1 raft promote nobody
    has "is no member"
    run -0 raft wait-caught-up "$id"
}

@test "snapshot: what is applied is on disk afterwards" {
    cv --dir "$DIR" fs mkdir :/x
    run -0 raft snapshot --json
    has "all up to entry"
    id=$(raft status --json | jq -r .leader)
    until_ok 5 bash -c "cv --dir $DIR raft status --json | jq -e '.members[0].flushed > 3'"
}
