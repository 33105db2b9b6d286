#!/usr/bin/env bats
# cv-fuse: content through a mount, by programs people use. One cluster and one mount for all tests.
# run-bats: 50 s
load lib

setup_file() {
    PATH=${CV_BIN:-$(cd "$BATS_TEST_DIRNAME/../.." && pwd)/build/bin}:$PATH
    [ -z "$(no_fuse)" ] || return 0
    CLUSTER=$(mktemp -d /tmp/cv-bats-XXXXXX)
    export CLUSTER MNT=$CLUSTER/mnt
    mkdir "$MNT"
    cv local up --dir "$CLUSTER" 3>&-
    cv-fuse -c "$CLUSTER/curvine.yaml" :/ "$MNT" </dev/null >>"$CLUSTER/fuse.log" 2>&1 3>&- &
    echo $! >"$CLUSTER/fuse.pid"
    for _ in $(seq 1000); do
        grep -q ': ready$' "$CLUSTER/fuse.log" && return
        sleep 0.05
    done
    cat "$CLUSTER/fuse.log"
    return 1
}

teardown_file() {
    PATH=${CV_BIN:-$(cd "$BATS_TEST_DIRNAME/../.." && pwd)/build/bin}:$PATH
    [ -n "${CLUSTER:-}" ] || return 0
    kill "$(cat "$CLUSTER/fuse.pid")" 2>/dev/null || true
    cv local down --dir "$CLUSTER" 3>&- || true
    umount -l "$MNT" "$CLUSTER/other" 2>/dev/null || true
    rm -rf "$CLUSTER"
}

setup() {
    local why=$(no_fuse)
    [ -z "$why" ] || skip "$why"
    declare -gA started=()
    W=$MNT/test-$BATS_TEST_NUMBER
    TOOLS=${CV_BIN:-$CV_ROOT/build/bin}/../tools
    mkdir "$W"
    cd "$W"
}

gone() {
    ! kill -0 "$1" 2>/dev/null
}

needs() {
    command -v "$1" >/dev/null || skip "needs $1"
}

# The kernel forgets what it has of the mount's files: reads come from the cluster.
forget() {
    sync
    if [ "$(id -u)" = 0 ]; then echo 3 >/proc/sys/vm/drop_caches
    else find "$W" -type f -exec dd if={} iflag=nocache count=0 status=none \;
    fi
}

random_file() {
    head -c "$2" /dev/urandom >"$1"
}

@test "cp, dd, cat and cmp, sizes around every boundary" {
    local n
    for n in 0 1 4095 4096 4097 65536 262143 262145 1048576 1048577 5000000; do
        random_file "$BATS_TEST_TMPDIR/f" $n
        cp "$BATS_TEST_TMPDIR/f" f$n
        [ "$(stat -c %s f$n)" = $n ]
        cmp "$BATS_TEST_TMPDIR/f" f$n
        mv "$BATS_TEST_TMPDIR/f" "$BATS_TEST_TMPDIR/f$n"
    done
    forget
    for n in 0 1 4095 4096 4097 65536 262143 262145 1048576 1048577 5000000; do
        cmp "$BATS_TEST_TMPDIR/f$n" f$n
        dd if=f$n bs=8k iflag=direct status=none | cmp - "$BATS_TEST_TMPDIR/f$n"
        cv --dir "$CLUSTER" fs cat ":/test-$BATS_TEST_NUMBER/f$n" | cmp - "$BATS_TEST_TMPDIR/f$n"
    done
}

@test "a file across blocks, and a sparse one" {
    random_file "$BATS_TEST_TMPDIR/big" 150000000
    dd if="$BATS_TEST_TMPDIR/big" of=big bs=1M status=none
    dd if="$BATS_TEST_TMPDIR/big" of=direct bs=1M oflag=direct status=none
    truncate -s 1G sparse
    printf end >>sparse
    forget
    cmp "$BATS_TEST_TMPDIR/big" big
    cmp "$BATS_TEST_TMPDIR/big" direct
    [ "$(stat -c %s sparse)" = 1073741827 ]
    [ "$(tail -c 5 sparse | od -An -c | tr -d ' ')" = '\0\0end' ]
    [ "$(head -c 100000 sparse | tr -d '\0' | wc -c)" = 0 ]
    rm sparse big direct
}

