#!/usr/bin/env bats
# cv fs cat, head, tail, put, get, cp, df, du, blocks: content through the library, on a whole local cluster.
# run-bats: 15 s
load lib

setup_file() {
    CLUSTER=$(mktemp -d /tmp/cv-bats-XXXXXX)
    export CLUSTER
    PATH=${CV_BIN:-$(cd "$BATS_TEST_DIRNAME/../.." && pwd)/build/bin}:$PATH cv local up --dir "$CLUSTER" --capacity 2GiB 3>&-
}

teardown_file() {
    PATH=${CV_BIN:-$(cd "$BATS_TEST_DIRNAME/../.." && pwd)/build/bin}:$PATH cv local down --dir "$CLUSTER" 3>&- || true
    rm -rf "$CLUSTER"
}

c() {
    cv --dir "$CLUSTER" "$@"
}

# A tree with what trees have: empty, tiny, middling and large files, holes, links, odd names.
make_tree() {
    mkdir -p tree/deep/er "tree/with space"
    : > tree/empty
    seq 20 > tree/small
    head -c 5000 /dev/urandom > "tree/with space/above inline"
    head -c 3000001 /dev/urandom > tree/deep/odd
    head -c $((100 << 20)) /dev/urandom > tree/large
    truncate -s 80M tree/holes
    printf x | dd of=tree/holes bs=1 seek=70000000 conv=notrunc status=none
    ln -s ../small tree/deep/link
    for i in $(seq 60); do echo "$i" > "tree/deep/er/$i"; done
    chmod 640 tree/small
    touch -d '2020-02-02 02:02:02.123456789' tree/small
}

# No names but those that belong there: nothing half done is left.
no_leftovers() {
    run -0 c fs find :/ --name '.*.cv-*'
    [ -z "$output" ]
    run -0 find . -name '.*.cv-*'
    [ -z "$output" ]
}

@test "what is written and nowhere else is told: node list and cluster status say how much" {
    dirty() {
        c node list -o json | jq '[.[] | select(.role == "worker") | .dirty] | add'
    }
    told() { # that it is what it was, and that much more
        local more=$(($(dirty) - before))
        [ "$more" -ge "$1" ] && [ "$more" -le $(($1 + (1 << 20))) ]
    }
    before=$(dirty) # the first test here: nobody wrote before it
    head -c 5000000 /dev/urandom > one
    c fs put one :/dirty
    until_ok 15 told 5000000
    status_says_so() {
        [ "$(c cluster status -o json | jq '[.nodes[] | select(.role == "worker") | .dirty] | add')" = "$(dirty)" ]
    }
    until_ok 15 status_says_so
    # What came from an under file system is not dirty, also when it is cached.
    mkdir src
    head -c 9000000 /dev/urandom > src/clean
    c mount "file://$PWD/src" :/clean
    [ "$(c fs cat :/clean/clean | sha256sum)" = "$(sha256sum <src/clean)" ]
    until_ok 15 told 5000000
    c umount -y :/clean
    c fs rm :/dirty
    until_ok 15 told 0
}

@test "a tree goes in and comes out the same, holes and times included" {
    make_tree
    run -0 c fs put -r tree :/
    has "put: 67 files"
    run -0 c fs get -r :/tree back
    has "get: 67 files"
    diff -r tree back
    [ "$(stat -c '%a %y' tree/small)" = "$(stat -c '%a %y' back/small)" ]
    [ "$(readlink back/deep/link)" = ../small ]
    [ "$(du -k back/holes | cut -f1)" -lt 1024 ]
    run -0 c fs cp -r :/tree :/copy
    run -0 c fs get -r :/copy again
    diff -r tree again
    no_leftovers
    run -0 c fs du -o json :/tree
    [ "$(jq '.[0].bytes' <<<"$output")" = "$(find tree -type f -printf '%s\n' | awk '{n += $1} END {print n}')" ]
    used_over() { # what a worker holds comes with its next heartbeat
        [ "$(c fs df -o json | jq '.[-1].used')" -gt "$1" ]
    }
    until_ok 15 used_over $((100 << 20))
    run -0 c fs blocks -o json :/tree/large
    [ "$(jq '[.[] | select(.state | startswith("whole")) | .length] | add' <<<"$output")" = $((100 << 20)) ]
    c fs rm -r :/tree :/copy
}

@test "cat, head and tail show what was asked for" {
    seq 100000 > numbers
    c fs put numbers :/numbers
    c fs cat :/numbers | cmp - numbers
    [ "$(c fs head :/numbers)" = "$(head numbers)" ]
    [ "$(c fs head -n 0 :/numbers)" = "" ]
    [ "$(c fs head -n 70000 :/numbers | md5sum)" = "$(head -n 70000 numbers | md5sum)" ]
    [ "$(c fs tail -n 3 :/numbers)" = "$(tail -n 3 numbers)" ]
    [ "$(c fs tail -n 200000 :/numbers | md5sum)" = "$(md5sum < numbers)" ]
    [ "$(c fs tail -b 12 :/numbers)" = "$(tail -c 12 numbers)" ]
    printf 'no line feed at the end' | c fs put - :/unended
    [ "$(c fs tail -n 1 :/unended)" = "no line feed at the end" ]
    run -0 bash -c "cv --dir $CLUSTER fs cat :/numbers | head -n 1"
    has 1
    run -1 c fs cat :/nowhere
    has "read :/nowhere"
    run -1 c fs cat :/
    has EISDIR
}

@test "standard input becomes a file, whatever its size" {
    head -c 20000000 /dev/urandom > data
    c fs put - :/stream < data
    c fs cat :/stream | cmp - data
    c fs put - :/stream < /dev/null
    run -0 c fs stat :/stream -o json
    [ "$(jq .size <<<"$output")" = 0 ]
    run -2 c fs put - :/ < data
    has "is a directory"
    no_leftovers
}

@test "what fails is named one by one, the rest is done, and the status says so" {
    mkdir src
    echo good > src/good
    mkfifo src/pipe
    run -1 c fs put -r --json src :/partly
    [ "$(jq -r 'select(.event == "failed") | .path' <<<"$output")" = src/pipe ]
    [ "$(jq -c 'select(.event == "done") | [.files, .bytes, .failed]' <<<"$output")" = "[1,5,1]" ]
    [ "$(c fs cat :/partly/good)" = good ]
    run -1 c fs put src :/
    has "add -r"
    run -1 c fs put nowhere src/good :/
    has "failed: nowhere"
    has "put: 1 file,"
    run -1 c fs get :/nowhere .
    has "failed: :/nowhere"
    run -1 c fs cp -r :/partly :/partly/inside
    has "cannot be copied into itself"
    run -2 c fs cp :/good local
    has "cv fs put copies into the namespace"
    run -1 c fs put src/good src/good :/not/there
    has "make it first: cv fs mkdir -p"
    no_leftovers
}

@test "an interrupted get leaves nothing under the final name" {
    head -c $((200 << 20)) /dev/zero | tr '\0' x > big
    c fs put big :/big
    mkdir out
    start get cv --dir "$CLUSTER" fs get --threads 1 :/big out/big
    until_ok 10 bash -c 'ls -A out | grep -q "^.big.cv-" || [ -e out/big ]'
    kill -INT "${started[get]}"
    wait "${started[get]}" || got=$?
    unset "started[get]"
    if [ -e out/big ]; then
        cmp big out/big # it was faster
    else
        [ "$got" = 1 ]
        [ -z "$(ls -A out)" ]
    fi
}
