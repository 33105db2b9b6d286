# Clusters of journals for the bats tests. Journal N: directory jN, socket sN, peers' port ${port[N]}, HTTP ${http[N]},
# log jN.log; the proposer beside it: log pN.log, oracle oN.
#
#   found_cluster N           format N journals; log_only[N]=1: N keeps the log only
#   start_journal N           start one, or start_all
#   propose_all ARGS          a proposer beside each journal that runs
#   status N                  its status
#   leader                    the number of the one that leads and that a majority follows; fails without
#   told [COUNT]              the highest index a proposer was told; with COUNT: fails below
#   more_told COUNT           wait until it is COUNT higher; the time it took goes to the output
#   follows N                 N knows a leader that is another one
#   all_connected             every journal that runs has its connections to all that run
#   net_up N                  a network with a namespace for each of N journals (before found_cluster; skips when not root)
#   net_cut A B, net_cut_one A B, net_heal    nothing goes between A and B; nothing of A arrives at B; all is well again
#   all_equal                 everything is committed and the same on all that run
#   lost_leadership N, gone NAME, beyond_memory N    conditions to wait for
#   hold_against_oracle       the end of a test: all logs against each other and against the oracles

CLUSTER=0f8fad5b-d9cb-469f-a165-70867728950e
: "${CV_TOOLS:=$CV_ROOT/build/tools}"
declare -gA port http log_only host
nodes=0
space= # name of the namespaces, without the number

# Run CMD where journal N lives.
at_node() {
    local n=$1
    shift
    if [ -n "$space" ]; then
        nsenter --net="/run/netns/$space$n" "$@" # "ip netns exec" would copy the mounts, too, and keep those of other tests alive
    else
        "$@"
    fi
}

found_cluster() {
    local n peers= only=()
    nodes=$1
    for n in $(seq "$nodes"); do
        port[$n]=$(free_port)
        : "${host[$n]:=127.0.0.1}"
        http[$n]=$(free_port)
        peers+=${peers:+,}${host[$n]}:${port[$n]}
        [ -z "${log_only[$n]:-}" ] || only=(--journal-only "${host[$n]}:${port[$n]}")
    done
    for n in $(seq "$nodes"); do
        cv-journal format -d j"$n" --cluster $CLUSTER --peers "$peers" --self "${host[$n]}:${port[$n]}" "${only[@]}"
    done
}

start_journal() {
    local n=$1
    shift
    start j"$n" ${space:+nsenter --net="/run/netns/$space$n"} cv-journal -s journal.dir="$PWD/j$n" -s journal.socket="$PWD/s$n" \
        -s journal.http_port="${http[$n]}" -s journal.listen="${host[$n]}" -s journal.port="${port[$n]}" "$@"
}

start_all() {
    local n
    for n in $(seq "$nodes"); do
        start_journal "$n" "$@"
    done
}

propose_all() {
    local n
    for n in $(seq "$nodes"); do
        [ -n "${log_only[$n]:-}" ] ||
            start p"$n" "$CV_TOOLS/cv-proposer" --socket "$PWD/s$n" --cluster $CLUSTER --log o"$n" "$@"
    done
}

status() {
    at_node "$1" curl -s -m 2 "http://127.0.0.1:${http[$1]}/status" | jq -e .status
}

leader() {
    local n id
    for n in $(seq "$nodes"); do
        id=$(status "$n" 2>/dev/null | jq -r 'select(.role == "leader") | .id') || continue
        if [ -n "$id" ] && [ "$(followers "$id")" -gt $((nodes / 2)) ]; then
            echo "$n"
            return 0
        fi
    done
    return 1
}

# How many say that node ID leads.
followers() {
    local n
    for n in $(seq "$nodes"); do
        status "$n" 2>/dev/null | jq -r .leader || true
    done | grep -c "$1"
}

