//! What the documents say about the program, compared with the program.

use std::time::Duration;

use libtest_mimic::Trial;
use signal_server::limits::{self, Limits, Timeouts};

use super::common::files_below;
use super::{code_spans, read, root, rows, test};

pub fn trials() -> Vec<Trial> {
    vec![
        test("every_test_that_security_md_names_exists", every_named_test_exists),
        test("every_log_line_that_is_explained_is_logged", every_explained_log_line_is_logged),
        test("every_constant_that_is_named_exists", every_named_constant_exists),
        test("every_timer_has_the_value_that_is_written", every_timer_has_its_value),
        test("the_memory_of_a_connection_is_the_sum_that_is_logged", the_memory_table_is_right),
        test("what_fits_into_a_small_machine_fits", what_fits_into_a_small_machine_fits),
        test("every_option_is_explained_with_its_default", every_option_is_explained),
        test("every_error_code_is_explained", every_error_code_is_explained),
        test("the_figures_of_the_readme_are_those_of_performance_md", the_figures_agree),
    ]
}

/// All code below a folder, without comments.
fn code(folder: &str) -> String {
    let mut code = String::new();
    for path in files_below(&root().join(folder), ".rs") {
        let text = std::fs::read_to_string(path).unwrap();
        for line in text.lines().filter(|line| !line.trim_start().starts_with("//")) {
            code.extend([line, "\n"]);
        }
    }
    code
}

fn every_named_test_exists() {
    let code = code("src") + &code("tests");
    let rows = rows("docs/security.md");
    let start = rows.iter().position(|cells| cells[0] == "input").expect("the table");
    let rows = rows[start + 2..].iter().take_while(|cells| cells[0] != "KiB");
    let mut count = 0;
    for cells in rows {
        assert!(cells[2].contains('`'), "no test in: {cells:?}");
        for test in code_spans(&cells[2]) {
            assert!(code.contains(&format!("fn {test}(")), "no test is called {test}");
            count += 1;
        }
    }
    assert!(count > 40, "{count}");
}

fn every_explained_log_line_is_logged() {
    let mut code = code("src");
    // A string that goes on in the next line.
    while let Some((before, after)) = code.split_once("\\\n") {
        code = format!("{before}{}", after.trim_start());
    }
    let mut count = 0;
    for cells in rows("docs/troubleshooting.md").iter().filter(|cells| cells[0].starts_with('`')) {
        let line = code_spans(&cells[0]).next().unwrap();
        // What stands at an ellipsis is different each time.
        for part in line.split('…').map(str::trim) {
            assert!(code.contains(part), "nothing logs {part:?}");
        }
        count += 1;
    }
    assert!(count > 25, "{count}");
}

fn every_named_constant_exists() {
    let limits = read("src/limits.rs");
    let foreign = ["MSG_DONTWAIT", "CARGO_HOME", "CAP_NET_BIND_SERVICE"];
    let mut count = 0;
    for document in ["docs/audit.md", "docs/architecture.md", "docs/security.md"] {
        let text = read(document);
        let prose: String = text.split("```").step_by(2).collect();
        for name in code_spans(&prose).filter(|name| !foreign.contains(name)) {
            let definition = match name.strip_prefix("timeouts.") {
                Some(timeout) => format!("pub {timeout}: Duration,"),
                None if name.contains('_') && name == name.to_uppercase() => {
                    format!("const {name}:")
                }
                None => continue,
            };
            assert!(limits.contains(&definition), "{document}: {name} is not in src/limits.rs");
            count += 1;
        }
    }
    assert!(count > 30, "{count}");
}

/// A time such as `0.2 s`.
fn duration(text: &str) -> Duration {
    let (number, unit) = text.split_once(' ').unwrap();
    let seconds = match unit {
        "s" => 1.0,
        "h" => 3600.0,
        unit => panic!("which unit is {unit}?"),
    };
    Duration::from_secs_f64(number.parse::<f64>().unwrap() * seconds)
}

