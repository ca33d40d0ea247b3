-- What a counter has grown by; one that is smaller than before began anew.
CREATE MACRO increase(total, total_before) AS CASE
    WHEN total_before IS NULL THEN NULL
    WHEN total < total_before THEN total
    ELSE total - total_before
END;

-- A sum that is null where any part of it is.
CREATE MACRO whole(part) AS CASE WHEN count(part) = count(*) THEN sum(part) END;

-- What each VM sent and received in each window, as it is known now, beside what its host says that it
-- used: increases of counters from one sample to the next, spread evenly over the time between, so those of
-- a window are estimates unless samples are as close as windows. Null where the window does not lie between
-- samples, these are more than two hours apart, or the host does not say. Of drops and errors the sum over
-- the interfaces whose driver says. A window in which the probe saw nothing at all is not there.
CREATE VIEW vm_windows AS
WITH seen AS (
    SELECT probe_id, window_start_ns, window_end_ns,
        unnest([source_virtual_station_uuid, destination_virtual_station_uuid]) AS virtual_station_uuid,
        unnest([packet_delta_count, reverse_packet_delta_count]) AS packets,
        unnest([reverse_packet_delta_count, packet_delta_count]) AS packets_back,
        unnest([octet_delta_count, reverse_octet_delta_count]) AS octets,
        unnest([reverse_octet_delta_count, octet_delta_count]) AS octets_back
    FROM windows_now
), traffic AS (
    SELECT probe_id, window_start_ns, window_end_ns, virtual_station_uuid,
        sum(packets) AS packet_delta_count, sum(packets_back) AS reverse_packet_delta_count,
        sum(octets) AS octet_delta_count, sum(octets_back) AS reverse_octet_delta_count
    FROM seen WHERE virtual_station_uuid IS NOT NULL
    GROUP BY ALL
), spans AS (
    SELECT DISTINCT probe_id, window_start_ns::BIGINT AS start_ns, window_end_ns::BIGINT AS end_ns,
        end_ns - start_ns AS length_ns
    FROM windows WHERE window_start_ns < window_end_ns
), counters AS (
    SELECT probe_id, virtual_station_uuid, mac, sample_ns::BIGINT AS sample_ns,
        lag(sample_ns) OVER counter AS sample_before_ns,
        increase(cpu_total_ns, lag(cpu_total_ns) OVER counter) AS cpu_ns,
        vcpu_count, memory_bytes, resident_bytes,
        increase(dropped_packet_total_count, lag(dropped_packet_total_count) OVER counter) AS dropped,
        increase(reverse_dropped_packet_total_count, lag(reverse_dropped_packet_total_count) OVER counter)
            AS dropped_back,
        increase(error_packet_total_count, lag(error_packet_total_count) OVER counter) AS wrong,
        increase(reverse_error_packet_total_count, lag(reverse_error_packet_total_count) OVER counter)
            AS wrong_back
    FROM vm_usage
    WINDOW counter AS (PARTITION BY probe_id, virtual_station_uuid, mac ORDER BY sample_ns)
), intervals AS (
    SELECT * REPLACE (sample_before_ns::BIGINT AS sample_before_ns),
        sample_ns - sample_before_ns::BIGINT AS interval_ns
    FROM counters WHERE sample_before_ns < sample_ns AND sample_ns - sample_before_ns <= 7_200_000_000_000
), parts AS (
    -- A window begins at a multiple of its length.
    SELECT intervals.*, length_ns,
        unnest(range(sample_before_ns // length_ns, (sample_ns - 1) // length_ns + 1)) * length_ns AS start_ns
    FROM intervals JOIN (SELECT DISTINCT probe_id, length_ns FROM spans) USING (probe_id)
), shares AS (
    SELECT parts.*, end_ns,
        least(sample_ns, end_ns) - greatest(sample_before_ns, start_ns) AS covered_ns,
        covered_ns / interval_ns AS share
    FROM parts JOIN spans USING (probe_id, start_ns, length_ns)
), of_counters AS (
    SELECT probe_id, start_ns, end_ns, virtual_station_uuid, mac, whole(cpu_ns * share) AS cpu_ns,
        max(vcpu_count) AS vcpu_count, max(memory_bytes) AS memory_bytes,
        max(resident_bytes) AS resident_bytes, whole(dropped * share) AS dropped,
        whole(dropped_back * share) AS dropped_back, whole(wrong * share) AS wrong,
        whole(wrong_back * share) AS wrong_back, max(interval_ns) AS interval_ns
    FROM shares
    GROUP BY probe_id, start_ns, end_ns, virtual_station_uuid, mac
    HAVING sum(covered_ns) = end_ns - start_ns
), used AS (
    SELECT probe_id, start_ns::UBIGINT AS window_start_ns, end_ns::UBIGINT AS window_end_ns,
        virtual_station_uuid, max(cpu_ns) AS cpu_ns, max(vcpu_count) AS vcpu_count,
        max(memory_bytes) AS memory_bytes, max(resident_bytes) AS resident_bytes,
        sum(dropped) AS dropped_packet_count, sum(dropped_back) AS reverse_dropped_packet_count,
        sum(wrong) AS error_packet_count, sum(wrong_back) AS reverse_error_packet_count,
        max(interval_ns)::UBIGINT AS sample_interval_ns
    FROM of_counters
    GROUP BY ALL
), names AS (
    SELECT probe_id, uuid AS virtual_station_uuid, arg_max(name, valid_from_ns) AS virtual_station_name,
        arg_max(tenant, valid_from_ns) AS virtual_station_tenant
    FROM inventory_now WHERE uuid IS NOT NULL
    GROUP BY ALL
)
SELECT probe_id, window_start_ns, window_end_ns, virtual_station_uuid, virtual_station_name,
    virtual_station_tenant,
    coalesce(packet_delta_count, 0) AS packet_delta_count,
    coalesce(reverse_packet_delta_count, 0) AS reverse_packet_delta_count,
    coalesce(octet_delta_count, 0) AS octet_delta_count,
    coalesce(reverse_octet_delta_count, 0) AS reverse_octet_delta_count,
    cpu_ns, vcpu_count, cpu_ns / (vcpu_count * (window_end_ns - window_start_ns)) AS cpu_share,
    memory_bytes, resident_bytes, dropped_packet_count, reverse_dropped_packet_count, error_packet_count,
    reverse_error_packet_count, sample_interval_ns
FROM traffic
FULL JOIN used USING (probe_id, window_start_ns, window_end_ns, virtual_station_uuid)
LEFT JOIN names USING (probe_id, virtual_station_uuid);
