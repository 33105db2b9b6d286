#!/usr/bin/env bats
# One host, from packages to purge, as docs/install.md says it. LAB_RELEASE: bookworm (default), trixie. The tests build on each other.

bats_require_minimum_version 1.5.0
load lab

: "${LAB_RELEASE:=bookworm}"

setup_file() {
    local missing
    missing=$(lab_needs) || { echo "$missing" > "$BATS_FILE_TMPDIR/missing"; return 0; }
    "$LAB_SOURCE/tests/lab/packages" "$LAB_RELEASE" ${LAB_NEXT+--next} > "$BATS_FILE_TMPDIR/packages" 3>&-
    lab_up host="$LAB_RELEASE"
}

teardown_file() { lab_down; }

setup() {
    [ ! -s "$BATS_FILE_TMPDIR/missing" ] || skip "no lab here: $(cat "$BATS_FILE_TMPDIR/missing")"
    # What failed before makes the rest meaningless.
    [ ! -e "$BATS_FILE_TMPDIR/failed" ] || skip "an earlier step failed"
}

teardown() {
    if [ -z "${BATS_TEST_COMPLETED:-}" ] && [ -z "${BATS_TEST_SKIPPED:-}" ]; then
        touch "$BATS_FILE_TMPDIR/failed"
        lab_journals
    fi
}

