# What the bats tests share. Each test has its own directory ($BATS_TEST_TMPDIR, where it also runs), its own ports,
# and ends only the processes it started, by pid. Nothing sleeps and hopes: until_ok waits for a condition.
#
#   start NAME CMD...        run CMD in the background, output to NAME.log
#   stop NAME [SIGNAL]       send it (TERM), wait until it is gone; its exit status in $stopped
#   alive NAME               whether it still runs
#   until_ok SECONDS CMD...  run CMD until it succeeds; fails, showing its last output, when the time is up
#                            (CV_PATIENCE: so many times SECONDS, for a machine that does other things as well)
#   free_port                print a TCP port that nobody uses and no other test is given
#   has TEXT                 $output contains it
#   own_root MASTERS         the root of a new namespace is root's: whoever runs the tests gets it (MASTERS: as for --cluster)
#   needs_root WHY           skips unless root runs the tests
#   no_fuse                  says why who runs the tests cannot mount; nothing: they can
#
# CV_BIN names the directory of the programs (build/bin), CV_TOOLS that of the tests' own (build/tools).

bats_require_minimum_version 1.5.0
CV_ROOT=$(cd "$BATS_TEST_DIRNAME/../.." && pwd)
: "${CV_BIN:=$CV_ROOT/build/bin}"
: "${CV_TOOLS:=${CV_BIN%/bin}/tools}"
PATH=$CV_BIN:$PATH
# Nothing of who runs them: neither a cluster of theirs nor their buckets.
unset CURVINE_CONFIG CURVINE_MASTERS NO_COLOR NOTIFY_SOCKET JOURNAL_STREAM "${!AWS_@}"
export LC_ALL=C.UTF-8 CURVINE_LOCAL=${BATS_RUN_TMPDIR:?}/no-cluster

setup() {
    cd "$BATS_TEST_TMPDIR" || return 1
    declare -gA started=()
}

end_started() {
    local name
    for name in "${!started[@]}"; do
        kill -9 "${started[$name]}" 2>/dev/null || true
        wait "${started[$name]}" 2>/dev/null || true
    done
}

# A file with a teardown of its own calls end_started there.
teardown() {
    end_started
    local name
    if [ -z "$BATS_TEST_COMPLETED" ]; then
        for name in *.log; do
            [ -s "$name" ] && { echo "--- last lines of $name"; tail -n 30 "$name"; }
        done
        true
    fi
}

start() {
    local name=$1
    shift
    if [ -n "${started[$name]:-}" ]; then
        echo "start: '$name' runs already" >&2
        return 1
    fi
    "$@" </dev/null >>"$name.log" 2>&1 3>&- &
    started[$name]=$!
}

alive() {
    kill -0 "${started[$1]}" 2>/dev/null
}

stop() {
    local pid=${started[$1]:?stop: never started: $1} deadline=$((SECONDS + 20 * ${CV_PATIENCE:-1}))
    kill "-${2:-TERM}" "$pid" 2>/dev/null || true
    while kill -0 "$pid" 2>/dev/null; do
        if [ $SECONDS -ge $deadline ]; then
            echo "stop: '$1' is still there" >&2
            return 1
        fi
        sleep 0.02
    done
    stopped=0
    wait "$pid" || stopped=$?
    unset "started[$1]"
}

until_ok() {
    local deadline=$((SECONDS + $1 * ${CV_PATIENCE:-1})) last
    shift
    while ! last=$("$@" 2>&1 3>&-); do
        if [ $SECONDS -ge $deadline ]; then
            printf 'not in time: %s\nlast output: %s\n' "$*" "$last" >&2
            return 1
        fi
        sleep 0.05
    done
}

# In turn, from a file that all tests of this machine share: a port stays its test's own while nobody listens there, too.
# Below those that "cv local up" takes (15000 to 31999) and that the kernel gives to outgoing connections (from 32768).
free_port() {
    local file=/tmp/cv-test-port.$UID fd port
    exec {fd}<>"$file"
    flock "$fd"
    read -r port <"$file" || port=$((RANDOM % 5000))
    while :; do
        port=$(((port + 1) % 5000))
        (: </dev/tcp/127.0.0.1/$((10000 + port))) 2>/dev/null || break
    done
    echo "$port" >"$file"
    exec {fd}>&-
    echo $((10000 + port))
}

own_root() {
    "$CV_TOOLS/cv-own" "$1"
}

needs_root() {
    [ "$(id -u)" = 0 ] || skip "needs root ($1)"
}

no_fuse() {
    if ! [ -r /dev/fuse -a -w /dev/fuse ]; then echo "no /dev/fuse for $(id -un)"
    elif [ "$(id -u)" = 0 ]; then return
    elif ! [ -u "$(command -v fusermount3)" ]; then echo "no fusermount3 that is set-uid root"
    elif ! [ -e /etc/mtab ]; then echo "fusermount3 needs /etc/mtab, which a bare tree has not"
    fi
}

# Assertions that say what was there instead.
has() {
    case $output in *"$1"*) ;; *)
        printf 'expected: %s\ngot (status %s): %s\n' "$1" "${status:-?}" "$output" >&2
        return 1 ;;
    esac
}

lacks() {
    case $output in *"$1"*)
        printf 'not expected: %s\ngot (status %s): %s\n' "$1" "${status:-?}" "$output" >&2
        return 1 ;;
    esac
}
