/*
 * A producer in C and in C++ for the tests: producer NAME CAPACITY FIRST COUNT MODE.
 *
 * Record n has the time n and (n * 37) % 300 bytes, each (n + i) % 251. MODE: "close" closes, "hang" waits to be
 * killed after its last record, "run" writes until it is killed. It prints a line when it has written COUNT.
 */
#include "tapeline_ring.h"

#include <stdio.h>
#include <stdlib.h>

int main(int argc, char **argv)
{
    static struct tapeline_ring ring;
    unsigned char payload[300];
    unsigned long long n, first, last;
    int error;

    if (argc != 6)
        return 2;
    error = tapeline_ring_open(&ring, argv[1], strtoull(argv[2], NULL, 10));
    if (error != 0) {
        printf("%s\n", strerror(error));
        return error == EBUSY ? 3 : 1;
    }
    first = strtoull(argv[3], NULL, 10);
    last = first + strtoull(argv[4], NULL, 10);
    /* Both ways to the same checksum; 0xE3069283 is the check value of CRC32C. */
    if (tapeline_ring_crc32c(&ring, "123456789", 9) != 0xE3069283u
        || tapeline_ring_crc_table_(&ring, (const unsigned char *)"123456789", 9) != 0xE3069283u)
        return 4;
    if (tapeline_ring_write(&ring, 0, NULL, (size_t)tapeline_ring_max_payload(&ring) + 1) != EMSGSIZE)
        return 5;
    for (n = first; n < last || strcmp(argv[5], "run") == 0; n++) {
        size_t i, size = (size_t)(n * 37 % 300);
        for (i = 0; i < size; i++)
            payload[i] = (unsigned char)((n + i) % 251);
        if (tapeline_ring_write(&ring, n, payload, size) != 0)
            return 6;
        if (n + 1 == last) {
            printf("written\n");
            fflush(stdout);
        }
    }
    while (strcmp(argv[5], "hang") == 0)
        pause();
    tapeline_ring_close(&ring);
    tapeline_ring_close(&ring);
    return tapeline_ring_write(&ring, 0, "", 0) == EBADF ? 0 : 7;
}
