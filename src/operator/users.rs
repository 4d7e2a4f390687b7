//! Who may log in: those in the users file, with their tokens. Whoever edits that file need not
//! restart the server.

use std::collections::{BTreeMap, HashMap};
use std::net::IpAddr;
use std::path::{Path, PathBuf};
use std::thread;
use std::time::Instant;

use log::{Level, log};
use parking_lot::{Mutex, MutexGuard};

use crate::addresses::address_prefix;
use crate::limits::{LOGIN_ADDRESSES, LOGIN_PAUSE, LOGIN_TRIES, LOGIN_WINDOW};
use crate::operator::users_file::{self, TokenHash};

/// The users who may log in, as the file has them.
pub struct Users {
    path: PathBuf,
    list: Mutex<List>,
}

struct List {
    hashes: BTreeMap<String, TokenHash>,
    /// What the last look found: the file's text, good or not, or why it can't be read.
    found: Result<String, String>,
    /// Whether somebody looks right now: nobody else does meanwhile, since the file can be large.
    looking: bool,
    /// The first wrong login of an address within [`LOGIN_WINDOW`], and how many there were since.
    wrong: HashMap<IpAddr, (Instant, u32)>,
}

impl Users {
    /// Reads the file.
    ///
    /// # Errors
    /// A sentence for the operator: it can't be read, or one of its lines can't.
    pub fn open(path: &Path) -> Result<Users, String> {
        let text = users_file::read(path)?;
        let hashes = users_file::users_in(&text, path)?;
        let list = List { hashes, found: Ok(text), looking: false, wrong: HashMap::new() };
        Ok(Users { path: path.into(), list: Mutex::new(list) })
    }

    /// How many users may log in, as of the last look at the file.
    pub fn count(&self) -> usize {
        self.list.lock().hashes.len()
    }

    /// The hash of the user's token, if this is the token of a user called `name`. Waits for
    /// [`LOGIN_PAUSE`] if too many logins from this address were wrong.
    pub fn admit(&self, address: IpAddr, name: &str, token: &str) -> Option<TokenHash> {
        if self.is_suspect(address) {
            thread::sleep(LOGIN_PAUSE);
        }
        let given = users_file::token_hash(token);
        // The same work for a name that is not there: no token has a hash of zeros.
        let known = self.token_hash(name).unwrap_or_default();
        // How long it takes to compare two hashes could tell of a hash, but of no token.
        if given == known {
            return Some(known);
        }
        self.list.lock().note_wrong(address_prefix(address), Instant::now());
        None
    }

    /// Whether too many logins from this address were wrong.
    pub fn is_suspect(&self, address: IpAddr) -> bool {
        self.list.lock().is_suspect(address_prefix(address), Instant::now())
    }

    /// The hash of this user's token, if there is such a user. Looks at the file first, all of it, so
    /// that no edit slips through. (With 12,000 users, a login was seen to take 0.2 ms longer.) One
    /// that can't be read leaves the users as they were, and so does, for who comes meanwhile, one that
    /// somebody else is reading.
    pub fn token_hash(&self, name: &str) -> Option<TokenHash> {
        let mut list = self.list.lock();
        if !list.looking {
            list.looking = true;
            // Without the lock: a disk that hangs holds up this one client.
            let found = MutexGuard::unlocked(&mut list, || users_file::read(&self.path));
            list.looking = false;
            if let Some((level, news)) = list.update(found, &self.path) {
                MutexGuard::unlocked(&mut list, || log!(level, "{news}"));
            }
        }
        list.hashes.get(name).copied()
    }
}

impl List {
    /// Takes in what was found, and returns what to log about it, if it is new.
    fn update(&mut self, found: Result<String, String>, path: &Path) -> Option<(Level, String)> {
        if found == self.found {
            return None;
        }
        self.found = found.clone();
        match found.and_then(|text| users_file::users_in(&text, path)) {
            Ok(hashes) => {
                self.hashes = hashes;
                let count = self.hashes.len();
                Some((Level::Info, format!("{count} users may log in, says {}", path.display())))
            }
            Err(problem) => {
                let remedy = "until that is mended, the users stay as they were";
                Some((Level::Warn, format!("{problem}; {remedy}")))
            }
        }
    }

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

#[cfg(test)]
mod tests {
    use super::*;

    const HASH: &str = "9f86d081884c7d659a2feaa0c55ad015a3bf4f1b2b0b822cd15d6c15b0f00a08"; // "test"

    /// As from a file with this text that has gone: so these users stay.
    fn users(text: &str) -> Users {
        let hashes = users_file::users_in(text, Path::new("users")).unwrap();
        let path = PathBuf::from("/nowhere/users");
        let list =
            List { hashes, found: users_file::read(&path), looking: false, wrong: HashMap::new() };
        Users { path, list: Mutex::new(list) }
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
        let block = |ip: &str| address_prefix(ip.parse().unwrap());
        for _ in 0..LOGIN_TRIES {
            assert!(!list.is_suspect(block("2001:db8::1"), now));
            list.note_wrong(block("2001:db8::1"), now);
        }
        assert!(list.is_suspect(block("2001:db8::2"), now));
        assert!(!list.is_suspect(block("2001:db8:0:100::1"), now));
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
}
