#!/usr/bin/env bats
# make install: exactly what packaging/files.list says arrives below DESTDIR, and runs from there.

load lib

@test "install puts every listed file below DESTDIR and nothing else" {
    make -s -C "$CV_ROOT" install DESTDIR="$PWD/root" PREFIX=/usr 3>&-
    [ -x root/usr/bin/cv ]
    root/usr/bin/cv config check root/etc/curvine/curvine.yaml
    listed=$(grep -cvE '^(#|$)' "$CV_ROOT/packaging/files.list")
    [ "$(find root -not -type d | wc -l)" = "$listed" ]
}

@test "units start what is installed, as the user the package makes, and manual pages are there" {
    make -s -C "$CV_ROOT" install DESTDIR="$PWD/root" PREFIX=/usr 3>&-
    for unit in root/usr/lib/systemd/system/*.service; do
        program=$(sed -n 's/^ExecStart=\([^ ]*\).*/\1/p' "$unit")
        [ -x "root$program" ]
        [ -s "root/usr/share/man/man8/$(basename "$program").8" ]
        # Only what mounts is root.
        [ "$(basename "$program")" = cv-fuse ] || grep -qx 'User=curvine' "$unit"
        grep -qx 'Type=notify' "$unit"
    done
    grep -q '^u curvine ' root/usr/lib/sysusers.d/curvine.conf
}

# The options of a page, or of the sample file, as SECTION.KEY.
in_page() { awk '/^\.SS / { section = $2 } section && /^\.B [a-z_]+$/ { print section "." $2 }' "$@" | sort -u; }
in_sample() { awk '/^[a-z_]+:/ { section = $1 } /^  #[a-z_]+: / { print section substr($1, 2) }' "$@" | tr ':' ' ' | awk '{ print $1 "." $2 }' | sort -u; }

@test "manual pages and the sample file have the options that --help has, all of them and no others" {
    : > all
    for program in cv-journal cv-master cv-worker cv-fuse; do
        $program --help | sed -n 's/^  \([a-z]*\.[a-z_]*\) .*/\1/p' | sort -u > options
        [ "$(wc -l < options)" -ge 10 ]
        $program --man | in_page | diff options -
        cat options >> all
    done
    cv config sample --man | in_page | diff <(sort -u all) -
    cv config sample | in_sample | diff <(sort -u all) -
}

@test "a host that is half set up says what is missing and, as the one thing to do, which command to type" {
    printf '%s\n' "cluster:" "  masters: [127.0.0.1:1]" "  run_dir: $PWD" "journal:" "  dir: $PWD/journal" "master:" "  dir: $PWD/master" \
        "worker:" "  dirs: [$PWD/worker]" > curvine.yaml
    run -4 cv --config curvine.yaml cluster status
    has "no master answers (127.0.0.1:1"
    has "cv-journal  $PWD/journal: not formatted"
    has "next: cv cluster init --single"
    lacks "try:"
    id=0f8fad5b-d9cb-469f-a165-70867728950e
    cv-journal format --config curvine.yaml --cluster $id --single
    run -4 cv --config curvine.yaml cluster status
    has "cv-journal  $PWD/journal: formatted, does not run"
    has "cv-worker   $PWD/worker: not formatted"
    [[ $output == *"next: cv cluster init" ]]
    cv-master --config curvine.yaml format --cluster $id
    cv-worker --config curvine.yaml format --cluster $id
    run -4 cv --config curvine.yaml cluster status
    has "next: systemctl enable --now curvine.target cv-journal cv-master cv-worker"
    lacks "try:"
    # Another cluster than this host's: nothing here would help.
    run -4 cv --config curvine.yaml --cluster 127.0.0.1:1 cluster status
    has "try: is it running?"
    lacks "on this host"
}
