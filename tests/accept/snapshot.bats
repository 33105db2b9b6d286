#!/usr/bin/env bats
# A follower is away while the others' state grows by SNAPSHOT_MB (200; "make soak": 5000) and their log goes on without it.
# It comes back, fetches the state under load without an election, killed once on its way; then it leads, and shows the same
# names. Printed: how much, how long, what clients got meanwhile.
load ../bats/lib
load ../bats/snapshots

: "${SNAPSHOT_MB:=200}"

grow() {
    local i
    mkdir -p small
    head -c 20000000 /dev/urandom | split -b 4000 -a 4 - small/f # 5000 files that are kept in rows
    for ((i = 0; i < SNAPSHOT_MB / 20; i++)); do
        cv fs put -r -T 32 small ":/grow$i" >/dev/null
    done
}

fetched_at_least() {
    [ "$(snapshot_of "$1" fetched_bytes)" -ge "$2" ]
}

loaded_for() {
    [ $((${EPOCHREALTIME/./} - alone)) -gt $(($1 * 1000000)) ]
}

# The term when nothing else happens than that: the same when all is over.
term() {
    journal_of "$(leading)" .term
}

@test "a follower fetches $SNAPSHOT_MB MB of state under load, killed on its way, without an election" {
    found_masters 3
    run_masters 1 2 3
    until_ok 20 leading
    lagging=$(follower)
    make_names a 40
    stop_master "$lagging"
    grow
    until_ok 60 compacted_past "$lagging"
    load_names load >load.out 2>&1 &
    loader=$!
    alone=${EPOCHREALTIME/./}
    until_ok 30 loaded_for 8 # what it takes while nothing else happens
    coming=${EPOCHREALTIME/./}
    before=$(term) names=$(cv fs find :/load 2>/dev/null | wc -l) began=$SECONDS
    run_masters "$lagging"
    until_ok 120 fetched_at_least "$lagging" $((SNAPSHOT_MB * 300000))
    first=$(snapshot_of "$lagging" fetched_bytes)
    stop_master "$lagging" KILL
    run_masters "$lagging"
    until_ok $((120 + SNAPSHOT_MB / 5)) installed "$lagging" 1
    second=$(snapshot_of "$lagging" fetched_bytes)
    until_ok 120 caught_up "$lagging"
    took=$((SECONDS - began)) there=${EPOCHREALTIME/./}
    [ "$(term)" = "$before" ]
    touch load.end
    wait $loader
    names=$(($(cv fs find :/load | wc -l) - names))
    echo "# load before: $(load_between "$alone" "$coming")" >&3
    echo "# load meanwhile: $(load_between "$coming" "$there")" >&3
    grep "bytes of state" "j$lagging.log" | tail -1 | sed 's/^.*info: /# /' >&3
    echo "# came over the wire: $first bytes until it was killed, $second after; $took s with restart and catching up;" \
        "$names names were made meanwhile, $(grep -c refused load.out || true) times clients were refused" >&3
    [ $((first + second)) -lt $((SNAPSHOT_MB * 2000000)) ]
    ! grep -q refused load.out
    same_names
}
