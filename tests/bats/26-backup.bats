#!/usr/bin/env bats
# cv backup of a running cluster, cv restore of a new one from it, and a member that is added to that: its state can only
# come by a snapshot.
# run-bats: 35 s

load lib
load snapshots

inode_of() {
    cv fs stat "$1" -o json | jq .inode
}

# Node 1 founded anew from backup $1 in directories of its own; the old node is stopped.
restore_node() {
    sed -i "s|$PWD/n1/|$PWD/new/|" n1/curvine.yaml
    mkdir -p new/run
    cv restore "$1" --self 127.0.0.1:"${jport[1]}" -o json >restored
}

@test "a backup restored is the same namespace under a new id, and hands out no id twice" {
    found_masters 1
    run_masters 1
    until_ok 20 leading
    make_names a 60
    echo hello >small
    cv fs touch :/a/file
    cv fs setxattr :/a/file user.k v
    cv backup "$PWD/bk" -o json >backup
    [ "$(jq .files backup)" -gt 3 ]
    [ ! -e n1/master/backup-* ]
    cv fs find :/ | sort >before
    cv fs mkdir :/later
    later=$(inode_of :/later)

    # Refused: not empty; a flipped bit; a file that is not there.
    run -1 cv backup "$PWD/bk"
    has "not empty"
    run -1 cv backup "$PWD/none/bk"
    has "must be there: mkdir -p"
    run -1 cv restore "$PWD/bk"
    has "n1/master"
    run -2 cv restore "$PWD/bk" --self nonsense --set master.dir="$PWD/none" --set journal.dir="$PWD/none2"
    has "expected host:port"
    [ ! -e none ]
    run -2 cv-journal format -d none --cluster new --single --self nonsense
    has "expected host:port"
    cp -r bk damaged
    sst=$(cd bk && ls -S ./*.sst | head -1)
    printf x | dd of="damaged/$sst" bs=1 seek=100 conv=notrunc status=none
    run -1 cv restore "$PWD/damaged" --set master.dir="$PWD/none" --set journal.dir="$PWD/none2"
    has "${sst#./}"
    [ ! -e none ]
    stop_master 1

    cv restore "$PWD/bk" --dry-run --set master.dir="$PWD/none" --set journal.dir="$PWD/none2"
    [ ! -e none ] && [ ! -e none2 ]
    restore_node "$PWD/bk"
    [ "$(jq -r .cluster restored)" != "$(jq -r .of_cluster restored)" ]
    run_masters 1
    until_ok 20 leading
    cv fs find :/ | sort >after
    cmp before after
    [ "$(cv fs xattr :/a/file -o json | jq -r '.[0].name')" = user.k ]
    cv fs mkdir :/new
    [ "$(inode_of :/new)" -gt $((later + 60000000000)) ]
    stop_master 1
    run_masters 1
    until_ok 20 leading
    cv fs mkdir :/newer
}

@test "a member added to a restored cluster gets its state as a snapshot" {
    found_masters 2
    sed -i 's|masters: .*|masters: [127.0.0.1:'"${mport[1]}]|" n1/curvine.yaml
    rm -r n1/journal n1/master n2/journal n2/master
    cluster=$(cv-master -c n1/curvine.yaml format --cluster new)
    cv-journal format -c n1/curvine.yaml --cluster "$cluster" --single --self 127.0.0.1:"${jport[1]}"
    nodes=1
    run_masters 1
    until_ok 20 leading
    make_names a 60
    cv backup "$PWD/bk"
    stop_master 1
    restore_node "$PWD/bk"
    run_masters 1
    until_ok 20 leading
    cluster=$(jq -r .cluster restored)
    cv-master -c n2/curvine.yaml format --cluster "$cluster"
    cv-journal join -c n2/curvine.yaml --cluster "$cluster"
    run_masters 2
    until_ok 10 curl -sf "http://127.0.0.1:${jhttp[2]}/healthz"
    cv raft add 127.0.0.1:"${jport[2]}" --timeout 60s
    [ "$(snapshot_of 2 installed)" -ge 1 ]
    nodes=2
    until_ok 20 caught_up 2
    sed -i "s|masters: .*|masters: [127.0.0.1:${mport[1]}, 127.0.0.1:${mport[2]}]|" n1/curvine.yaml
    same_names
}

level() {
    [ "$(cv upgrade status -o json | jq .feature_level)" = "$1" ]
}

hold_back() {
    echo "  feature_level_max: 1" >>"$1/curvine.yaml" # its last section is the master's
}

let_go_of() {
    sed -i /feature_level_max/d "$1/curvine.yaml"
}

# Node 1 alone, founded from backup $1 in directories $2; options of restore may follow.
restored_as() {
    mkdir -p "$2/run"
    sed "s|$PWD/n1/|$PWD/$2/|; s|masters: .*|masters: [127.0.0.1:${mport[1]}]|" n1/curvine.yaml >"$2/curvine.yaml"
    cv -c "$2/curvine.yaml" restore "$1" --self 127.0.0.1:"${jport[1]}"
    export CURVINE_CONFIG=$PWD/$2/curvine.yaml
    start "j$2" cv-journal
}

refused() {
    run -1 timeout 20 cv-master
    has "is of feature level 2, this program"
}

@test "the feature level goes with a snapshot, a backup and what is restored; who does not know it does not start on them" {
    found_masters 3
    for n in 1 2 3; do
        hold_back n$n
    done
    run_masters 1 2 3
    until_ok 30 leading
    make_names a 40
    level 1
    cv backup "$PWD/bk1"
    for n in 1 2 3; do
        stop m$n
        let_go_of n$n
        start m$n cv-master -c n$n/curvine.yaml
    done
    until_ok 30 cv upgrade finish
    level 2
    cv backup "$PWD/bk2"

    # A new member can have it from a snapshot only.
    until_ok 30 led_by_others
    old=$(journal_of 3 .id)
    stop_master 3
    rm -r n3/journal n3/master
    cv-master -c n3/curvine.yaml format --cluster "$cluster"
    cv-journal join -c n3/curvine.yaml --cluster "$cluster"
    hold_back n3
    run_masters 3
    run timeout 40 cv raft replace "$old" 127.0.0.1:"${jport[3]}" --clients 127.0.0.1:"${mport[3]}" --timeout 30s
    until_ok 30 grep "is of feature level 2, this program" m3.log
    until_ok 10 bash -c "! kill -0 ${started[m3]} 2>/dev/null"
    [ "$(snapshot_of 3 installed)" -ge 1 ]
    let_go_of n3
    stop m3 KILL
    start m3 cv-master -c n3/curvine.yaml
    until_ok 30 cv raft replace "$old" 127.0.0.1:"${jport[3]}" --clients 127.0.0.1:"${mport[3]}" --timeout 20s
    until_ok 30 caught_up 3
    until_ok 20 lead_with 3 "$(journal_of 3 .id)"
    level 2
    for n in 1 2 3; do
        stop_master $n
    done

    restored_as "$PWD/bk2" r2
    hold_back r2
    refused
    let_go_of r2
    start mr2 cv-master
    until_ok 20 level 2
    stop mr2
    stop jr2
    restored_as "$PWD/bk1" r1
    hold_back r1
    start mr1 cv-master
    until_ok 20 level 1
    until_ok 20 cv fs stat :/a/d000039
}

led_by_others() {
    local n
    n=$(leading) || return 1
    [ "$n" != 3 ] || { cv raft transfer "$(journal_of 1 .id)" >/dev/null; false; }
}
