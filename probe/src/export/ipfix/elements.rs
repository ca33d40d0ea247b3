//! Which Information Element a column is, and how it is written.
//!
//! In: the columns of a table. Out: [`Field`]s in the order of a record.
//! Cost: once for each table and encoder.
//! Invariants: a number of [`OWN`] never changes its meaning and is never used again; the reverse of an
//! own element has its number with [`REVERSE_BIT`] set, as RFC 5103 §6.2 leaves it to enterprises.
//! Source: IANA's registry "IPFIX Entities"; RFC 7011 §6 (encodings), RFC 5103 §6 (reverse elements),
//! RFC 7015 (the times of an aggregated flow are those of its interval).

use std::fmt::Write as _;

use crate::record::{COMMON, Column, Element, Kind, Table};

/// Enterprise number of the reverse elements of IANA's (RFC 5103 §6.1).
pub(super) const REVERSE_ENTERPRISE: u32 = 29_305;
/// What tells the reverse of an own element from the element.
const REVERSE_BIT: u16 = 0x4000;

/// Elements under the probe's enterprise number: number and column. Add at the end only. They begin where
/// IANA has none, because nfacctd (1.7.7) mixes up equal numbers of different enterprises.
const OWN: &[(u16, &str)] = &[
    (1001, "segment"),
    (1002, "address_space"),
    (1003, "initiator_method"),
    (1004, "tcp_state"),
    (1005, "tap"),
    (1006, "duplicate_packet_count"),
    (1007, "icmp_error_count"),
    (1008, "connection_opening"),
    (1009, "handshake_server_rtt_ns"),
    (1010, "handshake_client_rtt_ns"),
    (1011, "fragment_count"),
    (1012, "snapped_packet_count"),
    (1013, "source_virtual_station_tenant"),
    (1014, "destination_virtual_station_tenant"),
    (1015, "traffic_class"),
    (1016, "retransmission_packet_count"),
    (1017, "fast_retransmission_packet_count"),
    (1018, "timeout_retransmission_packet_count"),
    (1019, "spurious_retransmission_packet_count"),
    (1020, "out_of_order_packet_count"),
    (1021, "duplicate_ack_count"),
    (1022, "zero_window_count"),
    (1023, "tail_retransmission_packet_count"),
    (1024, "retransmission_episode_count"),
    (1025, "window_full_count"),
    (1026, "keep_alive_count"),
    (1027, "window_probe_count"),
    (1028, "gap_count"),
    (1029, "reset_count"),
    (1030, "zero_window_ns"),
    (1031, "network_upstream_loss_packet_count"),
    (1032, "network_downstream_loss_packet_count"),
    (1033, "mirror_loss_packet_count"),
    (1034, "unresolved_loss_packet_count"),
    (1035, "network_upstream_loss_octet_count"),
    (1036, "network_downstream_loss_octet_count"),
    (1037, "mirror_loss_octet_count"),
    (1038, "unresolved_loss_octet_count"),
    (1039, "source_network_kind"),
    (1040, "destination_network_kind"),
    (1041, "late_packet_count"),
    (1042, "syn_count"),
    (1043, "connection_established_count"),
    (1044, "connection_refused_count"),
    (1045, "connection_unanswered_count"),
    (1046, "connection_half_open_count"),
    (1047, "handshake_server_rtt_sample_count"),
    (1048, "handshake_server_rtt_min_ns"),
    (1049, "handshake_server_rtt_max_ns"),
    (1050, "handshake_server_rtt_sum_ns"),
    (1051, "handshake_server_rtt_p50_ns"),
    (1052, "handshake_server_rtt_p90_ns"),
    (1053, "handshake_server_rtt_p99_ns"),
    (1054, "handshake_client_rtt_sample_count"),
    (1055, "handshake_client_rtt_min_ns"),
    (1056, "handshake_client_rtt_max_ns"),
    (1057, "handshake_client_rtt_sum_ns"),
    (1058, "handshake_client_rtt_p50_ns"),
    (1059, "handshake_client_rtt_p90_ns"),
    (1060, "handshake_client_rtt_p99_ns"),
    (1061, "tcp_timestamp_rtt_sample_count"),
    (1062, "tcp_timestamp_rtt_min_ns"),
    (1063, "tcp_timestamp_rtt_max_ns"),
    (1064, "tcp_timestamp_rtt_sum_ns"),
    (1065, "tcp_timestamp_rtt_p50_ns"),
    (1066, "tcp_timestamp_rtt_p90_ns"),
    (1067, "tcp_timestamp_rtt_p99_ns"),
    (1068, "sequence_ack_rtt_sample_count"),
    (1069, "sequence_ack_rtt_min_ns"),
    (1070, "sequence_ack_rtt_max_ns"),
    (1071, "sequence_ack_rtt_sum_ns"),
    (1072, "sequence_ack_rtt_p50_ns"),
    (1073, "sequence_ack_rtt_p90_ns"),
    (1074, "sequence_ack_rtt_p99_ns"),
    (1075, "response_time_sample_count"),
    (1076, "response_time_min_ns"),
    (1077, "response_time_max_ns"),
    (1078, "response_time_sum_ns"),
    (1079, "response_time_p50_ns"),
    (1080, "response_time_p90_ns"),
    (1081, "response_time_p99_ns"),
    (1082, "loss_low"),
    (1083, "loss_high"),
    (1084, "host"),
    (1085, "switch"),
    (1086, "port"),
    (1087, "packet_count"),
    (1088, "octet_count"),
    (1089, "copy_ambiguous_packet_count"),
    (1090, "copy_other_tap_packet_count"),
    (1091, "tcp_conversation_count"),
    (1092, "tcp_one_way_conversation_count"),
    (1093, "coverage"),
    (1094, "segment_unknown_packet_count"),
    (1095, "segment_unmapped_packet_count"),
    (1096, "mirror_sequence_gap_count"),
    (1097, "cloud_endpoint_id"),
    (1098, "cloud_attachment_id"),
    (1099, "clock_source"),
    (1100, "clock_error_bound_ns"),
    (1101, "contact_count"),
    (1102, "answered_count"),
];

