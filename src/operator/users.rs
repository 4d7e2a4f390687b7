//! Who may log in: the names and tokens in the users file.
//!
//! Each line of that file is a name, a colon, and the SHA-256 of the user's token as 64 hex digits;
//! `#` starts a comment line. A token is random and long, so one plain hash is enough to protect it.
//! The program never writes this file. `--new-user` shows a new token once, and stores it nowhere.

use std::collections::{BTreeMap, HashMap};
use std::net::IpAddr;
use std::path::Path;
use std::thread;
use std::time::Instant;

use data_encoding::{BASE64URL_NOPAD, HEXLOWER, HEXLOWER_PERMISSIVE};
use log::info;
use parking_lot::Mutex;
use sha2::{Digest, Sha256};

use crate::addresses::address_prefix;
use crate::limits::{LOGIN_ADDRESSES, LOGIN_DELAY, LOGIN_TRIES, LOGIN_WINDOW, TOKEN_BYTES};
use crate::names::{is_valid_name, percent_encode};
use crate::operator::watched_files::{TextFile, WatchedFiles};

/// The SHA-256 of a user's token.
pub type TokenHash = [u8; 32];

/// The users who may log in.
pub struct AllowedUsers {
    hashes: WatchedFiles<BTreeMap<String, TokenHash>>,
    failed_logins: Mutex<FailedLogins>,
}

/// For each [`address_prefix`]: the time of its first failed login within [`LOGIN_WINDOW`], and the
/// number of failed logins from then on.
#[derive(Default)]
struct FailedLogins(HashMap<IpAddr, (Instant, u32)>);

impl AllowedUsers {
    /// Reads the users file.
    ///
    /// # Errors
    /// A sentence for the operator: the file can't be read, or one of its lines is wrong.
    pub fn open(path: &Path) -> Result<AllowedUsers, String> {
        let hashes = WatchedFiles::open(&[path], parse)?;
        Ok(AllowedUsers { hashes, failed_logins: Mutex::default() })
    }

    /// The hash of the token of the user `name`, if that user may log in.
    pub fn token_hash(&self, name: &str) -> Option<TokenHash> {
        self.hashes.get().get(name).copied()
    }

    /// Returns the hash of `token` if it is the token of the user `name`, and counts a failed login
    /// otherwise. Sleeps for [`LOGIN_DELAY`] first if `address` is throttled.
    pub fn authenticate(&self, address: IpAddr, name: &str, token: &str) -> Option<TokenHash> {
        if self.is_throttled(address) {
            thread::sleep(LOGIN_DELAY);
        }
        // This comparison need not take constant time: its timing could reveal a hash, but not a
        // token.
        let given = hash(token);
        if self.token_hash(name) == Some(given) {
            return Some(given);
        }
        self.failed_logins.lock().add(address_prefix(address), Instant::now());
        None
    }

    /// Whether [`LOGIN_TRIES`] logins from this address failed within [`LOGIN_WINDOW`].
    pub fn is_throttled(&self, address: IpAddr) -> bool {
        self.failed_logins.lock().is_throttled(address_prefix(address), Instant::now())
    }
}

impl FailedLogins {
    fn is_throttled(&mut self, prefix: IpAddr, now: Instant) -> bool {
        self.0.retain(|_, (first, _)| now.duration_since(*first) < LOGIN_WINDOW);
        self.0.get(&prefix).is_some_and(|(_, count)| *count >= LOGIN_TRIES)
    }

    /// Counts a failed login. If the table is full, the oldest entry is removed, so that failures
    /// from a new address always count.
    fn add(&mut self, prefix: IpAddr, now: Instant) {
        if self.0.len() >= LOGIN_ADDRESSES && !self.0.contains_key(&prefix) {
            let oldest = self.0.iter().min_by_key(|(_, (first, _))| *first);
            if let Some(oldest) = oldest.map(|(prefix, _)| *prefix) {
                self.0.remove(&oldest);
            }
        }
        let (_, count) = self.0.entry(prefix).or_insert((now, 0));
        *count = count.saturating_add(1);
    }
}

/// Makes a token for the user `name`. Returns the user's line for the users file, and a text for the
/// operator: the token, and a link that opens the call page at `url` and logs in.
///
/// # Errors
/// A sentence for the operator: `name` is not a valid name, or the system has no random bytes.
pub fn new_user(name: &str, url: &str) -> Result<(String, String), String> {
    if !is_valid_name(name) || name.starts_with('#') {
        return Err(format!(
            "{name:?} is not a valid name: 1 to 128 bytes, no control or invisible characters, no \
             white space at either end, no # in front"
        ));
    }
    let mut bytes = [0; TOKEN_BYTES];
    getrandom::fill(&mut bytes).map_err(|error| format!("no random bytes: {error}"))?;
    let token = BASE64URL_NOPAD.encode(&bytes);
    let line = format!("{name}:{}\n", HEXLOWER.encode(&hash(&token)));
    let link = format!("{url}#user={}&token={token}", percent_encode(name));
    let secret = format!(
        "The token of {name}, which is stored nowhere:\n\n  {token}\n\n\
         A link that logs in as {name}:\n\n  {link}\n"
    );
    Ok((line, secret))
}

