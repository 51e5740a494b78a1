#!/bin/sh
# Epilog of slurm.conf: removes what a job has left of containers on this node. `Epilog=/etc/slurm/epilog.sh`
#
# slurmd runs it as root when a job ends. A container ends and is removed with its task; what is left is that of tasks
# that were killed (SIGKILL, out of memory) or whose slurmstepd was killed, and the containers that have names.
export PATH="$PATH:/usr/local/bin:/usr/bin:/bin:/usr/sbin:/sbin"

# As the user: root does not use a user's directory of state.
runuser -u "$SLURM_JOB_USER" -- rootless delete --force --regex "^${SLURMD_NODENAME}[.]${SLURM_JOB_UID}[.]${SLURM_JOB_ID}[.]"

# Files in there belong to the user and to subordinate IDs. The user can exchange the directories at any time: this one is
# entered before its owner is checked, and rm follows no symbolic links.
if cd -P "/tmp/rootless-slurm-$SLURM_JOB_UID" 2>/dev/null && [ "$(stat -c %u .)" = "$SLURM_JOB_UID" ]; then
    rm -rf --one-file-system -- "./$SLURM_JOB_ID"
fi
exit 0
