#!/bin/bash
# Build the Debian packages of what is committed (HEAD).
#
#   packaging/deb/build.sh            on this machine, for its own release, into build/deb
#   packaging/deb/build.sh RELEASE    in a tree of that release (bookworm, trixie; tests/lab/tree), as root, into build/deb-RELEASE
#   packaging/deb/build.sh --key          what the packages depend on, as a hash
#   packaging/deb/build.sh RELEASE ARCH   for another architecture, by a cross compiler, into build/deb-RELEASE-ARCH
#
#   DEB_VERSION   other than the Makefile's
#   DEB_NEXT      a higher version: the same is built again as that, into OUT/next (to try upgrades)
#   DEB_OUT       another directory than the above; DEB_BUILD_DIR another one than /build in the tree: packages must not depend on it
set -euo pipefail
cd "$(dirname "$0")/../.."
# Everything that packages are made of; what else is committed changes nothing in them.
parts=(Makefile CHANGELOG.md LICENSE bin cli docs fuse meta packaging raft src systemd tests/sim/sim.mk worker)
if [ "${1:-}" = --key ]; then
    git ls-tree HEAD "${parts[@]}" | sha256sum | cut -c1-16
    exit
fi
release=${1:-} arch=${2:-}
version=${DEB_VERSION:-$(sed -n 's/^VERSION := //p' Makefile)}
out=${DEB_OUT:-$PWD/build/deb${release:+-$release}${arch:+-$arch}}
inside=${DEB_BUILD_DIR:-/build}
case $out in /*) ;; *) out=$PWD/$out ;; esac

install_tools() {
    local p missing=
    for p in debhelper fakeroot dpkg-dev; do
        dpkg-query -W -f='${Status}' $p 2>/dev/null | grep -q 'ok installed' || missing="$missing $p"
    done
    if [ -n "$missing" ]; then
        local as_root=
        [ "$(id -u)" = 0 ] || as_root=sudo
        echo "installing:$missing"
        # shellcheck disable=SC2086
        DEBIAN_FRONTEND=noninteractive $as_root apt-get install -y -qq --no-install-recommends $missing
    fi
    packaging/deps.sh build
}

# The sources as they are committed, with debian/ made of packaging/deb.
export_source() {
    local depends p script
    mkdir -p "$tree"
    git archive HEAD "${parts[@]}" | tar -x -C "$tree"
    cp -r packaging/deb "$tree/debian"
    rm "$tree"/debian/{build.sh,lintian-overrides,service.prerm,service.postrm}
    # Exactly the libraries of the one list of what the project needs.
    depends=$(awk '$1 == "lib" { print $2 } $2 == "pkg-config" { print $2 }' packaging/deps.list | sort -u | paste -sd, | sed 's/,/, /g')
    sed -i "s/@BUILD_DEPENDS@/$depends/" "$tree/debian/control"
    # The same exceptions for all packages, each with its reason.
    for p in $(sed -n 's/^Package: //p' packaging/deb/control); do
        sed "s/^[^#]/$p: &/" packaging/deb/lintian-overrides > "$tree/debian/$p.lintian-overrides"
    done
    for p in journal master worker; do
        for script in prerm postrm; do
            sed "s/@SERVICE@/$p/" packaging/deb/service.$script > "$tree/debian/curvine-$p.$script"
        done
    done
    mkdir -p "$tree/debian/source"
    echo '3.0 (native)' > "$tree/debian/source/format"
}

set_version() {
    sed -i "s/^VERSION := .*/VERSION := $1/" "$tree/Makefile"
    cat > "$tree/debian/changelog" <<-END
	curvine ($1) unstable; urgency=medium

	  * See CHANGELOG.md.

	 -- The Curvine authors <curvine@localhost>  $(git log -1 --format=%cD -- "${parts[@]}")
	END
}

# In $tree, which is $2 for the one who builds. Cleaning keeps build/: what is built is used again for the next version.
build() {
    local how=(dpkg-buildpackage -b -us -uc -ui) log=$1 at=$2
    [ -z "$arch" ] || how+=("-a$arch")
    export DEB_BUILD_OPTIONS="parallel=$(nproc) nocheck"
    if [ -z "$release" ]; then
        (cd "$at" && "${how[@]}") > "$log" 2>&1
    else
        # Mounts of this step end with it.
        layer=$work/layer inside=$inside out=$work root=$root ccache=$ccache unshare --mount --propagation private bash -euc '
            mkdir -p "$layer"/{upper,work,root}
            mount -t overlay overlay -o "lowerdir=$root,upperdir=$layer/upper,workdir=$layer/work" "$layer/root"
            mount -t proc proc "$layer/root/proc"
            mkdir -p "$layer/root$inside" "$layer/root/ccache"
            mount --bind "$out" "$layer/root$inside"
            mount --bind "$ccache" "$layer/root/ccache"
            at=$1
            shift
            exec env -i PATH=/usr/lib/ccache:/usr/sbin:/usr/bin:/sbin:/bin HOME=/root LC_ALL=C.UTF-8 CCACHE_DIR=/ccache \
                ${CCACHE_DISABLE:+CCACHE_DISABLE=1} DEB_BUILD_OPTIONS="$DEB_BUILD_OPTIONS" \
                chroot "$layer/root" sh -c "cd \"\$0\" && exec \"\$@\"" "$at" "$@"' - "$at" "${how[@]}" > "$log" 2>&1 < /dev/null
    fi || { tail -40 "$log"; echo "deb: failed, the whole log is $log" >&2; exit 1; }
}

rm -rf "$out"
mkdir -p "$out"
work=$out/work tree=$out/work/curvine
if [ -n "$release" ]; then
    root=$(tests/lab/tree "build${arch:+-$arch}" "$release")
    ccache=${CV_LAB_CACHE:-${XDG_CACHE_HOME:-$HOME/.cache}/curvine-lab}/ccache
    mkdir -p "$ccache"
    at=$inside/curvine
else
    install_tools
    at=$tree
fi
if [ -n "$arch" ]; then
    [ -d "build/deb-$release/share" ] || DEB_NEXT='' DEB_OUT='' "$0" "$release"
    mkdir -p "$work"
    cp -r "build/deb-$release/share" "$work/share"
fi
export_source
set_version "$version"
build "$out/build.log" "$at"
mv "$work"/*.deb "$out"
[ -n "$arch" ] || cp -r "$tree/build/share" "$out/share"
if [ -n "${DEB_NEXT:-}" ]; then
    mkdir -p "$out/next"
    set_version "$DEB_NEXT"
    (cd "$tree" && grep -rl --include='*.c' --include='*.h' CV_VERSION . | xargs touch)
    build "$out/next.log" "$at"
    mv "$work"/*.deb "$out/next"
fi
rm -rf "$work"
if [ -z "$release" ] && command -v lintian > /dev/null; then
    find "$out" -maxdepth 1 -name '*.deb' -not -name '*dbgsym*' -print0 | xargs -0 lintian --fail-on error,warning --allow-root
fi
ls -l "$out"/*.deb
