#!/usr/bin/env bats
# cv-fuse: names through a mount. One cluster and one mount for all tests, each in a directory of its own.
# run-bats: 70 s
load lib

cluster_path() {
    PATH=${CV_BIN:-$(cd "$BATS_TEST_DIRNAME/../.." && pwd)/build/bin}:$PATH
}

# Unix sockets want short names: the cluster lives in a directory of its own below /tmp.
setup_file() {
    cluster_path
    [ -z "$(no_fuse)" ] || return 0
    CLUSTER=$(mktemp -d /tmp/cv-bats-XXXXXX)
    export CLUSTER MNT=$CLUSTER/mnt
    chmod 755 "$CLUSTER" # other users come in
    mkdir "$MNT"
    cv local up --dir "$CLUSTER" 3>&-
    mount_it
}

mount_it() {
    cv-fuse -c "$CLUSTER/curvine.yaml" -s fuse.allow_other="$([ "$(id -u)" = 0 ] && echo true || echo false)" -s fuse.deadline_ms=20s :/ "$MNT" \
        </dev/null >>"$CLUSTER/fuse.log" 2>&1 3>&- &
    echo $! >"$CLUSTER/fuse.pid"
    for _ in $(seq 1000); do
        tail -n 1 "$CLUSTER/fuse.log" | grep -q ': ready$' && return
        sleep 0.05
    done
    cat "$CLUSTER/fuse.log"
    return 1
}

# The end of the daemon, in another process than the one that started it.
gone() {
    ! kill -0 "$1" 2>/dev/null
}

teardown_file() {
    cluster_path
    [ -n "${CLUSTER:-}" ] || return 0
    kill "$(cat "$CLUSTER/fuse.pid")" 2>/dev/null || true
    cv local down --dir "$CLUSTER" 3>&- || true
    umount -l "$MNT" 2>/dev/null || true
    [ -z "${BATS_KEEP:-}" ] && rm -rf "$CLUSTER"
    true
}

setup() {
    local why=$(no_fuse)
    [ -z "$why" ] || skip "$why"
    declare -gA started=()
    W=$MNT/test-$BATS_TEST_NUMBER
    mkdir "$W"
    cd "$W"
}

c() {
    cv --dir "$CLUSTER" "$@"
}

# Run as a user who is nobody special: uid 12345, group 12345, more groups as given.
as_other() {
    setpriv --reuid 12345 --regid 12345 --clear-groups "$@"
}

as_member() {
    setpriv --reuid 12345 --regid 12345 --groups 777 "$@"
}

mode_is() {
    [ "$(stat -c %a "$1")" = "$2" ]
}

pid_of() {
    (cd / && cv local status --dir "$CLUSTER" -o json) | jq -r ".[] | select(.daemon == \"cv-$1\") | .pid"
}

@test "the mount shows where it comes from" {
    run -0 grep " $MNT " /proc/mounts
    has "curvine:/ $MNT fuse.curvine rw,nosuid,nodev"
}

@test "names are made, moved, linked and removed" {
    mkdir -p d/e/f
    touch d/a d/b
    ln d/a d/hard
    ln -s a d/soft
    [ "$(ls d | tr '\n' ' ')" = "a b e hard soft " ]
    [ "$(stat -c %h d/hard)" = 2 ]
    [ "$(readlink d/soft)" = a ]
    mv d/b d/e/
    [ "$(find d | sort | tr '\n' ' ')" = "d d/a d/e d/e/b d/e/f d/hard d/soft " ]
    rmdir d/e/f
    run -1 rmdir d/e
    has "not empty"
    rm -r d
    [ ! -e d ]
}

@test "what is done here is seen by cv and the other way round" {
    touch here
    c fs stat ":/test-$BATS_TEST_NUMBER/here"
    c fs mkdir ":/test-$BATS_TEST_NUMBER/there"
    [ -d there ]
    c fs rm ":/test-$BATS_TEST_NUMBER/here"
    until_ok 3 test ! -e here
}

@test "inode numbers are the cluster's and stay" {
    touch a
    local before
    before=$(stat -c %i a)
    [ "$(c fs stat ":/test-$BATS_TEST_NUMBER/a" -o json | jq -r .inode)" = "$before" ]
    mv a b
    [ "$(stat -c %i b)" = "$before" ]
}

