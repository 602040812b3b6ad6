#include "CBatchIO.h"

#include <errno.h>
#include <fcntl.h>
#include <netinet/in.h>
#include <netinet/udp.h>
#include <poll.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <sys/uio.h>
#include <unistd.h>

#ifdef __linux__
#ifndef _GNU_SOURCE
#error "build with -D_GNU_SOURCE: sendmmsg and recvmmsg are GNU extensions"
#endif
#include <linux/errqueue.h>
#include <linux/net_tstamp.h>
#include <linux/sock_diag.h>
#include <sched.h>
#include <sys/prctl.h>
#include <sys/sendfile.h>
typedef struct mmsghdr message;
#ifndef UDP_SEGMENT
#define UDP_SEGMENT 103
#endif
#ifndef UDP_GRO
#define UDP_GRO 104
#endif
#ifndef SOL_UDP
#define SOL_UDP 17
#endif
#ifndef SO_MEMINFO
#define SO_MEMINFO 55
#endif
#else
typedef struct {
    struct msghdr msg_hdr;
    unsigned int msg_len;
} message;
#endif

// Room for a stamp, a drop count, a segment size, a TOS, a TTL and an address.
#define CONTROL_SIZE 256

struct cbatchio {
    uint32_t capacity;
    uint32_t armed;  // Messages that are ready to receive into; those before it that a call has filled are not.
    uint32_t filled; // Messages that the last call filled.
    message *messages;
    struct iovec *vectors;
    unsigned char *control;
};

cbatchio *cbatchio_create(uint32_t capacity) {
    cbatchio *self = calloc(1, sizeof *self);
    if (!self) return NULL;
    self->capacity = capacity;
    self->messages = calloc(capacity, sizeof *self->messages);
    self->vectors = calloc(capacity, sizeof *self->vectors);
    self->control = calloc(capacity, CONTROL_SIZE);
    if (!self->messages || !self->vectors || !self->control) {
        cbatchio_destroy(self);
        return NULL;
    }
    for (uint32_t i = 0; i < capacity; i++) {
        self->messages[i].msg_hdr.msg_iov = &self->vectors[i];
        self->messages[i].msg_hdr.msg_iovlen = 1;
    }
    return self;
}

void cbatchio_destroy(cbatchio *self) {
    if (!self) return;
    free(self->messages);
    free(self->vectors);
    free(self->control);
    free(self);
}

#ifdef __linux__
static void append_control(struct msghdr *header, int level, int type, const void *bytes, size_t size) {
    struct cmsghdr *control = (struct cmsghdr *)((unsigned char *)header->msg_control + header->msg_controllen);
    control->cmsg_level = level;
    control->cmsg_type = type;
    control->cmsg_len = CMSG_LEN(size);
    memcpy(CMSG_DATA(control), bytes, size);
    header->msg_controllen += CMSG_SPACE(size);
}
#endif

static void prepare_send(cbatchio *self, uint32_t i, const cbatchio_packet *packet) {
    struct msghdr *header = &self->messages[i].msg_hdr;
    self->vectors[i].iov_base = packet->bytes;
    self->vectors[i].iov_len = packet->byte_count;
    header->msg_name = packet->address_length ? (void *)packet->address : NULL;
    header->msg_namelen = packet->address_length;
    header->msg_control = NULL;
    header->msg_controllen = 0;
    header->msg_flags = 0;
#ifdef __linux__
    int is_cut = packet->segment && packet->byte_count > packet->segment;
    if (!is_cut && !packet->ecn && !packet->local_length) return;
    header->msg_control = self->control + (size_t)i * CONTROL_SIZE;
    if (is_cut) append_control(header, SOL_UDP, UDP_SEGMENT, &packet->segment, sizeof packet->segment);
    if (packet->ecn) {
        int value = packet->ecn;
        int is_v6 = packet->address_length == sizeof(struct sockaddr_in6) || packet->local_length == 16;
        append_control(header, is_v6 ? IPPROTO_IPV6 : IPPROTO_IP, is_v6 ? IPV6_TCLASS : IP_TOS, &value, sizeof value);
    }
    if (packet->local_length == 4) {
        struct in_pktinfo info;
        memset(&info, 0, sizeof info);
        memcpy(&info.ipi_spec_dst, packet->local, 4);
        append_control(header, IPPROTO_IP, IP_PKTINFO, &info, sizeof info);
    } else if (packet->local_length == 16) {
        struct in6_pktinfo info;
        memset(&info, 0, sizeof info);
        memcpy(&info.ipi6_addr, packet->local, 16);
        append_control(header, IPPROTO_IPV6, IPV6_PKTINFO, &info, sizeof info);
    }
#endif
}

