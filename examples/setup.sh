#!/usr/bin/env bash
# Installs Debian packages that the demo (`demo`) or the tests (`test`) need and the machine lacks.
set -euo pipefail

packages=(busybox-static)
if [ "${1:-}" = test ]; then
  packages+=(debootstrap docker.io docker-registry skopeo python3-venv python3-grpcio iproute2 tar util-linux)
fi

missing=()
for package in "${packages[@]}"; do
  dpkg-query -W -f='${Status}' "$package" 2>/dev/null | grep -q 'install ok installed' || missing+=("$package")
done
[ ${#missing[@]} -eq 0 ] && exit 0

sudo=""
[ "$(id -u)" -eq 0 ] || sudo=sudo
# Packages must not start daemons of their own on the machine: the tests start what they need.
policy=/usr/sbin/policy-rc.d
if [ ! -e "$policy" ]; then
  printf '#!/bin/sh\nexit 101\n' | $sudo tee "$policy" >/dev/null
  $sudo chmod +x "$policy"
  trap '$sudo rm -f "$policy"' EXIT
fi
echo "installing: ${missing[*]}"
$sudo apt-get update -qq
DEBIAN_FRONTEND=noninteractive $sudo apt-get install -y -qq --no-install-recommends "${missing[@]}" >/dev/null
