#include "CBatchIO.h"

#include <errno.h>
#include <netinet/in.h>
#include <netinet/udp.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/uio.h>
#include <time.h>
#include <unistd.h>

#ifdef __linux__
#ifndef _GNU_SOURCE
#error "build with -D_GNU_SOURCE: sendmmsg and recvmmsg are GNU extensions"
#endif
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
#else
typedef struct {
    struct msghdr msg_hdr;
    unsigned int msg_len;
} message;
#endif

#define CONTROL_SIZE 128

struct cbatchio {
    uint32_t capacity;
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

int cbatchio_send(cbatchio *self, int descriptor, const cbatchio_packet *packets, uint32_t count) {
    if (count > self->capacity) count = self->capacity;
    for (uint32_t i = 0; i < count; i++) {
        struct msghdr *header = &self->messages[i].msg_hdr;
        self->vectors[i].iov_base = packets[i].bytes;
        self->vectors[i].iov_len = packets[i].byte_count;
        header->msg_name = packets[i].address_length ? (void *)packets[i].address : NULL;
        header->msg_namelen = packets[i].address_length;
        header->msg_control = NULL;
        header->msg_controllen = 0;
        header->msg_flags = 0;
#ifdef __linux__
        if (packets[i].segment && packets[i].byte_count > packets[i].segment) {
            header->msg_control = self->control + (size_t)i * CONTROL_SIZE;
            header->msg_controllen = CMSG_SPACE(sizeof(uint16_t));
            struct cmsghdr *control = CMSG_FIRSTHDR(header);
            control->cmsg_level = SOL_UDP;
            control->cmsg_type = UDP_SEGMENT;
            control->cmsg_len = CMSG_LEN(sizeof(uint16_t));
            memcpy(CMSG_DATA(control), &packets[i].segment, sizeof(uint16_t));
        }
#endif
    }
#ifdef __linux__
    int sent = sendmmsg(descriptor, self->messages, count, MSG_DONTWAIT | MSG_NOSIGNAL);
    return sent < 0 ? -errno : sent;
#else
    uint32_t i = 0;
    for (; i < count; i++)
        if (sendmsg(descriptor, &self->messages[i].msg_hdr, MSG_DONTWAIT) < 0) break;
    return i == 0 && count > 0 ? -errno : (int)i;
#endif
}

int cbatchio_receive(cbatchio *self, int descriptor, cbatchio_packet *packets, uint32_t count) {
    if (count > self->capacity) count = self->capacity;
    for (uint32_t i = 0; i < count; i++) {
        struct msghdr *header = &self->messages[i].msg_hdr;
        self->vectors[i].iov_base = packets[i].bytes;
        self->vectors[i].iov_len = packets[i].byte_count;
        header->msg_name = packets[i].address;
        header->msg_namelen = sizeof packets[i].address;
        header->msg_control = self->control + (size_t)i * CONTROL_SIZE;
        header->msg_controllen = CONTROL_SIZE;
        header->msg_flags = 0;
    }
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
    for (int i = 0; i < received; i++) {
        struct msghdr *header = &self->messages[i].msg_hdr;
        packets[i].byte_count = self->messages[i].msg_len;
        packets[i].address_length =
            header->msg_namelen <= sizeof packets[i].address ? (uint8_t)header->msg_namelen : 0;
        packets[i].is_truncated = (header->msg_flags & MSG_TRUNC) != 0;
        packets[i].kernel_time_ns = 0;
        packets[i].segment = 0;
        for (struct cmsghdr *c = CMSG_FIRSTHDR(header); c; c = CMSG_NXTHDR(header, c)) {
#ifdef SCM_TIMESTAMPNS
            if (c->cmsg_level == SOL_SOCKET && c->cmsg_type == SCM_TIMESTAMPNS) {
                struct timespec t;
                memcpy(&t, CMSG_DATA(c), sizeof t);
                packets[i].kernel_time_ns = (int64_t)t.tv_sec * 1000000000 + t.tv_nsec;
            }
#endif
#ifdef SO_RXQ_OVFL
            if (c->cmsg_level == SOL_SOCKET && c->cmsg_type == SO_RXQ_OVFL)
                memcpy(&packets[i].dropped, CMSG_DATA(c), sizeof packets[i].dropped);
#endif
#ifdef __linux__
            if (c->cmsg_level == SOL_UDP && c->cmsg_type == UDP_GRO) {
                int segment;
                memcpy(&segment, CMSG_DATA(c), sizeof segment);
                if (segment > 0 && segment <= UINT16_MAX) packets[i].segment = (uint16_t)segment;
            }
#endif
        }
    }
    return received;
}

void cbatchio_prepare_receiver(int descriptor, int gro) {
    int on = 1;
#ifdef SO_TIMESTAMPNS
    setsockopt(descriptor, SOL_SOCKET, SO_TIMESTAMPNS, &on, sizeof on);
#endif
#ifdef SO_RXQ_OVFL
    setsockopt(descriptor, SOL_SOCKET, SO_RXQ_OVFL, &on, sizeof on);
#endif
#ifdef __linux__
    if (gro) setsockopt(descriptor, SOL_UDP, UDP_GRO, &on, sizeof on);
#else
    (void)gro;
    (void)on;
#endif
}

int cbatchio_set_receive_buffer(int descriptor, int byte_count) {
    int become = 0;
    socklen_t length = sizeof become;
#ifdef SO_RCVBUFFORCE
    if (setsockopt(descriptor, SOL_SOCKET, SO_RCVBUFFORCE, &byte_count, sizeof byte_count) != 0)
#endif
        setsockopt(descriptor, SOL_SOCKET, SO_RCVBUF, &byte_count, sizeof byte_count);
    getsockopt(descriptor, SOL_SOCKET, SO_RCVBUF, &become, &length);
    return become;
}

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
