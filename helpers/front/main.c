/* The front door: the installed command `rootless`, and `runc` or `crun` where they are links to it.
 *
 * It does what needs no decision, and becomes the Python program for the rest. ROOTLESS_FRONT=0 leaves everything to
 * Python. Words that it does not know are Python's too, and so is every error: its own are those of starting Python. */
#include "attend.h"
#include "front.h"
#include "flags.h"

#include <signal.h>
#include <stdlib.h>
#include <sys/auxv.h>
#include <sys/wait.h>

/* Python and its script, each with a NUL behind it, where rootless/installation finds the mark. The program in the
 * package still has the mark: Python executes that one to wait (attend.c). */
static volatile char programs[2 * PATH_MAX] = "@PYTHON AND SCRIPT@";

static char **arguments;

static void warn(const char *what, const char *fix)
{
    dprintf(STDERR_FILENO, "rootless: cannot start Python: %s; fix: %s\n", what, fix);
}

/* Python installs a handler that raises KeyboardInterrupt early in its start, long before a script can change that, so
 * Ctrl-C would print a traceback. A blocked signal stays pending until the script has set its own disposition and
 * unblocks it (rootless/installation). -Xunblock requests that, unless the caller had SIGINT blocked already. */
_Noreturn void become_python(const char *option)
{
    const char *python = (const char *)programs, *script = python + strlen(python) + 1;
    const char *called = (const char *)getauxval(AT_EXECFN); /* NOLINT(performance-no-int-to-ptr) */
    char name[PATH_MAX + 16];
    size_t count = 1;
    sigset_t interrupt, before;

    while (arguments[count - 1])
        count++;
    {
        const char *words[count + 6], **word = words;

        sigemptyset(&interrupt);
        sigaddset(&interrupt, SIGINT);
        sigprocmask(SIG_BLOCK, &interrupt, &before);
        snprintf(name, sizeof name, "-Xcalled=%s", called);
        *word++ = python;
        *word++ = "-IS";
        *word++ = name;
        if (!sigismember(&before, SIGINT))
            *word++ = "-Xunblock";
        if (option)
            *word++ = option;
        *word++ = script;
        memcpy(word, arguments + 1, (count - 1) * sizeof *word); /* with the NULL at the end */
        execv(python, (char *const *)words);
    }
    warn(strerror(errno), "install rootless again");
    _exit(1);
}

void delete_by_python(const char *root, const char *id)
{
    const char *words[] = {*arguments, "--root", root, "delete", id, NULL};
    pid_t pid = fork();

    if (pid == 0) {
        sigset_t none;

        sigemptyset(&none);
        sigprocmask(SIG_SETMASK, &none, NULL);
        arguments = (char **)(uintptr_t)words;
        become_python(NULL);
    }
    if (pid > 0)
        waitpid(pid, NULL, 0);
}

static bool asks_for_container(char *const *word)
{
    while (*word && strcmp(*word, "run") != 0 && strcmp(*word, "create") != 0)
        word++;
    return *word != NULL;
}

static const struct flag *flag_named(const char *verb, const char *word, size_t length)
{
    for (size_t i = 0; i < sizeof flags / sizeof *flags; i++)
        if (strlen(flags[i].name) == length && memcmp(flags[i].name, word, length) == 0 &&
            (!*flags[i].verb || strcmp(flags[i].verb, verb) == 0))
            return &flags[i];
    return NULL;
}

static bool is_among(const char *word, const char *choices)
{
    size_t length = strlen(word);

    for (; *choices; choices += strcspn(choices, "|"), choices += *choices == '|')
        if (strcspn(choices, "|") == length && memcmp(choices, word, length) == 0)
            return true;
    return false;
}

static bool take(struct request *request, const struct flag *flag, const char *value)
{
    if (flag->kind == FLAG_ROOT)
        request->root = value;
    else if (flag->kind == FLAG_LOG)
        request->log = value;
    else if (flag->kind == FLAG_FORCE)
        request->force = true;
    else if (flag->kind == FLAG_QUIET)
        request->quiet = true;
    else if (flag->kind == FLAG_FORMAT)
        request->json = true;
    return flag->kind == FLAG_EXEC || (*flag->choices ? is_among(value, flag->choices) : *value && !strchr(value, ':'));
}

static bool understand(char **word, struct request *request)
{
    request->verb = "";
    for (; *word; word++) {
        const char *value = strchr(*word, '=');
        const struct flag *flag;

        if (**word != '-' && request->count == 1 && strcmp(request->verb, "exec") == 0) {
            request->command = word;
            return true;
        }
        if (**word != '-') {
            if (!*request->verb)
                request->verb = *word;
            else if (request->count < 2)
                request->words[request->count++] = *word;
            else
                return false;
            continue;
        }
        flag = flag_named(request->verb, *word, value ? (size_t)(value - *word) : strlen(*word));
        if (!flag)
            return false;
        if (value)
            value++;
        else
            value = flag->alone ? flag->alone : *++word;
        if (!value || !take(request, flag, value))
            return false;
    }
    return true;
}

static int carry_out(const struct request *request)
{
    static const struct {
        const char *name;
        int least, most; /* words behind it */
        int (*run)(int root, const struct request *request);
    } verbs[] = {
        {"state", 1, 1, state}, {"start", 1, 1, start},         {"delete", 1, 1, delete},
        {"list", 0, 0, list},   {"kill", 1, 2, kill_container}, {"exec", 1, 1, execute_cached},
    };

    for (size_t i = 0; i < sizeof verbs / sizeof *verbs; i++)
        if (strcmp(request->verb, verbs[i].name) == 0 && request->count >= verbs[i].least &&
            request->count <= verbs[i].most) {
            int root = open_root(request->root, false);

            return root >= 0 && (!request->log || opens_log(request->log)) ? verbs[i].run(root, request) : DECLINED;
        }
    return DECLINED;
}

static bool has_streams(void)
{
    return fcntl(STDIN_FILENO, F_GETFD) >= 0 && fcntl(STDOUT_FILENO, F_GETFD) >= 0 &&
           fcntl(STDERR_FILENO, F_GETFD) >= 0;
}

int main(int argc, char **argv)
{
    const char *wanted = getenv("ROOTLESS_FRONT");
    struct request request = {.line = argv + 1};

    if (getauxval(AT_SECURE)) {
        warn("the program is setuid, setgid or has file capabilities", "take them away; it needs none");
        return 1;
    }
    if (*programs == '@') {
        const char *shown = getenv("ROOTLESS_ATTEND");
        int count = shown ? (int)strtol(shown, NULL, 10) : -1;

        unsetenv("ROOTLESS_ATTEND");
        return attend(argc, argv, count);
    }
    arguments = argv;
    if (!(wanted && strcmp(wanted, "0") == 0) && argc > 0 && has_streams()) {
        sighandler_t pipe = signal(SIGPIPE, SIG_IGN), size = signal(SIGXFSZ, SIG_IGN);

        umask(umask(0) & 0077); /* as Python: it may restrict other users, not the owner */
        request.script = (const char *)programs + strlen((const char *)programs) + 1;
        if (understand(argv + 1, &request) && carry_out(&request) == DONE)
            return 0;
        if (strcmp(request.verb, "exec") != 0 && asks_for_container(argv + 1))
            run_cached(&request);
        signal(SIGPIPE, pipe);
        signal(SIGXFSZ, size);
    }
    become_python(entry_option());
}
