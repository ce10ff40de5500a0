#!/usr/bin/env bash
# Installs what the demo (`demo`) or the tests (`test`) need and the machine lacks: Debian packages,
# and for the tests a Python environment with the public gRPC client.
set -euo pipefail

sudo=""
[ "$(id -u)" -eq 0 ] || sudo=sudo

# Packages must not start daemons of their own: the tests start what they need.
install_packages() {
  local policy=/usr/sbin/policy-rc.d missing=("$@")
  echo "installing: ${missing[*]}"
  if [ ! -e "$policy" ]; then
    printf '#!/bin/sh\nexit 101\n' | $sudo tee "$policy" >/dev/null
    $sudo chmod +x "$policy"
    trap '$sudo rm -f /usr/sbin/policy-rc.d' EXIT
  fi
  $sudo apt-get update -qq
  $sudo env DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends "${missing[@]}" >/dev/null
}

packages=(busybox-static)
[ "${1:-}" = test ] && packages+=(buildah dbus debootstrap docker.io docker-registry erofs-utils nftables podman runc skopeo strace systemd
  python3 python3-venv umoci xfsprogs)

missing=()
for package in "${packages[@]}"; do
  dpkg-query -W -f='${Status}' "$package" 2>/dev/null | grep -q 'install ok installed' || missing+=("$package")
done
[ ${#missing[@]} -eq 0 ] || install_packages "${missing[@]}"

if [ "${1:-}" = test ]; then
  venv=/var/cache/orlop-tests/venv
  if ! "$venv/bin/python" -c 'import grpc_reflection' 2>/dev/null; then
    $sudo mkdir -p "${venv%/*}"
    $sudo /usr/bin/python3 -m venv "$venv"
    $sudo "$venv/bin/pip" install -q 'grpcio<2' 'grpcio-reflection<2'
  fi
fi
