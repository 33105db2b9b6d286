# A lab of real hosts: systemd in containers, each with its own address, on a bridge that nobody else sees. `load lab`.
#
#   lab_needs                      why no lab can run here, to standard output; status 0 when it can
#   lab_begin NAME=RELEASE...      setup_file: the packages for these hosts, then lab_up; skips the file where no lab can run
#   lab_begin_test, lab_end_test   setup, teardown: after a failure the journals of all hosts are kept and shown
#   lab_steps                      setup of a file whose tests build on each other: what failed before makes the rest meaningless
#   lab_up NAME=RELEASE...         boot these hosts, all at once; from then on they have the addresses lab_ip says
#   lab_down                       end it all (teardown_file); happens by itself when the test run dies
#   lab_doc SECTION [N] [SED]      the Nth block (1) of commands of that section of docs/install.md, with that edit
#   lab_run HOST CMD...            run it there, as root;  lab_sh HOST 'SCRIPT' [ARG...]: a script of sh -eu
#   lab_type HOST LINES            type these commands there, one after the other, as an administrator would; each is shown
#   lab_put HOST DIR FILE...       copy files into a directory there
#   lab_packages HOST [next]       copy the packages of HEAD for its release to /root/packages (next: those with the higher version)
#   lab_s3 BUCKET...               a real S3 server that all hosts reach: sets lab_s3_url, lab_s3_params
#   lab_until SECONDS CMD...       run CMD until it succeeds; fails, showing its last output, when the time is up
#   lab_journals                   keep the journals of all hosts below build/lab, show their last lines (teardown does it after a failure)
#
# What befalls hosts:
#   lab_reboot HOST                as its administrator does, and wait until it is up
#   lab_power_off HOST             at once: nothing is said to anybody; lab_power_on HOST: boot it again
#   lab_pause HOST, lab_resume     all its processes stand still
#   lab_cut HOST, lab_heal HOST    its link
#
# How it works: tests/lab/keeper is process 1 of a process namespace, beside which it has its own mounts and network; all hosts
# (systemd-nspawn on overlays over tests/lab/tree) run in there. Ending the keeper ends them, their mounts and links in one step,
# and tests/lab/watcher ends it when the process of the test run is gone. Host files lie in $LAB/HOST; logs of their consoles too.
#
# A power cut kills all processes of a host at one instant. What it had written stays, since its files are on this machine:
# what an unsynced disk loses is what tests/power shows.

LAB_SOURCE=$(cd "$(dirname "${BASH_SOURCE[0]}")/../.." && pwd)
: "${LAB:=${BATS_FILE_TMPDIR:+$BATS_FILE_TMPDIR/lab}}"
export LAB
export LC_ALL=C.UTF-8

