//! Rules of the source: the layers, and the invariants that can be grepped.

mod common;

use std::fs;
use std::path::Path;

use common::files_below;

fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

/// The files of `src` in the order of lib.rs, as paths of modules such as `signaling::peer`, each with
/// its code: without comments, and without the unit tests, which stand last.
fn modules() -> Vec<(String, String)> {
    let lib = fs::read_to_string(root().join("src/lib.rs")).unwrap();
    let (mut names, mut folder) = (Vec::new(), "");
    for line in lib.lines().map(str::trim) {
        if let Some(name) = line.strip_prefix("pub mod ").and_then(|l| l.strip_suffix(" {")) {
            folder = name;
        } else if let Some(name) = line.strip_prefix("pub mod ").and_then(|l| l.strip_suffix(';')) {
            names.push([folder, name].join("::").trim_start_matches("::").to_string());
        } else if line == "}" {
            folder = "";
        }
    }
    let submodules: Vec<String> = names
        .iter()
        .flat_map(|name| {
            let code = code_of(name);
            let own = code.lines().filter_map(|line| line.strip_prefix("mod ")?.strip_suffix(';'));
            own.map(|own| format!("{name}::{own}")).collect::<Vec<_>>()
        })
        .collect();
    names.extend(submodules);
    names.into_iter().map(|name| (name.clone(), code_of(&name))).collect()
}

fn code_of(module: &str) -> String {
    let path = root().join("src").join(module.replace("::", "/") + ".rs");
    let text = fs::read_to_string(&path).unwrap_or_else(|error| panic!("{path:?}: {error}"));
    let code = text.split("#[cfg(test)]\nmod tests").next().unwrap();
    code.lines().filter(|line| !line.trim_start().starts_with("//")).collect::<Vec<_>>().join("\n")
}

#[test]
fn every_file_of_the_source_is_looked_at_here() {
    // Or an invariant could be broken in a file that no test reads.
    let modules = modules();
    let files = files_below(&root().join("src"), ".rs");
    assert_eq!(modules.len() + 2, files.len(), "beside lib.rs and main.rs: {modules:?}");
}

/// The parts of `code` that name something of this crate, such as `signaling::peer::Peer`.
fn uses(code: &str) -> Vec<&str> {
    code.split("crate::").skip(1).collect()
}

#[test]
fn imports_go_one_way_between_folders() {
    for (module, code) in modules() {
        let forbidden: &[&str] = match module.split_once("::") {
            None => &["signaling::", "web::", "operator::"],
            Some(("operator", _)) => &["signaling::", "web::"],
            Some(("web", _)) => &["signaling::", "operator::"],
            Some(_) => &[],
        };
        for used in uses(&code) {
            for folder in forbidden {
                assert!(!used.starts_with(folder), "{module} uses {folder}{used:.40}");
            }
        }
    }
}

#[test]
fn each_module_uses_only_those_above_it_in_its_folder() {
    let modules = modules();
    let listed: Vec<&String> = modules.iter().map(|(name, _)| name).collect();
    for (position, (module, code)) in modules.iter().enumerate() {
        for below in &listed[position + 1..] {
            let is_below = |used: &&str| {
                used.strip_prefix(below.as_str()).is_some_and(|rest| {
                    !rest.starts_with(|c: char| c == '_' || c.is_alphanumeric())
                })
            };
            assert!(!uses(code).iter().any(is_below), "{module} uses {below}");
        }
    }
}

#[test]
fn what_a_reader_can_grep_is_true() {
    let modules = modules();
    let holding = |word: &str| -> Vec<&str> {
        let found = modules.iter().filter(|(_, code)| code.contains(word));
        found.map(|(name, _)| name.as_str()).collect()
    };
    assert_eq!(holding("users.lock()"), ["signaling::registry"]);
    assert_eq!(holding("users: Mutex"), ["signaling::registry"]);
    assert_eq!(holding("websocket.lock()"), ["signaling::peer"]);
    assert_eq!(holding("thread::Builder"), ["threads"]);
    assert_eq!(holding("native_tls"), ["operator::tls"]);
    // `thread::spawn` panics when there is no thread left; the builder returns an error.
    for word in ["thread::spawn", "unsafe", ".unwrap()", ".expect(", "fs::write", "File::create"] {
        assert_eq!(holding(word), [""; 0], "{word}");
    }
}

#[test]
fn every_number_has_a_name() {
    for (module, code) in modules() {
        let is_allowed = module == "limits" || module == "rate"; // "a second"
        assert!(is_allowed || !code.contains("Duration::from_"), "a delay in {module}");
    }
}

#[test]
fn the_tests_of_each_module_can_be_found() {
    let table = include_str!("README.md");
    for link in table.split("](").skip(1).filter_map(|rest| rest.split(')').next()) {
        let path = root().join("tests").join(link);
        assert!(path.exists(), "tests/README.md names {link}");
    }
    for path in files_below(&root().join("src"), ".rs") {
        let name = path.strip_prefix(root()).unwrap().display().to_string();
        let is_listed = table.contains(&format!("(../{name})"));
        let is_shell = name.ends_with("lib.rs") || name.ends_with("main.rs");
        assert!(is_listed || is_shell, "{name} has no row in tests/README.md");
    }
    for entry in fs::read_dir(root().join("tests")).unwrap() {
        let name = entry.unwrap().file_name().into_string().unwrap();
        let is_listed =
            table.contains(&format!("({name})")) || table.contains(&format!("({name}/"));
        assert!(is_listed || !name.ends_with(".rs"), "{name} is not in tests/README.md");
    }
}
