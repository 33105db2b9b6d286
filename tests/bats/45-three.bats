#!/usr/bin/env bats
# cv local up --masters 3: three journals and three masters in one directory. Any one may die, and status says so.
# run-bats: 25 s
load lib

setup() {
    cd "$BATS_TEST_TMPDIR"
    declare -gA started=()
    CLUSTER=$(mktemp -d /tmp/cv-three-XXXXXX)
}

teardown() {
    [ -n "$BATS_TEST_COMPLETED" ] || tail -n 15 "$CLUSTER"/log/* || true
    cv local down --dir "$CLUSTER" 3>&- || true
    rm -rf "$CLUSTER"
    end_started
}

c() {
    cv --dir "$CLUSTER" "$@"
}

# Which of the nodes (1, 2, 3) leads.
leader() {
    c node list -o json | jq -r '[.[] | select(.role == "master").state] | index("leading") + 1'
}

pid_of() {
    cv local status --dir "$CLUSTER" -o json | jq -r ".[] | select(.daemon == \"cv-$1\") | .pid // empty"
}

status_is() {
    [ "$(c cluster status -o json | jq -r .status)" = "$1" ]
}

# One leads, two follow, of the masters and of the journals, and all know the same term.
all_in_place() {
    local nodes
    nodes=$(c node list -o json)
    [ "$(jq -r '[.[] | select(.role == "master").state] | sort | join(" ")' <<< "$nodes")" = "following following leading" ] &&
        [ "$(jq -r '[.[] | select(.role == "journal").state] | sort | join(" ")' <<< "$nodes")" = "follower follower leader" ] &&
        [ "$(jq -r '[.[] | select(.role != "worker").term] | unique | length' <<< "$nodes")" = 1 ]
}

@test "three masters: one dies and the service goes on, all stop and come back" {
    cv local up --dir "$CLUSTER" --masters 3 3>&-
    until_ok 10 status_is OK
    until_ok 10 all_in_place
    run -2 cv local up --dir "$CLUSTER" --masters 5
    has "is there, with 3"
    c fs mkdir :/before

    # Both parts of the node that leads.
    node=$(leader)
    suffix=$([ "$node" = 1 ] || echo "-$node")
    kill -9 "$(pid_of "journal$suffix")" "$(pid_of "master$suffix")"
    c fs mkdir :/after
    until_ok 10 status_is "DEGRADED: a master is down"
    run -3 c cluster status -o json
    [ "$(jq -r .action <<< "$output")" = "start it: cv local up --dir $CLUSTER" ]
    run -3 cv local status --dir "$CLUSTER"
    [ "$(grep -c stopped <<< "$output")" = 2 ]
    cv local up --dir "$CLUSTER" 3>&-
    until_ok 10 status_is OK

    # No majority: it is said, and an end of it is an end.
    kill -9 "$(pid_of journal)" "$(pid_of journal-2)"
    until_ok 10 status_is "DOWN: nobody leads"
    run -4 c cluster status
    run -4 cv --dir "$CLUSTER" --timeout 500ms fs ls :/
    has "nobody leads, though 3 of 3 masters answer"
    has "try: who is missing, and what to type: cv raft status"
    cv local up --dir "$CLUSTER" 3>&-

    cv local down --dir "$CLUSTER"
    cv local up --dir "$CLUSTER" --masters 3 3>&-
    run -0 c fs ls :/ -o json
    [ "$(jq -r '[.[].name] | join(" ")' <<< "$output")" = "after before" ]
}

silent() {
    [ "$(c raft status -o json | jq -r --arg id "$id" '.members[] | select(.node == $id).role')" = silent ]
}

heard() {
    [ "$(c raft status -o json | jq '[.members[] | select(.last_contact != null and .last_contact < 400)] | length')" = 3 ]
}

@test "a member that is gone: it has not caught up, a flush waits for nobody, and what cannot be is refused before anything is done" {
    cv local up --dir "$CLUSTER" --masters 3 3>&-
    until_ok 10 all_in_place
    run -0 c raft wait-caught-up
    follower=$(($(leader) % 3 + 1))
    suffix=$([ "$follower" = 1 ] || echo "-$follower")
    id=$(c raft status -o json | jq -r --arg a "127.0.0.1:$(sed -n '/^journal/,/^master/s/  port: //p' \
        "$CLUSTER/curvine$suffix.yaml")" '.members[] | select(.address == $a).node')

    # It has every entry the leader has, and is not there. Who goes on to the next host would stop the cluster.
    kill -9 "$(pid_of "journal$suffix")" "$(pid_of "master$suffix")"
    run -1 c raft wait-caught-up "$id" --timeout 2s
    has "wait until $id has caught up: the leader does not hear from it"
    has "cv raft status"
    [ "$(grep -c "^cv raft" <<< "$output")" = 1 ]
    until_ok 10 silent
    term=$(c raft status -o json | jq .term)
    run -4 c raft transfer "$id"
    has "cannot lead: the leader does not hear it: Connection refused"
    [ "$(c raft status -o json | jq .term)" = "$term" ]
    SECONDS=0
    run -3 c raft snapshot
    [ "$SECONDS" -lt 20 ]
    [ "$(grep -c "is on disk" <<< "$output")" = 2 ]
    has "failed: Connection refused"
    cv local up --dir "$CLUSTER" 3>&-
    run -0 c raft wait-caught-up "$id" --timeout 20s
    until_ok 10 heard

    # Suspended: it keeps its connections and says nothing, and nobody waits for it long.
    stopped=($(pid_of "journal$suffix") $(pid_of "master$suffix"))
    kill -STOP "${stopped[@]}"
    SECONDS=0
    c raft transfer --dry-run >/dev/null
    run -3 c raft snapshot
    kill -CONT "${stopped[@]}"
    [ "$SECONDS" -lt 10 ] # each took six, and more
    has "not done within the deadline"
    until_ok 10 heard
    run -0 c raft snapshot

    # Two are left: neither goes, and the leader is not made to hand over for nothing; asked for a plan, the same is said.
    run -0 c raft demote "$id"
    until_ok 10 status_is "DEGRADED: two voters, the loss of either stops all changes"
    run -0 c raft remove "$id"
    until_ok 10 status_is "DEGRADED: a master's journal is no member"
    [ "$(c node list -o json | jq '[.[] | select(.role == "master" and .state == "outside")] | length')" = 1 ]
    before=$(c raft status -o json | jq -r '.leader, .term')
    for how in demote "demote -n" remove "remove -n"; do
        run -1 c raft $how "$(head -n 1 <<< "$before")"
        has "one of two full voters"
        has "try: cv raft add HOST:PORT first, or say --force"
    done
    [ "$(c raft status -o json | jq -r '.leader, .term')" = "$before" ]
    address=127.0.0.1:$(sed -n '/^journal/,/^master/s/  port: //p' "$CLUSTER/curvine$suffix.yaml")
    run -0 c raft add "$address" # whose master serves at another port than most
    has "clients will look for the master beside $id at 127.0.0.1:8995, and"
    has "cv raft set-addr $id $address --clients HOST:PORT"
    run -0 c raft set-addr "$id" "$address" --clients \
        127.0.0.1:"$(sed -n '/^master/,/^worker/s/  port: //p' "$CLUSTER/curvine$suffix.yaml")"
    lacks "clients will look"
    run -2 c raft add 127.0.0.1:99999
    has "expected host:port"
    run -2 c raft add
    has "the address of which journal?"
    run -2 c raft replace "$id"
    has "which member, and the address of the journal in its place?"
}
