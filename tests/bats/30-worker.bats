#!/usr/bin/env bats
# cv-worker: its directory, starting and stopping, and kill -9 in a loop under writers that remember what was acknowledged.
# run-bats: 12 s

load lib

cluster=0f8fad5b-d9cb-469f-a165-70867728950e

configure() {
    http=$(free_port)
    cat > curvine.yaml <<-END
	cluster:
	  run_dir: $BATS_TEST_TMPDIR
	  masters: ["127.0.0.1:1"]
	worker:
	  dirs: ["[SSD:256MiB]$BATS_TEST_TMPDIR/w"]
	  listen: 127.0.0.1
	  port: 0
	  http_port: $http
	END
    for line in "$@"; do
        echo "  $line" >> curvine.yaml
    done
    export CURVINE_CONFIG=$PWD/curvine.yaml
}

ready() {
    curl -sSf "http://127.0.0.1:$http/readyz"
}

@test "a directory is formatted once, only when it is empty, and for one cluster" {
    configure
    run -2 cv-worker
    has "not formatted"
    has "cv-worker format"
    run -2 cv-worker format
    has "usage"
    run -2 cv-worker format --cluster nonsense
    has "not a cluster id"
    run -0 --separate-stderr cv-worker format --cluster $cluster
    [[ $output =~ ^[0-9a-f]{16}$ ]]
    run -1 cv-worker format --cluster $cluster
    has "CV_ALREADY_FORMATTED"
    mkdir other && echo precious > other/file
    run -1 cv-worker format --cluster $cluster --dir "[SSD:1GiB]other"
    has "ENOTEMPTY"
    [ "$(cat other/file)" = precious ]
    run -1 cv-worker format --cluster $cluster --dir "[TAPE:1GiB]other"
    has "KIND:SIZE"
}

@test "a worker serves without a master, says what it is, and stops when told" {
    configure
    cv-worker format --cluster $cluster > id
    start worker cv-worker
    until_ok 10 ready
    until_ok 10 grep -q "no master takes our registration" worker.log
    run -0 curl -sSf "http://127.0.0.1:$http/status"
    [ "$(jq -r .status.worker <<< "$output")" = "$(cat id)" ]
    [ "$(jq -r .status.registered <<< "$output")" = false ]
    run -0 curl -sSf "http://127.0.0.1:$http/metrics"
    has "curvine_worker_capacity_bytes 268435456"
    run -1 cv-worker --set worker.http_port=0
    has "CV_LOCKED"
    stop worker
    [ "$stopped" = 0 ]
}

@test "kill -9 in a loop: nothing acknowledged is lost or changed" {
    load=$CV_BIN/../tools/cv-workload
    [ -x "$load" ] || skip "not built: make tools"
    configure
    cv-worker format --cluster $cluster > id
    start worker cv-worker
    until_ok 10 ready
    for i in 1 2; do
        start load$i "$load" "unix:$BATS_TEST_TMPDIR/worker.sock" 10 $i
    done
    for _ in $(seq 1 "${WORKER_KILLS:-6}"); do
        sleep 1 # of load, not for a condition
        kill -9 "${started[worker]}"
        wait "${started[worker]}" || true
        unset "started[worker]"
        start worker cv-worker
        until_ok 10 ready
    done
    for i in 1 2; do
        status=0
        wait "${started[load$i]}" || status=$?
        unset "started[load$i]"
        [ $status = 0 ]
        grep -q "writes" load$i.log
    done
    stop worker
    [ "$stopped" = 0 ]
}
