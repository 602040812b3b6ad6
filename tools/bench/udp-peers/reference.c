// The plain-C reference of tools/bench/udp: one flow of datagrams, sent or received as well as C can.
//
//   reference send --to HOST:PORT --size BYTES --seconds S [--gso N] [--batch M] [--rate PPS] [--spin-us U] [--cpu N] [--flow ID]
//   reference receive --listen HOST:PORT --seconds S [--gro] [--batch M] [--wait spin|block|nap:US] [--cpu N]
//                     [--kernel-stamps] [--buffer BYTES] [--flow ID]
//   reference probe
//
// The same work as the program's own lanes: a header of 32 bytes with number and time written for every datagram; parsed for
// every datagram, with loss, reordering, duplicates, RFC 3550 jitter, IPDV and delay histograms updated. Pinned, connected,
// vectors prepared once, one clock read a system call. Prints one line of JSON. `probe` prints the nanoseconds that a cache
// line takes from processor 0 to processor 1 and back.

#include <arpa/inet.h>
#include <errno.h>
#include <fcntl.h>
#include <netinet/in.h>
#include <netinet/udp.h>
#include <poll.h>
#include <pthread.h>
#include <sched.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <time.h>
#include <unistd.h>
#include <linux/sock_diag.h>

#ifndef SO_MEMINFO
#define SO_MEMINFO 55
#endif

enum { HEADER = 32, CONTROL = 128 };

static uint64_t now_ns(clockid_t clock) {
    struct timespec t;
    clock_gettime(clock, &t);
    return (uint64_t)t.tv_sec * 1000000000u + (uint64_t)t.tv_nsec;
}

static void fail(const char *what) {
    fprintf(stderr, "reference: %s: %s\n", what, strerror(errno));
    exit(1);
}

static struct {
    const char *address, *wait;
    uint32_t size, gso, batch, flow;
    double seconds, rate;
    uint64_t spin_ns, buffer, nap_ns;
    int cpu;
    bool gro, kernel_stamps;
} options = {.size = 1200, .gso = 1, .flow = 1, .seconds = 1, .spin_ns = 80000, .buffer = 8 << 20, .cpu = -1, .wait = "spin"};

static void read_options(int count, char **words) {
    for (int i = 0; i < count; i++) {
        const char *name = words[i];
        if (!strcmp(name, "--gro")) { options.gro = true; continue; }
        if (!strcmp(name, "--kernel-stamps")) { options.kernel_stamps = true; continue; }
        if (++i >= count) { fprintf(stderr, "reference: %s needs a value\n", name); exit(64); }
        const char *value = words[i];
        if (!strcmp(name, "--to") || !strcmp(name, "--listen")) options.address = value;
        else if (!strcmp(name, "--size")) options.size = (uint32_t)atoi(value);
        else if (!strcmp(name, "--gso")) options.gso = (uint32_t)atoi(value);
        else if (!strcmp(name, "--batch")) options.batch = (uint32_t)atoi(value);
        else if (!strcmp(name, "--flow")) options.flow = (uint32_t)strtoul(value, NULL, 10);
        else if (!strcmp(name, "--seconds")) options.seconds = atof(value);
        else if (!strcmp(name, "--rate")) options.rate = atof(value);
        else if (!strcmp(name, "--spin-us")) options.spin_ns = (uint64_t)(atof(value) * 1000);
        else if (!strcmp(name, "--buffer")) options.buffer = strtoull(value, NULL, 10);
        else if (!strcmp(name, "--cpu")) options.cpu = atoi(value);
        else if (!strcmp(name, "--wait")) options.wait = value;
        else { fprintf(stderr, "reference: unknown option %s\n", name); exit(64); }
    }
    if (!strncmp(options.wait, "nap:", 4)) options.nap_ns = (uint64_t)(atof(options.wait + 4) * 1000);
}

