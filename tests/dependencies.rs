//! Checks `Cargo.lock` against `deny.toml`: licences, sources, packages in two versions. cargo-deny,
//! for which `deny.toml` is made, takes minutes to install; this test needs only what a build needs.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::iter::Peekable;
use std::process::Command;
use std::str::SplitWhitespace;

use serde_json::Value;

/// The quoted words in `deny.toml` between `start` and `end`, without the comments.
fn words(start: &str, end: &str) -> Vec<&'static str> {
    let text = include_str!("../deny.toml");
    let list = text.split(start).nth(1).unwrap().split(end).next().unwrap();
    let code = list.lines().map(|line| line.split(" #").next().unwrap());
    code.flat_map(|line| line.split('"').skip(1).step_by(2)).collect()
}

/// What cargo knows of the whole tree, on all systems and with all features.
fn metadata() -> Value {
    metadata_with(&[])
}

fn metadata_with(options: &[&str]) -> Value {
    let mut command = Command::new(env!("CARGO"));
    command.args(["metadata", "--locked", "--all-features", "--format-version", "1"]).args(options);
    let output = command.current_dir(env!("CARGO_MANIFEST_DIR")).output().unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    serde_json::from_slice(&output.stdout).unwrap()
}

fn text<'a>(value: &'a Value, key: &str) -> &'a str {
    value[key].as_str().unwrap_or_default()
}

/// Whether these licences are enough for an SPDX expression, such as `(MIT OR ISC) AND Zlib`. (The
/// older form `MIT/ISC` stands for "or".)
fn is_enough(allowed: &[&str], expression: &str) -> bool {
    let spaced = expression.replace('/', " OR ").replace('(', "( ").replace(')', " )");
    let mut words = spaced.split_whitespace().peekable();
    let enough = any(allowed, &mut words);
    enough && words.next().is_none()
}

fn any(allowed: &[&str], words: &mut Peekable<SplitWhitespace>) -> bool {
    let mut enough = all(allowed, words);
    while words.next_if_eq(&"OR").is_some() {
        enough |= all(allowed, words);
    }
    enough
}

fn all(allowed: &[&str], words: &mut Peekable<SplitWhitespace>) -> bool {
    let mut enough = one(allowed, words);
    while words.next_if_eq(&"AND").is_some() {
        enough &= one(allowed, words);
    }
    enough
}

fn one(allowed: &[&str], words: &mut Peekable<SplitWhitespace>) -> bool {
    if words.next_if_eq(&"(").is_some() {
        let enough = any(allowed, words);
        return words.next() == Some(")") && enough;
    }
    let mut licence = words.next().unwrap_or_default().to_string();
    if words.next_if_eq(&"WITH").is_some() {
        licence += " WITH ";
        licence += words.next().unwrap_or_default();
    }
    allowed.contains(&&*licence)
}

#[test]
fn an_spdx_expression_is_understood() {
    for (allowed, expression, enough) in [
        ("MIT", "MIT", true),
        ("MIT", "Apache-2.0/MIT", true),
        ("MIT", "ISC AND MIT", false),
        ("MIT ISC", "ISC AND MIT", true),
        ("MIT", "MIT OR Zlib AND ISC", true),
        ("MIT", "(MIT OR Zlib) AND ISC", false),
        ("MIT ISC", "(MIT OR Zlib) AND ISC", true),
        ("Apache-2.0", "Apache-2.0 WITH LLVM-exception", false),
        ("Apache-2.0 MIT", "Apache-2.0 WITH LLVM-exception OR MIT", true),
        ("MIT", "", false),
        ("MIT", "MIT MIT", false),
    ] {
        let allowed: Vec<_> = allowed.split(' ').collect();
        assert_eq!(is_enough(&allowed, expression), enough, "{allowed:?} for {expression:?}");
    }
}

#[test]
fn each_package_has_an_allowed_licence_and_each_licence_is_needed() {
    let allowed = words("\nallow = [", "\n]");
    let metadata = metadata();
    let packages = metadata["packages"].as_array().unwrap();
    let refused = |allowed: &[&str]| -> Vec<String> {
        let refused = packages.iter().filter(|p| !is_enough(allowed, text(p, "license")));
        refused.map(|p| format!("{}: {:?}", text(p, "name"), text(p, "license"))).collect()
    };
    let refusals = refused(&allowed);
    assert!(refusals.is_empty(), "not allowed by deny.toml: {refusals:#?}");
    for licence in &allowed {
        let others: Vec<_> = allowed.iter().copied().filter(|other| other != licence).collect();
        assert!(!refused(&others).is_empty(), "nothing needs {licence}");
    }
}

#[test]
fn every_package_comes_from_crates_io() {
    let [registry] = words("\nallow-registry = [", "]")[..] else { panic!("one registry") };
    let metadata = metadata();
    for package in metadata["packages"].as_array().unwrap() {
        let own = text(package, "name") == env!("CARGO_PKG_NAME");
        let wanted = if own { String::new() } else { format!("registry+{registry}") };
        assert_eq!(text(package, "source"), wanted, "{}", text(package, "name"));
    }
}

/// The ids of the packages that the program is made of, build time included, but not those that only
/// tests need.
fn own_tree(metadata: &Value) -> BTreeSet<&str> {
    let nodes = metadata["resolve"]["nodes"].as_array().unwrap();
    let nodes: HashMap<_, _> = nodes.iter().map(|node| (text(node, "id"), node)).collect();
    let mut seen = BTreeSet::new();
    let mut next = vec![text(&metadata["resolve"], "root")];
    while let Some(id) = next.pop() {
        if seen.insert(id) {
            let needed = nodes[id]["deps"].as_array().unwrap().iter().filter(|dep| {
                dep["dep_kinds"].as_array().unwrap().iter().any(|kind| kind["kind"] != "dev")
            });
            next.extend(needed.map(|dep| text(dep, "pkg")));
        }
    }
    assert!(seen.len() > 50, "{seen:?}");
    seen
}

#[test]
fn the_audit_guide_names_every_package_of_the_program() {
    let metadata = metadata_with(&["--filter-platform", "x86_64-unknown-linux-gnu"]);
    let tree = own_tree(&metadata);
    let guide = include_str!("../docs/audit.md").split("\n## Dependencies\n").nth(1).unwrap();
    for package in metadata["packages"].as_array().unwrap() {
        let name = text(package, "name");
        if name != env!("CARGO_PKG_NAME") && tree.contains(text(package, "id")) {
            assert!(guide.contains(&format!("`{name}`")), "{name} is not in docs/audit.md");
        }
    }
}

/// In the program's own tree, on all systems and with all features.
#[test]
fn no_package_is_there_twice_but_those_that_deny_toml_names() {
    let metadata = metadata();
    let seen = own_tree(&metadata);
    let mut versions: BTreeMap<&str, Vec<&str>> = BTreeMap::new();
    for package in metadata["packages"].as_array().unwrap() {
        if seen.contains(text(package, "id")) {
            versions.entry(text(package, "name")).or_default().push(text(package, "version"));
        }
    }
    versions.retain(|_, versions| versions.len() > 1);
    let skipped = words("\nskip = [", ", reason").into_iter();
    let skipped: BTreeSet<_> = skipped.map(|one| one.split('@').next().unwrap()).collect();
    assert_eq!(versions.keys().copied().collect::<BTreeSet<_>>(), skipped, "{versions:?}");
}
