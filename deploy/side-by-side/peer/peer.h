// What the C sides share: reading a setup, and the clock.
#define _POSIX_C_SOURCE 200809L
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

static inline void need(bool fine, const char *what) {
    if (!fine) { fprintf(stderr, "peer: %s\n", what); exit(1); }
}

static inline void *take(FILE *file, size_t size, size_t count) {
    void *memory = aligned_alloc(64, (size * count + 63) / 64 * 64);
    need(memory && fread(memory, size, count, file) == count, "the setup file is short");
    return memory;
}

static inline FILE *open_setup(int argc, char **argv) {
    need(argc == 2, "usage: peer SETUP");
    FILE *file = fopen(argv[1], "rb");
    need(file, "cannot open the setup file");
    return file;
}

// Processor time of this thread: what others do on the machine doesn't count.
static inline uint64_t now_nanoseconds(void) {
    struct timespec time;
    clock_gettime(CLOCK_THREAD_CPUTIME_ID, &time);
    return (uint64_t)time.tv_sec * 1000000000u + (uint64_t)time.tv_nsec;
}
