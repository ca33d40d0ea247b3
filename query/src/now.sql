-- `{table}` with the virtual machines that had the addresses in its time, as it is known now. Where
-- several had an address in that time, the one with the MAC address, else the one that had it first. Who
-- was only learned from packets (no uuid) comes last, and has a name at most.
CREATE VIEW {table}_now AS
WITH ends AS (
    {ends}
), {candidates}, named AS (
    SELECT {table}.* REPLACE (
        {virtual_stations}{replaced}
    ){added}
    FROM {table}
    {known}
)
{shown} FROM named;
