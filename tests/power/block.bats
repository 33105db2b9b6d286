#!/usr/bin/env bats
# Power cuts under the block store: what was synced is there, what is served is right, and refused epochs stay refused.

load lib

# Cut the power n times. Status 0: nothing was lost and nothing wrong is served.
cut_and_look() { # N
    local i lines
    for i in $(seq 1 "$1"); do
        lines=$(wc -l <oracle)
        start blocks "$CV_TOOLS/cv-blocks" run disk/store oracle "$i" "$RANDOM"
        until_ok 60 bash -c "[ \$(wc -l <oracle) -gt $((lines + 150 + RANDOM % 400)) ]"
        power_cut disk blocks
        stop blocks KILL
        power_back disk
        CV_BLOCKS_SKIP="" "$CV_TOOLS/cv-blocks" check disk/store oracle "$((i + 1))" || return 1
    done
}

new_store() {
    need_power
    power_disk disk 768M
    mkdir disk/store
    "$CV_TOOLS/cv-blocks" format "$PWD/disk/store"
    sync -f disk
    : >oracle
}

@test "power cut: what the block store synced is there, and what it serves is right" {
    new_store
    cut_and_look "${CUTS:-6}"
}

@test "power cut: a block store that does not sync its data is caught" {
    new_store
    export CV_BLOCKS_SKIP=data
    run cut_and_look 4
    echo "$output"
    [ "$status" = 1 ]
}

@test "power cut: a block store that does not sync its index is caught" {
    new_store
    export CV_BLOCKS_SKIP=index
    run cut_and_look 4
    echo "$output"
    [ "$status" = 1 ]
}
