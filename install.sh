#!/bin/sh
# Installs rootless from this checkout; `./install.sh --help` describes the options.
set -eu

usage() {
    cat <<'END'
Usage: ./install.sh [--try | --uninstall | --help]

As an ordinary user, install rootless for yourself: a Python environment in ~/.local/share/rootless (or below
XDG_DATA_HOME) and the command in ~/.local/bin, with its manual pages and the completion for bash, zsh and fish.
Then list what is missing on this host, each with the command for the administrator.

As root, install rootless for all users: the distribution's packages that it needs (on Debian, Ubuntu, Fedora
and their relatives), a Python environment in /usr/local/lib/rootless and the command in /usr/local/bin.

Run it again to upgrade. Running containers are not affected.

  --try        also make a bundle from programs of this host and run it
  --uninstall  remove everything that this script has installed, except the distribution's packages

Set PYTHON=/path/to/python3 to choose the interpreter, Python 3.11 or newer.
END
}

say() { printf '%s\n' "$*"; }
fail() {
    printf 'install.sh: %s\n' "$*" >&2
    exit 1
}

# --- Locations -------------------------------------------------------------------------------------------------------

here=$(CDPATH='' cd -- "$(dirname -- "$0")" && pwd)
# No other user may write to the installed files, whatever the caller's umask.
umask go-w
if [ "$(id -u)" = 0 ]; then
    umask 022
    # sudo may keep the HOME of another user, whose pip.conf and caches root must not use.
    if [ "$(stat -L -c %u -- "${HOME:-}" 2>/dev/null)" != 0 ]; then
        HOME=$(getent passwd 0 | cut -d : -f 6)
        export HOME
    fi
    # sudo may set HOME and still keep other variables of that user.
    for variable in XDG_CONFIG_HOME XDG_CONFIG_DIRS XDG_CACHE_HOME XDG_DATA_HOME PIP_CONFIG_FILE PIP_CACHE_DIR \
        UV_CACHE_DIR UV_CONFIG_FILE; do
        eval "value=\${$variable-}"
        [ -z "$value" ] || [ "$(stat -L -c %u -- "$value" 2>/dev/null)" = 0 ] || unset "$variable"
    done
    base=/usr/local/lib/rootless
    bin=/usr/local/bin
    data=/usr/local/share
else
    case ${HOME:-} in
        /*) ;;
        *) fail "HOME is not the path of a directory: '${HOME:-}'; fix: export HOME=/your/home/directory" ;;
    esac
    # A relative path is to be ignored (XDG Base Directory Specification).
    case ${XDG_DATA_HOME:-} in
        /*) data=$XDG_DATA_HOME ;;
        *) data=$HOME/.local/share ;;
    esac
    base=$data/rootless
    bin=$HOME/.local/bin
fi
link=$bin/rootless
# Of the variables for Python and pip, only those count that say where to download from. pip and build backends do not
# run isolated, and others would make pip install elsewhere, or something else.
for variable in $(env | sed -nE 's/^(PYTHON[A-Z_]+|PIP_[A-Za-z0-9_]+)=.*/\1/p'); do
    case $variable in
        PIP_*INDEX_URL | PIP_NO_INDEX | PIP_FIND_LINKS | PIP_*CERT | PIP_*HOST | PIP_PROXY | PIP_*TIMEOUT) ;;
        PIP_RETRIES | PIP_*CACHE_DIR | PIP_CONFIG_FILE | PIP_KEYRING_PROVIDER) ;;
        *) unset "$variable" ;;
    esac
done
# $base contains the environments (env-*; the symlink $link leads to the current one), a lock, and this list of the
# directories that the installation has created.
made=$base/made
lock=$base/install.lock
# The list of the shared files to which symlinks lead; .new is the list of an installation that has not finished.
shared=$base/shared
# The new symlink before its renaming; only the process that holds the lock creates it.
new_link=$bin/.rootless.new

is_ours() { case $(readlink -- "${1:-$link}") in "$base"/env-*) true ;; *) false ;; esac }

# Whether the command is that of the environment $1.
is_current() { [ "$(readlink -- "$link")" = "$1/bin/rootless" ]; }

make_directory() {
    if [ ! -d "$1" ]; then
        make_directory "$(dirname -- "$1")" || return
        mkdir -- "$1" || return
        new_directories="${new_directories:-}$1
"
    fi
}

# Refuses a directory that another user has put there, or that others can write to: they could exchange its content.
check_owner() {
    for found in "$(stat -c %u -- "$1")" "$(stat -L -c %u -- "$1")"; do
        [ "$found" = "$(id -u)" ] || fail "$1 belongs to another user; fix: move it away"
    done
}
check_private() {
    check_owner "$1"
    [ -z "$(find -L "$1" -prune -perm /022)" ] || fail "other users can write to $1; fix: chmod go-w '$1'"
}

