# Networks of a test's own, which may be cut, behind lib: tests/tools/cv_wire.c says what the wire can do.
#
#   wire_up NODES            skips, with the reason, where there can be none; node N has the address 10.77.0.N
#   at_node N CMD...         run CMD in its network; in the background: start NAME on_wire N CMD...
#   wire RULE...             change it
#
# The networks end with the process "wire", one of those the test started, and with all who live there.

: "${CV_TOOLS:=$CV_ROOT/build/tools}"

wire_up() {
    needs_root "network namespaces"
    [ -c /dev/net/tun ] || skip "needs /dev/net/tun"
    unshare -n true 2>/dev/null || skip "needs network namespaces"
    WIRE=$BATS_TEST_TMPDIR/wire
    start wire "$CV_TOOLS/cv-wire" "$WIRE" up "$@"
    until_ok 5 grep -q up wire.log
}

at_node() {
    "$CV_TOOLS/cv-wire" "$WIRE" exec "$@"
}

wire() {
    "$CV_TOOLS/cv-wire" "$WIRE" "$@"
}
