# Clusters of masters with journals for the bats tests. Node N: directory nN with run/, journal/, master/ and node.yaml;
# peers' port ${jport[N]}, master's port ${mport[N]}; daemons jN and mN, logs jN.log and mN.log.
#
#   make_nodes N              ports and configurations of N nodes; all masters named in each
#   format_single N, join N   make node N's directories: the only voter; or waiting to be added
#   start_node N              start its journal and its master; start_journal_of N, start_master_of N: one of them
#   kill_node N               kill -9 both
#   stop_node N               stop both: the journal first learns that the master goes
#   raft ARGS                 cv raft with all masters named
#   cvc ARGS                  cv with all masters named
#   node_id N                 the id in its journal's directory (the journal must not run: locked otherwise)
#   run_doc "TITLE" [N]       type the Nth block (1) of that section of docs/operations.md, as it stands; NODEn, UUID and nodeN are
#                             what they are here (old[N]: the id NODEn means, if node n is not a member any more)
#   own                       the namespace's root directory, which is root's, becomes that of who runs the tests
#   leads                     the number of the node whose journal leads; fails without

CLUSTER=0f8fad5b-d9cb-469f-a165-70867728950e
declare -gA jport mport
nodes=0

make_nodes() {
    local n all=
    nodes=$1
    for n in $(seq "$nodes"); do
        jport[$n]=$(free_port)
        mport[$n]=$(free_port)
        all+=${all:+, }\"127.0.0.1:${mport[$n]}\"
    done
    for n in $(seq "$nodes"); do
        mkdir -p "n$n/run"
        cat >"n$n/node.yaml" <<-END
	cluster:
	  masters: [$all]
	  run_dir: "$PWD/n$n/run"
	journal:
	  dir: "$PWD/n$n/journal"
	  listen: 127.0.0.1
	  port: ${jport[$n]}
	  http_port: 0
	master:
	  dir: "$PWD/n$n/master"
	  listen: 127.0.0.1
	  port: ${mport[$n]}
	  http_port: 0
	END
    done
}

format_single() {
    cv-journal format -c "n$1/node.yaml" --cluster $CLUSTER --single --self 127.0.0.1:"${jport[$1]}"
    cv-master --config "n$1/node.yaml" format --cluster $CLUSTER
}

join() {
    cv-journal join -c "n$1/node.yaml" --cluster $CLUSTER
    cv-master --config "n$1/node.yaml" format --cluster $CLUSTER
}

start_journal_of() {
    start "j$1" cv-journal --config "n$1/node.yaml"
}

start_master_of() {
    start "m$1" cv-master --config "n$1/node.yaml"
}

start_node() {
    start_journal_of "$1"
    start_master_of "$1"
}

kill_node() {
    stop "j$1" KILL
    [ -z "${started[m$1]:-}" ] || stop "m$1" KILL
}

stop_node() {
    [ -z "${started[m$1]:-}" ] || stop "m$1"
    stop "j$1"
}

raft() {
    cv --config "$PWD/n1/node.yaml" raft "$@"
}

cvc() {
    cv --config "$PWD/n1/node.yaml" "$@"
}

own() {
    local n list=
    for n in $(seq "$nodes"); do list+=${list:+,}127.0.0.1:${mport[$n]}; done
    own_root "$list"
}

raft_json() {
    raft status --json
}

leads() {
    local address n
    address=$(raft status --json | jq -re '.leader as $l | .members[] | select(.node == $l).address') || return 1
    for n in $(seq "$nodes"); do
        [ "$address" != "127.0.0.1:${jport[$n]}" ] || { echo "$n"; return 0; }
    done
    return 1
}

id_of() {
    raft status --json | jq -re --arg a "127.0.0.1:${jport[$1]}" '.members[] | select(.address == $a).node'
}

declare -gA old

# One line of the document on node N.
type_it() {
    local n=$1 line=$2 words m
    line=${line#runuser -u curvine -- }
    line=${line//UUID/$CLUSTER}
    for m in $(seq "$nodes"); do
        [[ $line != *NODE$m* ]] || line=${line//NODE$m/${old[$m]:-$(id_of "$m")}}
        line=${line//node$m:8996/127.0.0.1:${jport[$m]} --clients 127.0.0.1:${mport[$m]}}
    done
    read -ra words <<<"$line"
    case "$line" in
    "systemctl start "*) start_node "$n" ;;
    "systemctl stop "*) [ -z "${started[j$n]:-}" ] || stop_node "$n" ;;
    "cv-journal "*) "${words[@]}" -c "n$n/node.yaml" <<<$CLUSTER ;;
    "cv-master "*) cv-master --config "n$n/node.yaml" "${words[@]:1}" <<<$CLUSTER ;;
    "cv raft status") until_ok 20 cv --config "$PWD/n$n/node.yaml" raft status ;;
    "cv raft "*) cv --config "$PWD/n$n/node.yaml" "${words[@]:1}" --timeout 60s ;;
    *) echo "the document says what this test cannot type: $line"; return 1 ;;
    esac
}

run_doc() {
    local title=$1 which=${2:-1} line lines
    mapfile -t lines < <(awk -v title="## $title" -v which="$which" '
        /^## / { on = $0 == title; n = 0 }
        /^```/ { inside = !inside; n += inside; next }
        on && inside && n == which' "$CV_ROOT/docs/operations.md")
    [ "${#lines[@]}" -gt 0 ] || { echo "no block $which under '$title'"; return 1; }
    for line in "${lines[@]}"; do
        echo "+ $line"
        [[ $line =~ ^node([0-9])#\ (.*)$ ]] || { echo "which node? $line"; return 1; }
        type_it "${BASH_REMATCH[1]}" "${BASH_REMATCH[2]}" || { echo "failed: $line"; return 1; }
    done
}
