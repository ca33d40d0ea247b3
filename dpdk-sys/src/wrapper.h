/* What the bindings are made from: DPDK's headers and the declarations of shim.c.
 *
 * rte_config.h comes first: the layout of other structures depends on it.
 * DPDK's offload constants are macros with casts, which bindgen cannot evaluate; the ones in use
 * are repeated here as constants.
 */
#ifndef VMPROBE_WRAPPER_H
#define VMPROBE_WRAPPER_H

#include <rte_config.h>

#include <stdbool.h>

#include <rte_cycles.h>
#include <rte_dev.h>
#include <rte_eal.h>
#include <rte_errno.h>
#include <rte_ethdev.h>
#include <rte_lcore.h>
#include <rte_mbuf.h>
#include <rte_mbuf_dyn.h>
#include <rte_mempool.h>
#include <rte_version.h>

static const uint64_t VMPROBE_RX_OFFLOAD_VLAN_STRIP = RTE_ETH_RX_OFFLOAD_VLAN_STRIP;
static const uint64_t VMPROBE_RX_OFFLOAD_QINQ_STRIP = RTE_ETH_RX_OFFLOAD_QINQ_STRIP;
static const uint64_t VMPROBE_RX_OFFLOAD_SCATTER = RTE_ETH_RX_OFFLOAD_SCATTER;
static const uint64_t VMPROBE_RX_OFFLOAD_TIMESTAMP = RTE_ETH_RX_OFFLOAD_TIMESTAMP;
static const uint64_t VMPROBE_RX_OFFLOAD_RSS_HASH = RTE_ETH_RX_OFFLOAD_RSS_HASH;
static const uint64_t VMPROBE_RSS_IP = RTE_ETH_RSS_IP;
static const uint64_t VMPROBE_RSS_TCP = RTE_ETH_RSS_TCP;
static const uint64_t VMPROBE_RSS_UDP = RTE_ETH_RSS_UDP;
static const uint64_t VMPROBE_RSS_SCTP = RTE_ETH_RSS_SCTP;

/* Bits of vmprobe_packet.marks. */
enum {
	VMPROBE_VLAN_STRIPPED = 1,
	VMPROBE_QINQ_STRIPPED = 2,
	VMPROBE_STAMPED = 4,
};

/* All that the receive path wants to know of one mbuf, gathered while its first cache line is
 * at hand. */
struct vmprobe_packet {
	const uint8_t *bytes;      /* first octet of the first segment */
	uint64_t stamp;            /* the port's receive stamp, valid with VMPROBE_STAMPED */
	uint32_t segment_octets;   /* octets in the first segment */
	uint32_t packet_octets;    /* octets in all segments */
	uint16_t segments;
	uint16_t vlan_tci;         /* the stripped tag; the inner one if two were stripped */
	uint16_t vlan_tci_outer;   /* the outer tag if two were stripped */
	uint16_t marks;
};

/* Where a port's mbufs hold the receive stamp. */
struct vmprobe_stamp_field {
	int offset;                /* negative: nowhere */
	uint64_t flag;             /* bit of ol_flags that says the field was filled */
};

/* What is known of a burst as a whole. */
struct vmprobe_burst {
	uint64_t tsc;              /* time stamp counter after the packets were taken */
	uint16_t packets;
	uint16_t chained;          /* how many of them have several segments */
	uint16_t uncommon;         /* how many cannot go back to the pool as they are */
};

/* Takes up to `max` packets from a queue, describes each in `packets` and asks for the first
 * cache line of its octets. `pool` is that of the queue. */
struct vmprobe_burst vmprobe_rx_burst(uint16_t port, uint16_t queue, struct rte_mbuf **mbufs,
		struct vmprobe_packet *packets, uint16_t max,
		const struct vmprobe_stamp_field *stamp, const struct rte_mempool *pool);

/* Gives packets back to the pool of which a burst said that none is uncommon. */
void vmprobe_give_back(struct rte_mempool *pool, struct rte_mbuf **mbufs, uint16_t count);

/* Copies the first `max` octets of a packet of several segments; returns how many. */
uint32_t vmprobe_copy(const struct rte_mbuf *mbuf, uint8_t *to, uint32_t max);

/* Hands packets to a queue; returns how many were taken. */
uint16_t vmprobe_tx_burst(uint16_t port, uint16_t queue, struct rte_mbuf **mbufs, uint16_t count);

/* A new packet with these octets, in one segment; NULL if the pool is empty or they do not fit. */
struct rte_mbuf *vmprobe_packet_of(struct rte_mempool *pool, const uint8_t *bytes, uint32_t count);

void vmprobe_free(struct rte_mbuf *mbuf);
int vmprobe_rx_queue_count(uint16_t port, uint16_t queue);
int vmprobe_link_up(uint16_t port);
int vmprobe_errno(void);

/* Whether a file descriptor is a socket of packet(7). */
bool vmprobe_is_packet_socket(int fd);

/* Frames that a socket of packet(7) had no room for since the last call; 0 of another file. */
uint32_t vmprobe_packet_socket_drops(int fd);

/* Writes out what C's standard streams still hold. */
void vmprobe_flush(void);

uint64_t vmprobe_tsc(void);

#endif
