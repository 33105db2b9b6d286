#!/usr/bin/env bats
# cv mount and cv umount: what is refused before anything is changed.
# run-bats: 15 s, alone
load lib

@test "mistakes in the arguments are named and change nothing" {
    run -2 cv mount gopher://b :/data
    has "unknown scheme 'gopher://'; this version knows file://, s3://"
    run -2 cv mount s3:// :/data
    has "names no bucket"
    run -2 cv mount file://srv :/data
    has "whole path"
    run -2 cv mount s3://b
    has ":/PATH attaches, DIR attaches and mounts"
    run -2 cv mount :/data
    has "where shall :/data go?"
    run -2 cv mount /srv/data :/data
    has "cv mount file:///srv/data :/data"
    run -2 cv mount :/a :/b
    has "expected URI :/PATH, :/PATH DIR or URI DIR"
    run -2 cv mount :/a s3://b
    has "expected URI :/PATH, :/PATH DIR or URI DIR"
    run -2 cv mount s3://b :/data --mode turbo
    has "expected cache, fs or scratch"
    run -2 cv mount s3://b :/data --mode scratch
    has "without s3://b"
    run -2 cv mount :/a here --mode cache
    has "belong to attaching"
    run -2 cv umount s3://b
    has "name the path it is attached at"
}

@test "parameters are checked, and secrets are not repeated" {
    run -2 cv mount s3://b :/data --param secretkey=hunter2
    has "did you mean 'secret_key'?"
    lacks hunter2
    run -2 cv mount s3://b :/data --param hunter2
    has "expected NAME=VALUE"
    lacks hunter2
    echo secret_key=hunter2 > params
    chmod 644 params
    run -2 cv mount s3://b :/data --param-file params
    has "chmod 600"
    lacks hunter2
    run -2 cv mount s3://b :/data --param-file nowhere
    has "cannot read 'nowhere'"
}

@test "what is no mount is not unmounted" {
    mkdir plain
    run -1 cv umount plain
    has "nothing is mounted at '$BATS_TEST_TMPDIR/plain'"
    run -1 cv umount nowhere
    has "unmount 'nowhere'"
    run -1 cv umount /proc
    has "none of ours"
}

@test "a busy, missing or full mount point is refused, whether or not there is a cluster" {
    [ -w /dev/fuse ] || skip "no /dev/fuse"
    run -1 cv mount :/ /proc
    has "'/proc' is busy"
    run -1 cv mount :/ nowhere
    has "mkdir -p"
    touch file
    run -1 cv mount :/ file
    has "file"
    mkdir full
    touch full/x
    run -1 cv mount :/ full
    has "--over hides what is in this one"
}

@test "without a master cv mount says so and still lists what is mounted here" {
    run -4 cv --cluster unix:nowhere.sock --timeout 300ms mount
    has "no master at unix:nowhere.sock"
    has "KIND"
}

# A cluster of its own; unix sockets want short names.
cluster() {
    CLUSTER=$(mktemp -d /tmp/cv-bats-XXXXXX)
    echo "$CLUSTER" > cluster
    cv local up --dir "$CLUSTER" 3>&-
    mkdir mnt
}

c() {
    cv --dir "$CLUSTER" "$@"
}

teardown() {
    end_started
    if [ -e "$BATS_TEST_TMPDIR/cluster" ]; then
        cd /
        cv local down --force --dir "$(<"$BATS_TEST_TMPDIR/cluster")" 3>&- || true
        rm -rf "$(<"$BATS_TEST_TMPDIR/cluster")"
    fi
}

