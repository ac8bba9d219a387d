/* A producer of data packets: for each line "N" of its input it writes N packets and answers with how many it wrote in all. */
#include <stdio.h>
#include <stdlib.h>

#include "tapeline_ring.h"

enum { REGISTERS = 3, BYTES = 17 + 4 * REGISTERS };

static void put(unsigned char **at, uint64_t value, int bytes)
{
    while (bytes-- > 0) {
        *(*at)++ = (unsigned char)(value & 255u);
        value >>= 8;
    }
}

static void packet(unsigned char *to, uint64_t number)
{
    unsigned k;
    put(&to, 1000 + number, 8);
    put(&to, 1, 1);              /* src_id */
    put(&to, 0, 1);              /* DIFF */
    put(&to, 2, 1);              /* RACK */
    put(&to, number & 255u, 1);
    put(&to, 0, 1);
    put(&to, REGISTERS, 4);
    for (k = 0; k < REGISTERS; k++)
        put(&to, (number * REGISTERS + k) % 2000, 2);
    for (k = 0; k < REGISTERS; k++)
        put(&to, (number * 7 + k) & 0xFFFFu, 2);
}

int main(int argc, char **argv)
{
    struct tapeline_ring ring;
    uint64_t number;
    char line[32];
    if (argc != 4 || tapeline_ring_open(&ring, argv[1], strtoull(argv[2], NULL, 10)) != 0)
        return 1;
    number = strtoull(argv[3], NULL, 10);
    while (fgets(line, sizeof line, stdin) != NULL) {
        uint64_t left = strtoull(line, NULL, 10);
        for (; left > 0; left--, number++) {
            unsigned char bytes[BYTES];
            packet(bytes, number);
            if (tapeline_ring_write(&ring, 1000 + number, bytes, BYTES) != 0)
                return 2;
        }
        printf("%llu\n", (unsigned long long)number);
        fflush(stdout);
    }
    tapeline_ring_close(&ring);
    return 0;
}