int cbatchio_send(cbatchio *self, int descriptor, const cbatchio_packet *packets, uint32_t count) {
    if (count > self->capacity) count = self->capacity;
    for (uint32_t i = 0; i < count; i++) prepare_send(self, i, &packets[i]);
    self->armed = 0; // The vectors serve one direction at a time.
#ifdef __linux__
    int sent = sendmmsg(descriptor, self->messages, count, MSG_DONTWAIT | MSG_NOSIGNAL);
    return sent < 0 ? -errno : sent;
#else
    uint32_t i = 0;
    for (; i < count; i++) {
        const unsigned char *bytes = packets[i].bytes;
        size_t left = packets[i].byte_count, segment = packets[i].segment ? packets[i].segment : left;
        // A super-packet is cut by hand; as with sendmmsg, one that has begun counts as sent.
        size_t begun = left;
        do {
            self->vectors[i].iov_base = (void *)bytes;
            self->vectors[i].iov_len = left < segment ? left : segment;
            if (sendmsg(descriptor, &self->messages[i].msg_hdr, MSG_DONTWAIT) < 0) {
                if (left == begun) return i == 0 ? -errno : (int)i;
                break;
            }
            bytes += self->vectors[i].iov_len;
            left -= self->vectors[i].iov_len;
        } while (left);
    }
    return (int)i;
#endif
}

static void read_control(struct msghdr *header, cbatchio_packet *packet) {
    packet->kernel_time_ns = 0;
    packet->dropped = 0;
    packet->segment = 0;
    packet->ecn = 0;
    packet->ttl = 0;
    packet->local_length = 0;
    for (struct cmsghdr *c = CMSG_FIRSTHDR(header); c; c = CMSG_NXTHDR(header, c)) {
        if (c->cmsg_level == SOL_SOCKET) {
#ifdef SCM_TIMESTAMPNS
            if (c->cmsg_type == SCM_TIMESTAMPNS) {
                struct timespec t;
                memcpy(&t, CMSG_DATA(c), sizeof t);
                packet->kernel_time_ns = (int64_t)t.tv_sec * 1000000000 + t.tv_nsec;
            }
#endif
#ifdef SO_RXQ_OVFL
            if (c->cmsg_type == SO_RXQ_OVFL) memcpy(&packet->dropped, CMSG_DATA(c), sizeof packet->dropped);
#endif
        }
#ifdef __linux__
        else if (c->cmsg_level == SOL_UDP && c->cmsg_type == UDP_GRO) {
            int segment;
            memcpy(&segment, CMSG_DATA(c), sizeof segment);
            if (segment > 0 && segment <= UINT16_MAX) packet->segment = (uint16_t)segment;
        } else if (c->cmsg_level == IPPROTO_IP) {
            if (c->cmsg_type == IP_TOS) packet->ecn = *CMSG_DATA(c) & 3;
            if (c->cmsg_type == IP_TTL) {
                int value;
                memcpy(&value, CMSG_DATA(c), sizeof value);
                packet->ttl = (uint8_t)value;
            }
            if (c->cmsg_type == IP_PKTINFO) {
                struct in_pktinfo info;
                memcpy(&info, CMSG_DATA(c), sizeof info);
                memcpy(packet->local, &info.ipi_addr, 4);
                packet->local_length = 4;
                packet->interface_index = (uint32_t)info.ipi_ifindex;
            }
        } else if (c->cmsg_level == IPPROTO_IPV6) {
            if (c->cmsg_type == IPV6_PKTINFO) {
                struct in6_pktinfo info;
                memcpy(&info, CMSG_DATA(c), sizeof info);
                memcpy(packet->local, &info.ipi6_addr, 16);
                packet->local_length = 16;
                packet->interface_index = info.ipi6_ifindex;
            } else if (c->cmsg_type == IPV6_TCLASS || c->cmsg_type == IPV6_HOPLIMIT) {
                int value;
                memcpy(&value, CMSG_DATA(c), sizeof value);
                if (c->cmsg_type == IPV6_TCLASS) packet->ecn = value & 3;
                else packet->ttl = (uint8_t)value;
            }
        }
#endif
    }
}

