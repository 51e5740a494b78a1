#!/bin/sh
# Installs rootless from this checkout; `./install.sh --help` describes the options.
set -eu

usage() {
    cat <<'END'
Usage: ./install.sh [--try | --uninstall | --help]

An ordinary user gets rootless for themselves: an environment of its own in ~/.local/share/rootless
(XDG_DATA_HOME is honoured) and the command in ~/.local/bin. Then it lists what is missing on this host, with
the command for an administrator.

Root installs it for everybody: the distribution's packages that it uses (Debian, Ubuntu, Fedora and
relatives), an environment in /usr/local/lib/rootless and the command in /usr/local/bin.

Running it again upgrades; what runs meanwhile goes on.

  --try        then make a bundle out of this host's own programs and run it
  --uninstall  remove what it made (not the distribution's packages)

PYTHON=/path/to/python3 chooses the interpreter, which must be 3.11 or newer.
END
}

say() { printf '%s\n' "$*"; }
fail() {
    printf 'install.sh: %s\n' "$*" >&2
    exit 1
}

# --- Where things are ------------------------------------------------------------------------------------------------

here=$(CDPATH='' cd -- "$(dirname -- "$0")" && pwd)
# Independently of the caller's umask, no other user may write to the installed files.
umask go-w
if [ "$(id -u)" = 0 ]; then
    umask 022
    # sudo may keep the HOME of another user, whose pip.conf and caches are not root's business.
    if [ "$(stat -L -c %u -- "${HOME:-}" 2>/dev/null)" != 0 ]; then
        HOME=$(getent passwd 0 | cut -d : -f 6)
        export HOME
    fi
    # Where sudo sets HOME, other variables of that user's may be kept.
    for variable in XDG_CONFIG_HOME XDG_CONFIG_DIRS XDG_CACHE_HOME XDG_DATA_HOME PIP_CONFIG_FILE PIP_CACHE_DIR PIP_PYTHON \
        PIP_LOG PIP_TARGET PIP_PREFIX PIP_ROOT UV_CACHE_DIR UV_CONFIG_FILE; do
        eval "value=\${$variable-}"
        [ -z "$value" ] || [ "$(stat -L -c %u -- "$value" 2>/dev/null)" = 0 ] || unset "$variable"
    done
    base=/usr/local/lib/rootless
    bin=/usr/local/bin
else
    [ -n "${HOME:-}" ] || fail "HOME is not set; fix: export HOME=/your/home/directory"
    base=${XDG_DATA_HOME:-$HOME/.local/share}/rootless
    bin=$HOME/.local/bin
fi
link=$bin/rootless
# In $base: the environments (env-*, of which the symlink names the one in use), a lock, and this list of the directories that
# were made on the way.
made=$base/made
lock=$base/install.lock
# The future symlink; only the process that holds the lock creates it.
new_link=$bin/.rootless.new

is_ours() { case $(readlink -- "$link") in "$base"/env-*) true ;; *) false ;; esac }

make_directory() {
    if [ ! -d "$1" ]; then
        make_directory "$(dirname -- "$1")"
        mkdir -- "$1"
        new_directories="${new_directories:-}$1
"
    fi
}

# --- What this host has ----------------------------------------------------------------------------------------------

# shellcheck source=/dev/null
family=$(
    [ -r /etc/os-release ] && . /etc/os-release
    case " ${ID:-} ${ID_LIKE:-} " in
        *" debian "* | *" ubuntu "*) echo debian ;;
        *" fedora "* | *" rhel "*) echo fedora ;;
        *) echo other ;;
    esac
)

is_installed() {
    case $family in
        debian) dpkg-query --show --showformat='${db:Status-Abbrev}' "$1" 2>/dev/null | grep -q '^ii' ;;
        fedora) rpm --query --quiet --whatprovides "$1" ;;
    esac
}

