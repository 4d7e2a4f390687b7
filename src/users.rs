//! Who may log in: the users file, and the `user` commands that change it.
//!
//! Each line is a name, a colon, and the SHA-256 of the user's token as 64 hex digits; `#` starts a
//! comment line. A token is random and long, so that its plain hash gives nothing away. Whoever
//! edits the file need not restart the server. Nothing here keeps, logs or shows a token, but for
//! the one time that `user add` prints it.

use std::collections::{BTreeMap, HashMap};
use std::fs::{self, File, OpenOptions};
use std::io::{ErrorKind, Write};
use std::net::IpAddr;
use std::path::{Path, PathBuf};
use std::thread;
use std::time::{Duration, Instant};

use data_encoding::{BASE64URL_NOPAD, HEXLOWER, HEXLOWER_PERMISSIVE};
use log::{info, warn};
use parking_lot::{Mutex, MutexGuard};
use sha2::{Digest, Sha256};

use crate::config::{UserAction, read_file};
use crate::limits::{
    LOGIN_ADDRESSES, LOGIN_PAUSE, LOGIN_TRIES, LOGIN_WINDOW, TOKEN_BYTES, USERS_FILE_PATIENCE,
};
use crate::protocol::{is_valid_name, percent_encode};
use crate::slots::block_of;

type Hash = [u8; 32];

/// The users who may log in, as the file has them.
pub struct Users {
    path: PathBuf,
    list: Mutex<List>,
}

struct List {
    hashes: BTreeMap<String, Hash>,
    /// What the last look found: the file's text, good or not, or why it can't be read.
    found: Result<String, String>,
    /// The first wrong login of an address within [`LOGIN_WINDOW`], and how many there were since.
    wrong: HashMap<IpAddr, (Instant, u32)>,
}

impl Users {
    /// Reads the file.
    ///
    /// # Errors
    /// A sentence for the operator: it can't be read, or one of its lines can't.
    pub fn open(path: &Path) -> Result<Users, String> {
        let text = read(path)?;
        let hashes = users_in(&text, path)?;
        let list = List { hashes, found: Ok(text), wrong: HashMap::new() };
        Ok(Users { path: path.into(), list: Mutex::new(list) })
    }

    /// How many users may log in, as of the last look at the file.
    pub fn count(&self) -> usize {
        self.list.lock().hashes.len()
    }

    /// The hash of the user's token, if this is the token of a user called `name`. Waits for
    /// [`LOGIN_PAUSE`] if too many logins from this address were wrong.
    pub fn admit(&self, address: IpAddr, name: &str, token: &str) -> Option<Hash> {
        if self.is_suspect(address) {
            thread::sleep(LOGIN_PAUSE);
        }
        let given: Hash = Sha256::digest(token).into();
        // The same work for a name that is not there: no token has a hash of zeros.
        let known = self.token_hash(name).unwrap_or_default();
        // How long it takes to compare two hashes could tell of a hash, but of no token.
        if given == known {
            return Some(known);
        }
        self.list.lock().note_wrong(block_of(address), Instant::now());
        None
    }

    /// Whether too many logins from this address were wrong.
    pub fn is_suspect(&self, address: IpAddr) -> bool {
        self.list.lock().is_suspect(block_of(address), Instant::now())
    }

    /// The hash of this user's token, if there is such a user.
    pub fn token_hash(&self, name: &str) -> Option<Hash> {
        self.up_to_date().hashes.get(name).copied()
    }

    /// The list after another look at the file, all of it, so that no edit slips through. (With 12,000
    /// users, a login was seen to take 0.2 ms longer.) One that can't be read leaves it as it was.
    fn up_to_date(&self) -> MutexGuard<'_, List> {
        let mut list = self.list.lock();
        let found = read(&self.path);
        if found != list.found {
            match found.clone().and_then(|text| users_in(&text, &self.path)) {
                Ok(hashes) => list.hashes = hashes,
                Err(problem) => {
                    warn!("{problem}; until that is mended, the users stay as they were");
                }
            }
            list.found = found;
        }
        list
    }
}

impl List {
    fn is_suspect(&mut self, block: IpAddr, now: Instant) -> bool {
        self.wrong.retain(|_, (first, _)| now.duration_since(*first) < LOGIN_WINDOW);
        self.wrong.get(&block).is_some_and(|(_, count)| *count >= LOGIN_TRIES)
    }

    fn note_wrong(&mut self, block: IpAddr, now: Instant) {
        if self.wrong.len() < LOGIN_ADDRESSES || self.wrong.contains_key(&block) {
            let (_, count) = self.wrong.entry(block).or_insert((now, 0));
            *count = count.saturating_add(1);
        }
    }
}

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
            let hash = HEXLOWER.encode(&Sha256::digest(&token));
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