@test "appending, by several processes at once" {
    local i
    for i in 1 2 3 4; do
        (for n in $(seq 100); do echo "line $n of $i" >>log; done) &
    done
    wait
    [ "$(wc -l <log)" = 400 ]
    [ "$(sort -u log | wc -l)" = 400 ]
    seq 100 | tee -a log >"$BATS_TEST_TMPDIR/seq"
    tail -n 100 log | cmp - "$BATS_TEST_TMPDIR/seq"
}

@test "pages of a mapping go back where they are from, and fcntl changes where a write goes" {
    python3 - <<'PY'
import fcntl, mmap, os
for n in (100, 5000, 300000):
    with open("a", "wb") as f:
        f.write(b"o" * n)
    append = os.open("a", os.O_RDWR | os.O_APPEND) # the kernel may take this one for all mappings
    plain = os.open("a", os.O_RDWR)
    for fd in (append, plain):
        with mmap.mmap(fd, n) as m:
            m[10:50] = b"M" * 40
            m.flush()
    assert os.fstat(plain).st_size == n, os.fstat(plain).st_size
    assert os.pread(plain, n + 1, 0) == b"o" * 10 + b"M" * 40 + b"o" * (n - 50)
    fcntl.fcntl(append, fcntl.F_SETFL, 0)
    fcntl.fcntl(plain, fcntl.F_SETFL, os.O_APPEND)
    os.pwrite(append, b"A", 0)
    os.pwrite(plain, b"P", 0) # Linux: to the end, whatever is said
    assert os.pread(plain, n + 2, 0) == b"A" + b"o" * 9 + b"M" * 40 + b"o" * (n - 50) + b"P"
    os.close(append)
    os.close(plain)
    with open("a", "rb") as f:
        assert f.read() == b"A" + b"o" * 9 + b"M" * 40 + b"o" * (n - 50) + b"P"
PY
}

