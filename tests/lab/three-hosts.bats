#!/usr/bin/env bats
# Three hosts with masters and journals, two of them with workers, and a client: the leader's host loses its power under a load of
# mutations. No acknowledged operation is lost, and the mount goes on. LAB_RELEASE: bookworm (default), trixie.

bats_require_minimum_version 1.5.0
load lab

: "${LAB_RELEASE:=bookworm}"

setup_file() {
    local missing
    missing=$(lab_needs) || { echo "$missing" > "$BATS_FILE_TMPDIR/missing"; return 0; }
    "$LAB_SOURCE/tests/lab/packages" "$LAB_RELEASE" > "$BATS_FILE_TMPDIR/packages" 3>&-
    lab_up a="$LAB_RELEASE" b="$LAB_RELEASE" c="$LAB_RELEASE" client="$LAB_RELEASE"
}

teardown_file() { lab_down; }

setup() {
    [ ! -s "$BATS_FILE_TMPDIR/missing" ] || skip "no lab here: $(cat "$BATS_FILE_TMPDIR/missing")"
    [ ! -e "$BATS_FILE_TMPDIR/failed" ] || skip "an earlier step failed"
}

teardown() {
    if [ -z "${BATS_TEST_COMPLETED:-}" ] && [ -z "${BATS_TEST_SKIPPED:-}" ]; then
        touch "$BATS_FILE_TMPDIR/failed"
        lab_journals
    fi
}

peers=a:8996,b:8996,c:8996

# Install these packages on a host, with the cluster's masters in its configuration.
provide() {
    local host=$1
    shift
    lab_packages "$host"
    lab_sh "$host" 'apt-get install -y -qq $(for p in "$@"; do echo ./packages/${p}_*.deb; done) > apt.log 2>&1 || { cat apt.log; exit 1; }
        printf "cluster:\n  masters: [\"a:8995\", \"b:8995\", \"c:8995\"]\n" > /etc/curvine/curvine.yaml' "$@"
}

# The host whose journal leads, and the master with it, by the cluster's own word.
leader() {
    lab_run client cv node list -o json | jq -r '.[] | select(.role == "journal" and .state == "leader") | .address' | sed 's/:.*//'
}
is_another() {
    local now
    now=$(leader)
    [ -n "$now" ] && [ "$now" != "$1" ] || { echo "leader: $now"; return 1; }
}

@test "three hosts make one cluster, by the documentation" {
    for host in a b c; do
        case $host in c) worker= ;; *) worker=curvine-worker ;; esac
        provide $host curvine-common curvine-journal curvine-master curvine-client $worker
    done
    provide client curvine-common curvine-client
    id=$(lab_run a cv cluster init --peers $peers | awk '$1 == "cluster" { print $2 }')
    for host in b c; do lab_run $host cv cluster init --peers $peers --cluster-id "$id"; done
    for host in a b c; do
        lab_sh $host 'systemctl enable --now curvine.target cv-journal cv-master
            if [ -e /usr/bin/cv-worker ]; then systemctl enable --now cv-worker; fi'
    done
    lab_until 60 lab_run client cv cluster status
    lab_run client cv node list -o wide
    lab_sh client 'mkdir -p /mnt/all; echo "curvine:/ /mnt/all curvine _netdev,nofail 0 0" >> /etc/fstab; systemctl daemon-reload; mount /mnt/all'
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
    lab_power_on "$first"
    lab_until 90 lab_run client cv cluster status
    lab_sh client 'touch stop; for i in 1 2 3 4; do while systemctl -q is-active load-$i; do sleep 0.1; done; done; cat errors-* 2>/dev/null || true'
    check_load | sed "s|^|# |" >&3
    [ "${PIPESTATUS[0]}" = 0 ]
}

acknowledged() { lab_sh client 'cat acked-* 2>/dev/null | wc -l'; }
acknowledged_more() { [ "$(acknowledged)" -gt $(($2 + $1)) ]; }

# Hold what was acknowledged against what is there: the last word on each number counts; the last operation may be on its way.
check_load() {
    lab_run client bash -c 'cd /root; bad=0
        for i in 1 2 3 4; do
            while read -r what n; do last[n]=$what; done < acked-$i
            for n in "${!last[@]}"; do
                case ${last[n]} in
                f) ((n % 3 == 2 || n == ${#last[@]} - 1)) || continue; name=f$n ;;
                g) name=g$n ;;
                d) [ ! -e /mnt/all/load-$i/f$n ] || { echo "load-$i: f$n is back"; bad=1; }; continue ;;
                esac
                [ "$(cat /mnt/all/load-$i/$name 2>&1)" = "number $n" ] || { echo "load-$i: $name: $(cat /mnt/all/load-$i/$name 2>&1)"; bad=1; }
            done
            echo "load-$i: ${#last[@]} files held against what was acknowledged"
            unset last
        done
        exit $bad'
    [ -z "$(lab_sh client 'cat errors-* 2>/dev/null || true')" ]
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