# Notes the directories that make_directory has created since the last call.
note_directories() {
    printf %s "${new_directories:-}" >>"$made"
    new_directories=
}

# --- Packages and Python --------------------------------------------------------------------------------------------

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
        debian) set -- python3 python3-venv uidmap libseccomp2 slirp4netns passt squashfs-tools squashfuse ;;
        fedora) set -- python3 shadow-utils libseccomp slirp4netns passt squashfs-tools squashfuse ;;
        *) set -- ;;
    esac
    missing=
    for package; do is_installed "$package" || missing="$missing $package"; done
    [ -n "$missing" ] || return 0
    say "Installing the distribution's packages:$missing"
    [ "$family" != debian ] || apt-get --quiet --quiet update ||
        say "(Some package lists cannot be downloaded; continuing with the others.)"
    # Older releases have only one of slirp4netns and passt, which is enough.
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

# An interpreter for all users must not be in a directory that only root can enter, such as pyenv's.
probe='
import os, sys
if sys.version_info < (3, 11):
    sys.exit(f"Python {sys.version.split()[0]} is too old")
executable = sys._base_executable
for path in (executable, os.__file__) if os.geteuid() == 0 else ():
    while (path := os.path.dirname(os.path.realpath(path))) != "/":
        if not os.stat(path).st_mode & 0o001:
            sys.exit(f"other users cannot enter {path}")
print(executable)
'

find_python() {
    # The distribution's interpreter first: it does not depend on a shell's settings and does not disappear.
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
    fail "no Python 3.11 or newer:${reasons:- none found;} fix: $fix, or choose one: PYTHON=/path/to/python3 ./install.sh"
}

# --- Installing ------------------------------------------------------------------------------------------------------

# Installs the requirements and then this checkout into the environment $1; the other arguments are the command of its
# pip. The requirements are pinned and hashed (helpers/requirements/lock.sh), so that no index, mirror or pip.conf can
# substitute other code. On the two architectures for which all of them have wheels, none is built from source.
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
        say "(No C compiler here links static programs. Building with zig from PyPI, which takes a minute or two.)"
        # shellcheck disable=SC2086 # a list of words
        "$@" --require-hashes $only_wheels --requirement "$lists/zig.txt"
    fi
    "$@" --no-deps --no-build-isolation "$here"
}

# Uninstalls the packages that only the build needs; "$@" is the uninstall command.
remove_from() { "$@" --requirement "$here/helpers/requirements/build.txt" --requirement "$here/helpers/requirements/zig.txt"; }

# Creates the environment $1 and installs this checkout into it. helpers/init/hatch_build.py builds the static programs
# with the system's C compiler, or with zig if that cannot link them.
make_environment() {
    # A pip.conf may say `user = true`.
    export ROOTLESS_BUILD_INIT=native PIP_DISABLE_PIP_VERSION_CHECK=1 PIP_ROOT_USER_ACTION=ignore PIP_USER=0
    # Everything is compiled once, below.
    export PIP_COMPILE=0
    # Without a configured cache, create none: --uninstall would leave it behind.
    [ -n "${PIP_CACHE_DIR:-}" ] || export PIP_NO_CACHE_DIR=1
    [ -n "${UV_CACHE_DIR:-}" ] || export UV_NO_CACHE=1
    # An existing pip saves installing one into the environment, which takes longer than everything else.
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
        fail "$python cannot create an environment: the venv module and uv are missing; fix: $fix"
    fi
    # In the environment, so that a killed installation leaves nothing elsewhere.
    export TMPDIR="$1/tmp" ZIG_GLOBAL_CACHE_DIR="$1/tmp/zig-cache"
    mkdir -- "$TMPDIR"
    in_it=$1/bin/python3
    case $pip in
        outside)
            install_into "$1" "$python" -I -m pip --python "$in_it"
            remove_from "$python" -I -m pip --quiet --quiet --python "$in_it" uninstall --yes
            ;;
        inside)
            install_into "$1" "$in_it" -I -m pip
            remove_from "$in_it" -I -m pip --quiet --quiet uninstall --yes
            "$in_it" -I -m pip --quiet uninstall --yes pip
            ;;
        uv)
            export VIRTUAL_ENV="$1"
            install_into "$1" uv pip
            remove_from uv --quiet pip uninstall
            ;;
    esac
    site=$("$in_it" -I -c 'import sysconfig; print(sysconfig.get_path("purelib"))')
    # The users of the command may not be able to write there.
    "$in_it" -I -m compileall -q "$site"
    "$in_it" -I -m rootless.installation "$1/bin/rootless"
    rm -rf -- "$TMPDIR"
    "$1/bin/rootless" --version >/dev/null
}

