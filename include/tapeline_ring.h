/*
 * tapeline_ring.h - write records into a shared-memory ring that tapeline reads.
 *
 * SPDX-License-Identifier: Apache-2.0
 *
 * One file, no dependency, C11 or C++17, Linux or another POSIX system, GCC or Clang. Include it where you need it:
 *
 *     struct tapeline_ring ring;
 *     int error = tapeline_ring_open(&ring, "battery", 16u << 20);     // /dev/shm/battery, 16 MiB
 *     if (error != 0) { fprintf(stderr, "%s\n", strerror(error)); return 1; }
 *     tapeline_ring_write(&ring, tapeline_ring_now_us(), packet, packet_bytes);
 *     tapeline_ring_close(&ring);
 *
 * and record with `tapeline record --stream rack=shm://battery?wire=packet --out DIR`, or look with
 * `tapeline ring cat battery`.
 *
 * What it promises: a write never waits, never allocates and makes no system call. It overwrites what is oldest.
 * Readers notice what they missed and count it. There is one producer at a time: opening a ring that has one
 * fails with EBUSY, and a producer that dies, however it dies, gives the ring free. A ring is not to be used by two
 * threads at once. The file must not be cut while a producer has it (that is SIGBUS); remove it instead.
 *
 * Layout of the file (all integers little-endian), also in docs/reference/ring.md:
 *
 *     offset  size
 *          0     8  magic "TPLRING1", written last when a ring is made
 *          8     4  version, 1
 *         12     4  bytes of this header, 4096
 *         16     8  capacity, a power of two, at least 4096
 *         24     4  process id of the last producer
 *         28     4  state: 0 open, 1 closed by the producer
 *        128     8  write_position: end of the newest record
 *        256     8  reserve_position: end of what is being written
 *        384     8  oldest_position: start of the oldest whole record
 *       4096        the ring: byte `position & (capacity - 1)` of it belongs to `position`
 *
 * Positions count bytes since the ring was made. A record starts at a multiple of 8:
 *
 *     u64 timestamp_us | u32 packet_size | u32 crc32c of the payload | payload | filling to a multiple of 8
 *
 * and never wraps: where it does not fit, a record with packet_size 0xFFFFFFFF and no payload fills the lap (nothing
 * is written where fewer than 16 bytes are left), and it begins the next one. A record takes at most half the
 * ring.
 *
 * Order of stores of a write: oldest_position past what will be overwritten, reserve_position to the new end, a
 * release fence, the bytes, write_position (release). A reader copies between loads of write_position and
 * reserve_position, and the second tells whether the copy is whole.
 */
#ifndef TAPELINE_RING_H
#define TAPELINE_RING_H

#include <errno.h>
#include <fcntl.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <sys/types.h>
#include <time.h>
#include <unistd.h>

#if !defined(__GNUC__) && !defined(__clang__)
#error "tapeline_ring.h needs the __atomic functions of GCC or Clang"
#endif
#if defined(__BYTE_ORDER__) && __BYTE_ORDER__ != __ORDER_LITTLE_ENDIAN__
#error "tapeline_ring.h is written for little-endian machines"
#endif

