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
