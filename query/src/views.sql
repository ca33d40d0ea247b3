-- What the inventory says as it is known now: facts that the probe has not learnt to be otherwise. What
-- a run of the probe knew says nothing of the time after the next run began. A run that goes on with what
-- an earlier one knew corrects that one's facts too: its own have another `fact_id`, so they are found by
-- what they say.
CREATE VIEW inventory_now AS
WITH runs AS (
    SELECT probe_id, run_start_ns,
        lead(run_start_ns) OVER (PARTITION BY probe_id ORDER BY run_start_ns) AS next_run_ns
    FROM (SELECT DISTINCT probe_id, run_start_ns FROM inventory)
), otherwise AS (
    SELECT DISTINCT probe_id, run_start_ns, fact_id FROM inventory WHERE known_to_ns IS NOT NULL
), otherwise_later AS (
    SELECT probe_id, uuid, name, tenant, host, switch, mac, address, segment, address_space, attributed,
        address_shared, valid_from_ns, valid_to_ns, source, max(run_start_ns) AS run_start_ns
    FROM inventory WHERE known_to_ns IS NOT NULL GROUP BY ALL
)
SELECT inventory.* EXCLUDE (known_to_ns) REPLACE (least(valid_to_ns, next_run_ns) AS valid_to_ns)
FROM inventory
JOIN runs USING (probe_id, run_start_ns)
ANTI JOIN otherwise USING (probe_id, run_start_ns, fact_id)
ANTI JOIN otherwise_later AS later ON later.probe_id = inventory.probe_id
    AND later.run_start_ns > inventory.run_start_ns
    AND later.valid_from_ns = inventory.valid_from_ns
    AND later.valid_to_ns IS NOT DISTINCT FROM inventory.valid_to_ns
    AND later.attributed = inventory.attributed
    AND later.address_shared = inventory.address_shared
    AND later.source = inventory.source
    AND later.uuid IS NOT DISTINCT FROM inventory.uuid
    AND later.name IS NOT DISTINCT FROM inventory.name
    AND later.tenant IS NOT DISTINCT FROM inventory.tenant
    AND later.host IS NOT DISTINCT FROM inventory.host
    AND later.switch IS NOT DISTINCT FROM inventory.switch
    AND later.mac IS NOT DISTINCT FROM inventory.mac
    AND later.address IS NOT DISTINCT FROM inventory.address
    AND later.segment IS NOT DISTINCT FROM inventory.segment
    AND later.address_space IS NOT DISTINCT FROM inventory.address_space
WHERE known_to_ns IS NULL AND (next_run_ns IS NULL OR valid_from_ns < next_run_ns);

-- Whom an end belongs to: by the rules of `inventory::class`, with the networks as the probe's
-- configuration had them then, and tenants as it has them now.
CREATE MACRO side_of(network_kind, uuid, tenant, tenant_shared) AS CASE
    WHEN network_kind = 'shared' OR tenant_shared THEN 'shared'
    WHEN tenant IS NOT NULL THEN 'tenant'
    WHEN uuid IS NOT NULL OR network_kind = 'home' THEN 'home'
    ELSE 'outside'
END;

-- The class of traffic between two sides, as the probe would have named it. A group is where its sender is.
CREATE MACRO class_of(source_side, destination_side, destination_network_kind, source_tenant, destination_tenant) AS
CASE
    WHEN destination_network_kind = 'group' THEN CASE source_side WHEN 'outside' THEN 'transit' ELSE 'east_west' END
    WHEN source_side = 'outside' AND destination_side = 'outside' THEN 'transit'
    WHEN source_side = 'outside' OR destination_side = 'outside' THEN 'north_south'
    WHEN source_side = 'shared' OR destination_side = 'shared' THEN 'east_west'
    WHEN source_side = 'home' AND destination_side = 'home' THEN 'east_west'
    WHEN source_tenant = destination_tenant AND source_side = destination_side THEN 'east_west'
    ELSE 'inter_tenant'
END;

-- Addresses that a router does not pass on, so that the MAC address beside them is the endpoint's own:
-- 169.254.0.0/16, fe80::/10, and the unspecified ones, as text (RFC 5952).
CREATE MACRO stays_on_link(address) AS (
    address LIKE '169.254.%'
    OR (address LIKE 'fe%' AND substr(address, 3, 1) IN ('8', '9', 'a', 'b')
        AND substr(address, 4, 1) <> ':' AND substr(address, 5, 1) = ':')
    OR address IN ('::', '0.0.0.0')
);

-- An end in the title of an alert, and the title with the name that it has now in the place of the one then.
CREATE MACRO titled(address, station_name) AS coalesce(station_name || ' (' || address || ')', address);
CREATE MACRO renamed(title, address, name_then, name_now) AS coalesce(
    replace(
        ' ' || title || ' ', ' ' || titled(address, name_then) || ' ', ' ' || titled(address, name_now) || ' '
    )[2:-2],
    title
);

