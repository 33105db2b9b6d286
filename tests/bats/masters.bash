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