/// Adds `line` to the file, or without one removes the user's. The file is replaced by a finished
/// one, under a name that only one process can create: so no reader sees half of it, and no two
/// changes undo each other.
fn change(path: &Path, name: &str, line: Option<&str>) -> Result<(), String> {
    // What a link points to is replaced, not the link.
    let path = &fs::canonicalize(path).unwrap_or_else(|_| path.into());
    let mut draft_path = path.clone().into_os_string();
    draft_path.push(".new");
    let draft_path = Path::new(&draft_path);
    let draft = create(draft_path)?;
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

/// Creates a file for its owner's eyes only, when no other process has it any more.
fn create(path: &Path) -> Result<File, String> {
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
            Err(_) => thread::sleep(Duration::from_millis(10)),
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

/// Writes all of `draft`, which belongs to whom `path` belongs to, if that is there, and is as open:
/// root's changes must not take the file away from the server.
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

fn read(path: &Path) -> Result<String, String> {
    read_file(path)
        .map_err(|error| format!("cannot read the users file {}: {error}", path.display()))
}

/// All users of the file. What is in a broken line is not shown: it may be a token.
fn users_in(text: &str, path: &Path) -> Result<BTreeMap<String, Hash>, String> {
    let path = path.display();
    let mut hashes = BTreeMap::new();
    for (line, number) in text.lines().zip(1..) {
        let wrong = |problem| format!("cannot read the users file {path}: line {number} {problem}");
        let Some((name, digits)) = user_in(line).map_err(wrong)? else {
            continue;
        };
        let hash = HEXLOWER_PERMISSIVE.decode(digits.as_bytes()).ok();
        let hash = hash.and_then(|hash| Hash::try_from(hash).ok());
        let hash = hash.ok_or_else(|| wrong("does not end in the 64 hex digits of a SHA-256"))?;
        if hashes.insert(name.to_string(), hash).is_some() {
            return Err(wrong("has a name that was there before"));
        }
    }
    info!("{} users may log in, says {path}", hashes.len());
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

    /// As from a file with this text that has gone: so these users stay.
    fn users(text: &str) -> Users {
        let hashes = users_in(text, Path::new("users")).unwrap();
        let path = PathBuf::from("/nowhere/users");
        let list = List { hashes, found: read(&path), wrong: HashMap::new() };
        Users { path, list: Mutex::new(list) }
    }

    #[test]
    fn a_users_file_is_names_and_hashes_and_comments() {
        let text = format!("# us\n\nalice:{HASH}\r\n a:b :{}\n", HASH.to_uppercase());
        let hashes = users_in(&text, Path::new("users")).unwrap();
        assert_eq!(hashes.len(), 2);
        assert_eq!(hashes["alice"], hashes[" a:b "]);
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
    fn only_the_right_token_of_a_known_name_is_admitted() {
        let users = users(&format!("alice:{HASH}\nbob:{}", "0".repeat(64)));
        let admitted = |ip: [u8; 4], name, token| users.admit(ip.into(), name, token).is_some();
        assert!(admitted([192, 0, 2, 1], "alice", "test"));
        for (last, name, token) in [
            (2, "alice", ""),
            (3, "alice", "Test"),
            (4, "carol", "test"),
            (5, "bob", ""),
            (6, "", ""),
        ] {
            assert!(!admitted([192, 0, 2, last], name, token), "{name} {token}");
        }
    }

    #[test]
    fn five_wrong_logins_in_a_minute_make_an_address_wait() {
        let users = users("");
        let (now, mut list) = (Instant::now(), users.list.lock());
        let block = |ip: &str| block_of(ip.parse().unwrap());
        for _ in 0..LOGIN_TRIES {
            assert!(!list.is_suspect(block("2001:db8::1"), now));
            list.note_wrong(block("2001:db8::1"), now);
        }
        assert!(list.is_suspect(block("2001:db8::2"), now));
        assert!(!list.is_suspect(block("2001:db8:0:1::1"), now));
        assert!(!list.is_suspect(block("2001:db8::1"), now + LOGIN_WINDOW));
        assert!(list.wrong.is_empty());
    }

    #[test]
    fn addresses_with_wrong_logins_have_a_bound() {
        let users = users("");
        let (now, mut list) = (Instant::now(), users.list.lock());
        for number in 0..10_000_u32 {
            list.note_wrong(std::net::Ipv4Addr::from_bits(number).into(), now);
        }
        assert_eq!(list.wrong.len(), LOGIN_ADDRESSES);
        // Who comes then is not the one to suffer.
        let stranger = [192, 0, 2, 1].into();
        assert!(!list.is_suspect(stranger, now));
        list.is_suspect(stranger, now + LOGIN_WINDOW);
        assert!(list.wrong.is_empty());
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
