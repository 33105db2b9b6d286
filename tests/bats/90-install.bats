#!/usr/bin/env bats
# make install: exactly what packaging/files.list says arrives below DESTDIR, and runs from there.

load lib

@test "install puts every listed file below DESTDIR and nothing else" {
    make -s -C "$CV_ROOT" install DESTDIR="$PWD/root" PREFIX=/usr 3>&-
    [ -x root/usr/bin/cv ]
    root/usr/bin/cv config check root/etc/curvine/curvine.yaml.sample
    listed=$(grep -cvE '^(#|$)' "$CV_ROOT/packaging/files.list")
    [ "$(find root -not -type d | wc -l)" = "$listed" ]
}
