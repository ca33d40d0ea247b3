# The parts of a record. Each measures one thing and prints its section of the record.
# shellcheck shell=bash
# shellcheck disable=SC2154 # root, work, probe and quick are of bench-record

# How the sets are made; slots of both tables are twice the flows of a set, as a power of two.
declare -A arguments=(
    [imix-plain]='--packets 1000000 --flows 100000 --size imix --encap none'
    [imix-vxlan]='--packets 1000000 --flows 100000 --size imix --encap vxlan'
    [imix-erspan2]='--packets 1000000 --flows 100000 --size imix --encap erspan2'
    [m64-plain]='--packets 1000000 --flows 100000 --size 64 --encap none'
    [m64-500kflows]='--packets 4000000 --flows 500000 --size 64 --conc-all --dur 20'
)
declare -A log2slots=([m64-500kflows]=20)
sets=(imix-plain imix-vxlan imix-erspan2 m64-plain m64-500kflows)

# Bars, as multiples of the floor, and instructions per packet on imix-plain.
declare -A bar_flow=([imix-plain]=1.5 [imix-vxlan]=1.8 [imix-erspan2]=1.8 [m64-plain]=2.5 [m64-500kflows]=2.5)
declare -A bar_all=([imix-plain]=2.5 [imix-vxlan]=2.8 [imix-erspan2]=2.8 [m64-plain]=4.5 [m64-500kflows]=4.5)
declare -A bar_instructions=([flow]=400 [all]=800)

# Bars of the others.
bar_flat=2.5
declare -A bar_flow_bytes=([flow]=192 [all]=320)
declare -A bar_resident_mib=([flow]=381 [all]=572) # 400 and 600 MB
bar_gap_us=100
bar_workers=1.8
bar_spread_ns=25
bar_rows=1000000
bar_question_ms=1000
bar_lookups=5000000
bar_sink_rows=500000

median() {
    sort -n | awk '{ value[NR] = $1 } END { print NR ? value[int((NR + 1) / 2)] : "—" }'
}

spread() {
    sort -n | awk 'NR == 1 { least = $1 } { most = $1 } END { printf "%.0f–%.0f", least, most }'
}

# Whether a figure is at most (or, with `least`, at least) its bar.
met() {
    awk -v figure="$1" -v bar="$2" -v way="${3:-most}" 'BEGIN {
        if (figure !~ /^[0-9.]+$/) print "—"
        else print (way == "least" ? figure >= bar : figure <= bar) ? "yes" : "**no**"
    }'
}

rounds() {
    if $quick; then echo 1; else echo "$1"; fi
}

# The capture of a set, made when it is first asked for.
capture_of() {
    local capture="$work/$1.pcap"
    # shellcheck disable=SC2086 # the arguments are words
    [[ -f $capture ]] || "$work/dcgen" "$capture" ${arguments[$1]} >/dev/null 2>&1
    echo "$capture"
}

slots_of() {
    echo $((1 << ${log2slots[$1]:-18}))
}

