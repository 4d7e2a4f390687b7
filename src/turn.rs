//! Credentials for the operator's TURN server, good for [`TURN_TTL`].
//!
//! The TURN server knows nobody's name. It shares a secret with this one, and believes a user name
//! that says until when it is good and a password that only the secret can make of that: coturn's
//! `use-auth-secret` (draft-uberti-behave-turn-rest-00, section 2.2). No message goes between the
//! two servers, and nobody learns the secret.

use std::time::SystemTime;

use data_encoding::BASE64;
use hmac::{Hmac, KeyInit, Mac};
use serde_json::json;
use sha1::Sha1;

use crate::config::{TurnOptions, read_file};
use crate::limits::TURN_TTL;
use crate::protocol::percent_encode;

/// The TURN server, and what it takes to vouch for a user.
pub struct Turn {
    urls: Vec<String>,
    mac: Hmac<Sha1>,
}

impl Turn {
    /// Reads the secret: the file's one line.
    ///
    /// # Errors
    /// A sentence for the operator: it can't be read, or it is not one line.
    pub fn load(options: &TurnOptions) -> Result<Turn, String> {
        let path = options.secret.display();
        let text = read_file(&options.secret)
            .map_err(|error| format!("cannot read the TURN secret {path}: {error}"))?;
        let secret = text.trim();
        if secret.is_empty() || secret.contains('\n') {
            return Err(format!(
                "the TURN secret {path} must be one line; to make one, run: openssl rand -hex 32"
            ));
        }
        let mac = Hmac::new_from_slice(secret.as_bytes()).map_err(|error| error.to_string())?;
        Ok(Turn { urls: options.urls.clone(), mac })
    }

    /// A JSON array as `RTCPeerConnection` takes it, of the one server, for the user `name`.
    pub fn ice_servers(&self, name: &str) -> String {
        let now = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
        let expiry = (now + TURN_TTL).as_secs();
        let username = format!("{expiry}:{}", percent_encode(name));
        let credential = self.credential(&username);
        json!([{"urls": self.urls, "username": username, "credential": credential}]).to_string()
    }

    fn credential(&self, username: &str) -> String {
        BASE64.encode(&self.mac.clone().chain_update(username).finalize().into_bytes())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::limits::{MAX_NAME, MAX_REPLY_OVERHEAD, MAX_TURN_URLS};

    fn turn(urls: Vec<String>) -> Turn {
        Turn { urls, mac: Hmac::new_from_slice(b"secret").unwrap() }
    }

    #[test]
    fn a_credential_is_what_openssl_makes_of_it() {
        // printf %s 1700000000:alice | openssl dgst -sha1 -hmac secret -binary | base64
        assert_eq!(turn(vec![]).credential("1700000000:alice"), "d8soP47RbdIKLDUOpnJPVQyq5Ts=");
    }

    #[test]
    fn the_longest_turn_servers_fit_into_a_reply() {
        let long = turn(vec!["turn:xxxx".into(); MAX_TURN_URLS / 9]).ice_servers(&"é".repeat(64));
        let with = crate::protocol::login_reply("{}", Ok(Some(long)));
        assert!(MAX_NAME == 128 && with.len() <= MAX_REPLY_OVERHEAD, "{}", with.len());
    }
}
