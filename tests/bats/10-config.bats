#!/usr/bin/env bats
# curvine.yaml: what is accepted, what is refused and how, and what cv config says about it.
# run-bats: 12 s

load lib

@test "without a file all options are at their defaults" {
    [ ! -e /etc/curvine/curvine.yaml ] || skip "this machine has a configuration"
    run -0 cv config check
    has "all options are at their defaults"
    run -0 cv config diff -o json
    [ "$output" = "[]" ]
}

@test "the sample file is valid, as it is and with all comment signs removed" {
    cv config sample > sample.yaml
    run -0 cv config check sample.yaml
    has "sample.yaml: valid"
    sed -E 's/^(  )#([a-z_]+:)/\1\2/' sample.yaml > all.yaml
    [ "$(grep -cE '^  [a-z_]+: ' all.yaml)" = "$(cv config show -o json | jq length)" ]
    run -0 cv config check all.yaml
    run -0 cv config diff all.yaml -o json
    [ "$output" = "[]" ]
    run -0 cv config diff sample.yaml all.yaml --json
    [ "$output" = "[]" ]
}

@test "all mistakes of a file are reported with line, key, reason and suggestion" {
    cat > bad.yaml <<-END
	master:
	  prot: 1
	  port: 99999
	  lease_ms: soon
	wroker:
	  port: 1
	worker:
	  dirs: []
	  port: 1
	  port: 2
	END
    run -1 cv config check bad.yaml
    has "bad.yaml:2: master.prot: unknown key, did you mean 'port'?"
    has "bad.yaml:3: master.port: '99999' is not allowed: a number, from 0 to 65535 (default 8995)"
    has "bad.yaml:4: master.lease_ms: 'soon' is not allowed: a duration"
    has "bad.yaml:5: wroker: unknown section, did you mean 'worker'?"
    has "bad.yaml:8: worker.dirs:"
    has "bad.yaml:10: worker.port: given twice, first on line 9"
    run -1 --separate-stderr cv config check bad.yaml --json
    [ "$(jq '.problems | length' <<<"$output")" = 6 ]
    [ "$(jq .valid <<<"$output")" = false ]
    run -2 cv -c bad.yaml config show
    has "bad.yaml:2:"
}

@test "files that are no YAML, no file or too big are refused" {
    printf 'master:\n\tport: 1\n' > tab.yaml
    run -1 cv config check tab.yaml
    has "tab.yaml:2: not valid YAML"
    run -1 cv config check nowhere.yaml
    has "nowhere.yaml: No such file or directory"
    run -1 cv config check .
    has "not a configuration file"
    head -c 2M /dev/zero > big.yaml
    run -1 cv config check big.yaml
    has "not a configuration file"
}

@test "options that contradict each other are refused" {
    printf 'journal:\n  heartbeat_ms: 200ms\n' > c.yaml
    run -1 cv config check c.yaml
    has "journal: election_ms must be at least 4 times heartbeat_ms"
}

@test "the layers: defaults, file, --cluster, --set; and where each value comes from" {
    printf 'master:\n  port: 1\n  threads: 2\n' > c.yaml
    cv -c c.yaml --set master.port=3 --cluster a:1,b:2 config show master cluster -o json > shown
    value() { jq -rc ".[] | select(.key == \"$1\") | .$2" shown; }
    [ "$(value master.port value)" = 3 ]
    [ "$(value master.port origin)" = --set ]
    [ "$(value master.threads value)" = 2 ]
    [ "$(value master.threads origin)" = c.yaml:3 ]
    [ "$(value master.batch_ops origin)" = default ]
    [ "$(value master.lease_ms value)" = 3000 ]
    [ "$(value cluster.masters value)" = '["a:1","b:2"]' ]
    mkdir here && printf 'fuse:\n  requests_max: 9\n' > here/curvine.yaml
    cv --dir here config show fuse.requests_max -o json | jq -e '.[0].value == 9'
    CURVINE_CONFIG=c.yaml cv config show master.port -o json | jq -e '.[0].value == 1'
    run -2 cv --set master.prot=3 config show
    has "--set: master.prot: unknown key, did you mean 'port'?"
}

@test "explain covers every option and knows near misses" {
    run -0 cv config explain master.ack_mode
    has "allowed     one of quorum, local, applied"
    has "to change   restart"
    run -0 cv config explain log.level
    has "to change   reload (SIGHUP)"
    run -0 cv config explain
    has "worker"
    for section in cluster master journal worker fuse client log; do
        run -0 cv config explain $section
        [ "$(grep -c "^  $section\\." <<<"$output")" = "$(cv config show $section -o json | jq length)" ]
    done
    run -2 cv config explain master.prot
    has "did you mean 'port'?"
    run -2 cv config show mster
    has "did you mean 'master'?"
}

@test "the reference has every option, as markdown and for manual pages" {
    n=$(cv config show -o json | jq length)
    [ "$(cv config sample --markdown | grep -c '^| `')" = "$n" ]
    [ "$(cv config sample --man | grep -c '^\.B ')" = "$n" ]
}

@test "every option is read by the program it is for" {
    unread=
    for option in $(cd "$CV_ROOT" && sed -n 's/^OPT[A-Z_]*(\([a-z_]*\),.*/\1/p' src/*/*_options.def raft/*_options.def meta/*_options.def \
        worker/*_options.def fuse/*_options.def | sort -u); do
        grep -rqE "(->|\.)$option\b" "$CV_ROOT"/{src,raft,meta,worker,fuse,cli,bin} --include='*.c' --include='*.h' || unread+=" $option"
    done
    echo "nobody reads:$unread"
    [ -z "$unread" ]
}
