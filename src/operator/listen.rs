//! The ports: opening them, and saying where clients can connect.

use std::io;
use std::net::{IpAddr, SocketAddr, TcpListener, UdpSocket};
use std::sync::Arc;

use log::{info, log};
use socket2::{Domain, Socket, Type};

use crate::limits::{BACKLOG, SOCKET_BUFFER};
use crate::operator::config::{CertificateFiles, Config};
use crate::operator::tls::Certificate;

/// A bound port, plain or with TLS.
pub struct Listener {
    /// What accepts connections.
    pub socket: TcpListener,
    /// Where it is bound, the port resolved if 0 was asked for.
    pub address: SocketAddr,
    /// What a handshake needs, if it is with TLS.
    pub tls: Option<Arc<Certificate>>,
}

/// Loads the certificate and binds the ports that `config` asks for.
///
/// # Errors
/// A sentence for the operator: the certificate is not usable, or a port can't be had.
pub fn bind(config: &Config) -> Result<Vec<Listener>, String> {
    let certificate = certificate(config)?;
    let mut listeners = Vec::new();
    if !config.listen.is_empty() {
        listeners.push(bind_first(&config.listen, None)?);
    }
    if let Some(certificate) = certificate {
        listeners.push(bind_first(&config.tls_listen, Some(Arc::new(certificate)))?);
    }
    Ok(listeners)
}

/// The certificate; `None` if there is to be no TLS.
///
/// # Errors
/// A sentence for the operator: it is not usable, or without it there is nothing to listen on.
pub fn certificate(config: &Config) -> Result<Option<Certificate>, String> {
    let CertificateFiles { cert, key } = &config.certificate;
    if config.tls_listen.is_empty() {
        return Ok(None);
    }
    if config.tls_required || cert.exists() || key.exists() {
        return Certificate::load(&config.certificate).map(Some);
    }
    if config.listen.is_empty() {
        return Err("--listen is off and there is no certificate: nothing to listen on".into());
    }
    let cert = cert.display();
    info!("no wss:// and https://, for want of {cert}; to make it, run: sh certs/generate.sh");
    Ok(None)
}

/// Binds the first of the addresses that can be had.
fn bind_first(addresses: &[SocketAddr], tls: Option<Arc<Certificate>>) -> Result<Listener, String> {
    let option = if tls.is_some() { "--tls-listen" } else { "--listen" };
    let mut problem = String::new();
    for address in addresses {
        let error = match open(*address).and_then(|socket| Ok((socket.local_addr()?, socket))) {
            Ok((address, socket)) => return Ok(Listener { socket, address, tls }),
            Err(error) => error,
        };
        let remedy = match error.kind() {
            // The second family would say the same.
            io::ErrorKind::AddrInUse => {
                return Err(format!(
                    "cannot listen on {address}: the port is in use; choose another with {option}"
                ));
            }
            io::ErrorKind::PermissionDenied => {
                "; choose a port from 1024 on, or allow this one with \
                 AmbientCapabilities=CAP_NET_BIND_SERVICE in the systemd unit, or with \
                 `setcap cap_net_bind_service=+ep` on the program"
            }
            io::ErrorKind::AddrNotAvailable => "; this machine has no such address (now)",
            _ => "",
        };
        problem = format!("cannot listen on {address}: {error}{remedy}");
    }
    Err(problem)
}

/// Listens on an address. What is set here, accepted sockets inherit.
fn open(address: SocketAddr) -> io::Result<TcpListener> {
    let socket = Socket::new(Domain::for_address(address), Type::STREAM, None)?;
    if cfg!(unix) {
        // Or a restart would have to wait until the former connections' ports are forgotten.
        socket.set_reuse_address(true)?;
    }
    if address.is_ipv6() {
        socket.set_only_v6(false)?; // `[::]` is IPv4 as well, whatever the system's default.
    }
    socket.set_send_buffer_size(SOCKET_BUFFER)?;
    socket.set_recv_buffer_size(SOCKET_BUFFER)?;
    socket.bind(&address.into())?;
    socket.listen(BACKLOG)?;
    Ok(socket.into())
}

/// Logs where clients can connect.
pub fn announce(Listener { address, tls, .. }: &Listener) {
    let Some(certificate) = tls else {
        info!("listening on ws://{address}");
        // Browsers give a page the camera on https:// and on localhost only.
        if address.ip().is_unspecified() || address.ip().is_loopback() {
            info!("on this machine, open http://localhost:{}/", address.port());
        }
        return;
    };
    info!("listening on wss://{address}");
    let (level, validity) = certificate.validity();
    log!(level, "{validity}");
    for ip in local_addresses(address.ip()) {
        info!("on a phone in this network, open https://{}/", SocketAddr::new(ip, address.port()));
    }
}

/// The addresses by which others on the network reach a listener that is bound to `bound`.
///
/// The standard library can't list interfaces. But connecting a UDP socket, which sends nothing,
/// makes the system choose the address that it would send from: asked about destinations in each
/// of the usual private networks and beyond, it names the ones that matter.
fn local_addresses(bound: IpAddr) -> Vec<IpAddr> {
    if !bound.is_unspecified() {
        return if bound.is_loopback() { vec![] } else { vec![bound] };
    }
    let destinations = [
        "192.0.2.1", // RFC 5737: documentation, so the default route
        "192.168.0.1",
        "10.0.0.1",
        "172.16.0.1",
        "169.254.0.1", // a network without DHCP
        "2001:db8::1", // RFC 3849: documentation
    ];
    let mut found = Vec::new();
    for destination in destinations {
        let any = if destination.contains(':') { "[::]:0" } else { "0.0.0.0:0" };
        let source = UdpSocket::bind(any).and_then(|socket| {
            socket.connect((destination, 9))?;
            Ok(socket.local_addr()?.ip())
        });
        if let Ok(ip) = source
            && (ip.is_ipv4() || bound.is_ipv6())
            && !(ip.is_loopback() || ip.is_unspecified() || found.contains(&ip))
        {
            found.push(ip);
        }
    }
    found
}
