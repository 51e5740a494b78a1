/* Exchanges two names with RENAME_EXCHANGE, again and again, until it is killed: race ONE OTHER
 *
 * It prints "racing" after the first exchange. */
#include <fcntl.h>
#include <stdio.h>
#include <unistd.h>

#define RENAME_EXCHANGE 2
int renameat2(int, const char *, int, const char *, unsigned);

int main(int argc, char **argv)
{
    if (argc != 3 || renameat2(AT_FDCWD, argv[1], AT_FDCWD, argv[2], RENAME_EXCHANGE) < 0) {
        perror("race");
        return 1;
    }
    puts("racing");
    fflush(stdout);
    for (;;)
        renameat2(AT_FDCWD, argv[1], AT_FDCWD, argv[2], RENAME_EXCHANGE);
}
