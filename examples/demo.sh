#!/usr/bin/env bash
# The whole story with the time of each step, in an instance of its own that leaves nothing behind:
# make a base image, build, build again (all cached), run with a published port, push to our own
# registry, remove, pull back, run again.
set -euo pipefail
cd "$(dirname "$0")/.."

[ "$(id -u)" -eq 0 ] || { echo "containers need root: run this with sudo" >&2; exit 1; }
orlop=$PWD/target/release/orlop
work=$(mktemp -d /var/tmp/orlop-demo.XXXXXX)
export ORLOP_ROOT=$work/root HOME=$work/home
mkdir -p "$HOME" "$work/rootfs/bin"
registry=127.0.0.1:$((20000 + RANDOM % 20000))

finish() {
  status=$?
  "$orlop" rm -f -v web again >/dev/null 2>&1 || true
  "$orlop" down >/dev/null 2>&1 || true
  if [ $status -ne 0 ]; then tail -n 20 "$ORLOP_ROOT"/logs/*.log >&2 || true; fi
  rm -rf "$work"
  exit $status
}
trap finish EXIT

step() {
  local title=$1 start end; shift
  printf '\n\033[1m== %s\033[0m\n   $ %s\n' "$title" "$(echo "$*" | sed "s#$orlop#orlop#g; s#$work/##g")"
  start=$(date +%s%N)
  "$@"
  end=$(date +%s%N)
  printf '   \033[2m%d ms\033[0m\n' $(((end - start) / 1000000))
}

fetch() {
  for _ in $(seq 100); do
    exec 3<>"/dev/tcp/127.0.0.1/$1" && printf 'GET / HTTP/1.0\r\n\r\n' >&3 && grep -a '^hello' <&3 && return
    sleep 0.05
  done 2>/dev/null
  echo "nobody answers on port $1" >&2
  return 1
}

cp /bin/busybox "$work/rootfs/bin/busybox"
for applet in sh cat cp echo grep httpd ls mkdir seq sleep wc; do ln -s busybox "$work/rootfs/bin/$applet"; done
tar -C "$work/rootfs" -cf "$work/rootfs.tar" .

step "start the four services" "$orlop" up --registry-http "$registry"
step "a base image from Debian's busybox" "$orlop" import "$work/rootfs.tar" busybox
step "build an image" "$orlop" build --progress=plain -t "$registry/hello" examples/hello
step "build it again: every step is cached" "$orlop" build --progress=plain -t "$registry/hello" examples/hello
step "run it, isolated, with a published port" "$orlop" run -d --name web -p 127.0.0.1:0:8080 "$registry/hello"
port=$("$orlop" port web 8080 | sed 's/.*://')
step "ask it over the port" fetch "$port"
step "look inside: its own processes only" "$orlop" exec web sh -c 'echo "my pid is $$, $(ls -d /proc/[0-9]* | wc -l) processes here"'
step "its log" "$orlop" logs web
step "push it to our registry" "$orlop" push "$registry/hello"
step "remove container and image" sh -c "'$orlop' rm -f web && '$orlop' rmi $registry/hello"
step "pull it back" "$orlop" pull "$registry/hello"
step "run it again" "$orlop" run --rm "$registry/hello" cat /srv/www/index.html
