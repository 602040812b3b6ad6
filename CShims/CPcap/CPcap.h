// libpcap, and the few system calls around it that Swift cannot make: leaving out outgoing copies, giving up privileges,
// sending through one interface. Static functions, so that nothing is built where libpcap is not wanted.
#pragma once

#include <errno.h>
#include <linux/capability.h>
#include <linux/filter.h>
#include <linux/gen_stats.h>
#include <linux/if_packet.h>
#include <linux/netlink.h>
#include <linux/pkt_sched.h>
#include <linux/rtnetlink.h>
#include <net/if.h>
#include <pcap/pcap.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/socket.h>
#include <sys/syscall.h>
#include <unistd.h>

#ifndef PACKET_IGNORE_OUTGOING
#define PACKET_IGNORE_OUTGOING 23
#endif

/// Leaves the outgoing copy of each packet out: the loopback shows every packet twice. 0 or -errno.
static inline int cpcap_ignore_outgoing(int descriptor) {
    int on = 1;
    return setsockopt(descriptor, SOL_PACKET, PACKET_IGNORE_OUTGOING, &on, sizeof on) ? -errno : 0;
}

/// Lets no packet in any more: what is in the ring can be read to its end. Needs no privilege. 0 or -errno.
static inline int cpcap_let_nothing_in(int descriptor) {
    struct sock_filter none = {BPF_RET | BPF_K, 0, 0, 0};
    struct sock_fprog program = {1, &none};
    return setsockopt(descriptor, SOL_SOCKET, SO_ATTACH_FILTER, &program, sizeof program) ? -errno : 0;
}

/// Gives up all capabilities of the calling thread, for good. 0 or -errno.
static inline int cpcap_drop_privileges(void) {
    struct __user_cap_header_struct header = {_LINUX_CAPABILITY_VERSION_3, 0};
    struct __user_cap_data_struct none[2];
    memset(none, 0, sizeof none);
    if (prctl(PR_SET_NO_NEW_PRIVS, 1UL, 0UL, 0UL, 0UL)) return -errno;
    return syscall(SYS_capset, &header, none) ? -errno : 0;
}

/// Whether the calling thread could open a raw socket. 1 or 0.
static inline int cpcap_has_privileges(void) {
    struct __user_cap_header_struct header = {_LINUX_CAPABILITY_VERSION_3, 0};
    struct __user_cap_data_struct data[2];
    if (syscall(SYS_capget, &header, data)) return 1;
    return (data[0].effective | data[0].permitted) & (1u << CAP_NET_RAW) ? 1 : 0;
}

/// Binds the calling thread to a processor. 0 or -errno.
static inline int cpcap_pin(unsigned processor) {
    unsigned long set[16] = {0};
    if (processor >= 8 * sizeof set) return -EINVAL;
    set[processor / (8 * sizeof *set)] |= 1ul << processor % (8 * sizeof *set);
    return syscall(SYS_sched_setaffinity, 0, sizeof set, set) < 0 ? -errno : 0;
}

/// Binds a socket to an interface. 0 or -errno.
static inline int cpcap_bind_to_device(int descriptor, const char *_Nonnull name) {
    return setsockopt(descriptor, SOL_SOCKET, SO_BINDTODEVICE, name, (socklen_t)strlen(name)) ? -errno : 0;
}

/// Instructions of a compiled filter.
static inline int cpcap_instruction_count(const struct bpf_program *_Nonnull program) { return (int)program->bf_len; }

/// Packets that the queueing discipline of an interface has dropped since it was made, or -errno.
static inline long long cpcap_queue_drops(const char *_Nonnull name) {
    unsigned index = if_nametoindex(name);
    if (!index) return -errno;
    int descriptor = socket(AF_NETLINK, SOCK_RAW | SOCK_CLOEXEC, NETLINK_ROUTE);
    if (descriptor < 0) return -errno;
    struct {
        struct nlmsghdr header;
        struct tcmsg message;
    } request;
    memset(&request, 0, sizeof request);
    request.header.nlmsg_len = sizeof request;
    request.header.nlmsg_type = RTM_GETQDISC;
    request.header.nlmsg_flags = NLM_F_REQUEST | NLM_F_DUMP;
    request.message.tcm_family = AF_UNSPEC;
    request.message.tcm_ifindex = (int)index;
    long long drops = 0;
    if (send(descriptor, &request, sizeof request, 0) < 0) drops = -errno;
    for (int done = 0; drops >= 0 && !done;) {
        char answer[16384] __attribute__((aligned(8)));
        ssize_t length = recv(descriptor, answer, sizeof answer, 0);
        if (length <= 0) {
            drops = -EIO;
            break;
        }
        for (struct nlmsghdr *h = (struct nlmsghdr *)answer; NLMSG_OK(h, (size_t)length); h = NLMSG_NEXT(h, length)) {
            if (h->nlmsg_type == NLMSG_DONE || h->nlmsg_type == NLMSG_ERROR) {
                done = 1;
                break;
            }
            struct tcmsg *t = (struct tcmsg *)NLMSG_DATA(h);
            if (h->nlmsg_type != RTM_NEWQDISC || t->tcm_ifindex != (int)index || t->tcm_parent != TC_H_ROOT) continue;
            int left = (int)h->nlmsg_len - (int)NLMSG_LENGTH(sizeof *t);
            for (struct rtattr *a = TCA_RTA(t); RTA_OK(a, left); a = RTA_NEXT(a, left)) {
                if ((a->rta_type & NLA_TYPE_MASK) != TCA_STATS2) continue;
                int inner = (int)RTA_PAYLOAD(a);
                for (struct rtattr *b = (struct rtattr *)RTA_DATA(a); RTA_OK(b, inner); b = RTA_NEXT(b, inner)) {
                    struct gnet_stats_queue queue;
                    if ((b->rta_type & NLA_TYPE_MASK) != TCA_STATS_QUEUE || RTA_PAYLOAD(b) < sizeof queue) continue;
                    memcpy(&queue, RTA_DATA(b), sizeof queue);
                    drops += queue.drops;
                }
            }
        }
    }
    close(descriptor);
    return drops;
}