/// Makes messages ready to receive into.
static void arm(cbatchio *self, cbatchio_packet *packets, uint32_t first, uint32_t end) {
    for (uint32_t i = first; i < end; i++) {
        struct msghdr *header = &self->messages[i].msg_hdr;
        self->vectors[i].iov_base = packets[i].bytes;
        self->vectors[i].iov_len = packets[i].byte_count;
        header->msg_name = packets[i].address;
        header->msg_namelen = sizeof packets[i].address;
        header->msg_control = self->control + (size_t)i * CONTROL_SIZE;
        header->msg_controllen = CONTROL_SIZE;
        header->msg_flags = 0;
    }
}

int cbatchio_receive(cbatchio *self, int descriptor, cbatchio_packet *packets, uint32_t count, uint32_t changed) {
    if (count > self->capacity) count = self->capacity;
    if (changed < self->filled) changed = self->filled;
    if (changed > count) changed = count;
    arm(self, packets, 0, changed);
    arm(self, packets, self->armed > changed ? self->armed : changed, count);
    if (self->armed < count) self->armed = count;
    self->filled = 0;
#ifdef __linux__
    int received = recvmmsg(descriptor, self->messages, count, MSG_DONTWAIT, NULL);
    if (received < 0) return errno == EAGAIN || errno == EWOULDBLOCK || errno == EINTR ? 0 : -errno;
#else
    int received = 0;
    for (; (uint32_t)received < count; received++) {
        ssize_t size = recvmsg(descriptor, &self->messages[received].msg_hdr, MSG_DONTWAIT);
        if (size < 0) {
            if (received == 0 && errno != EAGAIN && errno != EWOULDBLOCK && errno != EINTR) return -errno;
            break;
        }
        self->messages[received].msg_len = (unsigned int)size;
    }
#endif
    self->filled = (uint32_t)received;
    for (int i = 0; i < received; i++) {
        struct msghdr *header = &self->messages[i].msg_hdr;
        packets[i].byte_count = self->messages[i].msg_len;
        packets[i].address_length =
            header->msg_namelen <= sizeof packets[i].address ? (uint8_t)header->msg_namelen : 0;
        packets[i].is_truncated = (header->msg_flags & MSG_TRUNC) != 0;
        read_control(header, &packets[i]);
    }
    return received;
}

static int is_set(int descriptor, int level, int name, int value) {
    return setsockopt(descriptor, level, name, &value, sizeof value) == 0;
}