is_available() {
    case $family in
        debian) [ -n "$(apt-cache madison "$1")" ] ;;
        fedora) dnf --quiet list "$1" >/dev/null 2>&1 ;;
    esac
}

install_packages() {
    case $family in
        debian) set -- python3 python3-venv uidmap libseccomp2 slirp4netns passt ;;
        fedora) set -- python3 shadow-utils libseccomp slirp4netns passt ;;
        *) set -- ;;
    esac
    missing=
    for package; do is_installed "$package" || missing="$missing $package"; done
    [ -n "$missing" ] || return 0
    say "Installing the distribution's packages:$missing"
    [ "$family" != debian ] || apt-get --quiet --quiet update ||
        say "(Some package lists could not be had; going on with those that could.)"
    # Older releases have slirp4netns or passt only, and one of the two is enough.
    wanted=
    for package in $missing; do ! is_available "$package" || wanted="$wanted $package"; done
    # shellcheck disable=SC2086 # a list of words
    case $family in
        debian)
            DEBIAN_FRONTEND=noninteractive apt-get --quiet --quiet --yes --no-install-recommends \
                -o Dpkg::Use-Pty=0 install $wanted >/dev/null
            ;;
        fedora) dnf --quiet --assumeyes install $wanted ;;
    esac
}

# An interpreter for everybody must not lie in a directory of root's own, as pyenv's does.
probe='
import os, sys
if sys.version_info < (3, 11):
    sys.exit(f"Python {sys.version.split()[0]} is too old")
executable = sys._base_executable
for path in (executable, os.__file__) if os.geteuid() == 0 else ():
    while (path := os.path.dirname(os.path.realpath(path))) != "/":
        if not os.stat(path).st_mode & 0o001:
            sys.exit(f"{path} is closed to other users")
print(executable)
'

find_python() {
    # The distribution's own first: it does not depend on the settings of a shell, and it stays.
    set -- /usr/bin/python3 python3 python3.14 python3.13 python3.12 python3.11
    [ -z "${PYTHON:-}" ] || set -- "$PYTHON"
    reasons=
    for candidate; do
        command -v "$candidate" >/dev/null || continue
        if answer=$("$candidate" -I -c "$probe" 2>&1); then
            python=$answer
            return
        fi
        reasons="$reasons $candidate: $answer;"
    done
    case $family in
        debian) fix="apt-get install python3 python3-venv" ;;
        fedora) fix="dnf install python3.12" ;;
        *) fix="install Python 3.11 or newer" ;;
    esac
    fail "no Python 3.11 or newer:${reasons:- none found;} fix: $fix, or name one: PYTHON=/path/to/python3 ./install.sh"
}

# --- Installing ------------------------------------------------------------------------------------------------------

# Installs what the checkout needs, then the checkout, into the environment $1; the words that follow are its pip. The
# requirements are pinned and hashed (helpers/requirements/lock.sh), so that neither an index nor a mirror nor a pip.conf
# that sudo kept can put other code there. On the two architectures with wheels of all of them nothing else is built.
install_into() {
    into=$1
    shift
    lists=$here/helpers/requirements
    only_wheels=
    case $(uname -m) in x86_64 | aarch64) only_wheels="--only-binary :all:" ;; esac
    set -- "$@" install --quiet
    # shellcheck disable=SC2086 # a list of words
    "$@" --require-hashes $only_wheels --requirement "$lists/run.txt" --requirement "$lists/build.txt"
    if ! "$into/bin/python3" -I "$here/helpers/init/build.py" --probe >/dev/null 2>&1; then
        say "(There is no C compiler that makes static programs: zig from PyPI does it, in a minute or two, and goes again.)"
        # shellcheck disable=SC2086 # a list of words
        "$@" --require-hashes $only_wheels --requirement "$lists/zig.txt"
    fi
    "$@" --no-deps --no-build-isolation "$here"
}

# Removes what only the build needed, with the words "$@".
remove_from() { "$@" --requirement "$here/helpers/requirements/build.txt" --requirement "$here/helpers/requirements/zig.txt"; }

