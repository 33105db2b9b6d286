#!/usr/bin/env bats
# One host, from packages to purge, as docs/install.md says it. LAB_RELEASE: bookworm (default), trixie. The tests build on each other.

bats_require_minimum_version 1.5.0
load lab

: "${LAB_RELEASE:=bookworm}"

setup_file() { lab_begin host="$LAB_RELEASE"; }
teardown_file() { lab_down; }
setup() { lab_steps; }
teardown() { lab_end_test; }

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
    run -0 lab_type host "$(lab_doc 'One host: three commands' 1 's|^|cd packages; |')"
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
    [[ $output != *"try:"* ]]
}

@test "three commands make a cluster" {
    lab_doc 'One host: three commands' 2 > "$BATS_TEST_TMPDIR/commands"
    [ "$(wc -l < "$BATS_TEST_TMPDIR/commands")" = 3 ]
    lab_type host "$(sed -n 1p "$BATS_TEST_TMPDIR/commands")"
    # In between, the status says what the document does.
    run lab_run host cv cluster status
    [ "$status" = 4 ]
    [[ $output == *"next: $(sed -n 2p "$BATS_TEST_TMPDIR/commands")"* ]]
    lab_type host "$(sed -n 2,3p "$BATS_TEST_TMPDIR/commands")"
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
    lab_type host "$(lab_doc 'One host: three commands' 3 's|BUCKET|data|')"
    # Up behind the servers of this host, down before them.
    for unit in cv-master cv-worker; do lab_run host systemctl show -P After mnt-data.mount | grep -w $unit.service; done
    lab_in diff -r "$BATS_FILE_TMPDIR/tree" "/proc/$(cat "$LAB/host/pid")/root/mnt/data"
    lab_s3_gets > "$BATS_FILE_TMPDIR/gets"
    lab_sh host 'umount /mnt/data; systemctl start mnt-data.mount; grep -q " /mnt/data fuse.curvine " /proc/mounts'
    lab_in diff -r "$BATS_FILE_TMPDIR/tree" "/proc/$(cat "$LAB/host/pid")/root/mnt/data"
    # Warm: not one more object was fetched.
    [ "$(grep -c 'GET.*file-' "$LAB/s3/log")" -ge 5 ]
    [ "$(lab_s3_gets)" = "$(cat "$BATS_FILE_TMPDIR/gets")" ]
}

@test "mounted by a mount unit, by a service, when somebody looks, and read-only" {
    lab_run host cv fs mkdir :/own
    lab_sh host 'cat > /etc/systemd/system/mnt-own.mount' <<< "$(lab_doc Mounts 1)"
    lab_type host "$(lab_doc Mounts 2)"
    lab_type host "$(lab_doc Mounts 3)"
    lab_sh host 'cp small /mnt/own/; for at in /mnt/own /srv/data; do grep -q " $at fuse.curvine " /proc/mounts; cmp /root/small $at/small; done
        systemd-analyze verify --man=no mnt-own.mount'
    lab_sh host 'mkdir /mnt/look
        echo "curvine:/data /mnt/look curvine _netdev,nofail,ro,noatime,x-systemd.automount,x-systemd.mount-timeout=1min 0 0" >> /etc/fstab
        systemctl daemon-reload'
    if [ -e /dev/autofs ]; then
        lab_run host systemctl start mnt-look.automount
        run ! lab_run host grep ' /mnt/look fuse.curvine ' /proc/mounts
    else
        lab_run host mount /mnt/look
    fi
    lab_run host cmp /root/small /mnt/look/small
    lab_run host grep ' /mnt/look fuse.curvine ro,' /proc/mounts
    run ! lab_run host touch /mnt/look/new
    [[ $output == *"Read-only file system"* ]]
    # What it does not know it says, and mounts nothing.
    run ! lab_run host mount -t curvine curvine:/data /srv -o nosuch
    [[ $output == *"unknown option 'nosuch' (known: masters=, config=, timeout=, over, ro)"* ]]
}

