#!/bin/sh
# Build the Debian packages of what is committed (HEAD), into build/deb. DEB_VERSION: other than the Makefile's version.
set -eu
cd "$(dirname "$0")/../.."
missing=
for p in debhelper fakeroot dpkg-dev; do
    dpkg-query -W -f='${Status}' $p 2>/dev/null | grep -q 'ok installed' || missing="$missing $p"
done
if [ -n "$missing" ]; then
    as_root=
    [ "$(id -u)" = 0 ] || as_root=sudo
    echo "installing:$missing"
    DEBIAN_FRONTEND=noninteractive $as_root apt-get install -y -qq --no-install-recommends $missing
fi
packaging/deps.sh build

version=${DEB_VERSION:-$(sed -n 's/^VERSION := //p' Makefile)}
out=$PWD/build/deb
tree=$out/curvine-$version
rm -rf "$out"
mkdir -p "$tree"
git archive HEAD | tar -x -C "$tree"
cp -r packaging/deb "$tree/debian"
rm "$tree/debian/build.sh" "$tree/debian/lintian-overrides"
sed -i "s/^VERSION := .*/VERSION := $version/" "$tree/Makefile"
# Exactly the libraries of the one list of what the project needs.
depends=$(awk '$1 == "lib" { print $2 } $2 == "pkg-config" { print $2 }' packaging/deps.list | sort -u | paste -sd, | sed 's/,/, /g')
sed -i "s/@BUILD_DEPENDS@/$depends/" "$tree/debian/control"
cat > "$tree/debian/changelog" <<END
curvine ($version) unstable; urgency=medium

  * See CHANGELOG.md.

 -- The Curvine authors <curvine@localhost>  $(git log -1 --format=%cD)
END
# The same exceptions for all packages, each with its reason.
for p in $(sed -n 's/^Package: //p' packaging/deb/control); do
    sed "s/^[^#]/$p: &/" packaging/deb/lintian-overrides > "$tree/debian/$p.lintian-overrides"
done
mkdir -p "$tree/debian/source"
echo '3.0 (native)' > "$tree/debian/source/format"
(cd "$tree" && DEB_BUILD_OPTIONS="parallel=$(nproc) nocheck" dpkg-buildpackage -b -us -uc -ui) > "$out/build.log" 2>&1 ||
    { tail -40 "$out/build.log"; echo "deb: failed, the whole log is $out/build.log" >&2; exit 1; }
rm -rf "$tree"
if command -v lintian > /dev/null; then
    lintian --fail-on error,warning --allow-root $(ls "$out"/*.deb | grep -v dbgsym)
fi
ls -l "$out"/*.deb
