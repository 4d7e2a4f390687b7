//! A connection's beginning: TLS, then the HTTP request that asks for a WebSocket.

use std::net::SocketAddr;
use std::sync::{Arc, mpsc};

use log::debug;
use tungstenite::WebSocket;
use tungstenite::protocol::{Role, WebSocketConfig};

use crate::limits::{CLIENT_STACK, READ_BUFFER};
use crate::operator::tls::CertificateFiles;
use crate::signaling::client::{Client, Shared};
use crate::signaling::connections::ConnectionPermit;
use crate::signaling::peer::Peer;
use crate::signaling::transport::{self, ClientSocket, Transport};
use crate::threads;
use crate::web::request::{self, Outcome};

/// Does the handshakes: TLS, if there is a certificate, then HTTP. `None` if the connection ends with
/// that.
pub fn run(
    shared: Arc<Shared>,
    permit: ConnectionPermit,
    socket: Arc<ClientSocket>,
    address: SocketAddr,
    certificate: Option<&CertificateFiles>,
) -> Option<Box<Client>> {
    let (timeouts, limits) = (&shared.timeouts, &shared.limits);
    let certificate = certificate.map(|files| files.get());
    let acceptor = certificate.as_ref().map(|certificate| &certificate.acceptor);
    let mut transport = Transport::accept(socket.clone(), acceptor, timeouts)
        .inspect_err(|error| debug!("{address} TLS handshake failed: {error}"))
        .ok()?;
    let is_tls = acceptor.is_some();
    let served =
        request::serve(&mut transport, &shared.site, is_tls, address, &mut |ip| permit.assign(ip))
            .inspect_err(|error| debug!("{address} HTTP request failed: {error}"));
    let (leftover, query, address) = match served.ok()? {
        (address, Outcome::Upgraded(leftover, query)) => (leftover, query, address),
        (address, Outcome::Answered(status)) => {
            debug!("{address} HTTP request answered with {status}");
            transport.shutdown_tls();
            transport::drain(&socket.stream, timeouts.drain);
            return None;
        }
    };
    transport.finish_handshake(timeouts).ok()?;
    let config = WebSocketConfig::default()
        .read_buffer_size(READ_BUFFER)
        .write_buffer_size(0) // Every message is sent at once.
        .max_message_size(Some(limits.max_message))
        .max_frame_size(Some(limits.max_message));
    let websocket = WebSocket::from_partially_read(transport, leftover, Role::Server, Some(config));
    debug!("{address} connected ({} connections open)", shared.connections.count());
    let client = Client::new(shared, Peer::new(websocket, socket), address, permit);
    Some(Box::new(client.with_peerjs(query)))
}

/// Serves a client on a new thread, or on this one if the system has no thread left. The handshakes
/// need much stack, and a thread keeps all pages that it has touched. A client can stay for days, so
/// it gets a fresh stack.
pub fn serve(client: Box<Client>) {
    // Through a channel: a `spawn` that fails drops its closure, and the client with it.
    let (sender, receiver) = mpsc::sync_channel::<Box<Client>>(1);
    let serve = move || {
        if let Ok(client) = receiver.recv() {
            client.run();
        }
    };
    match threads::spawn("client", CLIENT_STACK, serve) {
        Ok(_) => _ = sender.send(client), // The thread waits for it.
        Err(_) => client.run(),
    }
}
