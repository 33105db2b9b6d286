#!/usr/bin/env bats
# The packages as files: reproducible, complete, with debug symbols, clean for lintian and rpmlint; rpm into a root of its own; for
# arm64 where its libraries can be had.

bats_require_minimum_version 1.5.0
load lab

: "${LAB_RELEASE:=bookworm}"

setup_file() {
    local missing
    missing=$(lab_needs) || { echo "$missing" > "$BATS_FILE_TMPDIR/missing"; return 0; }
    cd "$LAB_SOURCE" || return 1
    tests/lab/packages "$LAB_RELEASE" > "$BATS_FILE_TMPDIR/packages" 3>&-
}

setup() {
    lab_begin_test
    cd "$LAB_SOURCE" || return 1
    debs=build/deb-$LAB_RELEASE
}

# name hash, of all packages in a directory
sums() { (cd "$1" && sha256sum -- *."$2"); }
# The files that files.list gives a package, as $2 (deb or rpm) places them.
listed() { PREFIX=/usr LIBDIR=$2 SYSCONFDIR=/etc packaging/install.sh --list "$1" | sort; }
# Runs CMD with / being an overlay over a tree, which is gone afterwards: in_tree TREE CMD...
in_tree() {
    mkdir -p "$BATS_TEST_TMPDIR/tree"/{upper,work,root}
    unshare --mount --propagation private bash -euc 'mount -t overlay overlay -o "lowerdir=$1,upperdir=$2/upper,workdir=$2/work" "$2/root"
        mount --bind /proc "$2/root/proc"
        root=$2/root
        shift 2
        "$@" "$root"' - "$1" "$BATS_TEST_TMPDIR/tree" "${@:2}"
}

@test "deb: built twice, elsewhere and without a cache, the packages are equal" {
    CCACHE_DISABLE=1 DEB_BUILD_DIR=/elsewhere/and/deeper DEB_OUT=$BATS_TEST_TMPDIR/again packaging/deb/build.sh "$LAB_RELEASE"
    sums "$debs" deb > "$BATS_TEST_TMPDIR/first"
    sums "$BATS_TEST_TMPDIR/again" deb > "$BATS_TEST_TMPDIR/second"
    diff "$BATS_TEST_TMPDIR/first" "$BATS_TEST_TMPDIR/second"
}

