#!/bin/sh
# Install what packaging/files.list names. Usage: install.sh BUILD_DIR, with PREFIX, LIBDIR, SYSCONFDIR, DESTDIR set.
# "install.sh --list PACKAGE" prints the destinations of one package instead.
set -eu
list=$(dirname "$0")/files.list
place() {
    echo "$1" | sed -e "s|@bin@|$PREFIX/bin|" -e "s|@sbin@|$PREFIX/sbin|" -e "s|@lib@|$PREFIX/$LIBDIR|" -e "s|@include@|$PREFIX/include|" \
        -e "s|@share@|$PREFIX/share|" -e "s|@etc@|$SYSCONFDIR|" -e "s|@usrlib@|$PREFIX/lib|"
}
rows() { grep -vE '^(#|$)' "$list"; }

if [ "$1" = --list ]; then
    rows | while read -r package mode from to; do
        [ "$package" != "$2" ] || place "$to"
    done
    exit 0
fi
build=$1
rows | while read -r package mode from to; do
    to=$DESTDIR$(place "$to")
    if [ "$mode" = link ]; then
        mkdir -p "$(dirname "$to")"
        ln -sf "$from" "$to"
        continue
    fi
    case $from in
    ./*) ;;
    *) from=$build/$from ;;
    esac
    install -D -m "$mode" "$from" "$to"
done
