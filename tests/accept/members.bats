#!/usr/bin/env bats
# Members come and go while whoever leads is killed: the test of make check, many rounds of it. ROUNDS (20).

@test "membership changes under kill -9, again and again" {
    MEMBER_ROUNDS=${ROUNDS:-20} BATS_TEST_TIMEOUT=900 bats --print-output-on-failure -f "under kill -9" \
        "$BATS_TEST_DIRNAME/../bats/26-raft-members.bats"
}
