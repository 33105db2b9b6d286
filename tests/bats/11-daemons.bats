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
