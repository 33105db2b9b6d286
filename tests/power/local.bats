#!/usr/bin/env bats
# Power cuts under a whole cluster of "cv local": everything it has, configuration and logs too, is on the disk that loses
# what was not synced. What a client was told is there afterwards, once, and nothing else is.

load lib

: "${CUTS:=4}"
masters=1

answers() { # LOG N
    [ "$(grep -c ' E ' "$1" 2>/dev/null)" -gt "$2" ]
}

pids() {
    "$1/cv" local status --dir "$cluster" -o json | jq -r '.[].pid // empty'
}

gone() {
    ! kill -0 "$1" 2>/dev/null
}

# Kill what is left of the daemons, by pid, and come back with what the disk has.
after_the_cut() { # PID...
    local pid
    for pid in "$@"; do
        kill -9 "$pid" 2>/dev/null || true
    done
    for pid in "$@"; do
        until_ok 20 gone "$pid"
    done
    power_back disk
}

# Status 0: all that was answered is there. 1: not. Others: the test itself failed.
cut_and_look() { # BIN N
    local i daemons
    cluster=$BATS_TEST_TMPDIR/disk/c
    sockets=unix:$cluster/run/master.sock
    for ((i = 2; i <= masters; i++)); do
        sockets+=,unix:$cluster/run-$i/master.sock
    done
    for ((i = 1; i <= $2; i++)); do
        "$1/cv" local up --dir "$cluster" --masters "$masters" 3>&- || return 1
        mapfile -t daemons < <(pids "$1")
        [ ${#daemons[@]} -ge 2 ] || return 2
        start oracle "$CV_TOOLS/cv-oracle" run --masters "$sockets" --log "oracle.$i" \
            --root "/round$i" --threads 16 --seconds 300
        until_ok 60 answers "oracle.$i" $((1000 + RANDOM % 3000)) || return 2
        power_cut disk oracle
        stop oracle KILL
        after_the_cut "${daemons[@]}" || return 3
        "$1/cv" local up --dir "$cluster" 3>&- || return 1
        timeout 60 "$CV_TOOLS/cv-oracle" verify --masters "$sockets" --log "oracle.$i" \
            --root "/round$i" || return 1
    done
    "$1/cv" local down --dir "$cluster"
}

@test "power cut of a whole cluster: every answered operation is there, once" {
    need_power
    power_disk disk
    cut_and_look "$CV_BIN" "$CUTS"
}

@test "power cut of three masters and their journals at once: every answered operation is there, once" {
    need_power
    power_disk disk 4G
    masters=3
    cut_and_look "$CV_BIN" "$CUTS"
}

@test "power cut of a whole cluster: a journal that does not sync is caught" {
    need_power
    [ -x "$CV_BIN_NOSYNC/cv-journal" ] || skip "needs the programs without fsync: make power"
    power_disk disk
    mkdir bin # cv looks for the daemons beside itself
    cp "$CV_BIN"/cv* bin
    cp "$CV_BIN_NOSYNC/cv-journal" bin
    run cut_and_look "$PWD/bin" 3
    echo "$output"
    kill -9 $(pids "$PWD/bin") || true
    [ "$status" = 1 ]
}

@test "power cut in the middle of the first start: it is set up afterwards, or was never begun" {
    need_power
    local wait
    for wait in 0 0.02 0.05 0.1 0.2 0.4; do
        power_disk disk
        cluster=$BATS_TEST_TMPDIR/disk/c
        start up cv local up --dir "$cluster"
        sleep "$wait" # any moment will do
        power_cut disk
        stop up KILL
        mapfile -t daemons < <(pgrep -f -- "$cluster/curvine.yaml" || true)
        after_the_cut "${daemons[@]}"
        cv local up --dir "$cluster" 3>&-
        cv --dir "$cluster" fs mkdir :/a
        cv local down --dir "$cluster"
        umount "$BATS_TEST_TMPDIR/disk"
        rm disk.img
    done
}
