#!/usr/bin/env bats
# The helpers of the other tests.

load lib

@test "started processes write to their log, are waited for, and give their exit status" {
    start server bash -c 'trap "echo bye; exit 7" TERM; echo up; while :; do sleep 0.05; done'
    alive server
    until_ok 10 grep -q up server.log
    stop server
    [ "$stopped" = 7 ]
    grep -q bye server.log
    run ! alive server
}

@test "a process can be killed and started again under its name" {
    start server sleep 100
    run -1 start server sleep 100
    stop server KILL
    [ "$stopped" = 137 ]
    start server sleep 100
    alive server
}

@test "until_ok waits for success and tells what was there when it gives up" {
    (sleep 0.3; touch it) 3>&- &
    until_ok 10 test -e it
    run -1 until_ok 1 bash -c 'echo so far; false'
    has "so far"
}

@test "free ports are free" {
    port=$(free_port)
    [ "$port" -gt 1023 ]
    run ! bash -c "exec 4<>/dev/tcp/127.0.0.1/$port"
    for i in 1 2 3 4; do
        (for i in $(seq 25); do free_port; done) >"ports$i" 3>&- &
    done
    wait
    [ "$(sort -u ports? | wc -l)" = 100 ]
}

@test "a file that leaves a process behind has failed, and the process is ended" {
    printf '@%s\n' 'test "passes" {' > leaves.bats # (in a here-document bats would take it for one of this file)
    printf '%s\n' 'sleep 1234 < /dev/null > /dev/null 2>&1 3>&- &' 'echo $! > "$PID"' '}' >> leaves.bats
    run -1 env -u BATS_RUN_TMPDIR PID="$PWD/pid" "$CV_ROOT/tests/run-bats" leaves.bats 3>&-
    has "ok 1 passes"
    has "left behind: process $(cat pid), sleep 1234"
    until_ok 5 bash -c "! kill -0 $(cat pid)"
}