uint32_t cbatchio_configure(int descriptor, int family, uint32_t features) {
    uint32_t granted = 0;
    int is_v6 = family == AF_INET6;
#ifdef SO_TIMESTAMPNS
    if (features & CBATCHIO_RECEIVE_STAMPS && is_set(descriptor, SOL_SOCKET, SO_TIMESTAMPNS, 1))
        granted |= CBATCHIO_RECEIVE_STAMPS;
#endif
#ifdef SO_RXQ_OVFL
    if (features & CBATCHIO_DROP_COUNT && is_set(descriptor, SOL_SOCKET, SO_RXQ_OVFL, 1)) granted |= CBATCHIO_DROP_COUNT;
#endif
#ifdef __linux__
    if (features & CBATCHIO_GRO && is_set(descriptor, SOL_UDP, UDP_GRO, 1)) granted |= CBATCHIO_GRO;
    int stamps = SOF_TIMESTAMPING_TX_SOFTWARE | SOF_TIMESTAMPING_SOFTWARE | SOF_TIMESTAMPING_OPT_ID |
                 SOF_TIMESTAMPING_OPT_TSONLY;
    if (features & CBATCHIO_SEND_STAMPS && is_set(descriptor, SOL_SOCKET, SO_TIMESTAMPING, stamps))
        granted |= CBATCHIO_SEND_STAMPS;
    if (features & CBATCHIO_ECN && (is_v6 ? is_set(descriptor, IPPROTO_IPV6, IPV6_RECVTCLASS, 1)
                                          : is_set(descriptor, IPPROTO_IP, IP_RECVTOS, 1)))
        granted |= CBATCHIO_ECN;
    if (features & CBATCHIO_TTL && (is_v6 ? is_set(descriptor, IPPROTO_IPV6, IPV6_RECVHOPLIMIT, 1)
                                          : is_set(descriptor, IPPROTO_IP, IP_RECVTTL, 1)))
        granted |= CBATCHIO_TTL;
    if (features & CBATCHIO_PACKET_INFO && (is_v6 ? is_set(descriptor, IPPROTO_IPV6, IPV6_RECVPKTINFO, 1)
                                                  : is_set(descriptor, IPPROTO_IP, IP_PKTINFO, 1)))
        granted |= CBATCHIO_PACKET_INFO;
    if (features & CBATCHIO_ERRORS && (is_v6 ? is_set(descriptor, IPPROTO_IPV6, IPV6_RECVERR, 1)
                                             : is_set(descriptor, IPPROTO_IP, IP_RECVERR, 1)))
        granted |= CBATCHIO_ERRORS;
    if (features & CBATCHIO_DONT_FRAGMENT &&
        (is_v6 ? is_set(descriptor, IPPROTO_IPV6, IPV6_MTU_DISCOVER, IPV6_PMTUDISC_DO)
               : is_set(descriptor, IPPROTO_IP, IP_MTU_DISCOVER, IP_PMTUDISC_DO)))
        granted |= CBATCHIO_DONT_FRAGMENT;
#endif
    (void)is_v6;
    return granted;
}

static int set_buffer(int descriptor, int forced, int usual, int byte_count) {
    int become = 0;
    socklen_t length = sizeof become;
    if (forced < 0 || !is_set(descriptor, SOL_SOCKET, forced, byte_count))
        setsockopt(descriptor, SOL_SOCKET, usual, &byte_count, sizeof byte_count);
    getsockopt(descriptor, SOL_SOCKET, usual, &become, &length);
    return become;
}

int cbatchio_set_receive_buffer(int descriptor, int byte_count) {
#ifdef SO_RCVBUFFORCE
    return set_buffer(descriptor, SO_RCVBUFFORCE, SO_RCVBUF, byte_count);
#else
    return set_buffer(descriptor, -1, SO_RCVBUF, byte_count);
#endif
}

int cbatchio_set_send_buffer(int descriptor, int byte_count) {
#ifdef SO_SNDBUFFORCE
    return set_buffer(descriptor, SO_SNDBUFFORCE, SO_SNDBUF, byte_count);
#else
    return set_buffer(descriptor, -1, SO_SNDBUF, byte_count);
#endif
}