@test "a path is mounted, listed, and busy until nobody holds it" {
    [ -w /dev/fuse ] || skip "no /dev/fuse"
    cluster
    c fs mkdir -p :/a/b
    run -0 c mount :/a mnt 3>&-
    has "mounted :/a at $BATS_TEST_TMPDIR/mnt"
    [ -d mnt/b ]
    run -0 c mount -o json
    [ "$(jq -r '.[] | select(.where == "'"$BATS_TEST_TMPDIR"'/mnt") | [.kind, .path, .state] | join(" ")' <<<"$output")" = "mounted :/a ok" ]
    run -0 cv local status --dir "$CLUSTER"
    has "cv-fuse $BATS_TEST_TMPDIR/mnt"
    run -1 c mount :/a mnt
    has "is busy: curvine:"
    has "served by cv-fuse"
    start holder bash -c 'cd mnt/b && exec sleep 100'
    until_ok 5 grep -q sleep "/proc/${started[holder]}/comm"
    run -1 cv umount mnt
    has "${started[holder]} sleep (its working directory)"
    run -1 cv local down --dir "$CLUSTER"
    has "nothing was stopped"
    [ -d mnt/b ]
    stop holder KILL
    run -0 cv umount mnt
    [ ! -e mnt/b ]
    run -1 c mount :/nowhere mnt
    has "mount :/nowhere"
}

# Mounted at mnt, and seen by another mount namespace too, whose copy an unmount here does not reach: process started[other].
# pid: its cv-fuse.
seen_elsewhere() {
    needs_root "mount namespaces"
    [ -w /dev/fuse ] || skip "no /dev/fuse"
    cluster
    c mount :/ mnt 3>&-
    start other unshare --mount --propagation private sleep 100
    until_ok 5 grep -q sleep "/proc/${started[other]}/comm"
    pid=$(pgrep -f "cv-fuse .*$CLUSTER.* $PWD/mnt")
}

@test "unmounting here what another mount namespace has too: said at once, by whom" {
    seen_elsewhere
    run -1 cv --timeout 20s umount mnt
    has "process ${started[other]}"
    has "cv umount --force $PWD/mnt"
    run ! mountpoint -q mnt
    # It is not mounted here: that is still known, and it still serves the other one.
    run -1 cv umount mnt
    has "process ${started[other]}"
    timeout 10 nsenter -t "${started[other]}" -m ls "$PWD/mnt"
    stop other KILL
    until_ok 5 gone "$pid"
    run -1 cv umount mnt
    has "nothing is mounted"
}

gone() { # or a zombie that its parent has yet to hear of
    ! grep -q '^State:.[^Z]' "/proc/$1/status" 2>/dev/null
}

@test "by force it ends all the same, also after a refusal, and the other namespace gets errors instead of waiting" {
    seen_elsewhere
    run -0 cv --timeout 20s umount --force mnt
    gone "$pid"
    run -2 timeout 10 nsenter -t "${started[other]}" -m ls "$PWD/mnt/"
    stop other KILL

    c mount :/ mnt 3>&-
    start other unshare --mount --propagation private sleep 100
    until_ok 5 grep -q sleep "/proc/${started[other]}/comm"
    pid=$(pgrep -f "cv-fuse .*$CLUSTER.* $PWD/mnt")
    run -1 cv --timeout 20s umount mnt
    # Mounted anew beside it: what is unmounted is the new one.
    c mount :/ mnt 3>&-
    newer=$(pgrep -n -f "cv-fuse .*$CLUSTER.* $PWD/mnt")
    [ "$newer" != "$pid" ]
    run -0 cv umount mnt
    gone "$newer"
    kill -0 "$pid"
    run -0 cv --timeout 20s umount --force mnt
    has "was not mounted here any more"
    gone "$pid"
    run -2 timeout 10 nsenter -t "${started[other]}" -m ls "$PWD/mnt/"
}

@test "down does not pull a mount away from another mount namespace, unless forced" {
    seen_elsewhere
    for i in 1 2; do
        run -1 cv --timeout 20s local down --dir "$CLUSTER"
        has "another mount namespace"
        has "nothing was stopped"
    done
    kill -0 "$pid"
    run -0 cv --timeout 30s local down --force --dir "$CLUSTER"
    gone "$pid"
    run -2 timeout 10 nsenter -t "${started[other]}" -m ls "$PWD/mnt/"
}

@test "cv-fuse that is told to stop ends although another mount namespace has its mount" {
    seen_elsewhere
    kill "$pid"
    until_ok 10 gone "$pid"
    run ! mountpoint -q mnt
    run -2 timeout 10 nsenter -t "${started[other]}" -m ls "$PWD/mnt/"
}

