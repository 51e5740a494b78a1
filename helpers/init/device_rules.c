/* Which devices a cgroup may use: an eBPF program that the kernel asks, cgroup-v2.rst "Device controller". */
#include "init.h"

#include <linux/bpf.h>

/* Beside what others have attached: each program has to allow what is done. */
int op_device_rules(struct bytes instructions)
{
    union bpf_attr load = {
        .prog_type = BPF_PROG_TYPE_CGROUP_DEVICE,
        .expected_attach_type = BPF_CGROUP_DEVICE,
        .insns = (uintptr_t)instructions.at, /* without alignment, and only the kernel reads it */
        .insn_cnt = (uint32_t)(instructions.length / sizeof(struct bpf_insn)),
        .license = (uintptr_t)"Apache-2.0",
        .prog_name = "rootless",
    };
    cleanup_close int program = (int)SYS_AS("bpf(BPF_PROG_LOAD)", syscall(SYS_bpf, BPF_PROG_LOAD, &load, sizeof load));
    union bpf_attr attach = {
        .target_fd = (uint32_t)self.cgroup_fd,
        .attach_bpf_fd = (uint32_t)program,
        .attach_type = BPF_CGROUP_DEVICE,
        .attach_flags = BPF_F_ALLOW_MULTI,
    };

    return (int)SYS_AS("bpf(BPF_PROG_ATTACH)", syscall(SYS_bpf, BPF_PROG_ATTACH, &attach, sizeof attach));
}
