#!/usr/bin/env bats
# Three masters in networks of their own, which are cut, deaf, mute and lossy in every way (tests/tools/cv_wire.c), under 40
# clients that share their names. No client may see an error that a file system cannot give, nothing acknowledged may be lost
# or doubled, and the history of all of them must be linearizable (tests/tools/linear.h): a leader that was cut off and still
# answers from what it knows would be seen there. Disks that fill up or fail under a journal: disks.bats.
# CUTS: rounds of each (10). CUT_SECONDS: how long what should change nothing is watched (4). LONG_CUT_SECONDS. SEED: of the random cuts.
load ../bats/lib
load ../bats/wire
load wired

: "${CUTS:=10}"
: "${CUT_SECONDS:=4}"
: "${LONG_CUT_SECONDS:=14}"
: "${SEED:=$(date +%s)}"

setup() {
    wired_begin cuts
    wired_format
    wired_start 1 2 3
    until_ok 20 whole
    load_begin
}

teardown() {
    wired_end
}

# The wire is as it was, and so is the cluster.
healed() {
    mark "CONT heal" heal
    until_ok 30 whole
    alive load0
}

# No other leader, no other term: $before is of term and leader together.
unmoved() {
    [ "$(leader) $(term)" = "$before" ] || {
        echo "leader and term before: $before, now: $(leader) $(term)"
        return 1
    }
}

# The cluster goes on all the time, and nobody stands for election in vain.
watch_calm() {
    local end=$((SECONDS + CUT_SECONDS))
    while [ $SECONDS -lt $end ]; do
        progress_from
        until_ok 5 goes_on 20
    done
}

@test "the leader is cut off from both followers and clients still reach it: it steps down, they move on" {
    for ((round = 0; round < CUTS; round++)); do
        old=$(until_ok 20 leader >/dev/null && leader)
        read -r a b < <(others "$old")
        mark "both cut off" cut "$old" "$a", cut "$old" "$b"
        until_ok 10 another_than "$old"
        until_ok 10 leads_no_more "$old"
        healed
    done
    load_end
}

@test "clients that reach only a leader that was cut off are told nothing, and go on when it is healed" {
    load_begin 100 $CAPTIVE 16 10
    for ((round = 0; round < CUTS; round++)); do
        old=$(until_ok 20 leader >/dev/null && leader)
        read -r a b < <(others "$old")
        mark "cut off with clients" cut "$old" "$a", cut "$old" "$b", cut $CAPTIVE "$a", cut $CAPTIVE "$b", cut $CLIENTS "$old"
        until_ok 10 another_than "$old"
        progress_from
        until_ok 20 goes_on 100 # the others change what those might read
        healed
        alive load100
    done
    load_end
}

@test "the leader is cut off from one follower: nobody else leads, the term stays, the service goes on" {
    for ((round = 0; round < (CUTS + 2) / 3; round++)); do
        old=$(until_ok 20 leader >/dev/null && leader)
        before="$old $(term)"
        for victim in $(others "$old"); do
            mark "one follower cut off" cut "$old" "$victim"
            watch_calm
            unmoved
            healed
            unmoved
        done
    done
    load_end
}

@test "one way: a leader that nobody hears, and one that hears nobody" {
    for ((round = 0; round < CUTS; round++)); do
        old=$(until_ok 20 leader >/dev/null && leader)
        read -r a b < <(others "$old")
        case $((round % 4)) in
        0) mark "leader hears none" drop "$a" "$old", drop "$b" "$old" ;;
        1) mark "none hears leader" drop "$old" "$a", drop "$old" "$b" ;;
        2) mark "leader all deaf" drop all "$old" ;;
        3) mark "leader all mute" drop "$old" all ;;
        esac
        until_ok 20 another_than "$old"
        until_ok 10 leads_no_more "$old"
        healed
    done
    load_end
}

@test "one way: a follower that nobody hears, and one that hears nobody, move nobody" {
    for ((round = 0; round < (CUTS + 2) / 3; round++)); do
        old=$(until_ok 20 leader >/dev/null && leader)
        before="$old $(term)"
        read -r a b < <(others "$old")
        for rule in "follower hears none:drop all $a" "none hears follower:drop $b all"; do
            # shellcheck disable=SC2086
            mark "${rule%:*}" ${rule#*:}
            watch_calm
            unmoved
            healed
            unmoved
        done
    done
    load_end
}

@test "a ring with a hole, and the hole moves: there is always a majority, and it always leads" {
    for ((round = 0; round < CUTS; round++)); do
        a=$((round % 3 + 1))
        read -r b c < <(others $a)
        mark "ring, hole moves" heal, cut "$b" "$c"
        progress_from
        until_ok 10 goes_on 50
    done
    healed
    load_end
}

@test "packets are lost and late on all links: it goes on, slower" {
    for loss in "1 %:lose all all 1" "5 %:lose all all 5" "20 %:lose all all 20" "50 ms, 20 more or less:delay all all 50 20" \
        "5 %, 50 ms:lose all all 5, delay all all 50 20" "reordered, doubled:delay all all 5, reorder all all 10, double all all 5"; do
        before=$(term)
        # shellcheck disable=SC2086
        mark "${loss%%:*}" ${loss#*:}
        for ((i = 0; i < CUTS; i++)); do
            progress_from
            until_ok 20 goes_on 100
        done
        elections=$(($(term) - before))
        echo "# ${loss%%:*}: $elections elections" >&3
        [ "$elections" -le $((CUTS / 2 + 1)) ]
        healed
    done
    load_end
}

# For long enough that TCP, which waits twice as long each time it tries again (after 6.2 s, 12.6 s, 25.4 s), would be silent
# for nearly as long once more.
@test "nobody hears anybody for a while, then all do: service is back in a second or two" {
    for who in clients nodes both; do
        case $who in
        clients) rules="cut $CLIENTS all" ;;
        nodes) rules="cut 1 2, cut 1 3, cut 2 3" ;;
        both) rules="cut all all" ;;
        esac
        # shellcheck disable=SC2086
        mark "CONT cut" $rules
        sleep "$LONG_CUT_SECONDS"
        mark "healed, $who" heal
        until_ok 30 whole
        alive load0
        sleep 5 # a window in which who is slow to come back is measured; nothing is judged by it
    done
    load_end
}

# Whole, cut, deaf, mute, lossy or slow links by chance, of nodes and of clients.
some_rules() {
    local n rules=heal a b
    for ((n = RANDOM % 3 + 1; n > 0; n--)); do
        a=$((RANDOM % 4 + 1)) b=$((RANDOM % 4 + 1))
        case $((RANDOM % 6)) in
        0 | 1) rules+=", cut $a $b" ;;
        2) rules+=", drop $a $b" ;;
        3) rules+=", drop $a all" ;;
        4) rules+=", lose $a $b $((RANDOM % 60))" ;;
        5) rules+=", delay $a $b $((RANDOM % 200)) $((RANDOM % 50))" ;;
        esac
    done
    echo "$rules"
}

@test "random cuts, one after the other" {
    echo "# SEED=$SEED" >&3
    RANDOM=$SEED
    before=$(term)
    for ((round = 0; round < 3 * CUTS; round++)); do
        some_rules >rules # not in a subshell: chance would begin anew in each
        echo "round $round: $(cat rules)"
        # shellcheck disable=SC2046
        mark "random cuts" $(cat rules)
        sleep "$((RANDOM % 3)).$((RANDOM % 10))"
        [ $((round % 3)) != 2 ] || healed
        alive load0
    done
    healed
    echo "# $(($(term) - before)) elections in $((3 * CUTS)) rounds" >&3
    load_end
}
