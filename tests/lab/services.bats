#!/usr/bin/env bats
# The services under systemd: what its tools say of the units, and what the administrator sees when a daemon is killed, hangs, or is
# started with a broken configuration. LAB_RELEASE: bookworm (default), trixie. The tests build on each other.

bats_require_minimum_version 1.5.0
load lab

: "${LAB_RELEASE:=bookworm}"

setup_file() {
    lab_begin host="$LAB_RELEASE" || return 1
    [ -s "$BATS_FILE_TMPDIR/missing" ] && return 0
    lab_packages host
    lab_sh host 'apt-get install -qq ./packages/*.deb > apt.log 2>&1 || { cat apt.log; exit 1; }'
}
teardown_file() { lab_down; }
setup() { lab_begin_test; }
teardown() { lab_end_test; }

has() { [[ $output == *"$1"* ]] || { printf 'expected: %s\ngot: %s\n' "$1" "$output" >&2; return 1; }; }
state() { lab_run host systemctl show -P "$2" "$1"; }
active() { [ "$(state "$1" ActiveState)" = active ]; }
# One that has been started again since it was process $2.
replaced() { [ "$(state "$1" MainPID)" != "$2" ] && active "$1"; }
# The same, and show the line, as the administrator sees it.
journal_shows() {
    local line
    line=$(journal_has "$@" | tail -n 1)
    [ -n "$line" ] || { echo "nothing of $1 in the journal with: $2"; return 1; }
    echo "# $line" >&3
}
journal_has() { lab_run host journalctl -q --no-pager -u "$1" "${@:3}" | grep -F "$2"; }

@test "systemd finds nothing to say about the units" {
    run lab_sh host 'systemd-analyze verify --man=no cv-journal.service cv-master.service cv-worker.service cv-fuse@mnt-x.service curvine.target 2>&1'
    echo "$output"
    [ "$status" = 0 ]
    [ -z "$output" ]
}

@test "each unit is exposed as little as docs/install.md says, the servers less than 3.0 of 10" {
    local column score stated
    column=$([ "$LAB_RELEASE" = bookworm ] && echo 3 || echo 4)
    for unit in cv-journal cv-master cv-worker cv-fuse@; do
        score=$(lab_run host systemd-analyze security --no-pager "${unit/%@/@mnt-x}.service" | sed -n 's/.*exposure level for .*: \([0-9.]*\).*/\1/p')
        stated=$(awk -F'|' -v unit="$unit" -v column=$column '$2 ~ "^ *" unit " *$" { gsub(/ /, "", $column); print $column }' "$LAB_SOURCE/docs/install.md")
        echo "# $LAB_RELEASE: $unit: $score" >&3
        [ -n "$score" ] && [ "$score" = "$stated" ] || { echo "$unit: $score, stated: $stated"; return 1; }
        [ $unit = cv-fuse@ ] || awk "BEGIN { exit !($score < 3) }"
    done
}

@test "not formatted: the service does not start, is not tried again, and says which command to type" {
    run ! lab_run host systemctl start cv-journal
    run ! lab_run host systemctl start cv-master
    for unit in cv-journal cv-master; do
        [ "$(state $unit ExecMainStatus)" = 2 ]
        [ "$(state $unit NRestarts)" = 0 ]
        journal_shows $unit "cv cluster init"
    done
    # By a field, as well as by text.
    lab_run host journalctl -q --no-pager CURVINE_ERROR=CV_NOT_FORMATTED | grep cv-master
    lab_run host systemctl reset-failed
}

@test "started, killed: systemd starts it again" {
    lab_sh host 'cv cluster init --single && systemctl start curvine.target cv-journal cv-master cv-worker && cv cluster status'
    for unit in cv-journal cv-master cv-worker; do
        pid=$(state $unit MainPID)
        lab_run host kill -9 "$pid"
        lab_until 30 replaced $unit "$pid"
        [ "$(state $unit NRestarts)" = 1 ]
        lab_until 30 lab_run host cv cluster status
        journal_shows $unit "Main process exited, code=killed, status=9/KILL"
    done
}

