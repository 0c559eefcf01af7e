// The forwarding path of a Maglev balancer in C, for comparison with the one in safe Rust (domains/net/maglev).
//
// The same work on the same data: parse the headers, find the VIP, hash the 5-tuple, look into the connection table and
// insert on a miss, fall back to the lookup table, write two MAC addresses, count. It is what a careful C programmer
// writes: batches of 32 with prefetching of buckets and of the frames to come, one cache line a bucket, no allocation.
// Frames other than plain IPv4 don't occur in the measurement; it recognises them and leaves them alone.
//
// Usage: peer SETUP, then lines "hit ROUND_PASSES" or "miss ROUND_PASSES" on standard input; it answers each with
// "NANOSECONDS CHECKSUM ENTRIES" of all frames' passes. SETUP's layout is written by src/peer.rs.

#include "peer.h"

enum { BATCH = 32, WAYS = 6, SWEEP_PER_BATCH = 8, SWEEP_PERIOD = 64, LONGEST_TIMEOUT = 8000 };
enum { OPENING = 1, ESTABLISHED = 2, CLOSING = 3 };
enum { SEGMENT, OPENS, CLOSES, DATAGRAM };
enum { FIN = 1, SYN = 2, RST = 4, ACK = 16 };
enum { NOT_MINE, TRANSMIT, DROP_MALFORMED, DROP_NO_BACKEND, DROP_NEIGHBOUR_UNKNOWN };
enum { VACANT, UNREACHABLE, REACHABLE };

#define likely(x) __builtin_expect(!!(x), 1)
#define unlikely(x) __builtin_expect(!!(x), 0)
#define TICK_MASK 0x3fff

struct backend_ref { uint16_t slot, incarnation; };

struct bucket {
    uint32_t tags[WAYS];
    struct backend_ref backends[WAYS];
    uint16_t lives[WAYS];
    uint16_t spilled;
    uint8_t guests;
} __attribute__((aligned(64)));
_Static_assert(sizeof(struct bucket) == 64, "a bucket is a cache line");

struct target { uint8_t header[12]; uint16_t vip, incarnation; uint8_t state, draining; };
struct counter { uint64_t packets, bytes, connections, padding; };
struct vip_place { uint64_t key; uint16_t vip; };
struct packet { uint8_t *data; uint64_t length; };
struct verdict { uint8_t kind; uint16_t slot; };
struct pending { uint64_t hash; uint32_t length; uint16_t vip; uint8_t event; };

struct balancer {
    uint64_t keys[4];
    uint16_t timeouts[4]; // By state; 0 is UDP's.
    uint16_t lives[16];   // By event and state, for the current second.
    struct vip_place *vips;
    uint32_t vip_mask, vip_shift;
    uint16_t *table;
    uint64_t table_size;
    struct target *targets;
    uint32_t target_count;
    struct bucket *buckets;
    uint64_t mask;
    uint64_t now_seconds;
    uint16_t now;
    uint64_t sweep_next, sweep_owed;
    uint64_t entries, overflowed, displaced;
    struct counter *backend_counters;
    uint64_t dropped;
};

static inline uint64_t fold(uint64_t a, uint64_t b) {
    unsigned __int128 product = (unsigned __int128)a * b;
    return (uint64_t)product ^ (uint64_t)(product >> 64);
}

static inline uint16_t read16(const uint8_t *at) { uint16_t v; memcpy(&v, at, 2); return __builtin_bswap16(v); }
static inline uint32_t read32(const uint8_t *at) { uint32_t v; memcpy(&v, at, 4); return __builtin_bswap32(v); }

static inline bool alive(uint16_t life, uint16_t now) {
    uint16_t remaining = (uint16_t)(life - now) & TICK_MASK;
    return life >> 14 != 0 && remaining != 0 && remaining <= LONGEST_TIMEOUT;
}

static inline uint16_t make_life(unsigned state, uint16_t now, uint16_t timeout) {
    return (uint16_t)(state << 14 | ((now + timeout) & TICK_MASK));
}

