# Sourced by ./run and ./check: Debian packages, said in words, quick when nothing is missing.
# Usage: install_packages "why" package...

RUN_PACKAGES="gcc cmake ninja-build pkg-config git ca-certificates python3 python3-pip esbuild
 libmicrohttpd-dev libcurl4-openssl-dev libjansson-dev libsqlite3-dev libpcre2-dev libfriso-dev friso
 libicu-dev libstemmer-dev libxml2-dev libzip-dev libgumbo-dev libmd4c-dev libseccomp-dev libssl-dev
 poppler-utils"
CHECK_PACKAGES="$RUN_PACKAGES libcmocka-dev clang-14 clang-format-14 libclang-rt-14-dev
 python3-venv node-typescript zip unzip"

say() { printf '\033[1m== %s\033[0m\n' "$*" >&2; }
die() { printf 'holdfast: %s\n' "$*" >&2; exit 1; }

missing_packages() {
    local package
    for package in "$@"; do
        dpkg-query -W -f='${db:Status-Abbrev}' "$package" 2>/dev/null | grep -q '^ii' || echo "$package"
    done
}

install_packages() {
    local why=$1; shift
    command -v dpkg-query >/dev/null || die "this script installs Debian packages, and dpkg is not here (build with CMake by hand: README, \"Other systems\")"
    local missing; missing=$(missing_packages "$@" | tr '\n' ' ')
    [ -n "${missing// /}" ] || return 0
    local root=""
    if [ "$(id -u)" != 0 ]; then
        command -v sudo >/dev/null || die "missing packages: $missing(run as root, or ask an administrator: apt-get install $missing)"
        root="sudo"
    fi
    say "installing for $why: $missing"
    $root env DEBIAN_FRONTEND=noninteractive apt-get update -q >&2 || die "apt-get update failed (see above)"
    # shellcheck disable=SC2086
    $root env DEBIAN_FRONTEND=noninteractive apt-get install -y -q --no-install-recommends $missing >&2 ||
        die "apt-get could not install: $missing(see above)"
}

# build PRESET [TARGET...]: configures once, builds what changed.
build() {
    local preset=$1; shift
    say "building ($preset)"
    [ -f "build/$preset/build.ninja" ] || cmake --preset "$preset" >&2 || die "cmake failed (see above)"
    cmake --build --preset "$preset" ${1:+--target "$@"} >&2 || die "the build failed (see above)"
}
