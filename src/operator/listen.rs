//! The ports: opening them, and saying where clients can connect.

use std::io::{self, IsTerminal};
use std::net::{IpAddr, SocketAddr, TcpListener, UdpSocket};
use std::sync::Arc;

use log::info;
use socket2::{Domain, Socket, Type};

use crate::limits::{BACKLOG, SOCKET_BUFFER};
use crate::operator::config::Config;
use crate::operator::tls::CertificateFiles;
use crate::qr;

/// A bound port, plain or with TLS.
pub struct Listener {
    /// Accepts connections.
    pub socket: TcpListener,
    /// Where it is bound, with the port that the system chose if 0 was asked for.
    pub address: SocketAddr,
    /// What TLS handshakes need; `None` for a plain port.
    pub tls: Option<Arc<CertificateFiles>>,
}

/// Binds the ports that `config` asks for, the one for TLS only if there is a certificate.
///
/// # Errors
/// A sentence for the operator: a port can't be bound.
pub fn bind(
    config: &Config,
    certificate: Option<Arc<CertificateFiles>>,
) -> Result<Vec<Listener>, String> {
    let mut listeners = Vec::new();
    if !config.listen.is_empty() {
        listeners.push(bind_first(&config.listen, None)?);
    }
    if certificate.is_some() {
        listeners.push(bind_first(&config.tls_listen, certificate)?);
    }
    Ok(listeners)
}

/// Binds the first of these addresses that can be bound.
fn bind_first(
    addresses: &[SocketAddr],
    tls: Option<Arc<CertificateFiles>>,
) -> Result<Listener, String> {
    let option = if tls.is_some() { "--tls-listen" } else { "--listen" };
    let mut problem = String::new();
    for address in addresses {
        let error = match open(*address).and_then(|socket| Ok((socket.local_addr()?, socket))) {
            Ok((address, socket)) => return Ok(Listener { socket, address, tls }),
            Err(error) => error,
        };
        let remedy = match error.kind() {
            io::ErrorKind::AddrInUse => "choose another port",
            io::ErrorKind::PermissionDenied => {
                "allow the port in the systemd unit: SocketBindAllow=, and below 1024 \
                 AmbientCapabilities=CAP_NET_BIND_SERVICE"
            }
            _ => "choose an address of this machine",
        };
        problem = format!("cannot listen on {address}: {error} ({option}: {remedy})");
        if error.kind() == io::ErrorKind::AddrInUse {
            // Another program has the port. If the other address family were bound instead, each
            // program would get some of the clients.
            break;
        }
    }
    Err(problem)
}

/// Listens on an address. Accepted sockets inherit these settings.
fn open(address: SocketAddr) -> io::Result<TcpListener> {
    let socket = Socket::new(Domain::for_address(address), Type::STREAM, None)?;
    if cfg!(unix) {
        // Without it, a restart fails while connections of the last run are in TIME-WAIT.
        socket.set_reuse_address(true)?;
    }
    if address.is_ipv6() {
        socket.set_only_v6(false)?; // `[::]` accepts IPv4 too, whatever the system's default.
    }
    socket.set_send_buffer_size(SOCKET_BUFFER)?;
    socket.set_recv_buffer_size(SOCKET_BUFFER)?;
    socket.bind(&address.into())?;
    socket.listen(BACKLOG)?;
    Ok(socket.into())
}

/// Logs where clients can connect.
pub fn announce(listener: &Listener) {
    let Listener { address, tls, .. } = listener;
    let port = address.port();
    if tls.is_none() {
        info!("listening on ws://{address}");
        // Browsers allow the camera on https:// and on localhost only.
        if address.ip().is_unspecified() || address.ip().is_loopback() {
            info!("on this machine, open http://localhost:{port}/");
        }
        return;
    }
    info!("listening on wss://{address}");
    let addresses = local_addresses(address.ip());
    for ip in &addresses {
        info!("on a phone in this network, open https://{}/", SocketAddr::new(*ip, port));
    }
    if let Some(ip) = addresses.first()
        && io::stderr().is_terminal()
    {
        eprint!("{}", qr::terminal(&format!("https://{}/", SocketAddr::new(*ip, port))));
    }
}

/// This machine's addresses on its networks, at which others reach a listener bound to `bound`. The
/// first one is the default route's.
pub fn local_addresses(bound: IpAddr) -> Vec<IpAddr> {
    if bound.is_loopback() {
        return vec![];
    }
    if !bound.is_unspecified() {
        return vec![bound];
    }
    // The standard library cannot list interfaces. Connecting a UDP socket sends nothing, but makes
    // the system choose a source address: for the default route (192.0.2.1 is reserved, RFC 5737),
    // and for two private networks, which may be reachable without a default route.
    let source = |destination| {
        let socket = UdpSocket::from(Socket::new(Domain::IPV4, Type::DGRAM, None)?);
        socket.connect((destination, 9))?;
        socket.local_addr()
    };
    let mut found = Vec::new();
    for address in ["192.0.2.1", "192.168.0.1", "10.0.0.1"].into_iter().flat_map(source) {
        if !address.ip().is_loopback() && !found.contains(&address.ip()) {
            found.push(address.ip());
        }
    }
    found
}
