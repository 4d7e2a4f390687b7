//! What the documents give a reader to type: messages, commands of the audit, and the systemd unit.

use std::fs;
use std::process::Command;

use libtest_mimic::Trial;
use signal_server::limits::{Limits, MAX_EVICTIONS, OWN_DESCRIPTORS};

use super::common::{Link, Server, document_block, scratch};
use super::{read, root, test, test_with};

const UNIT: &str = "docs/package/signal-server.service";

pub fn trials() -> Vec<Trial> {
    vec![
        test("the_transcripts_are_what_happens", the_transcripts_are_what_happens),
        test("the_lines_for_a_browsers_console_print_what_is_written", the_console_prints),
        test("what_the_audit_guide_greps_is_what_is_there", what_the_audit_guide_greps_is_there),
        test("the_unit_has_room_for_the_default_limits", the_unit_has_room),
        test_with(
            "systemd-analyze",
            "the_unit_is_understood_and_scores_as_deploy_md_says".into(),
            the_unit_is_understood,
        ),
    ]
}

fn the_transcripts_are_what_happens() {
    for document in ["README.md", "docs/protocol.md"] {
        let text = read(document);
        let start = "\n```text\nalice → ";
        let transcript = text.split(start).nth(1).unwrap().split("\n```\n").next().unwrap();
        let server = Server::start();
        let [mut alice, mut bob] = [(); 2].map(|()| Some(server.connect(Link::Plain)));
        let mut count = 0;
        for line in format!("alice → {transcript}").lines() {
            let mut words = line.splitn(2, ['→', '←']);
            let (who, text) = (words.next().unwrap().trim(), words.next().unwrap().trim());
            let terminal = if who == "alice" { &mut alice } else { &mut bob };
            match (line.contains('→'), text) {
                (true, "Ctrl+C") => *terminal = None,
                (true, text) => terminal.as_mut().unwrap().send(text),
                (false, text) => assert_eq!(terminal.as_mut().unwrap().receive(), text),
            }
            count += 1;
        }
        assert!(count >= 6, "{document}: {transcript}");
    }
}

/// Sends what the script sends. A browser is not needed for that.
fn the_console_prints() {
    let script = document_block("docs/protocol.md", "js");
    let sent = script.split("ws.send('").skip(1).map(|rest| rest.split("')").next().unwrap());
    let server = Server::start();
    let mut client = server.connect(Link::Plain);
    let mut printed = String::new();
    for message in sent {
        client.send(message);
        printed += &(client.receive() + "\n");
    }
    assert_eq!(printed, document_block("docs/protocol.md", "jsonl"));
}

/// The commands, each with the lines that it prints.
fn what_the_audit_guide_greps_is_there() {
    let guide = read("docs/audit.md");
    let block = guide.split("\n```console\n$ ").nth(1).unwrap().split("```").next().unwrap();
    let (function, commands) = block.split_once("\n$ ").unwrap();
    let mut count = 0;
    for command in commands.split("\n$ ") {
        let (command, wanted) = command.split_once('\n').unwrap_or((command, ""));
        let mut shell = Command::new("sh");
        shell.args(["-c", &format!("{function}\n{command}")]);
        let output = shell.current_dir(root()).output().unwrap();
        let printed = String::from_utf8(output.stdout).unwrap();
        assert_eq!(printed.trim_end(), wanted.trim_end(), "{command}");
        count += 1;
    }
    assert!(count > 5, "{count}");
}

fn the_unit_has_room() {
    let unit = read(UNIT);
    let number = |key: &str| -> usize {
        let value = unit.lines().find_map(|line| line.strip_prefix(key)).unwrap();
        value.trim_end_matches('M').parse().unwrap()
    };
    let limits = Limits::default();
    let connections = limits.max_connections + MAX_EVICTIONS;
    assert!(number("LimitNOFILE=") >= connections + OWN_DESCRIPTORS);
    assert!(number("TasksMax=") >= 2 * connections + OWN_DESCRIPTORS);
    assert!(number("MemoryMax=") << 20 >= limits.worst_case().unwrap());
}

fn analyze(arguments: &[&str]) -> String {
    let output = Command::new("systemd-analyze").args(arguments).output().unwrap();
    let printed = String::from_utf8_lossy(&[output.stdout, output.stderr].concat()).into_owned();
    assert!(output.status.success(), "{printed}");
    printed
}

fn the_unit_is_understood() {
    let unit = read(UNIT);
    let start = unit.split("ExecStart=").nth(1).unwrap().split_whitespace().next().unwrap();
    let unit = unit.replace(start, env!("CARGO_BIN_EXE_signal-server"));
    let path = scratch("unit").join("signal-server.service");
    fs::write(&path, unit).unwrap();
    let path = path.to_str().unwrap();
    // It only warns of a word that it does not know.
    assert_eq!(analyze(&["verify", path]), "");
    let printed = analyze(&["security", "--offline=true", "--no-pager", path]);
    let number_after = |text: &str, words: &str| -> f32 {
        text.split(words).nth(1).unwrap().split_whitespace().next().unwrap().parse().unwrap()
    };
    let score = number_after(&printed, "signal-server.service: ");
    let written = number_after(&read("docs/deploy.md"), "gives the unit ");
    // Another version of systemd may count a little differently.
    assert!(score < written + 0.3, "it is {score}, docs/deploy.md says {written}:\n{printed}");
}