static inline uint64_t other_bucket(const struct balancer *b, uint64_t bucket, uint32_t tag) {
    return (bucket ^ ((tag * 0x9e3779b1u >> 7) | 1)) & b->mask;
}

static void vacate(struct balancer *b, uint64_t index, unsigned way) {
    struct bucket *bucket = &b->buckets[index];
    bucket->lives[way] = 0;
    if (bucket->guests & 1u << way) {
        bucket->guests &= ~(1u << way);
        b->buckets[other_bucket(b, index, bucket->tags[way])].spilled--;
    }
    b->entries--;
}

static inline int bucket_find(const struct bucket *bucket, uint32_t tag, uint16_t now) {
    unsigned matches = 0;
    for (unsigned way = 0; way < WAYS; way++) matches |= (unsigned)(bucket->tags[way] == tag) << way;
    while (matches) {
        int way = __builtin_ctz(matches);
        if (likely(alive(bucket->lives[way], now))) return way;
        matches &= matches - 1;
    }
    return -1;
}

static inline int bucket_vacancy(const struct bucket *bucket, uint16_t now) {
    for (int way = 0; way < WAYS; way++)
        if (!alive(bucket->lives[way], now)) return way;
    return -1;
}

static inline struct bucket *find(struct balancer *b, uint64_t hash, int *way) {
    uint32_t tag = hash >> 32;
    struct bucket *bucket = &b->buckets[hash & b->mask];
    *way = bucket_find(bucket, tag, b->now);
    if (likely(*way >= 0)) return bucket;
    if (bucket->spilled == 0) return NULL;
    bucket = &b->buckets[other_bucket(b, hash & b->mask, tag)];
    *way = bucket_find(bucket, tag, b->now);
    return *way >= 0 ? bucket : NULL;
}

static inline void occupy(struct balancer *b, uint64_t index, int way, uint32_t tag, struct backend_ref backend,
                          uint16_t life) {
    struct bucket *bucket = &b->buckets[index];
    if (bucket->lives[way] != 0) vacate(b, index, way);
    bucket->tags[way] = tag;
    bucket->backends[way] = backend;
    bucket->lives[way] = life;
    b->entries++;
}

static void occupy_as_guest(struct balancer *b, uint64_t first, uint64_t second, int way, uint32_t tag,
                            struct backend_ref backend, uint16_t life) {
    occupy(b, second, way, tag, backend, life);
    b->buckets[second].guests |= 1u << way;
    b->buckets[first].spilled++;
}

static int guest_vacancy(const struct balancer *b, uint64_t first, uint64_t second) {
    return b->buckets[first].spilled == UINT16_MAX ? -1 : bucket_vacancy(&b->buckets[second], b->now);
}

static int move_one_away(struct balancer *b, uint64_t index) {
    for (int way = 0; way < WAYS; way++) {
        struct bucket copy = b->buckets[index];
        uint64_t other = other_bucket(b, index, copy.tags[way]);
        bool guest = copy.guests & 1u << way;
        int place = guest ? bucket_vacancy(&b->buckets[other], b->now) : guest_vacancy(b, index, other);
        if (place < 0) continue;
        vacate(b, index, way);
        if (guest) occupy(b, other, place, copy.tags[way], copy.backends[way], copy.lives[way]);
        else occupy_as_guest(b, index, other, place, copy.tags[way], copy.backends[way], copy.lives[way]);
        return way;
    }
    return -1;
}