fn hash(token: &str) -> TokenHash {
    Sha256::digest(token).into()
}

fn parse(files: &[TextFile]) -> Result<BTreeMap<String, TokenHash>, String> {
    let mut hashes = BTreeMap::new();
    for TextFile { path, text } in files {
        let path = path.display();
        for (line, number) in text.lines().zip(1..) {
            if line.trim().is_empty() || line.starts_with('#') {
                continue;
            }
            // The error does not show the line, which may contain a token.
            let problem = match parse_line(line) {
                None => "is not a name, a colon and a SHA-256 in hex digits",
                Some((name, hash)) if hashes.insert(name.into(), hash).is_none() => continue,
                Some(_) => "repeats the name of an earlier line",
            };
            return Err(format!("{path}: line {number} {problem}"));
        }
        info!("{} users may log in ({path})", hashes.len());
    }
    Ok(hashes)
}

/// A name may contain colons, so the last colon separates the name from the hash.
fn parse_line(line: &str) -> Option<(&str, TokenHash)> {
    let (name, digits) = line.rsplit_once(':')?;
    let hash = HEXLOWER_PERMISSIVE.decode(digits.trim_end().as_bytes()).ok()?;
    if !is_valid_name(name) {
        return None;
    }
    Some((name, hash.try_into().ok()?))
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::net::Ipv4Addr;
    use std::time::Duration;

    const HASH: &str = "9f86d081884c7d659a2feaa0c55ad015a3bf4f1b2b0b822cd15d6c15b0f00a08"; // "test"

    fn parse(text: &str) -> Result<BTreeMap<String, TokenHash>, String> {
        super::parse(&[TextFile { path: "users".into(), text: text.into() }])
    }

    fn prefix(number: u32) -> IpAddr {
        Ipv4Addr::from_bits(number).into()
    }

    #[test]
    fn a_users_file_is_names_and_hashes_and_comments() {
        let text = format!("# us\n\nalice:{HASH}\r\na:b:{}\n", HASH.to_uppercase());
        let hashes = parse(&text).unwrap();
        assert_eq!(hashes.len(), 2);
        assert_eq!(hashes["alice"], hashes["a:b"]);
        assert_eq!(hashes["alice"], hash("test"));
        assert_eq!(parse("").unwrap().len(), 0);
    }

    #[test]
    fn a_wrong_line_is_named_and_not_shown() {
        for (line, word) in [
            ("SECRET", "is not a name, a colon"),
            ("SECRET:SECRET", "SHA-256"),
            (&format!("SECRET:{HASH}0"), "SHA-256"),
            (&format!("SECRET: {HASH}"), "SHA-256"),
            (&format!(":{HASH}"), "is not a name"),
            (&format!("SECRET\t:{HASH}"), "is not a name"),
            (&format!("alice:{HASH}"), "repeats"),
        ] {
            let problem = parse(&format!("alice:{HASH}\n{line}\n")).unwrap_err();
            assert!(problem.starts_with("users: line 2 ") && problem.contains(word), "{problem}");
            assert!(!problem.contains("SECRET"), "{problem}");
        }
    }

    #[test]
    fn five_failed_logins_in_a_minute_throttle_an_address() {
        let (now, mut failed) = (Instant::now(), FailedLogins::default());
        for _ in 0..LOGIN_TRIES {
            assert!(!failed.is_throttled(prefix(1), now));
            failed.add(prefix(1), now);
        }
        assert!(failed.is_throttled(prefix(1), now));
        assert!(!failed.is_throttled(prefix(2), now));
        assert!(!failed.is_throttled(prefix(1), now + LOGIN_WINDOW));
        assert!(failed.0.is_empty());
    }

    #[test]
    fn failures_from_a_new_address_count_when_the_table_is_full() {
        let (start, mut failed) = (Instant::now(), FailedLogins::default());
        for number in 0..LOGIN_ADDRESSES as u32 {
            failed.add(prefix(number), start + Duration::from_millis(number.into()));
        }
        let now = start + LOGIN_WINDOW / 2;
        let stranger = prefix(u32::MAX);
        for _ in 0..LOGIN_TRIES {
            failed.add(stranger, now);
        }
        assert!(failed.is_throttled(stranger, now));
        assert_eq!(failed.0.len(), LOGIN_ADDRESSES);
        // The oldest made room, and no other.
        assert!(!failed.0.contains_key(&prefix(0)) && failed.0.contains_key(&prefix(1)));
    }
}