@test "renames: replacing, not replacing, exchanging, into itself" {
    touch a b
    mkdir d full
    touch full/x
    mv a b
    [ ! -e a ] && [ -e b ]
    run -1 python3 - <<'PY'
import ctypes, os
libc = ctypes.CDLL(None, use_errno=True)
open("n1", "w").close(); open("n2", "w").close()
def renameat2(a, b, f):
    return 0 if libc.renameat2(-100, a.encode(), -100, b.encode(), f) == 0 else ctypes.get_errno()
assert renameat2("n1", "n2", 1) == 17, "NOREPLACE"
i1, i2 = os.stat("n1").st_ino, os.stat("n2").st_ino
assert renameat2("n1", "n2", 2) == 0, "EXCHANGE"
assert (os.stat("n1").st_ino, os.stat("n2").st_ino) == (i2, i1)
assert renameat2("n1", "n3", 1) == 0
try:
    os.rename("d", "d/inside"); raise SystemExit(2)
except OSError as e:
    assert e.errno == 22, e
try:
    os.rename("d", "full"); raise SystemExit(3)
except OSError as e:
    assert e.errno == 39, e
raise SystemExit(1)
PY
    [ -z "$output" ]
}

@test "modes, owners, times and attributes are kept" {
    needs_root "to give files away"
    touch x
    chmod 640 x
    chown 7:8 x
    touch -d '2001-02-03 04:05:06.789' x
    [ "$(stat -c '%a %u %g' x)" = "640 7 8" ]
    [ "$(date -u -d "$(stat -c %y x)" +%s.%3N)" = "$(date -u -d '2001-02-03 04:05:06.789' +%s.%3N)" ]
    touch -d '1969-12-31 23:59:58.5 UTC' x
    [ "$(stat -c %Y x)" = -2 ]
    (cd / && c fs find ":/${W##*/}" --mtime +400d) | grep -q "/x$"
    (cd / && c fs stat ":/${W##*/}/x" -o json) | jq -e '.modified == "1969-12-31T23:59:58.500000000Z"'
    c fs get ":/${W##*/}/x" y
    [ "$(stat -c %Y y)" = -2 ]
    truncate -s 5M x
    [ "$(stat -c %s x)" = 5242880 ]
    python3 - <<'PY'
import os
os.setxattr("x", "user.colour", b"blue")
assert os.getxattr("x", "user.colour") == b"blue"
assert os.listxattr("x") == ["user.colour"]
try:
    os.setxattr("x", "user.colour", b"red", os.XATTR_CREATE); raise SystemExit(1)
except FileExistsError: pass
os.setxattr("x", "user.colour", b"r" * 4000, os.XATTR_REPLACE)
assert len(os.getxattr("x", "user.colour")) == 4000
os.removexattr("x", "user.colour")
try:
    os.getxattr("x", "user.colour"); raise SystemExit(1)
except OSError as e: assert e.errno == 61, e
try:
    os.setxattr("x", "system.posix_acl_access", b"x"); raise SystemExit(1)
except OSError as e: assert e.errno in (95, 22), e
PY
}

@test "the umask of who makes it counts, set-group directories pass their group on" {
    needs_root "to give files to other groups"
    (umask 077 && touch private && mkdir secret)
    [ "$(stat -c %a private)" = 600 ]
    [ "$(stat -c %a secret)" = 700 ]
    mkdir g
    chgrp 4242 g
    chmod g+s g
    mkdir g/sub
    touch g/file
    [ "$(stat -c '%g %a' g/sub)" = "4242 2755" ]
    [ "$(stat -c %g g/file)" = 4242 ]
}

@test "fifos, sockets and devices are names too" {
    needs_root "to make devices"
    mkfifo pipe
    mknod null c 1 3
    mknod disk b 259 1048575
    [ "$(stat -c %F pipe)" = fifo ]
    [ "$(stat -c '%F %Hr %Lr' null)" = "character special file 1 3" ]
    [ "$(stat -c '%F %Hr %Lr' disk)" = "block special file 259 1048575" ]
    (echo through >pipe &)
    [ "$(cat pipe)" = through ]
}

