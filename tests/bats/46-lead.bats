#!/usr/bin/env bats
# The masters of a cluster of three: who follows is warm, who is told to stop hands over first, whose health is silent loses
# the lead, journals and masters come and go on their own, and all have the same state (digests every few batches).
# run-bats: 20 s
load lib

CLUSTER=0f8fad5b-d9cb-469f-a165-70867728950e

node_yaml() {
    cat > "n$1/node.yaml" <<-END
	cluster:
	  masters: [$masters]
	  run_dir: "$PWD/n$1/run"
	journal:
	  dir: "$PWD/n$1/journal"
	  listen: 127.0.0.1
	  port: ${jport[$1]}
	  http_port: 0
	master:
	  dir: "$PWD/n$1/master"
	  listen: 127.0.0.1
	  port: ${mport[$1]}
	  http_port: ${hport[$1]}
	  digest_entries: 3
	END
}

found() {
    declare -gA jport mport hport
    local n peers=
    masters=
    for n in 1 2 3; do
        jport[$n]=$(free_port) mport[$n]=$(free_port) hport[$n]=$(free_port)
        masters+=${masters:+, }\"127.0.0.1:${mport[$n]}\"
        peers+=${peers:+,}127.0.0.1:${jport[$n]}/${mport[$n]}
    done
    for n in 1 2 3; do
        mkdir -p "n$n/run"
        node_yaml "$n"
        cv-journal format -c "n$n/node.yaml" --cluster $CLUSTER --peers "$peers" --self 127.0.0.1:"${jport[$n]}"
        cv-master --config "n$n/node.yaml" format --cluster $CLUSTER
        start "j$n" cv-journal --config "n$n/node.yaml"
        start "m$n" cv-master --config "n$n/node.yaml"
    done
    until_ok 20 leader
    own_root "$(tr -d '" ' <<< "$masters")"
}

c() {
    cv --config "$PWD/n1/node.yaml" --timeout 20s "$@"
}

status_of() {
    curl -sSf -m 2 "http://127.0.0.1:${hport[$1]}/status" | jq -r ".status.$2"
}

metric() {
    curl -sSf -m 2 "http://127.0.0.1:${hport[$1]}/metrics" | awk -v n="curvine_master_$2" '$1 == n { print $2 }'
}

leader() {
    local n
    for n in 1 2 3; do
        [ "$(status_of "$n" state 2> /dev/null)" = leading ] && echo "$n" && return
    done
    return 1
}

others_than() {
    for n in 1 2 3; do [ "$n" = "$1" ] || echo "$n"; done
}

another_leads() {
    [ "$(leader)" != "$1" ]
}

follows() {
    [ "$(status_of "$1" state)" = following ]
}

# All that run have applied what the leader has committed.
warm() {
    local n applied
    applied=$(status_of "$(leader)" committed) || return 1
    for n in 1 2 3; do
        ! alive "m$n" || [ "$(status_of "$n" applied)" -ge "$applied" ] || return 1
    done
}

# Directories made one behind another by one client; each that is acknowledged is noted with the ns it took.
writer() {
    local i=0 began
    while :; do
        i=$((i + 1))
        began=$(date +%s%N)
        cv --config "$PWD/n1/node.yaml" --timeout 20s fs mkdir ":/w/$i" || { echo "failed $i" >> made; return; }
        echo "$i $((($(date +%s%N) - began) / 1000000))" >> made
    done
}

begin_writer() {
    c fs mkdir :/w
    : > made
    start writer bash -c "$(declare -f writer); writer"
    more
}

more() {
    until_ok 30 made_since $(($(wc -l < made) + 3))
}

made_since() {
    [ "$(wc -l < made)" -ge "$1" ]
}

end_writer() {
    more
    stop writer KILL || true
    [ "$(grep -c failed made)" = 0 ]
    c fs ls :/w --json | jq -r '.[].name' | sort > there
    awk '{ print $1 }' made | sort > told
    [ -z "$(comm -23 told there)" ]
}

compared() {
    [ "$(metric "$1" digests_compared_total)" -gt 0 ]
}

same_directories() {
    [ "$(status_of "$1" directories)" = "$(status_of "$(leader)" directories)" ]
}

say_longest() {
    echo "# $1: promotion $(grep -h 'after the journal said so' m?.log | sort | tail -1 | sed 's/.*index [0-9]*, //; s/ after.*//')," \
        "longest change $(awk '$2 > m { m = $2 } END { print m }' made) ms" >&3
}

@test "followers are warm, and who is told to stop hands over first" {
    found
    begin_writer
    until_ok 10 warm
    for signal in TERM KILL; do
        first=$(leader)
        : > made
        stop "m$first" $signal
        [ $signal = KILL ] || [ "$stopped" = 0 ]
        until_ok 5 leader
        more
        say_longest "master, $signal"
        start "m$first" cv-master --config "n$first/node.yaml"
        until_ok 20 warm
    done
    end_writer
    grep -h 'after the journal said so' m?.log | tail -n +2 | while read -r line; do
        behind=$(sed 's/.*(\([0-9]*\) entries behind then).*/\1/' <<< "$line")
        [ "$behind" -lt 20 ] || { echo "$line" >&2; exit 1; } # next to nothing is left to be done: a follower is warm
    done
}

@test "a master that gives no sign of health loses the lead, and follows when it wakes" {
    found
    begin_writer
    first=$(leader)
    kill -STOP "${started[m$first]}"
    until_ok 15 another_leads "$first"
    more
    kill -CONT "${started[m$first]}"
    until_ok 20 warm
    until_ok 10 follows "$first"
    say_longest "master, STOP"
    end_writer
}

@test "journals restart under living masters, masters under living journals, and all have the same state" {
    found
    begin_writer
    for n in $(leader) $(others_than "$(leader)" | head -1); do
        stop "j$n" KILL
        more
        start "j$n" cv-journal --config "n$n/node.yaml"
        until_ok 20 warm
        stop "m$n" KILL
        more
        start "m$n" cv-master --config "n$n/node.yaml"
        until_ok 20 warm
    done
    end_writer
    until_ok 10 warm
    for n in 1 2 3; do alive "m$n" && alive "j$n"; done
    for n in $(others_than "$(leader)"); do
        until_ok 10 compared "$n"
        until_ok 10 same_directories "$n"
    done
    run ! grep -E 'alarm|diverged' m?.log
    [ ! -e n1/master/rows.diverged ]
}