static __attribute__((noinline, cold)) bool insert_elsewhere(struct balancer *b, uint64_t first, uint32_t tag,
                                                             struct backend_ref backend, uint16_t life) {
    uint64_t second = other_bucket(b, first, tag);
    int way = guest_vacancy(b, first, second);
    if (way >= 0) { occupy_as_guest(b, first, second, way, tag, backend, life); return true; }
    way = move_one_away(b, first);
    if (way >= 0) { occupy(b, first, way, tag, backend, life); return true; }
    int oldest = -1;
    unsigned least = UINT32_MAX;
    for (int way = 0; way < WAYS; way++) {
        uint16_t l = b->buckets[first].lives[way];
        unsigned remaining = (uint16_t)(l - b->now) & TICK_MASK;
        if (l >> 14 == OPENING && remaining < least) { oldest = way; least = remaining; }
    }
    if (oldest < 0) { b->overflowed++; return false; }
    b->displaced++;
    occupy(b, first, oldest, tag, backend, life);
    return true;
}

static inline bool insert(struct balancer *b, uint64_t hash, struct backend_ref backend, uint16_t life) {
    uint64_t first = hash & b->mask;
    int way = bucket_vacancy(&b->buckets[first], b->now);
    if (unlikely(way < 0)) return insert_elsewhere(b, first, hash >> 32, backend, life);
    occupy(b, first, way, hash >> 32, backend, life);
    return true;
}

static void sweep(struct balancer *b, uint64_t count) {
    if (count > b->sweep_owed) count = b->sweep_owed;
    for (uint64_t i = 0; i < count; i++) {
        uint64_t index = b->sweep_next & b->mask;
        for (unsigned way = 0; way < WAYS; way++) {
            uint16_t life = b->buckets[index].lives[way];
            if (life != 0 && !alive(life, b->now)) vacate(b, index, way);
        }
        b->sweep_next = index + 1;
    }
    b->sweep_owed -= count;
}

static void renew_lives(struct balancer *b) {
    static const uint8_t next[16] = {
        ESTABLISHED, ESTABLISHED, ESTABLISHED, CLOSING, OPENING,     OPENING,     ESTABLISHED, CLOSING,
        CLOSING,     CLOSING,     CLOSING,     CLOSING, ESTABLISHED, ESTABLISHED, ESTABLISHED, ESTABLISHED,
    };
    for (unsigned i = 0; i < 16; i++)
        b->lives[i] = make_life(next[i], b->now, b->timeouts[i >> 2 == DATAGRAM ? 0 : next[i]]);
}

static void advance(struct balancer *b, uint64_t now_seconds) {
    if (unlikely(now_seconds > b->now_seconds)) {
        uint64_t elapsed = now_seconds - b->now_seconds;
        sweep(b, b->sweep_owed);
        b->now_seconds = now_seconds;
        b->now = now_seconds & TICK_MASK;
        renew_lives(b);
        if (elapsed >= LONGEST_TIMEOUT) {
            memset(b->buckets, 0, (b->mask + 1) * sizeof *b->buckets);
            b->sweep_owed = b->entries = 0;
        } else {
            uint64_t owed = elapsed * (b->mask + 1) / SWEEP_PERIOD;
            b->sweep_owed = owed <= b->mask ? owed : b->mask + 1;
        }
    }
    if (b->sweep_owed) sweep(b, SWEEP_PER_BATCH);
}

static inline int find_vip(const struct balancer *b, uint32_t address, uint16_t port, uint8_t protocol) {
    uint64_t key = (uint64_t)address << 32 | (uint64_t)port << 8 | protocol;
    uint64_t index = key * 0x9e3779b97f4a7c15u >> b->vip_shift;
    for (;; index = (index + 1) & b->vip_mask) {
        if (b->vips[index].vip == UINT16_MAX) return -1;
        if (likely(b->vips[index].key == key)) return b->vips[index].vip;
    }
}

