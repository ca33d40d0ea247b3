# Shared by the scripts: says what is done, installs packages, stops with a clear error.
# shellcheck shell=bash

root=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)
me=$(basename "$0")

say() {
    printf '\n== %s: %s\n' "$me" "$*"
}

fail() {
    printf '\n%s: %s\n' "$me" "$*" >&2
    exit 1
}

is_root() {
    ((EUID == 0))
}

# Installs Debian packages that are not there yet. Without root it says what is missing.
install_packages() {
    local missing=()
    for package in "$@"; do
        dpkg-query --show --showformat='${Status}' "$package" 2>/dev/null | grep -q '^install ok installed$' \
            || missing+=("$package")
    done
    ((${#missing[@]} == 0)) && return
    command -v apt-get >/dev/null || fail "this is no Debian; install what these packages hold: ${missing[*]}"
    is_root || fail "not root, so packages cannot be installed; as root: apt-get install ${missing[*]}"
    say "installing ${missing[*]}"
    apt-get update -q >/dev/null || fail 'apt-get update failed; is the package source reachable?'
    DEBIAN_FRONTEND=noninteractive apt-get install -qy --no-install-recommends "${missing[@]}" >/dev/null \
        || fail "apt could not install ${missing[*]}"
}

need_rust() {
    command -v cargo >/dev/null || fail 'there is no Rust toolchain; install one from https://rustup.rs (1.95 or newer)'
}

# What building needs: DPDK and its headers, a C compiler, libclang for the bindings, OpenSSL for Kafka.
build_packages=(build-essential pkg-config clang libclang-dev dpdk dpdk-dev libdpdk-dev libssl-dev)
