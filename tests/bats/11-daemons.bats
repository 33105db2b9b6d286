#!/usr/bin/env bats
# What all daemons share, seen from outside on the journal and the master: command line, directory lock, ports,
# signals, pages.
# run-bats: 12 s

load lib

daemons=(cv-journal cv-master)

# A formatted journal with ports of its own, described in c.yaml.
journal() {
    http=$(free_port)
    cat > c.yaml <<-END
	cluster:
	  run_dir: $PWD/run
	journal:
	  dir: $PWD/journal
	  listen: 127.0.0.1
	  port: $(free_port)
	  http_port: $http
	END
    mkdir -p run
    cv-journal format --cluster new --single --dir "$PWD/journal" 3>&-
}

page() { curl -sS --max-time 5 "http://127.0.0.1:$http$1"; }
answers() { [ "$(code "$2")" = "$1" ]; }
code() { curl -sS --max-time 5 -o /dev/null -w '%{http_code}' "${@:2}" "http://127.0.0.1:$http$1"; }

@test "daemons explain themselves and refuse wrong command lines with exit status 2" {
    for d in "${daemons[@]}"; do
        run -0 "$d" --help
        has "Usage: $d"
        has "--check-config"
        has "log.level"
        run -0 "$d" --version
        has "$d "
        run -2 "$d" --nonsense
        has "Try '$d --help'"
        run -2 "$d" -c nowhere.yaml
        has "nowhere.yaml: No such file or directory"
        run -2 "$d" -s nonsense
        has "expected section.key=value"
        printf 'wroker: {}\n' > bad.yaml
        run -2 "$d" -c bad.yaml --check-config
        has "bad.yaml:1: wroker: unknown section, did you mean 'worker'?"
        run -0 "$d" -s log.level=debug --check-config
    done
}

@test "a daemon runs, answers its pages, and stops on SIGTERM with status 0" {
    journal
    start journal cv-journal -c c.yaml
    until_ok 20 page /healthz
    until_ok 20 answers 200 /readyz
    page /metrics | grep -q '^process_resident_memory_bytes '
    page /metrics.json | jq -e 'type == "object"'
    page /status | jq -e '.program == "cv-journal" and .phase == "running"'
    page /config | jq -e --arg at "c.yaml:7" ".journal.http_port == {value: $http, origin: \$at}"
    [ "$(code /config -X POST -d x=1)" = 405 ]
    [ "$(code /nothing)" = 404 ]
    stop journal
    [ "$stopped" = 0 ]
}

@test "a second daemon in the same directory is refused and says who has it" {
    journal
    start journal cv-journal -c c.yaml
    until_ok 20 page /healthz
    run -1 cv-journal -c c.yaml -s journal.http_port=0 -s journal.port=0
    has "CV_LOCKED"
    has "${started[journal]}"
    stop journal KILL
    start again cv-journal -c c.yaml
    until_ok 20 page /healthz
}

@test "an HTTP port in use is refused by name" {
    journal
    start other python3 -c "import socket, time; s = socket.socket(); s.bind(('127.0.0.1', $http)); s.listen(); time.sleep(600)"
    until_ok 10 bash -c "exec 4<>/dev/tcp/127.0.0.1/$http"
    run -1 timeout 20 cv-journal -c c.yaml
    has "http: listen on 127.0.0.1:$http: Address already in use"
}

@test "SIGHUP applies what is live, names what waits for a restart, and survives a broken file" {
    journal
    start journal cv-journal -c c.yaml
    until_ok 20 page /healthz
    cp c.yaml good.yaml
    printf 'log:\n  level: debug\n' >> c.yaml
    sed -i 's/^journal:/journal:\n  keep_entries: 5000/' c.yaml
    kill -HUP "${started[journal]}"
    until_ok 10 grep -q 'reload: log.level is now debug' journal.log
    until_ok 10 grep -q 'reload: journal.keep_entries changed from 100000 to 5000: takes a restart' journal.log
    page /config | jq -e '.log.level.value == "debug"'
    page /config | jq -e '.journal.keep_entries | .value == 100000 and .after_restart == 5000'
    echo 'jornal: {}' >> c.yaml
    kill -HUP "${started[journal]}"
    until_ok 10 grep -q "unknown section, did you mean 'journal'?" journal.log
    until_ok 10 grep -q 'going on with the configuration as it was' journal.log
    page /config | jq -e '.log.level.value == "debug"'
    cp good.yaml c.yaml
    kill -HUP "${started[journal]}"
    until_ok 10 grep -q '0 options differ from the start' journal.log
    stop journal
    [ "$stopped" = 0 ]
}

@test "the service manager hears READY and STOPPING" {
    journal
    start manager python3 -u -c "
import socket
s = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
s.bind('notify')
print('up')
while True: print(s.recv(4096).decode())
"
    until_ok 10 grep -q up manager.log
    start journal env NOTIFY_SOCKET="$PWD/notify" cv-journal -c c.yaml
    until_ok 20 grep -qx READY=1 manager.log
    stop journal
    until_ok 10 grep -qx STOPPING=1 manager.log
}

bats_teardown=$(declare -f teardown)
eval "lib_$bats_teardown"
teardown() {
    [ ! -e "$BATS_TEST_TMPDIR/c/curvine.yaml" ] || cv local down --dir "$BATS_TEST_TMPDIR/c" 3>&- || true
    lib_teardown
}

# As a container's profile does, and Red Hat 9 unless kernel.io_uring_disabled says otherwise.
without_io_uring() {
    python3 -c '
import ctypes, os, struct, sys
libc = ctypes.CDLL(None, use_errno=True)
if os.uname().machine not in ("x86_64", "aarch64"): sys.exit(77)
setup = 425 # of io_uring, everywhere
code = b"".join(struct.pack("HBBI", *i) for i in ((0x20, 0, 0, 0), (0x15, 0, 1, setup), (0x06, 0, 0, 0x50001), (0x06, 0, 0, 0x7fff0000)))
buffer = ctypes.create_string_buffer(code)
program = ctypes.create_string_buffer(struct.pack("HxxxxxxP", 4, ctypes.addressof(buffer)))
if libc.prctl(38, 1, 0, 0, 0) or libc.prctl(22, 2, program, 0, 0): sys.exit("seccomp: " + os.strerror(ctypes.get_errno()))
os.execvp(sys.argv[1], sys.argv[1:])' "$@"
}

@test "where io_uring is forbidden daemons say so once and do without" {
    without_io_uring cv local up --dir "$PWD/c" 2> up 3>&-
    ! grep io_uring up # it matters to who runs daemons, not to each command
    head -c 3000000 /dev/urandom > in
    cv --dir "$PWD/c" fs put in :/in
    cv --dir "$PWD/c" fs get :/in out
    cmp in out
    for d in journal master worker; do
        [ "$(grep -c 'io_uring is not available, using epoll: Operation not permitted' c/log/$d.log)" = 1 ]
    done
    run -0 cv local down --dir "$PWD/c"
}
