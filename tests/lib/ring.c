/* Sends messages of 1 MB round the ranks, and reads the memory of the next rank by process_vm_readv(2). Each rank
 * prints its number, the number of ranks, its host, wrong bytes, MB/s, and how the reading ended. */
#define _GNU_SOURCE
#include <errno.h>
#include <mpi.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/uio.h>
#include <unistd.h>

enum { SIZE = 1 << 20, TIMES = 200 };

int main(int argc, char **argv)
{
    int rank, size, wrong = 0, next, previous;
    char host[65] = "", byte = 0;
    char *ours = malloc(SIZE), *theirs = malloc(SIZE);
    long own[2], others[2];
    struct iovec here = {&byte, 1}, there = {NULL, 1};
    double seconds;

    MPI_Init(&argc, &argv);
    MPI_Comm_rank(MPI_COMM_WORLD, &rank);
    MPI_Comm_size(MPI_COMM_WORLD, &size);
    gethostname(host, sizeof host - 1);
    next = (rank + 1) % size;
    previous = (rank + size - 1) % size;
    memset(ours, rank + 1, SIZE);
    MPI_Barrier(MPI_COMM_WORLD);
    seconds = MPI_Wtime();
    for (int i = 0; i < TIMES; i++)
        MPI_Sendrecv(ours, SIZE, MPI_BYTE, next, 0, theirs, SIZE, MPI_BYTE, previous, 0, MPI_COMM_WORLD,
                     MPI_STATUS_IGNORE);
    seconds = MPI_Wtime() - seconds;
    for (int i = 0; i < SIZE; i++)
        wrong += theirs[i] != previous + 1;
    own[0] = getpid();
    own[1] = (long)ours;
    MPI_Sendrecv(own, 2, MPI_LONG, previous, 1, others, 2, MPI_LONG, next, 1, MPI_COMM_WORLD, MPI_STATUS_IGNORE);
    there.iov_base = (void *)others[1];
    errno = 0;
    if (process_vm_readv((pid_t)others[0], &here, 1, &there, 1, 0) == 1 && byte != next + 1)
        errno = EILSEQ;
    printf("%d %d %s %d %.0f %s\n", rank, size, host, wrong, TIMES * (double)SIZE / seconds / 1e6, strerror(errno));
    MPI_Barrier(MPI_COMM_WORLD);
    MPI_Finalize();
    return wrong != 0;
}
