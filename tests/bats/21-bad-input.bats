#!/usr/bin/env bats
# What a cluster meets that it did not make: bad frames, a log cut short, rows with a flipped byte, a directory of another
# cluster, a port in use, an unknown key. Each time a clear message, and nothing changed.
# run-bats: 45 s

load lib
: "${CV_TOOLS:=$CV_ROOT/build/tools}"

up() {
    cluster=$BATS_TEST_TMPDIR/c
    cv local up --dir "$cluster" 3>&-
}

bats_teardown=$(declare -f teardown)
eval "lib_$bats_teardown"
teardown() {
    [ -z "${cluster:-}" ] || cv local down --dir "$cluster" 3>&- || true
    lib_teardown
}

pid_of() {
    cv local status --dir "$cluster" -o json | jq -r ".[] | select(.daemon == \"cv-$1\") | .pid // empty"
}

gone() {
    ! kill -0 "$1" 2>/dev/null
}

kill_daemon() {
    local pid
    pid=$(pid_of "$1")
    kill -9 "$pid"
    until_ok 10 gone "$pid"
}

# All bytes of ours below a directory; the database writes down that it was opened.
sum_of() {
    (cd "$1" && find . -name '*.sst' -o -path './log/*.log' -o -name ident -o -name durable.mark | sort | xargs sha256sum)
}

@test "bad frames: that connection ends, others and the daemons go on" {
    up
    start oracle "$CV_TOOLS/cv-oracle" run --masters "unix:$cluster/run/master.sock" --log oracle.ack --threads 4 --seconds 300
    until_ok 20 test -s oracle.ack
    for i in 1 2 3; do
        for socket in master journal; do
            run -0 "$CV_ROOT/tests/tools/bad-frames" "$cluster/run/$socket.sock"
            lacks UNNOTICED
        done
    done
    until_ok 10 grep -q "closing the connection to unix:pid .*malformed message" "$cluster/log/master.log"
    until_ok 10 grep -q "closing the connection to unix:pid .*the data is damaged" "$cluster/log/master.log"
    until_ok 10 grep -q "closing the connection to unix:pid .*frame larger than the limit" "$cluster/log/journal.log"
    alive oracle
    stop oracle
    [ "$stopped" = 0 ]
    grep -q '^ok:' oracle.log
    [ -n "$(pid_of master)" ]
    [ -n "$(pid_of journal)" ]
}

enough_lines() { [ "$(grep -c " E " oracle.ack)" -gt 500 ] && [ $((EPOCHSECONDS - began)) -ge 4 ]; }

