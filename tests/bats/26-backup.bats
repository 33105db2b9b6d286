#!/usr/bin/env bats
# cv backup of a running cluster, cv restore of a new one from it, and a member that is added to that: its state can only
# come by a snapshot.
# run-bats: 15 s

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
    run -1 cv restore "$PWD/bk"
    has "n1/master"
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
