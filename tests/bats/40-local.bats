#!/usr/bin/env bats
# cv local and cv fs: a whole cluster in one directory, from outside.
# run-bats: 20 s
load lib

# Unix sockets want short names: the cluster lives in a directory of its own below /tmp.
setup_file() {
    CLUSTER=$(mktemp -d /tmp/cv-bats-XXXXXX)
    export CLUSTER
    PATH=${CV_BIN:-$(cd "$BATS_TEST_DIRNAME/../.." && pwd)/build/bin}:$PATH cv local up --dir "$CLUSTER" 3>&-
}

teardown_file() {
    PATH=${CV_BIN:-$(cd "$BATS_TEST_DIRNAME/../.." && pwd)/build/bin}:$PATH cv local down --dir "$CLUSTER" 3>&- || true
    rm -rf "$CLUSTER"
}

c() {
    cv --dir "$CLUSTER" "$@"
}

@test "local up a second time finds everything running" {
    run -0 cv local up --dir "$CLUSTER"
    has "journal    runs already"
    has "master     runs already"
    run -0 cv local status --dir "$CLUSTER" -o json
    [ "$(jq -r '[.[].state] | unique | join(" ")' <<<"$output")" = running ]
}

@test "without --dir the local cluster is meant, when no other is configured" {
    [ ! -e /etc/curvine/curvine.yaml ] || skip "a cluster is installed here"
    CURVINE_LOCAL=$CLUSTER run -0 cv cluster status -o json
    [ "$(jq -r .status <<<"$output")" = OK ]
    CURVINE_LOCAL=$BATS_TEST_TMPDIR/none run -4 cv --timeout 300ms cluster status
}

@test "a cluster of somebody who is not root is theirs" {
    needs_root "to be somebody else"
    theirs=$(mktemp -d /tmp/cv-bats-XXXXXX)
    cp -r "$CV_BIN" "$theirs/bin" # the clone may lie where only root may look
    cp "$CV_ROOT/LICENSE" "$theirs/"
    chown -R nobody "$theirs"
    as() { setpriv --reuid=nobody --clear-groups "$theirs/bin/cv" --dir "$theirs/c" "$@"; }
    as local up 3>&-
    run -0 as fs put "$theirs/LICENSE" :/licence
    run -0 as fs ls :/ -o json
    [ "$(jq -r '.[0].owner' <<<"$output")" = nobody ]
    as local down
    rm -rf "$theirs"
}

@test "cluster status says OK and counts" {
    run -0 c cluster status -o json
    [ "$(jq -r .status <<<"$output")" = OK ]
    [ "$(jq -r .inodes <<<"$output")" -ge 1 ]
    run -0 c node list -o json
    [ "$(jq -r '.[0].role' <<<"$output")" = master ]
}

@test "names are made, listed, renamed and removed" {
    c fs mkdir -p :/d/e/f
    c fs touch :/d/a :/d/b
    c fs ln :/d/a :/d/hard
    c fs ln -s a :/d/soft
    run -0 c fs ls :/d -o json
    [ "$(jq -r '[.[].name] | join(" ")' <<<"$output")" = "a b e hard soft" ]
    [ "$(jq -r '.[] | select(.name == "hard") | .links' <<<"$output")" = 2 ]
    c fs mv :/d/b :/d/e
    run -0 c fs ls -R :/d -o json
    [ "$(jq -r '[.[].name] | sort | join(" ")' <<<"$output")" = "a e e/b e/f hard soft" ]
    run -0 c fs stat :/d/soft -o json
    [ "$(jq -r .target <<<"$output")" = a ]
    c fs rm -r :/d
    run -1 c fs stat :/d
    has "no such file or directory" || has "No such file or directory"
}

@test "modes, owners, sizes and attributes are kept" {
    local who=7:8 name
    [ "$(id -u)" = 0 ] || who=$(id -u):$(id -g) # only root gives away
    name=$(getent passwd "${who%:*}" | cut -d: -f1 | grep . || echo "${who%:*}")
    c fs mkdir :/m
    c fs touch :/m/x
    c fs chmod -R u=rwX,go= :/m
    c fs chown -R "$who" :/m
    c fs truncate --size 5MiB :/m/x
    c fs setxattr :/m/x user.colour blue
    run -0 c fs ls :/m -o json
    [ "$(jq -r '.[0] | [.mode, .owner, .size] | join(" ")' <<<"$output")" = "-rw------- $name 5242880" ]
    run -0 c fs xattr :/m/x -o json
    [ "$(jq -r '.[0] | [.name, .value] | join("=")' <<<"$output")" = "user.colour=blue" ]
    c fs setxattr :/m/x user.long "$(printf 'v%.0s' $(seq 10000))"
    c fs setxattr :/m/x user.bytes $'\001\377'
    c fs setxattr :/m/x user.none ''
    run -0 c fs xattr :/m/x -o json
    [ "$(jq -c '[.[] | .value | length]' <<<"$output")" = "[6,4,10000,0]" ]
    [ "$(jq -r '.[] | select(.name == "user.bytes") | .value' <<<"$output")" = 0x01ff ]
    for name in bytes colour long none; do c fs rmxattr :/m/x user.$name; done
    run -0 c fs xattr :/m/x -o json
    [ "$(jq length <<<"$output")" = 0 ]
    c fs rm -r :/m
}

