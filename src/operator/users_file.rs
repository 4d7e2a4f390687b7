//! The users file, and the `user` commands that change it.
//!
//! Each line is a name, a colon, and the SHA-256 of the user's token as 64 hex digits; `#` starts a
//! comment line. A token is random and long, so that its plain hash gives nothing away. Nothing keeps,
//! logs or shows a token, but for the one time that `user add` prints it.

use std::collections::BTreeMap;
use std::fs::{self, File, OpenOptions};
use std::io::{ErrorKind, Write};
use std::path::Path;
use std::thread;
use std::time::Instant;

use data_encoding::{BASE64URL_NOPAD, HEXLOWER, HEXLOWER_PERMISSIVE};
use sha2::{Digest, Sha256};

use crate::limits::{TOKEN_BYTES, USERS_FILE_PATIENCE, USERS_FILE_POLL};
use crate::names::{is_valid_name, percent_encode};
use crate::operator::config::{UserAction, read_file};

/// The SHA-256 of a user's token.
pub type TokenHash = [u8; 32];

/// Does what a `user` command asks for, and returns what it prints.
///
/// # Errors
/// A sentence for the operator: the file can't be read or written, the name is no name, or it is
/// there already, or it is not there.
pub fn carry_out(file: &Path, action: &UserAction) -> Result<String, String> {
    match action {
        UserAction::List => {
            Ok(users_in(&read(file)?, file)?.into_keys().map(|name| name + "\n").collect())
        }
        UserAction::Remove(name) => {
            change(file, name, None)?;
            Ok(format!("Removed {name}, who will be offline within a minute.\n"))
        }
        UserAction::Add { name, url } => {
            let mut bytes = [0; TOKEN_BYTES];
            getrandom::fill(&mut bytes).map_err(|error| format!("no random bytes: {error}"))?;
            let token = BASE64URL_NOPAD.encode(&bytes);
            let hash = HEXLOWER.encode(&token_hash(&token));
            change(file, name, Some(&format!("{name}:{hash}")))?;
            Ok(format!(
                "{name}'s token, which is kept nowhere and can't be shown again:\n\n  {token}\n\n\
                 This link logs in by itself; whoever has it is {name}:\n\n  \
                 {url}#user={}&token={token}\n",
                percent_encode(name)
            ))
        }
    }
}

/// The hash by which the file knows a token.
pub fn token_hash(token: &str) -> TokenHash {
    Sha256::digest(token).into()
}

/// Adds `line` to the file, or without one removes the user's. The change is made in a draft beside the
/// file, which then replaces it, so that no reader sees half of it. Only one process can have the
/// draft, so that no two changes undo each other.
fn change(path: &Path, name: &str, line: Option<&str>) -> Result<(), String> {
    // What a link points to is replaced, not the link.
    let path = &fs::canonicalize(path).unwrap_or_else(|_| path.into());
    let mut draft_path = path.clone().into_os_string();
    draft_path.push(".new");
    let draft_path = Path::new(&draft_path);
    let draft = create_draft(draft_path)?;
    let changed = changed_text(path, name, line).and_then(|text| {
        write(draft, path, &text)
            .and_then(|()| fs::rename(draft_path, path))
            .map_err(|error| format!("cannot write the users file {}: {error}", path.display()))
    });
    if changed.is_err() {
        // If that fails too, the next change will say so.
        let _ = fs::remove_file(draft_path);
    }
    changed
}

/// Creates the draft, for its owner's eyes only, as soon as no other process has one.
fn create_draft(path: &Path) -> Result<File, String> {
    let mut options = OpenOptions::new();
    options.write(true).create_new(true);
    #[cfg(unix)]
    std::os::unix::fs::OpenOptionsExt::mode(&mut options, 0o600);
    let deadline = Instant::now() + USERS_FILE_PATIENCE;
    loop {
        match options.open(path) {
            Ok(file) => return Ok(file),
            Err(error) if error.kind() != ErrorKind::AlreadyExists => {
                return Err(format!("cannot create {}: {error}", path.display()));
            }
            Err(_) if Instant::now() >= deadline => {
                return Err(format!(
                    "{} is in the way: another `user` command is at work, or was interrupted; if \
                     there is none, remove that file",
                    path.display()
                ));
            }
            Err(_) => thread::sleep(USERS_FILE_POLL),
        }
    }
}

fn changed_text(path: &Path, name: &str, line: Option<&str>) -> Result<String, String> {
    if !is_valid_name(name) || name.starts_with('#') {
        return Err(format!(
            "{name:?} can't be a user's name: 1 to 128 bytes, no control characters, no # in front"
        ));
    }
    let is_new = line.is_some() && matches!(fs::exists(path), Ok(false));
    let text = if is_new { String::new() } else { read(path)? };
    let known = users_in(&text, path)?.contains_key(name);
    match (known, line) {
        (true, Some(_)) => Err(format!(
            "{name:?} is in {} already; for a new token, remove the user first",
            path.display()
        )),
        (false, None) => Err(format!("{name:?} is not in {}", path.display())),
        _ => {
            let is_other =
                |line: &&str| !matches!(user_in(line), Ok(Some((user, _))) if user == name);
            Ok(text.lines().filter(is_other).chain(line).flat_map(|line| [line, "\n"]).collect())
        }
    }
}