# Makes the environment $1 and installs this checkout into it. The static programs are built on the way, by the system's C
# compiler or, where that one cannot, by zig from PyPI; helpers/init/hatch_build.py does it.
make_environment() {
    export ROOTLESS_BUILD_INIT=native PIP_DISABLE_PIP_VERSION_CHECK=1 PIP_ROOT_USER_ACTION=ignore
    # All of it is compiled below, once.
    export PIP_COMPILE=0
    # No cache that --uninstall would have to leave behind, unless there is one to use.
    [ -n "${PIP_CACHE_DIR:-}" ] || export PIP_NO_CACHE_DIR=1
    [ -n "${UV_CACHE_DIR:-}" ] || export UV_NO_CACHE=1
    # A pip that is there already saves making one for the environment, which takes longer than the rest.
    if "$python" -I -m venv --without-pip "$1" >/dev/null 2>&1 &&
        "$python" -I -m pip --python "$1/bin/python3" --version >/dev/null 2>&1; then
        pip=outside
    elif "$python" -I -m venv --clear "$1" >/dev/null 2>&1; then
        pip=inside
    elif command -v uv >/dev/null; then
        pip=uv
        rm -rf -- "$1"
        uv --quiet venv --python "$python" "$1"
    else
        case $family in
            debian) fix="sudo apt-get install python3-venv" ;;
            fedora) fix="sudo dnf install python3-pip" ;;
            *) fix="install Python's venv module or uv" ;;
        esac
        fail "$python makes no environment: it has no venv module and there is no uv; fix: $fix"
    fi
    # Here, so that one who is killed leaves nothing elsewhere.
    export TMPDIR="$1/tmp" ZIG_GLOBAL_CACHE_DIR="$1/tmp/zig-cache"
    mkdir -- "$TMPDIR"
    in_it=$1/bin/python3
    case $pip in
        outside)
            install_into "$1" "$python" -I -m pip --python "$in_it"
            remove_from "$python" -I -m pip --quiet --python "$in_it" uninstall --yes
            ;;
        inside)
            install_into "$1" "$in_it" -I -m pip
            remove_from "$in_it" -I -m pip --quiet uninstall --yes
            "$in_it" -I -m pip --quiet uninstall --yes pip
            ;;
        uv)
            export VIRTUAL_ENV="$1"
            install_into "$1" uv pip
            remove_from uv --quiet pip uninstall
            ;;
    esac
    site=$("$in_it" -I -c 'import sysconfig; print(sysconfig.get_path("purelib"))')
    # Now, because those who use it may not be able to write there.
    "$in_it" -I -m compileall -q "$site"
    "$in_it" -I "$here/helpers/launcher.py" "$in_it" "$1/bin/rootless" "$site"
    rm -rf -- "$TMPDIR"
    "$1/bin/rootless" --version >/dev/null
}

# Whether a process was started from $1. The path comes by standard input, so that grep does not find itself.
# shellcheck disable=SC2062 # the last words are files
is_in_use() { printf '%s/' "$1" | grep -q -s -a -F -f - /proc/[0-9]*/cmdline; }

# Whether other machines, whose processes are invisible here, may use $base too.
is_shared() {
    case $(stat -f -c %T -- "$base") in
        ext* | xfs | btrfs | zfs | tmpfs | overlayfs | f2fs | bcachefs | reiserfs | jfs | ramfs) false ;;
        *) true ;;
    esac
}

# Removes the environments that are neither $1, which was just made, nor in use. Where other machines may use them, $2,
# which the link named until now, stays as well, and older ones for a month after they were replaced.
remove_unused_environments() {
    for old in "$base"/env-*; do
        if [ "$old" = "$1" ] || is_in_use "$old"; then continue; fi
        if [ -x "$old/bin/rootless" ] && is_shared; then
            [ -e "$old/replaced" ] || : >"$old/replaced"
            if [ "$old" = "$2" ] || [ -z "$(find "$old/replaced" -mtime +30)" ]; then continue; fi
        fi
        rm -rf -- "$old"
    done
}

