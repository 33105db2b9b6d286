#!/bin/sh
# Install what packaging/files.list names. Usage: install.sh BUILD_DIR, with PREFIX, LIBDIR, SYSCONFDIR, DESTDIR set.
set -eu
build=$1
list=$(dirname "$0")/files.list
grep -vE '^(#|$)' "$list" | while read -r mode from to; do
    case $from in
    ./*) ;;
    *) from=$build/$from ;;
    esac
    to=$(echo "$to" | sed -e "s|@bin@|$PREFIX/bin|" -e "s|@lib@|$PREFIX/$LIBDIR|" -e "s|@include@|$PREFIX/include|" \
        -e "s|@share@|$PREFIX/share|" -e "s|@etc@|$SYSCONFDIR|")
    install -D -m "$mode" "$from" "$DESTDIR$to"
done