/// Under which authority a number stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Authority {
    /// IANA.
    Iana,
    /// IANA, of the reverse direction.
    Reverse,
    /// The probe's enterprise.
    Own,
}

/// How a value is written (RFC 7011 §6.1).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Form {
    /// In so many octets.
    Unsigned(u16),
    /// In 8 octets.
    Signed,
    /// TCP flags: 1 octet (RFC 7011 §6.2), or 2 where the upper ones are set. Collectors that know 1 octet
    /// only take the first of two, which is 0.
    Flags,
    /// IEEE 754, 8 octets.
    Float,
    /// 1 true, 2 false.
    Boolean,
    /// UTF-8 behind its length.
    Text,
    /// 16 octets behind their length.
    Uuid,
    /// 6 octets.
    Mac,
    /// 4 or 16 octets, and another element for each.
    Address(u16),
    /// Milliseconds since 1970.
    Milliseconds,
    /// NTP's 64 bits: seconds since 1900, modulo 2^32, and their fraction.
    Nanoseconds,
    /// [`point_id`] of a text.
    PointId,
    /// Always the same octet, whatever the column.
    Constant(u8),
}

/// One field of a record.
#[derive(Clone, Copy, Debug)]
pub(super) struct Field {
    /// Column.
    pub(super) place: usize,
    /// Who gave the number.
    pub(super) authority: Authority,
    /// Number of the element; of an address that of IPv4.
    pub(super) number: u16,
    /// How it is written.
    pub(super) form: Form,
    /// Left out, by another template, where it is null.
    pub(super) optional: bool,
}

impl Form {
    /// Octets; `None` where each value has its own length.
    pub(super) const fn octets(self) -> Option<u16> {
        match self {
            Self::Unsigned(octets) => Some(octets),
            Self::Signed | Self::Float | Self::Milliseconds | Self::Nanoseconds | Self::PointId => {
                Some(8)
            }
            Self::Boolean | Self::Constant(_) | Self::Flags => Some(1),
            Self::Mac => Some(6),
            Self::Address(_) => Some(4),
            Self::Text | Self::Uuid => None,
        }
    }

    /// IANA's number of its data type (RFC 5610 §3.1).
    const fn data_type(self) -> (u8, &'static str) {
        match self {
            Self::Unsigned(1) | Self::Constant(_) => (1, "unsigned8"),
            Self::Unsigned(2) | Self::Flags => (2, "unsigned16"),
            Self::Unsigned(4) => (3, "unsigned32"),
            Self::Unsigned(_) | Self::PointId => (4, "unsigned64"),
            Self::Signed => (8, "signed64"),
            Self::Float => (10, "float64"),
            Self::Boolean => (11, "boolean"),
            Self::Mac => (12, "macAddress"),
            Self::Text => (13, "string"),
            Self::Milliseconds => (15, "dateTimeMilliseconds"),
            Self::Nanoseconds => (17, "dateTimeNanoseconds"),
            Self::Address(_) => (18, "ipv4Address"),
            Self::Uuid => (0, "octetArray"),
        }
    }
}

