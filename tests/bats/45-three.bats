#!/usr/bin/env bats
# cv local up --masters 3: three journals and three masters in one directory. Any one may die, and status says so.
# run-bats: 12 s
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
    cv local up --dir "$CLUSTER" 3>&-

    cv local down --dir "$CLUSTER"
    cv local up --dir "$CLUSTER" --masters 3 3>&-
    run -0 c fs ls :/ -o json
    [ "$(jq -r '[.[].name] | join(" ")' <<< "$output")" = "after before" ]
}
