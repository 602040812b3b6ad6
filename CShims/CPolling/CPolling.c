#include "CPolling.h"

#include <errno.h>
#include <poll.h>
#include <stdlib.h>
#include <time.h>
#include <unistd.h>

#ifdef __linux__
#include <sys/epoll.h>

struct cpolling {
    int epoll;
};

cpolling *cpolling_create(void) {
    cpolling *self = calloc(1, sizeof *self);
    if (!self) return NULL;
    self->epoll = epoll_create1(EPOLL_CLOEXEC);
    if (self->epoll < 0) {
        free(self);
        return NULL;
    }
    return self;
}

void cpolling_destroy(cpolling *self) {
    if (!self) return;
    close(self->epoll);
    free(self);
}

int cpolling_set(cpolling *self, int descriptor, uint32_t events) {
    struct epoll_event event = {.data.fd = descriptor};
    if (events & cpolling_read) event.events |= EPOLLIN;
    if (events & cpolling_write) event.events |= EPOLLOUT;
    if (epoll_ctl(self->epoll, EPOLL_CTL_MOD, descriptor, &event) == 0) return 0;
    // New, or closed and opened again under the same number, which the kernel then does not know.
    if (errno == ENOENT && epoll_ctl(self->epoll, EPOLL_CTL_ADD, descriptor, &event) == 0) return 0;
    return -errno;
}

void cpolling_remove(cpolling *self, int descriptor) {
    struct epoll_event event = {0};
    epoll_ctl(self->epoll, EPOLL_CTL_DEL, descriptor, &event);
}

int cpolling_wait(cpolling *self, cpolling_event *events, int capacity, int64_t nanoseconds) {
    struct epoll_event found[256];
    if (capacity > 256) capacity = 256;
    if (nanoseconds > 0) {
        struct pollfd request = {.fd = self->epoll, .events = POLLIN};
        struct timespec limit = {.tv_sec = nanoseconds / 1000000000, .tv_nsec = nanoseconds % 1000000000};
        if (ppoll(&request, 1, &limit, NULL) <= 0) return 0;
    }
    int count = epoll_wait(self->epoll, found, capacity, 0);
    if (count < 0) return errno == EINTR ? 0 : -errno;
    for (int i = 0; i < count; i++) {
        events[i].descriptor = found[i].data.fd;
        events[i].events = 0;
        if (found[i].events & EPOLLIN) events[i].events |= cpolling_read;
        if (found[i].events & EPOLLOUT) events[i].events |= cpolling_write;
        if (found[i].events & (EPOLLERR | EPOLLHUP)) events[i].events |= cpolling_hangup;
    }
    return count;
}

#else

struct cpolling {
    struct pollfd *requests;
    int count, room;
};

cpolling *cpolling_create(void) { return calloc(1, sizeof(cpolling)); }

void cpolling_destroy(cpolling *self) {
    if (!self) return;
    free(self->requests);
    free(self);
}

static int find(cpolling *self, int descriptor) {
    int i = 0;
    while (i < self->count && self->requests[i].fd != descriptor) i++;
    return i;
}

int cpolling_set(cpolling *self, int descriptor, uint32_t events) {
    int i = find(self, descriptor);
    if (i == self->room) {
        int room = self->room ? 2 * self->room : 16;
        struct pollfd *larger = realloc(self->requests, (size_t)room * sizeof *larger);
        if (!larger) return -ENOMEM;
        self->requests = larger;
        self->room = room;
    }
    if (i == self->count) self->count++;
    self->requests[i].fd = descriptor;
    self->requests[i].events =
        (short)((events & cpolling_read ? POLLIN : 0) | (events & cpolling_write ? POLLOUT : 0));
    return 0;
}

void cpolling_remove(cpolling *self, int descriptor) {
    int i = find(self, descriptor);
    if (i < self->count) self->requests[i] = self->requests[--self->count];
}

int cpolling_wait(cpolling *self, cpolling_event *events, int capacity, int64_t nanoseconds) {
    int milliseconds = nanoseconds > 0 ? (int)((nanoseconds + 999999) / 1000000) : 0;
    int ready = poll(self->requests, (nfds_t)self->count, milliseconds);
    if (ready < 0) return errno == EINTR ? 0 : -errno;
    int filled = 0;
    for (int i = 0; i < self->count && filled < capacity && filled < ready; i++) {
        short found = self->requests[i].revents;
        if (!found) continue;
        events[filled].descriptor = self->requests[i].fd;
        events[filled].events = (uint32_t)((found & POLLIN ? cpolling_read : 0) |
                                           (found & POLLOUT ? cpolling_write : 0) |
                                           (found & (POLLERR | POLLHUP | POLLNVAL) ? cpolling_hangup : 0));
        filled++;
    }
    return filled;
}
#endif
