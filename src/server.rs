//! Accepting, starting clients' threads, and stopping.
//!
//! The accept loop never does I/O with a client and never ends because of one.

use std::fmt;
use std::fs;
use std::io::{self, Read, Write};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, Shutdown, SocketAddr, TcpStream};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::Receiver;
use std::thread;
use std::time::{Duration, Instant};

use log::{Level, info, warn};
use parking_lot::Mutex;
use serde::de::IgnoredAny;

use crate::client::{self, Client, Shared};
use crate::limits::{
    ACCEPT_PAUSE, ACCEPT_WAKE, CLIENT_STACK, COMPLAINT_PAUSE, FLOOD_PAUSE, Limits, OWN_DESCRIPTORS,
    Timeouts,
};
use crate::operator::config::Config;
use crate::operator::listen::{Listener, announce, certificate};
use crate::operator::tls::Certificate;
use crate::operator::turn::Turn;
use crate::operator::users::Users;
use crate::rates::Gate;
use crate::registry::Registry;
use crate::slots::{Full, Slots};
use crate::systemd;
use crate::web::request::{self as http, Site};

/// What `--check` prints: all that a start reads, without opening a port, since those may be a
/// running server's.
///
/// # Errors
/// A sentence for the operator: what keeps the server from starting, or browsers from trusting it.
pub fn check(config: &Config) -> Result<String, String> {
    let mut report = String::new();
    let mut add = |line: String| report.push_str(&(line + "\n"));
    let ports = |addresses: &[SocketAddr]| {
        addresses.iter().map(ToString::to_string).collect::<Vec<_>>().join(", or else ")
    };
    let certificate = certificate(config)?;
    if !config.listen.is_empty() {
        add(format!("ws:// and http:// on {}", ports(&config.listen)));
    }
    if let Some(certificate) = certificate {
        add(format!("wss:// and https:// on {}", ports(&config.tls_listen)));
        match certificate.validity() {
            (Level::Error, problem) => return Err(problem),
            (_, validity) => add(validity + "; its key is PKCS#8 and belongs to it"),
        }
    }
    let servers = serde_json::from_str::<Vec<IgnoredAny>>(&config.ice_servers).unwrap_or_default();
    add(format!("{} STUN and TURN servers", servers.len()));
    if let Some(users) = config.users.as_deref().map(Users::open).transpose()? {
        add(format!("{} users may log in", users.count()));
    }
    if config.turn.as_ref().map(Turn::load).transpose()?.is_some() {
        add("a TURN server, for whoever has logged in".into());
    }
    let limits = fit_to_descriptors(config.limits);
    if let Some(memory) = limits.worst_case() {
        let mib = memory.total.div_ceil(1024 * 1024);
        add(format!("{} connections, {mib} MiB in the worst case", limits.max_connections));
    }
    Ok(report)
}

/// Serves until `shutdown` gets a message (or loses its sender), then stops: no new connections,
/// a close frame (1001) for every client, and up to `timeouts.stop` for the threads to end.
///
/// # Errors
/// A sentence for the operator: the users file or the TURN secret is not usable, or no thread could
/// be started to accept connections.
pub fn run(
    listeners: Vec<Listener>,
    config: &Config,
    timeouts: Timeouts,
    shutdown: &Receiver<()>,
) -> Result<(), String> {
    let users = config.users.as_deref().map(Users::open).transpose()?;
    let turn = config.turn.as_ref().map(Turn::load).transpose()?;
    if let Some(users) = &users {
        info!("{} users may log in", users.count());
    } else if turn.is_some() {
        warn!("--turn without --users: everybody who can connect may use the TURN server");
    }
    let tls_port = listeners.iter().find(|l| l.tls.is_some()).map(|l| l.address.port());
    let limits = fit_to_descriptors(config.limits);
    let shared = Arc::new(Shared {
        registry: Registry::default(),
        slots: Slots::new(limits),
        limits,
        floods: Gate::new(FLOOD_PAUSE),
        endings: Gate::new(Duration::ZERO),
        timeouts,
        site: Site {
            settings: http::settings(&config.ice_servers, tls_port, users.is_some()),
            allow_origin: config.allow_origin.clone(),
            trust_proxy: config.trust_proxy.clone(),
            proxy_hinted: AtomicBool::new(false),
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
    systemd::notify("READY=1");

    // An error means that nobody can ever ask us to stop, which is the same as being asked.
    let _ = shutdown.recv();
    systemd::notify("STOPPING=1");
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

/// Lowers the number of connections, if it has a limit, to what the process may open files for: better
/// to turn clients away with a word than to fail to accept them.
fn fit_to_descriptors(mut limits: Limits) -> Limits {
    // There is no way to ask the system for it without `unsafe`; Linux also writes it down.
    let Some(files) = fs::read_to_string("/proc/self/limits").ok().and_then(|text| {
        let line = text.lines().find_map(|line| line.strip_prefix("Max open files"))?;
        line.split_whitespace().next()?.parse::<usize>().ok()
    }) else {
        return limits;
    };
    let wanted = limits.max_connections;
    let possible = files.saturating_sub(OWN_DESCRIPTORS).max(1);
    if wanted != usize::MAX && wanted > possible {
        let needed = wanted.saturating_add(OWN_DESCRIPTORS);
        warn!(
            "this process may open {files} files, so --max-connections is {possible} instead of \
             {wanted}; for all of them, run `ulimit -n {needed}` before it, or set \
             LimitNOFILE={needed} in its systemd unit"
        );
        limits.max_connections = possible;
    }
    limits
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
    tls: Option<Arc<Certificate>>,
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
                turn_away(&socket, full);
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

/// Answers 503 without waiting for anything. The response fits an empty send buffer; if the request
/// is not there yet, the client may see a reset instead of it.
fn turn_away(mut socket: &TcpStream, full: Full) {
    let mut request = [0; 1024];
    let _ = socket
        .set_nonblocking(true)
        .and_then(|()| socket.write(&http::unavailable(full)))
        .and_then(|_| socket.shutdown(Shutdown::Write))
        .and_then(|()| socket.read(&mut request));
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
