#ifndef CBATCHIO_H
#define CBATCHIO_H

#include <stdint.h>
#include <time.h>

// Sends and receives many datagrams in one system call, and the few things beside it that Swift cannot reach.
//
// Swift cannot see sendmmsg, recvmmsg, struct mmsghdr or the cmsg macros (Glibc is imported without _GNU_SOURCE), so the
// vectors live here, behind an opaque handle; the bytes live in the caller's arena and are never copied. Everything is
// allocated by cbatchio_create; no call allocates after it, none keeps global state, none blocks unless its name says so.
// Linux: sendmmsg(2), recvmmsg(2), UDP_SEGMENT (GSO) and UDP_GRO. Elsewhere: a loop over sendmsg(2) and recvmsg(2), the
// same results by more system calls. What a kernel does not have is not granted by cbatchio_configure and its fields stay
// zero. Errors are -errno.

typedef struct cbatchio cbatchio;

/// One message: a datagram, or several equal ones back to back of which the last may be shorter (a super-packet).
typedef struct {
    void *_Nullable bytes;       // Where to read the message from, or where to put it.
    uint32_t byte_count;         // In: bytes to send, or room to receive. Out: bytes received.
    uint16_t segment;            // In and out: bytes of each datagram of a super-packet (GSO, GRO); 0: one datagram.
    uint8_t is_truncated;        // Out: 1 if a datagram was longer than the room given.
    uint8_t address_length;      // Bytes of `address`; 0 on a connected socket.
    uint8_t address[28];         // A sockaddr_in or sockaddr_in6. In: where to. Out: where from.
    uint32_t dropped;            // Out: datagrams that the socket has dropped so far (SO_RXQ_OVFL); 0: not told.
    int64_t kernel_time_ns;      // Out: receive time, CLOCK_REALTIME (SO_TIMESTAMPNS); 0 if the kernel gave none.
    uint8_t ecn;                 // In: ECN codepoint to send, 0 for the socket's. Out: the one received.
    uint8_t ttl;                 // Out: TTL or hop limit; 0 if not asked for.
    uint8_t local_length;        // Out: 4 or 16 if PACKET_INFO was granted; in: of the source address to send from, 0: any.
    uint8_t local[16];           // The local address of the datagram, network order.
    uint32_t interface_index;    // Out: the interface it came in by.
} cbatchio_packet;

/// Vectors for up to `capacity` messages a call. NULL if memory ran out.
cbatchio *_Nullable cbatchio_create(uint32_t capacity);
void cbatchio_destroy(cbatchio *_Nullable self);

/// Sends `packets[0..<count]`, in order, without blocking. A message with a segment is cut into datagrams by the kernel.
/// Returns how many messages were sent, which may be fewer, or -errno if none was: what stopped it is told by the next call.
int cbatchio_send(cbatchio *_Nonnull self, int descriptor, const cbatchio_packet *_Nonnull packets, uint32_t count);

/// Receives up to `count` messages without blocking. `packets[0..<changed]` have other bytes or other room than in the
/// call before; the rest are as that call left them, so that an empty poll costs one system call and nothing beside it.
/// Messages that the last call filled always count as changed. Returns how many came, 0 if none was waiting, or -errno.
int cbatchio_receive(cbatchio *_Nonnull self, int descriptor, cbatchio_packet *_Nonnull packets, uint32_t count,
                     uint32_t changed);

/// What a socket can be asked for.
enum {
    CBATCHIO_GRO = 1,            // Equal datagrams of one flow come as one message.
    CBATCHIO_RECEIVE_STAMPS = 2, // kernel_time_ns.
    CBATCHIO_SEND_STAMPS = 4,    // By cbatchio_read_errors, in order of sending.
    CBATCHIO_DROP_COUNT = 8,     // dropped.
    CBATCHIO_ECN = 16,           // ecn.
    CBATCHIO_TTL = 32,           // ttl.
    CBATCHIO_PACKET_INFO = 64,   // local, interface_index.
    CBATCHIO_ERRORS = 128,       // ICMP errors by cbatchio_read_errors.
    CBATCHIO_DONT_FRAGMENT = 256 // Too long for the path is EMSGSIZE, never fragments.
};

