#!/usr/bin/env bats
# cv load and cv free on attached directories and buckets: exact counts, nothing fetched twice, failures with reasons;
# and what cv mount says of buckets that are not there or not ours.
# run-bats: 35 s
load lib
load s3

setup_file() {
    s3_install
    CLUSTER=$(mktemp -d /tmp/cv-bats-XXXXXX)
    export CLUSTER
    PATH=${CV_BIN:-$(cd "$BATS_TEST_DIRNAME/../.." && pwd)/build/bin}:$PATH cv local up --dir "$CLUSTER" --capacity 2GiB 3>&-
}

teardown_file() {
    PATH=${CV_BIN:-$(cd "$BATS_TEST_DIRNAME/../.." && pwd)/build/bin}:$PATH cv local down --force --dir "$CLUSTER" 3>&- || true
    rm -rf "$CLUSTER"
}

c() {
    cv --dir "$CLUSTER" "$@"
}

# What of a path is cached: "files whole bytes cached".
cached() {
    c load -r --check "$1" -o json | jq -r '.[0] | [.files, .whole, .bytes, .cached] | join(" ")'
}

make_source() {
    mkdir -p src/sub
    : > src/empty
    echo tiny > src/tiny
    head -c $((70 << 20)) /dev/urandom > src/large
    for i in $(seq 50); do head -c $((i * 1000)) /dev/urandom > "src/sub/$i"; done
    source_bytes=$(find src -type f -printf '%s\n' | awk '{n += $1} END {print n}')
}

@test "load fetches each byte once, check counts exactly, free makes room, a second load does nothing" {
    make_source
    c mount "file://$PWD/src" :/one
    [ "$(cached :/one)" = "53 1 $source_bytes 0" ]
    run -0 c load -r :/one -o json
    [ "$(jq -c 'select(.event == "done") | [.files, .bytes, .failed]' <<<"$output")" = "[53,$source_bytes,0]" ]
    [ "$(cached :/one)" = "53 53 $source_bytes $source_bytes" ]
    run -0 c load -r :/one
    has "0 B came from the under file system"
    c fs get -r :/one back
    diff -r src back
    run -0 c free -r :/one
    has "free: 53 files"
    [ "$(cached :/one)" = "53 1 $source_bytes 0" ]
    run -0 c load :/one/large
    has "load: 1 file, 70.0 MiB"
    [ "$(cached :/one/large)" = "1 1 73400320 73400320" ]
    run -1 c load :/one
    has "add -r"
    run -1 c load -r :/one/nowhere
    has ENOENT
    c umount -y :/one
}

@test "a local path below a mount names the same files" {
    [ -w /dev/fuse ] || skip "no /dev/fuse"
    make_source
    mkdir mnt
    c mount "file://$PWD/src" :/two
    c mount :/two mnt 3>&-
    run -0 c load mnt/large mnt/tiny
    has "load: 2 files"
    [ "$(cached :/two/large)" = "1 1 73400320 73400320" ]
    run -0 c free -r mnt
    [ "$(cached :/two/large)" = "1 0 73400320 0" ]
    run -2 c load src/tiny
    has "below no mount of ours"
    cmp mnt/large src/large
    c umount mnt
    c umount -y :/two
}

@test "a file that cannot be fetched is named with the reason, the others are loaded" {
    mkdir src
    for i in $(seq 5); do head -c 100000 /dev/urandom > src/$i; done
    c mount "file://$PWD/src" :/three
    c fs ls :/three
    rm src/3
    run -1 c load -r :/three -o json
    [ "$(jq -r 'select(.event == "failed") | .path' <<<"$output")" = :/three/3 ]
    [ "$(jq -c 'select(.event == "done") | [.files, .bytes, .failed]' <<<"$output")" = "[4,400000,1]" ]
    c umount -y :/three
}

@test "a bucket is attached, loaded and read" {
    s3_start data
    make_source
    s3_tree data src some/prefix/
    run -0 c mount s3://data/some/prefix :/bucket "${s3_params[@]}"
    lacks "$s3_secret"
    run -0 c mount -o json
    lacks "$s3_secret"
    run -0 c load -r :/bucket -o json
    [ "$(jq -c 'select(.event == "done") | [.files, .bytes, .failed]' <<<"$output")" = "[53,$source_bytes,0]" ]
    c fs get -r :/bucket back
    diff -r src back
    run ! grep -rF "$s3_secret" "$CLUSTER/log"
    c umount -y :/bucket
}

# A mount that is refused: the reason has all of the words, no secret, and nothing is there afterwards.
refused() {
    local uri=$1 word
    shift
    run -1 c --timeout 20s mount "$uri" :/refused "$@"
    for word in "${words[@]}"; do has "$word"; done
    has "nothing was changed"
    lacks "$s3_secret"
    run -0 c mount -o json
    lacks /refused
    run -1 c fs stat :/refused
}

