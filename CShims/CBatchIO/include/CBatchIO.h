#ifndef CBATCHIO_H
#define CBATCHIO_H

#include <stdint.h>

// Sends and receives many datagrams in one system call, and the few things beside it that Swift cannot reach.
//
// Swift cannot see sendmmsg, recvmmsg, struct mmsghdr or the cmsg macros (Glibc is imported without _GNU_SOURCE), so the
// vectors live here, behind an opaque handle. Everything is allocated by cbatchio_create; no call allocates after it.
// Linux: sendmmsg(2), recvmmsg(2), UDP_SEGMENT and UDP_GRO. Elsewhere: a loop over sendmsg(2), recvmsg(2), the same
// results by more system calls. Errors are -errno.

typedef struct cbatchio cbatchio;

typedef struct {
    void *_Nullable bytes;       // Where to read the datagram from, or where to put it.
    uint32_t byte_count;         // In: bytes to send, or room to receive. Out: bytes received.
    uint16_t segment;            // Out and in: bytes of each datagram when several lie back to back (GSO, GRO); 0: one.
    uint8_t is_truncated;        // Out: 1 if a datagram was longer than the room given.
    uint8_t address_length;      // Bytes of `address`; 0 on a connected socket.
    uint8_t address[28];         // A sockaddr_in or sockaddr_in6. In: where to. Out: where from.
    uint32_t dropped;            // Out: datagrams that the socket has dropped so far (SO_RXQ_OVFL).
    int64_t kernel_time_ns;      // Out: receive time, CLOCK_REALTIME (SO_TIMESTAMPNS); 0 if the kernel gave none.
} cbatchio_packet;

/// Vectors for up to `capacity` messages a call. NULL if memory ran out.
cbatchio *_Nullable cbatchio_create(uint32_t capacity);
void cbatchio_destroy(cbatchio *_Nullable self);

/// Sends `packets[0..<count]`, in order, without blocking. A message with a segment is cut into datagrams by the kernel.
/// Returns how many messages were sent, which may be fewer, or -errno if none was.
int cbatchio_send(cbatchio *_Nonnull self, int descriptor, const cbatchio_packet *_Nonnull packets, uint32_t count);

/// Receives up to `count` messages without blocking.
/// Returns how many, 0 if none was waiting, or -errno.
int cbatchio_receive(cbatchio *_Nonnull self, int descriptor, cbatchio_packet *_Nonnull packets, uint32_t count);

/// Asks for kernel receive stamps and drop counts, and for coalesced datagrams if `gro`; what is not there is not given.
void cbatchio_prepare_receiver(int descriptor, int gro);

/// Asks for a socket's receive buffer; beyond the system's limit if the process may. Returns what it has become.
int cbatchio_set_receive_buffer(int descriptor, int byte_count);

/// Sends `count` bytes of `file` from `offset` to a stream socket without a copy in user space.
/// Returns how many went, 0 at the end of the file, or -errno (-EAGAIN: the socket is full).
int64_t cbatchio_send_file(int descriptor, int file, int64_t offset, uint64_t count);

#endif
