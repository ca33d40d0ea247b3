//! Other programs read the records: PyArrow, and DuckDB as its makers ship it for Python.

mod extremes;

use std::path::{Path, PathBuf};
use std::process::Command;

use serde_json::Value as Json;
use vmprobe::config::StorePlan;
use vmprobe::export::ParquetSink;
use vmprobe::record::{Origin, Record, Rows, Table, TableVisitor};
use vmprobe::store::{Round, Work};
use vmprobe::time::Timestamp;
use vmprobe_tests::end_to_end::{Folder, run_to_end, skipped};
use vmprobe_tests::records::finished_files;

/// All rows of a table by either reader, as JSON.
const SCRIPT: &str = r#"
import json, sys
reader, folder, table, time = sys.argv[1:]
if reader == "pyarrow":
    import pyarrow.dataset
    dataset = pyarrow.dataset.dataset(f"{folder}/{table}", format="parquet")
    rows = dataset.to_table().sort_by(time).to_pylist()
else:
    import duckdb
    answer = duckdb.sql(f"FROM read_parquet('{folder}/{table}/*/*/*.parquet') ORDER BY {time}")
    rows = [dict(zip(answer.columns, row)) for row in answer.fetchall()]
print(json.dumps(rows))
"#;

/// Where `scripts/fetch-readers` puts them.
fn python() -> Option<PathBuf> {
    let python = Path::new(env!("CARGO_MANIFEST_DIR")).join("../.deps/readers/bin/python");
    python.is_file().then_some(python)
}

struct Check {
    python: PathBuf,
    rows: Rows,
    folder: Folder,
    tables: usize,
}

impl TableVisitor for Check {
    fn table<R: Record>(&mut self) {
        let origin = Origin::new("p1", "east");
        let mut rows = std::mem::take(R::of(&mut self.rows));
        rows.sort_by(R::order);
        let expected: Vec<_> = rows.iter().map(|row| row.json(&origin)).collect();
        let (table, time) = (R::TABLE.name(), R::TABLE.time_column());
        for reader in ["pyarrow", "duckdb"] {
            let mut command = Command::new(&self.python);
            command.args(["-c", SCRIPT, reader]).arg(self.folder.root()).args([table, time]);
            let ended = run_to_end(command);
            ended.expect(0, &[]);
            let found: Vec<Json> = serde_json::from_str(&ended.output).expect("JSON");
            assert_eq!(found, expected, "{reader}: {table}");
        }
        self.tables += 1;
    }
}

/// Writes each row into a file of its own, all into one hour.
struct Single<'a>(&'a mut ParquetSink);
impl TableVisitor for Single<'_> {
    fn table<R: Record>(&mut self) {
        let mut all = extremes::rows();
        let single = std::mem::take(R::of(&mut all));
        assert_eq!(single.len(), CLOCKS.len());
        for (row, clock) in single.into_iter().zip(CLOCKS) {
            let mut rows = Rows::default();
            R::of(&mut rows).push(row);
            self.0.write_filed(rows, Timestamp(1), clock);
            assert!(self.0.close(Timestamp(1)), "{:?}", self.0.health());
        }
    }
}

/// A row is filed within an hour of the clock, whatever its time: the first one's is 0, the other's
/// centuries later, and both are filed in the hour behind the first.
const CLOCKS: [Timestamp; 2] = [Timestamp(2 * 3_600_000_000_000), Timestamp(1)];

/// Every field with its extreme values, as written and once small files were merged.
#[test]
fn any_reader_of_parquet_finds_what_was_written() {
    let Some(python) = python() else {
        skipped(
            "other readers of Parquet",
            "not installed: pyarrow, duckdb (scripts/fetch-readers)",
        );
        return;
    };
    for merges in [false, true] {
        let folder = Folder::new("readers");
        let plan = StorePlan {
            folder: Some(folder.root().to_owned()),
            free_mib_min: 0,
            ..StorePlan::default()
        };
        let mut sink = ParquetSink::new(&plan, "p1", "east").expect("a folder");
        Table::visit(&mut Single(&mut sink));
        if merges {
            let round = Round::of_all(Work::Tidy, folder.root(), "p1", 5);
            // Each table has several files, which become one.
            let files = finished_files(folder.root()).len();
            let tables = Table::ALL.len();
            assert!(files >= 2 * tables, "{files}");
            let tidied = round.run_through();
            assert_eq!(tidied.problems, [""; 0]);
            assert_eq!((tidied.merged_files, tidied.made_files), (files as u64, tables as u64));
            assert_eq!(finished_files(folder.root()).len(), tables);
        }
        let rows = extremes::rows();
        let mut check = Check { python: python.clone(), rows, folder, tables: 0 };
        Table::visit(&mut check);
        assert_eq!(check.tables, Table::ALL.len());
    }
}
