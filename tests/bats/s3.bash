# Real S3 servers for tests: `load s3` after `load lib`. Written by others, installed by tests/s3/install (the first time
# takes minutes: setup_file() should call s3_install, so that no test's time limit pays for it), on loopback, data in the
# test's own directory, ended by pid with the test.
#
#   s3_start [BUCKET...]      versitygw on a free port, with these buckets ("bucket" if none are named), and set
#                               s3_endpoint  http://127.0.0.1:PORT
#                               s3_access s3_secret s3_region    what it accepts; nothing else
#                               s3_params    array for cv-ufs and "cv mount": --param endpoint=... --param region=... ...
#   s3_start_any [BUCKET...]  gofakes3 instead: any key at all, no signature checked, gone when it stops
#   s3_stop [SIGNAL]          end it (TERM); data of s3_start stays in $s3_data
#   s3_restart                again on the same port with the same data
#   s3_put BUCKET KEY FILE    by tests/s3/s3-client, which shares no code with ours ("-": standard input)
#   s3_get BUCKET KEY         to standard output
#   s3_delete BUCKET KEY
#   s3_tree BUCKET DIR [PREFIX]     all files below DIR
#   s3_fill BUCKET PREFIX COUNT     COUNT objects PREFIX000000... that contain their key
#   s3_requests METHOD        how many GET (also of listings), HEAD, PUT or DELETE the server answered so far (s3_start)
#   s3_proxy OPTION...        a proxy in front of the server that makes faults (tests/s3/fault-proxy): sets s3_proxy_endpoint
#
# Example:
#   s3_start data
#   head -c 1M /dev/urandom >one; s3_put data dir/one one
#   cv mount s3://data :/data "${s3_params[@]}"

# Where they cannot be installed (no way to the Go module proxy) the tests that need them are skipped, which is said, unless
# CV_S3_REQUIRED is set.
s3_install() {
    "$CV_ROOT/tests/s3/install" >"$BATS_FILE_TMPDIR/s3.install" 2>&1 3>&- && return
    cat "$BATS_FILE_TMPDIR/s3.install" >&2
    [ -z "${CV_S3_REQUIRED:-}" ] || return 1
    touch "$BATS_FILE_TMPDIR/s3.missing"
}

s3_bin() {
    "$CV_ROOT/tests/s3/install" 3>&-
}

s3_begin() {
    [ ! -e "$BATS_FILE_TMPDIR/s3.missing" ] || skip "no S3 server: $(tail -n 1 "$BATS_FILE_TMPDIR/s3.install")"
    s3_port=$(free_port)
    s3_endpoint=http://127.0.0.1:$s3_port
    s3_access=access-$RANDOM s3_secret=secret-$RANDOM$RANDOM s3_region=eu-test-1
    export S3_ENDPOINT=$s3_endpoint S3_ACCESS=$s3_access S3_SECRET=$s3_secret S3_REGION=$s3_region
    s3_params=(--param endpoint="$s3_endpoint" --param region=$s3_region
        --param access_key=$s3_access --param secret_key=$s3_secret)
}

s3_start() {
    local bucket
    s3_begin
    s3_data=$PWD/s3.data
    mkdir -p "$s3_data" s3.meta s3.users
    s3_restart
    for bucket in "${@:-bucket}"; do
        "$CV_ROOT/tests/s3/s3-client" bucket "$bucket"
    done
}

# Metadata beside the data (--sidecar), because not every file system has extended attributes.
s3_restart() {
    start s3 "$(s3_bin)/versitygw" --port "127.0.0.1:$s3_port" --access "$s3_access" --secret "$s3_secret" \
        --region "$s3_region" --keep-alive --iam-dir "$PWD/s3.users" posix --sidecar "$PWD/s3.meta" "$s3_data"
    until_ok 20 curl -s -o /dev/null "$s3_endpoint"
}

s3_start_any() {
    local bucket
    s3_begin
    start s3 "$(s3_bin)/gofakes3" -host "127.0.0.1:$s3_port" -backend memory
    until_ok 20 curl -s -o /dev/null "$s3_endpoint"
    for bucket in "${@:-bucket}"; do
        "$CV_ROOT/tests/s3/s3-client" bucket "$bucket"
    done
}

s3_stop() {
    stop s3 "${1:-TERM}"
}

s3_put() { "$CV_ROOT/tests/s3/s3-client" put "$@"; }
s3_get() { "$CV_ROOT/tests/s3/s3-client" get "$@"; }
s3_delete() { "$CV_ROOT/tests/s3/s3-client" delete "$@"; }
s3_tree() { "$CV_ROOT/tests/s3/s3-client" tree "$@"; }
s3_fill() { "$CV_ROOT/tests/s3/s3-client" fill "$@"; }

s3_requests() {
    grep -c "| $1 |" s3.log || true
}

s3_proxy() {
    local port
    port=$(free_port)
    s3_proxy_endpoint=http://127.0.0.1:$port
    start proxy "$CV_ROOT/tests/s3/fault-proxy" --listen "$port" --to "$s3_port" "$@"
    until_ok 20 grep -q ready proxy.log
}