# The files of the host that belong to no package (a dependency may stay), but for the books of apt and systemd, and logs.
host_files() {
    lab_sh host 'find / -xdev \( -path /proc -o -path /sys -o -path /dev -o -path /run -o -path /tmp -o -path /var/tmp -o -path /root -o -path /var/cache \
        -o -path /var/lib/apt -o -path /var/lib/dpkg -o -path /var/log/journal -o -path /var/log/apt -o -path /var/lib/systemd \) -prune \
        -o -print | grep -vE "^/var/log/(dpkg|alternatives)|^/etc/(ld.so.cache|passwd-?|group-?|shadow-?|gshadow-?|subuid-?|subgid-?|\.updated|\.pwd.lock)$|/__pycache__" | sort > files
        cat /var/lib/dpkg/info/*.list | sort -u > owned; comm -23 files owned'
}

active() { [ "$(lab_run host systemctl is-active "$1")" = active ]; }

@test "apt installs the packages with what they ask for, and starts nothing" {
    host_files > "$BATS_FILE_TMPDIR/before"
    lab_packages host
    lab_sh host 'apt-get install -y -qq ./packages/*.deb > apt.log 2>&1 || { cat apt.log; exit 1; }'
    lab_sh host 'getent passwd curvine; test -d /var/lib/curvine; test -s /etc/curvine/curvine.yaml'
    for unit in cv-journal cv-master cv-worker curvine.target; do
        run lab_run host systemctl is-active $unit
        [ "$output" = inactive ]
        run lab_run host systemctl is-enabled $unit
        [ "$output" = disabled ]
    done
    lab_sh host 'for p in cv cv-journal cv-master cv-worker cv-fuse; do
        if ldd /usr/bin/$p | grep "not found"; then exit 1; fi
        $p --version
    done'
    lab_sh host 'dpkg -V curvine-common curvine-journal curvine-master curvine-worker curvine-client libcurvine0'
    run lab_run host systemctl --failed --plain --no-legend
    [ -z "$output" ]
}

@test "a host that is half set up names the command to type next" {
    run lab_run host cv cluster status
    [ "$status" = 4 ]
    [[ $output == *"cv-journal"*"not formatted"* ]]
    [[ $output == *"next: cv cluster init --single"* ]]
}

@test "three commands make a cluster" {
    lab_run host cv cluster init --single
    run lab_run host cv cluster status
    [ "$status" = 4 ]
    [[ $output == *"next: systemctl enable --now curvine.target cv-journal cv-master cv-worker"* ]]
    lab_run host systemctl enable --now curvine.target cv-journal cv-master cv-worker
    lab_run host cv cluster status
    for unit in cv-journal cv-master cv-worker curvine.target; do active $unit; done
    lab_sh host 'for p in cv-journal cv-master cv-worker; do
        pid=$(systemctl show -P MainPID $p)
        test "$(stat -c %U /proc/$pid)" = curvine
        test "$(systemctl show -P WatchdogUSec $p)" = 30s
    done'
    # Again, it leaves alone what is there.
    lab_run host cv cluster init
}

@test "a bucket is attached, mounted by fstab, read cold and warm" {
    mkdir "$BATS_FILE_TMPDIR/tree" "$BATS_FILE_TMPDIR/tree/dir"
    for i in 1 2 3 4 5; do head -c $((i * 700001)) /dev/urandom > "$BATS_FILE_TMPDIR/tree/dir/file-$i"; done
    echo small > "$BATS_FILE_TMPDIR/tree/small"
    lab_s3 data
    lab_s3_tree data "$BATS_FILE_TMPDIR/tree"
    lab_put host /root "$BATS_FILE_TMPDIR/tree/small"
    printf 'endpoint=%s\nregion=%s\naccess_key=%s\nsecret_key=%s\n' "$lab_s3_url" "$S3_REGION" "$S3_ACCESS" "$S3_SECRET" > "$BATS_FILE_TMPDIR/bucket"
    chmod 600 "$BATS_FILE_TMPDIR/bucket"
    lab_put host /root "$BATS_FILE_TMPDIR/bucket"
    lab_run host cv mount s3://data :/data --param-file /root/bucket
    lab_sh host 'mkdir -p /mnt/data
        echo "curvine:/data /mnt/data curvine _netdev,nofail 0 0" >> /etc/fstab
        systemctl daemon-reload
        mount /mnt/data'
    lab_in diff -r "$BATS_FILE_TMPDIR/tree" "/proc/$(cat "$LAB/host/pid")/root/mnt/data"
    lab_s3_gets > "$BATS_FILE_TMPDIR/gets"
    lab_sh host 'umount /mnt/data; systemctl start mnt-data.mount; grep -q " /mnt/data fuse.curvine " /proc/mounts'
    lab_in diff -r "$BATS_FILE_TMPDIR/tree" "/proc/$(cat "$LAB/host/pid")/root/mnt/data"
    # Warm: not one more object was fetched.
    [ "$(grep -c 'GET.*file-' "$LAB/s3/log")" -ge 5 ]
    [ "$(lab_s3_gets)" = "$(cat "$BATS_FILE_TMPDIR/gets")" ]
}

@test "after a reboot everything is back by itself" {
    lab_sh host 'echo kept > /tmp/x; cv fs mkdir :/own; cv fs put /root/small :/own/small'
    lab_reboot host
    for unit in cv-journal cv-master cv-worker curvine.target; do lab_until 30 active $unit; done
    lab_until 30 lab_run host grep -q ' /mnt/data fuse.curvine ' /proc/mounts
    lab_in diff -r "$BATS_FILE_TMPDIR/tree" "/proc/$(cat "$LAB/host/pid")/root/mnt/data"
    [ "$(lab_run host cv fs cat :/own/small)" = small ]
    run lab_run host systemctl --failed --plain --no-legend
    [ -z "$output" ]
}

@test "an upgrade under I/O is a pause" {
    [ -n "${LAB_NEXT+x}" ] || skip "without a build of a higher version (LAB_NEXT=)"
    old=$(lab_sh host 'cv --version' | awk '{ print $2 }')
    lab_sh host 'echo "# mine" >> /etc/curvine/curvine.yaml; mkdir -p /mnt/own; cv mount :/own /mnt/own'
    cat > "$BATS_FILE_TMPDIR/io" <<-'END'
	#!/bin/sh
	# Until told to stop: write, sync, read back; every error is counted.
	n=0 failed=0
	while [ ! -e /root/stop ]; do
	    n=$((n + 1))
	    { echo "number $n" > /mnt/own/f$((n % 50)) && [ "$(cat /mnt/own/f$((n % 50)))" = "number $n" ] && cmp -s /mnt/data/small /root/small; } ||
	        { failed=$((failed + 1)); echo "round $n failed" >> /root/io.log; }
	    echo "$n $failed" > /root/io.new && mv /root/io.new /root/io.state
	done
	END
    chmod +x "$BATS_FILE_TMPDIR/io"
    lab_put host /root "$BATS_FILE_TMPDIR/io"
    lab_run host systemd-run -q --unit io /root/io
    lab_until 10 lab_run host test -s /root/io.state
    lab_packages host next
    lab_sh host 'apt-get install -y -qq ./packages/*.deb > apt.log 2>&1 || { cat apt.log; exit 1; }'
    new=$(lab_sh host 'cv --version' | awk '{ print $2 }')
    [ "$new" != "$old" ]
    # Packages restart nothing; the administrator does, one after the other.
    for unit in cv-journal cv-master cv-worker; do
        active $unit
        lab_run host systemctl restart $unit
        lab_until 30 lab_run host cv cluster status
    done
    lab_sh host 'cv node list -o wide'
    before=$(lab_run host cut -d' ' -f1 /root/io.state)
    lab_until 30 io_goes_on "$before"
    lab_sh host 'touch stop; while systemctl -q is-active io; do sleep 0.1; done; cat io.state; cat io.log 2>/dev/null || true'
    [ "$(lab_run host cut -d' ' -f2 /root/io.state)" = 0 ]
    lab_sh host 'tail -n 1 /etc/curvine/curvine.yaml | grep -qx "# mine"; umount /mnt/own; rmdir /mnt/own'
}

io_goes_on() { [ "$(lab_run host cut -d' ' -f1 /root/io.state)" -gt $(($1 + 50)) ]; }

@test "removed and purged, nothing is left" {
    lab_sh host 'umount /mnt/data; rmdir /mnt/data; sed -i /curvine/d /etc/fstab; systemctl daemon-reload'
    lab_sh host 'apt-get remove -y -qq "curvine-*" "libcurvine*" > apt.log 2>&1 || { cat apt.log; exit 1; }
        if pgrep -a "^cv-"; then echo "still runs"; exit 1; fi
        test -d /var/lib/curvine/master'
    lab_sh host 'apt-get purge -y -qq --autoremove "curvine-*" > apt.log 2>&1 || { cat apt.log; exit 1; }'
    host_files > "$BATS_FILE_TMPDIR/after"
    run diff "$BATS_FILE_TMPDIR/before" "$BATS_FILE_TMPDIR/after"
    echo "$output"
    [ -z "$(grep '^>' <<< "$output")" ]
    lab_sh host 'if getent passwd curvine || getent group curvine || systemctl list-unit-files | grep -E "^(cv-|curvine)"; then exit 1; fi'
}