// Reads a plain IPv4 packet; false for every other.
static inline bool parse(const struct balancer *b, const struct packet *packet, struct pending *pending) {
    const uint8_t *header = packet->data;
    if (unlikely(packet->length < 54)) return false;
    uint8_t protocol = header[23];
    unsigned total = read16(header + 16), minimum = protocol == 6 ? 40 : 28;
    if (unlikely((protocol != 6 && protocol != 17) || read16(header + 12) != 0x0800 || header[14] != 0x45 ||
                 (read16(header + 20) & 0x3fff) || total < minimum || total > packet->length - 14))
        return false;
    uint16_t source_port = read16(header + 34), destination_port = read16(header + 36);
    uint32_t source = read32(header + 26), destination = read32(header + 30);
    int vip = find_vip(b, destination, destination_port, protocol);
    if (unlikely(vip < 0)) return false;
    uint64_t pair = (uint64_t)source << 32 | destination;
    uint64_t tail = (uint64_t)source_port << 48 | (uint64_t)destination_port << 32 | protocol;
    pending->hash = fold(fold(pair ^ b->keys[0], tail ^ b->keys[1]) ^ b->keys[2], b->keys[3]);
    pending->length = packet->length;
    pending->vip = vip;
    uint8_t flags = header[47];
    pending->event = protocol == 17              ? DATAGRAM
                     : flags & (FIN | RST)       ? CLOSES
                     : (flags & (SYN | ACK)) == SYN ? OPENS
                                                    : SEGMENT;
    return true;
}

static inline bool remembered(const struct balancer *b, struct backend_ref ref, uint16_t vip,
                              const struct target **target) {
    if (unlikely(ref.slot >= b->target_count)) return false;
    *target = &b->targets[ref.slot];
    return likely((*target)->incarnation == ref.incarnation && (*target)->vip == vip && (*target)->state != VACANT);
}

static inline int choose(struct balancer *b, const struct pending *pending, const struct target **target) {
    unsigned event = pending->event;
    int way;
    struct bucket *bucket = find(b, pending->hash, &way);
    if (bucket && remembered(b, bucket->backends[way], pending->vip, target)) {
        unsigned state = bucket->lives[way] >> 14;
        bool anew = event == OPENS && (state == CLOSING || (state == ESTABLISHED && (*target)->draining));
        if (likely(!anew)) {
            uint16_t life = b->lives[event << 2 | state];
            if (bucket->lives[way] != life) bucket->lives[way] = life;
            return bucket->backends[way].slot;
        }
    }
    uint16_t slot = b->table[(uint64_t)(((unsigned __int128)pending->hash * b->table_size) >> 64)];
    if (unlikely(slot >= b->target_count)) return -1;
    *target = &b->targets[slot];
    struct backend_ref ref = { slot, (*target)->incarnation };
    uint16_t life = b->lives[event << 2];
    bool is_remembered = true;
    if (bucket) {
        bucket->backends[way] = ref;
        bucket->lives[way] = life;
    } else {
        is_remembered = insert(b, pending->hash, ref, life);
    }
    if (event == OPENS || (event == DATAGRAM && is_remembered)) b->backend_counters[slot].connections++;
    return slot;
}

static void forward(struct balancer *b, uint64_t now_ns, struct packet *packets, struct verdict *verdicts,
                    size_t count) {
    advance(b, now_ns / 1000000000);
    struct pending batch[BATCH];
    uint8_t indices[BATCH];
    unsigned mine = 0;
    for (size_t i = 0; i < count; i++) __builtin_prefetch(packets[i].data, 1);
    for (size_t i = 0; i < count; i++) {
        if (likely(parse(b, &packets[i], &batch[mine]))) {
            __builtin_prefetch(&b->buckets[batch[mine].hash & b->mask], 1);
            indices[mine++] = i;
        } else {
            verdicts[i] = (struct verdict){ NOT_MINE, 0 };
        }
    }
    for (unsigned i = 0; i < mine; i++) {
        struct verdict *verdict = &verdicts[indices[i]];
        const struct target *target;
        int slot = choose(b, &batch[i], &target);
        if (unlikely(slot < 0)) { b->dropped++; *verdict = (struct verdict){ DROP_NO_BACKEND, 0 }; continue; }
        if (unlikely(target->state != REACHABLE)) {
            b->dropped++;
            *verdict = (struct verdict){ DROP_NEIGHBOUR_UNKNOWN, 0 };
            continue;
        }
        memcpy(packets[indices[i]].data, target->header, 12);
        b->backend_counters[slot].packets++;
        b->backend_counters[slot].bytes += batch[i].length;
        *verdict = (struct verdict){ TRANSMIT, slot };
    }
}

