//! What the Debian package brings agrees with the program: the unit's limits, and the manual page.
//! [package/run](package/run) installs the package itself.

use signal_server::limits::{Limits, MAX_EVICTIONS, OWN_DESCRIPTORS};

const UNIT: &str = include_str!("../docs/package/signal-server.service");
const OPTIONS: &str = include_str!("../docs/package/options");
const MANUAL: &str = include_str!("../docs/package/signal-server.1");
const HELP: &str = include_str!("../src/operator/help.txt");

#[test]
fn the_unit_has_room_for_the_default_limits() {
    let number = |key: &str| -> usize {
        let value = UNIT.lines().find_map(|line| line.strip_prefix(key)).unwrap();
        value.trim_end_matches('M').parse().unwrap()
    };
    let limits = Limits::default();
    let connections = limits.max_connections + MAX_EVICTIONS;
    assert!(number("LimitNOFILE=") >= connections + OWN_DESCRIPTORS);
    assert!(number("TasksMax=") >= 2 * connections + OWN_DESCRIPTORS);
    let worst_case = limits.worst_case().unwrap().div_ceil(1 << 20);
    let memory = number("MemoryMax=");
    assert!((worst_case..worst_case + 64).contains(&memory), "{memory} for {worst_case} MiB");
}

#[test]
fn the_ports_of_the_example_can_be_bound_in_the_unit() {
    for port in OPTIONS.split("listen ").skip(1).filter_map(|rest| {
        let address = rest.split([' ', '"']).next().unwrap();
        address.rsplit_once(':').map(|(_, port)| port)
    }) {
        assert!(UNIT.contains(&format!("\nSocketBindAllow=tcp:{port}\n")), "{port}");
    }
}

/// The help's options in the language of manual pages.
fn options_section() -> String {
    let escape = |text: &str| text.trim().replace('-', "\\-");
    let options = HELP.split("\n\n").filter(|part| part.contains("\n  --"));
    let lines = options.flat_map(str::lines).map(|line| match line.trim().split_once("  ") {
        _ if !line.starts_with(' ') => format!(".SS {}", escape(line.trim_end_matches(':'))),
        Some((option, text)) => match option.split_once(' ') {
            Some((name, value)) => {
                format!(".TP\n.BI {} \" {value}\"\n{}", escape(name), escape(text))
            }
            None => format!(".TP\n.B {}\n{}", escape(option), escape(text)),
        },
        None => escape(line),
    });
    lines.collect::<Vec<_>>().join("\n")
}

#[test]
fn the_manual_page_has_all_options_as_the_help_says_them() {
    let wanted = options_section();
    let section = MANUAL.split(".SH OPTIONS\n").nth(1).unwrap().split("\n.SH ").next().unwrap();
    assert_eq!(section, wanted, "put this into docs/package/signal-server.1:\n{wanted}\n");
}