fn every_timer_has_its_value() {
    let Timeouts { handshake, idle, pong, stall, probe, hold, drain, stop } = Timeouts::default();
    let values = [
        ("timeouts.handshake", handshake),
        ("timeouts.idle", idle),
        ("timeouts.pong", pong),
        ("timeouts.stall", stall),
        ("timeouts.probe", probe),
        ("timeouts.hold", hold),
        ("timeouts.drain", drain),
        ("timeouts.stop", stop),
        ("PACING_DELAY", limits::PACING_DELAY),
        ("HELD_POLL", limits::HELD_POLL),
        ("PROBE_INTERVAL", limits::PROBE_INTERVAL),
        ("PROBING_TIME", limits::PROBING_TIME),
        ("BURST", limits::BURST),
        ("LOGIN_DELAY", limits::LOGIN_DELAY),
        ("EVICTION_AGE", limits::EVICTION_AGE),
        ("ACCEPT_DELAY", limits::ACCEPT_DELAY),
        ("ACCEPT_WAKE", limits::ACCEPT_WAKE),
        ("FILE_CHECK_INTERVAL", limits::FILE_CHECK_INTERVAL),
        ("LOG_INTERVAL", limits::LOG_INTERVAL),
        ("RETRY_AFTER", limits::RETRY_AFTER),
        ("TURN_TTL", limits::TURN_TTL),
    ];
    let rows = rows("docs/audit.md");
    for (name, value) in values {
        let start = format!("`{name}`, ");
        let written = rows.iter().find_map(|cells| cells[0].strip_prefix(&start));
        let written = written.unwrap_or_else(|| panic!("docs/audit.md has no timer {name}"));
        assert_eq!(duration(written), value, "{name}");
    }
}

fn the_memory_table_is_right() {
    let limits = Limits { peerjs: true, ..Limits::default() };
    let parts = limits.connection_memory().unwrap();
    let wanted: Vec<[String; 2]> = parts
        .iter()
        .map(|(bytes, what)| [bytes.div_ceil(1024).to_string(), what.to_string()])
        .collect();
    let rows = rows("docs/security.md");
    let start = rows.iter().position(|cells| cells[0] == "KiB").expect("the table") + 2;
    let written: Vec<[String; 2]> =
        rows[start..].iter().map(|cells| [cells[0].clone(), cells[1].clone()]).collect();
    assert_eq!(written, wanted);
}

fn what_fits_into_a_small_machine_fits() {
    let mut count = 0;
    for cells in rows("docs/performance.md") {
        let (Some(mib), Ok(connections)) =
            (cells[0].strip_suffix(" MiB"), cells.get(2).map_or("", |cell| cell).parse())
        else {
            continue;
        };
        let memory = mib.parse::<usize>().unwrap() << 20;
        let worst =
            |max_connections| Limits { max_connections, ..Limits::default() }.worst_case().unwrap();
        let fits = (1..5000).take_while(|count| worst(*count) <= memory).last();
        assert_eq!(fits, Some(connections), "{mib} MiB");
        count += 1;
    }
    assert_eq!(count, 4);
}

fn every_option_is_explained() {
    let help = read("src/operator/help.txt");
    let known: Vec<&str> =
        help.lines().filter_map(|line| line.trim().split(' ').next()?.strip_prefix("--")).collect();
    assert!(known.len() > 15, "{known:?}");
    let rows = rows("docs/configuration.md");
    let explained: Vec<&str> = rows
        .iter()
        .flat_map(|cells| code_spans(&cells[0]))
        .filter_map(|span| span.split(' ').next()?.strip_prefix("--"))
        .collect();
    for option in &known {
        assert!(explained.contains(option), "docs/configuration.md has no --{option}");
    }
    for option in &explained {
        assert!(known.contains(option), "there is no --{option} of docs/configuration.md");
    }
    let limits = Limits::default();
    for (option, default) in [
        ("`--max-connections N`", limits.max_connections),
        ("`--max-per-ip N`", limits.max_per_ip),
        ("`--max-message BYTES`", limits.max_message),
        ("`--max-rate N`", limits.max_rate),
        ("`--max-calls N`", limits.max_calls),
    ] {
        let row = rows.iter().find(|cells| cells[0] == option).unwrap();
        assert_eq!(row[1], default.to_string(), "{option}");
    }
}

fn every_error_code_is_explained() {
    let code = read("src/signaling/protocol.rs");
    let code = code.split("fn words(").nth(1).unwrap().split("\n    }\n").next().unwrap();
    let strings: Vec<&str> = code.split('"').skip(1).step_by(2).collect();
    let is_code = |text: &&&str| text.contains('-') && !text.contains(' ');
    let mut used: Vec<&str> = strings.iter().filter(is_code).copied().collect();
    let rows = rows("docs/protocol.md");
    let start = rows.iter().position(|cells| cells[0] == "code").expect("the table") + 2;
    let table = rows[start..].iter().take_while(|cells| cells[0].starts_with('`'));
    let mut explained: Vec<&str> =
        table.map(|cells| code_spans(&cells[0]).next().unwrap()).collect();
    used.sort();
    explained.sort();
    assert_eq!(explained, used);
}

fn the_figures_agree() {
    let (readme, performance) = (read("README.md"), read("docs/performance.md"));
    let figures: Vec<&str> =
        readme.lines().filter(|line| line.contains("<!-- figure -->")).collect();
    assert_eq!(figures.len(), 4);
    for figure in figures {
        assert!(performance.lines().any(|line| line == figure), "not in performance.md: {figure}");
    }
}
