#!/usr/bin/env bash
# Install the Debian packages that the suites and tests need, when they are missing and may be installed.
#   gcc  TVM links its compiled models with it
#   git  records name the commit that was measured
# With the argument `test`, also
#   gcc-arm-none-eabi, qemu-system-arm  the firmware is rebuilt, and run on emulated boards
#   iproute2    as root, also at an address of its own: a network namespace whose cable is pulled
#   openssh-*   boards over ssh are tested against a real sshd, which the tests start themselves on loopback
#   git-lfs     the remedy for a pointer in place of a model is tried
#   postgresql  the history is tested against a real server, which the tests start themselves
set -euo pipefail

missing=()
command -v cc >/dev/null || command -v gcc >/dev/null || command -v clang >/dev/null || missing+=(gcc libc6-dev)
command -v git >/dev/null || missing+=(git)
if [ "${1:-}" = test ]; then
  command -v arm-none-eabi-gcc >/dev/null || missing+=(gcc-arm-none-eabi)
  command -v qemu-system-arm >/dev/null || missing+=(qemu-system-arm)
  command -v ip >/dev/null || missing+=(iproute2)
  [ -x /usr/sbin/sshd ] && command -v ssh >/dev/null || missing+=(openssh-client openssh-server)
  command -v git-lfs >/dev/null || missing+=(git-lfs)
  command -v initdb >/dev/null || compgen -G "/usr/lib/postgresql/*/bin/initdb" >/dev/null || missing+=(postgresql)
fi
[ ${#missing[@]} -eq 0 ] && exit 0

if [ "$(id -u)" -ne 0 ] || ! command -v apt-get >/dev/null; then
  echo "missing: ${missing[*]}; install with: sudo apt-get install ${missing[*]} (going on without)" >&2
  exit 0
fi
apt-get update -qq
DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends "${missing[@]}"