@test "down unmounts what was mounted of its cluster, and nothing else" {
    [ -w /dev/fuse ] || skip "no /dev/fuse"
    cluster
    c mount :/ mnt 3>&-
    other=$(mktemp -d /tmp/cv-bats-XXXXXX)
    cv local up --dir "$other" 3>&-
    cv local down --dir "$other"
    rm -rf "$other"
    mountpoint -q mnt
    cv local down --dir "$CLUSTER"
    run ! mountpoint -q mnt
}

@test "a mount that does not come up shows why" {
    [ -w /dev/fuse ] || skip "no /dev/fuse"
    cluster
    run -2 c --set fuse.threds=1 mount :/ mnt
    has "did you mean 'threads'?"
    run ! mountpoint -q mnt
}

@test "a directory is attached, listed, and refused where another mount is" {
    cluster
    mkdir -p src/sub
    echo text > src/a
    run -0 c mount "file://$PWD/src" :/data
    has "attached file://$PWD/src at :/data (cache, read-only)"
    run -0 c mount -o json
    [ "$(jq -r '.[] | select(.kind == "attached") | [.path, .where, .state] | join(" ")' <<<"$output")" = ":/data file://$PWD/src ok" ]
    for path in :/data :/data/sub :/data/x; do
        run -1 c mount "file://$PWD/src" $path
        has "is attached at :/data, and mounts do not lie within one another"
    done
    c fs mkdir -p :/full/x
    run -1 c mount "file://$PWD/src" :/full
    has ENOTEMPTY
    run -1 c mount "file://$PWD/nowhere" :/n
    has "$PWD/nowhere': No such file or directory"
    has "nothing was changed"
    run -1 c fs stat :/n
    run -0 c mount --check "file://$PWD/src" :/n
    has "nothing was changed"
    run -1 c fs stat :/n
    run -0 c mount --mode scratch :/scratch
    has "attached scratch space at :/scratch"
    run -0 c umount -y :/scratch
    run -0 c umount -y :/data
    has "detached :/data"
    run -1 c umount -y :/data
    has "nothing is attached at ':/data'"
    [ -e src/a ]
}

@test "who is not root mounts a cluster of theirs, through fusermount3" {
    needs_root "to be somebody else"
    [ -c /dev/fuse ] && [ -u "$(command -v fusermount3)" ] || skip "no /dev/fuse, or no fusermount3 that is set-uid root"
    [ -e /etc/mtab ] || skip "fusermount3 needs /etc/mtab, which a bare tree has not"
    theirs=$(mktemp -d /tmp/cv-bats-XXXXXX)
    cp -r "$CV_BIN" "$theirs/bin"
    mkdir "$theirs/mnt"
    mknod -m 666 "$theirs/fuse" c 10 229 # the usual mode, whatever this machine's has
    chown -R nobody "$theirs/bin" "$theirs/mnt" "$theirs"
    cat > "$theirs/try" <<-'END'
	set -e
	cd "$1"
	PATH=$PWD/bin:$PATH HOME=$PWD
	cv local up --dir "$PWD/c"
	trap 'cd /; cv umount --force "$HOME/mnt" > /dev/null 2>&1 || true; cv local down --dir "$HOME/c"' EXIT
	cv --dir c mount :/ "$PWD/mnt"
	echo hello > mnt/x
	[ "$(cat mnt/x)" = hello ]
	cv --dir c fs cat :/x
	cv --dir c umount "$PWD/mnt"
	cv --dir c mount :/ "$PWD/mnt"
	kill -9 "$(pgrep -u nobody -f "cv-fuse.*$PWD/mnt")"
	cv --dir c umount "$PWD/mnt"
	! grep -q "$PWD/mnt" /proc/mounts
	echo all is well
	END
    run unshare -m sh -c 'mount --bind "$1/fuse" /dev/fuse && cd / && exec setpriv --reuid=nobody --clear-groups bash "$1/try" "$1"' - "$theirs" 3>&-
    rm -rf "$theirs"
    [ "$status" = 0 ]
    has "hello"
    has "all is well"
}