@test "deb: lintian finds nothing that is not explained" {
    command -v lintian > /dev/null || skip "no lintian: make lab-deps"
    run lintian --allow-root --fail-on error,warning $(ls "$debs"/*.deb | grep -v dbgsym)
    echo "$output"
    [ "$status" = 0 ]
}

@test "deb: each package has what files.list says, and the debug symbols of its programs" {
    triplet=$(dpkg-architecture -qDEB_HOST_MULTIARCH)
    for p in $(sed -n 's/^Package: //p' packaging/deb/control); do
        dpkg-deb -c "$debs"/${p}_*.deb | awk '$1 !~ /^d/ { sub(/^\./, "", $6); sub(/\.gz$/, "", $6); print $6 }' |
            grep -vE "^/usr/share/(doc/$p/(changelog|copyright|changelog.Debian)|lintian/)" | sort > "$BATS_TEST_TMPDIR/has"
        diff <(listed "$p" "lib/$triplet" | sed 's/\.gz$//') "$BATS_TEST_TMPDIR/has"
    done
    mkdir "$BATS_TEST_TMPDIR/x"
    dpkg-deb -x "$debs"/curvine-master_*.deb "$BATS_TEST_TMPDIR/x"
    dpkg-deb -x "$debs"/curvine-master-dbgsym_*.deb "$BATS_TEST_TMPDIR/x"
    id=$(file "$BATS_TEST_TMPDIR/x/usr/bin/cv-master" | sed -n 's/.*BuildID\[sha1\]=\([0-9a-f]*\).*/\1/p')
    [ -s "$BATS_TEST_TMPDIR/x/usr/lib/debug/.build-id/${id:0:2}/${id:2}.debug" ]
}

@test "deb: it depends on the packages its programs are linked with, and on no others" {
    local program package depends tree
    tree=$(tests/lab/tree build "$LAB_RELEASE")
    for program in cv-journal:curvine-journal cv-master:curvine-master cv-worker:curvine-worker cv:curvine-client libcurvine.so.0:libcurvine0; do
        package=${program#*:}
        dpkg-deb -x "$debs/${package}"_*.deb "$BATS_TEST_TMPDIR/$package"
        find "$BATS_TEST_TMPDIR/$package/usr/bin" "$BATS_TEST_TMPDIR/$package/usr/lib" -type f \( -name 'cv*' -o -name '*.so.0' \) 2> /dev/null |
            xargs -n 1 objdump -p 2> /dev/null | awk '$1 == "NEEDED" { print $2 }' | grep -v '^ld-linux' | sort -u > "$BATS_TEST_TMPDIR/needed"
        dpkg-deb -f "$debs/${package}"_*.deb Depends | tr ',' '\n' | awk '{ print $1 }' | grep -vx 'curvine-common\|fuse3' > "$BATS_TEST_TMPDIR/depends"
        [ -s "$BATS_TEST_TMPDIR/needed" ]
        # What each of them has of what is needed.
        : > "$BATS_TEST_TMPDIR/had"
        while read -r depends; do
            dpkg-query --admindir="$tree/var/lib/dpkg" -L "$depends" | sed 's|.*/||' | sort -u | comm -12 - "$BATS_TEST_TMPDIR/needed" > "$BATS_TEST_TMPDIR/has"
            [ -s "$BATS_TEST_TMPDIR/has" ] || { echo "$package depends on $depends for nothing"; return 1; }
            cat "$BATS_TEST_TMPDIR/has" >> "$BATS_TEST_TMPDIR/had"
        done < "$BATS_TEST_TMPDIR/depends"
        diff <(sort -u "$BATS_TEST_TMPDIR/had") "$BATS_TEST_TMPDIR/needed"
    done
}

@test "deb: for arm64, by a cross compiler" {
    tests/lab/tree build-arm64 "$LAB_RELEASE" > "$BATS_TEST_TMPDIR/arm" 2>&1 || skip "no libraries of arm64 to be had: $(tail -n 1 "$BATS_TEST_TMPDIR/arm")"
    packaging/deb/build.sh "$LAB_RELEASE" arm64
    [ "$(dpkg-deb -f build/deb-"$LAB_RELEASE"-arm64/curvine-master_*.deb Architecture)" = arm64 ]
    dpkg-deb -x build/deb-"$LAB_RELEASE"-arm64/curvine-client_*.deb "$BATS_TEST_TMPDIR/x"
    file "$BATS_TEST_TMPDIR/x/usr/bin/cv" | grep 'ARM aarch64'
    # What programs print of themselves is the same.
    dpkg-deb -x "$debs"/curvine-client_*.deb "$BATS_TEST_TMPDIR/y"
    diff -r "$BATS_TEST_TMPDIR/x/usr/share/man" "$BATS_TEST_TMPDIR/y/usr/share/man"
}

@test "rpm: built twice, equal; each package has what files.list says" {
    command -v rpmbuild > /dev/null || skip "no rpmbuild: make lab-deps"
    PATH=/usr/lib/ccache:$PATH packaging/rpm/build.sh
    RPM_OUT=$BATS_TEST_TMPDIR/again packaging/rpm/build.sh
    diff <(sums build/rpm rpm) <(sums "$BATS_TEST_TMPDIR/again" rpm)
    for p in $(awk '!/^(#|$)/ { print $1 }' packaging/files.list | sort -u); do
        rpm -qpl build/rpm/"${p/libcurvine-dev/libcurvine-devel}"-0*.rpm | grep -vE '^/etc/curvine$|^/usr/share/doc/[^/]*$|/licenses/|/.build-id' | sed 's/\.gz$//' | sort > "$BATS_TEST_TMPDIR/has"
        diff <(listed "$p" lib64 | sed 's/\.gz$//') "$BATS_TEST_TMPDIR/has"
    done
    rpm -qpl build/rpm/curvine-debuginfo-*.rpm | grep '/usr/bin/cv-master.*\.debug$'
    [ "$(rpm -qpc build/rpm/curvine-common-*.rpm)" = /etc/curvine/curvine.yaml ]
    rpm -qp --qf '[%{FILENAMES} %{FILEFLAGS:fflags}\n]' build/rpm/curvine-common-*.rpm | grep -x '/etc/curvine/curvine.yaml cn'
}

@test "rpm: it asks for the libraries its programs are linked with, and for nothing that is not there" {
    for program in cv-journal:journal cv-master:master cv-worker:worker cv:client; do
        mkdir -p "$BATS_TEST_TMPDIR/x"
        (cd "$BATS_TEST_TMPDIR/x" && rpm2cpio "$LAB_SOURCE"/build/rpm/curvine-"${program#*:}"-0*.rpm | cpio -idm --quiet)
        rpm -qp --requires build/rpm/curvine-"${program#*:}"-0*.rpm > "$BATS_TEST_TMPDIR/requires"
        objdump -p "$BATS_TEST_TMPDIR/x/usr/bin/${program%:*}" | awk '$1 == "NEEDED" { print $2 }' | while read -r library; do
            grep -F "$library()" "$BATS_TEST_TMPDIR/requires" > /dev/null || { echo "$program: not asked for: $library"; exit 1; }
        done
    done
}

# rpm --root into a tree with a shell and systemd; what it would ask a distribution's rpm database for is checked above.
install_erase() {
    local root=$1 files
    rpm --root "$root" --initdb
    rpm --root "$root" -i --nodeps --noplugins build/rpm/curvine-*-0*.rpm build/rpm/libcurvine0-0*.rpm
    chroot "$root" getent passwd curvine
    [ "$(chroot "$root" stat -c %U /var/lib/curvine)" = curvine ]
    chroot "$root" sh -c 'for p in cv cv-journal cv-master cv-worker; do test -x /usr/bin/$p; done'
    [ ! -e "$root/etc/systemd/system/curvine.target.wants" ]
    # A configuration that was changed stays, the new one comes beside it.
    echo '# mine' >> "$root/etc/curvine/curvine.yaml"
    rpm --root "$root" -e --nodeps --noplugins $(rpm --root "$root" -qa | grep -i curvine)
    files=$(find "$root/usr" "$root/etc" -name '*curvine*' -o -name 'cv-*' -path '*systemd*')
    echo "left: $files"
    [ "$(grep -cv 'rpmsave$' <<< "$files")" -le 1 ]
    grep -x '# mine' "$root/etc/curvine/curvine.yaml.rpmsave"
}

@test "rpm: installs and erases in a root of its own" {
    command -v rpm > /dev/null || skip "no rpm: make lab-deps"
    in_tree "$(tests/lab/tree host bookworm)" install_erase_here
}

install_erase_here() { install_erase "$@"; }
export -f install_erase install_erase_here

@test "rpm: rpmlint finds nothing that is not explained" {
    command -v rpmlint > /dev/null || skip "no rpmlint: make lab-deps"
    run rpmlint -c packaging/rpm/rpmlint.toml build/rpm/*.rpm
    echo "$output"
    [ "$status" = 0 ]
}
