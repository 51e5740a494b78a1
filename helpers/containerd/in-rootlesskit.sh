#!/bin/sh
# Runs a daemon as an ordinary user: `in-rootlesskit.sh containerd --config ~/.config/containerd/config.toml`. It is root of
# a user namespace, has a network through slirp4netns, and files of its own below /etc, /run, /var/lib and /var/log. Other
# commands enter its namespaces with
#   nsenter -U -m -n -p -i -u -C --preserve-credentials -t "$(cat "$XDG_RUNTIME_DIR/in-rootlesskit/child_pid")"
# In a delegated cgroup its containers can have limits:
#   systemd-run --user --unit=containerd --property=Delegate=yes --setenv=PATH="$PATH" "$PWD/in-rootlesskit.sh" containerd …
# ROOTLESSKIT_STATE is a directory in place of $XDG_RUNTIME_DIR/in-rootlesskit. Images and containers of containerd lie in
# ~/.local/share/containerd, or in XDG_DATA_HOME.
set -eu
data=${XDG_DATA_HOME:-$HOME/.local/share}/containerd
state=${ROOTLESSKIT_STATE:-${XDG_RUNTIME_DIR:?it is not set; fix: log in again, or set ROOTLESSKIT_STATE}/in-rootlesskit}
mkdir -p -- "$data"
# cgroup v2 gives controllers only to cgroups below one without processes. rootlesskit moves all processes of this cgroup:
# those of a terminal's stay where they are.
cgroup=/sys/fs/cgroup$(sed -n 's/^0:://p' /proc/self/cgroup)
alone() { while read -r process; do [ "$process" = $$ ] || return 1; done <"$cgroup/cgroup.procs"; }
if [ -w "$cgroup/cgroup.subtree_control" ] && alone; then evacuate=--evacuate-cgroup2=daemon; else evacuate=; fi
# --copy-up leaves symlinks to the host's directories; a daemon has directories of its own in their place.
# shellcheck disable=SC2016 # the inner shell expands them
exec rootlesskit --state-dir="$state" --net=slirp4netns --mtu=65520 --disable-host-loopback \
    --pidns --ipcns --utsns --cgroupns ${evacuate:+"$evacuate"} --propagation=rslave \
    --copy-up=/etc --copy-up=/run --copy-up=/var/lib --copy-up=/var/log -- sh -euc '
    for directory in /run/containerd /run/docker /run/netns /run/rootless /var/lib/containerd /var/lib/cni /var/log/pods; do
        rm -f -- "$directory"
        mkdir -- "$directory"
    done
    mount --bind -- "$1" /var/lib/containerd
    shift
    exec "$@"
' sh "$data" "$@"
