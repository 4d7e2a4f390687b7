//! Accepting, starting clients' threads, and stopping.
//!
//! The accept loop never does I/O with a client and never ends because of one.

use std::fmt;
use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, TcpStream};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::Receiver;
use std::thread;
use std::time::{Duration, Instant};

use log::{info, warn};
use parking_lot::Mutex;

use crate::client::{self, Client, Shared};
use crate::limits::{
    ACCEPT_PAUSE, ACCEPT_WAKE, CLIENT_STACK, COMPLAINT_PAUSE, FLOOD_PAUSE, Timeouts,
};
use crate::operator::config::Config;
use crate::operator::files::OperatorFiles;
use crate::operator::listen::{Listener, announce, local_addresses};
use crate::operator::tls::CertificateFiles;
use crate::rates::Gate;
use crate::registry::Registry;
use crate::slots::Slots;
use crate::web::request::{self as http, Site};

/// Serves until `shutdown` gets a message (or loses its sender), then stops: no new connections,
/// a close frame (1001) for every client, and up to `timeouts.stop` for the threads to end.
///
/// # Errors
/// A sentence for the operator: no thread could be started to accept connections.
pub fn run(
    listeners: Vec<Listener>,
    files: OperatorFiles,
    config: &Config,
    timeouts: Timeouts,
    shutdown: &Receiver<()>,
) -> Result<(), String> {
    let OperatorFiles { users, turn, ice_servers, .. } = files;
    let addresses = listeners.last().map(|l| local_addresses(l.address.ip())).unwrap_or_default();
    let tls_port = listeners.iter().find(|l| l.tls.is_some()).map(|l| l.address.port());
    let limits = config.limits;
    let shared = Arc::new(Shared {
        registry: Registry::default(),
        slots: Slots::new(limits),
        limits,
        floods: Gate::new(FLOOD_PAUSE),
        endings: Gate::new(Duration::ZERO),
        timeouts,
        site: Site {
            settings: crate::web::page::settings(
                &ice_servers,
                tls_port,
                users.is_some(),
                &addresses,
            ),
            allow_origin: config.allow_origin.clone(),
            trust_proxy: config.trust_proxy.clone(),
        },
        users,
        turn,
        stopping: AtomicBool::new(false),
    });

    let mut accepting = Vec::new();
    for listener in listeners {
        let address = listener.address;
        announce(&listener);
        let shared = shared.clone();
        let name = format!("accept {}", address.port());
        let thread = thread::Builder::new()
            .name(name)
            .spawn(move || accept(&listener, &shared))
            .map_err(|error| format!("cannot start a thread: {error}"))?;
        accepting.push((address, thread));
    }

    // An error means that nobody can ever ask us to stop, which is the same as being asked.
    let _ = shutdown.recv();
    info!("stopping, {} connections open", shared.slots.count());
    // Relaxed here and elsewhere: a flag alone, which says nothing about any other data.
    shared.stopping.store(true, Ordering::Relaxed);
    for (address, thread) in accepting {
        // `accept` has no timeout: a connection from ourselves wakes it. If that can't be made, the
        // thread is left behind, and ends with the process.
        if TcpStream::connect_timeout(&reachable(address), ACCEPT_WAKE).is_ok() {
            let _ = thread.join();
        }
    }
    shared.slots.wake_all();
    if shared.slots.wait_until_empty(shared.timeouts.stop) {
        info!("stopped");
    } else {
        warn!("stopped, with {} connections not yet closed", shared.slots.count());
    }
    Ok(())
}

/// Accepts connections until the server stops, and starts a thread for each.
fn accept(listener: &Listener, shared: &Arc<Shared>) {
    let mut complaints = Complaints::default();
    loop {
        let accepted = listener.socket.accept();
        if shared.stopping.load(Ordering::Relaxed) {
            return;
        }
        let started = match accepted {
            Ok((socket, mut address)) => {
                address.set_ip(address.ip().to_canonical());
                start_client(shared, socket, address, listener.tls.clone())
                    .map_err(|error| (error, "threads: TasksMax= in the systemd unit, `ulimit -u`"))
            }
            // It is the client that has gone again.
            Err(error) if is_clients_own(&error) => continue,
            Err(error) => Err((error, "files: LimitNOFILE= in the systemd unit, `ulimit -n`")),
        };
        match started {
            // Lets the new thread go first, or a crowd of them would wait for the processor at once.
            Ok(None) => thread::yield_now(),
            Ok(Some(refusal)) => complaints.log(&refusal),
            Err((error, what)) => {
                complaints.log(&format_args!(
                    "cannot take a connection: {error}; lower --max-connections, or allow more {what}"
                ));
                thread::sleep(ACCEPT_PAUSE);
            }
        }
    }
}