static struct sockaddr_in address_of(const char *text) {
    struct sockaddr_in address = {.sin_family = AF_INET};
    char host[64];
    const char *colon = strrchr(text, ':');
    if (!colon || colon - text >= (long)sizeof host) { fprintf(stderr, "reference: expected HOST:PORT\n"); exit(64); }
    memcpy(host, text, (size_t)(colon - text));
    host[colon - text] = 0;
    if (inet_pton(AF_INET, host, &address.sin_addr) != 1) { fprintf(stderr, "reference: %s is no IPv4 address\n", host); exit(64); }
    address.sin_port = htons((uint16_t)atoi(colon + 1));
    return address;
}

static void prepare_thread(void) {
    prctl(PR_SET_TIMERSLACK, 1UL, 0, 0, 0);
    if (options.cpu < 0) return;
    cpu_set_t set;
    CPU_ZERO(&set);
    CPU_SET(options.cpu, &set);
    sched_setaffinity(0, sizeof set, &set);
}

static double run_queue_delay(void) {
    FILE *file = fopen("/proc/thread-self/schedstat", "r");
    long long on, delay = 0;
    if (file && fscanf(file, "%lld %lld", &on, &delay) != 2) delay = 0;
    if (file) fclose(file);
    return (double)delay / 1e9;
}

static double processor_seconds(void) {
    struct rusage usage;
    getrusage(RUSAGE_THREAD, &usage);
    return (double)(usage.ru_utime.tv_sec + usage.ru_stime.tv_sec) + (double)(usage.ru_utime.tv_usec + usage.ru_stime.tv_usec) / 1e6;
}

static inline void put64(uint8_t *bytes, uint64_t value) {
    value = __builtin_bswap64(value);
    memcpy(bytes, &value, 8);
}
static inline uint64_t get64(const uint8_t *bytes) {
    uint64_t value;
    memcpy(&value, bytes, 8);
    return __builtin_bswap64(value);
}

static void *arena(size_t bytes) {
    void *memory = mmap(NULL, bytes, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_POPULATE, -1, 0);
    if (memory == MAP_FAILED) fail("mmap");
    return memory;
}

// Sending

