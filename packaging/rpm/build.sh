#!/bin/sh
# Build the rpm packages of what is committed (HEAD), into build/rpm (RPM_OUT: elsewhere). On Debian (for trying them) with its rpmbuild.
set -eu
cd "$(dirname "$0")/../.."
command -v rpmbuild >/dev/null && { command -v dnf || command -v eu-strip; } >/dev/null || {
    as_root=
    [ "$(id -u)" = 0 ] || as_root=sudo
    if command -v dnf >/dev/null; then $as_root dnf install -y -q rpm-build
    else DEBIAN_FRONTEND=noninteractive $as_root apt-get install -y -qq --no-install-recommends rpm elfutils; fi
}
packaging/deps.sh build

version=${RPM_VERSION:-$(sed -n 's/^VERSION := //p' Makefile)}
out=${RPM_OUT:-$PWD/build/rpm}
# Whenever it is built: the time of the sources.
SOURCE_DATE_EPOCH=$(git log -1 --format=%ct)
export SOURCE_DATE_EPOCH
rm -rf "$out"
mkdir -p "$out/SOURCES" "$out/SPECS"
tree=$out/curvine-$version
mkdir "$tree"
git archive HEAD | tar -x -C "$tree"
sed -i "s/^VERSION := .*/VERSION := $version/" "$tree/Makefile"
tar -C "$out" --sort=name --owner=0 --group=0 --mtime="@$SOURCE_DATE_EPOCH" -czf "$out/SOURCES/curvine-$version.tar.gz" "curvine-$version"

# On Debian what is installed is not known to rpm, and debug symbols have to be asked for.
if command -v dnf >/dev/null; then nodeps='' debug=''
else nodeps=--nodeps debug=%debug_package; fi
libdir=lib64
requires=$(awk '$1 == "lib" || $3 == "pkgconf-pkg-config" || $3 == "make" || $3 ~ /^gcc/ { print "BuildRequires:  " $3 }' packaging/deps.list | sort -u)
files=$(sed -n 's/^curvine-[a-z]*\|^libcurvine[a-z0-9-]*/&/p' packaging/files.list | awk '{ print $1 }' | sort -u | while read -r package; do
    case $package in
    curvine-*) echo "%files ${package#curvine-}" ;;
    libcurvine-dev) echo "%files -n libcurvine-devel" ;;
    *) echo "%files -n $package" ;;
    esac
    doc=
    PREFIX=/usr LIBDIR=$libdir SYSCONFDIR=/etc packaging/install.sh --list "$package" | while read -r file; do
        case $file in
        /etc/*) echo "%dir $(dirname "$file")"; echo "%config(noreplace) $file" ;;
        */lib*.so.*) echo "%attr(0755,root,root) $file" ;;
        /usr/share/man/*) echo "$file*" ;;
        /usr/share/doc/*)
            [ "$doc" = "$(dirname "$file")" ] || echo "%dir $(dirname "$file")"
            doc=$(dirname "$file")
            echo "%doc $file" ;;
        *) echo "$file" ;;
        esac
    done
    [ "$package" != curvine-common ] || echo "%license LICENSE"
    echo
done)
awk -v version="$version" -v requires="$requires" -v files="$files" -v debug="$debug" '
    { gsub("@VERSION@", version) }
    $0 == "@BUILD_REQUIRES@" { print requires; next }
    $0 == "@DEBUG@" { print debug; next }
    $0 == "@FILES@" { print files; next }
    /^#.*@/ { next }
    { print }' packaging/rpm/curvine.spec.in > "$out/SPECS/curvine.spec"
rpmbuild -bb $nodeps --define "_topdir $out" --define "cv_libdir $libdir" --define "_libdir /usr/lib64" \
    --define "_buildhost localhost" --define "use_source_date_epoch_as_buildtime 1" --define "clamp_mtime_to_source_date_epoch 1" \
    "$out/SPECS/curvine.spec" > "$out/build.log" 2>&1 ||
    { tail -40 "$out/build.log"; echo "rpm: failed, the whole log is $out/build.log" >&2; exit 1; }
rm -rf "$tree" "$out/BUILD" "$out/BUILDROOT"
find "$out/RPMS" -name '*.rpm' -exec mv {} "$out" \;
rm -rf "$out/RPMS" "$out/SRPMS"
ls -l "$out"/*.rpm
