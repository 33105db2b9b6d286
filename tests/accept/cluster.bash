# What the shows share, behind tests/bats/lib: a cluster of its own in $CLUSTER (short: unix sockets have short names), and
# killing its daemons. `load cluster` after `load ../bats/lib`.
#
#   cluster_begin NAME          directory of the test, a place for the cluster; cv-oracle and its like in PATH
#   cluster_up [OPTION...]      start what does not run; :/ mounted at ./mnt if there is such a directory
#   cluster_end                 unmount, stop, remove; the ends of the logs when the test failed
#   pid_of NAME                 of a daemon (worker, master, journal, master-2), nothing when it does not run
#   kill_daemon NAME            kill -9, and see it gone: only then may its successor have the directory
#   masters                     the addresses of all masters, for --masters
#   leader                      what the node that leads has behind its daemons' names: nothing, "-2", "-3"
#   whole                       whether everybody is up and follows the leader
#   needs_fuse                  skip the test where nothing can be mounted
#   metric NAME                 one number of the worker's page

cluster_begin() {
    cd "$BATS_TEST_TMPDIR"
    declare -gA started=()
    PATH=$CV_ROOT/build/tools:$PATH
    CLUSTER=$(mktemp -d "/tmp/cv-$1-XXXXXX")
}

cluster_up() {
    cv local up --dir "$CLUSTER" "$@" 3>&-
    if [ -d mnt ] && ! mountpoint -q mnt; then
        cv --dir "$CLUSTER" mount :/ "$PWD/mnt" 3>&-
    fi
}

cluster_end() {
    local name
    [ -n "${CLUSTER:-}" ] || return 0
    for name in "${!started[@]}"; do
        kill -9 "${started[$name]}" 2>/dev/null || true
    done
    mountpoint -q mnt 2>/dev/null && cv --dir "$CLUSTER" umount --force mnt 3>&- || true
    [ -n "$BATS_TEST_COMPLETED" ] || tail -n 20 "$CLUSTER"/log/* *.log 2>/dev/null || true
    cv local down --dir "$CLUSTER" 3>&- || true
    rm -rf "$CLUSTER"
}

masters() {
    awk '/^ *masters:/ { gsub(/[] "[]|masters:/, ""); print }' "$CLUSTER/curvine.yaml"
}

leader() {
    local n
    n=$(cv --dir "$CLUSTER" node list -o json | jq -r '[.[] | select(.role == "master").state] | index("leading") // empty')
    [ -n "$n" ] || return 1
    [ "$n" = 0 ] || echo "-$((n + 1))"
}

whole() {
    [ "$(cv --dir "$CLUSTER" cluster status -o json | jq -r .status)" = OK ]
}

needs_fuse() {
    [ -c /dev/fuse ] || skip "no /dev/fuse"
}

pid_of() {
    cv local status --dir "$CLUSTER" -o json | jq -r ".[] | select(.daemon == \"cv-$1\") | .pid // empty"
}

gone() {
    ! kill -0 "$1" 2>/dev/null
}

kill_daemon() {
    local pid
    pid=$(pid_of "$1")
    [ -n "$pid" ] || return 0
    kill -9 "$pid"
    until_ok 10 gone "$pid"
}

metric() {
    local port
    port=$(awk '/^worker:/ { mine = 1 } /^[a-z]/ && !/^worker:/ { mine = 0 } mine && /http_port:/ { print $2 }' "$CLUSTER/curvine.yaml")
    curl -sSf "http://127.0.0.1:$port/metrics" | awk -v name="curvine_worker_$1" \
        '$1 == name || index($1, name "_total") == 1 { sum += $2 } END { printf "%.0f\n", sum }'
}