@test "a log that lost its tail: the journal says that acknowledged entries are gone, and takes no part" {
    up
    start oracle "$CV_TOOLS/cv-oracle" run --masters "unix:$cluster/run/master.sock" --log oracle.ack --threads 4 --seconds 300
    # durable.mark is up to a second behind: half of what was written in four seconds is below it, however fast that went.
    began=$EPOCHSECONDS
    until_ok 30 enough_lines
    stop oracle KILL
    kill_daemon master
    kill_daemon journal
    wal=$(ls -t "$cluster"/journal/log/*.log | head -1)
    # The file is longer than what is written in it: cut at half of what is.
    python3 - "$wal" <<-END
	import sys
	with open(sys.argv[1], "r+b") as f:
	    f.truncate(len(f.read().rstrip(b"\\0")) // 2)
	END
    before=$(sum_of "$cluster/journal")
    run -1 cv-journal check -d "$cluster/journal"
    has "acknowledged entries are lost"
    [ "$(sum_of "$cluster/journal")" = "$before" ]
    run cv local up --dir "$cluster"
    echo "$output"
    [ "$status" != 0 ]
    has "acknowledged entries are lost"
    run ! cv --dir "$cluster" --timeout 1s fs mkdir :/no
    # In quarantine it is still the process of its directory: nobody else gets in, and it is found and stopped.
    quarantined=$(pid_of journal)
    [ -n "$quarantined" ]
    run -4 cv-journal check -d "$cluster/journal"
    has "$quarantined"
    run -0 cv local down --dir "$cluster" 3>&-
    until_ok 10 gone "$quarantined"
}

@test "a tail that was never acknowledged is no damage" {
    up
    cv --dir "$cluster" fs mkdir :/a
    kill_daemon master
    kill_daemon journal
    wal=$(ls -t "$cluster"/journal/log/*.log | head -1)
    # As a power cut leaves it: the first bytes of a record whose rest was not written.
    python3 - "$wal" <<-END
	import sys
	with open(sys.argv[1], "r+b") as f:
	    f.seek(len(f.read().rstrip(b"\\0")))
	    f.write(b"\\x99\\x12\\x34")
	END
    cv local up --dir "$cluster" 3>&-
    cv --dir "$cluster" fs stat :/a
    cv --dir "$cluster" fs mkdir :/b
}

@test "a flipped byte in a row: never a wrong answer, and the file is named" {
    up
    cv --dir "$cluster" fs mkdir :/d
    seq -f ':/d/a-file-with-a-longer-name-%g' 1 3000 | xargs cv --dir "$cluster" fs touch
    cv local down --dir "$cluster"
    good=$cluster.good
    cp -r "$cluster" "$good"
    for sst in "$cluster"/master/rows/*.sst; do
        [ "$(stat -c %s "$sst")" -gt 5000 ] || continue # how many there are depends on when they were written
        python3 - "$sst" <<-END
	import sys
	f = open(sys.argv[1], "r+b")
	f.seek(0, 2); at = f.tell() // 3
	f.seek(at); b = f.read(1); f.seek(at); f.write(bytes([b[0] ^ 4]))
	END
        hurt=1
    done
    [ "$hurt" = 1 ]
    if cv local up --dir "$cluster" 3>&-; then
        # What can be read is right, the rest is an error.
        run cv --dir "$cluster" --timeout 5s fs ls :/d -o json
        [ "$status" != 0 ]
        echo "$output"
    fi
    grep -iE "corrupt|checksum" "$cluster/log/master.log"
    cv local down --dir "$cluster" || true
    # With the damage undone all is there: nothing was changed on top of it.
    rm -rf "$cluster/master/rows" && cp -r "$good/master/rows" "$cluster/master/rows"
    cv local up --dir "$cluster" 3>&-
    [ "$(cv --dir "$cluster" fs ls :/d -o json | jq length)" = 3000 ]
}

@test "directories of two clusters do not come together" {
    up
    cv local down --dir "$cluster"
    cluster2=$BATS_TEST_TMPDIR/other
    cv local up --dir "$cluster2" 3>&-
    cv local down --dir "$cluster2"
    mv "$cluster/journal" "$cluster/journal.own"
    cp -r "$cluster2/journal" "$cluster/journal"
    before=$(sum_of "$cluster/master")
    run cv local up --dir "$cluster"
    echo "$output"
    [ "$status" != 0 ]
    has "do not belong together"
    has "belongs to another cluster"
    cv local down --dir "$cluster" || true
    [ "$(sum_of "$cluster/master")" = "$before" ]
    rm -r "$cluster/journal" && mv "$cluster/journal.own" "$cluster/journal"
    cv local up --dir "$cluster" 3>&-
}

@test "an unknown key and a port in use stop the start, and say where" {
    up
    cv local down --dir "$cluster"
    cp "$cluster/curvine.yaml" good.yaml
    echo "  speling: 1" >>"$cluster/curvine.yaml"
    line=$(wc -l <"$cluster/curvine.yaml")
    run -1 cv local up --dir "$cluster"
    has "curvine.yaml:$line"
    has "speling"
    cp good.yaml "$cluster/curvine.yaml"
    port=$(sed -n '/^master:/,$ s/ *http_port: //p' good.yaml | head -1)
    start busy python3 -m http.server --bind 127.0.0.1 "$port"
    until_ok 10 curl -sf -o /dev/null "http://127.0.0.1:$port/"
    run -1 cv local up --dir "$cluster"
    has "$port"
    has "in use"
    stop busy
    cv local up --dir "$cluster" 3>&-
}
