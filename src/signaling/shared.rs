//! What all clients share.

use std::sync::Arc;
use std::sync::atomic::AtomicBool;

use crate::limits::{Limits, Timeouts};
use crate::operator::turn::Turn;
use crate::operator::users::AllowedUsers;
use crate::signaling::connections::Connections;
use crate::signaling::registry::Registry;
use crate::web::request::Site;

/// What all clients share.
pub struct Shared {
    /// Who is online.
    pub registry: Arc<Registry>,
    /// Which connections are open.
    pub connections: Arc<Connections>,
    /// How much each client may do.
    pub limits: Limits,
    /// How long everything may take.
    pub timeouts: Timeouts,
    /// What HTTP requests are answered with.
    pub site: Site,
    /// Who may log in. `None` for everybody.
    pub users: Option<AllowedUsers>,
    /// The TURN server, if there is one.
    pub turn: Option<Turn>,
    /// Set once, when the server stops.
    pub stopping: AtomicBool,
}