int cbatchio_set_max_pacing_rate(int descriptor, uint64_t bytes_per_second) {
#ifdef SO_MAX_PACING_RATE
    return setsockopt(descriptor, SOL_SOCKET, SO_MAX_PACING_RATE, &bytes_per_second, sizeof bytes_per_second) ? -errno : 0;
#else
    (void)descriptor, (void)bytes_per_second;
    return -ENOTSUP;
#endif
}

int cbatchio_share_port(int descriptor) { return is_set(descriptor, SOL_SOCKET, SO_REUSEPORT, 1) ? 0 : -errno; }

int cbatchio_path_mtu(int descriptor, int family) {
#ifdef __linux__
    int mtu = 0;
    socklen_t length = sizeof mtu;
    int is_v6 = family == AF_INET6;
    int status = getsockopt(descriptor, is_v6 ? IPPROTO_IPV6 : IPPROTO_IP, is_v6 ? IPV6_MTU : IP_MTU, &mtu, &length);
    return status ? -errno : mtu;
#else
    (void)descriptor, (void)family;
    return -ENOTSUP;
#endif
}

int cbatchio_read_memory(int descriptor, cbatchio_memory *out) {
    memset(out, 0, sizeof *out);
#ifdef __linux__
    uint32_t values[SK_MEMINFO_VARS];
    socklen_t length = sizeof values;
    memset(values, 0, sizeof values);
    if (getsockopt(descriptor, SOL_SOCKET, SO_MEMINFO, values, &length)) return -errno;
    out->receive_queued = values[SK_MEMINFO_RMEM_ALLOC];
    out->receive_buffer = values[SK_MEMINFO_RCVBUF];
    out->send_queued = values[SK_MEMINFO_WMEM_ALLOC];
    out->send_buffer = values[SK_MEMINFO_SNDBUF];
    out->dropped = values[SK_MEMINFO_DROPS];
    return 0;
#else
    (void)descriptor;
    return -ENOTSUP;
#endif
}

int cbatchio_read_errors(int descriptor, cbatchio_error *out, uint32_t count) {
    uint32_t got = 0;
#ifdef __linux__
    for (; got < count; got++) {
        unsigned char control[512], payload[1];
        struct iovec vector = {payload, sizeof payload};
        struct msghdr header = {.msg_iov = &vector, .msg_iovlen = 1, .msg_control = control, .msg_controllen = sizeof control};
        if (recvmsg(descriptor, &header, MSG_ERRQUEUE | MSG_DONTWAIT) < 0)
            return got || errno == EAGAIN || errno == EWOULDBLOCK || errno == EINTR ? (int)got : -errno;
        cbatchio_error *entry = &out[got];
        memset(entry, 0, sizeof *entry);
        for (struct cmsghdr *c = CMSG_FIRSTHDR(&header); c; c = CMSG_NXTHDR(&header, c)) {
            if (c->cmsg_level == SOL_SOCKET && c->cmsg_type == SCM_TIMESTAMPING) {
                struct timespec t;
                memcpy(&t, CMSG_DATA(c), sizeof t);
                entry->kernel_time_ns = (int64_t)t.tv_sec * 1000000000 + t.tv_nsec;
            }
            if ((c->cmsg_level == IPPROTO_IP && c->cmsg_type == IP_RECVERR) ||
                (c->cmsg_level == IPPROTO_IPV6 && c->cmsg_type == IPV6_RECVERR)) {
                struct sock_extended_err e;
                memcpy(&e, CMSG_DATA(c), sizeof e);
                entry->origin = e.ee_origin;
                entry->type = e.ee_type;
                entry->code = e.ee_code;
                entry->error = e.ee_origin == SO_EE_ORIGIN_TIMESTAMPING ? 0 : (int32_t)e.ee_errno;
                entry->info = e.ee_origin == SO_EE_ORIGIN_TIMESTAMPING ? e.ee_data : e.ee_info;
            }
        }
    }
#else
    (void)descriptor, (void)out, (void)count;
#endif
    return (int)got;
}