install() {
    [ -f "$here/pyproject.toml" ] || fail "$here is not a checkout of rootless; fix: run install.sh where it was unpacked"
    before=
    if [ -e "$link" ] || [ -L "$link" ]; then
        is_ours || fail "$link is there and not from this script; fix: move it away"
        before=$(dirname -- "$(dirname -- "$(readlink -- "$link")")")
    fi
    [ "$(id -u)" != 0 ] || install_packages
    find_python
    make_directory "$base"
    make_directory "$bin"
    printf %s "${new_directories:-}" >>"$made"
    # No other user may open it: a process that can open a file can lock it.
    (umask 077 && : >>"$lock")
    exec 9>>"$lock"
    flock --nonblock 9 || {
        say "Waiting for another install.sh to end"
        flock 9
    }
    environment=$(mktemp -d "$base/env-XXXXXX")
    trap 'rm -rf -- "$environment"' EXIT
    trap 'exit 129' HUP
    trap 'exit 130' INT
    trap 'exit 143' TERM
    chmod 755 "$environment"
    say "Installing into $environment"
    (make_environment "$environment")
    ln -sfn -- "$environment/bin/rootless" "$new_link"
    mv -fT -- "$new_link" "$link"
    trap - EXIT HUP INT TERM
    remove_unused_environments "$environment" "$before"
    # Of an earlier version, which let anybody lock it and left this when it was killed.
    rm -f -- "$base/lock" "$link".[0-9]*
    exec 9>&-
    say "Installed $("$link" --version | head -n 1) as $link"
    case :$PATH: in
        *:"$bin":*) ;;
        *)
            say "It is not on your PATH. Add this line to ~/.profile and run it now:"
            # shellcheck disable=SC2016 # for the reader's shell
            say "    export PATH=\"$bin:\$PATH\""
            ;;
    esac
}

uninstall() {
    if [ -L "$link" ] && is_ours; then rm -- "$link"; fi
    rm -f -- "$new_link"
    rm -rf -- "$base"/env-*
    if [ -f "$made" ]; then
        directories=$(sort -r "$made")
        rm -f -- "$made" "$lock" "$base/lock"
        printf '%s\n' "$directories" | while IFS= read -r directory; do
            rmdir -- "$directory" 2>/dev/null || true
        done
    fi
    say "Removed rootless from $bin and $base"
}

# --- After installing ------------------------------------------------------------------------------------------------

# The words "$@" as the person who asks: under sudo that is not root.
as_caller() {
    if [ "$(id -u)" = 0 ] && [ "${SUDO_UID:-0}" != 0 ]; then
        runuser -u "$SUDO_USER" -- env HOME="$(getent passwd "$SUDO_UID" | cut -d: -f6)" USER="$SUDO_USER" \
            LOGNAME="$SUDO_USER" XDG_RUNTIME_DIR="/run/user/$SUDO_UID" "$@"
    else
        "$@"
    fi
}

try_it() {
    scratch=$(as_caller mktemp -d)
    trap 'rm -rf -- "$scratch"' EXIT
    trap 'exit 130' INT
    cd -- "$scratch"
    script='echo "Hello from a container. In here I am:"; id; cat /proc/self/uid_map'
    say
    say "\$ rootless new hello -- sh -c '$script'"
    as_caller "$link" new hello -- sh -c "$script"
    say "\$ rootless run hello"
    as_caller "$link" run hello
}

case $#:${1:-} in
    0: | 1:--try)
        install
        as_caller "$environment/bin/rootless" doctor || true
        [ $# = 0 ] || try_it
        ;;
    1:--uninstall) uninstall ;;
    1:--help | 1:-h) usage ;;
    *)
        usage >&2
        exit 2
        ;;
esac