@test "others are let in as far as modes say" {
    needs_root "to be somebody else"
    mkdir open closed
    chmod 755 open
    chmod 700 closed
    touch open/mine closed/mine
    chmod 666 closed/mine
    as_other ls open
    run ! as_other ls closed
    run ! as_other stat closed/mine
    has "Permission denied"
    stat closed/mine # root has it in the kernel's cache now
    run ! as_other stat closed/mine
    run ! as_other touch open/theirs
    run ! as_other rm open/mine
    chmod 777 open
    as_other touch open/theirs
    [ "$(stat -c '%u %g' open/theirs)" = "12345 12345" ]
    run ! as_other chown 1:1 open/theirs
    as_other chmod 600 open/theirs
}

@test "a program runs for who may execute it, readable or not" {
    needs_root "to be somebody else"
    cp "$(type -P true)" run
    chmod 711 run
    as_other ./run
    run -1 as_other cat run
    chmod 744 run
    run -126 as_other ./run
}

@test "sticky directories keep others' names" {
    needs_root "to be somebody else"
    mkdir s
    chmod 1777 s
    touch s/roots
    run ! as_other rm -f s/roots
    run ! as_other mv s/roots s/stolen
    as_other touch s/own
    as_other rm s/own
}

@test "supplementary groups count" {
    needs_root "to be somebody else"
    mkdir g
    chgrp 777 g
    chmod 770 g
    run ! as_other touch g/x
    as_member touch g/x
    as_member rm g/x
}

@test "set-id bits go when others write, not when root does" {
    needs_root "to be somebody else"
    touch f
    chmod 6777 f
    echo root >>f
    [ "$(stat -c %a f)" = 6777 ]
    as_other sh -c 'echo other >>f'
    until_ok 3 mode_is f 777 # the kernel may believe the mode it has for a second
    chmod 6767 f # no group execute: set-gid means nothing there and stays
    as_other sh -c 'echo other >>f'
    until_ok 3 mode_is f 2767
}

@test "random operations of four users end as on another file system" {
    needs_root "to be somebody else"
    local reference
    reference=$(mktemp -d -p /dev/shm 2>/dev/null) || skip "needs /dev/shm"
    chmod 755 "$reference"
    run -0 "$CV_ROOT/tests/tools/posix-twin" names "$reference/twin" "$W/twin" $RANDOM 1500
    rm -rf "$reference"
}

@test "700 files in one directory: made, listed, removed" {
    mkdir many
    (cd many && seq -f 'name-%05g' 700 | xargs touch)
    [ "$(ls many | wc -l)" = 700 ]
    [ "$(ls -la many | wc -l)" = 703 ]
    [ "$(find many -type f | wc -l)" = 700 ]
    rm -r many
    [ ! -e many ]
}

@test "seekdir and rewinddir, while names come and go" {
    mkdir d
    c fs touch $(seq -f ":/test-$BATS_TEST_NUMBER/d/n%04g" 2500)
    "${CV_BIN:-$CV_ROOT/build/bin}/../tools/cv-dirwalk" d
}

@test "a listing of 3,000 names (NAMES) while half of them are removed shows each that stays exactly once" {
    mkdir big
    export NAMES=${NAMES:-3000}
    seq -f ":/test-$BATS_TEST_NUMBER/big/f%05g" "$NAMES" | xargs -n 1000 cv --dir "$CLUSTER" fs touch
    python3 - <<'PY'
import os, threading
names = ["f%05d" % i for i in range(1, int(os.environ["NAMES"]) + 1)]
gone = set(names[1::2])
def remove():
    for n in names[1::2]:
        os.unlink("big/" + n)
started = threading.Event()
t = threading.Thread(target=remove)
seen = []
with os.scandir("big") as it:
    for e in it:
        if not seen:
            t.start()
        seen.append(e.name)
t.join()
assert len(seen) == len(set(seen)), "shown twice"
missing = set(names) - gone - set(seen)
assert not missing, f"left out: {len(missing)}"
left = os.listdir("big")
assert sorted(left) == [n for n in names if n not in gone], len(left)
PY
}