static int send_flow(void) {
    if (!options.batch) options.batch = options.gso > 1 ? 4 : 64;
    int descriptor = socket(AF_INET, SOCK_DGRAM, 0);
    struct sockaddr_in to = address_of(options.address);
    if (descriptor < 0 || connect(descriptor, (struct sockaddr *)&to, sizeof to)) fail("connect");
    int buffer = 4 << 20;
    if (setsockopt(descriptor, SOL_SOCKET, SO_SNDBUFFORCE, &buffer, sizeof buffer))
        setsockopt(descriptor, SOL_SOCKET, SO_SNDBUF, &buffer, sizeof buffer);
    prepare_thread();
    uint32_t batch = options.batch, size = options.size, segments = options.gso;
    size_t stride = ((size_t)size * segments + 63) & ~(size_t)63;
    uint8_t *bytes = arena(stride * batch);
    memset(bytes, 0xA5, stride * batch);
    struct mmsghdr *messages = calloc(batch, sizeof *messages);
    struct iovec *vectors = calloc(batch, sizeof *vectors);
    uint8_t *control = calloc(batch, CONTROL);
    uint64_t first = (uint64_t)0x5442 << 48 | (uint64_t)0x14 << 40 | options.flow;
    for (uint32_t i = 0; i < batch; i++) {
        vectors[i] = (struct iovec){bytes + i * stride, (size_t)size * segments};
        messages[i].msg_hdr.msg_iov = &vectors[i];
        messages[i].msg_hdr.msg_iovlen = 1;
        if (segments > 1) {
            messages[i].msg_hdr.msg_control = control + (size_t)i * CONTROL;
            messages[i].msg_hdr.msg_controllen = CMSG_SPACE(2);
            struct cmsghdr *c = CMSG_FIRSTHDR(&messages[i].msg_hdr);
            c->cmsg_level = 17;
            c->cmsg_type = 103;
            c->cmsg_len = CMSG_LEN(2);
            uint16_t segment = (uint16_t)size;
            memcpy(CMSG_DATA(c), &segment, 2);
        }
        for (uint32_t s = 0; s < segments; s++) {
            put64(bytes + i * stride + (size_t)s * size, first);
            put64(bytes + i * stride + (size_t)s * size + 24, size - HEADER);
        }
    }
    double cpu_before = processor_seconds(), delay_before = run_queue_delay();
    uint64_t began = now_ns(CLOCK_MONOTONIC), end = began + (uint64_t)(options.seconds * 1e9), sequence = 0, calls = 0;
    // Datagram n of a paced run is due at began + n * 1e9 / rate: from totals, so that errors do not add up.
    double gap = options.rate > 0 ? 1e9 / options.rate : 0;
    uint64_t now = began;
    while (now < end) {
        uint32_t due = batch;
        if (gap > 0) {
            uint64_t at = began + (uint64_t)((double)sequence * gap);
            if (at > end) break;
            if (now < at) {
                if (at - now > options.spin_ns) {
                    uint64_t wake = at - options.spin_ns;
                    struct timespec t = {(time_t)(wake / 1000000000), (long)(wake % 1000000000)};
                    clock_nanosleep(CLOCK_MONOTONIC, TIMER_ABSTIME, &t, NULL);
                }
                while ((now = now_ns(CLOCK_MONOTONIC)) < at) {}
            }
            due = (uint32_t)((double)(now - began) / gap / segments) + 1 - (uint32_t)(sequence / segments);
            if (due > batch) due = batch;
            if (due == 0) due = 1;
        }
        uint64_t time = now_ns(CLOCK_REALTIME);
        for (uint32_t i = 0; i < due; i++) {
            uint8_t *datagram = bytes + i * stride;
            for (uint32_t s = 0; s < segments; s++, datagram += size) {
                put64(datagram + 8, sequence + (uint64_t)i * segments + s);
                put64(datagram + 16, time);
            }
        }
        int sent = sendmmsg(descriptor, messages, due, MSG_DONTWAIT);
        calls++;
        if (sent > 0) sequence += (uint64_t)sent * segments;
        else if (errno == EAGAIN) { struct pollfd p = {descriptor, POLLOUT, 0}; poll(&p, 1, 10); }
        else if (errno != ECONNREFUSED && errno != ENOBUFS) fail("sendmmsg");
        now = now_ns(CLOCK_MONOTONIC);
    }
    printf("{\"role\":\"send\",\"seconds\":%.6f,\"datagrams\":%llu,\"bytes\":%llu,\"calls\":%llu,\"cpu_seconds\":%.6f,\"runqueue_delay_seconds\":%.6f}\n",
           (double)(now - began) / 1e9, (unsigned long long)sequence, (unsigned long long)(sequence * size),
           (unsigned long long)calls, processor_seconds() - cpu_before, run_queue_delay() - delay_before);
    return 0;
}

// Receiving

enum { WINDOW = 65536, BUCKETS = 36 * 128 };
struct histogram { uint64_t counts[BUCKETS]; };
static inline void record(struct histogram *h, uint64_t value) {
    int shift = 56 - (value ? __builtin_clzll(value) : 64);
    if (shift < 0) shift = 0;
    uint64_t bucket = (uint64_t)shift * 128 + (value >> shift);
    h->counts[bucket < BUCKETS ? bucket : BUCKETS - 1]++;
}
static long long quantile(const struct histogram *h, double fraction) {
    uint64_t total = 0, seen = 0;
    for (int i = 0; i < BUCKETS; i++) total += h->counts[i];
    if (!total) return -1;
    uint64_t rank = (uint64_t)(fraction * (double)total);
    for (int i = 0; i < BUCKETS; i++) {
        seen += h->counts[i];
        if (seen > rank || seen == total) {
            if (i < 256) return i;
            int shift = i / 128 - 1;
            return (long long)(((uint64_t)(i % 128) + 129) << shift) - 1;
        }
    }
    return -1;
}

