#!/usr/bin/env bash
# Curvine on one machine, from a fresh clone to a mounted, cached directory: installs what building and running need,
# builds, starts a cluster in a directory of its own, attaches a sample directory, mounts it and reads it cold and warm.
# May be run again at any time: what is there is used. Usage: quickstart.sh [DIR]   (default: ~/curvine-quickstart)
set -euo pipefail
root=$(cd "$(dirname "$0")/.." && pwd)
dir=${1:-${QUICKSTART_DIR:-${HOME:?}/curvine-quickstart}}
cv=$root/build/bin/cv
large_files=24 large_mib=12 small_files=200 small_kib=16

say() { printf '\n== %s\n' "$*"; }
die() {
    printf '\nquickstart: %s\n' "$1" >&2
    shift
    [ $# = 0 ] || printf '  %s\n' "$@" >&2
    exit 1
}

case $dir in /*) ;; *) dir=$PWD/$dir ;; esac
[ ${#dir} -le 70 ] || die "the directory's name is too long for unix sockets: $dir" "try: $0 /tmp/curvine"
[ -e /dev/fuse ] || die "this machine has no /dev/fuse, so nothing can be mounted." \
    "On a machine: modprobe fuse. In a container: start it with --device /dev/fuse --cap-add SYS_ADMIN." \
    "Everything but mounting works without: make deps && make && build/bin/cv local up"
[ -r /dev/fuse ] && [ -w /dev/fuse ] || die "/dev/fuse is there, but not for $(id -un)." \
    "Its usual mode is 666: sudo chmod 666 /dev/fuse, or run this as root."

say "1/6  packages"
"$root/packaging/deps.sh" build
say "2/6  build (a few minutes the first time)"
make -C "$root" -s -j"$(nproc)" all

# Text that is the same everywhere: numbers from a start of its own in each file.
make_file() {
    local path=$1 start=$2 bytes=$3
    [ "$(stat -c %s "$path" 2>/dev/null)" != "$bytes" ] || return 0
    { seq "$start" $((start + bytes / 8)) || true; } 2>/dev/null | head -c "$bytes" > "$path"
}

say "3/6  a sample of $large_files files of $large_mib MiB and $small_files of $small_kib KiB in $dir/sample"
mkdir -p "$dir/sample/small" "$dir/mnt"
for i in $(seq $large_files); do
    make_file "$dir/sample/part-$(printf %02d "$i").txt" $((10000000 + i * 2000000)) $((large_mib << 20))
done
for i in $(seq $small_files); do
    make_file "$dir/sample/small/$i.txt" $((1000000 + i * 10000)) $((small_kib << 10))
done
total_kib=$((large_files * large_mib * 1024 + small_files * small_kib))

say "4/6  a cluster of one machine in $dir/cluster"
if [ -e "$dir/cluster/cluster-id" ]; then
    "$cv" local up --dir "$dir/cluster" 2>&1 | sed '/^$/,$d'
else
    "$cv" local up --dir "$dir/cluster" --capacity 1GiB 2>&1 | sed '/^$/,$d'
fi
c() { "$cv" --dir "$dir/cluster" "$@"; }
mounted() { mountpoint -q "$dir/mnt"; }
c cluster status -o json > /dev/null || c cluster status

say "5/6  attach the sample, mount it at $dir/mnt"
if mounted; then c umount "$dir/mnt"; fi
c mount "file://$dir/sample" "$dir/mnt"

# Mounted anew, so that the kernel of this machine has nothing of it in memory.
remount() { c umount "$dir/mnt" > /dev/null && c mount :/sample "$dir/mnt" > /dev/null; }
# Reads every file to its end; prints ms.
read_all() {
    local from
    from=$(date +%s%N)
    find "$1" -type f -print0 | xargs -0 cat > /dev/null
    echo $((($(date +%s%N) - from) / 1000000 + 1))
}
# Bytes the worker has fetched from the sample so far, as its HTTP port tells.
port=$(c config show worker.http_port -o json | sed -n 's/.*"value": *"\{0,1\}\([0-9]*\).*/\1/p')
fetched() {
    exec 3<> "/dev/tcp/127.0.0.1/$port" || { echo 0; return; }
    printf 'GET /metrics HTTP/1.0\r\n\r\n' >&3
    awk '$1 == "curvine_worker_fill_bytes_total" { n = $2 } END { printf "%d\n", n }' <&3
    exec 3>&-
}
# WHAT DIR: read it all and tell how long that took and what had to be fetched.
measure() {
    local before ms
    before=$(fetched)
    ms=$(read_all "$2")
    printf '  %-46s %6s ms %6s MiB/s   fetched %4s MiB\n' "$1" "$ms" $((total_kib * 1000 / 1024 / ms)) \
        $((($(fetched) - before) >> 20))
}

say "6/6  read all of it: $((total_kib / 1024)) MiB"
c free -r :/sample > /dev/null
remount
measure "cold: the worker fetches it from the sample" "$dir/mnt"
remount
measure "warm: from the worker's cache" "$dir/mnt"
measure "again: the kernel of this machine kept it" "$dir/mnt"
measure "beside it: the sample itself, in memory" "$dir/sample"
diff -r "$dir/sample" "$dir/mnt" || die "the mount does not show what the sample holds: please report this"
echo "  every file compared: equal"
c load -r --check :/sample
cat <<END

  The sample lies on this machine and was just written, so it comes from memory: cold is what fetching, checking and keeping
  costs here. With a bucket behind a network the first row takes as long as the network does, the others stay: the last
  column says that each byte was fetched once.

Go on with your own bucket (credentials come from AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY, or --param-file FILE):
  alias cv="$cv --dir $dir/cluster"
  mkdir -p ~/bucket && cv mount s3://BUCKET ~/bucket --param region=REGION      # or --param endpoint=http://HOST:PORT
  cv load -r :/BUCKET          # bring it all into the cache, with progress
  cv mount; cv cluster status; cv fs df; cv help

Stop (everything stays):  $cv local down --dir $dir/cluster
Remove:                   rm -rf $dir          # after stopping
END
