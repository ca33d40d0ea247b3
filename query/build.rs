//! Where vmprobe-query finds libduckdb.so, when it is linked and when it runs.

use std::path::{Path, PathBuf};
use std::process::exit;

const LIBRARY: &str = "libduckdb.so";

fn main() {
    println!("cargo:rerun-if-env-changed=DUCKDB_LIB_DIR");
    if std::env::var_os("CARGO_FEATURE_DUCKDB").is_none() {
        return;
    }
    let Some(folder) = std::env::var_os("DUCKDB_LIB_DIR").map(PathBuf::from) else {
        stop(
            "DUCKDB_LIB_DIR is not set; build inside the workspace, whose .cargo/config.toml sets it",
        )
    };
    println!("cargo:rerun-if-changed={}", folder.join(LIBRARY).display());
    if !folder.join(LIBRARY).is_file() {
        stop(&format!(
            "{LIBRARY} is not in {}: run scripts/fetch-duckdb first \
             (or leave the query program out: cargo build -p vmprobe)",
            folder.display()
        ));
    }
    // Beside the program, as a package installs it; in the workspace, from target/<profile>; and
    // where it was linked.
    let places = ["$ORIGIN", "$ORIGIN/../lib/vmprobe", "$ORIGIN/../../.deps/duckdb"];
    for place in places.map(Path::new).into_iter().chain([folder.as_path()]) {
        println!("cargo:rustc-link-arg=-Wl,-rpath,{}", place.display());
    }
}

fn stop(message: &str) -> ! {
    eprintln!("vmprobe-query: {message}");
    exit(1)
}
