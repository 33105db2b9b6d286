# Clusters of masters with their journals for the bats tests. Node N lives in nN: configuration nN/curvine.yaml, run/,
# journal/, master/, logs jN.log and mN.log.
#
#   found_masters N [LINE...]      format N nodes; lines for the section journal; log_only=N: node N is a journal without master
#   run_masters N...               start journal and master
#   stop_master N [SIGNAL]         stop both
#   leading                        the node that leads; fails without
#   follower                       a node that follows
#   journal_of N FILTER            from its journal's status; snapshot_of N FIELD of its part "snapshots"
#   make_names NAME COUNT          COUNT directories :/NAME/...
#   load_names NAME                names in :/NAME until there is a file load.end
#   load_between FROM TO     how long its calls took that began in between
#   make_bulk COUNT                COUNT times 200 long names
#   same_names                     whichever node leads shows the same names
#   compacted_past N               the leader's log begins behind the end of N's, which is stopped

MASTERS=

found_masters() {
    local n peers= count=$1 only=()
    shift
    declare -ga jport mport jhttp mhttp
    for n in $(seq "$count"); do
        jport[$n]=$(free_port) mport[$n]=$(free_port) jhttp[$n]=$(free_port) mhttp[$n]=$(free_port)
        peers+=${peers:+,}127.0.0.1:${jport[$n]}/${mport[$n]}
        [ "$n" = "${log_only:-}" ] || MASTERS+=${MASTERS:+,}127.0.0.1:${mport[$n]}
    done
    [ -z "${log_only:-}" ] || only=(--journal-only "127.0.0.1:${jport[$log_only]}")
    cluster=
    for n in $(seq "$count"); do
        mkdir -p "n$n/run"
        cat >"n$n/curvine.yaml" <<-END
		cluster:
		  run_dir: $PWD/n$n/run
		  masters: [$MASTERS]
		journal:
		  dir: $PWD/n$n/journal
		  listen: 127.0.0.1
		  port: ${jport[$n]}
		  http_port: ${jhttp[$n]}
		  election_ms: 1500ms
		  keep_entries: 0
		  compact_entries: 16
		$(printf '  %s\n' "$@")
		master:
		  dir: $PWD/n$n/master
		  listen: 127.0.0.1
		  port: ${mport[$n]}
		  http_port: ${mhttp[$n]}
		  flush_interval_ms: 200ms
		END
        cluster=$(cv-master -c "n$n/curvine.yaml" format --cluster "${cluster:-new}")
        cv-journal format -c "n$n/curvine.yaml" --cluster "$cluster" --peers "$peers" --self "127.0.0.1:${jport[$n]}" \
            "${only[@]}" >/dev/null
    done
    export CURVINE_CONFIG=$PWD/n1/curvine.yaml
    nodes=$count
}

run_masters() {
    local n
    for n in "$@"; do
        start j"$n" cv-journal -c "n$n/curvine.yaml"
        [ "$n" = "${log_only:-}" ] || start m"$n" cv-master -c "n$n/curvine.yaml"
    done
}

stop_master() {
    [ "$1" = "${log_only:-}" ] || stop m"$1" "${2:-TERM}"
    stop j"$1" "${2:-TERM}"
}

journal_of() {
    curl -s -m 2 "http://127.0.0.1:${jhttp[$1]}/status" | jq -er ".status$2"
}

snapshot_of() {
    journal_of "$1" ".snapshots.$2"
}

master_state() {
    curl -s -m 2 "http://127.0.0.1:${mhttp[$1]}/status" | jq -er ".status.$2"
}

# A journal that leads, beside a master that serves.
leading() {
    local n
    for n in $(seq "$nodes"); do
        if [ "$(journal_of "$n" .role 2>/dev/null)" = leader ] &&
            curl -sf -o /dev/null "http://127.0.0.1:${mhttp[$n]}/readyz"; then
            echo "$n"
            return 0
        fi
    done
    return 1
}

follower() {
    local n first
    first=$(leading) || return 1
    for n in $(seq "$nodes"); do
        [ "$n" = "$first" ] || { echo "$n"; return 0; }
    done
}

# In steps, so that there are many entries.
make_names() {
    local i end
    own_root "$MASTERS"
    cv fs mkdir -p ":/$1"
    for ((i = 0; i < $2; i += 20)); do
        end=$((i + 19))
        cv fs mkdir $(seq -f ":/$1/d%06g" "$i" "$end")
    done
}

# COUNT times 200 names of 200 random letters, so that they take some room on disk.
make_bulk() {
    local i
    own_root "$MASTERS"
    cv fs mkdir -p :/bulk
    for i in $(seq "$1"); do
        cv fs mkdir $(tr -dc a-zA-Z0-9 </dev/urandom | head -c 40000 | fold -w 200 | sed "s|^|:/bulk/|")
    done
}

load_names() {
    local i=0 began
    while [ ! -e load.end ]; do
        began=${EPOCHREALTIME/./}
        cv fs mkdir -p $(seq -f ":/$1/$i-%g" 1 20) || echo "load: refused" >&2
        echo "$began $((${EPOCHREALTIME/./} - began))" >>load.times
        i=$((i + 1))
    done
}

# Microseconds of the clock; each call makes 20 names.
load_between() {
    awk -v from="$1" -v to="$2" '$1 >= from && $1 < to { print $2 }' load.times | sort -n |
        awk '{ t[NR] = $1 / 1000 } END { if (NR) printf "%d times 20 names: p50 %.1f, p99 %.1f, worst %.1f ms", NR,
            t[int((NR + 1) / 2)], t[int(NR * 0.99 + 0.99)], t[NR] }'
}

compacted_past() {
    local last first
    last=$(cv-journal check -c "n$1/curvine.yaml" --json | jq .last) # its mark may be a second older
    cv fs mkdir -p ":/tick/$RANDOM$RANDOM"
    first=$(journal_of "$(leading)" .first)
    [ "$first" -gt $((last + 1)) ]
}

installed() {
    [ "$(snapshot_of "$1" installed)" -ge "$2" ]
}

caught_up() {
    local first leader_applied
    first=$(leading) || return 1
    leader_applied=$(journal_of "$first" .commit)
    if [ "$1" = "${log_only:-}" ]; then
        [ "$(journal_of "$1" .commit)" -ge "$leader_applied" ]
        return
    fi
    [ "$(master_state "$1" applied)" -ge "$leader_applied" ] || [ "$(journal_of "$1" .applied)" -ge "$leader_applied" ]
}

# The names as each node shows them when it leads.
same_names() {
    local n id
    for n in $(seq "$nodes"); do
        id=$(journal_of "$n" .id)
        until_ok 20 lead_with "$n" "$id"
        cv fs find :/ >raw
        sort raw >"names$n"
        [ -s "names$n" ]
        diff names1 "names$n" | head -n 20
        cmp names1 "names$n"
    done
}

lead_with() {
    [ "$(leading)" = "$1" ] || { cv raft transfer "$2" >/dev/null 2>&1; false; }
}

# Node N's master has no directory of rows but one of this pattern.
only_states() {
    local found
    found=$(cd "n$1/master" && ls -d rows meta-* staging 2>/dev/null)
    [ "$(wc -l <<<"$found")" = 1 ] && [[ $found == $2 ]]
}