@test "find selects by name, type, size and age" {
    c fs mkdir -p :/f/sub
    c fs touch :/f/a.tmp :/f/sub/b.tmp :/f/c
    c fs truncate --size 2KiB :/f/c
    run -0 c fs find :/f --name '*.tmp'
    [ "$output" = ":/f/a.tmp
:/f/sub/b.tmp" ]
    run -0 c fs find :/f --type f --size +1KiB
    [ "$output" = ":/f/c" ]
    run -0 c fs find :/f --mtime +1h
    [ "$output" = "" ]
    c fs rm -r :/f
}

@test "wrong input is refused with what to do" {
    run -2 c fs ls /etc
    has "paths of the namespace begin with a colon: ':/etc'"
    run -1 c fs mkdir :/no/such
    has "cv fs mkdir -p"
    c fs mkdir :/dir
    run -1 c fs rm :/dir
    has "cv fs rm -r"
    run -2 c fs rm -r :/
    for dots in :/. :/.. :/dir/. :/dir/.. :/dir/../ :/dir/..//; do
        run -2 c fs rm -r "$dots"
        has "ends in '.' or '..'"
    done
    c fs stat :/dir
    c fs mkdir :/..dir :/dir/...
    run -0 c fs rm -r :/..dir :/dir/...
    run -2 c fs chmod 99 :/dir
    run -1 c fs mkdir :/dir
    run -1 c fs rm :/nothing
    run -0 c fs rm -f :/nothing
    c fs rm -r :/dir
}

@test "a directory of 3000 names is listed whole and removed" {
    c fs mkdir :/many
    for i in 1 2 3; do
        (cd /tmp && seq -f ":/many/name-$i-%04g" 1 1000 | xargs cv --dir "$CLUSTER" fs touch)
    done
    run -0 c fs ls :/many -o json
    [ "$(jq length <<<"$output")" = 3000 ]
    [ "$(jq -r '.[0].name' <<<"$output")" = name-1-0001 ]
    c fs rm -r :/many
    run -1 c fs stat :/many
}

@test "what others remove meanwhile ends no walk of a tree" {
    for i in $(seq 100); do mkdir -p "$BATS_TEST_TMPDIR/tree/d$i/a/b" "$BATS_TEST_TMPDIR/tree/d$i/c"; done
    for _ in 1 2; do
        c fs put -r "$BATS_TEST_TMPDIR/tree" :/race
        c fs rm -rf :/race 2>other 3>&- &
        c fs find :/race >/dev/null 2>find 3>&- &
        c fs chmod -R 755 :/race 2>chmod 3>&- &
        run -0 c fs rm -rf :/race
        wait
        cat other find chmod
        [ ! -s other ]
        run -1 grep -v 'race: No such file' find chmod # it was all gone before they began
    done
}

@test "a tree of 1100 levels is walked and removed" {
    local path=
    for _ in $(seq 1100); do path+=/d; done
    c fs mkdir -p ":/deep$path"
    run -0 c fs du :/deep -o json
    [ "$(jq '.[0].directories' <<<"$output")" = 1101 ]
    c fs rm -r :/deep
    run -1 c fs stat :/deep
}

@test "a directory is not copied into itself, whatever way leads there" {
    c fs mkdir -p :/self/a/b :/self/z
    c fs ln -s /self/a/b :/self/z/link
    for to in :/self/a :/self/a/new :/self/z/../a/b :/self/z/../a/b/new :/self/z/link :/self/z/link/new :/self/z/link/..; do
        run -1 c fs cp -r :/self/a "$to"
        has "copied into itself"
    done
    run -0 c fs find :/self
    [ "$(wc -l <<<"$output")" = 5 ]
    run -0 c fs cp -r :/self/a :/self/z/link/../../z
    c fs stat :/self/z/a/b
    c fs rm -r :/self
}

@test "find: a closed pipe is no failure, a full disk is, a terminal is sent no orders" {
    c fs mkdir :/found
    seq -f ":/found/a-rather-long-name-so-that-the-pipe-is-closed-early-%04g" 1 500 | xargs cv --dir "$CLUSTER" fs touch
    run -0 bash -c 'set -o pipefail; cv --dir "$1" fs find :/found | head -1' - "$CLUSTER"
    [ "$output" = ":/found" ]
    c fs rm -r :/found
    c fs mkdir :/found
    c fs touch $':/found/\e[31mred'
    run -1 bash -c 'cv --dir "$1" fs find :/found >/dev/full' - "$CLUSTER"
    has "No space left on device"
    run -0 c fs find :/found --type f
    [ "$output" = $':/found/\e[31mred' ]
    script -qec "cv --dir $CLUSTER fs find :/found --type f" /dev/null </dev/null >shown 3>&-
    grep -qF ':/found/\x1b[31mred' shown
    c fs rm -r :/found
}

@test "nobody there: exit status 4 and where to look" {
    run -4 cv --cluster "unix:$BATS_TEST_TMPDIR/none" --timeout 1s fs ls
    has "is it running?"
}

@test "what was acknowledged is there after down and up" {
    c fs mkdir :/kept
    cv local down --dir "$CLUSTER"
    run -4 cv local status --dir "$CLUSTER"
    cv local up --dir "$CLUSTER" 3>&-
    c fs stat :/kept
    c fs rm -r :/kept
}
