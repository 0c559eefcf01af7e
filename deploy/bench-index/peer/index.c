// The key-value index in C: the same hash, the same slots, the same probing, as domains/storage/kv-engine has them. Reads a setup, makes
// the table, and for every line on its input that is a number of passes looks all keys up so often.
#include "peer.h"

#define KEY_BYTES 8
#define CHECK_BITS 10

struct slot { uint64_t hash, word; };
struct key_hash { uint64_t slot; uint16_t check; };
struct table { struct slot *slots; uint64_t mask; };

// FNV-1a with 128 bits, begun with a secret.
static inline struct key_hash hash_of(const uint64_t secret[2], const uint8_t *key) {
    const unsigned __int128 prime = ((unsigned __int128)1 << 88) + 0x13b;
    unsigned __int128 state = (unsigned __int128)secret[0] << 64 | secret[1];
    for (int i = 0; i < KEY_BYTES; i++) state = (state ^ key[i]) * prime;
    uint64_t high = state >> 64, low = state;
    uint64_t folded = (high ^ (low << 32 | low >> 32)) * 0x9e3779b97f4a7c15u;
    return (struct key_hash){ folded ^ folded >> 32, high >> (64 - CHECK_BITS) };
}

static inline uint64_t find(const struct table *table, struct key_hash hash) {
    for (uint64_t position = hash.slot;; position++) {
        const struct slot *slot = &table->slots[position & table->mask];
        if (slot->hash == hash.slot && slot->word != 0 && slot->word >> (64 - CHECK_BITS) == hash.check)
            return slot->word;
        if (slot->word == 0) return 0;
    }
}

static void insert(struct table *table, struct key_hash hash, uint64_t word) {
    uint64_t position = hash.slot & table->mask;
    while (table->slots[position].word != 0) position = (position + 1) & table->mask;
    table->slots[position] = (struct slot){ hash.slot, word };
}

int main(int argc, char **argv) {
    FILE *file = open_setup(argc, argv);

    // Secret; slots, keys, lookups; the keys; which are looked up, in order.
    uint64_t *secret = take(file, 8, 2), *sizes = take(file, 8, 3);
    uint8_t (*keys)[KEY_BYTES] = take(file, KEY_BYTES, sizes[1]);
    uint8_t (*lookups)[KEY_BYTES] = take(file, KEY_BYTES, sizes[2]);
    fclose(file);

    struct table table = { aligned_alloc(64, sizes[0] * sizeof *table.slots), sizes[0] - 1 };
    need(table.slots, "no memory");
    for (uint64_t i = 0; i < sizes[0]; i++) table.slots[i] = (struct slot){ 0, 0 };
    for (uint64_t i = 0; i < sizes[1]; i++) {
        struct key_hash hash = hash_of(secret, keys[i]);
        insert(&table, hash, (i + 1) | (uint64_t)hash.check << (64 - CHECK_BITS));
    }

    unsigned passes;
    while (scanf("%u", &passes) == 1) {
        uint64_t sum = 0, start = now_nanoseconds();
        for (unsigned pass = 0; pass < passes; pass++)
            for (uint64_t i = 0; i < sizes[2]; i++) sum += find(&table, hash_of(secret, lookups[i]));
        uint64_t spent = now_nanoseconds() - start;
        printf("%llu %llu\n", (unsigned long long)spent, (unsigned long long)sum);
        fflush(stdout);
    }
    return 0;
}
