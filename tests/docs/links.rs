//! Links, symbols and sizes.

use std::collections::BTreeSet;
use std::fs;

use libtest_mimic::Trial;

use super::common::files_below;
use super::{read, root, test};

pub fn trials() -> Vec<Trial> {
    vec![
        test("every_link_leads_to_a_file_and_a_heading", every_link_leads_to_a_file_and_a_heading),
        test("every_symbol_is_in_the_file_that_it_links_to", every_symbol_is_in_its_file),
        test("every_document_is_two_links_from_the_readme", every_document_is_two_links_away),
        test("documents_are_short_and_name_their_readers", documents_are_short),
    ]
}

/// The documents that a reader comes to, by their paths from the project's folder.
fn documents() -> Vec<String> {
    let mut paths: Vec<String> = files_below(&root().join("docs"), ".md")
        .iter()
        .map(|path| path.strip_prefix(root()).unwrap().to_str().unwrap().to_string())
        .collect();
    let others =
        ["README.md", "CONTRIBUTING.md", "SECURITY.md", "certs/README.md", "tests/README.md"];
    paths.extend(others.map(String::from));
    paths
}

struct Link {
    label: String,
    /// A path from the project's folder.
    file: String,
    heading: String,
}

/// The links of a document to files of the project.
fn links(document: &str) -> Vec<Link> {
    let text = read(document);
    let prose: String = text.split("```").step_by(2).collect();
    let folder = document.rsplit_once('/').map_or("", |(folder, _)| folder);
    let mut links = Vec::new();
    for (before, after) in prose.match_indices("](").map(|(at, _)| prose.split_at(at)) {
        let target = after[2..].split(')').next().unwrap();
        if target.contains("://") {
            continue;
        }
        let (path, heading) = target.split_once('#').unwrap_or((target, ""));
        let mut parts: Vec<&str> = folder.split('/').filter(|part| !part.is_empty()).collect();
        for part in path.split('/').filter(|part| !part.is_empty()) {
            if part == ".." {
                parts.pop().expect("a link within the project");
            } else {
                parts.push(part);
            }
        }
        let own = path.is_empty();
        links.push(Link {
            label: before.rsplit_once('[').unwrap().1.into(),
            file: if own { document.into() } else { parts.join("/") },
            heading: heading.into(),
        });
    }
    links
}

/// A heading as GitHub names it in links.
fn anchor(heading: &str) -> String {
    let kept = heading.trim_start_matches('#').trim().to_lowercase();
    let kept = kept.chars().filter(|c| c.is_alphanumeric() || [' ', '-', '_'].contains(c));
    kept.collect::<String>().replace(' ', "-")
}

fn every_link_leads_to_a_file_and_a_heading() {
    let (mut count, mut wrong) = (0, String::new());
    for document in documents() {
        for Link { file, heading, .. } in links(&document) {
            count += 1;
            if !root().join(&file).exists() {
                wrong += &format!("{document}: {file} is not there\n");
            } else if !heading.is_empty() {
                let text = read(&file);
                let mut headings = text.lines().filter(|line| line.starts_with('#'));
                if !headings.any(|line| anchor(line) == heading) {
                    wrong += &format!("{document}: {file} has no heading #{heading}\n");
                }
            }
        }
    }
    assert!(wrong.is_empty(), "{wrong}");
    assert!(count > 100, "{count}");
}

/// Whether `line` defines `symbol`. `block` is the first line of the `impl` block that it is in.
fn defines(line: &str, block: &str, symbol: &str) -> bool {
    let (owner, name) = symbol.rsplit_once("::").unwrap_or(("", symbol));
    let is_end = |text: &str| !text.starts_with(|c: char| c.is_alphanumeric() || c == '_');
    let has = |text: &str, word: &str| text.split(word).skip(1).any(is_end);
    has(block, owner)
        && !line.trim_start().starts_with("//")
        && ["fn ", "struct ", "enum ", "const ", "type "]
            .iter()
            .any(|kind| has(line, &format!("{kind}{name}")))
}

fn every_symbol_is_in_its_file() {
    let (mut count, mut wrong) = (0, String::new());
    for document in documents() {
        for Link { label, file, .. } in links(&document) {
            let Some(symbol) = label.strip_prefix('`').and_then(|label| label.strip_suffix('`'))
            else {
                continue;
            };
            // In tests/README.md the labels are modules.
            if !file.ends_with(".rs") || symbol.contains('/') || document == "tests/README.md" {
                continue;
            }
            count += 1;
            let code = fs::read_to_string(root().join(&file)).unwrap_or_default();
            let mut block = "";
            let is_there = code.lines().any(|line| {
                if line.starts_with("impl") {
                    block = line;
                }
                defines(line, block, symbol)
            });
            if !is_there {
                wrong += &format!("{document}: {symbol} is not in {file}\n");
            }
        }
        // An edit of the code would break it.
        assert!(!read(&document).contains("#L"), "{document} links to a line");
    }
    assert!(wrong.is_empty(), "{wrong}");
    assert!(count > 50, "{count}");
}

fn every_document_is_two_links_away() {
    let mut reached = BTreeSet::from(["README.md".to_string()]);
    for _ in 0..2 {
        for document in reached.clone().iter().filter(|path| path.ends_with(".md")) {
            if root().join(document).exists() {
                reached.extend(links(document).into_iter().map(|link| link.file));
            }
        }
    }
    for document in documents() {
        assert!(reached.contains(&document), "{document} is not two links from the README");
    }
}

fn documents_are_short() {
    for document in documents() {
        let text = read(&document);
        let words = text.split_whitespace().count();
        let most = if document == "README.md" { 1000 } else { 1500 };
        assert!(words <= most, "{document} has {words} words, more than {most}");
        if document.starts_with("docs/") && !document.starts_with("docs/package/") {
            let first = text.lines().skip(1).find(|line| !line.is_empty()).unwrap_or_default();
            assert!(first.starts_with("For "), "whom is {document} for? {first}");
        }
    }
}
