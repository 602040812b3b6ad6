#ifndef CPOLLING_H
#define CPOLLING_H

#include <stdint.h>

// Waits on many file descriptors with a limit in nanoseconds.
//
// Swift cannot see epoll or ppoll (Glibc is imported without _GNU_SOURCE), so the set lives here behind an opaque
// handle. Linux: epoll(7) waited on by ppoll(2), since an epoll descriptor can itself be polled and ppoll's limit is
// finer than a millisecond. Elsewhere: poll(2). Level-triggered. Errors are -errno.

enum { cpolling_read = 1, cpolling_write = 2, cpolling_hangup = 4 };

typedef struct cpolling cpolling;
typedef struct {
    int32_t descriptor;
    uint32_t events;  // any of the above
} cpolling_event;

/// An empty set; NULL if memory or descriptors ran out.
cpolling *_Nullable cpolling_create(void);
void cpolling_destroy(cpolling *_Nullable self);

/// Waits on `descriptor` for `events` from now on, in place of what it was waited on for.
int cpolling_set(cpolling *_Nonnull self, int descriptor, uint32_t events);
/// Does not wait on it any more. Harmless if it was closed already.
void cpolling_remove(cpolling *_Nonnull self, int descriptor);

/// Waits until something is ready or `nanoseconds` are over; zero only looks.
/// Returns how many of `events` were filled, at most `capacity`; 0 if none, or if a signal came.
int cpolling_wait(cpolling *_Nonnull self, cpolling_event *_Nonnull events, int capacity, int64_t nanoseconds);

#endif