@test "kill -9 of journal and master while names change: a pause, no error" {
    local pid role
    cat >"$CLUSTER/mutate.py" <<'PY'
import os, sys, time
n, end, worst = 0, time.time() + float(sys.argv[1]), 0
while time.time() < end:
    t = time.time()
    os.mkdir("m%d" % n)
    os.rename("m%d" % n, "r%d" % n)
    if n % 3 == 0:
        os.rmdir("r%d" % n)
    os.stat(".")
    worst = max(worst, time.time() - t)
    n += 1
left = sorted(os.listdir("."))
want = sorted("r%d" % i for i in range(n) if i % 3)
assert left == want, (len(left), len(want))
print("%d rounds, the longest %.1f s" % (n, worst))
PY
    mkdir kills
    (cd kills && exec python3 "$CLUSTER/mutate.py" 8) >"$CLUSTER/mutate.out" 2>&1 3>&- &
    local mutator=$!
    for role in master journal; do
        sleep 1
        pid=$(pid_of $role)
        [ -n "$pid" ]
        kill -9 "$pid"
        until_ok 10 gone "$pid"
        (cd / && cv local up --dir "$CLUSTER" 3>&-) # not in the mount, which waits for it
    done
    wait $mutator || { cat "$CLUSTER/mutate.out"; return 1; }
    cat "$CLUSTER/mutate.out"
}

@test "a killed daemon's mount is cleaned by the next; SIGTERM leaves none" {
    local pid
    cd /
    pid=$(cat "$CLUSTER/fuse.pid")
    kill -9 "$pid"
    until_ok 10 gone "$pid"
    run ! stat "$MNT/x"
    has "not connected"
    : >"$CLUSTER/fuse.log"
    mount_it
    run -0 cat "$CLUSTER/fuse.log"
    has "was what is left of a mount whose daemon died"
    [ -d "$W" ]
    pid=$(cat "$CLUSTER/fuse.pid")
    kill "$pid"
    until_ok 10 gone "$pid"
    run ! mountpoint -q "$MNT"
    mount_it
}

@test "umount ends the daemon" {
    local pid
    cd /
    pid=$(cat "$CLUSTER/fuse.pid")
    umount "$MNT"
    until_ok 10 gone "$pid"
    mount_it
}

@test "what is wrong is said before anything is mounted" {
    local f="cv-fuse -c $CLUSTER/curvine.yaml"
    cd "$BATS_TEST_TMPDIR"
    mkdir ok full
    touch file full/x
    run -2 $f
    has "usage: cv-fuse [OPTIONS] :/PATH MOUNTPOINT"
    run -2 $f /data ok
    has "paths of the namespace begin with a colon and a slash"
    run -2 $f :/ :/x
    has "without a colon"
    run -1 $f :/ nowhere
    has "mkdir -p"
    run -1 $f :/ file
    has "ENOTDIR"
    run -1 $f :/ full
    has "fuse.nonempty=true"
    run -1 $f :/nothing ok
    has "':/nothing'"
    run -1 $f :/ "$MNT"
    has "is a mount of curvine:/ already"
    run -1 cv-fuse -s cluster.masters=unix:/nowhere/x.sock :/ ok
    has "no master answers at unix:/nowhere/x.sock"
    run ! mountpoint -q ok
}

@test "a directory below the root can be mounted" {
    mkdir -p a/b/c
    touch a/b/f
    mkdir "$CLUSTER/sub"
    start sub cv-fuse -c "$CLUSTER/curvine.yaml" ":/test-$BATS_TEST_NUMBER/a/b" "$CLUSTER/sub"
    until_ok 10 mountpoint -q "$CLUSTER/sub"
    [ "$(ls "$CLUSTER/sub" | tr '\n' ' ')" = "c f " ]
    [ "$(stat -c %i "$CLUSTER/sub/f")" = "$(stat -c %i a/b/f)" ]
    [ "$(stat -c %i "$CLUSTER/sub")" = "$(stat -c %i a/b)" ]
    mkdir "$CLUSTER/sub/c/d"
    mv "$CLUSTER/sub/c/d" "$CLUSTER/sub/e"
    [ -d a/b/e ]
    run -0 grep " $CLUSTER/sub " /proc/mounts
    has "curvine:/test-$BATS_TEST_NUMBER/a/b "
    stop sub
    [ "$stopped" = 0 ]
    run ! mountpoint -q "$CLUSTER/sub"
}