/// Tables that are exported; of `taps` as options (RFC 7011 §3.4.2.2), whose scope is the Observation
/// Point.
pub(super) const TABLES: [Table; 3] = [Table::Flows, Table::Windows, Table::Taps];

/// How many of a table's first fields are its scope; 0: it has flow records.
pub(super) const fn scope_count(table: Table) -> u16 {
    match table {
        Table::Taps => 1,
        _ => 0,
    }
}

/// The fields of a table's records.
pub(super) fn fields(table: Table) -> Vec<Field> {
    let columns = table.columns();
    let mut fields = Vec::new();
    for (place, column) in columns.iter().enumerate().skip(COMMON.len()) {
        add(table, place, column, &mut fields);
    }
    if scope_count(table) == 0 {
        // biflowDirection: the source is the initiator.
        fields.push(field(0, Authority::Iana, 239, Form::Constant(1)));
    }
    // The scope first. Then what is reverse: nfdump up to 1.7.1 takes reverseTcpControlBits for the
    // forward ones, of which the last counts.
    let rank = |it: &Field| (it.form != Form::PointId, it.authority != Authority::Reverse);
    fields.sort_by_key(rank);
    fields
}

const fn field(place: usize, authority: Authority, number: u16, form: Form) -> Field {
    Field { place, authority, number, form, optional: false }
}

/// The fields that a column is, as a rule one.
fn add(table: Table, place: usize, column: &Column, fields: &mut Vec<Field>) {
    let iana = |number, form| field(place, Authority::Iana, number, form);
    match (table, column.name) {
        (Table::Taps, "window_start_ns") => return fields.push(iana(325, Form::Nanoseconds)),
        (_, "flow_start_ns" | "window_start_ns") => {
            return fields.extend([iana(152, Form::Milliseconds), iana(156, Form::Nanoseconds)]);
        }
        (_, "flow_end_ns" | "window_end_ns") => {
            return fields.extend([iana(153, Form::Milliseconds), iana(157, Form::Nanoseconds)]);
        }
        (_, "tap") => fields.push(iana(138, Form::PointId)),
        _ => {}
    }
    let form = match column.element {
        Element::Ie([6]) | Element::Reverse(6) => Form::Flags,
        _ => form(column),
    };
    let (authority, number) = match column.element {
        Element::Ie([four, six]) => {
            let form = Form::Address(*six);
            return fields.push(field(place, Authority::Iana, *four, form));
        }
        // The VM at the other end is the one that the reverse direction comes from.
        Element::Ie([number, ..]) if column.name.starts_with("destination_virtual") => {
            (Authority::Reverse, *number)
        }
        Element::Ie([number, ..]) => (Authority::Iana, *number),
        Element::Reverse(number) => (Authority::Reverse, number),
        Element::Ie([]) | Element::None => (Authority::Own, own(column.name)),
    };
    fields.push(Field { place, authority, number, form, optional: column.nullable });
}

fn form(column: &Column) -> Form {
    match column.kind {
        Kind::U8 => Form::Unsigned(1),
        Kind::U16 => Form::Unsigned(2),
        Kind::U32 => Form::Unsigned(4),
        Kind::U64 => Form::Unsigned(8),
        Kind::I64 => Form::Signed,
        Kind::F64 => Form::Float,
        Kind::Bool => Form::Boolean,
        Kind::Text if column.unit == "uuid" => Form::Uuid,
        Kind::Text if column.unit.contains(':') => Form::Mac,
        Kind::Text => Form::Text,
    }
}

/// The number of a column that IANA has none for; 0 where there is none, which a test excludes.
fn own(name: &str) -> u16 {
    let number = |name: &str| OWN.iter().find(|(_, of)| *of == name).map(|(number, _)| *number);
    match name.strip_prefix("reverse_") {
        Some(forward) => number(forward).map_or(0, |number| number | REVERSE_BIT),
        None => number(name).unwrap_or(0),
    }
}

/// An Observation Point's id: FNV-1a of its name, 64 bits, so that it is the same in each run.
pub(super) fn point_id(name: &str) -> u64 {
    name.bytes().fold(0xcbf2_9ce4_8422_2325, |hash, octet| {
        (hash ^ u64::from(octet)).wrapping_mul(0x0100_0000_01b3)
    })
}

/// An own element as RFC 5610 tells of it.
pub(super) struct OwnElement {
    pub(super) number: u16,
    pub(super) data_type: u8,
    pub(super) name: String,
}