int main(int argc, char **argv) {
    FILE *file = open_setup(argc, argv);

    // Keys; then table size, buckets, backends, frames, frame length, VIP places.
    struct balancer b = { 0 };
    uint64_t *keys = take(file, 8, 4), *sizes = take(file, 8, 6);
    memcpy(b.keys, keys, sizeof b.keys);
    b.table_size = sizes[0];
    b.mask = sizes[1] - 1;
    b.target_count = sizes[2];
    size_t frame_count = sizes[3], frame_length = sizes[4], vip_places = sizes[5];
    uint16_t *timeouts = take(file, 2, 4);
    memcpy(b.timeouts, timeouts, sizeof b.timeouts);
    uint8_t *source_mac = take(file, 1, 6);
    b.table = take(file, 2, b.table_size);
    uint8_t *macs = take(file, 6, b.target_count);
    uint64_t *vip_key = take(file, 8, 1);
    uint8_t *frames = take(file, frame_length, frame_count);
    fclose(file);

    b.targets = calloc(b.target_count, sizeof *b.targets);
    for (uint32_t slot = 0; slot < b.target_count; slot++) {
        memcpy(b.targets[slot].header, macs + 6 * slot, 6);
        memcpy(b.targets[slot].header + 6, source_mac, 6);
        b.targets[slot].state = REACHABLE;
    }
    b.vip_mask = vip_places - 1;
    b.vip_shift = 64 - __builtin_ctzl(vip_places);
    b.vips = calloc(vip_places, sizeof *b.vips);
    for (size_t i = 0; i < vip_places; i++) b.vips[i].vip = UINT16_MAX;
    b.vips[*vip_key * 0x9e3779b97f4a7c15u >> b.vip_shift] = (struct vip_place){ *vip_key, 0 };
    b.buckets = aligned_alloc(64, (b.mask + 1) * sizeof *b.buckets);
    memset(b.buckets, 0, (b.mask + 1) * sizeof *b.buckets);
    b.backend_counters = calloc(4096, sizeof *b.backend_counters);

    struct packet *packets = calloc(frame_count, sizeof *packets);
    for (size_t i = 0; i < frame_count; i++)
        packets[i] = (struct packet){ frames + i * frame_length, frame_length };
    struct verdict verdicts[BATCH];

    char mode[8];
    unsigned passes;
    uint64_t seconds = 1;
    while (scanf("%7s %u", mode, &passes) == 2) {
        bool miss = mode[0] == 'm';
        for (size_t i = 0; i < frame_count; i++) packets[i].data[47] = miss ? SYN : ACK;
        uint64_t spent = 0;
        for (unsigned pass = 0; pass < passes; pass++) {
            if (miss) {
                seconds += LONGEST_TIMEOUT - 1;
                forward(&b, seconds * 1000000000, packets, verdicts, 0);
            }
            uint64_t start = now_nanoseconds();
            for (size_t i = 0; i < frame_count; i += BATCH) {
                size_t count = frame_count - i < BATCH ? frame_count - i : BATCH;
                forward(&b, seconds * 1000000000, packets + i, verdicts, count);
                __asm__ volatile("" ::"r"(verdicts) : "memory");
            }
            spent += now_nanoseconds() - start;
        }
        uint64_t checksum = 0;
        for (size_t i = 0; i < frame_count; i++)
            for (unsigned byte = 0; byte < 12; byte++) checksum = checksum * 31 + packets[i].data[byte];
        printf("%llu %llu %llu\n", (unsigned long long)spent, (unsigned long long)checksum,
               (unsigned long long)b.entries);
        fflush(stdout);
    }
    return 0;
}
