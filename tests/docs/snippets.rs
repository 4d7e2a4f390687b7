//! What the documents give a reader to type: messages, and the commands of the audit.

use std::process::Command;

use libtest_mimic::Trial;

use super::common::{Link, Server, document_block};
use super::{read, root, test};

pub fn trials() -> Vec<Trial> {
    vec![
        test("the_transcripts_are_what_happens", the_transcripts_are_what_happens),
        test("the_lines_for_a_browsers_console_print_what_is_written", the_console_prints),
        test("what_the_audit_guide_greps_is_what_is_there", what_the_audit_guide_greps_is_there),
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
