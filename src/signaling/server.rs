//! Accepting connections, starting the clients' threads, and stopping.
//!
//! The accept loop does no I/O with a client that could block, and never ends because of one.

use std::io;
use std::io::ErrorKind::{ConnectionAborted, ConnectionReset};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, TcpStream};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::Receiver;
use std::thread;

use log::{info, warn};

use crate::limits::{ACCEPT_DELAY, ACCEPT_STACK, ACCEPT_WAKE, CLIENT_STACK, Timeouts};
use crate::operator::config::Config;
use crate::operator::files::OperatorFiles;
use crate::operator::listen::{Listener, announce, local_addresses};
use crate::signaling::client::Shared;
use crate::signaling::connections::Connections;
use crate::signaling::handshake;
use crate::signaling::transport::ClientSocket;
use crate::threads;
use crate::web::page;
use crate::web::request::{self, Site};

/// Serves until `shutdown` gets a message or loses its sender, then stops: no new connections, a
/// close frame (1001) for every client, and up to `timeouts.stop` for the threads to end.
///
/// # Errors
/// A sentence for the operator: there is no thread to accept connections.
pub fn run(
    listeners: Vec<Listener>,
    files: OperatorFiles,
    config: &Config,
    timeouts: Timeouts,
    shutdown: &Receiver<()>,
) -> Result<(), String> {
    let shared = Arc::new(share(files, config, timeouts, &listeners));
    let mut accepting = Vec::new();
    for listener in listeners {
        announce(&listener);
        let (address, shared) = (listener.address, shared.clone());
        let thread = threads::spawn("accept", ACCEPT_STACK, move || accept(&listener, &shared))
            .map_err(|error| format!("cannot start a thread: {error}"))?;
        accepting.push((address, thread));
    }

    // An error means that the sender was dropped, which also stops the server.
    let _ = shutdown.recv();
    info!("stopping, {} connections open", shared.connections.count());
    // Relaxed ordering is enough for every flag in this program: no flag publishes other data.
    shared.stopping.store(true, Ordering::Relaxed);
    for (address, thread) in accepting {
        // `accept` has no timeout: a connection from ourselves wakes it. If that fails, the thread is
        // left behind, and ends with the process.
        if TcpStream::connect_timeout(&loopback_for(address), ACCEPT_WAKE).is_ok() {
            let _ = thread.join();
        }
    }
    shared.connections.wake_all();
    shared.connections.wait_until_empty(shared.timeouts.stop);
    info!("stopped, {} connections not yet closed", shared.connections.count());
    Ok(())
}

/// What all clients share.
fn share(
    files: OperatorFiles,
    config: &Config,
    timeouts: Timeouts,
    listeners: &[Listener],
) -> Shared {
    let OperatorFiles { users, turn, ice_servers, .. } = files;
    let tls_port = listeners.iter().find(|l| l.tls.is_some()).map(|l| l.address.port());
    let addresses = listeners.last().map(|l| local_addresses(l.address.ip())).unwrap_or_default();
    Shared {
        registry: Arc::default(),
        peerjs_registry: Arc::default(),
        connections: Connections::new(config.limits),
        limits: config.limits,
        timeouts,
        site: Site {
            settings: page::settings(&ice_servers, tls_port, users.is_some(), &addresses),
            allow_origin: config.allow_origin.clone(),
            trust_proxy: config.trust_proxy.clone(),
            peerjs: config.peerjs.clone(),
        },
        users,
        turn,
        stopping: AtomicBool::new(false),
    }
}

/// Accepts connections until the server stops, and starts a thread for each.
fn accept(listener: &Listener, shared: &Arc<Shared>) {
    loop {
        let accepted = listener.socket.accept();
        if shared.stopping.load(Ordering::Relaxed) {
            return;
        }
        match accepted.and_then(|(socket, address)| start_client(shared, listener, socket, address))
        {
            Ok(()) => {}
            // Some systems report here that a client closed its connection.
            Err(error) if matches!(error.kind(), ConnectionAborted | ConnectionReset) => {}
            Err(error) => {
                warn!(
                    "cannot accept a connection: {error}; lower --max-connections, or allow more files \
                     (LimitNOFILE= in the systemd unit, `ulimit -n`) or threads (TasksMax=, `ulimit -u`)"
                );
                thread::sleep(ACCEPT_DELAY);
            }
        }
    }
}

/// Starts a client's thread, or rejects the connection if a limit is reached.
fn start_client(
    shared: &Arc<Shared>,
    listener: &Listener,
    socket: TcpStream,
    mut address: SocketAddr,
) -> io::Result<()> {
    address.set_ip(address.ip().to_canonical());
    let (socket, certificate) = (Arc::new(ClientSocket::new(socket)), listener.tls.clone());
    // The limit per address counts a connection from a trusted proxy for the proxy's client, whose
    // address is known only when the request has been read.
    let known = (!shared.site.trusts(address.ip())).then_some(address.ip());
    match shared.connections.admit(socket.clone(), known) {
        Ok(permit) => {
            let shared = shared.clone();
            threads::spawn("handshake", CLIENT_STACK, move || {
                handshake::run(shared, permit, socket, address, certificate.as_deref())
                    .map(handshake::serve)
            })?;
        }
        Err(reached) => {
            warn!("{address} rejected: {reached}");
            if certificate.is_none() {
                request::reject(&socket.stream, reached);
            }
        }
    }
    Ok(())
}

/// An address at which this machine reaches its own listener.
fn loopback_for(mut bound: SocketAddr) -> SocketAddr {
    match bound.ip() {
        IpAddr::V4(ip) if ip.is_unspecified() => bound.set_ip(Ipv4Addr::LOCALHOST.into()),
        IpAddr::V6(ip) if ip.is_unspecified() => bound.set_ip(Ipv6Addr::LOCALHOST.into()),
        _ => {}
    }
    bound
}
