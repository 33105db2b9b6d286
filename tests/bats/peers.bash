# Clusters of journals for the bats tests. Journal N: directory jN, socket sN, peers' port ${port[N]}, HTTP ${http[N]},
# log jN.log; the proposer beside it: log pN.log, oracle oN.
#
#   found_cluster N           format N journals; log_only[N]=1: N keeps the log only
#   start_journal N           start one, or start_all
#   propose_all ARGS          a proposer beside each journal that runs
#   status N                  its status
#   leader                    the number of the one that leads and that a majority follows; fails without
#   told [COUNT]              the highest index a proposer was told; with COUNT: fails below
#   all_equal                 everything is committed and the same on all that run
#   hold_against_oracle       the end of a test: all logs against each other and against the oracles

CLUSTER=0f8fad5b-d9cb-469f-a165-70867728950e
: "${CV_TOOLS:=$CV_ROOT/build/tools}"
declare -gA port http log_only
nodes=0

found_cluster() {
    local n peers= only=()
    nodes=$1
    for n in $(seq "$nodes"); do
        port[$n]=$(free_port)
        http[$n]=$(free_port)
        peers+=${peers:+,}127.0.0.1:${port[$n]}
        [ -z "${log_only[$n]:-}" ] || only=(--journal-only "127.0.0.1:${port[$n]}")
    done
    for n in $(seq "$nodes"); do
        cv-journal format -d j"$n" --cluster $CLUSTER --peers "$peers" --self 127.0.0.1:"${port[$n]}" "${only[@]}"
    done
}

start_journal() {
    local n=$1
    shift
    start j"$n" cv-journal -s journal.dir="$PWD/j$n" -s journal.socket="$PWD/s$n" -s journal.http_port="${http[$n]}" \
        -s journal.listen=127.0.0.1 -s journal.port="${port[$n]}" "$@"
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
    curl -s -m 2 "http://127.0.0.1:${http[$1]}/status" | jq -e .status
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
# what the proposers were told. All journals must run.
hold_against_oracle() {
    local n
    stop_proposers
    until_ok 30 all_equal
    stop_all
    for n in $(seq "$nodes"); do
        cv-journal check -d j"$n"
        cv-journal dump -d j"$n" --json | sed 's/"operations":[0-9]*,//' >dump"$n" # known to the proposer's journal only
        cmp dump1 dump"$n"
    done
    "$CV_ROOT/tests/tools/journal-oracle" o? dump1
}