told() {
    local highest
    highest=$(tail -qn 3 o? 2>/dev/null | awk '$1 == "C" && NF == 4 && $2 > m { m = $2 } END { print m + 0 }')
    if [ $# = 0 ]; then
        echo "$highest"
    else
        [ "$highest" -ge "$1" ]
    fi
}

more_told() {
    local least=$(($(told) + $1)) begin=${EPOCHREALTIME/./}
    until_ok 20 told "$least"
    echo "$1 more told after $(((${EPOCHREALTIME/./} - begin) / 1000)) ms"
}

follows() {
    [ "$(status "$1" | jq -r 'select(.leader != "" and .leader != .id) | .role')" = follower ]
}

lost_leadership() {
    [ "$(status "$1" | jq -r .role)" != leader ]
}

gone() {
    ! kill -0 "${started[$1]}" 2>/dev/null
}

# The leader has written more than it keeps in memory.
beyond_memory() {
    [ "$(at_node "$1" curl -s "http://127.0.0.1:${http[$1]}/metrics" |
        awk '$1 == "curvine_journal_entry_bytes_total" { print $2 }')" -gt $((80 << 20)) ]
}

all_connected() {
    local n running=0
    for n in $(seq "$nodes"); do
        [ -z "${started[j$n]:-}" ] || running=$((running + 1))
    done
    for n in $(seq "$nodes"); do
        [ -z "${started[j$n]:-}" ] ||
            [ "$(status "$n" | jq '[.transport.peers[] | select(.control == "open" and .entries == "open")] | length')" = \
                $((running - 1)) ] || return 1
    done
}

# ---- networks ----

net_up() {
    local n
    needs_root "network namespaces"
    ip netns add "cvt$$_0" 2>/dev/null || skip "needs network namespaces"
    space=cvt$$_
    ip -n "${space}0" link add br0 type bridge
    ip -n "${space}0" link set br0 up
    for n in $(seq "$1"); do
        ip netns add "$space$n"
        ip -n "$space$n" link add net type veth peer name "p$n" netns "${space}0"
        ip -n "${space}0" link set "p$n" master br0 up
        ip -n "$space$n" address add "10.77.0.$n/24" dev net
        ip -n "$space$n" link set net up
        ip -n "$space$n" link set lo up
        host[$n]=10.77.0.$n
    done
}

# A thinks B is at an address nobody has: what it sends is lost without a word.
net_cut_one() {
    ip -n "$space$1" neighbor replace "10.77.0.$2" lladdr 02:00:00:00:00:fe dev net nud permanent
}

net_cut() {
    net_cut_one "$1" "$2"
    net_cut_one "$2" "$1"
}

net_heal() {
    local a b
    for a in $(seq "$nodes"); do
        for b in $(seq "$nodes"); do
            ip -n "$space$a" neighbor del "10.77.0.$b" dev net 2>/dev/null || true
        done
    done
}

# bats' own teardown ends the processes first.
eval "peers_$(declare -f teardown)"
teardown() {
    local n
    peers_teardown
    for n in $(seq 0 "$nodes"); do
        [ -z "$space" ] || ip netns del "$space$n" 2>/dev/null || true
    done
    ! mountpoint -q small || umount -l small
}

# Every running journal answers, has all it has committed, and the same as the others. Proposals must have ended.
all_equal() {
    local n running=0 ends
    for n in $(seq "$nodes"); do
        [ -z "${started[j$n]:-}" ] || running=$((running + 1))
    done
    ends=$(for n in $(seq "$nodes"); do
        [ -z "${started[j$n]:-}" ] || status "$n" | jq -r 'select(.last == .commit and .durable == .commit) | .commit'
    done | sort | uniq -c)
    [ "$(wc -l <<<"$ends")" = 1 ] && [ "$(awk '{ print $1 }' <<<"$ends")" = "$running" ]
}

stop_proposers() {
    local n
    for n in $(seq "$nodes"); do
        [ -z "${started[p$n]:-}" ] || stop p"$n"
    done
}

stop_all() {
    local n
    stop_proposers
    for n in $(seq "$nodes"); do
        [ -z "${started[j$n]:-}" ] || stop j"$n"
    done
}

# No more proposals; then every journal has all there is, each log is sound, they are the same to the byte, and they hold
# what the proposers were told. All journals must run. A stop may end in a new term, which begins with a noop.
hold_against_oracle() {
    local n least
    stop_proposers
    until_ok 30 all_equal
    least=$(status 1 | jq .commit)
    stop_all
    for n in $(seq "$nodes"); do
        cv-journal check -d j"$n"
        cv-journal dump -d j"$n" --json | sed 's/"operations":[0-9]*,//' >whole # known to the proposer's journal only
        head -n "$least" whole >dump"$n"
        cmp dump1 dump"$n"
        run ! grep batch <(tail -n "+$((least + 1))" whole)
    done
    "$CV_ROOT/tests/tools/journal-oracle" o? dump1
}
