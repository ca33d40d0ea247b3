/* DPDK's inline functions as functions that can be linked.
 *
 * Each is called once a burst or less often, so that the call costs nothing that can be seen.
 */
#include <stdio.h>
#include <string.h>
#include <sys/socket.h>

#include <linux/if_packet.h>

#include <rte_prefetch.h>

#include "wrapper.h"

/* Whether a packet is one whole buffer of `pool` that nobody else holds: such a one goes back as it
 * is, as with RTE_ETH_TX_OFFLOAD_MBUF_FAST_FREE. All of it stands in the first cache line. */
static inline bool
is_common(const struct rte_mbuf *m, const struct rte_mempool *pool)
{
	return m->pool == pool && m->nb_segs == 1 && rte_mbuf_refcnt_read(m) == 1 &&
		RTE_MBUF_DIRECT(m);
}

struct vmprobe_burst
vmprobe_rx_burst(uint16_t port, uint16_t queue, struct rte_mbuf **mbufs,
		struct vmprobe_packet *packets, uint16_t max,
		const struct vmprobe_stamp_field *stamp, const struct rte_mempool *pool)
{
	struct vmprobe_burst burst = {
		.packets = rte_eth_rx_burst(port, queue, mbufs, max),
	};

	burst.tsc = rte_rdtsc();
	for (uint16_t i = 0; i < burst.packets; i++) {
		const struct rte_mbuf *m = mbufs[i];
		struct vmprobe_packet *p = &packets[i];
		const uint64_t flags = m->ol_flags;

		p->bytes = rte_pktmbuf_mtod(m, const uint8_t *);
		rte_prefetch0(p->bytes);
		p->segment_octets = m->data_len;
		p->packet_octets = m->pkt_len;
		p->segments = m->nb_segs;
		burst.chained += m->nb_segs > 1;
		burst.uncommon += !is_common(m, pool);
		p->marks = 0;
		if (flags & RTE_MBUF_F_RX_VLAN_STRIPPED) {
			p->marks |= VMPROBE_VLAN_STRIPPED;
			p->vlan_tci = m->vlan_tci;
		}
		if (flags & RTE_MBUF_F_RX_QINQ_STRIPPED) {
			p->marks |= VMPROBE_QINQ_STRIPPED;
			p->vlan_tci_outer = m->vlan_tci_outer;
		}
		/* The field may lie in the second cache line: it is read only where it was filled. */
		if (stamp->offset >= 0 && (flags & stamp->flag)) {
			p->marks |= VMPROBE_STAMPED;
			p->stamp = *RTE_MBUF_DYNFIELD(m, stamp->offset, const uint64_t *);
		}
	}
	return burst;
}

void
vmprobe_give_back(struct rte_mempool *pool, struct rte_mbuf **mbufs, uint16_t count)
{
	rte_mempool_put_bulk(pool, (void **)mbufs, count);
}

uint32_t
vmprobe_copy(const struct rte_mbuf *mbuf, uint8_t *to, uint32_t max)
{
	uint32_t done = 0;

	for (const struct rte_mbuf *m = mbuf; m != NULL && done < max; m = m->next) {
		const uint32_t part = RTE_MIN((uint32_t)m->data_len, max - done);

		memcpy(to + done, rte_pktmbuf_mtod(m, const uint8_t *), part);
		done += part;
	}
	return done;
}

uint16_t
vmprobe_tx_burst(uint16_t port, uint16_t queue, struct rte_mbuf **mbufs, uint16_t count)
{
	return rte_eth_tx_burst(port, queue, mbufs, count);
}

struct rte_mbuf *
vmprobe_packet_of(struct rte_mempool *pool, const uint8_t *bytes, uint32_t count)
{
	struct rte_mbuf *m = rte_pktmbuf_alloc(pool);
	char *to;

	if (m == NULL)
		return NULL;
	to = count <= UINT16_MAX ? rte_pktmbuf_append(m, (uint16_t)count) : NULL;
	if (to == NULL) {
		rte_pktmbuf_free(m);
		return NULL;
	}
	memcpy(to, bytes, count);
	return m;
}

void
vmprobe_free(struct rte_mbuf *mbuf)
{
	rte_pktmbuf_free(mbuf);
}

int
vmprobe_rx_queue_count(uint16_t port, uint16_t queue)
{
	return rte_eth_rx_queue_count(port, queue);
}

int
vmprobe_link_up(uint16_t port)
{
	struct rte_eth_link link;

	memset(&link, 0, sizeof(link));
	if (rte_eth_link_get_nowait(port, &link) != 0)
		return -1;
	return link.link_status == RTE_ETH_LINK_UP;
}

int
vmprobe_errno(void)
{
	return rte_errno;
}

bool
vmprobe_is_packet_socket(int fd)
{
	int domain;
	socklen_t size = sizeof(domain);

	return getsockopt(fd, SOL_SOCKET, SO_DOMAIN, &domain, &size) == 0 && domain == AF_PACKET;
}

uint32_t
vmprobe_packet_socket_drops(int fd)
{
	struct tpacket_stats stats;
	socklen_t size = sizeof(stats);

	/* The kernel's count begins anew with each answer. */
	if (getsockopt(fd, SOL_PACKET, PACKET_STATISTICS, &stats, &size) != 0)
		return 0;
	return stats.tp_drops;
}

void
vmprobe_flush(void)
{
	fflush(NULL);
}

uint64_t
vmprobe_tsc(void)
{
	return rte_rdtsc();
}
