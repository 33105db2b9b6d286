#!/usr/bin/env bats
# Three hosts with masters and journals, two of them with workers, and a client: the leader's host loses its power under a load of
# mutations. No acknowledged operation is lost, and the mount goes on. LAB_RELEASE: bookworm (default), trixie.

bats_require_minimum_version 1.5.0
load lab

: "${LAB_RELEASE:=bookworm}"

setup_file() { lab_begin a="$LAB_RELEASE" b="$LAB_RELEASE" c="$LAB_RELEASE" client="$LAB_RELEASE"; }
teardown_file() { lab_down; }
setup() { lab_steps; }
teardown() { lab_end_test; }

# The host whose journal leads, and the master with it, by the cluster's own word.
leader() {
    lab_run client cv node list -o json | jq -r '.[] | select(.role == "journal" and .state == "leader") | .address' | sed 's/:.*//'
}
is_another() {
    local now
    now=$(leader)
    [ -n "$now" ] && [ "$now" != "$1" ] || { echo "leader: $now"; return 1; }
}

@test "three hosts with masters and journals, two of them with workers, make one cluster for a client, as the document says" {
    local host line command id
    for host in a b c client; do lab_packages $host; done
    lab_type a "$(lab_doc 'More hosts' 1 's|^|cd packages; |')" > "$BATS_TEST_TMPDIR/a" 2>&1 &
    lab_type b "$(lab_doc 'More hosts' 1 's|^|cd packages; |')" > "$BATS_TEST_TMPDIR/b" 2>&1 &
    lab_type c "$(lab_doc 'More hosts' 1 's|^|cd packages; |; s|worker,||')" > "$BATS_TEST_TMPDIR/c" 2>&1 &
    lab_type client "$(lab_doc 'More hosts' 2 's|^|cd packages; |')" > "$BATS_TEST_TMPDIR/client" 2>&1 &
    wait
    for host in a b c client; do
        lab_sh $host 'cat > /etc/curvine/curvine.yaml; cv config check' <<< "$(lab_doc 'More hosts' 3)" || { cat "$BATS_TEST_TMPDIR/$host"; return 1; }
    done
    # "a# COMMAND", as it stands; the first one prints the id.
    while IFS= read -r line; do
        echo "$line"
        host=${line%%#*} command=${line#*# }
        run -0 lab_run "$host" bash -euc "${command/ID/${id:-}}" < /dev/null
        echo "$output"
        [ -n "${id:-}" ] || id=$(awk '$1 == "cluster" { print $2 }' <<< "$output")
    done <<< "$(lab_doc 'More hosts' 4)"
    for host in a b; do lab_type $host "$(lab_doc 'More hosts' 5)"; done
    lab_type c "$(lab_doc 'More hosts' 5 's| cv-worker||')"
    lab_until 60 lab_run client cv cluster status
    lab_run client cv node list -o wide
    [ "$(lab_run client cv node list -o json | jq '[.[] | select(.role == "worker" and .state == "up")] | length')" = 2 ]
    lab_sh client 'mkdir -p /mnt/all; echo "curvine:/ /mnt/all curvine _netdev,nofail 0 0" >> /etc/fstab; systemctl daemon-reload; mount /mnt/all'
}

# What the administrator is told while the host $1 is gone.
degraded() {
    local said
    said=$(lab_run client cv cluster status)
    [ $? = 3 ] && grep 'DEGRADED: a master is down' <<< "$said" && grep "start it on $1:8995: systemctl start cv-master" <<< "$said"
}

@test "the leader's host loses its power under load: nothing acknowledged is lost, the mount goes on" {
    cat > "$BATS_FILE_TMPDIR/load" <<-'END'
	#!/bin/bash
	# What is acknowledged is written down behind it: "f N" there with this content, "d N" removed again.
	me=$1
	cd /mnt/all/load-$me || exit 1
	for ((n = 0; ; n++)); do
	    [ ! -e /root/stop ] || exit 0
	    if echo "number $n" > f$n && sync f$n; then echo "f $n" >> /root/acked-$me; else echo "failed: write $n" >> /root/errors-$me; fi
	    if ((n % 3 == 0)); then
	        if mv f$n g$n; then echo "g $n" >> /root/acked-$me; else echo "failed: mv $n" >> /root/errors-$me; fi
	    elif ((n % 3 == 1)); then
	        if rm f$n; then echo "d $n" >> /root/acked-$me; else echo "failed: rm $n" >> /root/errors-$me; fi
	    fi
	done
	END
    chmod +x "$BATS_FILE_TMPDIR/load"
    lab_put client /root "$BATS_FILE_TMPDIR/load"
    for i in 1 2 3 4; do lab_sh client 'mkdir /mnt/all/load-$1; systemd-run -q --unit load-$1 /root/load $1' $i; done
    lab_until 20 acknowledged_more 200 0
    first=$(leader)
    [ -n "$first" ]
    lab_power_off "$first"
    began=$SECONDS
    count=$(acknowledged)
    lab_until 60 acknowledged_more 1 "$count"
    echo "# after the power cut of the leader ($first) the load went on within $((SECONDS - began)) s" >&3
    lab_until 60 is_another "$first"
    lab_until 30 acknowledged_more 200 "$count"
    lab_until 20 degraded "$first"
    lab_power_on "$first"
    lab_until 90 lab_run client cv cluster status
    lab_sh client 'touch stop; for i in 1 2 3 4; do while systemctl -q is-active load-$i; do sleep 0.1; done; done; cat errors-* 2>/dev/null || true'
    check_load > "$BATS_TEST_TMPDIR/checked" || { cat "$BATS_TEST_TMPDIR/checked"; return 1; }
    sed "s|^|# |" "$BATS_TEST_TMPDIR/checked" >&3
}

@test "that check notices one acknowledged operation that is missing, and one that came back" {
    local n
    n=$(lab_sh client 'tac acked-2 | awk "\$1 == \"g\" { print \$2; exit }"')
    lab_sh client 'mv /mnt/all/load-2/g$1 /mnt/all/aside' "$n"
    run ! check_load
    lab_sh client 'mv /mnt/all/aside /mnt/all/load-2/g$1' "$n"
    [[ $output == *"load-2: g$n: "*"No such file"* ]]
    check_load
    n=$(lab_sh client 'awk "\$1 == \"d\" { print \$2; exit }" acked-3')
    lab_sh client 'touch /mnt/all/load-3/f$1' "$n"
    run ! check_load
    [[ $output == *"load-3: f$n is back"* ]]
}

acknowledged() { lab_sh client 'cat acked-* 2>/dev/null | wc -l'; }
acknowledged_more() { [ "$(acknowledged)" -gt $(($2 + $1)) ]; }

# Hold what was acknowledged against what is there, through a mount that knows nothing yet: the last word on each number counts; the last
# operation may be on its way.
check_load() {
    lab_run client bash -c 'cd /root; bad=0
        mkdir -p /mnt/check && mount -t curvine curvine:/ /mnt/check > /dev/null || exit 1
        for i in 1 2 3 4; do
            while read -r what n; do last[n]=$what; done < acked-$i
            for n in "${!last[@]}"; do
                case ${last[n]} in
                f) ((n % 3 == 2 || n == ${#last[@]} - 1)) || continue; name=f$n ;;
                g) name=g$n ;;
                d) [ ! -e /mnt/check/load-$i/f$n ] || { echo "load-$i: f$n is back"; bad=1; }; continue ;;
                esac
                now=$(cat /mnt/check/load-$i/$name 2>&1)
                [ "$now" = "number $n" ] || { echo "load-$i: $name: $now"; bad=1; }
            done
            echo "load-$i: ${#last[@]} files held against what was acknowledged"
            unset last
        done
        umount /mnt/check
        ! cat errors-* 2> /dev/null || bad=1
        exit $bad'
}

@test "cut off and healed: the rest goes on without it, and it comes back" {
    cut=$(leader)
    lab_cut "$cut"
    lab_until 60 is_another "$cut"
    lab_sh client 'mkdir /mnt/all/while-cut'
    lab_heal "$cut"
    lab_until 60 lab_run client cv cluster status
    lab_run "$cut" cv fs stat :/while-cut
}

@test "a leader whose host stands still for a while is another one's follower afterwards" {
    local paused
    paused=$(leader)
    lab_pause "$paused"
    lab_until 60 is_another "$paused"
    lab_sh client 'mkdir /mnt/all/while-paused'
    lab_resume "$paused"
    lab_until 60 lab_run client cv cluster status
    is_another "$paused"
    lab_run "$paused" cv fs stat :/while-paused
    lab_run client ls -d /mnt/all/while-paused
}