struct account {
    uint64_t window[WINDOW / 64];
    uint64_t next, arrivals, in_order, reordered, duplicated, late, bytes, other;
    int64_t previous, jitter, least, greatest;
    bool has_previous;
    struct histogram delay, variation;
};

static void clear_window(struct account *a, uint64_t from, uint64_t through) {
    if (through - from >= WINDOW) { memset(a->window, 0, sizeof a->window); return; }
    for (uint64_t s = from; s <= through; s++) a->window[(s >> 6) % (WINDOW / 64)] &= ~(1ull << (s & 63));
}

static __attribute__((noinline)) bool classify(struct account *a, uint64_t sequence) {
    if (sequence >= a->next) {
        clear_window(a, a->next, sequence);
        a->window[(sequence >> 6) % (WINDOW / 64)] |= 1ull << (sequence & 63);
        a->next = sequence + 1;
        return true;
    }
    if (a->next - sequence > WINDOW) { a->late++; return false; }
    uint64_t *word = &a->window[(sequence >> 6) % (WINDOW / 64)], bit = 1ull << (sequence & 63);
    if (*word & bit) { a->duplicated++; return false; }
    *word |= bit;
    a->reordered++;
    return false;
}

static inline void take(struct account *a, const uint8_t *datagram, uint32_t length, int64_t arrived, uint64_t first) {
    if (length < HEADER || get64(datagram) != first || get64(datagram + 24) != length - HEADER) { a->other++; return; }
    uint64_t sequence = get64(datagram + 8);
    int64_t transit = arrived - (int64_t)get64(datagram + 16);
    a->arrivals++;
    bool is_next = sequence == a->next;
    if (is_next) {
        a->window[(sequence >> 6) % (WINDOW / 64)] |= 1ull << (sequence & 63);
        a->next = sequence + 1;
    }
    if (is_next || classify(a, sequence)) {
        a->in_order++;
        a->bytes += length;
        if (a->has_previous) record(&a->variation, (uint64_t)llabs(transit - a->previous));
    }
    if (a->has_previous) a->jitter += llabs(transit - a->previous) - ((a->jitter + 8) >> 4);
    a->previous = transit;
    a->has_previous = true;
    if (transit < a->least) a->least = transit;
    if (transit > a->greatest) a->greatest = transit;
    record(&a->delay, transit > 0 ? (uint64_t)transit : 0);
}

