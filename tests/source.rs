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