#ifdef __linux__
static unsigned char probe_byte(unsigned message, unsigned offset) { return (unsigned char)(message * 131 + offset * 7 + (offset >> 8)); }

/// Sends one super-packet and takes what comes, whole or cut. Returns 0, an errno, or -1 if the bytes are wrong.
static int probe_once(int from, int to, cbatchio *io, unsigned message, uint32_t byte_count, uint16_t segment, int *is_coalesced) {
    unsigned char *sent = malloc(65536), *received = malloc(65536);
    int fault = sent && received ? 0 : ENOMEM;
    if (!fault) {
        for (unsigned i = 0; i < byte_count; i++) sent[i] = probe_byte(message, i);
        cbatchio_packet packet = {.bytes = sent, .byte_count = byte_count, .segment = segment};
        int status = cbatchio_send(io, from, &packet, 1);
        fault = status == 1 ? 0 : status < 0 ? -status : EIO;
    }
    uint32_t got = 0;
    while (!fault && got < byte_count) {
        struct pollfd ready = {to, POLLIN, 0};
        if (poll(&ready, 1, 50) <= 0) {
            fault = -1;
            break;
        }
        cbatchio_packet packet = {.bytes = received, .byte_count = 65536};
        int status = cbatchio_receive(io, to, &packet, 1, 1);
        if (status <= 0) {
            fault = status < 0 ? -status : EIO;
            break;
        }
        uint32_t expected = packet.segment ? byte_count - got : byte_count - got < segment ? byte_count - got : segment;
        if (packet.segment) *is_coalesced = 1;
        if (packet.byte_count > byte_count - got || (!packet.segment && packet.byte_count != expected) ||
            (packet.segment && packet.segment != segment))
            fault = -1;
        for (uint32_t i = 0; !fault && i < packet.byte_count; i++)
            if (received[i] != probe_byte(message, got + i)) fault = -1;
        got += packet.byte_count;
    }
    free(sent);
    free(received);
    return fault;
}

int cbatchio_probe(int family, cbatchio_capabilities *out) {
    memset(out, 0, sizeof *out);
    int sockets[2] = {socket(family, SOCK_DGRAM | SOCK_CLOEXEC, 0), socket(family, SOCK_DGRAM | SOCK_CLOEXEC, 0)};
    cbatchio *io = cbatchio_create(1);
    struct sockaddr_storage address;
    memset(&address, 0, sizeof address);
    address.ss_family = (sa_family_t)family;
    if (family == AF_INET) ((struct sockaddr_in *)&address)->sin_addr.s_addr = htonl(INADDR_LOOPBACK);
    else ((struct sockaddr_in6 *)&address)->sin6_addr = in6addr_loopback;
    socklen_t length = family == AF_INET ? sizeof(struct sockaddr_in) : sizeof(struct sockaddr_in6);
    int status = 0;
    if (sockets[0] < 0 || sockets[1] < 0 || !io || bind(sockets[1], (struct sockaddr *)&address, length) ||
        getsockname(sockets[1], (struct sockaddr *)&address, &length) ||
        connect(sockets[0], (struct sockaddr *)&address, length))
        status = io ? -errno : -ENOMEM;
    if (!status) {
        uint32_t granted = cbatchio_configure(sockets[1], family, CBATCHIO_RECEIVE_STAMPS | CBATCHIO_DROP_COUNT);
        out->receive_stamps = (granted & CBATCHIO_RECEIVE_STAMPS) != 0;
        out->drop_count = (granted & CBATCHIO_DROP_COUNT) != 0;
        int is_coalesced = 0;
        // Equal segments; a short tail; a tail of one byte.
        static const struct { uint32_t byte_count; uint16_t segment; } shapes[] = {{8 * 1200, 1200}, {5 * 500 + 123, 500}, {1000 * 3 + 1, 1000}};
        for (int is_gro = 0; is_gro < 2; is_gro++) {
            if (is_gro && !(cbatchio_configure(sockets[1], family, CBATCHIO_GRO) & CBATCHIO_GRO)) break;
            int fault = 0;
            for (unsigned i = 0; !fault && i < sizeof shapes / sizeof *shapes; i++)
                fault = probe_once(sockets[0], sockets[1], io, i + 1, shapes[i].byte_count, shapes[i].segment, &is_coalesced);
            if (fault) {
                out->fault = fault;
                break;
            }
            if (is_gro) out->gro = is_coalesced != 0;
            else out->gso = 1;
        }
        if (out->gso) {
            // 128 since Linux 6.9, 64 before.
            int fault = probe_once(sockets[0], sockets[1], io, 9, 128 * 100, 100, &is_coalesced);
            out->max_segments = fault ? 64 : 128;
        }
        out->send_stamps = (cbatchio_configure(sockets[0], family, CBATCHIO_SEND_STAMPS) & CBATCHIO_SEND_STAMPS) != 0;
    }
    cbatchio_destroy(io);
    for (int i = 0; i < 2; i++)
        if (sockets[i] >= 0) close(sockets[i]);
    return status;
}
#else
int cbatchio_probe(int family, cbatchio_capabilities *out) {
    (void)family;
    memset(out, 0, sizeof *out);
    return 0;
}
#endif

