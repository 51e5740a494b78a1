/* A program without a C library whose first instruction makes a system call that a seccomp filter answers: getpid. With
 * one argument it first executes itself without arguments, with two it does so in a child. Its exit status is the
 * errno, or 1. */
#include <sys/syscall.h>

#if defined __x86_64__
static long call(long number, long a, long b, long c, long d)
{
    register long r10 __asm__("r10") = d;
    long result;

    __asm__ volatile("syscall" : "=a"(result) : "a"(number), "D"(a), "S"(b), "d"(c), "r"(r10) : "rcx", "r11", "memory");
    return result;
}
/* the call comes before any access to memory; the stack pointer is kept for the code after it */
__asm__(".globl _start\n_start: mov $39, %eax\nsyscall\nmov %rax, %rdi\nmov %rsp, %rsi\nand $-16, %rsp\ncall after\n");
#elif defined __aarch64__
static long call(long number, long a, long b, long c, long d)
{
    register long x8 __asm__("x8") = number;
    register long x0 __asm__("x0") = a;
    register long x1 __asm__("x1") = b;
    register long x2 __asm__("x2") = c;
    register long x3 __asm__("x3") = d;

    __asm__ volatile("svc 0" : "+r"(x0) : "r"(x8), "r"(x1), "r"(x2), "r"(x3) : "memory");
    return x0;
}
__asm__(".globl _start\n_start: mov x8, #172\nsvc 0\nmov x1, sp\nbl after\n");
#endif

enum { SIGCHLD_NUMBER = 17 };

__attribute__((used, noreturn)) void after(long first, long *stack)
{
    long argc = stack[0], status = 0;
    char **argv = (char **)(stack + 1);
    char *alone[] = {argv[0], 0};

    if (first >= 0)
        call(SYS_exit_group, 1, 0, 0, 0);
    if (argc == 3) {
        long child = call(SYS_clone, SIGCHLD_NUMBER, 0, 0, 0);

        if (child > 0) {
            call(SYS_wait4, child, (long)&status, 0, 0);
            call(SYS_exit_group, status >> 8 & 0xff, 0, 0, 0);
        }
        first = call(SYS_getpid, 0, 0, 0, 0);
    } else if (argc == 2) {
        call(SYS_execve, (long)argv[0], (long)alone, (long)alone[1], 0);
    }
    for (;;)
        call(SYS_exit_group, first < 0 ? -first : 1, 0, 0, 0);
}
