#!/usr/bin/env bats
# Three cv-journal as one cluster on loopback: elections, replication, and what breaks. Proposals come from cv-proposer,
# one beside each journal, whose logs are held against what the journals have in the end.

load lib
load peers

@test "three journals elect a leader, replicate, and go on without any one of them" {
    found_cluster 3
    start_all
    until_ok 10 leader
    propose_all --window 16
    until_ok 20 told 200
    first=$(leader)
    stop j"$first" KILL
    now=$(told)
    until_ok 10 told $((now + 200))
    second=$(leader)
    [ "$first" != "$second" ]
    start_journal "$first"
    hold_against_oracle
}