@test "after a reboot everything is back by itself" {
    lab_reboot host
    for unit in cv-journal cv-master cv-worker curvine.target; do lab_until 30 active $unit; done
    for at in /mnt/data /mnt/own /srv/data; do lab_until 30 lab_run host grep -q " $at fuse.curvine " /proc/mounts; done
    lab_in diff -r "$BATS_FILE_TMPDIR/tree" "/proc/$(cat "$LAB/host/pid")/root/mnt/data"
    [ "$(lab_run host cat /mnt/own/small)" = small ]
    [ "$(lab_run host cat /srv/data/small)" = small ]
    [ "$(lab_run host cat /mnt/look/small)" = small ]
    run lab_run host systemctl --failed --plain --no-legend
    [ -z "$output" ]
}

@test "an upgrade under I/O is a pause" {
    [ -n "${LAB_NEXT+x}" ] || skip "without a build of a higher version (LAB_NEXT=)"
    old=$(lab_sh host 'cv --version' | awk '{ print $2 }')
    lab_sh host 'echo "# mine" >> /etc/curvine/curvine.yaml'
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
    lab_doc Upgrade 1 's|^apt|cd packages; apt|' > "$BATS_TEST_TMPDIR/commands"
    lab_type host "$(sed -n 1p "$BATS_TEST_TMPDIR/commands")"
    new=$(lab_sh host 'cv --version' | awk '{ print $2 }')
    [ "$new" != "$old" ]
    # Packages restart nothing; the administrator does.
    for unit in cv-journal cv-master cv-worker; do
        [ "$(lab_sh host '/proc/$(systemctl show -P MainPID $1)/exe --version' $unit | awk '{ print $2 }')" = "$old" ]
    done
    for line in 2 3; do
        lab_type host "$(sed -n ${line}p "$BATS_TEST_TMPDIR/commands")"
        lab_until 30 lab_run host cv cluster status
    done
    for unit in cv-journal cv-master cv-worker; do
        [ "$(lab_sh host '/proc/$(systemctl show -P MainPID $1)/exe --version' $unit | awk '{ print $2 }')" = "$new" ]
    done
    lab_sh host 'cv node list -o wide'
    before=$(lab_run host cut -d' ' -f1 /root/io.state)
    lab_until 30 io_goes_on "$before"
    lab_sh host 'touch stop; while systemctl -q is-active io; do sleep 0.1; done; cat io.state; cat io.log 2>/dev/null || true'
    [ "$(lab_run host cut -d' ' -f2 /root/io.state)" = 0 ]
    lab_sh host 'tail -n 1 /etc/curvine/curvine.yaml | grep -qx "# mine"'
}

io_goes_on() { [ "$(lab_run host cut -d' ' -f1 /root/io.state)" -gt $(($1 + 50)) ]; }

@test "removed and purged, nothing is left" {
    lab_doc Removal > "$BATS_TEST_TMPDIR/commands"
    lab_sh host 'systemctl stop mnt-look.automount mnt-look.mount || umount /mnt/look'
    lab_type host "$(sed -n 1p "$BATS_TEST_TMPDIR/commands")"
    lab_sh host 'systemctl disable -q mnt-own.mount; rm /etc/systemd/system/mnt-own.mount; sed -i /curvine/d /etc/fstab; systemctl daemon-reload
        rmdir /mnt/data /mnt/own /mnt/look'
    lab_type host "$(sed -n 2p "$BATS_TEST_TMPDIR/commands")"
    lab_sh host 'if pgrep -a "^cv-"; then echo "still runs"; exit 1; fi
        if grep fuse.curvine /proc/mounts; then echo "still mounted"; exit 1; fi
        test -d /var/lib/curvine/master; rm /etc/curvine/srv-data.mount; rmdir /srv/data'
    lab_type host "$(sed -n 3p "$BATS_TEST_TMPDIR/commands")"
    lab_run host apt-get autoremove --purge -qq
    host_files > "$BATS_FILE_TMPDIR/after"
    run diff "$BATS_FILE_TMPDIR/before" "$BATS_FILE_TMPDIR/after"
    echo "$output"
    [ -z "$(grep '^>' <<< "$output")" ]
    lab_sh host 'if getent passwd curvine || getent group curvine || systemctl list-unit-files | grep -E "^(cv-|curvine)"; then exit 1; fi'
}
