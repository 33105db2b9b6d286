# What the power cut tests share: file systems of their own on loop devices, which lose what was not synced.
#
#   need_power               skip unless we may: root, loop devices, mkfs.ext4
#   power_disk NAME [SIZE]   make an ext4 file system and mount it at $BATS_TEST_TMPDIR/NAME
#   power_cut NAME CLIENT... stop the clients (names given to start) where they are, then at once: nothing reaches the
#                            disk any more, not even the file system's own journal (EXT4_IOC_SHUTDOWN, no flush); every
#                            access fails. Kill the clients behind it.
#   power_back NAME          mount it again as the disk has it, after all who used it are gone
#
# The clients, which write down what they were told, are stopped first because a shut down ext4 is not quite a cut: an
# fsync under way may still return 0, after the shutdown began, although what it wrote was lost (measured on 6.18 with a
# bare write-and-fdatasync loop: 1 of 30 cuts). What was told before the cut counts; daemons go on until their disk fails.
#
# Programs built without fsync (CV_BIN_NOSYNC) must fail these tests: that shows that the tests can.

# shellcheck source=/dev/null
load "$BATS_TEST_DIRNAME/../bats/lib.bash"
CV_ROOT=$(cd "$BATS_TEST_DIRNAME/../.." && pwd)
: "${CV_TOOLS:=$CV_ROOT/build/tools}"
: "${CV_BIN_NOSYNC:=$CV_ROOT/build/nosync/bin}"

need_power() {
    [ "$(id -u)" = 0 ] || skip "needs root: loop devices"
    command -v mkfs.ext4 >/dev/null || skip "needs mkfs.ext4"
    losetup -f >/dev/null 2>&1 || skip "needs loop devices"
}

power_disk() {
    truncate -s "${2:-2G}" "$BATS_TEST_TMPDIR/$1.img"
    mkfs.ext4 -q "$BATS_TEST_TMPDIR/$1.img"
    mkdir -p "$BATS_TEST_TMPDIR/$1"
    mount -o loop "$BATS_TEST_TMPDIR/$1.img" "$BATS_TEST_TMPDIR/$1"
}

power_cut() {
    local disk=$1 pids=()
    shift
    while [ $# -gt 0 ]; do
        pids+=("${started[$1]}")
        shift
    done
    python3 - "$BATS_TEST_TMPDIR/$disk" "${pids[@]}" <<-END
	import fcntl, os, signal, struct, sys
	EXT4_IOC_SHUTDOWN, NO_LOG_FLUSH = 0x8004587d, 2
	disk = os.open(sys.argv[1], os.O_RDONLY)
	for pid in sys.argv[2:]:
	    os.kill(int(pid), signal.SIGSTOP)
	    while any(open(f"/proc/{pid}/task/{t}/stat").read().rpartition(")")[2].split()[0] not in "TtZ"
	              for t in os.listdir(f"/proc/{pid}/task")):
	        pass
	fcntl.ioctl(disk, EXT4_IOC_SHUTDOWN, struct.pack("I", NO_LOG_FLUSH))
	END
}

power_back() {
    until_ok 20 umount "$BATS_TEST_TMPDIR/$1"
    mount -o loop "$BATS_TEST_TMPDIR/$1.img" "$BATS_TEST_TMPDIR/$1"
}

# bats' own teardown ends the processes first.
eval "power_$(declare -f teardown)"
teardown() {
    power_teardown
    local m pid
    for pid in $(pgrep -f -- "^cv-.*$BATS_TEST_TMPDIR/disk/"); do # of cv local: nobody here started them by name
        kill -9 "$pid" || true
    done
    for m in $(awk -v d="$BATS_TEST_TMPDIR/" 'index($2, d) == 1 {print $2}' /proc/mounts); do
        umount -l "$m" || true
    done
}