/// Whether `accept` failed for something that a client did, as some systems say it.
fn is_clients_own(error: &io::Error) -> bool {
    use io::ErrorKind::{ConnectionAborted, ConnectionReset, Interrupted};
    matches!(error.kind(), ConnectionAborted | ConnectionReset | Interrupted)
}

/// Starts the thread of a client, or says why there is no place for it.
fn start_client(
    shared: &Arc<Shared>,
    socket: TcpStream,
    address: SocketAddr,
    tls: Option<Arc<CertificateFiles>>,
) -> io::Result<Option<String>> {
    let socket = Arc::new(socket);
    let slot = shared.slots.take(socket.clone()).and_then(|mut slot| {
        // For whom a proxy asks, its request will say.
        if !shared.site.trusts(address.ip()) {
            slot.assign(address.ip())?;
        }
        Ok(slot)
    });
    let slot = match slot {
        Ok(slot) => slot,
        Err(full) => {
            if tls.is_none() {
                http::reject(&socket, full);
            }
            return Ok(Some(format!("{address} turned away: {full}")));
        }
    };
    let shared = shared.clone();
    spawn("login", move || {
        let client = client::shake_hands(&shared, slot, socket, address, tls.as_deref());
        if let Some(client) = client.and_then(Client::until_login) {
            serve_on_fresh_thread(client);
        }
    })?;
    Ok(None)
}

/// Serves a client who has logged in. The handshakes and the login go deep, and a thread keeps what it
/// has once touched of its stack. So what comes now, which can last for days, gets a fresh thread; if
/// there is none to be had, it stays on this one.
fn serve_on_fresh_thread(client: Box<Client>) {
    // A thread that can't be started drops its closure, so the client is not in there but in a place
    // that both share. (A channel would read better, and cost each client 0.9 KiB of stack, measured.)
    let handed_over = Arc::new(Mutex::new(Some(client)));
    let serve = move || {
        let client = handed_over.lock().take();
        if let Some(client) = client {
            client.serve();
        }
    };
    if spawn("client", serve.clone()).is_err() {
        serve();
    }
}

/// Starts a thread. (`thread::spawn` would panic when the system has none left.)
fn spawn(name: &str, work: impl FnOnce() + Send + 'static) -> io::Result<()> {
    thread::Builder::new().name(name.into()).stack_size(CLIENT_STACK).spawn(work)?;
    Ok(())
}

/// What the accept loop has to say, at most once in [`COMPLAINT_PAUSE`]: a flood of connections must
/// not become a flood of lines.
#[derive(Default)]
struct Complaints {
    last: Option<Instant>,
    unsaid: usize,
}

impl Complaints {
    fn log(&mut self, complaint: &dyn fmt::Display) {
        let now = Instant::now();
        if self.last.is_some_and(|last| now - last < COMPLAINT_PAUSE) {
            self.unsaid += 1;
            return;
        }
        match self.unsaid {
            0 => warn!("{complaint}"),
            unsaid => warn!("{complaint} (and {unsaid} more since the last such line)"),
        }
        *self = Complaints { last: Some(now), unsaid: 0 };
    }
}

/// An address at which this machine reaches its own listener.
fn reachable(mut bound: SocketAddr) -> SocketAddr {
    match bound.ip() {
        IpAddr::V4(ip) if ip.is_unspecified() => bound.set_ip(Ipv4Addr::LOCALHOST.into()),
        IpAddr::V6(ip) if ip.is_unspecified() => bound.set_ip(Ipv6Addr::LOCALHOST.into()),
        _ => {}
    }
    bound
}