int64_t cbatchio_send_file(int descriptor, int file, int64_t offset, uint64_t count) {
#ifdef __linux__
    off_t position = offset;
    ssize_t sent = sendfile(descriptor, file, &position, count);
    return sent < 0 ? -(int64_t)errno : sent;
#else
    char bytes[65536];
    if (count > sizeof bytes) count = sizeof bytes;
    ssize_t got = pread(file, bytes, count, offset);
    if (got <= 0) return got < 0 ? -(int64_t)errno : 0;
    ssize_t sent = send(descriptor, bytes, (size_t)got, 0);
    return sent < 0 ? -(int64_t)errno : sent;
#endif
}

int cbatchio_pin_thread(int processor) {
#ifdef __linux__
    cpu_set_t set;
    CPU_ZERO(&set);
    if (processor < 0 || processor >= CPU_SETSIZE) return -EINVAL;
    CPU_SET(processor, &set);
    return sched_setaffinity(0, sizeof set, &set) ? -errno : 0;
#else
    (void)processor;
    return -ENOTSUP;
#endif
}

int cbatchio_set_timer_slack(uint64_t nanoseconds) {
#ifdef __linux__
    return prctl(PR_SET_TIMERSLACK, (unsigned long)nanoseconds, 0, 0, 0) ? -errno : 0;
#else
    (void)nanoseconds;
    return -ENOTSUP;
#endif
}

void cbatchio_read_thread_usage(cbatchio_thread_usage *out) {
    memset(out, 0, sizeof *out);
    out->run_queue_delay_ns = -1;
#ifdef __linux__
    struct rusage usage;
    if (getrusage(RUSAGE_THREAD, &usage) == 0) {
        out->processor_ns = (int64_t)(usage.ru_utime.tv_sec + usage.ru_stime.tv_sec) * 1000000000 +
                            (int64_t)(usage.ru_utime.tv_usec + usage.ru_stime.tv_usec) * 1000;
        out->involuntary_switches = usage.ru_nivcsw;
    }
    int file = open("/proc/thread-self/schedstat", O_RDONLY | O_CLOEXEC);
    if (file < 0) return;
    char text[96];
    ssize_t got = read(file, text, sizeof text - 1);
    close(file);
    if (got <= 0) return;
    text[got] = 0;
    long long on_processor, delay;
    if (sscanf(text, "%lld %lld", &on_processor, &delay) == 2) out->run_queue_delay_ns = delay;
#endif
}