/// All own elements that records have, by number.
pub(super) fn own_elements() -> Vec<OwnElement> {
    let mut found: Vec<_> = TABLES
        .iter()
        .flat_map(|table| {
            let columns = table.columns();
            fields(*table).into_iter().map(move |it| (it, columns.get(it.place).copied()))
        })
        .filter(|(field, _)| field.authority == Authority::Own)
        .filter_map(|(field, column)| {
            let (number, data_type) = (field.number, field.form.data_type().0);
            Some(OwnElement { number, data_type, name: element_name(column?.name) })
        })
        .collect();
    found.sort_by_key(|element| element.number);
    found.dedup_by_key(|element| element.number);
    found
}

/// In the style of IANA's names: `vmprobeGapCount`, `reverseVmprobeGapCount`.
fn element_name(column: &str) -> String {
    let (mut name, column) = match column.strip_prefix("reverse_") {
        Some(forward) => ("reverseVmprobe".to_owned(), forward),
        None => ("vmprobe".to_owned(), column),
    };
    for word in column.split('_') {
        let mut letters = word.chars();
        name.extend(letters.next().map(|letter| letter.to_ascii_uppercase()));
        name.extend(letters);
    }
    name
}

/// The elements of all tables as Markdown.
pub fn markdown() -> String {
    let mut text = "# Information Elements\n\n\
        Made from the record schema; a test holds both equal. Own elements stand under \
        `enterprise_number`, and their numbers never change. Meanings and units are those of the \
        [record schema](../../probe/src/record/README.md).\n"
        .to_owned();
    for table in TABLES {
        let columns = table.columns();
        // Writing into a String cannot fail.
        let _ = write!(
            text,
            "\n## {}\n\n| column | enterprise | element | type | name of the own element |\n\
             |---|---|---|---|---|\n",
            table.name()
        );
        for field in fields(table) {
            let Some(column) = columns.get(field.place) else { continue };
            let column_name = if let Form::Constant(_) = field.form { "" } else { column.name };
            let number = match field.form {
                Form::Address(six) => format!("{}, {six}", field.number),
                _ => field.number.to_string(),
            };
            let (enterprise, name) = match field.authority {
                Authority::Iana => ("", String::new()),
                Authority::Reverse => ("29305", String::new()),
                Authority::Own => ("own", element_name(column.name)),
            };
            let kind = match field.form {
                Form::Address(_) => "ipv4Address, ipv6Address",
                other => other.data_type().1,
            };
            let _ = writeln!(text, "| {column_name} | {enterprise} | {number} | {kind} | {name} |");
        }
    }
    text
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    #[test]
    fn every_column_has_an_element_of_its_own() {
        for table in TABLES {
            let mut seen = BTreeSet::new();
            let fields = fields(table);
            for field in &fields {
                assert!(field.number > 0, "{table:?} {field:?} has no number in OWN");
                assert!(seen.insert((field.authority, field.number)), "{table:?} {field:?} twice");
            }
            let places: BTreeSet<_> = fields.iter().map(|field| field.place).collect();
            let columns = table.columns().len();
            assert!((COMMON.len()..columns).all(|place| places.contains(&place)), "{table:?}");
            let scope = usize::from(scope_count(table));
            assert_eq!(fields[..scope].iter().filter(|it| it.form == Form::PointId).count(), scope);
        }
    }

    #[test]
    fn own_numbers_stand_once_and_in_order() {
        for (place, (number, name)) in OWN.iter().enumerate() {
            assert_eq!(usize::from(*number), place + 1_001, "{name}");
            assert_eq!(OWN.iter().filter(|(_, other)| other == name).count(), 1, "{name}");
        }
        let elements = own_elements();
        let unused = |number: u16| elements.iter().all(|it| it.number & !REVERSE_BIT != number);
        assert!(!OWN.iter().any(|(number, _)| unused(*number)));
    }

    #[test]
    fn names_are_in_the_style_of_iana() {
        assert_eq!(element_name("reverse_gap_count"), "reverseVmprobeGapCount");
        assert_eq!(element_name("segment"), "vmprobeSegment");
    }

    #[test]
    fn points_have_the_ids_of_fnv() {
        // The test vectors of its authors.
        assert_eq!(point_id(""), 0xcbf2_9ce4_8422_2325);
        assert_eq!(point_id("a"), 0xaf63_dc4c_8601_ec8c);
        assert_eq!(point_id("foobar"), 0x8594_4171_f739_67e8);
    }
}
