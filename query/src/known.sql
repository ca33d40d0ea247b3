-- Of `ends` (probe_id, address_space, address, mac, from_ns, to_ns) who they were in their time.
held AS (
    SELECT * FROM inventory_now WHERE attributed
), sharing AS (
    -- Who may have an address as others may: of several the MAC address decides.
    SELECT * FROM inventory_now WHERE address_shared AND NOT attributed
), alone AS (
    -- The one of them whose MAC address was seen, or learned with the address; where several have it, nobody.
    SELECT ends.*, any_value(sharing.uuid) AS uuid,
        arg_min(sharing.name, sharing.valid_from_ns) AS name,
        arg_min(sharing.tenant, sharing.valid_from_ns) AS tenant,
        arg_min(sharing.tenant_shared, sharing.valid_from_ns) AS tenant_shared,
        sharing.run_start_ns, min(sharing.valid_from_ns) AS valid_from_ns,
        CASE WHEN sharing.mac = ends.mac THEN 1 ELSE 3 END AS evidence
    FROM ends
    JOIN sharing USING (probe_id, address)
    LEFT JOIN held AS learned ON learned.probe_id = ends.probe_id AND learned.uuid IS NULL
        AND learned.address = ends.address AND learned.address_space = ends.address_space
        AND learned.mac = sharing.mac
        AND {learned_then}
    WHERE (sharing.address_space = ends.address_space OR sharing.segment = ends.address_space)
        AND (sharing.mac = ends.mac OR learned.mac IS NOT NULL)
        AND {sharing_then}
    GROUP BY ALL
    HAVING count(DISTINCT sharing.uuid) = 1
), candidates AS (
    SELECT ends.*, held.uuid, held.name, held.tenant, held.tenant_shared, held.run_start_ns, held.valid_from_ns,
        CASE WHEN held.uuid IS NULL THEN 4 ELSE 0 END AS evidence, coalesce(held.mac = ends.mac, false) AS same_mac
    FROM ends JOIN held USING (probe_id, address_space, address)
    WHERE {held_then}
    UNION ALL
    -- What was under way when the workers learnt that segments are joined has the segment's own space.
    SELECT ends.*, held.uuid, held.name, held.tenant, held.tenant_shared, held.run_start_ns, held.valid_from_ns,
        CASE WHEN held.uuid IS NULL THEN 4 ELSE 1 END AS evidence,
        coalesce(held.mac = ends.mac, false) AS same_mac
    FROM ends JOIN held USING (probe_id, address)
    WHERE held.segment = ends.address_space AND held.segment <> held.address_space
        AND {held_then}
    UNION ALL
    -- The MAC address speaks for interfaces whose addresses nobody knows, and for addresses that no
    -- router passes on.
    SELECT ends.*, held.uuid, held.name, held.tenant, held.tenant_shared, held.run_start_ns, held.valid_from_ns,
        2 AS evidence, true AS same_mac
    FROM ends JOIN held USING (probe_id, mac)
    WHERE held.uuid IS NOT NULL
        AND (held.address_space IS NULL OR held.address_space = ends.address_space)
        AND (held.address IS NULL OR stays_on_link(ends.address))
        AND {held_then}
    UNION ALL
    -- The MAC address that was learned with an address speaks for such interfaces too.
    SELECT ends.*, held.uuid, held.name, held.tenant, held.tenant_shared, held.run_start_ns, held.valid_from_ns,
        3 AS evidence, false AS same_mac
    FROM ends
    JOIN held AS learned USING (probe_id, address_space, address)
    JOIN held ON held.probe_id = ends.probe_id AND held.mac = learned.mac
    WHERE learned.uuid IS NULL AND held.uuid IS NOT NULL AND held.address IS NULL
        AND (held.address_space IS NULL OR held.address_space = ends.address_space)
        AND {learned_then}
        AND {held_then}
    UNION ALL
    SELECT probe_id, address_space, address, mac, from_ns, to_ns, uuid, name, tenant, tenant_shared,
        run_start_ns, valid_from_ns, evidence, evidence = 1 AS same_mac
    FROM alone
), known AS (
    SELECT * FROM candidates
    QUALIFY row_number() OVER (
        PARTITION BY probe_id, address_space, address, mac, from_ns, to_ns
        ORDER BY evidence, run_start_ns DESC, same_mac DESC, valid_from_ns, uuid
    ) = 1
)
