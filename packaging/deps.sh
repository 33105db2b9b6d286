#!/bin/sh
# Install what packaging/deps.list names, with apt or dnf. Usage: deps.sh build|all|lab|lab-all
# "build" leaves out what only tests and checks need; "lab" is what booting hosts takes besides, "lab-all" all of "make lab". Does nothing (and needs no root) when all is there.
set -eu
list=$(dirname "$0")/deps.list
case "${1:-all}" in
build) kinds='lib|tool' ;;
all) kinds='lib|tool|test' ;;
lab) kinds='lab' ;;
lab-all) kinds='lab|pack' ;;
*) echo "usage: $0 build|all|lab|lab-all" >&2; exit 2 ;;
esac

if command -v apt-get >/dev/null 2>&1; then column=2
elif command -v dnf >/dev/null 2>&1; then column=3
else
    echo "deps.sh: neither apt-get nor dnf found: install the packages named in $list by hand" >&2
    exit 1
fi
want=$(awk -v k="^($kinds)\$" -v c=$column '$1 ~ k && $c != "" && $c != "-" { print $c }' "$list" | sort -u)

missing=
for p in $want; do
    if [ $column = 2 ]; then
        dpkg-query -W -f='${Status}' "$p" 2>/dev/null | grep -q 'ok installed' || missing="$missing $p"
    else
        rpm -q --whatprovides "$p" >/dev/null 2>&1 || missing="$missing $p"
    fi
done
if [ -z "$missing" ]; then
    exit 0
fi

as_root=
if [ "$(id -u)" != 0 ]; then
    command -v sudo >/dev/null 2>&1 || { echo "deps.sh: run as root, or install:$missing" >&2; exit 1; }
    as_root=sudo
fi
echo "installing:$missing"
if [ $column = 2 ]; then
    # shellcheck disable=SC2086
    $as_root apt-get update -qq
    $as_root env DEBIAN_FRONTEND=noninteractive apt-get install -y -qq -o Dpkg::Use-Pty=0 --no-install-recommends $missing > /dev/null
else
    # shellcheck disable=SC2086
    $as_root dnf install -y -q $missing || {
        echo "deps.sh: RHEL and its like have some of these in CRB and EPEL. If these are not enabled:" >&2
        echo "  dnf install epel-release dnf-plugins-core && dnf config-manager --set-enabled crb    (Rocky, Alma, CentOS Stream)" >&2
        echo "  on RHEL: subscription-manager repos --enable codeready-builder-for-rhel-10-\$(arch)-rpms, and the rpm of EPEL" >&2
        exit 1
    }
fi