static int receive_flow(void) {
    if (!options.batch) options.batch = options.gro ? 64 : 256;
    int descriptor = socket(AF_INET, SOCK_DGRAM, 0), on = 1, buffer = (int)options.buffer;
    struct sockaddr_in at = address_of(options.address), peer;
    socklen_t length = sizeof at;
    if (descriptor < 0 || bind(descriptor, (struct sockaddr *)&at, sizeof at) || getsockname(descriptor, (struct sockaddr *)&at, &length)) fail("bind");
    if (setsockopt(descriptor, SOL_SOCKET, SO_RCVBUFFORCE, &buffer, sizeof buffer))
        setsockopt(descriptor, SOL_SOCKET, SO_RCVBUF, &buffer, sizeof buffer);
    if (options.gro) setsockopt(descriptor, 17, 104, &on, sizeof on);
    if (options.kernel_stamps) setsockopt(descriptor, SOL_SOCKET, SO_TIMESTAMPNS, &on, sizeof on);
    setsockopt(descriptor, SOL_SOCKET, SO_RXQ_OVFL, &on, sizeof on);
    printf("port %d\n", ntohs(at.sin_port));
    fflush(stdout);
    prepare_thread();
    uint32_t batch = options.batch;
    size_t stride = options.gro ? 65536 : 2048;
    uint8_t *bytes = arena(stride * batch), *control = calloc(batch, CONTROL);
    struct mmsghdr *messages = calloc(batch, sizeof *messages);
    struct iovec *vectors = calloc(batch, sizeof *vectors);
    for (uint32_t i = 0; i < batch; i++) {
        vectors[i] = (struct iovec){bytes + i * stride, stride};
        messages[i].msg_hdr.msg_iov = &vectors[i];
        messages[i].msg_hdr.msg_iovlen = 1;
        messages[i].msg_hdr.msg_control = control + (size_t)i * CONTROL;
        messages[i].msg_hdr.msg_controllen = CONTROL;
    }
    struct account *a = calloc(1, sizeof *a);
    struct histogram *to_application = calloc(1, sizeof *to_application), *gaps = calloc(1, sizeof *gaps);
    a->least = INT64_MAX;
    a->greatest = INT64_MIN;
    uint64_t first = (uint64_t)0x5442 << 48 | (uint64_t)0x14 << 40 | options.flow;
    struct pollfd ready = {descriptor, POLLIN, 0};
    if (poll(&ready, 1, 10000) <= 0) { fprintf(stderr, "reference: no datagram within 10 s\n"); return 1; }
    length = sizeof peer;
    uint8_t peek;
    if (recvfrom(descriptor, &peek, 1, MSG_PEEK, (struct sockaddr *)&peer, &length) >= 0) connect(descriptor, (struct sockaddr *)&peer, length);
    double cpu_before = processor_seconds(), delay_before = run_queue_delay();
    uint64_t began = now_ns(CLOCK_MONOTONIC), end = began + (uint64_t)(options.seconds * 1e9), last = began, calls = 0, count = 0, previous_stamp = 0;
    bool blocks = !strcmp(options.wait, "block");
    for (;;) {
        int got = recvmmsg(descriptor, messages, batch, MSG_DONTWAIT, NULL);
        if (got <= 0) {
            uint64_t now = now_ns(CLOCK_MONOTONIC);
            if (now >= end || now - last > 300000000) break;
            if (blocks) poll(&ready, 1, 100);
            else if (options.nap_ns) {
                struct timespec t = {0, (long)options.nap_ns};
                nanosleep(&t, NULL);
            }
            continue;
        }
        calls++;
        count += (uint64_t)got;
        uint64_t real = now_ns(CLOCK_REALTIME);
        for (int i = 0; i < got; i++) {
            uint32_t segment = 0, size = messages[i].msg_len;
            int64_t arrived = (int64_t)real;
            for (struct cmsghdr *c = CMSG_FIRSTHDR(&messages[i].msg_hdr); c; c = CMSG_NXTHDR(&messages[i].msg_hdr, c)) {
                if (c->cmsg_level == SOL_SOCKET && c->cmsg_type == SCM_TIMESTAMPNS) {
                    struct timespec t;
                    memcpy(&t, CMSG_DATA(c), sizeof t);
                    arrived = (int64_t)t.tv_sec * 1000000000 + t.tv_nsec;
                    record(to_application, real > (uint64_t)arrived ? real - (uint64_t)arrived : 0);
                    if (previous_stamp) record(gaps, (uint64_t)arrived > previous_stamp ? (uint64_t)arrived - previous_stamp : 0);
                    previous_stamp = (uint64_t)arrived;
                } else if (c->cmsg_level == 17 && c->cmsg_type == 104) {
                    int value;
                    memcpy(&value, CMSG_DATA(c), sizeof value);
                    segment = (uint32_t)value;
                }
            }
            messages[i].msg_hdr.msg_controllen = CONTROL;
            const uint8_t *datagram = vectors[i].iov_base;
            if (!segment) segment = size;
            for (uint32_t offset = 0; offset < size; offset += segment)
                take(a, datagram + offset, size - offset < segment ? size - offset : segment, arrived, first);
        }
        last = now_ns(CLOCK_MONOTONIC);
        if (last >= end) break;
        if (options.nap_ns && (uint32_t)got < batch) {
            struct timespec t = {0, (long)options.nap_ns};
            nanosleep(&t, NULL);
        }
    }
    uint32_t memory[SK_MEMINFO_VARS] = {0};
    length = sizeof memory;
    getsockopt(descriptor, SOL_SOCKET, SO_MEMINFO, memory, &length);
    uint64_t received = a->in_order + a->reordered;
    printf("{\"role\":\"receive\",\"seconds\":%.6f,\"datagrams\":%llu,\"bytes\":%llu,\"lost\":%lld,\"duplicated\":%llu,\"reordered\":%llu,\"corrupted\":%llu,"
           "\"jitter_ns\":%lld,\"delay_p50_ns\":%lld,\"delay_p99_ns\":%lld,\"delay_p999_ns\":%lld,\"kernel_to_app_p50_ns\":%lld,\"kernel_to_app_p99_ns\":%lld,"
           "\"gap_p50_ns\":%lld,\"gap_p99_ns\":%lld,\"cpu_seconds\":%.6f,\"runqueue_delay_seconds\":%.6f,\"calls\":%llu,\"messages\":%llu,\"socket_drops\":%u}\n",
           (double)(last - began) / 1e9, (unsigned long long)received, (unsigned long long)a->bytes, (long long)(a->next - received),
           (unsigned long long)a->duplicated, (unsigned long long)a->reordered, (unsigned long long)a->other, (long long)(a->jitter >> 4),
           quantile(&a->delay, 0.5), quantile(&a->delay, 0.99), quantile(&a->delay, 0.999), quantile(to_application, 0.5), quantile(to_application, 0.99),
           quantile(gaps, 0.5), quantile(gaps, 0.99), processor_seconds() - cpu_before, run_queue_delay() - delay_before,
           (unsigned long long)calls, (unsigned long long)count, memory[SK_MEMINFO_DROPS]);
    return 0;
}