#ifdef __cplusplus
extern "C" {
#endif

#define TAPELINE_RING_HEADER_BYTES 4096u
#define TAPELINE_RING_RECORD_BYTES 16u
#define TAPELINE_RING_MIN_CAPACITY ((uint64_t)4096)
#define TAPELINE_RING_MAX_CAPACITY ((uint64_t)1 << 40)
#define TAPELINE_RING_PAD 0xFFFFFFFFu

/* A ring held by this producer. The fields are its own; use the functions. */
struct tapeline_ring {
    unsigned char *memory;      /* header page and ring, or NULL when closed */
    uint64_t capacity;
    uint64_t write_position;    /* as in the file, which nobody else may change */
    uint64_t reserve_position;
    uint64_t oldest_position;
    int file;
    int has_crc_instruction;
    uint32_t crc_table[8][256];
};

/* ---- CRC32C, reflected polynomial 0x82F63B78 ---- */

static inline void tapeline_ring_make_table_(uint32_t table[8][256])
{
    uint32_t n, k;
    for (n = 0; n < 256; n++) {
        uint32_t crc = n;
        for (k = 0; k < 8; k++)
            crc = (crc & 1u) != 0 ? (crc >> 1) ^ 0x82F63B78u : crc >> 1;
        table[0][n] = crc;
    }
    for (n = 0; n < 256; n++)
        for (k = 1; k < 8; k++)
            table[k][n] = (table[k - 1][n] >> 8) ^ table[0][table[k - 1][n] & 255u];
}

static inline uint32_t tapeline_ring_crc_table_(const struct tapeline_ring *ring, const unsigned char *bytes,
                                                size_t size)
{
    uint32_t crc = 0xFFFFFFFFu;
    while (size >= 8) {
        uint32_t low, high;
        memcpy(&low, bytes, 4);
        memcpy(&high, bytes + 4, 4);
        low ^= crc;
        crc = ring->crc_table[7][low & 255u] ^ ring->crc_table[6][(low >> 8) & 255u]
            ^ ring->crc_table[5][(low >> 16) & 255u] ^ ring->crc_table[4][low >> 24]
            ^ ring->crc_table[3][high & 255u] ^ ring->crc_table[2][(high >> 8) & 255u]
            ^ ring->crc_table[1][(high >> 16) & 255u] ^ ring->crc_table[0][high >> 24];
        bytes += 8;
        size -= 8;
    }
    while (size-- > 0)
        crc = (crc >> 8) ^ ring->crc_table[0][(crc ^ *bytes++) & 255u];
    return ~crc;
}

#if defined(__x86_64__)
__attribute__((target("sse4.2")))
static inline uint32_t tapeline_ring_crc_instruction_(const unsigned char *bytes, size_t size)
{
    unsigned long long crc = 0xFFFFFFFFu;
    uint32_t short_crc;
    while (size >= 8) {
        unsigned long long word;
        memcpy(&word, bytes, 8);
        crc = __builtin_ia32_crc32di(crc, word);
        bytes += 8;
        size -= 8;
    }
    short_crc = (uint32_t)crc;
    while (size-- > 0)
        short_crc = __builtin_ia32_crc32qi(short_crc, *bytes++);
    return ~short_crc;
}
#endif

/* CRC32C of `size` bytes. */
static inline uint32_t tapeline_ring_crc32c(const struct tapeline_ring *ring, const void *bytes, size_t size)
{
#if defined(__x86_64__)
    if (ring->has_crc_instruction)
        return tapeline_ring_crc_instruction_((const unsigned char *)bytes, size);
#endif
    return tapeline_ring_crc_table_(ring, (const unsigned char *)bytes, size);
}

/* ---- helpers ---- */

static inline uint64_t *tapeline_ring_position_(const struct tapeline_ring *ring, size_t offset)
{
    return (uint64_t *)(void *)(ring->memory + offset);
}

static inline unsigned char *tapeline_ring_data_(const struct tapeline_ring *ring, uint64_t position)
{
    return ring->memory + TAPELINE_RING_HEADER_BYTES + (size_t)(position & (ring->capacity - 1));
}

static inline uint64_t tapeline_ring_lap_left_(const struct tapeline_ring *ring, uint64_t position)
{
    return ring->capacity - (position & (ring->capacity - 1));
}

static inline uint64_t tapeline_ring_record_(uint32_t payload_bytes)
{
    return ((uint64_t)TAPELINE_RING_RECORD_BYTES + payload_bytes + 7u) & ~(uint64_t)7u;
}

/* Largest payload that this ring takes. */
static inline uint64_t tapeline_ring_max_payload(const struct tapeline_ring *ring)
{
    uint64_t half = ring->capacity / 2 - TAPELINE_RING_RECORD_BYTES;
    return half < TAPELINE_RING_PAD ? half : TAPELINE_RING_PAD - 1u;
}

/* Microseconds since the UNIX epoch. */
static inline uint64_t tapeline_ring_now_us(void)
{
    struct timespec now;
    if (timespec_get(&now, TIME_UTC) != TIME_UTC)
        return 0;
    return (uint64_t)now.tv_sec * 1000000u + (uint64_t)now.tv_nsec / 1000u;
}

static inline int tapeline_ring_read_(int file, void *out, size_t size)
{
    unsigned char *next = (unsigned char *)out;
    if (lseek(file, 0, SEEK_SET) != 0)
        return errno;
    while (size > 0) {
        ssize_t n = read(file, next, size);
        if (n < 0 && errno == EINTR)
            continue;
        if (n <= 0)
            return n < 0 ? errno : EINVAL;
        next += n;
        size -= (size_t)n;
    }
    return 0;
}

/* Writes zeros over the whole ring: a hole that cannot be filled later, when memory is used up, would be SIGBUS. */
static inline int tapeline_ring_fill_(int file, uint64_t size)
{
    static const unsigned char zeros[4096] = {0};
    if (lseek(file, 0, SEEK_SET) != 0)
        return errno;
    while (size > 0) {
        ssize_t n = write(file, zeros, size < sizeof zeros ? (size_t)size : sizeof zeros);
        if (n < 0 && errno == EINTR)
            continue;
        if (n <= 0)
            return n < 0 ? errno : ENOSPC;
        size -= (uint64_t)n;
    }
    return 0;
}

static inline int tapeline_ring_lock_(int file)
{
    struct flock lock;
    int command;
    memset(&lock, 0, sizeof lock);
    lock.l_type = F_WRLCK;
    lock.l_whence = SEEK_SET;
#if defined(__linux__)
    command = 37; /* F_OFD_SETLK, which strict C11 hides: the lock belongs to the open file, not to the process */
#else
    command = F_SETLK;
#endif
    if (fcntl(file, command, &lock) == 0)
        return 0;
    return errno == EAGAIN || errno == EACCES ? EBUSY : errno;
}

/* 1 if nobody finished making the ring, 0 if it is there, -1 if the file is something else. */
static inline int tapeline_ring_is_blank_(const unsigned char *page, size_t there, uint64_t file_bytes, uint64_t capacity)
{
    size_t i;
    if (file_bytes == 0)
        return 1;
    if (there >= 8 && memcmp(page, "TPLRING1", 8) == 0)
        return 0;
    for (i = 0; i < there; i++)
        if (page[i] != 0 && (i < 8 || i >= 24))
            return -1;
    return file_bytes <= TAPELINE_RING_HEADER_BYTES + capacity ? 1 : -1;
}

/* ---- the producer ---- */

/* Stops using the ring without telling its readers; for the ways out of tapeline_ring_open. */
static inline void tapeline_ring_release_(struct tapeline_ring *ring)
{
    if (ring->memory != NULL)
        munmap(ring->memory, (size_t)(TAPELINE_RING_HEADER_BYTES + ring->capacity));
    ring->memory = NULL;
    if (ring->file >= 0)
        close(ring->file);
    ring->file = -1;
}

static inline int tapeline_ring_attach_(struct tapeline_ring *ring)
{
    unsigned char page[TAPELINE_RING_HEADER_BYTES];
    struct stat about;
    uint64_t all = TAPELINE_RING_HEADER_BYTES + ring->capacity;
    uint64_t capacity, write_position, reserve_position, oldest_position;
    uint32_t version, header_bytes;
    int error, blank;
    void *memory;

    error = tapeline_ring_lock_(ring->file);
    if (error != 0)
        return error;
    if (fstat(ring->file, &about) != 0)
        return errno;
    if (!S_ISREG(about.st_mode))
        return EINVAL;
    {
        size_t there = about.st_size < (off_t)sizeof page ? (size_t)about.st_size : sizeof page;
        error = tapeline_ring_read_(ring->file, page, there);
        if (error != 0)
            return error;
        blank = tapeline_ring_is_blank_(page, there, (uint64_t)about.st_size, ring->capacity);
    }
    if (blank < 0)
        return EINVAL;
    if (blank > 0) {
        error = tapeline_ring_fill_(ring->file, all);
        if (error != 0)
            return error;
        memset(page, 0, sizeof page);
    } else {
        memcpy(&version, page + 8, 4);
        memcpy(&header_bytes, page + 12, 4);
        memcpy(&capacity, page + 16, 8);
        if (version != 1 || header_bytes != TAPELINE_RING_HEADER_BYTES || capacity != ring->capacity
            || (uint64_t)about.st_size < all)
            return EINVAL;
    }
    memcpy(&write_position, page + 128, 8);
    memcpy(&reserve_position, page + 256, 8);
    memcpy(&oldest_position, page + 384, 8);
    if (((write_position | reserve_position | oldest_position) & 7u) != 0 || oldest_position > write_position
        || write_position > reserve_position || reserve_position > (uint64_t)1 << 62
        || reserve_position - oldest_position > ring->capacity)
        return EINVAL;
    memory = mmap(NULL, (size_t)all, PROT_READ | PROT_WRITE, MAP_SHARED, ring->file, 0);
    if (memory == MAP_FAILED)
        return errno;
    ring->memory = (unsigned char *)memory;
    ring->write_position = write_position;
    ring->reserve_position = reserve_position;
    ring->oldest_position = oldest_position;
    __atomic_store_n((uint32_t *)(void *)(ring->memory + 24), (uint32_t)getpid(), __ATOMIC_RELAXED);
    __atomic_store_n((uint32_t *)(void *)(ring->memory + 28), 0u, __ATOMIC_RELEASE);
    if (blank > 0) {
        uint64_t magic;
        version = 1;
        header_bytes = TAPELINE_RING_HEADER_BYTES;
        memcpy(ring->memory + 8, &version, 4);
        memcpy(ring->memory + 12, &header_bytes, 4);
        memcpy(ring->memory + 16, &ring->capacity, 8);
        memcpy(&magic, "TPLRING1", 8);
        __atomic_store_n(tapeline_ring_position_(ring, 0), magic, __ATOMIC_RELEASE);
    }
    return 0;
}

/*
 * Makes the ring `name`, or goes on with the one that is there, and takes it.
 *
 * A name without a slash is a file in /dev/shm, one with a slash a path. `capacity` is a power of two from 4096.
 * Returns 0 or an errno: EBUSY if the ring has a producer, EINVAL if the capacity cannot be, is another one than
 * that of the ring there is, or the file is no ring; ENOSPC if there is no memory for it; whatever open said.
 */
static inline int tapeline_ring_open(struct tapeline_ring *ring, const char *name, uint64_t capacity)
{
    static const char directory[] = "/dev/shm/";
    char path[4096];
    size_t name_bytes, before;
    int error;

    memset(ring, 0, sizeof *ring);
    ring->file = -1;
    if (capacity < TAPELINE_RING_MIN_CAPACITY || capacity > TAPELINE_RING_MAX_CAPACITY
        || (capacity & (capacity - 1)) != 0 || capacity > SIZE_MAX - TAPELINE_RING_HEADER_BYTES)
        return EINVAL;
    name_bytes = strlen(name);
    before = strchr(name, '/') == NULL ? sizeof directory - 1 : 0;
    if (name_bytes == 0)
        return EINVAL;
    if (before + name_bytes >= sizeof path)
        return ENAMETOOLONG;
    memcpy(path, directory, before);
    memcpy(path + before, name, name_bytes + 1);

    tapeline_ring_make_table_(ring->crc_table);
#if defined(__x86_64__)
    __builtin_cpu_init();
    ring->has_crc_instruction = __builtin_cpu_supports("sse4.2") != 0;
#endif
    ring->capacity = capacity;
    ring->file = open(path, O_RDWR | O_CREAT, 0600);
    if (ring->file < 0)
        return errno;
    (void)fcntl(ring->file, F_SETFD, FD_CLOEXEC); /* strict C11 hides O_CLOEXEC */
    error = tapeline_ring_attach_(ring);
    if (error != 0)
        tapeline_ring_release_(ring);
    return error;
}

/* Announces that everything below `end` from a lap ago is about to be overwritten. */
static inline void tapeline_ring_reserve_(struct tapeline_ring *ring, uint64_t end)
{
    uint64_t before = ring->oldest_position;
    if (end <= ring->reserve_position)
        return; /* the reservation of a producer that died; its oldest position holds */
    while (ring->oldest_position + ring->capacity < end) {
        uint64_t left = tapeline_ring_lap_left_(ring, ring->oldest_position);
        uint64_t step = left;
        if (left >= TAPELINE_RING_RECORD_BYTES) {
            uint32_t packet_size;
            memcpy(&packet_size, tapeline_ring_data_(ring, ring->oldest_position) + 8, 4);
            /* What no record can say was written by somebody else; the next lap begins with one, whatever happens. */
            if (packet_size <= tapeline_ring_max_payload(ring) && tapeline_ring_record_(packet_size) <= left)
                step = tapeline_ring_record_(packet_size);
        }
        ring->oldest_position += step;
    }
    if (ring->oldest_position != before) {
        if (ring->oldest_position > ring->write_position)
            ring->oldest_position = ring->write_position;
        __atomic_store_n(tapeline_ring_position_(ring, 384), ring->oldest_position, __ATOMIC_RELEASE);
    }
    ring->reserve_position = end;
    __atomic_store_n(tapeline_ring_position_(ring, 256), end, __ATOMIC_RELEASE);
    __atomic_thread_fence(__ATOMIC_RELEASE);
}

static inline void tapeline_ring_put_header_(struct tapeline_ring *ring, uint64_t position, uint64_t timestamp_us,
                                             uint32_t packet_size, uint32_t crc)
{
    unsigned char *at = tapeline_ring_data_(ring, position);
    memcpy(at, &timestamp_us, 8);
    memcpy(at + 8, &packet_size, 4);
    memcpy(at + 12, &crc, 4);
}

/*
 * Appends a record; never waits. For a tapeline recorder the payload is a data packet without its length.
 *
 * Returns 0, or EMSGSIZE if it would take more than half the ring, or EBADF if the ring is closed.
 */
static inline int tapeline_ring_write(struct tapeline_ring *ring, uint64_t timestamp_us, const void *payload, size_t size)
{
    uint64_t left, bytes, pad, start, end;
    uint32_t crc;

    if (ring->memory == NULL)
        return EBADF;
    if (size > tapeline_ring_max_payload(ring))
        return EMSGSIZE;
    crc = tapeline_ring_crc32c(ring, payload, size); /* before anything is reserved, which is then short */
    left = tapeline_ring_lap_left_(ring, ring->write_position);
    bytes = tapeline_ring_record_((uint32_t)size);
    pad = bytes > left ? left : 0;
    start = ring->write_position + pad;
    end = start + bytes;
    tapeline_ring_reserve_(ring, end);
    if (pad >= TAPELINE_RING_RECORD_BYTES)
        tapeline_ring_put_header_(ring, ring->write_position, 0, TAPELINE_RING_PAD, 0);
    tapeline_ring_put_header_(ring, start, timestamp_us, (uint32_t)size, crc);
    if (size > 0)
        memcpy(tapeline_ring_data_(ring, start) + TAPELINE_RING_RECORD_BYTES, payload, size);
    ring->write_position = end;
    __atomic_store_n(tapeline_ring_position_(ring, 128), end, __ATOMIC_RELEASE);
    return 0;
}

/* Says that nothing more will come, and gives the ring free. The file stays; a closed ring may be closed again. */
static inline void tapeline_ring_close(struct tapeline_ring *ring)
{
    if (ring->memory == NULL)
        return;
    __atomic_store_n((uint32_t *)(void *)(ring->memory + 28), 1u, __ATOMIC_RELEASE);
    tapeline_ring_release_(ring);
}

#ifdef __cplusplus
}
#endif

#endif /* TAPELINE_RING_H */
