//! Credentials for the operator's TURN server, valid for [`TURN_TTL`].
//!
//! The TURN server has no list of users. It shares a secret with this server, and accepts a user name
//! that contains an expiry time, with the HMAC of that user name as the password: coturn's
//! `use-auth-secret` (draft-uberti-behave-turn-rest-00, section 2.2). The two servers exchange no
//! message, and no client learns the secret.

use std::path::Path;
use std::time::SystemTime;

use data_encoding::BASE64;
use log::info;
use serde_json::json;
use sha1::{Digest, Sha1};

use crate::limits::TURN_TTL;
use crate::names::percent_encode;
use crate::operator::watched_files::read_file;

/// The TURN server's addresses, and the secret that makes credentials for it.
pub struct Turn {
    urls: Vec<String>,
    secret: String,
}

impl Turn {
    /// Reads the secret for the TURN server at `urls`: the one line of its file.
    ///
    /// # Errors
    /// A sentence for the operator: the file can't be read, or is not one line.
    pub fn load(urls: &[String], secret: &Path) -> Result<Turn, String> {
        let text = read_file(secret)?;
        let line = text.trim();
        if line.is_empty() || line.contains('\n') {
            let path = secret.display();
            return Err(format!("{path} must be one line; create it with: openssl rand -hex 32"));
        }
        info!("TURN credentials are made for {}", urls.join(", "));
        Ok(Turn { urls: urls.into(), secret: line.into() })
    }

    /// The `iceServers` of an `RTCPeerConnection`, as JSON, with new credentials for the user `name`.
    pub fn ice_servers(&self, name: &str) -> String {
        let now = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
        let expiry = (now + TURN_TTL).as_secs();
        let username = format!("{expiry}:{}", percent_encode(name));
        let credential = BASE64.encode(&hmac_sha1(self.secret.as_bytes(), username.as_bytes()));
        json!([{"urls": self.urls, "username": username, "credential": credential}]).to_string()
    }
}

/// HMAC (RFC 2104, section 2) with SHA-1, whose block is 64 bytes.
fn hmac_sha1(key: &[u8], text: &[u8]) -> [u8; 20] {
    let hashed: [u8; 20] = Sha1::digest(key).into();
    let key = if key.len() > 64 { &hashed } else { key };
    let mut block = [0; 64];
    block.iter_mut().zip(key).for_each(|(byte, key)| *byte = *key);
    let inner = Sha1::new_with_prefix(block.map(|byte| byte ^ 0x36)).chain_update(text).finalize();
    Sha1::new_with_prefix(block.map(|byte| byte ^ 0x5c)).chain_update(inner).finalize().into()
}

#[cfg(test)]
mod tests {
    use super::*;
    use data_encoding::HEXLOWER;

    use crate::limits::{MAX_NAME, MAX_REPLY_OVERHEAD, MAX_TURN_URLS};

    /// printf %s 1700000000:alice | openssl dgst -sha1 -hmac KEY
    #[test]
    fn an_hmac_is_what_openssl_makes_of_it() {
        for (length, hmac) in [
            (1, "ea3125aa186ea21fa98aa1b97aa3a1fc921e6d33"),
            (63, "fd92b25411ab9f1f619311d6c2576a58df715442"),
            (64, "6a2baaa120854bb04d262e7ba5ce28381fe0deb0"),
            (65, "b658f6fa5987e1e62789560f0ab42be5e8d13570"),
            (200, "c8b6737a11212e932f1a3891fdc41ea45a3c75c7"),
        ] {
            let made = hmac_sha1("k".repeat(length).as_bytes(), b"1700000000:alice");
            assert_eq!(HEXLOWER.encode(&made), hmac, "a key of {length} bytes");
        }
    }

    #[test]
    fn the_longest_turn_servers_fit_into_a_reply() {
        let urls = vec!["turn:xxxx".into(); MAX_TURN_URLS / 9];
        let long = Turn { urls, secret: "secret".into() }.ice_servers(&"é".repeat(64));
        let with = crate::signaling::protocol::login_reply("{}", Ok(Some(long)));
        assert!(MAX_NAME == 128 && with.len() <= MAX_REPLY_OVERHEAD, "{}", with.len());
    }
}
