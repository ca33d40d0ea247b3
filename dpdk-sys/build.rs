//! Finds libdpdk by pkg-config, makes the bindings, compiles the shim.

use std::env;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::PathBuf;
use std::process::exit;

/// The versions whose headers the bindings are known to fit: one stable ABI, DPDK 22.11.
const VERSIONS: std::ops::Range<&str> = "22.11".."23.0";

/// What the shim and the wrapper call. Drivers are not linked: EAL loads them from DPDK's own
/// plugin folder at start.
const LIBRARIES: &[&str] = &["rte_eal", "rte_ethdev", "rte_mbuf", "rte_mempool", "rte_ring"];

const FUNCTIONS: &[&str] = &[
    "vmprobe_.*",
    "rte_dev_name",
    "rte_dev_probe",
    "rte_dev_remove",
    "rte_eal_cleanup",
    "rte_eal_get_runtime_dir",
    "rte_eal_init",
    "rte_eth_dev_adjust_nb_rx_tx_desc",
    "rte_eth_dev_close",
    "rte_eth_dev_configure",
    "rte_eth_dev_get_port_by_name",
    "rte_eth_dev_info_get",
    "rte_eth_dev_rss_reta_update",
    "rte_eth_dev_set_mtu",
    "rte_eth_dev_socket_id",
    "rte_eth_dev_start",
    "rte_eth_dev_stop",
    "rte_eth_find_next",
    "rte_eth_promiscuous_enable",
    "rte_eth_read_clock",
    "rte_eth_rx_queue_setup",
    "rte_eth_stats_get",
    "rte_eth_stats_reset",
    "rte_eth_tx_queue_setup",
    "rte_mbuf_dynfield_lookup",
    "rte_mbuf_dynflag_lookup",
    "rte_mempool_avail_count",
    "rte_mempool_free",
    "rte_pktmbuf_free_bulk",
    "rte_pktmbuf_pool_create",
    "rte_strerror",
    "rte_thread_register",
    "rte_thread_unregister",
    "rte_version",
];

fn main() {
    println!("cargo::rerun-if-changed=build.rs");
    println!("cargo::rerun-if-changed=src/wrapper.h");
    println!("cargo::rerun-if-changed=src/shim.c");
    println!("cargo::rerun-if-env-changed=LIBCLANG_PATH");

    let arguments = find();
    bind(&arguments);
    compile(&arguments);
}

/// Asks pkg-config for libdpdk, links what is used, returns the arguments for a C compiler.
fn find() -> Vec<String> {
    let found = pkg_config::Config::new()
        .range_version(VERSIONS)
        .cargo_metadata(false)
        .env_metadata(true)
        .probe("libdpdk")
        .unwrap_or_else(|error| fail(&format!("DPDK 22.11 was not found ({})", brief(&error))));
    for folder in &found.link_paths {
        println!("cargo::rustc-link-search=native={}", folder.display());
    }
    for library in LIBRARIES {
        println!("cargo::rustc-link-lib=dylib={library}");
    }
    let mut arguments: Vec<String> =
        found.include_paths.iter().map(|folder| format!("-I{}", folder.display())).collect();
    arguments.push("-include".to_owned());
    arguments.push("rte_config.h".to_owned());
    // The instruction set that the library was built for; its inline functions rely on it.
    arguments.extend(machine_flags());
    arguments
}

/// The `-m…` flags of libdpdk, which the pkg-config crate leaves out.
fn machine_flags() -> Vec<String> {
    let program = env::var("PKG_CONFIG").unwrap_or_else(|_| "pkg-config".to_owned());
    let Ok(output) = std::process::Command::new(program).args(["--cflags", "libdpdk"]).output()
    else {
        return Vec::new();
    };
    String::from_utf8_lossy(&output.stdout)
        .split_whitespace()
        .filter(|flag| flag.starts_with("-m"))
        .map(str::to_owned)
        .collect()
}

fn bind(arguments: &[String]) {
    let mut builder = bindgen::Builder::default()
        .header("src/wrapper.h")
        .clang_args(arguments)
        .allowlist_recursively(true)
        .allowlist_var("VMPROBE_.*|RTE_MAX_LCORE|RTE_PKTMBUF_HEADROOM|RTE_MEMPOOL_CACHE_MAX_SIZE")
        .allowlist_type("rte_eth_conf|rte_eth_rss_reta_entry64|vmprobe_.*")
        .opaque_type("rte_mbuf|rte_mempool|rte_device|rte_mbuf_ext_shared_info")
        .default_enum_style(bindgen::EnumVariation::Consts)
        .derive_default(true)
        .layout_tests(true)
        .generate_comments(false)
        .parse_callbacks(Box::new(bindgen::CargoCallbacks::new()));
    for function in FUNCTIONS {
        builder = builder.allowlist_function(function);
    }
    // bindgen panics where libclang cannot be loaded.
    let made = catch_unwind(AssertUnwindSafe(|| builder.generate()));
    let Ok(made) = made else { fail("libclang was not found") };
    let bindings = made.unwrap_or_else(|error| fail(&format!("bindgen: {error}")));
    let file = out_folder().join("bindings.rs");
    if let Err(error) = bindings.write_to_file(&file) {
        fail(&format!("{}: {error}", file.display()));
    }
}

fn compile(arguments: &[String]) {
    let mut compiler = cc::Build::new();
    compiler.file("src/shim.c").opt_level(3).warnings(true);
    for argument in arguments {
        compiler.flag(argument);
    }
    if let Err(error) = compiler.try_compile("vmprobe_dpdk_shim") {
        fail(&format!("the C shim does not compile: {error}"));
    }
}

fn out_folder() -> PathBuf {
    PathBuf::from(env::var_os("OUT_DIR").expect("cargo sets OUT_DIR"))
}

/// The first line that says something.
fn brief(error: &pkg_config::Error) -> String {
    match error {
        pkg_config::Error::Command { .. } => "pkg-config is not installed".to_owned(),
        other => other
            .to_string()
            .lines()
            .map(str::trim)
            .find(|line| line.starts_with("Package") || line.starts_with("Requested"))
            .unwrap_or("pkg-config knows no libdpdk")
            .to_owned(),
    }
}

fn fail(what: &str) -> ! {
    println!(
        "cargo::error={what}. Run `apt install pkg-config dpdk-dev libdpdk-dev libclang-dev clang`, \
         or build without DPDK: `cargo build --no-default-features`"
    );
    exit(1);
}
