-- Tables of the records, schema version 1. Made from the record module of vmprobe; a test holds both equal.
CREATE TABLE "windows" (
    "schema_version" USMALLINT NOT NULL,
    "probe_id" VARCHAR NOT NULL, -- key
    "domain" VARCHAR NOT NULL, -- key
    "window_start_ns" UBIGINT NOT NULL,
    "window_end_ns" UBIGINT NOT NULL,
    "segment" VARCHAR NOT NULL, -- key
    "reverse_segment" VARCHAR,
    "address_space" VARCHAR NOT NULL, -- key
    "source_address" VARCHAR NOT NULL, -- key
    "destination_address" VARCHAR NOT NULL, -- key
    "source_mac" VARCHAR,
    "destination_mac" VARCHAR,
    "protocol_identifier" UTINYINT NOT NULL, -- key
    "destination_port" USMALLINT NOT NULL, -- key
    "application_name" VARCHAR NOT NULL, -- key
    "source_virtual_station_uuid" VARCHAR, -- key
    "source_virtual_station_name" VARCHAR, -- key
    "source_virtual_station_tenant" VARCHAR, -- key
    "destination_virtual_station_uuid" VARCHAR, -- key
    "destination_virtual_station_name" VARCHAR, -- key
    "destination_virtual_station_tenant" VARCHAR, -- key
    "traffic_class" VARCHAR NOT NULL, -- key
    "source_network_kind" VARCHAR, -- key
    "destination_network_kind" VARCHAR, -- key
    "flow_count" UBIGINT NOT NULL, -- sum
    "packet_delta_count" UBIGINT NOT NULL, -- sum
    "reverse_packet_delta_count" UBIGINT NOT NULL, -- sum
    "octet_delta_count" UBIGINT NOT NULL, -- sum
    "reverse_octet_delta_count" UBIGINT NOT NULL, -- sum
    "layer2_octet_delta_count" UBIGINT NOT NULL, -- sum
    "reverse_layer2_octet_delta_count" UBIGINT NOT NULL, -- sum
    "late_packet_count" UBIGINT NOT NULL, -- sum
    "syn_count" UBIGINT NOT NULL, -- sum
    "connection_established_count" UBIGINT NOT NULL, -- sum
    "connection_refused_count" UBIGINT NOT NULL, -- sum
    "connection_unanswered_count" UBIGINT NOT NULL, -- sum
    "connection_half_open_count" UBIGINT NOT NULL, -- sum
    "sampling_rate" DOUBLE NOT NULL, -- min
    "tap" VARCHAR NOT NULL,
    "contact_count" UBIGINT NOT NULL, -- sum
    "answered_count" UBIGINT NOT NULL, -- sum
    "handshake_server_rtt_sample_count" UBIGINT, -- sum
    "handshake_server_rtt_min_ns" UBIGINT, -- min
    "handshake_server_rtt_max_ns" UBIGINT, -- max
    "handshake_server_rtt_sum_ns" UBIGINT, -- sum
    "handshake_server_rtt_p50_ns" UBIGINT,
    "handshake_server_rtt_p90_ns" UBIGINT,
    "handshake_server_rtt_p99_ns" UBIGINT,
    "handshake_client_rtt_sample_count" UBIGINT, -- sum
    "handshake_client_rtt_min_ns" UBIGINT, -- min
    "handshake_client_rtt_max_ns" UBIGINT, -- max
    "handshake_client_rtt_sum_ns" UBIGINT, -- sum
    "handshake_client_rtt_p50_ns" UBIGINT,
    "handshake_client_rtt_p90_ns" UBIGINT,
    "handshake_client_rtt_p99_ns" UBIGINT,
    "tcp_timestamp_rtt_sample_count" UBIGINT, -- sum
    "tcp_timestamp_rtt_min_ns" UBIGINT, -- min
    "tcp_timestamp_rtt_max_ns" UBIGINT, -- max
    "tcp_timestamp_rtt_sum_ns" UBIGINT, -- sum
    "tcp_timestamp_rtt_p50_ns" UBIGINT,
    "tcp_timestamp_rtt_p90_ns" UBIGINT,
    "tcp_timestamp_rtt_p99_ns" UBIGINT,
    "reverse_tcp_timestamp_rtt_sample_count" UBIGINT, -- sum
    "reverse_tcp_timestamp_rtt_min_ns" UBIGINT, -- min
    "reverse_tcp_timestamp_rtt_max_ns" UBIGINT, -- max
    "reverse_tcp_timestamp_rtt_sum_ns" UBIGINT, -- sum
    "reverse_tcp_timestamp_rtt_p50_ns" UBIGINT,
    "reverse_tcp_timestamp_rtt_p90_ns" UBIGINT,
    "reverse_tcp_timestamp_rtt_p99_ns" UBIGINT,
    "sequence_ack_rtt_sample_count" UBIGINT, -- sum
    "sequence_ack_rtt_min_ns" UBIGINT, -- min
    "sequence_ack_rtt_max_ns" UBIGINT, -- max
    "sequence_ack_rtt_sum_ns" UBIGINT, -- sum
    "sequence_ack_rtt_p50_ns" UBIGINT,
    "sequence_ack_rtt_p90_ns" UBIGINT,
    "sequence_ack_rtt_p99_ns" UBIGINT,
    "reverse_sequence_ack_rtt_sample_count" UBIGINT, -- sum
    "reverse_sequence_ack_rtt_min_ns" UBIGINT, -- min
    "reverse_sequence_ack_rtt_max_ns" UBIGINT, -- max
    "reverse_sequence_ack_rtt_sum_ns" UBIGINT, -- sum
    "reverse_sequence_ack_rtt_p50_ns" UBIGINT,
    "reverse_sequence_ack_rtt_p90_ns" UBIGINT,
    "reverse_sequence_ack_rtt_p99_ns" UBIGINT,
    "response_time_sample_count" UBIGINT, -- sum
    "response_time_min_ns" UBIGINT, -- min
    "response_time_max_ns" UBIGINT, -- max
    "response_time_sum_ns" UBIGINT, -- sum
    "response_time_p50_ns" UBIGINT,
    "response_time_p90_ns" UBIGINT,
    "response_time_p99_ns" UBIGINT,
    "retransmission_packet_count" UBIGINT, -- sum
    "reverse_retransmission_packet_count" UBIGINT, -- sum
    "fast_retransmission_packet_count" UBIGINT, -- sum
    "reverse_fast_retransmission_packet_count" UBIGINT, -- sum
    "timeout_retransmission_packet_count" UBIGINT, -- sum
    "reverse_timeout_retransmission_packet_count" UBIGINT, -- sum
    "spurious_retransmission_packet_count" UBIGINT, -- sum
    "reverse_spurious_retransmission_packet_count" UBIGINT, -- sum
    "out_of_order_packet_count" UBIGINT, -- sum
    "reverse_out_of_order_packet_count" UBIGINT, -- sum
    "duplicate_ack_count" UBIGINT, -- sum
    "reverse_duplicate_ack_count" UBIGINT, -- sum
    "zero_window_count" UBIGINT, -- sum
    "reverse_zero_window_count" UBIGINT, -- sum
    "tail_retransmission_packet_count" UBIGINT, -- sum
    "reverse_tail_retransmission_packet_count" UBIGINT, -- sum
    "retransmission_episode_count" UBIGINT, -- sum
    "reverse_retransmission_episode_count" UBIGINT, -- sum
    "window_full_count" UBIGINT, -- sum
    "reverse_window_full_count" UBIGINT, -- sum
    "keep_alive_count" UBIGINT, -- sum
    "reverse_keep_alive_count" UBIGINT, -- sum
    "window_probe_count" UBIGINT, -- sum
    "reverse_window_probe_count" UBIGINT, -- sum
    "gap_count" UBIGINT, -- sum
    "reverse_gap_count" UBIGINT, -- sum
    "reset_count" UBIGINT, -- sum
    "reverse_reset_count" UBIGINT, -- sum
    "zero_window_ns" UBIGINT, -- sum
    "reverse_zero_window_ns" UBIGINT, -- sum
    "network_upstream_loss_packet_count" UBIGINT, -- sum
    "reverse_network_upstream_loss_packet_count" UBIGINT, -- sum
    "network_downstream_loss_packet_count" UBIGINT, -- sum
    "reverse_network_downstream_loss_packet_count" UBIGINT, -- sum
    "mirror_loss_packet_count" UBIGINT, -- sum
    "reverse_mirror_loss_packet_count" UBIGINT, -- sum
    "unresolved_loss_packet_count" UBIGINT, -- sum
    "reverse_unresolved_loss_packet_count" UBIGINT, -- sum
    "loss_low" DOUBLE,
    "loss_high" DOUBLE,
    "reverse_loss_low" DOUBLE,
    "reverse_loss_high" DOUBLE
);
CREATE TABLE "flows" (
    "schema_version" USMALLINT NOT NULL,
    "probe_id" VARCHAR NOT NULL,
    "domain" VARCHAR NOT NULL,
    "flow_id" UBIGINT NOT NULL,
    "segment" VARCHAR NOT NULL,
    "reverse_segment" VARCHAR,
    "address_space" VARCHAR NOT NULL,
    "source_address" VARCHAR NOT NULL,
    "destination_address" VARCHAR NOT NULL,
    "source_port" USMALLINT NOT NULL,
    "destination_port" USMALLINT NOT NULL,
    "protocol_identifier" UTINYINT NOT NULL,
    "ip_version" UTINYINT NOT NULL,
    "source_mac" VARCHAR,
    "destination_mac" VARCHAR,
    "flow_start_ns" UBIGINT NOT NULL,
    "flow_end_ns" UBIGINT NOT NULL,
    "flow_end_reason" UTINYINT NOT NULL,
    "initiator_method" VARCHAR NOT NULL,
    "packet_delta_count" UBIGINT NOT NULL,
    "reverse_packet_delta_count" UBIGINT NOT NULL,
    "octet_delta_count" UBIGINT NOT NULL,
    "reverse_octet_delta_count" UBIGINT NOT NULL,
    "layer2_octet_delta_count" UBIGINT NOT NULL,
    "reverse_layer2_octet_delta_count" UBIGINT NOT NULL,
    "tcp_control_bits" USMALLINT NOT NULL,
    "reverse_tcp_control_bits" USMALLINT NOT NULL,
    "tcp_state" VARCHAR NOT NULL,
    "application_name" VARCHAR NOT NULL,
    "tap" VARCHAR NOT NULL,
    "reverse_tap" VARCHAR,
    "duplicate_packet_count" UBIGINT,
    "reverse_duplicate_packet_count" UBIGINT,
    "icmp_error_count" UBIGINT,
    "reverse_icmp_error_count" UBIGINT,
    "connection_opening" VARCHAR,
    "handshake_server_rtt_ns" UBIGINT,
    "handshake_client_rtt_ns" UBIGINT,
    "fragment_count" UBIGINT,
    "snapped_packet_count" UBIGINT,
    "sampling_rate" DOUBLE NOT NULL,
    "source_virtual_station_uuid" VARCHAR,
    "source_virtual_station_name" VARCHAR,
    "source_virtual_station_tenant" VARCHAR,
    "destination_virtual_station_uuid" VARCHAR,
    "destination_virtual_station_name" VARCHAR,
    "destination_virtual_station_tenant" VARCHAR,
    "traffic_class" VARCHAR NOT NULL,
    "source_network_kind" VARCHAR,
    "destination_network_kind" VARCHAR,
    "retransmission_packet_count" UBIGINT,
    "reverse_retransmission_packet_count" UBIGINT,
    "fast_retransmission_packet_count" UBIGINT,
    "reverse_fast_retransmission_packet_count" UBIGINT,
    "timeout_retransmission_packet_count" UBIGINT,
    "reverse_timeout_retransmission_packet_count" UBIGINT,
    "spurious_retransmission_packet_count" UBIGINT,
    "reverse_spurious_retransmission_packet_count" UBIGINT,
    "out_of_order_packet_count" UBIGINT,
    "reverse_out_of_order_packet_count" UBIGINT,
    "duplicate_ack_count" UBIGINT,
    "reverse_duplicate_ack_count" UBIGINT,
    "zero_window_count" UBIGINT,
    "reverse_zero_window_count" UBIGINT,
    "tail_retransmission_packet_count" UBIGINT,
    "reverse_tail_retransmission_packet_count" UBIGINT,
    "retransmission_episode_count" UBIGINT,
    "reverse_retransmission_episode_count" UBIGINT,
    "window_full_count" UBIGINT,
    "reverse_window_full_count" UBIGINT,
    "keep_alive_count" UBIGINT,
    "reverse_keep_alive_count" UBIGINT,
    "window_probe_count" UBIGINT,
    "reverse_window_probe_count" UBIGINT,
    "gap_count" UBIGINT,
    "reverse_gap_count" UBIGINT,
    "reset_count" UBIGINT,
    "reverse_reset_count" UBIGINT,
    "zero_window_ns" UBIGINT,
    "reverse_zero_window_ns" UBIGINT,
    "network_upstream_loss_packet_count" UBIGINT,
    "reverse_network_upstream_loss_packet_count" UBIGINT,
    "network_downstream_loss_packet_count" UBIGINT,
    "reverse_network_downstream_loss_packet_count" UBIGINT,
    "mirror_loss_packet_count" UBIGINT,
    "reverse_mirror_loss_packet_count" UBIGINT,
    "unresolved_loss_packet_count" UBIGINT,
    "reverse_unresolved_loss_packet_count" UBIGINT,
    "network_upstream_loss_octet_count" UBIGINT,
    "reverse_network_upstream_loss_octet_count" UBIGINT,
    "network_downstream_loss_octet_count" UBIGINT,
    "reverse_network_downstream_loss_octet_count" UBIGINT,
    "mirror_loss_octet_count" UBIGINT,
    "reverse_mirror_loss_octet_count" UBIGINT,
    "unresolved_loss_octet_count" UBIGINT,
    "reverse_unresolved_loss_octet_count" UBIGINT
);
CREATE TABLE "apps" (
    "schema_version" USMALLINT NOT NULL,
    "probe_id" VARCHAR NOT NULL,
    "domain" VARCHAR NOT NULL,
    "transaction_start_ns" UBIGINT NOT NULL,
    "response_time_ns" UBIGINT,
    "transaction_state" VARCHAR NOT NULL,
    "is_truncated" BOOLEAN NOT NULL,
    "flow_id" UBIGINT NOT NULL,
    "segment" VARCHAR NOT NULL,
    "address_space" VARCHAR NOT NULL,
    "source_address" VARCHAR NOT NULL,
    "destination_address" VARCHAR NOT NULL,
    "source_port" USMALLINT NOT NULL,
    "destination_port" USMALLINT NOT NULL,
    "protocol_identifier" UTINYINT NOT NULL,
    "application_name" VARCHAR NOT NULL,
    "tap" VARCHAR NOT NULL,
    "source_virtual_station_uuid" VARCHAR,
    "source_virtual_station_name" VARCHAR,
    "source_virtual_station_tenant" VARCHAR,
    "destination_virtual_station_uuid" VARCHAR,
    "destination_virtual_station_name" VARCHAR,
    "destination_virtual_station_tenant" VARCHAR,
    "traffic_class" VARCHAR NOT NULL,
    "dns_id" USMALLINT,
    "dns_question_name" VARCHAR,
    "dns_question_type" VARCHAR,
    "dns_question_class" VARCHAR,
    "dns_flags" USMALLINT,
    "dns_response_code" VARCHAR,
    "dns_answer_count" USMALLINT,
    "dns_answers" VARCHAR,
    "tls_server_name" VARCHAR,
    "tls_version" VARCHAR,
    "tls_offered_version" VARCHAR,
    "tls_cipher_suite" USMALLINT,
    "tls_offered_protocols" VARCHAR,
    "tls_protocol" VARCHAR,
    "tls_ja4" VARCHAR,
    "http_request_method" VARCHAR,
    "http_request_host" VARCHAR,
    "http_request_target" VARCHAR,
    "http_message_version" VARCHAR,
    "http_user_agent" VARCHAR,
    "http_status_code" USMALLINT,
    "http_content_type" VARCHAR,
    "http_content_length" UBIGINT
);
CREATE TABLE "path" (
    "schema_version" USMALLINT NOT NULL,
    "probe_id" VARCHAR NOT NULL,
    "domain" VARCHAR NOT NULL,
    "window_start_ns" UBIGINT NOT NULL,
    "window_end_ns" UBIGINT NOT NULL,
    "scope" VARCHAR NOT NULL,
    "from_tap" VARCHAR NOT NULL,
    "to_tap" VARCHAR NOT NULL,
    "from_host" VARCHAR,
    "to_host" VARCHAR,
    "address_space" VARCHAR,
    "source_address" VARCHAR,
    "destination_address" VARCHAR,
    "protocol_identifier" UTINYINT,
    "source_virtual_station_uuid" VARCHAR,
    "source_virtual_station_name" VARCHAR,
    "source_virtual_station_tenant" VARCHAR,
    "destination_virtual_station_uuid" VARCHAR,
    "destination_virtual_station_name" VARCHAR,
    "destination_virtual_station_tenant" VARCHAR,
    "sampling_probability" DOUBLE NOT NULL,
    "sampled_packet_count" UBIGINT NOT NULL,
    "matched_packet_count" UBIGINT NOT NULL,
    "recut_packet_count" UBIGINT NOT NULL,
    "first_tap_missed_packet_count" UBIGINT NOT NULL,
    "network_loss_packet_count" UBIGINT NOT NULL,
    "mirror_loss_packet_count" UBIGINT NOT NULL,
    "unresolved_loss_packet_count" UBIGINT NOT NULL,
    "segment_stripped_packet_count" UBIGINT NOT NULL,
    "ambiguous_packet_count" UBIGINT NOT NULL,
    "answered_pair_count" UBIGINT,
    "first_tap_one_way_pair_count" UBIGINT,
    "later_tap_one_way_pair_count" UBIGINT,
    "loss_low" DOUBLE,
    "loss_high" DOUBLE,
    "delay_sample_count" UBIGINT NOT NULL,
    "delay_mean_ns" BIGINT,
    "delay_min_ns" BIGINT,
    "delay_max_ns" BIGINT,
    "delay_p50_ns" BIGINT,
    "delay_p90_ns" BIGINT,
    "delay_p99_ns" BIGINT,
    "delay_base_ns" BIGINT,
    "delay_excess_mean_ns" BIGINT,
    "clock_offset_ns" BIGINT,
    "clock_offset_bound_ns" UBIGINT
);
CREATE TABLE "delays" (
    "schema_version" USMALLINT NOT NULL,
    "probe_id" VARCHAR NOT NULL,
    "domain" VARCHAR NOT NULL,
    "window_start_ns" UBIGINT NOT NULL,
    "window_end_ns" UBIGINT NOT NULL,
    "virtual_station_tenant" VARCHAR,
    "method" VARCHAR NOT NULL,
    "sample_count" UBIGINT NOT NULL,
    "sum_ns" UBIGINT NOT NULL,
    "min_ns" UBIGINT NOT NULL,
    "max_ns" UBIGINT NOT NULL,
    "p50_ns" UBIGINT NOT NULL,
    "p90_ns" UBIGINT NOT NULL,
    "p99_ns" UBIGINT NOT NULL
);
CREATE TABLE "path_samples" (
    "schema_version" USMALLINT NOT NULL,
    "probe_id" VARCHAR NOT NULL,
    "domain" VARCHAR NOT NULL,
    "observation_time_ns" UBIGINT NOT NULL,
    "window_start_ns" UBIGINT NOT NULL,
    "digest_hash_value" UBIGINT NOT NULL,
    "tap" VARCHAR NOT NULL,
    "ip_total_length" UINTEGER NOT NULL,
    "ip_ttl" UTINYINT NOT NULL,
    "address_space" VARCHAR NOT NULL,
    "source_address" VARCHAR NOT NULL,
    "destination_address" VARCHAR NOT NULL,
    "protocol_identifier" UTINYINT NOT NULL,
    "evidence" VARCHAR NOT NULL,
    "segment_stripped" BOOLEAN NOT NULL
);
CREATE TABLE "migrations" (
    "schema_version" USMALLINT NOT NULL,
    "probe_id" VARCHAR NOT NULL,
    "domain" VARCHAR NOT NULL,
    "time_ns" UBIGINT NOT NULL,
    "virtual_station_uuid" VARCHAR,
    "virtual_station_name" VARCHAR,
    "virtual_station_tenant" VARCHAR,
    "reported_by" VARCHAR,
    "detected" BOOLEAN NOT NULL,
    "from_host" VARCHAR,
    "to_host" VARCHAR,
    "from_tap" VARCHAR,
    "to_tap" VARCHAR,
    "address_space" VARCHAR,
    "segment" VARCHAR,
    "address" VARCHAR,
    "mac" VARCHAR,
    "last_seen_ns" UBIGINT,
    "first_seen_ns" UBIGINT,
    "blackout_ns" UBIGINT,
    "blackout_clock_bound_ns" UBIGINT,
    "peer_count" UBIGINT,
    "sampling_probability" DOUBLE NOT NULL,
    "estimate" BOOLEAN NOT NULL
);
CREATE TABLE "alerts" (
    "schema_version" USMALLINT NOT NULL,
    "probe_id" VARCHAR NOT NULL,
    "domain" VARCHAR NOT NULL,
    "alert_id" VARCHAR NOT NULL,
    "detector" VARCHAR NOT NULL,
    "state" VARCHAR NOT NULL,
    "severity" VARCHAR NOT NULL,
    "confidence" DOUBLE NOT NULL,
    "mitre_technique" VARCHAR,
    "source_address" VARCHAR,
    "destination_address" VARCHAR,
    "destination_port" USMALLINT,
    "segment" VARCHAR NOT NULL,
    "address_space" VARCHAR NOT NULL,
    "source_virtual_station_uuid" VARCHAR,
    "source_virtual_station_name" VARCHAR,
    "source_virtual_station_tenant" VARCHAR,
    "destination_virtual_station_uuid" VARCHAR,
    "destination_virtual_station_name" VARCHAR,
    "destination_virtual_station_tenant" VARCHAR,
    "first_seen_ns" UBIGINT NOT NULL,
    "last_seen_ns" UBIGINT NOT NULL,
    "statistic" DOUBLE NOT NULL,
    "threshold" DOUBLE NOT NULL,
    "baseline" DOUBLE NOT NULL,
    "event_count" UBIGINT NOT NULL,
    "title" VARCHAR NOT NULL,
    "features" VARCHAR NOT NULL,
    "silent_if" VARCHAR NOT NULL,
    "seen_by_probes" VARCHAR
);
CREATE TABLE "ledger" (
    "schema_version" USMALLINT NOT NULL,
    "probe_id" VARCHAR NOT NULL,
    "domain" VARCHAR NOT NULL,
    "window_start_ns" UBIGINT NOT NULL,
    "scope" VARCHAR NOT NULL,
    "name" VARCHAR NOT NULL,
    "measure" VARCHAR NOT NULL,
    "packet_count" UBIGINT NOT NULL,
    "unaccounted" BIGINT,
    "estimate" BOOLEAN NOT NULL
);
CREATE TABLE "inventory" (
    "schema_version" USMALLINT NOT NULL,
    "probe_id" VARCHAR NOT NULL,
    "domain" VARCHAR NOT NULL,
    "fact_id" UBIGINT NOT NULL,
    "run_start_ns" UBIGINT NOT NULL,
    "uuid" VARCHAR,
    "name" VARCHAR,
    "tenant" VARCHAR,
    "tenant_shared" BOOLEAN NOT NULL,
    "host" VARCHAR,
    "switch" VARCHAR,
    "mac" VARCHAR,
    "address" VARCHAR,
    "segment" VARCHAR,
    "address_space" VARCHAR,
    "attributed" BOOLEAN NOT NULL,
    "address_shared" BOOLEAN NOT NULL,
    "valid_from_ns" UBIGINT NOT NULL,
    "valid_to_ns" UBIGINT,
    "known_from_ns" UBIGINT NOT NULL,
    "known_to_ns" UBIGINT,
    "source" VARCHAR NOT NULL
);
CREATE TABLE "vm_usage" (
    "schema_version" USMALLINT NOT NULL,
    "probe_id" VARCHAR NOT NULL,
    "domain" VARCHAR NOT NULL,
    "sample_ns" UBIGINT NOT NULL,
    "virtual_station_uuid" VARCHAR NOT NULL,
    "mac" VARCHAR,
    "cpu_total_ns" UBIGINT,
    "vcpu_count" UBIGINT,
    "memory_bytes" UBIGINT,
    "resident_bytes" UBIGINT,
    "layer2_octet_total_count" UBIGINT,
    "reverse_layer2_octet_total_count" UBIGINT,
    "packet_total_count" UBIGINT,
    "reverse_packet_total_count" UBIGINT,
    "dropped_packet_total_count" UBIGINT,
    "reverse_dropped_packet_total_count" UBIGINT,
    "error_packet_total_count" UBIGINT,
    "reverse_error_packet_total_count" UBIGINT
);
CREATE TABLE "taps" (
    "schema_version" USMALLINT NOT NULL,
    "probe_id" VARCHAR NOT NULL,
    "domain" VARCHAR NOT NULL,
    "window_start_ns" UBIGINT NOT NULL,
    "tap" VARCHAR NOT NULL,
    "host" VARCHAR,
    "switch" VARCHAR,
    "port" VARCHAR NOT NULL,
    "packet_count" UBIGINT NOT NULL,
    "octet_count" UBIGINT NOT NULL,
    "duplicate_packet_count" UBIGINT NOT NULL,
    "copy_ambiguous_packet_count" UBIGINT NOT NULL,
    "copy_other_tap_packet_count" UBIGINT NOT NULL,
    "snapped_packet_count" UBIGINT NOT NULL,
    "tcp_conversation_count" UBIGINT NOT NULL,
    "tcp_one_way_conversation_count" UBIGINT NOT NULL,
    "coverage" DOUBLE,
    "segment_unknown_packet_count" UBIGINT,
    "segment_unmapped_packet_count" UBIGINT NOT NULL,
    "mirror_sequence_gap_count" UBIGINT,
    "cloud_endpoint_id" VARCHAR,
    "cloud_attachment_id" VARCHAR,
    "clock_source" VARCHAR NOT NULL,
    "clock_error_bound_ns" UBIGINT
);