// How far the two processors are from each other

static _Atomic uint64_t ball;
enum { ROUNDS = 20000 };
static void *answer(void *unused) {
    (void)unused;
    options.cpu = 1;
    prepare_thread();
    for (uint64_t i = 0; i < ROUNDS; i++) {
        while (atomic_load_explicit(&ball, memory_order_acquire) != 2 * i + 1) {}
        atomic_store_explicit(&ball, 2 * i + 2, memory_order_release);
    }
    return NULL;
}
static int probe(void) {
    options.cpu = 0;
    prepare_thread();
    pthread_t thread;
    if (pthread_create(&thread, NULL, answer, NULL)) return 1;
    static uint64_t times[ROUNDS];
    for (uint64_t i = 0; i < ROUNDS; i++) {
        uint64_t before = now_ns(CLOCK_MONOTONIC);
        atomic_store_explicit(&ball, 2 * i + 1, memory_order_release);
        while (atomic_load_explicit(&ball, memory_order_acquire) != 2 * i + 2) {}
        times[i] = now_ns(CLOCK_MONOTONIC) - before;
    }
    pthread_join(thread, NULL);
    struct histogram h = {{0}};
    for (int i = ROUNDS / 2; i < ROUNDS; i++) record(&h, times[i]);
    printf("%lld\n", quantile(&h, 0.5));
    return 0;
}

int main(int count, char **words) {
    if (count >= 2 && !strcmp(words[1], "probe")) return probe();
    if (count >= 2) read_options(count - 2, words + 2);
    if (count >= 2 && options.address && !strcmp(words[1], "send")) return send_flow();
    if (count >= 2 && options.address && !strcmp(words[1], "receive")) return receive_flow();
    fprintf(stderr, "usage: reference send|receive|probe …\n");
    return 64;
}