-- What the VM of a migration did in each window within 10 s of it, by who was at the other end. A window
-- is before the migration if it ended when the VM was seen last there, after it if it began when it was
-- seen first at the new place, else during; where the silence was not measured the reported time stands
-- for both.
CREATE VIEW migration_windows AS
WITH events AS (
    SELECT *,
        coalesce(last_seen_ns, time_ns)::BIGINT AS last_ns,
        coalesce(first_seen_ns, time_ns)::BIGINT AS first_ns
    FROM migrations
), sides AS NOT MATERIALIZED (
    -- Read by both joins below; kept in between it would be all windows twice, in memory.
    SELECT probe_id, window_start_ns, window_end_ns, address_space, source_address AS address,
        source_virtual_station_uuid AS uuid, destination_address AS peer_address,
        destination_virtual_station_name AS peer_virtual_station_name,
        packet_delta_count AS sent, reverse_packet_delta_count AS received,
        retransmission_packet_count AS sent_again,
        reverse_retransmission_packet_count AS received_again
    FROM windows
    UNION ALL
    SELECT probe_id, window_start_ns, window_end_ns, address_space, destination_address,
        destination_virtual_station_uuid, source_address, source_virtual_station_name,
        reverse_packet_delta_count, packet_delta_count,
        reverse_retransmission_packet_count, retransmission_packet_count
    FROM windows
), its AS (
    SELECT events.time_ns, events.virtual_station_uuid, events.mac, events.last_ns, events.first_ns,
        sides.*
    FROM sides JOIN events
        ON sides.probe_id = events.probe_id AND sides.uuid = events.virtual_station_uuid
    UNION ALL
    SELECT events.time_ns, events.virtual_station_uuid, events.mac, events.last_ns, events.first_ns,
        sides.*
    FROM sides JOIN events
        ON events.virtual_station_uuid IS NULL AND sides.probe_id = events.probe_id
        AND sides.address_space = events.address_space AND sides.address = events.address
)
SELECT probe_id, time_ns, virtual_station_uuid, mac, window_start_ns, window_end_ns, address_space,
    address, peer_address, peer_virtual_station_name,
    CASE
        WHEN window_end_ns <= last_ns THEN 'before'
        WHEN window_start_ns >= first_ns THEN 'after'
        ELSE 'during'
    END AS phase,
    sent AS packet_delta_count, received AS reverse_packet_delta_count,
    sent_again AS retransmission_packet_count, received_again AS reverse_retransmission_packet_count
FROM its
WHERE window_end_ns::BIGINT > last_ns - 10_000_000_000
    AND window_start_ns::BIGINT < first_ns + 10_000_000_000;

-- Delay between taps of each endpoint that the VM of a migration talked to before and after, from the VM
-- and to it: mean over the windows, 0 where the packets pass one tap alone. By the clocks of the taps, as
-- in `path`.
CREATE VIEW migration_paths AS
WITH peers AS (
    SELECT probe_id, time_ns, virtual_station_uuid, mac, address_space, address, peer_address,
        any_value(peer_virtual_station_name) AS peer_virtual_station_name,
        unnest(['from', 'to']) AS direction,
        list(DISTINCT window_start_ns) FILTER (phase = 'before') AS windows_before,
        list(DISTINCT window_start_ns) FILTER (phase = 'after') AS windows_after
    FROM migration_windows
    GROUP BY ALL
    HAVING windows_before IS NOT NULL AND windows_after IS NOT NULL
), ways AS (
    SELECT probe_id, address_space, window_start_ns, source_address, destination_address,
        sum(delay_sample_count) AS samples, sum(delay_mean_ns * delay_sample_count::BIGINT) AS sum_ns
    FROM path WHERE scope = 'endpoints' AND delay_sample_count > 0
    GROUP BY ALL
), means AS (
    SELECT peers.* EXCLUDE (windows_before, windows_after),
        coalesce(sum(ways.samples) FILTER (list_contains(windows_before, ways.window_start_ns)), 0)
            AS before_sample_count,
        coalesce(sum(ways.samples) FILTER (list_contains(windows_after, ways.window_start_ns)), 0)
            AS after_sample_count,
        sum(ways.sum_ns) FILTER (list_contains(windows_before, ways.window_start_ns)) AS before_sum_ns,
        sum(ways.sum_ns) FILTER (list_contains(windows_after, ways.window_start_ns)) AS after_sum_ns
    FROM peers LEFT JOIN ways
        ON ways.probe_id = peers.probe_id AND ways.address_space = peers.address_space
        AND ways.source_address
            = CASE WHEN direction = 'from' THEN peers.address ELSE peers.peer_address END
        AND ways.destination_address
            = CASE WHEN direction = 'from' THEN peers.peer_address ELSE peers.address END
    GROUP BY ALL
)
SELECT * EXCLUDE (before_sum_ns, after_sum_ns),
    coalesce(before_sum_ns / before_sample_count, 0) AS before_delay_mean_ns,
    coalesce(after_sum_ns / after_sample_count, 0) AS after_delay_mean_ns,
    coalesce(after_sum_ns / after_sample_count, 0)
        - coalesce(before_sum_ns / before_sample_count, 0) AS delay_step_ns