lab_needs() {
    local p d why
    [ "$(id -u)" = 0 ] || { echo "needs root"; return 1; }
    for p in systemd-nspawn debootstrap unshare nsenter ip; do
        command -v $p > /dev/null || { echo "needs $p: make lab-deps"; return 1; }
    done
    [ -e /dev/fuse ] || { echo "needs /dev/fuse"; return 1; }
    # All that a lab is made of, in small; it ends with these namespaces.
    d=$(mktemp -d)
    mkdir "$d"/{lower,upper,work,root}
    why=$(timeout -k 5 20 unshare --fork --pid --mount --propagation private --mount-proc --net --ipc bash -euc '
        cd "$1"
        mount -t overlay overlay -o lowerdir=lower,upperdir=upper,workdir=work root
        umount -R /sys/fs/cgroup
        mount -t cgroup2 cgroup2 /sys/fs/cgroup
        rmdir "$(mktemp -d /sys/fs/cgroup/curvine-lab-XXXXXX)"
        ip link add lab0 type bridge
        ip link add lab1 type veth peer name lab2' - "$d" 2>&1) || why=${why:-the lab\'s namespaces hang}
    rm -rf --one-file-system "$d"
    [ -z "$why" ] || { echo "needs the right to make namespaces, mounts and links: $(tail -n 1 <<< "$why")"; return 1; }
}

# ---- what files of tests have in common -------------------------------------------------------------------------------------------

lab_begin() {
    local spec missing
    missing=$(lab_needs) || { echo "$missing" > "$BATS_FILE_TMPDIR/missing"; return 0; }
    for spec in $(printf '%s\n' "${@#*=}" | sort -u); do
        "$LAB_SOURCE/tests/lab/packages" "$spec" ${LAB_NEXT+--next} > "$BATS_FILE_TMPDIR/packages" 3>&- || return 1
    done
    lab_up "$@"
}

lab_begin_test() {
    [ ! -s "$BATS_FILE_TMPDIR/missing" ] || skip "no lab here: $(cat "$BATS_FILE_TMPDIR/missing")"
}

lab_steps() {
    lab_begin_test
    [ ! -e "$BATS_FILE_TMPDIR/failed" ] || skip "an earlier step failed"
}

lab_end_test() {
    [ -z "${BATS_TEST_COMPLETED:-}" ] && [ -z "${BATS_TEST_SKIPPED:-}" ] || return 0
    touch "$BATS_FILE_TMPDIR/failed"
    lab_journals
}

lab_doc() {
    local lines
    lines=$(awk -v title="## $1" -v which="${2:-1}" '
        /^## / { on = $0 == title; n = 0 }
        !/^    / { if ($0 != "") inside = 0; next }
        on { n += !inside; inside = 1; if (n == which) print substr($0, 5) }' "$LAB_SOURCE/docs/install.md" | sed "${3:-}")
    [ -n "$lines" ] || { echo "no block ${2:-1} under '$1' in docs/install.md" >&2; return 1; }
    echo "$lines"
}

lab_type() {
    local line
    while IFS= read -r line; do
        [ -n "$line" ] || continue
        echo "$1# $line"
        lab_run "$1" bash -euc "cd /root; $line" < /dev/null || { echo "failed with status $?"; return 1; }
    done <<< "$2"
}

# ---- the lab itself --------------------------------------------------------------------------------------------------------------

# When a process began, which tells it from a later one of the same id; nothing when it has ended.
start_time() { awk '$3 != "Z" { print $22 }' "/proc/$1/stat" 2> /dev/null; }

lab_up() {
    local spec n=0
    mkdir -p "$LAB"
    unshare --fork --pid --kill-child=KILL --mount --propagation private --mount-proc --net --ipc \
        "$LAB_SOURCE/tests/lab/keeper" "$LAB" < /dev/null > "$LAB/keeper.log" 2>&1 3>&- &
    echo $! > "$LAB/unshare.pid"
    setsid "$LAB_SOURCE/tests/lab/watcher" $$ < /dev/null > /dev/null 2>&1 3>&- &
    lab_until 10 test -e "$LAB/up" || { cat "$LAB/keeper.log" >&2; return 1; }
    awk '{ print $1 }' "/proc/$(cat "$LAB/unshare.pid")/task/$(cat "$LAB/unshare.pid")/children" > "$LAB/keeper.pid"
    echo "/sys/fs/cgroup/curvine-lab-$(cat "$LAB/unshare.pid")" > "$LAB/cgroup"
    lab_in mkdir "$(cat "$LAB/cgroup")"
    echo "127.0.0.1 localhost" > "$LAB/hosts"
    echo "10.87.0.1 lab" >> "$LAB/hosts"
    for spec in "$@"; do
        n=$((n + 1))
        echo "10.87.0.$((10 + n)) ${spec%%=*}" >> "$LAB/hosts"
    done
    for spec in "$@"; do lab_make "${spec%%=*}" "${spec#*=}" || return 1; done
    for spec in "$@"; do lab_power_on "${spec%%=*}" nowait; done
    for spec in "$@"; do lab_booted "${spec%%=*}" || return 1; done
}

# Seen from outside, where nothing of the lab is left to do it.
rmdir_cgroup() {
    local root name
    name=$(basename "$(cat "$LAB/cgroup" 2> /dev/null)")
    root=$(awk '$3 == "cgroup2" { print $2; exit }' /proc/mounts)
    case $root$name in /*curvine-lab-*) ;; *) return 0 ;; esac
    find "$root/$name" -depth -type d -exec rmdir {} + 2> /dev/null
    [ ! -d "$root/$name" ]
}

lab_down() {
    local pid
    [ -s "$LAB/unshare.pid" ] || return 0
    pid=$(cat "$LAB/unshare.pid")
    kill -9 "$pid" 2> /dev/null || true
    while [ -d "/proc/$pid" ] && [ "$(awk '{ print $3 }' "/proc/$pid/stat" 2> /dev/null)" != Z ]; do sleep 0.1; done
    lab_until 10 rmdir_cgroup || true
    # Where overlays were nothing is mounted any more.
    lab_until 10 rm -rf --one-file-system "$LAB"
}

# In the lab, but on none of its hosts: the machine's files, the lab's network.
lab_in() {
    nsenter -t "$(cat "$LAB/keeper.pid")" -m -n -p -i -- "$@" 3>&-
}

lab_until() {
    local deadline=$((SECONDS + $1)) last
    shift
    while ! last=$("$@" 2>&1 3>&-); do
        if [ $SECONDS -ge $deadline ]; then
            printf 'not in time: %s\nlast output: %s\n' "$*" "$last" >&2
            return 1
        fi
        sleep 0.2
    done
}

lab_ip() { awk -v name="$1" '$2 == name { print $1 }' "$LAB/hosts"; }
lab_hosts() { awk '/^10/ && $2 != "lab" { print $2 }' "$LAB/hosts"; }

# ---- hosts -----------------------------------------------------------------------------------------------------------------------

# The files of a host: an overlay, and what makes it this host.
lab_make() {
    local name=$1 release=$2 dir=$LAB/$1 tree layer
    tree=$("$LAB_SOURCE/tests/lab/tree" host "$release" 3>&-) || return 1
    layer=$(dirname "$tree")/archives-$release
    mkdir -p "$dir"/{upper,work,root} "$layer"
    echo "$release" > "$dir/release"
    mkdir -p "$dir/upper/etc/systemd/network" "$dir/upper/etc/systemd/journald.conf.d"
    echo "$name" > "$dir/upper/etc/hostname"
    cp "$LAB/hosts" "$dir/upper/etc/hosts"
    printf '[Match]\nName=host0\n[Network]\nAddress=%s/24\nLinkLocalAddressing=no\n' "$(lab_ip "$name")" > "$dir/upper/etc/systemd/network/10-lab.network"
    printf '[Journal]\nStorage=persistent\n' > "$dir/upper/etc/systemd/journald.conf.d/lab.conf"
    : > "$dir/upper/etc/machine-id"
    # "apt install" as it stands in documents: nobody is there to say yes.
    mkdir -p "$dir/upper/etc/apt/apt.conf.d"
    echo 'APT::Get::Assume-Yes "true"; Dpkg::Use-Pty "false";' > "$dir/upper/etc/apt/apt.conf.d/lab"
    # What is installed need not outlive this machine.
    mkdir -p "$dir/upper/etc/dpkg/dpkg.cfg.d"
    echo force-unsafe-io > "$dir/upper/etc/dpkg/dpkg.cfg.d/lab"
    lab_in mount -t overlay overlay -o "lowerdir=$layer:$tree,upperdir=$dir/upper,workdir=$dir/work" "$dir/root" || return 1
    lab_in systemctl --root="$dir/root" --quiet enable systemd-networkd
    lab_in systemctl --root="$dir/root" --quiet mask systemd-networkd-persistent-storage.service apt-daily.timer apt-daily-upgrade.timer \
        e2scrub_all.timer fstrim.timer 2> /dev/null || true
}

# Boot it, and again when it reboots (133: systemd-nspawn leaves that to its caller).
lab_power_on() {
    local dir=$LAB/$1
    rm -f "$dir/pid"
    lab_in setsid bash -c '
        mkdir -p "$1"
        echo $$ > "$1/cgroup.procs"
        status=133
        while [ $status = 133 ]; do
            status=0
            systemd-nspawn --quiet -D "$2/root" -M "$3" --boot --register=no --keep-unit --network-bridge=lab0 --bind=/dev/fuse $([ ! -e /dev/autofs ] || echo --bind=/dev/autofs) \
                --capability=CAP_SYS_ADMIN --console=pipe --resolv-conf=off --timezone=off --link-journal=no || status=$?
        done' - "$(cat "$LAB/cgroup")/$1" "$dir" "$1" < /dev/null >> "$dir/console.log" 2>&1 3>&- &
    [ "${2:-}" = nowait ] || lab_booted "$1"
}

# Process 1 of a host, as seen in the lab.
lab_leader() {
    lab_in bash -c 'find "$1" -name cgroup.procs -exec cat {} + 2> /dev/null | while read -r pid; do
        awk -v pid="$pid" "\$1 == \"NSpid:\" && NF > 2 && \$NF == 1 { print pid }" "/proc/$pid/status" 2> /dev/null
    done | head -n 1' - "$(cat "$LAB/cgroup")/$1"
}

is_up() {
    local pid state
    pid=$(lab_leader "$1")
    [ -n "$pid" ] || { echo "no process 1"; return 1; }
    echo "$pid" > "$LAB/$1/pid"
    state=$(lab_run "$1" systemctl is-system-running) || true
    case $state in running | degraded) ;; *) echo "state: $state"; return 1 ;; esac
}

lab_booted() {
    lab_until 60 is_up "$1" || { tail -n 20 "$LAB/$1/console.log" >&2; return 1; }
}

lab_run() {
    local host=$1
    shift
    lab_in nsenter -t "$(cat "$LAB/$host/pid")" -a -- env -i PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin \
        HOME=/root LC_ALL=C.UTF-8 DEBIAN_FRONTEND=noninteractive "$@"
}

lab_sh() {
    local host=$1 script=$2
    shift 2
    lab_run "$host" sh -euc "cd /root; $script" sh "$@"
}

lab_put() {
    local host=$1 dir=$2
    shift 2
    lab_in mkdir -p "$LAB/$host/root$dir"
    lab_in cp "$@" "$LAB/$host/root$dir/"
}

lab_packages() {
    local host=$1
    lab_run "$host" rm -rf /root/packages
    lab_put "$host" /root/packages "$LAB_SOURCE/build/deb-$(cat "$LAB/$host/release")/${2:+$2/}"*.deb
}

lab_reboot() {
    local before
    before=$(lab_run "$1" cat /proc/sys/kernel/random/boot_id /proc/1/stat | md5sum)
    before=$(cat "$LAB/$1/pid")
    lab_run "$1" systemctl reboot
    lab_until 60 is_gone "$1" "$before"
    lab_booted "$1"
}

is_gone() { [ "$(lab_leader "$1")" != "$2" ]; }

lab_power_off() {
    local pid
    pid=$(cat "$LAB/$1/pid")
    lab_in kill -9 "$pid"
    lab_until 20 is_gone "$1" "$pid"
    rm -f "$LAB/$1/pid"
}

lab_pause() { lab_in sh -c 'echo 1 > "$1/cgroup.freeze"' - "$(cat "$LAB/cgroup")/$1"; }
lab_resume() { lab_in sh -c 'echo 0 > "$1/cgroup.freeze"' - "$(cat "$LAB/cgroup")/$1"; }

# systemd-nspawn calls the machine's end of a host's link vb-HOST.
lab_cut() { lab_in ip link set "vb-$1" down; }
lab_heal() { lab_in ip link set "vb-$1" up; }

# ---- an S3 server ----------------------------------------------------------------------------------------------------------------

lab_s3() {
    local bucket bin
    bin=$("$LAB_SOURCE/tests/s3/install" 3>&-) || return 1
    lab_s3_url=http://10.87.0.1:9000
    export S3_ENDPOINT=$lab_s3_url S3_ACCESS=lab-access S3_SECRET=lab-secret S3_REGION=eu-test-1 lab_s3_url
    lab_s3_params="--param endpoint=$lab_s3_url --param region=$S3_REGION --param access_key=$S3_ACCESS --param secret_key=$S3_SECRET"
    mkdir -p "$LAB"/s3/{data,meta,users}
    lab_in setsid "$bin/versitygw" --port 10.87.0.1:9000 --access $S3_ACCESS --secret $S3_SECRET --region $S3_REGION \
        --iam-dir "$LAB/s3/users" posix --sidecar "$LAB/s3/meta" "$LAB/s3/data" < /dev/null > "$LAB/s3/log" 2>&1 3>&- &
    lab_until 20 lab_in curl -s -o /dev/null $lab_s3_url || { cat "$LAB/s3/log" >&2; return 1; }
    for bucket in "$@"; do lab_in "$LAB_SOURCE/tests/s3/s3-client" bucket "$bucket"; done
}

lab_s3_tree() { lab_in "$LAB_SOURCE/tests/s3/s3-client" tree "$@"; }
# GET requests it has answered so far.
lab_s3_gets() { grep -c '| GET |' "$LAB/s3/log" || true; }

# ---- what is left after a failure ------------------------------------------------------------------------------------------------

lab_journals() {
    local host to
    to=$LAB_SOURCE/build/lab/$(basename "${BATS_TEST_FILENAME:-lab}" .bats)-${LAB_RELEASE:-bookworm}
    mkdir -p "$to"
    for host in $(lab_hosts); do
        lab_in journalctl --no-pager -q -o short-precise -D "$LAB/$host/root/var/log/journal" > "$to/$host.journal" 2>&1 || true
        cp "$LAB/$host/console.log" "$to/$host.console" || true
        echo "--- $host: the last lines of its journal ($to/$host.journal)"
        grep -v 'systemd\[1\]: \(Finished\|Reached\|Starting\|Listening\)' "$to/$host.journal" | tail -n 25
    done
}
