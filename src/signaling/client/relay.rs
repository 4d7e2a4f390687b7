//! Relaying a message to its recipient.

use log::debug;
use tungstenite::Utf8Bytes;

use super::{Client, Shared};
use crate::limits::MAX_LEAVE;
use crate::names::is_valid_name;
use crate::signaling::peer::{Peer, SendError};
use crate::signaling::protocol::{Envelope, Fault, Signal};

impl Client {
    /// Sends a message to its recipient, and keeps track of who is in a call with whom.
    pub(super) fn relay(
        &self,
        signal: Signal,
        envelope: &Envelope,
        text: &Utf8Bytes,
    ) -> Result<(), Fault> {
        let from = self.session.as_ref().ok_or(Fault::NotLoggedIn)?.name();
        if envelope.from_user() != from {
            return Err(Fault::WrongSender(from.into()));
        }
        let to = envelope.to_user();
        // An invalid name is not looked up: it may be long, and hashing it would keep the map
        // locked.
        if !is_valid_name(to) {
            let not_found = Err(Fault::UserNotFound(to.into()));
            return if signal == Signal::Leave { Ok(()) } else { not_found };
        }
        match signal {
            // A user cannot be their own partner.
            Signal::Offer | Signal::Answer | Signal::Pranswer if from != to => {
                self.relay_call(from, to, text)?;
            }
            Signal::Leave => self.relay_leave(from, to, text)?,
            _ => self.relay_plain(to, text)?,
        }
        debug!("{signal:?} from {from:?} to {to:?}, {} bytes", text.len());
        Ok(())
    }

    /// An offer or an answer, which makes the two users partners.
    fn relay_call(&self, from: &str, to: &str, text: &Utf8Bytes) -> Result<(), Fault> {
        let Shared { registry, limits, .. } = &*self.shared;
        // Before sending, so that a recipient who disconnects right after sends a `leave` back.
        let peer = registry.start_call(from, to, limits.max_calls)?;
        peer.send(text.clone(), limits.write_buffer())
            .map_err(|_| Fault::UserUnreachable(to.into()))
    }

    /// The end of a call. A recipient who is not there needs no message.
    fn relay_leave(&self, from: &str, to: &str, text: &Utf8Bytes) -> Result<(), Fault> {
        let Shared { registry, limits, .. } = &*self.shared;
        // One short `leave` for each call may use the reserved part of the write buffer.
        let was_partner = registry.end_call(from, to).is_some();
        let bound = match was_partner && text.len() <= MAX_LEAVE {
            true => limits.write_buffer_with_leaves(),
            false => limits.write_buffer(),
        };
        let sent = self.find(to).map(|peer| peer.send(text.clone(), bound));
        let Ok(Err(SendError::Full)) = sent else {
            return Ok(());
        };
        if was_partner {
            // The recipient did not get the `leave`, so the two become partners again. An error
            // means that one of them is leaving.
            let _ = registry.start_call(from, to, usize::MAX);
        }
        Err(Fault::UserUnreachable(to.into()))
    }

    /// Any other message.
    fn relay_plain(&self, to: &str, text: &Utf8Bytes) -> Result<(), Fault> {
        let sent = self.find(to)?.send(text.clone(), self.shared.limits.write_buffer());
        sent.map_err(|error| match error {
            SendError::Closed => Fault::UserNotFound(to.into()),
            SendError::Full => Fault::UserUnreachable(to.into()),
        })
    }

    fn find(&self, to: &str) -> Result<Peer, Fault> {
        self.shared.registry.find(to).ok_or_else(|| Fault::UserNotFound(to.into()))
    }
}
