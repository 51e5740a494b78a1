/* Which devices a cgroup may use: an eBPF program that the kernel asks, cgroup-v2.rst "Device controller". */
#include "init.h"
#include "sys.h"

#include <linux/bpf.h>
#include <stdint.h>
#include <string.h>

static int bpf(int command, union bpf_attr *attr) { return (int)syscall(SYS_bpf, command, attr, sizeof *attr); }

/* Beside what others have attached: each program has to allow what is done. */
int op_device_rules(const struct op *op)
{
    union bpf_attr attr;
    cleanup_close int program = -1;

    memset(&attr, 0, sizeof attr);
    attr.prog_type = BPF_PROG_TYPE_CGROUP_DEVICE;
    attr.expected_attach_type = BPF_CGROUP_DEVICE;
    attr.insns = (uintptr_t)text(op, DEVICE_RULES_PROGRAM); /* without alignment, and only the kernel reads it */
    attr.insn_cnt = op->s[DEVICE_RULES_PROGRAM].length / (uint32_t)sizeof(struct bpf_insn);
    attr.license = (uintptr_t)"Apache-2.0";
    memcpy(attr.prog_name, "rootless", sizeof "rootless");
    program = bpf(BPF_PROG_LOAD, &attr);
    if (program < 0)
        return failed("bpf(BPF_PROG_LOAD)");

    memset(&attr, 0, sizeof attr);
    attr.target_fd = (uint32_t)self.cgroup_fd;
    attr.attach_bpf_fd = (uint32_t)program;
    attr.attach_type = BPF_CGROUP_DEVICE;
    attr.attach_flags = BPF_F_ALLOW_MULTI;
    return bpf(BPF_PROG_ATTACH, &attr) < 0 ? failed("bpf(BPF_PROG_ATTACH)") : 0;
}