# --- Manual pages and completion ------------------------------------------------------------------------------------

# Sets $place to that of the shared file $1, such as share/man/man1/rootless.1. man looks beside the directories of PATH.
find_place() {
    case $1 in
        share/man/*) place=${bin%/*}/$1 ;;
        *) place=$data/${1#share/} ;;
    esac
}

# Makes symlinks to the manual pages and the completion scripts of the environment $1. A file of somebody else stays.
# Fails if a symlink cannot be made, after the others.
link_shared_files() {
    complete=true
    unlink_shared_files
    (cd -- "$1" && find share -type f -name '*rootless*') >"$shared.new"
    while IFS= read -r file; do
        find_place "$file"
        if [ -e "$place" ] || [ -L "$place" ]; then continue; fi
        make_directory "${place%/*}" && note_directories && ln -s -- "$1/$file" "$place" || complete=false
    done <"$shared.new"
    mv -f -- "$shared.new" "$shared"
    "$complete"
}

# Removes those symlinks.
unlink_shared_files() {
    for list in "$shared" "$shared.new"; do
        [ -f "$list" ] || continue
        while IFS= read -r file; do
            find_place "$file"
            if [ -L "$place" ] && is_ours "$place"; then rm -- "$place"; fi
        done <"$list"
    done
}

# Whether a process was started from $1. grep reads the path from standard input, so that it does not find itself.
# shellcheck disable=SC2062 # the last words are files
is_in_use() { printf '%s/' "$1" | grep -q -s -a -F -f - /proc/[0-9]*/cmdline; }

# Whether $base may be on a file system that other machines share: their processes are invisible here.
is_shared() {
    case $(stat -f -c %T -- "$base") in
        ext* | xfs | btrfs | zfs | tmpfs | overlayfs | f2fs | bcachefs | reiserfs | jfs | ramfs) false ;;
        *) true ;;
    esac
}

# Removes all environments except the present one, $1, and those in use. If other machines may use them, the previous one,
# $2, stays too, and older ones stay for a month after their replacement.
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
    [ -f "$here/pyproject.toml" ] || fail "$here is not a checkout of rootless; fix: run install.sh in its checkout"
    if [ -e "$link" ] || [ -L "$link" ]; then
        is_ours || fail "$link exists and does not belong to rootless; fix: move it away"
    fi
    [ "$(id -u)" != 0 ] || install_packages
    find_python
    make_directory "$base"
    make_directory "$bin"
    check_private "$base"
    check_owner "$bin"
    note_directories
    # No other user may open the lock: a process that can open a file can lock it.
    (umask 077 && : >>"$lock")
    exec 9>>"$lock"
    flock --nonblock 9 || {
        say "Waiting for another install.sh to end"
        flock 9
    }
    before=
    if is_ours; then before=$(dirname -- "$(dirname -- "$(readlink -- "$link")")"); fi
    # What interrupted installations have left may fill the disk.
    remove_unused_environments "$before" "$before"
    environment=$(mktemp -d "$base/env-XXXXXX")
    # A signal may come when the command is the new one already.
    trap 'is_current "$environment" || rm -rf -- "$environment"' EXIT
    trap 'exit 129' HUP
    trap 'exit 130' INT
    trap 'exit 143' TERM
    chmod 755 "$environment"
    printf '#!/bin/sh\n' >"$environment/program"
    chmod 755 "$environment/program"
    "$environment/program" 2>/dev/null ||
        fail "no program can be run in $base; fix: mount its file system without noexec, or set XDG_DATA_HOME"
    rm -- "$environment/program"
    say "Installing into $environment"
    (make_environment "$environment")
    ln -sfn -- "$environment/bin/rootless" "$new_link"
    mv -fT -- "$new_link" "$link"
    trap - EXIT HUP INT TERM
    link_shared_files "$environment" 2>/dev/null ||
        say "(Some manual pages or completion scripts cannot be put into $data; they are in $environment/share.)"
    remove_unused_environments "$environment" "$before"
    # Files of an earlier version of this script, which any user could lock.
    rm -f -- "$base/lock" "$link".[0-9]*
    exec 9>&-
    say "Installed $("$link" --version | head -n 1) as $link"
    case :$PATH: in
        *:"$bin":*) ;;
        *)
            say "$bin is not on your PATH. Add this line to ~/.profile and run it now:"
            # shellcheck disable=SC2016 # for the reader's shell
            say "    export PATH=\"$bin:\$PATH\""
            ;;
    esac
}

uninstall() {
    if [ -L "$link" ] && is_ours; then rm -- "$link"; fi
    rm -f -- "$new_link"
    unlink_shared_files
    rm -f -- "$shared" "$shared.new"
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

# Runs "$@" as the user who called this script, also under sudo.
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
