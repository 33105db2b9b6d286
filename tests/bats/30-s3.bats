#!/usr/bin/env bats
# src/ufs against S3 servers written by others, by cv-ufs (tests/tools). tests/bats/s3.bash says what runs.
# run-bats: 60 s

load lib
load s3
: "${CV_TOOLS:=$CV_ROOT/build/tools}"

setup_file() {
    s3_install
}

ufs() { # OPTION... URI COMMAND...
    "$CV_TOOLS/cv-ufs" "${s3_params[@]}" "$@"
}

# With what it says on standard error as $output; what it writes to standard output goes to "out".
sent() {
    "$@" 2>&1 >out
}

# The number behind a word of the line "counters ...", which must be the last of $output.
counted() {
    sed -n "s/^counters .*\b$1 \([0-9]*\).*/\1/p" <<<"$output"
}

identity_of() { # URI KEY
    ufs "$1" stat "$2" | awk '{ print $2 ":" $3 }'
}

@test "objects of any size come back as they were put, also in ranges" {
    s3_start data
    for size in 0 1 4095 65536 1048577 $((64 << 20)); do
        head -c $size /dev/urandom >in
        ufs s3://data/some/prefix put o.$size in >put
        [ "$(awk '{ print $2 }' put)" = $size ]
        ufs s3://data/some get prefix/o.$size >out
        cmp in out
        s3_get data some/prefix/o.$size >out
        cmp in out
        # The identity a put returns is the one that a stat and a listing find.
        [ "$(identity_of s3://data/some/prefix o.$size)" = "$(awk '{ print $2 ":" $3 }' put)" ]
        ufs s3://data/some list prefix/ >list
        grep -qxF "file $(awk '{ print $2 " " $3 }' put) prefix/o.$size" list
    done
    : >out
    ufs --pieces 16 s3://data/some/prefix get o.$((64 << 20)) 1<>out
    cmp in out
    ufs --offset 500000 --length 77777 s3://data/some/prefix get o.1048577 >range
    tail -c +500001 <(ufs s3://data/some/prefix get o.1048577) | head -c 77777 | cmp - range
    run -1 sent ufs --offset 1000000 --length 77777 s3://data/some/prefix get o.1048577
    has "the object ends before what was asked for"
    ufs s3://data/some delete prefix/o.1
    run -1 ufs s3://data/some stat prefix/o.1
    has "ENOENT"
    ufs s3://data/some delete prefix/o.1
}

@test "every request is counted by its verb, every byte once" {
    s3_start data
    head -c 100000 /dev/urandom >in
    run -0 ufs --counters s3://data put o in
    has "PUT 1 DELETE 0 LIST 0 POST 0 retries 0 failures 0 in 0 out 100000"
    run -0 sent ufs --counters --length 100000 s3://data get o
    [ "$(counted GET)" = 1 ]
    [ "$(counted HEAD)" = 0 ]
    [ "$(counted in)" = 100000 ]
    run -0 ufs --counters s3://data stat o
    [ "$(counted HEAD)" = 1 ]
    [ "$(counted GET)" = 0 ]
    run -0 ufs --counters s3://data delete o
    [ "$(counted DELETE)" = 1 ]
    [ "$(s3_requests GET)" -ge 1 ]
    [ "$(s3_requests PUT)" = 2 ] # and the bucket
}

@test "what is a prefix is a directory" {
    s3_start data
    s3_fill data a/b/ 3
    run -0 ufs s3://data stat a
    has "dir 0 - a"
    run -0 ufs s3://data stat a/b/000001
    has "file 10"
    run -0 ufs s3://data list a/
    [ "$output" = "dir 0 - a/b/" ]
    run -0 ufs s3://data/a list
    [ "$output" = "dir 0 - b/" ]
    run -1 ufs s3://data stat a/c
    has "ENOENT"
    run -0 ufs s3://data stat -
    has "dir"
}

@test "listings of thousands of keys come in pages, in order, from any point" {
    s3_start data
    s3_fill data big/ 3500
    s3_fill data bigger/ 3
    run -0 --separate-stderr ufs --counters s3://data list big/
    [ "${#lines[@]}" = 3500 ]
    [ "${lines[0]##* }" = big/000000 ]
    [ "${lines[3499]##* }" = big/003499 ]
    awk '{ print $4 }' <<<"$output" | LC_ALL=C sort -cu
    output=$stderr
    [ "$(counted LIST)" = 4 ]
    run -0 ufs --after big/002998 --max 3 s3://data list big/
    [ "${#lines[@]}" = 4 ]
    [ "${lines[0]##* }" = big/002999 ]
    [ "${lines[2]##* }" = big/003001 ]
    [ "${lines[3]}" = more ]
    run -0 ufs --recursive s3://data list
    [ "${#lines[@]}" = 3503 ]
    run -0 ufs s3://data list
    [ "${#lines[@]}" = 2 ]
    run -0 ufs --after big/003499 s3://data list big/
    [ -z "$output" ]
}

@test "keys with spaces, unicode, percent, plus, quotes, markup and control characters" {
    s3_start data
    keys=('a b' 'ünï/cödé 漢字 🦀' '100%' '%41' 'a+b' 'a&b=c;d' "quo'te\"d" '<tag>' 'back\slash' '~tilde' 'star*' 'q?mark#hash' $'tab\tkey' ' lead' 'trail ')
    for key in "${keys[@]}"; do
        printf %s "$key" >in
        ufs s3://data put "odd/$key" in
        ufs s3://data get "odd/$key" | cmp - in
        s3_get data "odd/$key" | cmp - in
        run -0 ufs "s3://data/odd" stat "$key"
    done
    run -0 ufs --recursive s3://data/odd list
    [ "${#lines[@]}" = "${#keys[@]}" ]
    for key in "${keys[@]}"; do
        grep -qxF "file $(printf %s "$key" | wc -c) $(printf %s "$key" | md5sum | cut -d' ' -f1) ${key//\\/\\\\}" <<<"$output"
    done
    # One that the listing must continue behind.
    run -0 ufs --recursive --after '%41' s3://data/odd list
    lacks "%41"
    lacks " lead"
    has "100%"
    for key in "${keys[@]}"; do
        ufs s3://data/odd delete "$key"
    done
    run -0 ufs --recursive s3://data/odd list
    [ -z "$output" ]
}

@test "keys that are no path names: empty components, dots, markers, names over 255 bytes" {
    s3_start_any data
    long=$(printf 'x%.0s' {1..600})
    keys=('a//b' '/lead' 'marker/' '//' 'dir/.' 'dir/..' 'both' 'both/below' "$long" "long/$long/y")
    for key in "${keys[@]}"; do
        printf %s "$key" >in
        ufs s3://data put "$key" in
        ufs s3://data get "$key" | cmp - in
    done
    run -0 ufs --recursive s3://data list
    [ "${#lines[@]}" = "${#keys[@]}" ]
    for key in "${keys[@]}"; do
        grep -qF " $key" <<<"$output"
    done
    run -0 ufs s3://data list
    has " both
"
    has "dir 0 - both/"
    run -0 ufs s3://data list a/
    [ "$output" = "dir 0 - a//" ]
    # An object that is named like the prefix: with content it is one, without it is the directory's marker.
    run -0 ufs s3://data list marker/
    [[ $output = "file 7 "*" marker/" ]]
    ufs s3://data put empty/ /dev/null
    run -0 ufs s3://data list empty/
    [ -z "$output" ]
}

@test "If-Match: an object that changed is not mixed with what it was" {
    s3_start data
    head -c 3000000 /dev/urandom >one
    head -c 3000000 /dev/urandom >two
    ufs s3://data put o one
    first=$(identity_of s3://data o)
    ufs --identity "$first" s3://data get o | cmp - one
    ufs s3://data put o two
    run -1 ufs --identity "$first" --offset 5 --length 10 s3://data get o
    has "STALE_IDENTITY"
    run -1 ufs --identity "$first" s3://data put o one
    has "STALE_IDENTITY"
    ufs s3://data get o | cmp - two
    run -1 ufs --identity none s3://data put o one
    has "STALE_IDENTITY"
    ufs --identity none s3://data put new one
    ufs --identity "$(identity_of s3://data new)" s3://data put new two
    ufs s3://data get new | cmp - two
    ufs s3://data delete o
    run -1 ufs --identity "$first" --length 10 s3://data get o
    has "STALE_IDENTITY"
}

@test "a service that does not heed If-Match: what it sends of another object is not taken" {
    s3_start data
    echo one >one
    ufs s3://data put o one
    first=$(identity_of s3://data o)
    s3_proxy --method GET --etag of-another
    s3_params+=(--param endpoint="$s3_proxy_endpoint")
    run -1 ufs --identity "$first" --length 4 s3://data get o
    has "STALE_IDENTITY"
    lacks "one"
    ufs --identity "$first" --length 4 s3://data get o | cmp - one
}

@test "an object replaced while its transfer is broken: no mix of both" {
    s3_start data
    head -c 3000000 /dev/urandom >one
    head -c 3000000 /dev/urandom >two
    ufs s3://data put o one
    s3_proxy --method GET --hold 1000000 "$PWD/go"
    get_o() {
        "$CV_TOOLS/cv-ufs" "${s3_params[@]}" --param endpoint="$s3_proxy_endpoint" --length 3000000 s3://data get o >out
    }
    start get get_o
    until_ok 20 bash -c '[ $(stat -c %s out) -ge 500000 ]'
    ufs s3://data put o two
    touch go
    stop get 0 # only wait
    [ "$stopped" = 1 ]
    grep STALE_IDENTITY get.log
    cmp -n "$(stat -c %s out)" one out
}

@test "bad input: each message names the request, the reason and the fix" {
    s3_start data
    echo x | s3_put data o -
    bad() { "$CV_TOOLS/cv-ufs" "${s3_params[@]}" --deadline 5 "$@"; }
    run -1 bad s3://nobody check
    has "UFS_FAILED: GET $s3_endpoint/nobody"
    has "404 NoSuchBucket"
    has "check the bucket's name, or create it"
    run -1 bad --param access_key=other s3://data check
    has "403 InvalidAccessKeyId"
    has "check access_key"
    run -1 bad --param secret_key=other s3://data check
    has "403 SignatureDoesNotMatch"
    has "check secret_key"
    run -1 bad --param region=xx-other-1 s3://data check
    has "AuthorizationHeaderMalformed"
    has "check region"
    run -1 bad --deadline 2 --param endpoint="http://127.0.0.1:$(free_port)" s3://data check
    has "UNREACHABLE"
    has "connect to server" # "Couldn't" or "Could not", by curl's version
    has "check endpoint and that the service runs"
    run -1 bad --param endpoint=127.0.0.1:9 s3://data check
    has "expected http://host[:port] or https://host[:port]"
    run -1 bad --param endpoint="$s3_endpoint/path" s3://data check
    has "a path is not supported here"
    run -1 bad --param nosuch=1 s3://data check
    has "s3:// has no parameter 'nosuch'"
    run -1 bad --param access_key= s3://data check
    has "access_key and secret_key belong together"
    run -1 bad --param connections=0 s3://data check
    has "expected 1 to 512"
    run -1 bad --param addressing=both s3://data check
    has "expected path or virtual"
    run -1 bad s3://x check
    has "is no bucket name"
    run -1 bad gopher://data check
    has "unknown scheme 'gopher://'"
    run -1 bad data check
    has "is no URI"
    # A HEAD has no body to explain itself in: the advice must come from the status.
    run -1 bad --param secret_key=other s3://data stat o
    has "EACCES: HEAD $s3_endpoint/data/o: 403"
    has "check access_key, secret_key, region and the policy"
    for o in "$output" "$(cat s3.log)"; do
        [[ $o != *"$s3_secret"* ]]
    done
}

@test "503, 429 and 500 are tried again; Retry-After is respected; a deadline ends it with the service's reason" {
    s3_start data
    head -c 100000 /dev/urandom >in
    s3_put data o in
    for status in 503 429 500; do
        s3_proxy --status $status --count 3
        run -0 sent ufs --param endpoint="$s3_proxy_endpoint" --counters --length 100000 s3://data get o
        cmp in out
        [ "$(counted GET)" = 4 ]
        [ "$(counted retries)" = 3 ]
        stop proxy
        rm proxy.log
    done
    s3_proxy --status 503 --retry-after 2 --count 1
    SECONDS=0
    ufs --param endpoint="$s3_proxy_endpoint" s3://data put again in
    [ $SECONDS -ge 2 ]
    s3_get data again | cmp - in
    stop proxy
    rm proxy.log
    s3_proxy --status 503 --count 1000000
    SECONDS=0
    run -1 ufs --deadline 2 --param endpoint="$s3_proxy_endpoint" s3://data list
    [ $SECONDS -le 15 ] # not the minutes that it would try for
    has "503 SlowDown"
    has "the service limits the rate of requests"
    # What will not get better is not tried again.
    stop proxy
    rm proxy.log
    s3_proxy --status 403 --count 1000000
    run -1 ufs --counters --param endpoint="$s3_proxy_endpoint" s3://data list
    has "403 AccessDenied"
    [ "$(counted LIST)" = 1 ]
}

@test "a transfer that breaks goes on where it was; one that stalls ends with the deadline" {
    s3_start data
    head -c 5000000 /dev/urandom >in
    s3_put data o in
    s3_proxy --method GET --cut 1000000 --count 3
    run -0 sent ufs --param endpoint="$s3_proxy_endpoint" --counters --length 5000000 s3://data get o
    cmp in out
    [ "$(counted GET)" = 4 ]
    [ "$(counted in)" -lt 5500000 ] # no byte twice
    stop proxy
    rm proxy.log
    s3_proxy --method GET --stall 1000 --count 1000000
    SECONDS=0
    run -1 sent ufs --param endpoint="$s3_proxy_endpoint" --deadline 2 --length 5000000 s3://data get o
    has "DEADLINE"
    [ $SECONDS -le 15 ]
    stop proxy
    rm proxy.log
    s3_proxy --method GET --no-list --count 1000000
    run -1 ufs --param endpoint="$s3_proxy_endpoint" s3://data list
    has "GET $s3_proxy_endpoint/data"
    lacks "welcome"
}

@test "the server stops in mid-transfer and comes back: nothing is lost; it does not come back: a clear error" {
    s3_start data
    head -c 50000000 /dev/urandom >in
    s3_put data o in
    mkfifo pipe
    start get bash -c "'$CV_TOOLS/cv-ufs' ${s3_params[*]} --length 50000000 s3://data get o >pipe"
    exec 7<pipe
    head -c 1000000 <&7 >out
    s3_stop KILL
    s3_restart
    cat <&7 >>out
    exec 7<&-
    stop get 0
    [ "$stopped" = 0 ]
    cmp in out
    s3_stop
    run -1 ufs --deadline 1 --length 10 s3://data get o
    has "UNREACHABLE"
    has "check endpoint and that the service runs"
}

# tests/s3/checker on a free port; s3_params for it.
checker_start() { # OPTION...
    local port
    port=$(free_port)
    s3_params=(--param endpoint="http://${host:-127.0.0.1}:$port" --param region=eu-test-1 --param access_key=temporary
        --param secret_key=secret-of-an-hour --param session_token="a/token+with=signs")
    start checker "$CV_ROOT/tests/s3/checker" --listen "$port" --access temporary --secret secret-of-an-hour \
        --token "a/token+with=signs" --region eu-test-1 "$@"
    until_ok 20 grep -q ready checker.log
}

@test "temporary credentials: the session token goes along and is signed; pages and pieces use one connection" {
    checker_start
    run -0 --separate-stderr ufs --counters s3://data list dir/
    [ "${#lines[@]}" = 6 ]
    [[ ${lines[5]} = "file 12 e dir/object 5+" ]]
    output=$stderr
    [ "$(counted LIST)" = 3 ]
    run -0 ufs --offset 8 --length 4 s3://data get "dir/object 3+"
    [ "$output" = "of 3" ]
    run -0 ufs s3://data stat "dir/object 3+"
    has "file 12"
    # Each run one connection, however many requests.
    [ "$(awk 'NR > 1 { print $2 }' checker.log | sort -u | wc -l)" = 3 ]
    [ "$(awk '$2 == 1' checker.log | wc -l)" = 3 ]
    run -1 ufs --deadline 5 --param session_token=other s3://data list
    has "InvalidToken"
    has "check session_token"
    lacks "secret-of-an-hour"
    AWS_SESSION_TOKEN=a/token+with=signs run -0 "$CV_TOOLS/cv-ufs" "${s3_params[@]:0:8}" s3://data list dir/
}

@test "addressing=virtual: the bucket is in the host's name" {
    local host=localhost
    checker_start --virtual localhost
    run -0 ufs --param addressing=virtual s3://data list dir/
    [ "${#lines[@]}" = 6 ]
    run -0 ufs --param addressing=virtual s3://data get "dir/object 0+"
    [ "$output" = "content of 0" ]
    grep -q " GET data.localhost:[0-9]* /dir/object%200%2B" checker.log
    run -1 ufs --deadline 5 --param addressing=virtual s3://other list
    has "NoSuchBucket"
}

@test "pauses between attempts grow, have a ceiling, and are not the same twice" {
    local run n=5
    for run in 1 2; do
        checker_start --fail $n
        run -0 ufs s3://data stat "dir/object 1+"
        awk 'NR > 2 { printf "%.0f\n", ($1 - before) * 1000 } NR > 1 { before = $1 }' checker.log >pauses.$run
        [ "$(wc -l <pauses.$run)" = $n ]
        # At most 100, 200, 400 ... ms, and what a loaded machine adds.
        awk '{ if ($1 > 50 * 2 ^ NR + 3000) bad = 1 } END { exit bad }' pauses.$run
        stop checker
        rm checker.log
    done
    run ! cmp pauses.1 pauses.2
    # The last two of both runs: 1.2 s together on average; were they no longer than the first, 0.2 s.
    [ "$(tail -qn 2 pauses.1 pauses.2 | awk '{ sum += $1 } END { print (sum > 300) }')" = 1 ]
}

@test "file:// answers the same questions" {
    mkdir top
    s3_params=()
    head -c 300000 /dev/urandom >in
    ufs "file://$PWD/top" put one in
    [ "$(identity_of "file://$PWD/top" one | cut -d: -f1)" = 300000 ]
    ufs --pieces 3 "file://$PWD/top" get one 1<>out
    cmp in out
    mkdir -p top/dir/deep
    echo x >top/dir/deep/x
    run -0 ufs "file://$PWD/top" list
    [ "${#lines[@]}" = 2 ]
    has " dir/"
    run -0 ufs --recursive "file://$PWD/top" list
    has " dir/deep/x"
    run -0 ufs "file://$PWD/top" stat dir
    has "dir "
    run -1 ufs "file://$PWD/top" stat nothing
    has "ENOENT"
    run -1 ufs "file://$PWD/nowhere" check
    has "nowhere"
    ufs "file://$PWD/top" delete one
    [ ! -e top/one ]
}

@test "file://: pipes and devices are not there, and nobody waits at them" {
    mkdir top
    s3_params=()
    mkfifo top/pipe
    echo x >top/x
    run -0 ufs "file://$PWD/top" list
    [ "${#lines[@]}" = 1 ]
    run -1 ufs "file://$PWD/top" stat pipe
    has "ENOENT"
    # Somebody put it there in place of a file.
    run -1 timeout 20 "$CV_TOOLS/cv-ufs" --length 1 "file://$PWD/top" get pipe
    has "EINVAL"
}

@test "of a server that ignores ranges only what was asked for is taken" {
    s3_start_any data
    head -c $((64 << 20)) /dev/urandom >big
    s3_put data big big
    s3_proxy --wrong-range --method GET --count 100
    s3_params=(--param endpoint="$s3_proxy_endpoint" --param region="$s3_region" --param access_key= --param secret_key=)
    ufs --offset 0 --length 100000 s3://data get big >out 2>err
    cmp out <(head -c 100000 big)
    output=$(cat err)
    until_ok 10 grep -q "hung up" proxy.log # the transfer is stopped, not read to its end
    [ "$(sed -n 's/^sent //p' proxy.log | tail -n 1)" -lt $((32 << 20)) ]
    ufs s3://data get big >out
    cmp out big
    run -1 sent ufs --offset 500000 --length 1000 s3://data get big
    has "the service did not answer with the range that was asked for"
}

@test "the size of an object is found where HEAD does not say it" {
    s3_start data
    head -c 1234567 /dev/urandom >some
    : >none
    s3_put data some some
    s3_put data none none
    ufs s3://data stat some >want
    ufs s3://data stat none >want0
    s3_proxy --no-length --method HEAD --count 100
    s3_params[1]=endpoint=$s3_proxy_endpoint
    ufs s3://data stat some >got
    cmp want got
    ufs s3://data stat none >got0
    cmp want0 got0
    run -1 ufs s3://data stat other
    has "ENOENT"
}
