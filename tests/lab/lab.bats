#!/usr/bin/env bats
# The lab itself: what befalls a host is felt by the others, and nothing is left of a lab, however its test run ends.
# LAB_RELEASE: bookworm (default), trixie.

bats_require_minimum_version 1.5.0
load lab

: "${LAB_RELEASE:=bookworm}"

setup() { lab_begin_test; }
setup_file() {
    local missing
    missing=$(lab_needs) || echo "$missing" > "$BATS_FILE_TMPDIR/missing"
}

# A test run of its own, with a lab of one host; its process is in $1/owner, and it fails or goes on as $2 says.
other_run() {
    mkdir -p "$1"
    cat > "$1/other.bats" <<-END
	. "$LAB_SOURCE/tests/lab/lab.bash"
	setup_file() { lab_up host=$LAB_RELEASE; echo "\$LAB" > "$1/lab"; cp "\$LAB/cgroup" "$1/"; echo \$\$ > "$1/owner"; }
	teardown_file() { lab_down; }
	teardown() { lab_end_test; }
	END
    printf '@%s "other" { %s; }\n' test "$2" >> "$1/other.bats" # (bats would take it for a test of this file)
    env -u LAB TMPDIR="$1" setsid bats "$1/other.bats" > "$1/log" 2>&1 3>&- < /dev/null
}

# No process, mount, group of processes or file of the lab of $1 is there any more.
nothing_left() {
    local lab cgroup
    lab=$(cat "$1/lab") cgroup=$(cat "$1/cgroup")
    [ ! -e "$lab" ] || { echo "files: $lab"; return 1; }
    grep -F "$lab" /proc/[0-9]*/mountinfo && return 1
    pgrep -af "$lab" && return 1
    [ -z "$(find /sys/fs/cgroup -maxdepth 2 -name "${cgroup##*/}")" ] || { echo "cgroup: $cgroup"; return 1; }
}

@test "cut, paused and without power a host does not answer, afterwards it does; its files stay" {
    lab_up one="$LAB_RELEASE" two="$LAB_RELEASE"
    answers() { lab_run one bash -c "exec 3<> /dev/tcp/$(lab_ip two)/7 && echo kept >&3 && read -t 2 -r line <&3 && [ \$line = kept ]"; }
    lab_sh two 'printf "[Socket]\nListenStream=7\nAccept=yes\n[Install]\nWantedBy=sockets.target\n" > /etc/systemd/system/echo.socket
        printf "[Service]\nExecStart=/bin/cat\nStandardInput=socket\n" > /etc/systemd/system/echo@.service
        systemctl enable --now echo.socket'
    lab_until 10 answers
    for what in "cut heal" "pause resume" "power_off power_on"; do
        lab_${what% *} two
        run ! timeout 5 bash -c "$(declare -f); answers"
        lab_${what#* } two
        lab_until 20 answers
    done
    lab_reboot two
    lab_until 20 answers
    lab_down
}

@test "nothing is left of a lab whose test fails, and its journals are shown" {
    run ! other_run "$BATS_TEST_TMPDIR/fails" false
    run cat "$BATS_TEST_TMPDIR/fails/log"
    [[ $output == *"not ok 1 other"* ]]
    [[ $output == *"host: the last lines of its journal"* ]]
    nothing_left "$BATS_TEST_TMPDIR/fails"
}

@test "nothing is left of a lab whose test run is killed" {
    other_run "$BATS_TEST_TMPDIR/killed" "sleep 300" &
    lab_until 60 test -s "$BATS_TEST_TMPDIR/killed/owner"
    run ! nothing_left "$BATS_TEST_TMPDIR/killed"
    # All of it at once: the group of processes that setsid made.
    kill -9 -- "-$(ps -o pgid= "$(cat "$BATS_TEST_TMPDIR/killed/owner")" | tr -d ' ')"
    lab_until 20 nothing_left "$BATS_TEST_TMPDIR/killed"
}