@test "what is open goes on after its name is gone" {
    exec 7<>f
    echo first >&7
    rm f
    echo second >&7
    [ "$(cat /proc/self/fd/7)" = "first
second" ]
    exec 7>&-
    run -1 cat f
}

@test "random operations against a model: reads, writes, truncation, mappings" {
    "$TOOLS/cv-fsx" -s 1 -n 1500 f1
    "$TOOLS/cv-fsx" -s 2 -n 1500 -c 25 f2
}

@test "tar and rsync bring a tree over as it is" {
    needs rsync
    (cd "$CV_ROOT" && tar cf - src fuse docs) | tar xf -
    diff -r "$CV_ROOT/src" src
    diff -r "$CV_ROOT/fuse" fuse
    rsync -a "$CV_ROOT/raft/" raft/
    run -0 rsync -ain --checksum "$CV_ROOT/raft/" raft/
    [ -z "$output" ]
    forget
    diff -r "$CV_ROOT/src" src
    rm -r src fuse docs raft
}

@test "git: a repository made, committed to, cloned, checked" {
    needs git
    export GIT_AUTHOR_NAME=a GIT_AUTHOR_EMAIL=a@b GIT_COMMITTER_NAME=a GIT_COMMITTER_EMAIL=a@b HOME=$BATS_TEST_TMPDIR
    git init -q one
    cp -r "$CV_ROOT/src/base" "$CV_ROOT/src/io" one/
    git -C one add -A
    git -C one commit -qm first
    for i in 1 2 3; do
        echo "$i" >>one/base/log.c
        git -C one commit -qam "change $i"
    done
    git clone -q one two
    git -C two fsck --strict
    [ "$(git -C two log --oneline | wc -l)" = 4 ]
    [ -z "$(git -C two status --porcelain)" ]
    git -C one gc -q
    forget
    git -C one fsck --strict
}

@test "sqlite: a database with writers and readers at once" {
    needs sqlite3
    sqlite3 db 'create table t(who int, n int); pragma journal_mode=delete;'
    local w
    for w in 1 2 3; do
        for n in $(seq 15); do
            sqlite3 -cmd '.timeout 60000' db "insert into t values($w, $n);" || echo "failed $w $n" >>"$BATS_TEST_TMPDIR/bad"
        done &
    done
    for n in $(seq 10); do
        sqlite3 -cmd '.timeout 60000' db 'select count(*) from t;' >/dev/null
    done
    wait
    [ ! -e "$BATS_TEST_TMPDIR/bad" ]
    forget
    [ "$(sqlite3 db 'select count(*), count(distinct who * 1000 + n) from t; pragma integrity_check;' | tr '\n' ' ')" = "45|45 ok " ]
}

@test "fio writes and verifies" {
    needs fio
    fio --name=v --directory=. --rw=randwrite --bs=4k-128k --size=24m --verify=crc32c --do_verify=1 --verify_fatal=1 \
        --ioengine=psync --numjobs=2 --fallocate=none --end_fsync=1 --output="$BATS_TEST_TMPDIR/fio.out"
    fio --name=m --directory=. --rw=randwrite --bs=4k --size=4m --verify=crc32c --do_verify=1 --verify_fatal=1 \
        --ioengine=mmap --fallocate=none --output="$BATS_TEST_TMPDIR/fio2.out"
}

@test "kill -9 of worker, master and journal under random operations: no error, no wrong byte" {
    local role pid
    ("$TOOLS/cv-fsx" -s 3 -c 50 -n 3000 f1 && "$TOOLS/cv-fsx" -s 4 -c 50 -n 3000 f2) >"$BATS_TEST_TMPDIR/fsx.out" 2>&1 3>&- &
    local fsx=$!
    # Who starts the daemons again must not wait for the mount: not by its directory, nor the one before it, at which every
    # bash that starts has a look.
    cd /
    cd /
    for role in worker master journal; do
        sleep 0.7
        pid=$(cv local status --dir "$CLUSTER" -o json | jq -r ".[] | select(.daemon == \"cv-$role\") | .pid")
        kill -9 "$pid"
        until_ok 10 gone "$pid"
        cv local up --dir "$CLUSTER" 3>&-
    done
    wait $fsx || { cat "$BATS_TEST_TMPDIR/fsx.out"; return 1; }
}

@test "a worker that is stopped, connected and silent, is noticed in seconds; when it goes on, so does the writer" {
    local worker size=30000000 noticed="is silent for .* closing the connection"
    worker=$(cv local status --dir "$CLUSTER" -o json | jq -r '.[] | select(.daemon == "cv-worker") | .pid')
    random_file "$BATS_TEST_TMPDIR/a" $size
    dd if="$BATS_TEST_TMPDIR/a" of=b bs=1000000 count=10 status=none
    kill -STOP "$worker"
    start writer dd if="$BATS_TEST_TMPDIR/a" of=b bs=1000000 skip=10 seek=10 conv=notrunc status=none
    until_ok 9 grep -q "$noticed" "$CLUSTER/fuse.log" || { kill -CONT "$worker"; return 1; }
    kill -CONT "$worker"
    until_ok 20 gone "${started[writer]}"
    stop writer
    forget
    cmp "$BATS_TEST_TMPDIR/a" b
}

@test "an fsync that is interrupted while a worker is silent ends; one that follows makes up for it" {
    local worker
    worker=$(cv local status --dir "$CLUSTER" -o json | jq -r '.[] | select(.daemon == "cv-worker") | .pid')
    python3 - "$worker" <<'PY'
import os, signal, sys, time
class Enough(Exception):
    pass
def enough(*_):
    raise Enough
signal.signal(signal.SIGALRM, enough)
fd = os.open("f", os.O_RDWR | os.O_CREAT, 0o600)
os.write(fd, b"x" * 1000000)
os.kill(int(sys.argv[1]), signal.SIGSTOP)
try:
    start = time.monotonic()
    signal.setitimer(signal.ITIMER_REAL, 0.3)
    try:
        os.fsync(fd)
        sys.exit("fsync returned though the worker is stopped")
    except Enough:
        pass
    took = time.monotonic() - start
finally:
    os.kill(int(sys.argv[1]), signal.SIGCONT)
os.fsync(fd)
assert took < 4, took
PY
}

@test "what another mount wrote over a file of the same size is seen by the next open" {
    local other=$CLUSTER/other reference
    mkdir "$other"
    cd "$BATS_TEST_TMPDIR"
    start other cv-fuse -c "$CLUSTER/curvine.yaml" -s fuse.attr_timeout_ms=0s -s fuse.entry_timeout_ms=0s \
        -s fuse.negative_timeout_ms=0s :/ "$other"
    until_ok 20 grep -q ': ready$' other.log
    python3 - "$W" "$other/${W##*/}" <<'PY'
import os, stat, sys
here, there = sys.argv[1:]
def write(path, what, n, keep=False):
    fd = os.open(path, os.O_WRONLY | os.O_CREAT, 0o600)
    os.write(fd, what * n)
    os.fsync(fd) if keep else os.close(fd)
    return fd
def read(path, n, what):
    with open(path, "rb") as f:
        got = f.read()
        assert got == what * n, (path, n, what, got[:3], len(got))
for n in (10, 4096, 5000, 300000):
    f = "/same-%d" % n
    for what in (b"a", b"b", b"c"):
        write(here + f, what, n)
        read(here + f, n, what)
        read(there + f, n, what)
        write(there + f, what.upper(), n)
        read(there + f, n, what.upper())
        read(here + f, n, what.upper())
    fd = write(there + f, b"x", n, keep=True) # and while it stays open
    for what in (b"y", b"z"):
        read(here + f, n, b"x" if what == b"y" else b"y")
        os.pwrite(fd, what * n, 0)
        os.fsync(fd)
    read(here + f, n, b"z")
    os.close(fd)
# What is made there under a name that is believed free here is opened as what it is.
def free(path):
    assert not os.path.lexists(path)
    return path
link, fifo = free(here + "/link"), free(here + "/fifo")
os.symlink("same-10", there + "/link")
os.mkfifo(there + "/fifo")
with open(link, "ab") as f:
    assert os.fstat(f.fileno()).st_ino == os.stat(here + "/same-10").st_ino
fd = os.open(fifo, os.O_CREAT | os.O_RDWR | os.O_NONBLOCK, 0o600)
assert stat.S_ISFIFO(os.fstat(fd).st_mode)
PY
    reference=$(mktemp -d -p /dev/shm 2>/dev/null) || reference=$BATS_TEST_TMPDIR
    run -0 "$CV_ROOT/tests/tools/posix-twin" files "$reference/twin" "$W/twin,$other/${W##*/}/twin" $RANDOM 300
    [ "$reference" = "$BATS_TEST_TMPDIR" ] || rm -rf "$reference"
    umount "$other"
    until_ok 20 gone "${started[other]}"
}

@test "stopping the daemon keeps what was written to open files" {
    local pid
    exec 7>kept
    echo "written, not closed" >&7
    cd /
    pid=$(cat "$CLUSTER/fuse.pid")
    kill "$pid"
    until_ok 20 bash -c "! kill -0 $pid"
    exec 7>&- || true
    [ "$(cv --dir "$CLUSTER" fs cat ":/test-$BATS_TEST_NUMBER/kept")" = "written, not closed" ]
}
