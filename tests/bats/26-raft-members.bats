#!/usr/bin/env bats
# cv raft on real journals with masters beside them: growing, replacing, removing, while files are made. The commands are
# those of docs/operations.md.

load lib
load masters

# Makes directories :/w/1, :/w/2, ... and notes each that was acknowledged.
writer() {
    local i=0
    while :; do
        i=$((i + 1))
        cv --config "$PWD/n1/node.yaml" --timeout 20s fs mkdir ":/w/$i" 2>>writer.err || { echo "failed $i" >>made; return; }
        echo "$i" >>made
    done
}

start_writer() {
    cvc fs mkdir :/w
    : >made
    start writer bash -c "$(declare -f writer); writer"
}

made_since() {
    [ "$(wc -l <made)" -ge "$1" ]
}

more() {
    until_ok 30 made_since $(($(wc -l <made) + ${1:-3}))
}

stop_writer() {
    stop writer KILL || true
    ! grep failed made
    cvc fs ls :/w --json | jq -r '.[].name' | sort -n >there
    sort -n made >told
    comm -23 <(sort told) <(sort there) >lost
    [ ! -s lost ]
}

@test "grow from one to three, live; typed again it says already so" {
    make_nodes 3
    format_single 1
    start_node 1
    until_ok 20 raft status
    start_writer
    more
    for n in 2 3; do
        join $n
        start_node $n
        run -0 raft add 127.0.0.1:"${jport[$n]}" --clients 127.0.0.1:"${mport[$n]}" --timeout 60s
        has "done"
        more
        run -0 raft add 127.0.0.1:"${jport[$n]}" --clients 127.0.0.1:"${mport[$n]}"
        has "already so"
    done
    until_ok 20 raft status
    [ "$(raft_json | jq .voters)" = 3 ]
    [ "$(raft_json | jq '[.members[] | select(.role == "follower")] | length')" = 2 ]
    run -0 raft transfer
    more
    stop_writer
}
