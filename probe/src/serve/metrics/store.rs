//! The records on disk.

use std::fmt;

use super::{Families, float, sample};
use crate::aggregate::live::LiveSnapshot;

pub(super) fn store(live: &LiveSnapshot, families: &mut Families<'_>) -> fmt::Result {
    let store = &live.store;
    let bytes = store.stored_bytes.map(|bytes| sample([], float(bytes)));
    families.gauges(
        "vmprobe_store_bytes",
        "Files of this probe's records, as last counted.",
        bytes,
    )?;
    families.counters(
        "vmprobe_store_merged_files",
        "Small files that were merged into larger ones.",
        [sample([], store.merged_files)],
    )?;
    let removed = store.removed_records.iter();
    families.counters(
        "vmprobe_store_removed_records",
        "Stored records removed because of their age, or because all were too large.",
        removed.map(|(why, records)| sample([("why", (*why).to_owned())], *records)),
    )
}
