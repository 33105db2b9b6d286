#!/usr/bin/env bats
# Several cv-journal as one cluster on loopback: elections, replication, and what breaks. Proposals come from
# cv-proposer, one beside each journal, whose logs are held against what the journals have in the end. CV_KILLS, CV_ROUNDS: how often.
# run-bats: 60 s

load lib
load peers

@test "three journals elect a leader, replicate, and go on without any one of them" {
    found_cluster 3
    start_all
    until_ok 10 leader
    propose_all --window 16 --rate 400
    until_ok 20 told 200
    first=$(leader)
    stop j"$first" KILL
    more_told 200
    second=$(leader)
    [ "$first" != "$second" ]
    start_journal "$first"
    hold_against_oracle
}

@test "kill -9 of the leader and of others in a loop: nothing told committed is lost, nothing is there twice" {
    found_cluster 3
    start_all
    propose_all --window 32 --rate 400
    until_ok 20 told 50
    for i in $(seq 1 "${CV_KILLS:-3}"); do
        victim=$(until_ok 20 leader >/dev/null && leader)
        [ $((i % 3)) != 0 ] || victim=$((victim % 3 + 1))
        stop j"$victim" KILL
        more_told 50
        start_journal "$victim"
    done
    hold_against_oracle
    # The oracle finds what it should.
    sed '/"type":"batch"/{0,/batch/d}' dump1 >short
    run -1 "$CV_ROOT/tests/tools/journal-oracle" o? short
}

@test "a stopped leader hands over first" {
    found_cluster 3
    start_all
    propose_all --window 4 --rate 400
    until_ok 20 told 50
    for i in $(seq 1 "${CV_ROUNDS:-1}"); do
        first=$(until_ok 20 leader >/dev/null && leader)
        term=$(status "$first" | jq .term)
        stop j"$first"
        [ "$stopped" = 0 ]
        more_told 50
        # It saw its successor lead before it was gone. (Who asks whom first is in the logs, too, but a follower that got no
        # CPU for half a second asks whatever happens elsewhere.)
        tail -n 8 j"$first".log | awk -v t="$term" '/ follower of term / && $8 + 0 > t { saw = 1 } END { exit !saw }'
        start_journal "$first"
        until_ok 10 all_connected
    done
    hold_against_oracle
}

@test "a leader that is suspended is replaced, and follows when it goes on" {
    found_cluster 3
    start_all
    propose_all --window 16 --rate 400
    until_ok 20 told 50
    for i in $(seq 1 "${CV_ROUNDS:-1}"); do
        first=$(until_ok 20 leader >/dev/null && leader)
        kill -STOP "${started[j$first]}"
        more_told 100
        kill -CONT "${started[j$first]}"
        until_ok 10 follows "$first"
    done
    hold_against_oracle
}

@test "a node of another cluster is refused: both say why" {
    found_cluster 3
    rm -r j3
    cv-journal format -d j3 --cluster "${CLUSTER/0f/1f}" --peers "127.0.0.1:${port[1]},127.0.0.1:${port[2]},127.0.0.1:${port[3]}" \
        --self "127.0.0.1:${port[3]}"
    start_all
    until_ok 10 leader
    until_ok 10 grep -q "refused node .*belongs to another cluster" j1.log
    until_ok 10 grep -q "refuses us: this journal belongs to another cluster" j3.log
    [ "$(status 3 | jq -r '.transport.peers[0].reason')" = "this journal belongs to another cluster: check the address" ]
    [ "$(status 1 | jq -r '.transport.refused[0].error')" = CV_WRONG_CLUSTER ]
}

@test "a leader cut off is replaced; what it could not commit is taken back when it returns" {
    net_up 3
    found_cluster 3
    start_all
    propose_all --window 16 --rate 400
    until_ok 20 told 100
    for i in $(seq 1 "${CV_ROUNDS:-1}"); do
        first=$(until_ok 20 leader >/dev/null && leader)
        for n in 1 2 3; do
            [ "$n" = "$first" ] || net_cut "$first" "$n"
        done
        more_told 100
        until_ok 10 lost_leadership "$first"
        net_heal
        until_ok 10 follows "$first"
    done
    hold_against_oracle
}

@test "one direction cut, one link cut: somebody leads, and one who sees all is not deposed" {
    net_up 3
    found_cluster 3
    start_all
    propose_all --window 16 --rate 400
    until_ok 20 told 100
    first=$(until_ok 20 leader >/dev/null && leader)
    a=$((first % 3 + 1))
    b=$((a % 3 + 1))
    # Two followers do not hear each other: nothing happens.
    term=$(status "$first" | jq .term)
    net_cut "$a" "$b"
    more_told 200
    [ "$(status "$first" | jq .term)" = "$term" ]
    net_heal
    # A follower that hears nobody's answers asks in vain and changes no term.
    net_cut_one "$a" "$first"
    net_cut_one "$a" "$b"
    more_told 200
    [ "$(status "$first" | jq .term)" = "$term" ]
    net_heal
    until_ok 10 all_connected
    # The leader's words do not arrive: it must not go on for ever.
    net_cut_one "$first" "$a"
    net_cut_one "$first" "$b"
    more_told 200
    until_ok 10 lost_leadership "$first"
    net_heal
    hold_against_oracle
}
