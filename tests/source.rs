//! What the source promises about itself: the layering, and the invariants that a reader can grep.

use std::fs;
use std::path::Path;

/// The modules in reading order, as `lib.rs` lists them.
fn modules() -> Vec<(String, String)> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("src");
    let lib = fs::read_to_string(folder.join("lib.rs")).unwrap();
    let names = lib.lines().filter_map(|line| line.strip_prefix("pub mod ")?.strip_suffix(';'));
    let modules: Vec<_> = names
        .map(|name| {
            let text = fs::read_to_string(folder.join(format!("{name}.rs"))).unwrap();
            // Without comments and without the unit tests, which stand last.
            let code = text.split("#[cfg(test)]\nmod tests").next().unwrap();
            let code = code.lines().filter(|line| !line.trim_start().starts_with("//"));
            (name.to_string(), code.collect::<Vec<_>>().join("\n"))
        })
        .collect();
    assert_eq!(modules.len(), 16);
    modules
}

#[test]
fn each_module_uses_only_the_ones_above_it() {
    let modules = modules();
    for (position, (name, code)) in modules.iter().enumerate() {
        for (below, _) in &modules[position..] {
            let uses = |rest: &str| {
                let after = rest.strip_prefix(below.as_str());
                after.is_some_and(|after| {
                    !after.starts_with(|c: char| c == '_' || c.is_alphanumeric())
                })
            };
            assert!(!code.split("crate::").skip(1).any(uses), "{name} uses {below}");
        }
        assert!(!code.contains("super::"), "{name} goes around the list");
    }
}

#[test]
fn one_file_locks_the_map_and_one_starts_threads() {
    let holding = |word: &str| -> Vec<String> {
        modules()
            .into_iter()
            .filter(|(_, code)| code.contains(word))
            .map(|(name, _)| name)
            .collect()
    };
    assert_eq!(holding("users.lock()"), ["registry"]);
    assert_eq!(holding("users: Mutex"), ["registry"]);
    assert_eq!(holding("thread::Builder"), ["server"]);
    // `thread::spawn` panics when there is no thread left; the builder returns an error.
    assert!(holding("thread::spawn").is_empty());
    assert!(holding("unsafe").is_empty());
    assert!(holding("unwrap()").is_empty());
    assert!(holding(".expect(").is_empty());
}

#[test]
fn the_tests_of_each_module_can_be_found() {
    let table = include_str!("README.md");
    for (name, _) in modules() {
        let row = format!("| [`{name}`](../src/{name}.rs) | ");
        let row = table.lines().find_map(|line| line.strip_prefix(&row));
        let row = row.unwrap_or_else(|| panic!("{name} has no row in tests/README.md"));
        let own = format!("({name}.rs)"); // if there is such a file, it is the first
        let is_there = Path::new(env!("CARGO_MANIFEST_DIR")).join(format!("tests/{name}.rs"));
        assert!(!is_there.exists() || row.contains(&own), "{row}");
    }
    for link in table.split("](").skip(1).filter_map(|rest| rest.split(')').next()) {
        let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests").join(link);
        assert!(path.exists(), "tests/README.md names {link}");
    }
    for entry in fs::read_dir(Path::new(env!("CARGO_MANIFEST_DIR")).join("tests")).unwrap() {
        let name = entry.unwrap().file_name().into_string().unwrap();
        let named = table.contains(&format!("({name})")) || table.contains(&format!("({name}/"));
        assert!(named || !name.ends_with(".rs"), "{name} is not in tests/README.md");
    }
}

#[test]
fn every_test_that_the_readme_names_exists() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let mut sources = String::new();
    for folder in ["src", "tests", "tests/hostile"] {
        for entry in fs::read_dir(root.join(folder)).unwrap() {
            let path = entry.unwrap().path();
            if path.extension().is_some_and(|extension| extension == "rs") {
                sources += &fs::read_to_string(path).unwrap();
            }
        }
    }
    let readme = fs::read_to_string(root.join("README.md")).unwrap();
    let security = readme.split("\n## Security\n").nth(1).unwrap().split("\n## ").next().unwrap();
    let rows: Vec<_> = security.lines().filter(|line| line.starts_with("| ")).skip(2).collect();
    assert!(rows.len() > 10, "the table is not where it was");
    for row in rows {
        let tests = row.trim_end_matches(" |").rsplit(" | ").next().unwrap();
        assert!(tests.contains('`'), "no test in: {row}");
        for test in tests.split(", ").map(|name| name.trim_matches('`')) {
            assert!(sources.contains(&format!("fn {test}(")), "no test is called {test}");
        }
    }
}