FROM means;

-- Migrations with what they did to the VM's traffic: packets and retransmissions of its conversations
-- (both directions, null without TCP) in the windows before, during and after; the flows that were under
-- way, of these those that went on and those that had their last packet in the silence (null where it was
-- not measured); the steps in path delay, of the peer with the least and of the one with the largest (null
-- where packets are not followed between taps, or nobody was talked to before and after).
CREATE VIEW migration_lens AS
WITH traffic AS (
    SELECT probe_id, time_ns, virtual_station_uuid, mac,
        coalesce(sum(packets) FILTER (phase = 'before'), 0) AS before_packet_count,
        coalesce(sum(packets) FILTER (phase = 'during'), 0) AS during_packet_count,
        coalesce(sum(packets) FILTER (phase = 'after'), 0) AS after_packet_count,
        sum(again) FILTER (phase = 'before') AS before_retransmission_packet_count,
        sum(again) FILTER (phase = 'during') AS during_retransmission_packet_count,
        sum(again) FILTER (phase = 'after') AS after_retransmission_packet_count
    FROM (
        SELECT *, packet_delta_count + reverse_packet_delta_count AS packets,
            retransmission_packet_count + reverse_retransmission_packet_count AS again
        FROM migration_windows
    )
    GROUP BY ALL
), events AS (
    SELECT probe_id, time_ns, virtual_station_uuid, mac, address_space, address, blackout_ns,
        coalesce(last_seen_ns, time_ns) AS last_ns, coalesce(first_seen_ns, time_ns) AS first_ns
    FROM migrations
), its AS (
    SELECT events.*, flows.flow_id, flows.flow_start_ns, flows.flow_end_ns
    FROM flows JOIN events ON flows.probe_id = events.probe_id
        AND (flows.source_virtual_station_uuid = events.virtual_station_uuid)
    UNION
    SELECT events.*, flows.flow_id, flows.flow_start_ns, flows.flow_end_ns
    FROM flows JOIN events ON flows.probe_id = events.probe_id
        AND flows.destination_virtual_station_uuid = events.virtual_station_uuid
    UNION
    SELECT events.*, flows.flow_id, flows.flow_start_ns, flows.flow_end_ns
    FROM flows JOIN events ON events.virtual_station_uuid IS NULL
        AND flows.probe_id = events.probe_id AND flows.address_space = events.address_space
        AND events.address IN (flows.source_address, flows.destination_address)
), under_way AS (
    SELECT probe_id, time_ns, virtual_station_uuid, mac, blackout_ns, first_ns, flow_id,
        max(flow_end_ns) AS end_ns
    FROM its
    GROUP BY probe_id, time_ns, virtual_station_uuid, mac, blackout_ns, first_ns, flow_id, last_ns
    HAVING min(flow_start_ns) <= last_ns AND max(flow_end_ns) >= last_ns
), survival AS (
    SELECT probe_id, time_ns, virtual_station_uuid, mac, count(*) AS flow_count,
        count(*) FILTER (end_ns >= first_ns) AS survived_flow_count,
        CASE WHEN any_value(blackout_ns) IS NOT NULL
            THEN count(*) FILTER (end_ns < first_ns) END AS ended_flow_count
    FROM under_way
    GROUP BY ALL
), steps AS (
    SELECT probe_id, time_ns, virtual_station_uuid, mac,
        count(DISTINCT peer_address) AS delay_peer_count,
        min(delay_step_ns) AS delay_step_min_ns, max(delay_step_ns) AS delay_step_max_ns
    FROM migration_paths
    WHERE EXISTS (SELECT 1 FROM path)
    GROUP BY ALL
)
SELECT migrations.*,
    traffic.* EXCLUDE (probe_id, time_ns, virtual_station_uuid, mac),
    coalesce(survival.flow_count, 0) AS flow_count,
    coalesce(survival.survived_flow_count, 0) AS survived_flow_count,
    CASE WHEN migrations.blackout_ns IS NOT NULL
        THEN coalesce(survival.ended_flow_count, 0) END AS ended_flow_count,
    steps.* EXCLUDE (probe_id, time_ns, virtual_station_uuid, mac)
FROM migrations
LEFT JOIN traffic
    ON traffic.probe_id = migrations.probe_id AND traffic.time_ns = migrations.time_ns
    AND traffic.virtual_station_uuid IS NOT DISTINCT FROM migrations.virtual_station_uuid
    AND traffic.mac IS NOT DISTINCT FROM migrations.mac
LEFT JOIN survival
    ON survival.probe_id = migrations.probe_id AND survival.time_ns = migrations.time_ns
    AND survival.virtual_station_uuid IS NOT DISTINCT FROM migrations.virtual_station_uuid
    AND survival.mac IS NOT DISTINCT FROM migrations.mac
LEFT JOIN steps
    ON steps.probe_id = migrations.probe_id AND steps.time_ns = migrations.time_ns
    AND steps.virtual_station_uuid IS NOT DISTINCT FROM migrations.virtual_station_uuid
    AND steps.mac IS NOT DISTINCT FROM migrations.mac;
