-- What the inventory says as it is known now: facts that the probe has not learnt to be otherwise. What
-- a run of the probe knew says nothing of the time after the next run began.
CREATE VIEW inventory_now AS
WITH runs AS (
    SELECT probe_id, run_start_ns,
        lead(run_start_ns) OVER (PARTITION BY probe_id ORDER BY run_start_ns) AS next_run_ns
    FROM (SELECT DISTINCT probe_id, run_start_ns FROM inventory)
), otherwise AS (
    SELECT DISTINCT probe_id, run_start_ns, fact_id FROM inventory WHERE known_to_ns IS NOT NULL
)
SELECT inventory.* EXCLUDE (known_to_ns) REPLACE (least(valid_to_ns, next_run_ns) AS valid_to_ns)
FROM inventory
JOIN runs USING (probe_id, run_start_ns)
ANTI JOIN otherwise USING (probe_id, run_start_ns, fact_id)
WHERE known_to_ns IS NULL AND (next_run_ns IS NULL OR valid_from_ns < next_run_ns);

-- Conversations with the virtual machines that had the addresses in the window, as it is known now. Where
-- several had an address in one window, the one with the MAC address, else the one that had it first.
CREATE VIEW windows_now AS
WITH ends AS (
    SELECT DISTINCT probe_id, address_space, source_address AS address, source_mac AS mac,
        window_start_ns, window_end_ns
    FROM windows
    UNION
    SELECT DISTINCT probe_id, address_space, destination_address, destination_mac,
        window_start_ns, window_end_ns
    FROM windows
), held AS (
    SELECT * FROM inventory_now WHERE attributed
), candidates AS (
    SELECT ends.*, held.uuid, held.name, held.tenant, held.run_start_ns, held.valid_from_ns,
        0 AS evidence, coalesce(held.mac = ends.mac, false) AS same_mac
    FROM ends JOIN held USING (probe_id, address_space, address)
    WHERE held.valid_from_ns < ends.window_end_ns
        AND (held.valid_to_ns IS NULL OR held.valid_to_ns > ends.window_start_ns)
    UNION ALL
    -- What was under way when the workers learnt that segments are joined has the segment's own space.
    SELECT ends.*, held.uuid, held.name, held.tenant, held.run_start_ns, held.valid_from_ns,
        1 AS evidence, coalesce(held.mac = ends.mac, false) AS same_mac
    FROM ends JOIN held USING (probe_id, address)
    WHERE held.segment = ends.address_space AND held.segment <> held.address_space
        AND held.valid_from_ns < ends.window_end_ns
        AND (held.valid_to_ns IS NULL OR held.valid_to_ns > ends.window_start_ns)
    UNION ALL
    -- The MAC address speaks for interfaces whose addresses nobody knows, and for addresses that no
    -- router passes on.
    SELECT ends.*, held.uuid, held.name, held.tenant, held.run_start_ns, held.valid_from_ns,
        2 AS evidence, true AS same_mac
    FROM ends JOIN held USING (probe_id, mac)
    WHERE (held.address_space IS NULL OR held.address_space = ends.address_space)
        AND (held.address IS NULL OR ends.address LIKE 'fe80:%' OR ends.address LIKE '169.254.%'
            OR ends.address IN ('::', '0.0.0.0'))
        AND held.valid_from_ns < ends.window_end_ns
        AND (held.valid_to_ns IS NULL OR held.valid_to_ns > ends.window_start_ns)
), known AS (
    SELECT * FROM candidates
    QUALIFY row_number() OVER (
        PARTITION BY probe_id, address_space, address, mac, window_start_ns, window_end_ns
        ORDER BY evidence, run_start_ns DESC, same_mac DESC, valid_from_ns, uuid
    ) = 1
)
SELECT windows.* REPLACE (
    source.uuid AS source_virtual_station_uuid,
    source.name AS source_virtual_station_name,
    source.tenant AS source_virtual_station_tenant,
    destination.uuid AS destination_virtual_station_uuid,
    destination.name AS destination_virtual_station_name,
    destination.tenant AS destination_virtual_station_tenant,
    CASE
        WHEN source.tenant IS NOT DISTINCT FROM windows.source_virtual_station_tenant
            AND destination.tenant IS NOT DISTINCT FROM windows.destination_virtual_station_tenant
            AND source.uuid IS NOT DISTINCT FROM windows.source_virtual_station_uuid
            AND destination.uuid IS NOT DISTINCT FROM windows.destination_virtual_station_uuid
            THEN windows.traffic_class
        WHEN source.uuid IS NOT NULL AND destination.uuid IS NOT NULL
            THEN CASE WHEN source.tenant = destination.tenant THEN 'east_west' ELSE 'inter_tenant' END
        WHEN source.uuid IS NULL AND destination.uuid IS NULL THEN 'transit'
        ELSE 'north_south'
    END AS traffic_class
)
FROM windows
LEFT JOIN known AS source
    ON source.probe_id = windows.probe_id
    AND source.address_space = windows.address_space
    AND source.address = windows.source_address
    AND source.mac IS NOT DISTINCT FROM windows.source_mac
    AND source.window_start_ns = windows.window_start_ns
    AND source.window_end_ns = windows.window_end_ns
LEFT JOIN known AS destination
    ON destination.probe_id = windows.probe_id
    AND destination.address_space = windows.address_space
    AND destination.address = windows.destination_address
    AND destination.mac IS NOT DISTINCT FROM windows.destination_mac
    AND destination.window_start_ns = windows.window_start_ns
    AND destination.window_end_ns = windows.window_end_ns;
