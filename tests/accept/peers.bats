#!/usr/bin/env bats
# Several journals as one cluster, the longer part of tests/bats/22-journal-peers.bats: all killed at once, a follower that
# sleeps while more is written than memory holds, voters that keep the log only, a full disk. KILLS: how often.

load ../bats/lib
load ../bats/peers

@test "all killed at once come back with all they told" {
    found_cluster 3
    start_all
    propose_all --window 32 --rate 400
    for i in $(seq 1 "$((${KILLS:-9} / 3))"); do
        more_told 100
        for n in 1 2 3; do
            kill -KILL "${started[j$n]}"
        done
        for n in 1 2 3; do
            stop j"$n" KILL
            start_journal "$n"
        done
    done
    more_told 100
    hold_against_oracle
}

@test "a follower that is suspended costs the leader no memory and catches up, from disk" {
    found_cluster 3
    start_all -s journal.cache_bytes=64MiB -s journal.memtable_bytes=4MiB
    propose_all --window 64 --size 200000
    until_ok 20 told 50
    first=$(until_ok 20 leader >/dev/null && leader)
    victim=$((first % 3 + 1))
    kill -STOP "${started[j$victim]}"
    until_ok 30 beyond_memory "$first"
    [ "$(leader)" = "$first" ]
    # Queues to the peer: stated in raft/journal_peer.h.
    run -0 status "$first"
    [ "$(jq '[.transport.peers[].queued_bytes] | max' <<<"$output")" -le $((10 << 20)) ]
    [ "$(jq '[.transport.peers[].waiting] | max' <<<"$output")" -le 256 ]
    resident=$(awk '/^RssAnon/ { print $2 }' /proc/"${started[j$first]}"/status)
    echo "# the leader has $((resident / 1024)) MiB resident, cache 64 MiB" >&3
    [ "$resident" -lt $((200 * 1024)) ]
    kill -CONT "${started[j$victim]}"
    stop_proposers
    until_ok 60 all_equal
    [ "$(for n in 1 2 3; do status $n; done | jq -s '[.[].transport.peers[].disk_reads] | add')" -gt 0 ]
    hold_against_oracle
}

@test "two full voters and one that keeps the log only survive the loss of any one" {
    log_only[3]=1
    found_cluster 3
    start_all
    propose_all --window 16 --rate 400
    until_ok 20 told 100
    [ "$(status 1 | jq '[.members[] | select(.journal_only)] | length')" = 1 ]
    for victim in 3 1 2; do
        stop j$victim KILL
        more_told 100
        start_journal $victim
        until_ok 20 all_connected
        until_ok 20 leader
    done
    # Both full ones away and back: the third leads only as long as it must.
    stop j1 KILL
    stop j2 KILL
    start_journal 1
    start_journal 2
    more_told 100
    [ "$(leader)" != 3 ]
    hold_against_oracle
}

@test "a voter whose disk fills up stops; the others go on, and it comes back with room" {
    [ "$(id -u)" = 0 ] || skip "needs root: a small file system"
    found_cluster 3
    mkdir small
    mount -t tmpfs -o size=48M tmpfs small || skip "needs tmpfs"
    mv j3 small/j3
    ln -s small/j3 j3
    start_all -s journal.memtable_bytes=4MiB
    propose_all --window 32 --size 100000
    until_ok 40 gone j3
    grep -qiE "no space|Assertion" j3.log # RocksDB may notice by an assertion of its own
    [ "$(until_ok 10 leader >/dev/null && leader)" != 3 ] # nor while it ran: proposals would have waited
    more_told 100
    stop_proposers
    mount -o remount,size=1G small
    stop j3 || true
    start_journal 3
    hold_against_oracle
    umount small
}