@test "hung: the watchdog ends it, systemd starts it again" {
    for unit in cv-journal cv-master cv-worker; do
        [ "$(state $unit WatchdogUSec)" = 30s ]
        lab_sh host 'mkdir -p /etc/systemd/system/$1.service.d; printf "[Service]\nWatchdogSec=3\n" > /etc/systemd/system/$1.service.d/test.conf' $unit
    done
    lab_sh host 'systemctl daemon-reload; systemctl restart cv-journal cv-master cv-worker; cv cluster status'
    for unit in cv-journal cv-master cv-worker; do
        pid=$(state $unit MainPID)
        lab_run host kill -STOP "$pid"
        lab_until 40 replaced $unit "$pid"
        journal_shows $unit "Watchdog timeout (limit 3s)!"
        lab_until 30 lab_run host cv cluster status
    done
    lab_sh host 'rm -r /etc/systemd/system/cv-*.service.d; systemctl daemon-reload'
}

@test "a reload applies what is live; one with a mistake is refused with the line, and the daemon goes on" {
    lab_sh host 'cp /etc/curvine/curvine.yaml good; sed -i "s/^log:.*/&\n  level: debug/" /etc/curvine/curvine.yaml'
    pid=$(state cv-master MainPID)
    lab_run host systemctl reload cv-master
    lab_until 10 journal_has cv-master "reload: log.level is now debug"
    line=$(lab_sh host 'printf "mster:\n  port: 1\n" >> /etc/curvine/curvine.yaml; grep -n "^mster" /etc/curvine/curvine.yaml | cut -d: -f1')
    run ! lab_run host systemctl reload cv-master
    lab_until 10 journal_has cv-master "/etc/curvine/curvine.yaml:$line: mster: unknown section, did you mean 'master'?"
    journal_shows cv-master "/etc/curvine/curvine.yaml:$line: mster: unknown section, did you mean 'master'?"
    [ "$(state cv-master MainPID)" = "$pid" ]
    lab_run host cv --config /root/good cluster status
}

@test "started with a broken configuration: not tried again, the line to mend is in its status" {
    line=$(lab_run host grep -n '^mster' /etc/curvine/curvine.yaml | cut -d: -f1)
    run ! lab_run host systemctl restart cv-worker
    run lab_run host systemctl status --no-pager cv-worker
    sed 's/^/# /' <<< "$output" >&3
    has "/etc/curvine/curvine.yaml:$line: mster: unknown section, did you mean 'master'?"
    [ "$(state cv-worker NRestarts)" = 0 ]
    lab_sh host 'cp good /etc/curvine/curvine.yaml; systemctl reset-failed; systemctl start cv-worker; systemctl reload cv-master'
    lab_until 30 lab_run host cv cluster status
}

@test "lines in the journal have fields" {
    run lab_run host journalctl -q --no-pager -u cv-master -o json -n 1 CURVINE_THREAD=cv-master
    has '"SYSLOG_IDENTIFIER":"cv-master"'
    has '"PRIORITY":'
    has '"TID":"'
    has '"_SYSTEMD_UNIT":"cv-master.service"'
}

@test "cv-fuse@ mounts, survives its daemon's death, and unmounts" {
    lab_sh host 'cv fs mkdir :/some; echo hello > hello; cv fs put hello :/some/hello; echo SOURCE=:/some > /etc/curvine/mnt-some.mount
        systemctl start cv-fuse@mnt-some; grep -q " /mnt/some fuse.curvine " /proc/mounts'
    [ "$(lab_run host cat /mnt/some/hello)" = hello ]
    pid=$(state cv-fuse@mnt-some MainPID)
    lab_run host kill -9 "$pid"
    lab_until 30 replaced cv-fuse@mnt-some "$pid"
    [ "$(lab_run host cat /mnt/some/hello)" = hello ]
    lab_run host runuser -u nobody -- cat /mnt/some/hello
    lab_run host systemctl stop cv-fuse@mnt-some
    run ! lab_run host grep fuse.curvine /proc/mounts
}