/// Asks for features. Returns those that the kernel granted; what is not there is not given.
uint32_t cbatchio_configure(int descriptor, int family, uint32_t features);

/// Asks for a socket's receive buffer; beyond the system's limit if the process may. Returns what it has become.
int cbatchio_set_receive_buffer(int descriptor, int byte_count);
int cbatchio_set_send_buffer(int descriptor, int byte_count);

/// Lets the kernel pace a socket (SO_MAX_PACING_RATE; acts where the `fq` queueing discipline is). 0 or -errno.
int cbatchio_set_max_pacing_rate(int descriptor, uint64_t bytes_per_second);

/// Several sockets at one address, flows divided among them by the kernel (SO_REUSEPORT). 0 or -errno.
int cbatchio_share_port(int descriptor);

/// The path's MTU as the kernel knows it, of a connected socket; or -errno.
int cbatchio_path_mtu(int descriptor, int family);

typedef struct {
    uint32_t receive_queued;     // Bytes waiting, with their bookkeeping.
    uint32_t receive_buffer;
    uint32_t send_queued;
    uint32_t send_buffer;
    uint32_t dropped;            // Datagrams dropped at the socket so far (SK_MEMINFO_DROPS).
} cbatchio_memory;

/// The socket's memory and drops (SO_MEMINFO). 0 or -errno.
int cbatchio_read_memory(int descriptor, cbatchio_memory *_Nonnull out);

typedef struct {
    uint8_t origin;              // 1: local, 2: ICMP, 3: ICMPv6, 4: a send stamp.
    uint8_t type, code;          // Of the ICMP message.
    int32_t error;               // errno; 0 for a stamp.
    uint32_t info;               // The MTU for EMSGSIZE; the number of the datagram for a stamp.
    int64_t kernel_time_ns;      // Of a stamp, CLOCK_REALTIME.
} cbatchio_error;

/// Takes up to `count` entries from the socket's error queue. Returns how many, 0 if it is empty, or -errno.
int cbatchio_read_errors(int descriptor, cbatchio_error *_Nonnull out, uint32_t count);

typedef struct {
    uint8_t gso, gro, receive_stamps, send_stamps, drop_count;
    uint16_t max_segments;       // Of one super-packet.
    int32_t fault;               // Why gso or gro is 0: an errno, or -1: the bytes came wrong.
} cbatchio_capabilities;

/// Sends super-packets of equal segments, and with a short tail, to itself over loopback and verifies every byte: some
/// kernels accept UDP_SEGMENT and mangle what leaves. Blocks for at most 200 ms. 0 or -errno.
int cbatchio_probe(int family, cbatchio_capabilities *_Nonnull out);

/// Sends `count` bytes of `file` from `offset` to a stream socket without a copy in user space.
/// Returns how many went, 0 at the end of the file, or -errno (-EAGAIN: the socket is full).
int64_t cbatchio_send_file(int descriptor, int file, int64_t offset, uint64_t count);

/// Binds the calling thread to a processor. 0 or -errno.
int cbatchio_pin_thread(int processor);
/// How late the kernel may wake the calling thread. 0 or -errno.
int cbatchio_set_timer_slack(uint64_t nanoseconds);

typedef struct {
    int64_t processor_ns;        // User and system time of the calling thread.
    int64_t run_queue_delay_ns;  // Time it was ready and not run; -1 if unknown.
    int64_t involuntary_switches;
} cbatchio_thread_usage;

void cbatchio_read_thread_usage(cbatchio_thread_usage *_Nonnull out);

/// CLOCK_REALTIME in nanoseconds.
static inline uint64_t cbatchio_real_ns(void) {
    struct timespec t;
    clock_gettime(CLOCK_REALTIME, &t);
    return (uint64_t)t.tv_sec * 1000000000u + (uint64_t)t.tv_nsec;
}

/// CLOCK_MONOTONIC in nanoseconds.
static inline uint64_t cbatchio_mono_ns(void) {
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return (uint64_t)t.tv_sec * 1000000000u + (uint64_t)t.tv_nsec;
}

#endif
