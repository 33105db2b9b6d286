#!/usr/bin/env bats
# The command line itself: help, mistakes, exit statuses, forms of output.
# run-bats: 15 s

load lib

@test "cv without a command explains itself" {
    run -0 cv
    has "Usage: cv"
    has "config check [FILE]"
    run -0 cv --help
    has "Exit status: 0 ok, 1 failed, 2 wrong usage, 3 degraded, 4 unreachable."
    run -0 cv --version
    has "cv "
}

@test "every command has help with examples that name known commands" {
    cv help -o json > commands.json
    jq -r '.[].command' commands.json > names
    [ -s names ]
    while read -r name; do
        # shellcheck disable=SC2086
        run -0 cv help $name
        has "Usage: cv $name"
        has "Examples"
        # shellcheck disable=SC2086
        run -0 cv $name --help
        has "Usage: cv $name"
    done < names
    jq -r '.[].examples' commands.json | grep -oE '(^|\| |&& )cv [a-z]+( [a-z][a-z-]*)?' | sed 's/.*cv //' | sort -u > used
    while read -r used; do
        grep -qxF -e "$used" -e "${used% *}" names || { echo "example of unknown command: $used"; false; }
    done < used
}

@test "a family of commands lists its members" {
    run -0 cv help config
    has "config explain"
    run -0 cv config --help
    has "config explain"
    run -2 cv config
    has "config explain"
}

@test "unknown commands and options exit 2 and name what is near" {
    run -2 cv confg check
    has "unknown command 'confg', did you mean 'cv config'?"
    run -2 cv config chek
    has "did you mean 'cv config check'?"
    run -2 cv xyzzy
    has "unknown command 'xyzzy'"
    lacks "did you mean"
    run -2 cv config show --jsno
    has "unknown option --jsno, did you mean --json?"
    run -2 cv version -q
    has "unknown option -q"
    run -2 cv version -o
    has "-o needs a value"
    run -2 cv version --json=x
    has "--json takes no value"
    run -2 cv -o xml version
    has "expected table, wide, json or yaml"
    run -2 cv --timeout soon version
    has "expected a duration"
    run -2 cv version extra
    has "takes no arguments"
}

@test "global options stand before and behind the command" {
    run -0 cv -o json version
    [ "$(jq -r .version <<<"$output")" = "$(cv version --json | jq -r .version)" ]
    cv version -o yaml | grep -q '^version: '
}

@test "results go to stdout, complaints to stderr" {
    cv config chek 2>err >out || true
    [ -s err ] && [ ! -s out ]
    cv version 2>err >out
    [ -s out ] && [ ! -s err ]
}

@test "output that cannot be written is a failure, a closed pipe is not" {
    run -1 bash -c 'cv config show > /dev/full'
    has "No space left on device"
    run -1 bash -c 'cv config sample > /dev/full'
    run -0 bash -c 'set -o pipefail; cv config sample | true'
}

@test "colour only on terminals that want it" {
    command -v script > /dev/null || skip "no script(1)"
    TERM=xterm script -qec "cv config show log" /dev/null < /dev/null > colour 3>&-
    grep -q $'\033\\[1mKEY' colour
    TERM=xterm NO_COLOR=1 script -qec "cv config show log" /dev/null < /dev/null > plain 3>&-
    TERM=xterm script -qec "cv config show log --no-color" /dev/null < /dev/null >> plain 3>&-
    TERM=dumb script -qec "cv config show log" /dev/null < /dev/null >> plain 3>&-
    cv config show log >> plain
    [ "$(grep -c KEY plain)" = 4 ]
    run -1 grep -q $'\033' plain
}

@test "cv(1) tells of every command, and daemons and curvine.yaml have pages" {
    cv help --man > cv.1
    [ "$(cv help -o json | jq length)" = "$(grep -c '^\.B cv ' cv.1)" ]
    cv config sample --man | grep -q '^\.B masters'
    for daemon in cv-master cv-journal; do
        "$daemon" --man | grep -q "^\.TH \"${daemon^^}\" 8"
    done
}

@test "completions of bash know families, commands and options" {
    cv completion bash > cv.bash
    complete_words() {
        bash -c 'source cv.bash; compopt() { :; }; COMP_WORDS=("$@"); COMP_CWORD=$(($# - 1)); _cv; echo "${COMPREPLY[@]}"' - "$@"
    }
    [ "$(complete_words cv fs fi)" = find ]
    [ "$(complete_words cv loc)" = local ]
    [[ "$(complete_words cv mount --par)" == *--param-file* ]]
    run cv completion tcsh
    [ "$status" = 2 ]
}
