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
    assert_eq!(modules.len(), 9);
    modules
}

#[test]
fn each_module_uses_only_the_ones_above_it() {
    let modules = modules();
    for (position, (name, code)) in modules.iter().enumerate() {
        for (below, _) in &modules[position..] {
            assert!(!code.contains(&format!("crate::{below}")), "{name} uses {below}");
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