#[test]
fn every_log_line_that_the_readme_explains_is_written_somewhere() {
    let readme = include_str!("../README.md");
    let section = readme.split("\n## When something goes wrong\n").nth(1).unwrap();
    let rows = section.split("\n## ").next().unwrap().lines().filter(|row| row.starts_with("| `"));
    let mut code: String = modules().into_iter().map(|(_, code)| code).collect();
    while let Some((before, after)) = code.split_once("\\\n") {
        code = format!("{before}{}", after.trim_start()); // a string that goes on
    }
    let mut count = 0;
    for row in rows {
        let line = row.split('`').nth(1).unwrap();
        // What stands between is different each time.
        for part in line.split('…').map(str::trim) {
            assert!(code.contains(part), "nothing logs {part:?}");
        }
        count += 1;
    }
    assert!(count > 10, "the table is not where it was");
}

/// Whether `line` defines `item`, whose `impl` block, if it is in one, starts with `block`.
fn defines(line: &str, block: &str, item: &str) -> bool {
    if item.starts_with("impl ") {
        return line.starts_with(item);
    }
    let (owner, name) = item.rsplit_once("::").unwrap_or(("", item));
    let is_word = |text: &str| !text.starts_with(|c: char| c.is_alphanumeric() || c == '_');
    let has = |text: &str, word: &str| text.split(word).skip(1).any(is_word);
    has(block, owner)
        && !line.trim_start().starts_with("//")
        && ["fn ", "struct ", "enum ", "const "]
            .iter()
            .any(|kind| has(line, &format!("{kind}{name}")))
}

#[test]
fn every_link_to_a_line_points_to_where_its_name_is_defined() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let (mut count, mut wrong) = (0, String::new());
    for document in ["README.md", "CONTRIBUTING.md", "docs/audit.md"] {
        let text = fs::read_to_string(root.join(document)).unwrap();
        for (before, after) in text.match_indices("#L").map(|(at, _)| text.split_at(at)) {
            let (label, file) = before.rsplit_once("](").unwrap();
            let (name, file) = (label.rsplit_once("[`").unwrap().1, file.trim_start_matches("../"));
            let name = name.trim_end_matches('`');
            let linked = after["#L".len()..].split(')').next().unwrap();
            let mut block = "";
            let code = fs::read_to_string(root.join(file)).unwrap_or_default();
            let lines: Vec<usize> = (1..)
                .zip(code.lines())
                .filter(|(_, line)| {
                    if line.starts_with("impl") {
                        block = line;
                    }
                    defines(line, block, name)
                })
                .map(|(number, _)| number)
                .collect();
            if !lines.iter().any(|line| line.to_string() == linked) {
                wrong += &format!("{document}: {name} in {file}#L{linked} is in line {lines:?}\n");
            }
            count += 1;
        }
    }
    assert!(wrong.is_empty(), "{wrong}");
    assert!(count > 50, "{count}");
}

/// The README's commands, each with the lines that it prints.
#[cfg(unix)]
#[test]
fn what_the_audit_guide_greps_is_what_is_there() {
    let readme = include_str!("../README.md");
    let block = readme.split("\n```console\n$ ").nth(1).unwrap().split("```").next().unwrap();
    let (function, commands) = block.split_once("\n$ ").unwrap();
    let mut count = 0;
    for command in commands.split("\n$ ") {
        let (command, wanted) = command.split_once('\n').unwrap_or((command, ""));
        let mut shell = std::process::Command::new("sh");
        shell.args(["-c", &format!("{function}\n{command}")]);
        let output = shell.current_dir(env!("CARGO_MANIFEST_DIR")).output().unwrap();
        let (said, wanted) = (String::from_utf8(output.stdout).unwrap(), wanted.trim_end());
        assert_eq!(said.trim_end(), wanted, "{command}");
        count += 1;
    }
    assert!(count > 5, "the commands are not where they were");
}

#[test]
fn every_number_and_timeout_that_the_audit_guide_names_exists() {
    let (guide, limits) = (include_str!("../docs/audit.md"), include_str!("../src/limits.rs"));
    let guide = guide.split("\n## Dependencies\n").next().unwrap();
    let mut count = 0;
    for name in guide.split('`').skip(1).step_by(2) {
        let definition = match name.strip_prefix("timeouts.") {
            Some(timeout) => format!("pub {timeout}: Duration,"),
            None if name.contains('_') && name == name.to_uppercase() => format!("const {name}:"),
            None => continue,
        };
        assert!(limits.contains(&definition), "{name}");
        count += 1;
    }
    assert!(count > 30, "{count}");
}
