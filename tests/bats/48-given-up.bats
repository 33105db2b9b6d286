#!/usr/bin/env bats
# Written data whose last grants are given up with a part of the log (cv-journal force-new-cluster): what a worker holds of them
# is newer than what the masters know. It is told as damaged, never mixed into what is written from then on.
# run-bats: 20 s
load lib

setup() {
    cd "$BATS_TEST_TMPDIR"
    declare -gA started=()
    CLUSTER=$(mktemp -d /tmp/cv-given-up-XXXXXX)
    mkdir mnt
}

teardown() {
    end_started
    [ -n "$BATS_TEST_COMPLETED" ] || tail -n 15 "$CLUSTER"/log/* ./*.log || true
    cv umount -f "$PWD/mnt" 3>&- >/dev/null 2>&1 || true
    cv local down --dir "$CLUSTER" 3>&- || true
    rm -rf "$CLUSTER"
}

pid_of() {
    cv local status --dir "$CLUSTER" -o json | jq -r ".[] | select(.daemon == \"cv-$1\") | .pid // empty"
}

# Of those that are left.
c() {
    cv -c "$CLUSTER/curvine$suffix.yaml" "$@"
}

write_at() { # FILE OFFSET TEXT
    printf %s "$3" | dd of="$1" bs=1 seek="$2" conv=notrunc,fsync status=none
}

has_given_up() {
    grep -q "was written under a grant that was given up" "$CLUSTER/log/worker.log" worker.log 2>/dev/null
}

# Three masters and a worker; :/f and :/still are written. One that follows ($suffix, node $id) is killed, and :/f written on
# without it.
lose_a_grant() {
    local why=$(no_fuse)
    [ -z "$why" ] || skip "$why"
    cv local up --dir "$CLUSTER" --masters 3 3>&-
    head -c 300000 /dev/urandom >data
    cv --dir "$CLUSTER" fs put data :/f
    cv --dir "$CLUSTER" fs put data :/still
    cv --dir "$CLUSTER" mount :/ "$PWD/mnt" 3>&-
    local leader n
    leader=$(cv --dir "$CLUSTER" node list -o json | jq -r '[.[] | select(.role == "master").state] | index("leading") + 1')
    n=$((leader % 3 + 1))
    suffix=$([ "$n" = 1 ] || echo "-$n")
    cv --dir "$CLUSTER" raft wait-caught-up
    kill -9 "$(pid_of "journal$suffix")" "$(pid_of "master$suffix")"
    write_at mnt/f 1000 NEWER
    cv umount "$PWD/mnt"
}

# The others are gone for good: it goes on alone.
force() {
    local d
    for d in $(cv local status --dir "$CLUSTER" -o json | jq -r '.[] | select(.pid) | .daemon' | grep -v worker); do
        kill -9 "$(pid_of "${d#cv-}")"
    done
    until_ok 10 cv-journal check -c "$CLUSTER/curvine$suffix.yaml"
    cv-journal force-new-cluster -c "$CLUSTER/curvine$suffix.yaml" --yes "$(cat "$CLUSTER/cluster-id")" \
        --keep "$(cv-journal check -c "$CLUSTER/curvine$suffix.yaml" --json | jq -r .node)"
    start journal cv-journal -c "$CLUSTER/curvine$suffix.yaml"
    start master cv-master -c "$CLUSTER/curvine$suffix.yaml"
}

is_damaged() {
    run c fs cat :/f
    [ "$status" = 1 ] && has "CV_DATA_DAMAGED"
}

reads_equal() {
    c fs cat ":/$1" | cmp - data
}

@test "the last grant is given up with the log: a worker that is started anew says so, what else there is stays" {
    lose_a_grant
    kill -9 "$(pid_of worker)"
    force
    start worker cv-worker -c "$CLUSTER/curvine.yaml"
    until_ok 30 has_given_up
    until_ok 20 is_damaged
    reads_equal still
    c fs put data :/f # replaced: good again
    reads_equal f
    [ "$(grep -c "all blocks here were asked about in incarnation 2" worker.log)" = 1 ]
}

@test "and one that runs on does, too, before anybody can write there" {
    local worker
    lose_a_grant
    worker=$(pid_of worker)
    kill -STOP "$worker"
    force
    until_ok 20 c raft status
    c mount :/ "$PWD/mnt" 3>&-
    # Asked for before the worker says anything: it waits, and does not go on from NEWER.
    start writer dd if=/dev/zero of=mnt/f bs=5 count=1 seek=400 conv=notrunc,fsync
    sleep 1 # a grant that is given is given by then
    kill -CONT "$worker"
    until_ok 30 grep -E "Input/output error|copied" writer.log
    grep "Input/output error" writer.log
    has_given_up
    until_ok 10 is_damaged
    write_at mnt/still 1000 OTHER
    [ "$(c fs cat :/still | dd bs=1 skip=1000 count=5 status=none)" = OTHER ]
    cv umount "$PWD/mnt"
}
