#!/usr/bin/env bats
# Names of a bucket in the namespace: asked for one by one, listed, kept; what the master does when the store is gone.
# run-bats: 25 s
load lib
load s3

setup_file() {
    s3_install
}

# Short: unix sockets have room for 107 bytes.
cluster() {
    CLUSTER=$(mktemp -d /tmp/cv-bats-XXXXXX)
    cv local up --dir "$CLUSTER" --capacity 64MiB 3>&-
}

teardown() {
    [ -z "${CLUSTER:-}" ] || cv local down --dir "$CLUSTER" >/dev/null 2>&1 || true
    [ -z "${CLUSTER:-}" ] || rm -rf "$CLUSTER"
    end_started
}

c() {
    cv --dir "$CLUSTER" --timeout 20s "$@"
}

put() { # KEY: an object that holds its key
    printf %s "$1" >object
    s3_put bucket "$1" object
}

names() { # DIRECTORY
    c -o json fs ls "$1" | jq -r '.[].name' | sort | tr '\n' ' '
}

@test "single names, directories and keys that are no path names" {
    s3_start_any bucket
    cluster
    for key in a dir/one dir/two/three both both/below '%~odd' 'x//y'; do
        put "$key"
    done
    c mount s3://bucket :/data "${s3_params[@]}"
    [ "$(c fs cat :/data/dir/two/three)" = dir/two/three ]
    [ "$(c fs cat :/data/both/below)" = both/below ]
    [ "$(c fs cat ':/data/%~=both')" = both ]
    [ "$(c fs cat ':/data/%~%%~odd')" = '%~odd' ]
    run -1 c fs stat :/data/missing
    has ENOENT
    run -1 c fs stat :/data/dir/missing/below
    has ENOENT
    [ "$(names :/data)" = '%~%%~odd %~=both a both dir x ' ]
    [ "$(names :/data/dir)" = "one two " ]
    [ "$(names :/data/x)" = "%~ " ] # the empty component
    [ "$(c fs cat ':/data/x/%~/y')" = 'x//y' ]
}

@test "a listing of many pages survives kill -9 of the master, and the store is not asked again" {
    s3_start bucket
    s3_fill bucket many/ 3500
    put many/sub/deep
    cluster
    c mount s3://bucket :/data "${s3_params[@]}"
    [ "$(names :/data/many | wc -w)" -eq 3501 ]
    pid=$(pgrep -f "cv-master.*$CLUSTER")
    kill -9 "$pid"
    until_ok 5 eval "! kill -0 $pid 2>/dev/null"
    cv local up --dir "$CLUSTER" 3>&-
    s3_stop
    [ "$(names :/data/many | wc -w)" -eq 3501 ]
    run -1 c fs stat :/data/many/missing
    has ENOENT
    run -1 c fs stat :/data/many/sub/deep # nobody has looked there
    has "CV_UFS_FAILED"
    run -0 c mount
    has "127.0.0.1:$s3_port"
    s3_restart
    [ "$(c fs cat :/data/many/sub/deep)" = many/sub/deep ]
}
