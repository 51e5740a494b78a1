/* The interpreter in the first line of the installed `rootless`: it executes the python3 beside itself with SIGINT
 * blocked.
 *
 * Python installs a handler that raises KeyboardInterrupt early in its start, long before a script can change that, so
 * Ctrl-C would print a traceback. A blocked signal stays pending until the script has set its own disposition and
 * unblocks it (helpers/launcher.py). -Xunblock requests that, unless the caller had SIGINT blocked already. */
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
        fprintf(stderr, "rootless: cannot start Python: this program only interprets a script; fix: run rootless\n");
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
    fprintf(stderr, "rootless: cannot start %s: %s; fix: install rootless again\n", python, strerror(errno));
    return 1;
}
