#!/usr/bin/env bats
# cv raft on real journals with masters beside them: growing, replacing, removing, while files are made. The blocks of
# docs/operations.md are typed as they stand there (run_doc).
# MEMBER_ROUNDS: kills while members change (0 here; "make accept" does it).
# run-bats: 55 s

load lib
load masters

: "${CV_TOOLS:=$CV_ROOT/build/tools}"

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

@test "grow from one to three, live, as the document says; typed again it says already so" {
    make_nodes 3
    format_single 1
    start_node 1
    until_ok 20 raft status
    own
    start_writer
    more
    run_doc "Grow from one to three"
    more
    run -0 raft add 127.0.0.1:"${jport[3]}" --clients 127.0.0.1:"${mport[3]}"
    has "already so"
    [ "$(raft_json | jq .voters)" = 3 ]
    [ "$(raft_json | jq '[.members[] | select(.role == "follower")] | length')" = 2 ]
    run -0 raft transfer
    more
    stop_writer
}

grow_to_three() {
    local n
    make_nodes "${1:-3}"
    format_single 1
    start_node 1
    until_ok 20 raft status
    own
    for n in 2 3; do
        join $n
        start_node $n
        raft add 127.0.0.1:"${jport[$n]}" --clients 127.0.0.1:"${mport[$n]}" --timeout 60s
    done
    until_ok 20 raft status
}

@test "a wiped node is replaced as the document says: the same address, a new member" {
    grow_to_three
    start_writer
    more
    old[3]=$(id_of 3)
    kill_node 3
    rm -rf n3/journal n3/master
    more
    until_ok 10 bash -c "cv --config $PWD/n1/node.yaml raft status | grep -q 'cv raft replace ${old[3]}'"
    run -3 raft status
    run_doc "A node is dead"
    run -0 raft replace "${old[3]}" 127.0.0.1:"${jport[3]}" --clients 127.0.0.1:"${mport[3]}"
    has "already so"
    more
    until_ok 20 raft status
    [ "$(raft_json | jq .voters)" = 3 ]
    [ "$(id_of 3)" != "${old[3]}" ]
    stop_writer
}

@test "the leader itself is removed, and rejoins" {
    grow_to_three
    start_writer
    more
    l=$(leads)
    id=$(id_of "$l")
    run -0 raft remove "$id"
    has "have another one lead instead of $id"
    more
    [ "$(raft_json | jq '.members | length')" = 2 ]
    [ "$(leads)" != "$l" ]
    run -3 raft status
    has "two voters"
    # Going on to one is for those who say so.
    other=$(raft_json | jq -r '.leader as $l | .members[] | select(.node != $l).node')
    run -1 raft remove "$other"
    has "--force"
    stop_node "$l"
    run -0 cv-journal rejoin -c "n$l/node.yaml" --yes $CLUSTER
    start_journal_of "$l"
    # The state beside the old log is refused by the new one: it may be of another history.
    start_master_of "$l"
    until_ok 20 grep -q "cv-master rejoin" "m$l.log"
    stop "m$l"
    run -0 cv-master --config "n$l/node.yaml" rejoin --yes $CLUSTER
    start_master_of "$l"
    run -0 raft add 127.0.0.1:"${jport[$l]}" --clients 127.0.0.1:"${mport[$l]}" --timeout 60s
    until_ok 20 raft status
    more
    stop_writer
}

all_compared() {
    raft compare --json >compared || true
    [ "$(jq '[.nodes[] | select(.log == "not compared")] | length' compared)" = 0 ]
}

@test "compare holds running logs against each other, and names the one that was changed" {
    grow_to_three
    for i in $(seq 20); do
        cvc fs mkdir ":/d$i"
    done
    run -0 raft compare
    has "SAME"
    run -0 raft compare --json --from 5 --to 20
    [ "$(jq -c '[.from, .to, .compared, .first_difference]' <<<"$output")" = "[5,20,16,null]" ]
    [ "$(jq -r '[.nodes[].log] | unique | join(",")' <<<"$output")" = same ]
    run -2 raft compare --from 9 --to 3
    run -3 raft compare --from 1000000
    has "NOT COMPARED"

    # One byte of an old entry, everything on that node made to fit: only the others can tell.
    n=$(leads)
    n=$((n % 3 + 1))
    id=$(id_of $n)
    raft snapshot # so that its master does not read the entry again
    stop "j$n"
    entry=$(cv-journal dump -c "n$n/node.yaml" --json | jq -s 'map(select(.type == "batch"))[3].index')
    "$CV_TOOLS/cv-forge" "n$n/journal" "$entry"
    cv-journal check -c "n$n/node.yaml" >/dev/null
    start_journal_of "$n"
    until_ok 20 all_compared
    run -1 raft compare --json
    [ "$(jq .first_difference <<<"$output")" = "$entry" ]
    [ "$(jq -r --arg id "$id" '.nodes[] | select(.node == $id).log' <<<"$output")" = DIFFERS ]
    [ "$(jq -r '[.nodes[].log] | sort | join(",")' <<<"$output")" = "DIFFERS,as most,as most" ]
    jq -r .action <<<"$output" | grep "^$id .* must not vote"
    run -1 raft compare --from $((entry + 1)) --to $((entry + 2)) # the chain remembers it
    has "at or before entry $entry"

    # Two of three are left to be compared.
    stop "j$n" KILL
    run -3 raft compare --from $((entry + 1)) --json
    [ "$(jq -r --arg id "$id" '.nodes[] | select(.node == $id).log' <<<"$output")" = "not compared" ]
}

