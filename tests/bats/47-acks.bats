#!/usr/bin/env bats
# When changes are answered, mount by mount; fsync, which waits for a majority in every mode; handles that outlive a leader;
# the feature level.
# run-bats: 20 s
load lib
load masters

HOLD=${CV_BIN%/bin}/tools/cv-hold

# Three nodes from the start; each has these settings (SECTION.KEY VALUE), and the metrics of its master at ${hport[N]}.
found() {
    declare -gA hport
    local n setting peers=
    make_nodes 3
    for n in 1 2 3; do peers+=${peers:+,}127.0.0.1:${jport[$n]}/${mport[$n]}; done
    for n in 1 2 3; do
        hport[$n]=$(free_port)
        sed -i "/^master:/,\$s/^  http_port: 0/  http_port: ${hport[$n]}/" "n$n/node.yaml"
        for setting; do set_option "$n" "$setting"; done
        cv-journal format -c "n$n/node.yaml" --cluster $CLUSTER --peers "$peers" --self 127.0.0.1:"${jport[$n]}"
        cv-master --config "n$n/node.yaml" format --cluster $CLUSTER
        start_node "$n"
    done
    until_ok 40 leads
    until_ok 20 cvc fs ls :/
    own
}

set_option() {
    local where=${2%%.*} what=${2#*.}
    sed -i "/^$where:/a\  ${what% *}: ${what#* }" "n$1/node.yaml"
}

metric() {
    curl -sSf -m 2 "http://127.0.0.1:${hport[$1]}/metrics" | awk -v n="curvine_master_$2" '$1 == n { print $2 }'
}

others_than() {
    for n in 1 2 3; do [ "$n" = "$1" ] || echo "$n"; done
}

signal() {
    local name=$1
    shift
    for n in "$@"; do kill "-$name" "${started[j$n]}"; done
}

# --- a client that stays: hold NAME; tell NAME COMMAND; answer NAME: of the last command, when it is there

hold() {
    local list=
    for n in 1 2 3; do list+=${list:+,}127.0.0.1:${mport[$n]}; done
    mkfifo "$1.in"
    start "$1" bash -c 'exec "$0" "$1" < "$2.in"' "$HOLD" "$list" "$1"
    eval "exec {fd_$1}> $1.in"
    until_ok 10 grep -q ready "$1.log"
    echo 1 > "$1.told"
}

tell() {
    local name=$1 fd=fd_$1
    shift
    echo "$*" >&"${!fd}"
    echo $(($(<"$name.told") + 1)) > "$name.told" # a file: until_ok runs in a shell of its own
}

# Its answers, without the lines of the library's log, which come when they come.
said() {
    grep -v '^[^ ]*/f[0-9]*: \|^20[0-9-]* [0-9:.]* ' "$1.log"
}

answered() {
    [ "$(said "$1" | wc -l)" -ge "$(<"$1.told")" ]
}

# COMMAND, and what it says: "ok", or the name of an error.
expect() {
    local name=$1 result=$2
    shift 2
    tell "$name" "$@"
    until_ok 60 answered "$name"
    output=$(said "$name" | tail -n 1) has "$* $result "
}

mode_of() {
    cvc mount -o json | jq -r --arg p "$1" '.[] | select(.path == $p).ack_mode'
}

# Sessions are told before a weaker mode counts.
early_below() {
    local before
    before=$(metric "$(leads)" acked_early_total)
    tell a mkdir "$1/try$(<a.told)"
    until_ok 10 answered a
    [ "$(metric "$(leads)" acked_early_total)" -gt "$before" ]
}

@test "a mount has an ack mode: given, shown, changed" {
    make_nodes 1
    format_single 1
    start_node 1
    until_ok 20 cvc fs ls :/
    run -2 cvc mount --mode scratch --ack-mode fast :/s
    has "expected quorum, local, applied or cluster"
    run -2 cvc mount --ack-mode local
    run -2 cvc mount --ack-mode local :/s here
    run -0 cvc mount --mode scratch --ack-mode applied :/s
    run -0 cvc mount --mode scratch :/t
    [ "$(mode_of :/s)" = applied ]
    [ "$(mode_of :/t)" = cluster ]
    run -0 cvc mount
    has applied
    run -0 cvc mount --ack-mode local :/s/
    has "changes below :/s are answered by mode local"
    [ "$(mode_of :/s)" = local ]
    run -0 cvc mount --ack-mode local :/s
    has already
    run -1 cvc mount --ack-mode quorum :/nowhere
    has "nothing is attached at ':/nowhere'"
    stop_node 1
    start_node 1
    until_ok 20 cvc fs ls :/s
    [ "$(mode_of :/s)" = local ]
    run -0 cvc mount --ack-mode cluster :/s
    [ "$(mode_of :/s)" = cluster ]
}

# Longer leases than a test takes to stop two journals and let them go on.
@test "fsync of files and directories waits for a majority, and says so when what was answered is gone" {
    found "journal.election_ms 3s" "master.max_unreplicated_ms 10s" "master.lease_ms 500ms"
    cvc mount --mode scratch --ack-mode applied :/fast
    cvc mount --mode scratch :/safe
    hold a
    expect a ok open /fast/f
    until_ok 20 early_below /fast
    first=$(leads)
    mapfile -t followers < <(others_than "$first")
    signal STOP "${followers[@]}"
    expect a ok write one
    expect a ok mkdir /fast/d
    expect a ok timeout 300
    expect a CV_DEADLINE fsync
    expect a CV_DEADLINE sync /fast
    expect a ok timeout 20000
    tell a fsync
    sleep 0.3 # long enough to be answered, if it did not wait
    run ! answered a
    signal CONT "${followers[@]}"
    until_ok 20 answered a
    output=$(said a | tail -n 1) has "fsync ok"
    expect a ok sync /fast

    for n in "${followers[@]}"; do stop "j$n" KILL; done
    expect a ok mkdir /fast/gone
    expect a ok write two
    tell a mkdir /safe/waits
    kill_node "$first"
    for n in "${followers[@]}"; do start_journal_of "$n"; done
    until_ok 40 answered a
    output=$(said a | tail -n 1) has "mkdir /safe/waits ok"
    expect a CV_ACK_LOST fsync
    expect a CV_ACK_LOST sync /fast
    expect a ok fsync
    expect a ok sync /fast
    expect a ENOENT stat /fast/gone
    expect a ok stat /fast/d
}


@test "open files outlive their leader, with names and without; who never comes back has none" {
    found "master.session_timeout_ms 5s" "master.lease_ms 500ms"
    hold a
    hold b
    expect a ok mkdir /m
    expect a ok many 10000 /m
    expect b ok mkdir /n
    expect b ok many 300 /n
    expect a ok open /alone
    expect a ok write early
    first=$(leads)
    stop b KILL
    kill_node "$first"
    until_ok 20 leads
    expect a ok check
    expect a ok read early
    second=$(leads)
    [ "$second" != "$first" ]
    [ "$(metric "$second" 'op_seconds_count{op="open"}')" = 0 ] # told, not opened again
    asked=$(metric "$second" 'op_seconds_count{op="reassert"}')
    [ "$asked" -ge 10 ] && [ "$asked" -lt 40 ]
    cvc fs rm :/alone # held by one that has told it
    expect a ok write later
    until_ok 30 orphans_are "$second" 101 # those of b are gone, with it
    expect a ok check
    expect a ok read later
    expect a ok close
    expect a ok drop
    until_ok 20 orphans_are "$second" 0
}

orphans_are() {
    [ "$(metric "$1" orphans)" = "$2" ]
}

levels() {
    cvc upgrade status -o json | jq -r '[.feature_level, .newest] | join(" ")'
}

@test "a feature level is raised when all members know it, for good" {
    found "master.feature_level_max 1"
    [ "$(levels)" = "1 1" ]
    run -0 cvc cluster status -o json
    [ "$(jq .feature_level <<<"$output")" = 1 ]
    run -1 cvc mount --mode scratch --ack-mode local :/s
    has CV_LEVEL_TOO_LOW
    has "cv upgrade status"
    for n in 1 2; do
        stop "m$n"
        sed -i /feature_level_max/d "n$n/node.yaml"
        start_master_of "$n"
    done
    until_ok 20 knows 2
    run -0 cvc upgrade status
    has "127.0.0.1:${mport[3]} knows up to level 1"
    run -1 cvc upgrade finish
    has "127.0.0.1:${mport[3]} knows up to level 1"
    stop m3
    until_ok 20 leads
    run -1 cvc upgrade finish
    has "127.0.0.1:${mport[3]} does not answer"
    sed -i /feature_level_max/d n3/node.yaml
    start_master_of 3
    until_ok 20 knows 3
    run -0 cvc upgrade finish --dry-run
    has "would raise the feature level from 1 to 2"
    [ "$(levels)" = "1 2" ]
    run -0 cvc upgrade finish
    has "raised the feature level from 1 to 2"
    until_ok 5 is_at "2 2"
    run -0 cvc upgrade finish
    has "feature level 2 already"
    run -0 cvc mount --mode scratch --ack-mode local :/s
    until_ok 10 warm_enough
    stop m3
    set_option 3 "master.feature_level_max 1"
    run -1 timeout 20 cv-master --config n3/node.yaml
    has "is of feature level 2, this program"
    sed -i /feature_level_max/d n3/node.yaml
    start_master_of 3
    until_ok 20 knows 3
}

# So many masters know level 2.
knows() {
    [ "$(cvc upgrade status -o json | jq '[.members[] | select(.knows == 2)] | length')" = "$1" ]
}

is_at() {
    [ "$(levels)" = "$1" ]
}

# All have written the raised level down.
warm_enough() {
    cvc raft snapshot >/dev/null && [ "$(cvc node list -o json | jq '[.[] | select(.role == "master") | .behind] | max')" = 0 ]
}
