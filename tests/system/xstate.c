/* Lets user-mode Linux run on a processor whose registers need more room than it has for them.
 *
 * linux.uml before 6.13 keeps 2,696 bytes of floating-point state, enough up to AVX-512. The kernel of the host takes
 * back only all that the processor has (11,008 bytes with AMX): PTRACE_SETREGSET ends with EFAULT, and the machine does
 * not boot. Loaded before libc, this fills in what is missing with what the process has at the moment. */
#define _GNU_SOURCE
#include <dlfcn.h>
#include <elf.h>
#include <stdarg.h>
#include <string.h>
#include <sys/ptrace.h>
#include <sys/types.h>
#include <sys/uio.h>

long ptrace(enum __ptrace_request request, ...)
{
    static long (*original)(enum __ptrace_request, ...);
    static char whole[65536] __attribute__((aligned(64)));
    struct iovec all = {whole, sizeof whole}, *given;
    va_list arguments;
    void *address, *data;
    pid_t pid;

    va_start(arguments, request);
    pid = va_arg(arguments, pid_t);
    address = va_arg(arguments, void *);
    data = va_arg(arguments, void *);
    va_end(arguments);
    if (!original)
        *(void **)&original = dlsym(RTLD_NEXT, "ptrace");
    if (request != PTRACE_SETREGSET || (long)address != NT_X86_XSTATE)
        return original(request, pid, address, data);
    given = data;
    if (original(PTRACE_GETREGSET, pid, address, &all) < 0)
        return -1;
    if (given->iov_len < all.iov_len)
        memcpy(whole, given->iov_base, given->iov_len);
    return original(request, pid, address, given->iov_len < all.iov_len ? &all : given);
}
