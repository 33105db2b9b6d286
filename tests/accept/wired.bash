# Three nodes, a journal and a master each, in networks of their own on a wire that can be cut (tests/bats/wire.bash), and
# clients in two more. Behind ../bats/lib and ../bats/wire.
#
#   wired_begin NAME         directory of the test, a short one for the nodes in $NODES; skips where there is no wire
#   wired_format             make the nodes; before that, $NODES/nN/journal and master may be file systems of their own
#   wired_start NODE...      start them; until the cluster is whole: until_ok 20 whole
#   wired_end
#   load_begin [FIRST [NODE [CLIENTS [READERS]]]]   40 clients (tests/tools/cv_failover.c) on node $CLIENTS (4), of which so
#                            many only look (0); several loads at once need different FIRSTs
#   load_end                 they end, their histories are judged together, figures are shown
#   mark WHAT RULE...        change the wire, and let the load know: from now on it is WHAT; "CONT": that is over
#   state N                  the status of journal N; of_state N FILTER: by jq
#   leader                   the number of the node that leads: a majority follows, and its master serves
#   whole                    whether all are up, follow the same leader in the same term, and lack nothing old
#   goes_on N                whether more than N entries are committed than when progress_from was called
#   term                     the highest of all

CLIENTS=4 CAPTIVE=5
WIRED_CLUSTER=0f8fad5b-d9cb-469f-a165-70867728950e
WIRED_PEERS=10.77.0.1:8996,10.77.0.2:8996,10.77.0.3:8996
WIRED_MASTERS=10.77.0.1:8995,10.77.0.2:8995,10.77.0.3:8995
export WIRED_PEERS

wired_begin() {
    cd "$BATS_TEST_TMPDIR"
    declare -gA started=()
    PATH=$CV_ROOT/build/tools:$PATH
    kills=$BATS_TEST_TMPDIR/kills
    loads=()
    : >"$kills"
    wire_up 5
    NODES=$(mktemp -d "/tmp/cv-$1-XXXXXX")
    local n
    for n in 1 2 3; do
        mkdir -p "$NODES/n$n/run"
        cat >"$NODES/n$n/node.yaml" <<-END
	cluster:
	  masters: ["${WIRED_MASTERS//,/\", \"}"]
	  run_dir: "$NODES/n$n/run"
	journal:
	  dir: "$NODES/n$n/journal"
	  listen: 10.77.0.$n
	  cache_bytes: 64MiB
	  memtable_bytes: 16MiB
	  ${JOURNAL_OPTIONS:-http_port: 9004}
	master:
	  dir: "$NODES/n$n/master"
	  listen: 10.77.0.$n
	  http_port: 9001
	  memory_bytes: 256MiB
	  ${MASTER_OPTIONS:-threads: 0}
	END
    done
}

wired_format() {
    local n
    for n in 1 2 3; do
        cv-journal format -c "$NODES/n$n/node.yaml" --cluster $WIRED_CLUSTER --peers $WIRED_PEERS --self "10.77.0.$n:8996"
        cv-master --config "$NODES/n$n/node.yaml" format --cluster $WIRED_CLUSTER
    done
}

wired_start() {
    local n
    for n in "$@"; do
        start "j$n" cv-wire "$WIRE" exec "$n" cv-journal --config "$NODES/n$n/node.yaml"
        start "m$n" cv-wire "$WIRE" exec "$n" cv-master --config "$NODES/n$n/node.yaml"
    done
}

wired_end() {
    local name n
    for name in "${!started[@]}"; do
        kill -9 "${started[$name]}" 2>/dev/null || true
        wait "${started[$name]}" 2>/dev/null || true
    done
    [ -n "$BATS_TEST_COMPLETED" ] || tail -n 30 [jm]?.log load*.log 2>/dev/null || true
    [ -n "${NODES:-}" ] || return 0
    for n in $(awk -v d="$NODES/" 'index($2, d) == 1 { print $2 }' /proc/mounts | tac); do
        umount -l "$n" || true
    done
    rm -rf "$NODES"
}

load_begin() {
    local first=${1:-0} node=${2:-$CLIENTS} clients=${3:-40} readers=${4:-0}
    start "load$first" cv-wire "$WIRE" exec "$node" cv-failover run --masters $WIRED_MASTERS --history "history$first" \
        --first "$first" --joint --clients "$clients" --readers "$readers" --seconds 7200
    loads+=("$first")
    until_ok 60 said_or_gone "$first"
    alive "load$first"
}

said_or_gone() {
    grep -q running "load$1.log" || ! alive "load$1"
}

load_end() {
    local first
    for first in "${loads[@]}"; do
        kill "${started[load$first]}"
    done
    for first in "${loads[@]}"; do
        until_ok 120 gone "${started[load$first]}" || { cat "load$first.log"; false; }
        stop "load$first"
        [ "$stopped" = 0 ] || { cat "load$first.log"; false; }
        grep -q '^ok:' "load$first.log"
    done
    for first in "${loads[@]}"; do
        cat "history$first"
    done >history
    run -0 cv-failover check --history history --kills "$kills" --phases
    sed 's/^/# /' <<<"$output" >&3
    loads=()
}

gone() {
    ! kill -0 "$1" 2>/dev/null
}

mark() {
    local what=$1 said
    shift
    said=$(wire "$@")
    echo "${said#ok } $what" >>"$kills"
}

state() {
    at_node "$1" curl -s -m 1 http://127.0.0.1:9004/status
}

of_state() {
    state "$1" | jq -re ".status | $2"
}

# id, role, term, leader, commit of each that answers, a line each, with the number in front.
states() {
    local n
    for n in 1 2 3; do
        state "$n" | jq -r --arg n "$n" '.status | "\($n) \(.id) \(.role) \(.term) \(.leader) \(.commit) \(.last)"' || true
    done
}

# Of whoever says so, the one with the highest term that another one follows in it; its master serves.
leader() {
    local n
    n=$(states | awk '{ id[$1] = $2; role[$1] = $3; term[$1] = $4; of[$5, $4]++ }
        END { for (n in id) if (role[n] == "leader" && of[id[n], term[n]] >= 2 && (!best || term[n] > term[best])) best = n
              if (best) print best; exit !best }') || return 1
    at_node "$n" curl -s -m 1 http://127.0.0.1:9001/status | jq -e '.status.state == "leading"' >/dev/null || return 1
    echo "$n"
}

whole() {
    states | awk '{ n++; terms[$4]; of[$5]; if ($5 == "") bad = 1; if ($6 > most) most = $6; commit[n] = $6 }
        END { for (t in terms) k++; for (l in of) m++; for (i in commit) if (commit[i] + 500 < most) bad = 1
              exit !(n == 3 && k == 1 && m == 1 && !bad) }' && leader >/dev/null
}

another_than() {
    local n
    n=$(leader) && [ "$n" != "$1" ]
}

leads_no_more() {
    [ "$(of_state "$1" .role)" != leader ]
}

commit() {
    states | awk '$6 > most { most = $6 } END { print most + 0 }'
}

progress_from() {
    progress=$(commit)
}

goes_on() {
    [ "$(commit)" -gt $((progress + $1)) ]
}

term() {
    states | awk '$4 > most { most = $4 } END { print most + 0 }'
}

# The two others.
others() {
    case $1 in 1) echo 2 3 ;; 2) echo 1 3 ;; 3) echo 1 2 ;; esac
}
