#!/usr/bin/env bats
# Three journals, and power that fails: of one voter (its disk gives errors from then on, then has lost what was not
# synced), and of all three at once.

load lib
load ../bats/peers

@test "one voter's disk fails under it: it stops at once, the others go on, it comes back without a lie" {
    need_power
    found_cluster 3
    power_disk disk
    mv j3 disk/j3
    ln -s disk/j3 j3
    sync -f disk
    start_all
    propose_all --window 32 --rate 1000
    until_ok 20 told 200
    for i in 1 2 3; do
        more_told 200
        # The journal as well: an fsync under way may return 0 although its bytes are lost (lib.bash). The leader would
        # count on them, and this voter stop for good when it is told.
        power_cut disk p3 j3
        kill -CONT "${started[j3]}"
        until_ok 10 gone j3
        stop p3 KILL
        stop j3 KILL || true
        more_told 200
        power_back disk
        start_journal 3
        start p3 "$CV_TOOLS/cv-proposer" --socket "$PWD/s3" --cluster $CLUSTER --log o3 --window 32 --rate 1000
    done
    more_told 200
    hold_against_oracle
}

@test "power of all three fails: what was told is there" {
    need_power
    found_cluster 3
    power_disk disk
    for n in 1 2 3; do
        mv j$n disk/j$n
        ln -s disk/j$n j$n
    done
    sync -f disk
    start_all
    propose_all --window 32 --rate 1000
    for i in 1 2 3; do
        more_told 300
        power_cut disk p1 p2 p3
        for n in 1 2 3; do
            stop p$n KILL
            stop j$n KILL || true
        done
        power_back disk
        start_all
        propose_all --window 32 --rate 1000
    done
    more_told 300
    hold_against_oracle
}
