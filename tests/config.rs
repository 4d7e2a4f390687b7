//! The options as an operator gives them: arguments, environment, and what is said of wrong ones.

mod common;

use std::fs;

use common::{CERTIFICATE, log_until, outcome, program, run, scratch};

#[test]
fn help_and_version_are_printed() {
    let (code, help) = run(&["--help"]);
    assert_eq!(code, 0);
    for option in [
        "--listen",
        "--tls-listen",
        "--cert",
        "--key",
        "--ice-servers",
        "--log",
        "--max-connections",
        "--max-per-ip",
        "--max-message",
        "--max-rate",
        "--max-calls",
        "--check",
        "--print-limits",
        "--users",
        "--turn",
        "--turn-secret",
        "user add",
        "--allow-origin",
        "--trust-proxy",
        "--help",
        "--version",
        "SIGNAL_MAX_RATE",
    ] {
        assert!(help.contains(option), "{option}");
    }
    assert!(help.lines().all(|line| line.len() <= 86), "a line is too wide");
    assert_eq!(run(&["--version"]), (0, format!("signal-server {}\n", env!("CARGO_PKG_VERSION"))));
}

#[test]
fn what_is_not_understood_is_named_and_refused_with_2() {
    let cases: [(&[&str], &str); 9] = [
        (&["--listne", "x"], "--listne"),
        (&["-x"], "-x"),
        (&["8080"], "8080"),
        (&["--listen"], "--listen"),
        (&["--listen", "8080"], "--listen takes an address and a port"),
        (&["--listen", "localhost:8080"], "localhost:8080"),
        (&["--tls-listen", "[::1]"], "--tls-listen takes"),
        (&["--log", "loud"], "--log takes off, error, warn"),
        (&["--listen", "off", "--tls-listen", "off"], "both off"),
    ];
    for (arguments, word) in cases {
        let (code, said) = run(arguments);
        assert_eq!(code, 2, "{arguments:?}");
        assert!(said.contains(word), "{said}");
    }
    let (code, said) = outcome(program().env("SIGNAL_LOG", "loud").output().unwrap());
    assert!(code == 2 && said.contains("SIGNAL_LOG takes"), "{said}");
}

#[test]
fn the_environment_sets_options_and_arguments_win() {
    let mut command = program();
    command
        .env("SIGNAL_LISTEN", "off")
        .env("SIGNAL_TLS_LISTEN", "127.0.0.1:0")
        .env("SIGNAL_CERT", &CERTIFICATE.cert)
        .env("SIGNAL_KEY", &CERTIFICATE.key)
        .env("SIGNAL_LOG", "") // set to nothing: not set
        .args(["--listen", "127.0.0.1:0"]);
    let log = log_until(&mut command, "listening on wss://127.0.0.1:");
    assert!(log.contains("listening on ws://127.0.0.1:"), "{log}");
}

#[test]
fn bad_ice_servers_are_explained() {
    let path = scratch("bad ice").join("ice.json");
    let cases = [
        ("[", "EOF"),
        ("{}", "must be a JSON array"),
        ("[{}]", "entry 0 needs \"urls\""),
        (r#"[{"urls": []}]"#, "entry 0 needs \"urls\""),
        (r#"[{"urls": "stun:a"}, {"urls": [7]}]"#, "entry 1 has the url 7"),
        (r#"[{"urls": "http://a"}]"#, "must start with stun:"),
        (r#"[{"urls": "stun:"}]"#, "must start with stun:"),
        (r#"[{"urls": "turn:a", "username": "u"}]"#, "needs \"username\" and \"credential\""),
    ];
    for (content, word) in cases {
        fs::write(&path, content).unwrap();
        let (code, said) = run(&["--ice-servers", path.to_str().unwrap()]);
        assert_eq!(code, 1, "{said}");
        assert!(said.contains("ice.json") && said.contains(word), "{said}");
    }
    assert_eq!(run(&["--ice-servers", "/nowhere/ice.json"]).0, 1);
}

#[test]
fn every_option_has_a_variable_of_its_name() {
    let variables = [
        ("SIGNAL_MAX_CONNECTIONS", "11", "11"),
        ("SIGNAL_MAX_PER_IP", "12", "12"),
        ("SIGNAL_MAX_MESSAGE", "13333", "13333 bytes"),
        ("SIGNAL_MAX_RATE", "14", "14 a second"),
        ("SIGNAL_MAX_CALLS", "0", "no limit"),
    ];
    let mut command = program();
    command.arg("--print-limits");
    for (name, value, _) in variables {
        command.env(name, value);
    }
    let (_, report) = outcome(command.output().unwrap());
    for (name, _, shown) in variables {
        assert!(report.contains(shown), "{name}: {report}");
    }
    // With a limit missing, no sum is given.
    assert!(report.contains("memory has no bound"), "{report}");
}

#[test]
fn print_limits_shows_the_arithmetic() {
    let (code, report) = run(&["--print-limits"]);
    assert_eq!(code, 0);
    for word in ["1024", "128", "65536 bytes", "50 a second", "32", "10s", "stack", "TLS", "MiB"] {
        assert!(report.contains(word), "no {word}: {report}");
    }
}
