//! The options: what they print, and the errors for wrong ones.

use std::fs;

use crate::common::{log_until, options, program, run, scratch};
use signal_server::limits::{Limits, MAPPINGS, OWN_DESCRIPTORS};

#[test]
fn help_and_version_are_printed() {
    let (code, help) = run(&["--help"]);
    assert_eq!(code, 0);
    assert!(help.contains("--max-connections N  connections at once [default: 1000]"), "{help}");
    assert!(help.lines().all(|line| line.len() <= 86), "a line is too wide");
    assert_eq!(run(&["--version"]), (0, format!("signal-server {}\n", env!("CARGO_PKG_VERSION"))));
}

#[test]
fn what_is_not_understood_is_named_and_refused_with_2() {
    let cases: [(&[&str], &str); 12] = [
        (&["--listne", "x"], "--listne"),
        (&["--print-limits"], "--print-limits"),
        (&["-x"], "-x"),
        (&["8080"], "8080"),
        (&["user", "list"], "user"),
        (&["--listen"], "--listen"),
        (&["--listen", "8080"], "--listen takes an address and a port"),
        (&["--listen", "localhost:8080"], "localhost:8080"),
        (&["--tls-listen", "[::1]"], "--tls-listen takes"),
        (&["--log", "loud"], "--log takes off, error, warn"),
        (&["--max-rate", "many"], "--max-rate takes a whole number"),
        (&["--listen", "off", "--tls-listen", "off"], "both off"),
    ];
    for (arguments, word) in cases {
        let (code, said) = run(arguments);
        assert_eq!(code, 2, "{arguments:?}");
        assert!(said.contains(word), "{said}");
    }
}

/// An empty variable in a script, `--users "$USERS"`, must not start a server that is open to all.
#[test]
fn an_empty_users_option_starts_no_server() {
    for arguments in [&["--users", ""][..], &["--users="]] {
        let (code, said) = run(&[&options()[..], arguments].concat());
        assert_eq!(code, 2, "{said}");
        assert!(said.contains("--users has an empty value"), "{said}");
    }
}

/// Two ways to say one thing differ one day, and the one that is not seen fails open.
#[test]
fn the_environment_sets_nothing() {
    let mut command = program();
    command.args(options()).env("SIGNAL_USERS", "/nowhere").env("SIGNAL_LISTEN", "off");
    log_until(&mut command, "listening on ws://127.0.0.1:");
}

#[test]
fn ice_servers_that_are_no_json_array_are_refused_by_name() {
    let path = scratch("bad ice").join("ice.json");
    for (content, word) in [("[", "EOF"), ("{}", "must be a JSON array"), ("", "EOF")] {
        fs::write(&path, content).unwrap();
        let (code, said) =
            run(&[&options()[..], &["--ice-servers", path.to_str().unwrap()]].concat());
        assert_eq!(code, 1, "{said}");
        assert!(said.contains("ice.json") && said.contains(word), "{said}");
    }
    let (code, said) = run(&[&options()[..], &["--ice-servers", "/nowhere/ice.json"]].concat());
    assert!(code == 1 && said.contains("/nowhere/ice.json"), "{said}");
}

/// 16 more while the oldest gives way, and 8 of the process itself.
#[test]
fn the_default_connections_fit_the_usual_descriptor_limit() {
    assert!(Limits::default().max_connections + 16 + OWN_DESCRIPTORS <= 1024);
}

/// Without memory mappings for another thread, Rust's runtime ends the process.
#[test]
fn more_connections_than_memory_mappings_are_warned_of() {
    let Ok(most) = fs::read_to_string("/proc/sys/vm/max_map_count") else {
        return; // Not Linux.
    };
    let fit = most.trim().parse::<usize>().unwrap() / MAPPINGS;
    for (connections, warned) in [(fit, false), (fit + 1, true)] {
        let connections = connections.to_string();
        let (_, said) = run(&["--check", "--tls-listen", "off", "--max-connections", &connections]);
        assert_eq!(said.contains("vm.max_map_count"), warned, "{said}");
    }
}
