#!/usr/bin/env bats
# The wire that other tests cut (tests/tools/cv_wire.c), by itself: packets that go across it are counted.
# run-bats: 15 s, alone
load lib
load wire

# probe FROM COUNT [EVERY_MS]: to node 2, which sends everything back; sent, back, doubled, disordered, median.
probe() {
    local line
    line=$(at_node "$1" "$CV_ROOT/tests/tools/udp-probe" send 10.77.0.2 "${@:2}")
    echo "$line"
    read -r _ sent _ back _ doubled _ disordered _ median _ <<<"$line"
}

between() {
    [ "$1" -le "$2" ] && [ "$2" -le "$3" ] || { echo "not between $1 and $3: $2"; return 1; }
}

passed() {
    wire count | awk -v link="$1" '$1 == link { print $3 }'
}

@test "the wire passes, cuts one way and both, loses, doubles, delays and reorders as it is told" {
    wire_up 3 --seed 7
    start echo "$CV_TOOLS/cv-wire" "$WIRE" exec 2 "$CV_ROOT/tests/tools/udp-probe" echo 10.77.0.2
    until_ok 5 grep -q ready echo.log

    probe 1 200
    [ "$back" = 200 ] && [ "$doubled" = 0 ] && [ "$disordered" = 0 ]

    # One way: what is sent arrives, the answers do not.
    before=$(passed "1>2")
    wire drop 2 1
    probe 1 50
    [ "$back" = 0 ]
    [ "$(passed "1>2")" = $((before + 50)) ]
    before=$(passed "1>2")
    wire heal, drop 1 2
    probe 1 50
    [ "$back" = 0 ]
    [ "$(passed "1>2")" = "$before" ]

    # One link, and the others are as they were.
    wire heal, cut 1 2
    probe 1 50
    [ "$back" = 0 ]
    probe 3 50
    [ "$back" = 50 ]
    wire heal 1 2
    probe 1 50
    [ "$back" = 50 ]

    # A fifth in each direction: 640 of 1000 come back, 15 more or less (one deviation).
    wire lose 1 2 20, lose 2 1 20
    probe 1 1000 0.2
    between 560 "$back" 720
    wire heal, double 1 2 50
    probe 1 400
    [ "$back" = 400 ]
    between 150 "$doubled" 250

    # 20 ms there, 20 ms back, each 5 more or less: in order.
    wire heal, delay all all 20 5
    probe 1 100
    [ "$back" = 100 ] && [ "$disordered" = 0 ]
    between 34 "${median%.*}" 300 # a busy machine adds its own
    wire heal, delay 1 2 20, reorder 1 2 10
    probe 1 200
    [ "$back" = 200 ]
    between 8 "$disordered" 200

    # 44 bytes a packet with its heads, in 10 ms each at 4.4 kB/s.
    wire heal, rate 1 2 4.4
    probe 1 40 1
    [ "$back" = 40 ]
    between 100 "${median%.*}" 1000
}

@test "the wire refuses what is no rule, and changes nothing then" {
    wire_up 2
    for bad in "shorten 1 2" "cut" "cut 1" "cut 1 3" "cut 0 1" "cut one 2" "lose 1 2" "lose 1 2 101" "lose 1 2 -1" \
        "lose 1 2 x" "cut 1 2 3" "delay 1 2 5 6 7" "cut 1 2, shorten 1 2"; do
        # shellcheck disable=SC2086
        run -1 wire $bad
        has "no such rule"
    done
    start echo "$CV_TOOLS/cv-wire" "$WIRE" exec 2 "$CV_ROOT/tests/tools/udp-probe" echo 10.77.0.2
    until_ok 5 grep -q ready echo.log
    probe 1 20
    [ "$back" = 20 ]
    run -1 at_node 3 true
    has "no such node"
    run -0 at_node 1 sh -c 'cat /proc/net/dev'
    has "net:"
}

@test "the networks end with the wire" {
    wire_up 2
    run -0 at_node 1 readlink /proc/self/ns/net
    stop wire
    [ "$stopped" = 0 ]
    [ ! -e "$WIRE" ]
    run -1 at_node 1 true
}
