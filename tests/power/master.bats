#!/usr/bin/env bats
# Power cuts under master and journal: what a client was told is there afterwards, once, and nothing else is.

load lib

CLUSTER=0f8fad5b-d9cb-469f-a165-70867728950e

# Deltas are flushed all the time; keep_entries: as soon as the master calls them flushed the log may drop entries.
configure() {
    port=$(free_port) http=$(free_port)
    cat > curvine.yaml <<-END
	cluster:
	  run_dir: $BATS_TEST_TMPDIR
	  masters: ["127.0.0.1:$port"]
	journal:
	  dir: $BATS_TEST_TMPDIR/disk/j
	  port: 0
	  http_port: 0
	  keep_entries: 0
	master:
	  dir: $BATS_TEST_TMPDIR/disk/m
	  listen: 127.0.0.1
	  port: $port
	  http_port: $http
	  flush_interval_ms: 150ms
	END
    export CURVINE_CONFIG=$PWD/curvine.yaml
    cv-journal format --dir disk/j --cluster $CLUSTER --single
    cv-master format --dir disk/m --cluster $CLUSTER
    sync -f disk
}

answers() { # LOG N
    [ "$(grep -c ' E ' "$1" 2>/dev/null)" -gt "$2" ]
}

flushed() {
    curl -sSf "http://127.0.0.1:$http/metrics" | awk '$1 == "curvine_master_flushed_index" { print $2 }'
}

# Cut the power n times under a load; the programs are those of BIN. Status 0: all that was answered is there.
cut_and_look() { # BIN N
    local i before has_applied
    for i in $(seq 1 "$2"); do
        start journal "$1/cv-journal"
        start master "$1/cv-master"
        start oracle "$CV_TOOLS/cv-oracle" run --masters "127.0.0.1:$port" --log "oracle.$i" --root "/round$i" \
            --threads 8 --seconds 300
        until_ok 60 answers "oracle.$i" 3000 || return 1
        before=$(flushed)
        until_ok 60 bash -c "[ \$(curl -sSf http://127.0.0.1:$http/status | jq .status.flushed) -gt $before ]" || return 1
        before=$(flushed)
        power_cut disk oracle
        stop oracle KILL
        until_ok 20 bash -c "! kill -0 ${started[journal]} 2>/dev/null" || return 9
        stop journal KILL
        stop master KILL
        power_back disk
        start journal "$1/cv-journal"
        start master "$1/cv-master"
        timeout 60 "$CV_TOOLS/cv-oracle" verify --masters "127.0.0.1:$port" --log "oracle.$i" --root "/round$i" || return 1
        # What was called flushed was in the database: the log need not have it any more.
        has_applied=$(sed -n 's/.*attached to the journal: .*applied \([0-9]*\) of.*/\1/p' master.log | tail -n 1)
        echo "flushed before the cut: $before, in the database after it: $has_applied"
        [ "$has_applied" -ge "$before" ] || return 1
        stop master
        [ "$stopped" = 0 ] || return 2
        stop journal
    done
}

@test "power cut: every answered operation is there, once" {
    need_power
    power_disk disk
    configure
    cut_and_look "$CV_BIN" 4
}

@test "power cut: a master that says flushed without flushing is caught" {
    need_power
    [ -x "$CV_BIN_NOSYNC/cv-master" ] || skip "needs the programs without fsync: make power"
    power_disk disk
    configure
    mkdir bin # a journal that syncs beside a master that does not
    ln -s "$CV_BIN_NOSYNC/cv-master" "$CV_BIN/cv-journal" bin
    run cut_and_look "$PWD/bin" 2
    echo "$output"
    [ "$status" = 1 ]
}

@test "power cut right after format: the directory is a master's, or was never formatted" {
    need_power
    power_disk disk 512M
    configure
    power_cut disk
    power_back disk
    start journal cv-journal
    start master cv-master
    until_ok 20 curl -sSf "http://127.0.0.1:$http/readyz"
    alive master
    stop master
    [ "$stopped" = 0 ]
}