# Floor and probe take turns, so that what the machine does meanwhile meets both.
part_floor() {
    local name capture round features unit stages=''
    cat <<'TEXT'
## Nanoseconds per packet, as multiples of the floor
| packets | floor | flows only (least–most) | × floor | bar | met | all features (least–most) | × floor | bar | met | million packets a second and core |
|---|---|---|---|---|---|---|---|---|---|---|
TEXT
    for name in "${sets[@]}"; do
        capture=$(capture_of "$name")
        rm -f "$work"/ns-*
        for ((round = 0; round < $(rounds 5); round++)); do
            "$work/floor" "$capture" 32 "${log2slots[$name]:-18}" 0 1 | sed -n 's/.* \([0-9.]*\) ns\/pkt.*/\1/p' >>"$work/ns-floor"
            for features in flow all; do
                "$probe" bench --pcap "$capture" --slots "$(slots_of "$name")" --features "$features" --json >"$work/report"
                jq .ns_per_packet "$work/report" >>"$work/ns-$features"
            done
        done
        unit=$(median <"$work/ns-floor")
        printf '| %s | %.1f' "$name" "$unit"
        for features in flow all; do
            local ns times bars="bar_${features}[$name]"
            ns=$(median <"$work/ns-$features")
            times=$(awk -v ns="$ns" -v unit="$unit" 'BEGIN { printf "%.2f", ns / unit }')
            printf ' | %.1f (%s) | %s | %s | %s' "$ns" "$(spread <"$work/ns-$features")" "$times" "${!bars}" "$(met "$times" "${!bars}")"
        done
        awk -v ns="$ns" 'BEGIN { printf " | %.2f |\n", 1000 / ns }'
        stages+=$(jq -r --arg name "$name" '.stages as $s | [$s.read_ns, $s.decode_ns, $s.hash_ns, $s.copies_ns, $s.flow_ns, $s.ending_ns]
            | map(. * 10 | round / 10 | tostring) | "| " + $name + " | " + join(" | ") + " |"' "$work/report")$'\n'
        [[ $name == imix-plain ]] || rm "$capture"
    done
    cat <<TEXT

Medians of $(rounds 5).

Where the time goes (last round, all features, ns per packet):

| packets | read | decode | hash | copies | flows, windows, loop | ending flows at the end |
|---|---|---|---|---|---|---|
$stages
TEXT
}

# Instructions of a packet: what 50,000 more of them cost, so that set-up does not count.
instructions() {
    local packets counts=()
    command -v valgrind >/dev/null || { echo '—'; return; }
    for packets in 50000 100000; do
        "$work/dcgen" "$work/slope.pcap" --size imix --encap none --packets "$packets" --flows $((packets / 10)) >/dev/null 2>&1
        valgrind --tool=callgrind --callgrind-out-file="$work/callgrind" --collect-atstart=no \
            --toggle-collect='*bench::measure::take_turns*' --toggle-collect='*bench::measure::end_flows*' \
            "$probe" bench --pcap "$work/slope.pcap" --slots 65536 --features "$1" --json >/dev/null 2>&1
        counts+=("$(sed -n 's/^\(summary\|totals\): *//p' "$work/callgrind" | tail -1)")
    done
    echo $(((counts[1] - counts[0]) / 50000))
}

part_instructions() {
    local features count
    printf '## Instructions per packet, imix-plain\n| what is on | instructions | bar | met |\n|---|---|---|---|\n'
    for features in flow all; do
        count=$(instructions "$features")
        echo "| $features | $count | ${bar_instructions[$features]} | $(met "$count" "${bar_instructions[$features]}") |"
    done
}

part_flat() {
    local features round flows times ns
    cat <<TEXT
## Flat: nanoseconds per packet as the flows grow
Every flow lives all the time and sends 4 packets a second of their own time; medians of $(rounds 3).

| what is on | 1 k | 10 k | 100 k | 1 M | 4 M | 4 M by 10 k | bar | met |
|---|---|---|---|---|---|---|---|---|
TEXT
    for features in flow all; do
        for ((round = 0; round < $(rounds 3); round++)); do
            "$probe" bench --live-flows 1000,10000,100000,1000000,4000000 --features "$features" --json
        done >"$work/flat"
        printf '| %s' "$features"
        for flows in 1000 10000 100000 1000000 4000000; do
            ns=$(jq ".sizes[] | select(.flows == $flows) | .ns_per_packet" "$work/flat" | median)
            printf ' | %.1f' "$ns"
        done
        times=$(jq '.sizes[] | select(.flows == 4000000) | .times_10k' "$work/flat" | median)
        printf ' | %.2f | %s | %s |\n' "$times" "$bar_flat" "$(met "$times" "$bar_flat")"
    done
}

# A process of its own, because memory that was given back may still count as resident.
part_small() {
    local features mib worker bytes live slab
    cat <<'TEXT'
## Small: memory with 1 M live flows
The whole process; of packets it holds a ring of 4,096. The worker's tables are flows, rows of windows and copies; most of the rest is the aggregator's, which has nearly as many conversations a window as there are pairs of hosts, in several windows.

| what is on | resident MiB | bar | met | of that the worker's tables | bytes per flow, table full | bar | met | with 1 M flows in 1,000,448 slots | side slab beside them, at most |
|---|---|---|---|---|---|---|---|---|---|
TEXT
    for features in flow all; do
        "$probe" bench --live-flows 1000000 --features "$features" --json >"$work/report"
        mib=$(jq '.sizes[0].memory.resident_bytes / 1048576 | round' "$work/report")
        worker=$(jq '.sizes[0].memory.worker_bytes / 1048576 | round' "$work/report")
        bytes=$(jq '.sizes[0].memory.bytes_per_slot' "$work/report")
        live=$(jq '.sizes[0].memory.bytes_per_flow | round' "$work/report")
        slab=$(jq -r '.sizes[0].memory | "\(.side_slab_bytes / 1024 | round) KiB, \(.side_slab_refused) flows found no place"' "$work/report")
        echo "| $features | $mib | ${bar_resident_mib[$features]} | $(met "$mib" "${bar_resident_mib[$features]}") | $worker | $bytes | ${bar_flow_bytes[$features]} | $(met "$bytes" "${bar_flow_bytes[$features]}") | $live | $slab |"
    done
}

gap_rows() {
    jq -r "$1"' | (. + {cause: "**all turns**"}), .causes[], (.machine // empty | . + {cause: "the machine itself, in arithmetic of that length"}), (.machine_beside_another // empty | . + {cause: "the same while another core does arithmetic as well"})
        | "| \(.cause) | \(.turns) | \(.p50) | \(.p99) | \(.p9999) | \(.max) |"' "$work/report"
}

part_gaps() {
    local shortest all
    "$probe" bench --live-flows 1000000 --poll-gaps --json >"$work/report"
    all=$(jq '.sizes[0].poll_gap_us.all_runs.p9999' "$work/report")
    shortest=$(jq '.sizes[0].poll_gap_us.shortest.p9999' "$work/report")
    cat <<TEXT
## Never stalls: poll gaps with 1 M live flows
All features; flows end after 64 packets each and windows close meanwhile. µs of CPU time from one poll to the next; reading the clock is in each.

| | p99.99 | bar | met |
|---|---|---|---|
| all turns of $(jq '.sizes[0].poll_gap_us.runs' "$work/report") runs | $all | $bar_gap_us | $(met "$all" "$bar_gap_us") |
| of each turn the shortest run | $shortest | $bar_gap_us | $(met "$shortest" "$bar_gap_us") |
| the machine itself, in arithmetic as long as half of the turns, alone and while another core does the same | $(jq -r '.sizes[0].poll_gap_us.all_runs | "\(.machine.p9999), \(.machine_beside_another.p9999 // "—")"' "$work/report") | $bar_gap_us | |

Page faults of the worker while it was measured: $(jq '.sizes[0].poll_gap_us.page_faults' "$work/report").

A receive ring of 4,096 descriptors never overruns up to $(jq '.sizes[0].poll_gap_us | .rate_pps / 1e4 | round / 100' "$work/report") million packets a second by the first run, by the shortest turns up to $(jq '.sizes[0].poll_gap_us | .rate_of_shortest_pps / 1e4 | round / 100' "$work/report") million.

All runs, by what the turn did:

| what the turn did | turns | p50 | p99 | p99.99 | max |
|---|---|---|---|---|---|
$(gap_rows '.sizes[0].poll_gap_us.all_runs')

Of each turn the shortest run:

| what the turn did | turns | p50 | p99 | p99.99 | max |
|---|---|---|---|---|---|
$(gap_rows '.sizes[0].poll_gap_us.shortest')
TEXT
}

# Nanoseconds of the floor on each of the given cores at the same time; the largest.
floor_on() {
    local core
    for core in "$@"; do
        taskset --cpu-list "$core" "$work/floor" "$(capture_of imix-plain)" 32 "${log2slots[imix-plain]:-18}" 0 1 &
    done | sed -n 's/.* \([0-9.]*\) ns\/pkt.*/\1/p' | sort -n | tail -1
}

# How many times as much two do as one: of the workers, and of the floor as what the machine allows.
part_workers() {
    local workers times machine capture round cores
    capture=$(capture_of imix-plain)
    rm -f "$work"/scaling-* "$work"/floors-*
    for ((round = 0; round < $(rounds 5); round++)); do
        for workers in 1 2; do
            "$probe" bench --pcap "$capture" --slots 262144 --workers "$workers" --json >"$work/workers-$workers"
            jq .scaling "$work/workers-$workers" >>"$work/scaling-$workers"
        done
        mapfile -t cores < <(jq '.cores[]' "$work/workers-2")
        floor_on "${cores[0]}" >>"$work/floors-1"
        floor_on "${cores[@]}" >>"$work/floors-2"
    done
    times=$(awk -v one="$(median <"$work/scaling-1")" -v two="$(median <"$work/scaling-2")" 'BEGIN { printf "%.2f", two / one }')
    machine=$(awk -v one="$(median <"$work/floors-1")" -v two="$(median <"$work/floors-2")" 'BEGIN { printf "%.2f", 2 * one / two }')
    cat <<TEXT
## Scales: two workers, imix-plain
| packets by the largest worker's CPU time, two workers by one | bar | met | the floor alone, two processes by one |
|---|---|---|---|
| $times | $bar_workers | $(met "$times" "$bar_workers" least) | $machine |

Medians of $(rounds 5) in turns.
TEXT
    jq -r '"\n\(.ns_per_packet * 10 | round / 10) ns of CPU time per packet, \(.packets_per_second / 1e4 | round / 100) million packets a second of wall time together, on cores that the aggregator shares (last round)."' "$work/workers-2"
}

# Rows a second of the aggregation thread, and what a flood leaves.
# All packets come to one of two workers, who passes on those of the other's flows.
part_spread() {
    local capture round added
    capture=$(capture_of imix-plain)
    rm -f "$work"/spread-*
    for ((round = 0; round < $(rounds 5); round++)); do
        "$probe" bench --pcap "$capture" --slots 262144 --workers 2 --spread --json >"$work/report"
        for figure in sending_ns_per_packet taking_ns_per_packet added_ns_per_packet; do
            jq ".spread.$figure" "$work/report" >>"$work/spread-$figure"
        done
    done
    added=$(median <"$work/spread-added_ns_per_packet")
    cat <<TEXT
## Spread by software: what each packet received costs more where half are passed on, imix-plain
| ns of CPU time of both workers (least–most) | bar | met | the ring alone: sending, taking |
|---|---|---|---|
| $(printf '%.1f' "$added") ($(spread <"$work/spread-added_ns_per_packet")) | $bar_spread_ns | $(met "$added" "$bar_spread_ns") | $(median <"$work/spread-sending_ns_per_packet" | xargs printf '%.1f'), $(median <"$work/spread-taking_ns_per_packet" | xargs printf '%.1f') |

Medians of $(rounds 5).
TEXT
}

part_aggregator() {
    local flows rows
    cat <<'TEXT'
## Aggregator
One thread: joining rows, sorting, names, records, detectors, page; records are encoded and written by another. 100,000 conversations a window.

| flows of a conversation in a window | million rows a second of CPU time | bar | met | million conversations a second | resident MiB |
|---|---|---|---|---|---|
TEXT
    for flows in 4 1; do
        for ((round = 0; round < $(rounds 3); round++)); do
            "$probe" bench --aggregator --flows-per-conversation "$flows" --json
        done >"$work/aggregator"
        rows=$(jq '.rows_per_second | round' "$work/aggregator" | median)
        echo "| $flows | $(awk -v rows="$rows" 'BEGIN { printf "%.2f", rows / 1e6 }') | $(awk -v bar="$bar_rows" 'BEGIN { print bar / 1e6 }') | $(met "$rows" "$bar_rows" least) | $(jq '.conversations_per_second / 1e4 | round / 100' "$work/aggregator" | median) | $(jq '.resident_bytes / 1048576 | round' "$work/aggregator" | median) |"
    done
    "$probe" bench --aggregator --flood 1000000 --windows 10 --json >"$work/report"
    cat <<TEXT

A flood of a million new flows a second for 10 s, each of one SYN, from one worker by the clock:

| flows | packets in windows | causes | unaccounted | records made, dropped | aggregation busy | resident MiB, second by second |
|---|---|---|---|---|---|---|
$(jq -r '.ledger as $ledger | [.flows, $ledger.accounted,
        ($ledger.causes | to_entries | map("\(.key) \(.value)") | join(", ") | if . == "" then "none" else . end),
        $ledger.unaccounted,
        ([.sinks[] | "\(.made), " + (.dropped | to_entries | map("\(.key) \(.value)") | join(", ") | if . == "" then "none" else . end)] | join("; ")),
        "\(.aggregation_busy * 100 | round) %",
        (.resident_bytes | map(. / 1048576 | round | tostring) | join(" "))]
        | map(tostring) | "| " + join(" | ") + " |"' "$work/report")
TEXT
}

# Look-ups of one thread while another applies changes.
part_inventory() {
    local round lookups fetched wrong
    for ((round = 0; round < $(rounds 3); round++)); do
        # Look-ups that were wrong make it fail, and stand in the table.
        "$probe" bench --inventory --seconds 10 --json || true
    done >"$work/inventory"
    lookups=$(jq '.lookups_per_second | round' "$work/inventory" | median)
    fetched=$(jq '1e9 / .ns_per_lookup_with_fetch | round' "$work/inventory" | median)
    wrong=$(jq -s 'map(.wrong) | add' "$work/inventory")
    cat <<TEXT
## Look-ups in the inventory while it changes
$(jq -rs '.[0] | "\(.vms) VMs of \(.tenants) tenants, all in 10.0.0.0/24"' "$work/inventory"); one migration and one address that goes over to a new VM each second. Medians of $(rounds 3) times 10 s.

| what | figure | bar | met |
|---|---|---|---|
| million look-ups a second of one thread's CPU time | $(awk -v count="$lookups" 'BEGIN { printf "%.1f", count / 1e6 }') | $(awk -v bar="$bar_lookups" 'BEGIN { print bar / 1e6 }') | $(met "$lookups" "$bar_lookups" least) |
| the same where each fetches the newest snapshot | $(awk -v count="$fetched" 'BEGIN { printf "%.1f", count / 1e6 }') | $(awk -v bar="$bar_lookups" 'BEGIN { print bar / 1e6 }') | $(met "$fetched" "$bar_lookups" least) |
| look-ups that were wrong, of $(jq -s 'map(.lookups) | add' "$work/inventory") | $wrong | 0 | $(met "$wrong" 0) |
| changes meanwhile | $(jq -s 'map(.changes) | add' "$work/inventory") | | |
| a change, until a look-up sees it: median, longest, ms | $(jq '.visible_us_p50 / 100 | round / 10' "$work/inventory" | median), $(jq -s 'map(.visible_us_max) | max / 100 | round / 10' "$work/inventory") | | |
| CPU time of the keeper for a change, its looks at the sources included, µs | $(jq '.change_us | round' "$work/inventory" | median) | | |
| reading all VMs, ms of CPU time | $(jq '.load_ms | round' "$work/inventory" | median) | | |
| memory of the process, MiB | $(jq '.resident_bytes / 1048576 | round' "$work/inventory" | median) | | |
TEXT
}

# A day of a cloud's records, asked; then a worker beside queries over it.
part_store() {
    local hours=24 vms=1000 rate=1000
    ! $quick || hours=1
    "$probe" bench --store "$work/day" --vms "$vms" --per-second "$rate" --hours "$hours" --times "$(($(rounds 4) + 1))" --json >"$work/report" || true
    cat <<TEXT
## Store: $hours hours of $vms VMs, $rate conversations a second
| million conversations, flows, records in all | files when written, merged | GiB when written, merged | MB a million conversations | thousand records a second of CPU time: encoded and written | merging, s of CPU time | adding hours up, s of CPU time | files, GiB of these | MiB at most |
|---|---|---|---|---|---|---|---|---|
$(jq -r '[([.conversations, .flows, .records] | map(. / 1e4 | round / 100 | tostring) | join(", ")),
        "\(.written.files), \(.merged.files)",
        "\(.written.bytes / 1073741824 * 100 | round / 100), \(.merged.bytes / 1073741824 * 100 | round / 100)",
        (.bytes_per_million_conversations / 1e4 | round / 100),
        (.records_per_second / 1e3 | round), (.merge_cpu_s | round), (.roll_up_cpu_s | round),
        "\(.merged.rolled_files), \(.merged.rolled_bytes / 1073741824 * 100 | round / 100)", (.peak_bytes / 1048576 | round)]
        | map(tostring) | "| " + join(" | ") + " |"' "$work/report")

Questions to it, each a process from its start to its last octet, on $(nproc) cores; files are in the system's cache but for the first time. Bar: $bar_question_ms ms.

| question | first, ms | median, ms | met | CPU time, ms | MiB at most | lines |
|---|---|---|---|---|---|---|
$(jq -r --argjson bar "$bar_question_ms" '.questions[] | if .failed then "| \(.name) | no answer: \(.failed) | | **no** | | | |"
        else "| \(.name) | \(.first_ms | round) | \(.median_ms | round) | \(if .median_ms <= $bar then "yes" else "**no**" end) | \(.cpu_ms | round) | \(.peak_bytes / 1048576 | round) | \(.lines) |" end' "$work/report")
TEXT
    "$probe" bench --beside-query "$work/day" --json >"$work/report"
    cat <<TEXT

## Never disturbed: poll gaps of a worker beside queries over these records
$(jq -r '"\(.flows) live flows on core \(.worker_cores | join(", ")); beside it queries on cores \(.query_cores | join(", ")), one after the other: \(.queries) ended, \(.query_s * 10 | round / 10) s each, \(.queries_cut) were under way when the worker was done; \(.runs) runs of each in turns. Turns in which the packets are made do not count. µs from one poll to the next; reading two clocks is in each."' "$work/report")

| | turns | p50 | p99 | p99.99 | max |
|---|---|---|---|---|---|
$(jq -r 'def line(what; gaps): gaps | "| \(what) | \(.turns) | \(.p50) | \(.p99) | \(.p9999) | \(.max) |";
        line("alone, by the clock on the wall"; .alone.wall), line("beside queries, by the clock on the wall"; .beside.wall),
        line("alone, CPU time"; .alone.cpu), line("beside queries, CPU time"; .beside.cpu)' "$work/report")
TEXT
    rm -rf "$work/day"
}

# Waits until the server on a port answers.
await_clickhouse() {
    local left
    for ((left = 300; left > 0; left--)); do
        curl -sf "http://127.0.0.1:$1/ping" >/dev/null && return
        sleep 0.1
    done
    fail "ClickHouse does not answer: $(tail -1 "$work/clickhouse.log")"
}

# Starts a ClickHouse on a port of this machine, with the tables of `$work/sink.toml`, which is made with
# further lines; `server` is its process.
start_clickhouse() {
    local port=$1 url="http://127.0.0.1:$1"
    mkdir -p "$work/clickhouse"
    cat >"$work/clickhouse/users.xml" <<TEXT
<clickhouse><profiles><default/></profiles><quotas><default/></quotas>
<users><default><password/><networks><ip>127.0.0.1</ip></networks><profile>default</profile><quota>default</quota></default></users></clickhouse>
TEXT
    cat >"$work/clickhouse/config.xml" <<TEXT
<clickhouse><logger><level>warning</level><log>$work/clickhouse.log</log></logger>
<http_port>$port</http_port><listen_host>127.0.0.1</listen_host><path>$work/clickhouse/data/</path>
<tmp_path>$work/clickhouse/tmp/</tmp_path><user_files_path>$work/clickhouse/files/</user_files_path>
<users_config>users.xml</users_config><default_profile>default</default_profile><default_database>default</default_database>
<max_server_memory_usage>4000000000</max_server_memory_usage></clickhouse>
TEXT
    scripts/clickhouse-server "$work/clickhouse/config.xml" >>"$work/clickhouse.log" 2>&1 &
    server=$!
    # shellcheck disable=SC2064 # the server of now
    trap "kill -9 $server 2>/dev/null || true; rm -rf '$work'" EXIT
    await_clickhouse "$port"
    cat >"$work/sink.toml" <<TEXT
[[sink.clickhouse]]
name = "lake"
url = "$url"
ttl_days = 0
rollup_ttl_days = 0
batch_records = 100000
queue_mib = 512
TEXT
    "$probe" schema clickhouse -c "$work/sink.toml" --apply >/dev/null
}

# Each question to a cloud's day, asked of the store's files and of a ClickHouse on this machine that has the
# same records.
part_answers() {
    local hours=24 vms=1000 rate=1000 server
    ! $quick || hours=1
    start_clickhouse 18124
    "$probe" bench --store "$work/day" --vms "$vms" --per-second "$rate" --hours "$hours" --times "$(($(rounds 4) + 1))" \
        --clickhouse "$work/sink.toml" --server-process "$server" --json >"$work/report" || true
    kill -9 "$server" 2>/dev/null || true
    cat <<TEXT
## Answers from files and from ClickHouse: $hours hours of $vms VMs, $rate conversations a second
$(jq -r '"\(.conversations / 1e4 | round / 100) million conversations, \(.records / 1e4 | round / 100) million records; on the server after \(.server.delivery_s | round) s. Program and server share '"$(nproc)"' cores."' "$work/report") Bar: $bar_question_ms ms. CPU time and memory are the query program's in files, its and the server's in ClickHouse; the server's memory is what it took beyond what it had. What reads \`vms_1m\` is asked of files alone: that table is not made there.

| question | files: first, median, ms | met | CPU time, ms | MiB | ClickHouse: first, median, ms | met | CPU time, ms | MiB: program, server | lines: files, ClickHouse |
|---|---|---|---|---|---|---|---|---|---|
$(jq -r --argjson bar "$bar_question_ms" 'def times: if .failed then "no answer: \(.failed)" else "\(.first_ms | round), \(.median_ms | round)" end;
        def met: if (.failed | not) and .median_ms <= $bar then "yes" else "**no**" end;
        def mib: . / 1048576 | round;
        # A question that the server has no table for stands with files alone.
        (.server.questions | INDEX(.name)) as $servers
        | .questions[] | . as $files | $servers[.name] as $server
        | "| \(.name) | \(times) | \(met) | \(.cpu_ms | round) | \(.peak_bytes | mib) | "
          + if $server then $server
                | "\(times) | \(met) | \(.cpu_ms + .server_cpu_ms | round) | \(.peak_bytes | mib), \(.server_bytes | mib) | \($files.lines), \(.lines) |"
            else "— | | | | \(.lines) |" end' "$work/report")
TEXT
    rm -rf "$work/day"
}

# CPU time of a process so far, in s.
cpu_of() {
    awk -v ticks="$(getconf CLK_TCK)" '{ print ($14 + $15) / ticks }' "/proc/$1/stat"
}

# Conversations to the database of a ClickHouse, several times: `bench --sinks` with further arguments. Each line of
# the answer is a report, with the server's CPU time meanwhile.
to_clickhouse() {
    local database=$1 round before table
    local tables=(windows)
    shift
    [[ $database != vmprobe ]] || tables+=(windows_1m windows_1h)
    sed "s/^name = .*/&\ndatabase = \"$database\"/" "$work/sink.toml" >"$work/$database.toml"
    for ((round = 0; round < $(rounds 3); round++)); do
        # The same rows again are another run's, and nothing of that is merged meanwhile.
        for table in "${tables[@]}"; do
            [[ $database == nothing ]] || curl -sf "$url" --data-binary "TRUNCATE TABLE $database.$table"
        done
        before=$(cpu_of "$server")
        "$probe" bench --sinks "$work/$database.toml" "$@" --json >"$work/report"
        jq -c --argjson before "$before" --argjson after "$(cpu_of "$server")" '. + {server_cpu_s: ($after - $before)}' "$work/report"
    done
}

# Rows of `windows` to a ClickHouse on this machine: what the probe takes, what the server takes of the batches that
# the probe makes, and both together.
part_clickhouse() {
    local port=18123 windows=20 server url database
    ! $quick || windows=4
    url="http://127.0.0.1:$port"
    start_clickhouse "$port"
    for database in nothing plain; do
        curl -sf "$url" --data-binary "CREATE DATABASE $database"
    done
    curl -sf "$url" --data-binary 'CREATE TABLE nothing.windows AS vmprobe.windows ENGINE = Null'
    curl -sf "$url" --data-binary 'CREATE TABLE plain.windows AS vmprobe.windows'
    to_clickhouse nothing --batches "$windows" >"$work/probe"
    to_clickhouse plain --batches "$windows" --apart >"$work/plain"
    to_clickhouse vmprobe --batches "$windows" --apart >"$work/server"
    to_clickhouse vmprobe --batches "$windows" >"$work/both"
    kill -9 "$server" 2>/dev/null || true
    # Figures of the reports in a file: of CPU time, of wall time, and µs a row.
    of_cpu() { jq '.rows / .cpu_s | round' "$work/$1" | median; }
    of_wall() { jq '.sinks[0].rows_per_second | round' "$work/$1" | median; }
    us() { jq ".$2 / .rows * 1e8 | round / 100" "$work/$1" | median; }
    thousand() { echo $((($1 + 500) / 1000)); }
    cat <<TEXT
## ClickHouse on this machine: conversations a second
$(jq -rs '.[0] | "\(.rows) rows of `windows`"' "$work/both"), batches of 100,000; probe and server share $(nproc) cores. Medians of $(rounds 3). To a table that keeps nothing (\`ENGINE = Null\`, the same columns) the server only reads what the probe sends. "The server alone" takes batches that were made before.

| what | thousand rows a second | bar | met | CPU time a row, µs: probe | server |
|---|---|---|---|---|---|
| the probe, a second of its CPU time: encoding, compressing, sending, to a table that keeps nothing | $(thousand "$(of_cpu probe)") | $((bar_sink_rows / 1000)) | $(met "$(of_cpu probe)" "$bar_sink_rows" least) | $(us probe cpu_s) | $(us probe server_cpu_s) |
| the same, from the first row until the server has confirmed the last | $(thousand "$(of_wall probe)") | | | | |
| the server alone, without roll-ups | $(thousand "$(of_wall plain)") | | | | $(us plain server_cpu_s) |
| the server alone, roll-ups by minute and hour filled as rows come | $(thousand "$(of_wall server)") | | | | $(us server server_cpu_s) |
| both together, from the first row until the server has confirmed the last | $(thousand "$(of_wall both)") | $((bar_sink_rows / 1000)) | $(met "$(of_wall both)" "$bar_sink_rows" least) | $(us both cpu_s) | $(us both server_cpu_s) |

Rows that were not delivered: $(cat "$work"/{probe,plain,server,both} | jq -s 'map(.sinks[0].dropped) | add').
TEXT
}

testpmd_ns() {
    command -v dpdk-testpmd >/dev/null || { echo '—'; return; }
    # What an mbuf pool on ordinary pages can hold.
    # shellcheck disable=SC2086 # the arguments are words
    "$work/dcgen" "$work/short.pcap" $1 --packets 20000 --flows 2000 >/dev/null 2>&1
    local before after
    {
        sleep 3
        echo 'show port stats 0'
        sleep 4
        echo 'show port stats 0'
        sleep 1
        echo quit
    } | dpdk-testpmd --lcores '0@0,1@1' --no-huge -m 1024 --no-pci --file-prefix "bench$$" \
        --vdev "net_pcap0,rx_pcap=$work/short.pcap,infinite_rx=1" -- --interactive --forward-mode=rxonly \
        --no-mlockall --total-num-mbufs=65536 --auto-start >"$work/testpmd" 2>&1 || true
    read -r before after < <(sed -n 's/.*RX-packets: *\([0-9]*\) *RX-missed.*/\1/p' "$work/testpmd" | head -2 | tr '\n' ' ') || true
    [[ -n ${after:-} && $after -gt $before ]] || { echo '—'; return; }
    awk -v packets=$((after - before)) 'BEGIN { printf "%.1f\n", 4e9 / packets }'
}

part_testpmd() {
    cat <<TEXT
## Beside testpmd
| what | imix-plain | m64-plain |
|---|---|---|
| \`dpdk-testpmd\` rxonly over \`net_pcap,infinite_rx=1\`, wall ns per packet | $(testpmd_ns '--size imix --encap none') | $(testpmd_ns '--size 64 --encap none') |

It only takes packets and frees them; they are copied from memory into mbufs by the driver.
TEXT
}

part_decoder() {
    cat <<TEXT
## The decoder alone, imix-plain
| decoder | ns per packet |
|---|---|
$(VMPROBE_BENCH_PCAP=$(capture_of imix-plain) cargo test --release --quiet --package vmprobe \
        --test decode_differential -- --ignored --nocapture 2>&1 | sed -n 's/^\(.*\): \([0-9.]*\) ns a packet/| \1 | \2 |/p' || true)
TEXT
}