@test "wrong bucket, key, secret, region or endpoint: the failing call and the fix, and nothing changed" {
    s3_start data
    local e=(--param endpoint="$s3_endpoint" --param region=$s3_region) k=(--param access_key="$s3_access")
    words=(nosuchbucket)
    refused s3://nosuchbucket "${s3_params[@]}"
    words=(access_key)
    refused s3://data "${e[@]}" --param access_key=nobody --param secret_key=x
    words=(secret_key)
    refused s3://data "${e[@]}" "${k[@]}" --param secret_key=wrong-secret
    lacks wrong-secret
    words=(region)
    refused s3://data --param endpoint="$s3_endpoint" --param region=mars-1 "${k[@]}" --param secret_key="$s3_secret"
    words=("127.0.0.1:1")
    refused s3://data --param endpoint=http://127.0.0.1:1 "${k[@]}" --param secret_key="$s3_secret"
}

@test "credentials come from the environment or a file as well, and never from half of each" {
    s3_start data
    echo text > one
    s3_put data one one
    AWS_ACCESS_KEY_ID=$s3_access AWS_SECRET_ACCESS_KEY=$s3_secret AWS_REGION=$s3_region AWS_ENDPOINT_URL=$s3_endpoint \
        run -0 c mount s3://data :/env
    has "secret_key taken from AWS_SECRET_ACCESS_KEY"
    lacks "$s3_secret"
    [ "$(c fs cat :/env/one)" = text ]
    printf '%s\n' endpoint="$s3_endpoint" region=$s3_region access_key="$s3_access" secret_key="$s3_secret" > params
    chmod 600 params
    run -0 c mount s3://data :/file --param-file params
    [ "$(c fs cat :/file/one)" = text ]
    c umount -y :/env
    c umount -y :/file
}

@test "keys that are no path names are read under their escaped names, and found by them" {
    s3_start_any odd
    # The last two the server has, but leaves out of listings of what is above them.
    keys=('a//b' 'both' 'both/below' '100%' 'with space' '%~x' 'dir/..' 'dir/.' 'marker/' '/lead')
    names=('a/%~/b' '%~=both' 'both/below' '100%' 'with space' '%~%%~x' 'dir/%~..' 'dir/%~.' 'marker/%~' '%~/lead')
    listed=8
    for key in "${keys[@]}"; do
        printf 'of %s' "$key" >in
        s3_put odd "$key" in
    done
    # By listing, and each by itself before anything was listed.
    c mount s3://odd :/odd --param endpoint="$s3_endpoint"
    c fs get -r :/odd all
    c mount s3://odd :/single --param endpoint="$s3_endpoint"
    for i in "${!keys[@]}"; do
        [ "$i" -ge $listed ] || [ "$(cat "all/${names[i]}")" = "of ${keys[i]}" ]
        [ "$(c fs cat ":/single/${names[i]}")" = "of ${keys[i]}" ]
    done
    run -1 c fs stat ':/single/a/%~/c'
    run -1 c fs stat ':/single/dir/%~'
    c umount -y :/odd
    c umount -y :/single
}

@test "a directory of many names is read once, though it is listed in pages" {
    requests() {
        local port
        port=$(awk '/^master:/ { mine = 1 } /^[a-z]/ && !/^master:/ { mine = 0 } mine && /http_port:/ { print $2 }' "$CLUSTER/curvine.yaml")
        curl -sSf "http://127.0.0.1:$port/metrics" | awk '$1 ~ /^curvine_master_ufs_requests/ { sum += $2 } END { print sum + 0 }'
    }
    mkdir src
    (cd src && seq 45000 | xargs touch)
    c mount "file://$PWD/src" :/many
    before=$(requests)
    [ "$(c fs ls :/many -o json | jq length)" = 45000 ]
    after=$(requests)
    echo "$((after - before)) requests"
    [ $((after - before)) -le 2 ] # three pages, one pass; a look-up before it
    c umount -y :/many
}

@test "cache refuses writes; scratch and fs keep what is written, also when asked to free it" {
    local mode
    mkdir src
    echo theirs >src/old
    head -c 5000000 /dev/urandom >new
    before=$(find src -printf '%p %s %T@\n' | sort)
    c mount "file://$PWD/src" :/cache
    run -1 c fs put new :/cache/new
    has "the mount is read-only"
    run -1 c fs rm :/cache/old
    has "the mount is read-only"
    run -1 c fs mkdir :/cache/d
    has "the mount is read-only"
    [ "$(c fs cat :/cache/old)" = theirs ]
    c umount -y :/cache
    c mount --mode scratch :/kept-scratch
    c mount --mode fs "file://$PWD/src" :/kept-fs
    [ "$(c fs cat :/kept-fs/old)" = theirs ]
    for mode in scratch fs; do
        c fs put new ":/kept-$mode/new"
        run -0 c free -r ":/kept-$mode"
        has "4.77 MiB stays: it is nowhere but in the cache"
        c fs get ":/kept-$mode/new" back.$mode
        cmp new back.$mode
        run -1 c umount -y ":/kept-$mode"
        has "there is data that is nowhere else"
    done
    # Nothing goes to the under file system before the mirror exists.
    [ "$(find src -printf '%p %s %T@\n' | sort)" = "$before" ]
    c umount -y --force :/kept-scratch
    c umount -y --force :/kept-fs
}
