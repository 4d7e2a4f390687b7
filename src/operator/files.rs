//! Everything that a start reads from the operator's files.

use std::path::Path;
use std::sync::Arc;

use log::warn;
use serde::de::IgnoredAny;

use crate::operator::config::Config;
use crate::operator::tls::{self, CertificateFiles};
use crate::operator::turn::Turn;
use crate::operator::users::AllowedUsers;
use crate::operator::watched_files::read_file;

/// What the operator's files contain. Loading them logs what was found.
pub struct OperatorFiles {
    /// The certificate; `None` if TLS is disabled.
    pub certificate: Option<Arc<CertificateFiles>>,
    /// The users who may log in; `None` if everybody may.
    pub users: Option<AllowedUsers>,
    /// The TURN server that users get credentials for, if there is one.
    pub turn: Option<Turn>,
    /// The ICE servers for the call page: a JSON array.
    pub ice_servers: String,
}

impl OperatorFiles {
    /// Reads all files that `config` names.
    ///
    /// # Errors
    /// A sentence for the operator: which file can't be used, and why.
    pub fn load(config: &Config) -> Result<OperatorFiles, String> {
        let turn = |secret: &Path| Turn::load(&config.turn_urls, secret);
        let files = OperatorFiles {
            certificate: tls::open(config)?.map(Arc::new),
            users: config.users.as_deref().map(AllowedUsers::open).transpose()?,
            turn: config.turn_secret.as_deref().map(turn).transpose()?,
            ice_servers: config.ice_servers.as_deref().map_or(Ok("[]".into()), read_ice_servers)?,
        };
        if files.turn.is_some() && files.users.is_none() {
            warn!("--turn without --users: everybody who can connect may use the TURN server");
        }
        Ok(files)
    }
}

fn read_ice_servers(path: &Path) -> Result<String, String> {
    let text = read_file(path)?;
    serde_json::from_str::<Vec<IgnoredAny>>(&text)
        .map_err(|error| format!("{} must be a JSON array of servers: {error}", path.display()))?;
    Ok(text)
}