/// Gives `draft` the owner, the group and the permissions of `path`, if that is there, so that root's
/// changes do not take the file away from the server; then writes all of it.
fn write(mut draft: File, path: &Path, text: &str) -> std::io::Result<()> {
    #[cfg(unix)]
    if let Ok(present) = fs::metadata(path) {
        use std::os::unix::fs::{MetadataExt, fchown};
        fchown(&draft, Some(present.uid()), Some(present.gid()))?;
        draft.set_permissions(present.permissions())?;
    }
    #[cfg(not(unix))]
    let _ = path;
    draft.write_all(text.as_bytes())?;
    draft.sync_all()
}

/// The text of the file.
///
/// # Errors
/// A sentence for the operator: it can't be read.
pub fn read(path: &Path) -> Result<String, String> {
    read_file(path)
        .map_err(|error| format!("cannot read the users file {}: {error}", path.display()))
}

/// All users of the file at `path`, which has this text.
///
/// # Errors
/// A sentence for the operator: which line is broken. It does not show it, as that may be a token.
pub fn users_in(text: &str, path: &Path) -> Result<BTreeMap<String, TokenHash>, String> {
    let path = path.display();
    let mut hashes = BTreeMap::new();
    for (line, number) in text.lines().zip(1..) {
        let wrong = |problem| format!("cannot read the users file {path}: line {number} {problem}");
        let Some((name, digits)) = user_in(line).map_err(wrong)? else {
            continue;
        };
        let hash = HEXLOWER_PERMISSIVE.decode(digits.as_bytes()).ok();
        let hash = hash.and_then(|hash| TokenHash::try_from(hash).ok());
        let hash = hash.ok_or_else(|| wrong("does not end in the 64 hex digits of a SHA-256"))?;
        if hashes.insert(name.to_string(), hash).is_some() {
            return Err(wrong("has a name that was there before"));
        }
    }
    Ok(hashes)
}

/// The name in a line and the digits behind it, if it is not a comment or empty. A name may have
/// colons.
fn user_in(line: &str) -> Result<Option<(&str, &str)>, &'static str> {
    if line.trim().is_empty() || line.starts_with('#') {
        return Ok(None);
    }
    match line.rsplit_once(':') {
        Some((name, digits)) if is_valid_name(name) => Ok(Some((name, digits.trim_end()))),
        Some(_) => Err("has no name that one can log in with before its last colon"),
        None => Err("is not a name, a colon and the SHA-256 of a token"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const HASH: &str = "9f86d081884c7d659a2feaa0c55ad015a3bf4f1b2b0b822cd15d6c15b0f00a08"; // "test"

    #[test]
    fn a_users_file_is_names_and_hashes_and_comments() {
        let text = format!("# us\n\nalice:{HASH}\r\na:b:{}\n", HASH.to_uppercase());
        let hashes = users_in(&text, Path::new("users")).unwrap();
        assert_eq!(hashes.len(), 2);
        assert_eq!(hashes["alice"], hashes["a:b"]);
        assert_eq!(hashes["alice"], *Sha256::digest("test"));
        assert_eq!(users_in("", Path::new("users")).unwrap().len(), 0);
    }

    #[test]
    fn a_broken_line_is_named_and_not_shown() {
        for (line, word) in [
            ("SECRET", "is not a name, a colon"),
            ("SECRET:SECRET", "64 hex digits"),
            (&format!("SECRET:{HASH}0"), "64 hex digits"),
            (&format!("SECRET: {HASH}"), "64 hex digits"),
            (&format!(":{HASH}"), "no name"),
            (&format!("SECRET\t:{HASH}"), "no name"),
            (&format!("alice:{HASH}"), "was there before"),
        ] {
            let problem =
                users_in(&format!("alice:{HASH}\n{line}\n"), Path::new("users")).unwrap_err();
            assert!(problem.contains("users: line 2 ") && problem.contains(word), "{problem}");
            assert!(!problem.contains("SECRET"), "{problem}");
        }
    }

    #[test]
    fn changes_keep_comments_and_order() {
        let path = std::env::temp_dir().join(format!("users-{}", std::process::id()));
        fs::write(&path, format!("# us\nalice:{HASH}\n\nbob:{HASH}")).unwrap();
        change(&path, "alice", None).unwrap();
        change(&path, "al:ice", Some(&format!("al:ice:{HASH}"))).unwrap();
        let wanted = format!("# us\n\nbob:{HASH}\nal:ice:{HASH}\n");
        assert_eq!(fs::read_to_string(&path).unwrap(), wanted);
        for name in ["", "#alice", "a\n", "bob"] {
            assert!(change(&path, name, Some("x")).is_err(), "{name:?}");
        }
        assert!(change(&path, "alice", None).is_err());
        assert_eq!(fs::read_to_string(&path).unwrap(), wanted);
        change(&path, "bob", None).unwrap(); // and nothing stands in the way of it
        fs::remove_file(path).unwrap();
    }
}