@test "two full masters and a journal-only voter survive the loss of any one" {
    make_nodes 3
    format_single 1
    start_node 1
    until_ok 20 raft status
    own
    join 2
    start_node 2
    raft add 127.0.0.1:"${jport[2]}" --clients 127.0.0.1:"${mport[2]}" --timeout 60s
    run -3 raft status
    has "may be --journal-only"
    cv-journal join -c n3/node.yaml --cluster $CLUSTER
    start_journal_of 3
    run -0 raft add --journal-only 127.0.0.1:"${jport[3]}" --timeout 60s
    until_ok 20 raft status
    [ "$(raft_json | jq -r '.members[] | select(.kind == "journal-only").address')" = 127.0.0.1:"${jport[3]}" ]
    until_ok 10 raft compare # the one without a master too, asked by another journal
    run -1 raft transfer 127.0.0.1:"${jport[3]}"
    has "journal-only"
    run -1 raft remove 127.0.0.1:"${jport[2]}"
    has "--force"
    start_writer
    more
    for n in 1 2 3; do
        kill_node $n
        more
        start_journal_of $n
        [ $n = 3 ] || start_master_of $n
        until_ok 30 raft status
        more
    done
    stop_writer
}

@test "membership changes under kill -9: whatever dies, typing it again ends as wanted" {
    [ "${MEMBER_ROUNDS:-0}" -gt 0 ] || skip "in tests/accept/members.bats"
    grow_to_three 4
    start_writer
    join 4
    start_node 4
    for round in $(seq "$MEMBER_ROUNDS"); do
        start change cv --config "$PWD/n1/node.yaml" raft add 127.0.0.1:"${jport[4]}" --clients 127.0.0.1:"${mport[4]}" --timeout 60s
        sleep 0.$((RANDOM % 4))
        l=$(leads) || l=1
        kill_node "$l"
        start_node "$l"
        stop change KILL || true
        run -0 raft add 127.0.0.1:"${jport[4]}" --clients 127.0.0.1:"${mport[4]}" --timeout 60s
        [ "$(raft_json | jq .voters)" = 4 ]
        more
        start change cv --config "$PWD/n1/node.yaml" raft demote 127.0.0.1:"${jport[4]}" --timeout 60s
        sleep 0.$((RANDOM % 4))
        l=$(leads) || l=1
        kill_node "$l"
        start_node "$l"
        stop change KILL || true
        run -0 raft demote 127.0.0.1:"${jport[4]}" --timeout 60s
        [ "$(raft_json | jq .voters)" = 3 ]
        more
    done
    stop_writer
}

@test "quorum is gone: the survivor goes on alone, nothing acknowledged before is lost, no id is given out twice" {
    grow_to_three
    cvc fs mkdir :/a
    cvc fs touch :/a/before
    raft transfer 127.0.0.1:"${jport[1]}"
    until_ok 20 raft wait-caught-up
    # The two who die have something the third never heard of, ids among it.
    stop_node 1
    until_ok 20 leads
    cvc fs mkdir :/lost
    given=$(cvc fs stat :/lost --json | jq .inode)
    kill_node 2
    kill_node 3
    run -0 cv-journal compare n1/journal n2/journal n3/journal
    old[1]=$(cv-journal check -d n1/journal --json | jq -r .node)
    start_node 1
    until_ok 20 bash -c "cv --config $PWD/n1/node.yaml raft status | grep -q 'quorum is gone'"
    run -4 raft status
    run_doc "Quorum is gone" 1
    [ "$(raft_json | jq .incarnation)" = 2 ]
    cvc fs stat :/a/before
    cvc fs mkdir :/new
    now=$(cvc fs stat :/new --json | jq .inode)
    [ "$now" -gt "$((given + 1000000000))" ]

    # The others' logs are of another history: refused until they rejoin.
    start_node 2
    run -1 raft add 127.0.0.1:"${jport[2]}" --timeout 5s
    has "incarnation"
    run_doc "Quorum is gone" 2
    [ "$(raft_json | jq .voters)" = 3 ]
    run -0 raft transfer
    cvc fs stat :/new
    run ! cvc fs stat :/lost
}

says() {
    raft status >said 2>&1 || true
    grep -F "$1" said
}

other_journal() {
    [ -z "${started[j3]:-}" ] || stop j3
    rm -rf n3/journal
    cv-journal join -c n3/node.yaml "$@" >/dev/null
    start_journal_of 3
}

listed_as() {
    cvc node list >nodes || true
    grep -F "$1" nodes
}

@test "status names why a member is not heard, and what to type" {
    grow_to_three
    id=$(id_of 3)
    stop m2
    sed -i '/^master/,$s/listen: .*/listen: 0.0.0.0/' n2/node.yaml
    start_master_of 2
    until_ok 10 listed_as "127.0.0.1:${mport[2]}"
    run ! grep 0.0.0.0 nodes

    stop_node 3
    until_ok 15 says "start cv-journal there"
    grep "survives .*no further loss" said
    other_journal --cluster $CLUSTER
    until_ok 15 says "as a new member: cv raft replace $id 127.0.0.1:${jport[3]}"
    other_journal --cluster 0f8fad5b-d9cb-469f-a165-70867728950f
    until_ok 15 says "cv raft set-addr $id"
    other_journal --cluster $CLUSTER --incarnation 7
    until_ok 15 says "of a former life of the cluster"

    stop_node 2
    until_ok 15 says "1 of 3 voters answer, 2 are needed; no word of"
    grep -F "127.0.0.1:${jport[2]}" said
    stop j1
    until_ok 15 says "no journal answers (master 127.0.0.1:${mport[1]}: the journal at "
    run -4 raft status
    has "journalctl -u cv-journal"
}
