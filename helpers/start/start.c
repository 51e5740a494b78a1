/* The interpreter that the installed `rootless` names in its first line: starts the python3 beside itself with SIGINT
 * blocked.
 *
 * Python's own handler raises KeyboardInterrupt from an early moment of its start, long before a script can ask for
 * anything else, and Ctrl-C would show a traceback. Blocked, the signal waits; the script unblocks it as soon as it has
 * chosen what the signal does (helpers/launcher.py). -Xunblock says so, unless the caller had blocked it already. */
#include <errno.h>
#include <limits.h>
#include <signal.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

int main(int argc, char **argv, char **environment)
{
    static char unblock[] = "-Xunblock";
    char python[PATH_MAX], *words[argc + 2], **word = words;
    const char *slash = argc > 1 ? strrchr(argv[0], '/') : NULL;
    sigset_t interrupt, before;

    if (!slash || snprintf(python, sizeof python, "%.*s/python3", (int)(slash - argv[0]), argv[0]) >= PATH_MAX) {
        fprintf(stderr, "rootless: start Python: this is the interpreter of a script; fix: run the script\n");
        return 1;
    }
    sigemptyset(&interrupt);
    sigaddset(&interrupt, SIGINT);
    sigprocmask(SIG_BLOCK, &interrupt, &before);
    *word++ = python;
    if (!sigismember(&before, SIGINT))
        *word++ = unblock;
    memcpy(word, argv + 1, (size_t)argc * sizeof *argv); /* with the NULL at the end */
    execve(python, words, environment);
    fprintf(stderr, "rootless: start %s: %s; fix: install rootless again\n", python, strerror(errno));
    return 1;
}
