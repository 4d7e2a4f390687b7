//! The request head on a new connection: a WebSocket upgrade, the call page, or a health check.
//!
//! tungstenite refuses a request that is no upgrade before anybody can answer it, so the head is
//! read here first. One request a connection; a request's body is never read.

use std::io::{self, Read, Write};
use std::net::{IpAddr, SocketAddr};
use std::str;
use std::sync::atomic::{AtomicBool, Ordering};

use httparse::Status;
use log::{info, warn};
use tungstenite::handshake::machine::TryParse;
use tungstenite::handshake::server as upgrade;
use tungstenite::http::HeaderValue;

use crate::config::Network;
use crate::limits::{MAX_HEAD, MAX_HEADERS, RETRY_AFTER};
use crate::slots::{Full, Slot};

/// What the page may do: load and connect to its own server, and nothing else (CSP level 3).
const CONTENT_SECURITY_POLICY: &str = "default-src 'none'; script-src 'self'; style-src 'self'; \
     img-src 'self'; connect-src 'self'; media-src 'self' blob:; base-uri 'none'; \
     form-action 'none'; frame-ancestors 'none'";

const HTML: &str = "text/html; charset=utf-8";
const CSS: &str = "text/css; charset=utf-8";
const SCRIPT: &str = "text/javascript; charset=utf-8";
const SVG: &str = "image/svg+xml";
const JSON: &str = "application/json";
const TEXT: &str = "text/plain; charset=utf-8";

/// The call page's files: path, content type, content.
const PAGE: [(&str, &str, &str); 6] = [
    ("/", HTML, include_str!("page/index.html")),
    ("/style.css", CSS, include_str!("page/style.css")),
    ("/icon.svg", SVG, include_str!("page/icon.svg")),
    ("/main.js", SCRIPT, include_str!("page/main.js")),
    ("/signaling.js", SCRIPT, include_str!("page/signaling.js")),
    ("/call.js", SCRIPT, include_str!("page/call.js")),
];

/// What a new connection turned out to want.
pub enum Outcome {
    /// The upgrade is done. These bytes came behind the request, and belong to the WebSocket.
    Upgraded(Vec<u8>),
    /// An ordinary request, answered with this status.
    Answered(u16),
}

/// What requests get, and what they must show for it.
pub struct Site {
    /// The call page's `config.json`, as [`settings`] makes it.
    pub settings: String,
    /// The pages that may open a WebSocket from a browser, besides our own; empty for all.
    pub allow_origin: Vec<String>,
    /// Whose word counts about where a request comes from.
    pub trust_proxy: Vec<Network>,
    /// Set when the log has said that this looks like a proxy.
    pub proxy_hinted: AtomicBool,
}

impl Site {
    /// Whether this address is a proxy that tells the truth.
    pub fn trusts(&self, ip: IpAddr) -> bool {
        self.trust_proxy.iter().any(|network| network.contains(ip))
    }
}

/// Reads one request and answers it. If `address` is that of a trusted proxy, it becomes the
/// client's, and `slot` counts as one of the client's.
///
/// # Errors
/// The client went, or ran out of time.
pub fn serve(
    stream: &mut (impl Read + Write),
    site: &Site,
    slot: &mut Slot,
    address: &mut SocketAddr,
) -> io::Result<Outcome> {
    let mut received = Vec::new();
    let (response, outcome) = loop {
        let mut chunk = [0; 1024];
        let count = stream.read(&mut chunk)?;
        if count == 0 {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
        received.extend_from_slice(chunk.get(..count).unwrap_or_default());
        let mut headers = [httparse::EMPTY_HEADER; MAX_HEADERS];
        let mut request = httparse::Request::new(&mut headers);
        break match request.parse(&received) {
            Ok(Status::Partial) if received.len() < MAX_HEAD => continue,
            Ok(Status::Complete(head)) if head <= MAX_HEAD => {
                match find_client(&request, site, slot, address) {
                    Ok(()) => answer(&request, &received, head, site),
                    Err(full) => {
                        info!("{address} turned away: {full}");
                        (unavailable(full), Outcome::Answered(503))
                    }
                }
            }
            Ok(_) | Err(httparse::Error::TooManyHeaders) => refuse(431, "Request head too large"),
            Err(_) => refuse(400, "Not an HTTP request"),
        };
    };
    stream.write_all(&response)?;
    Ok(outcome)
}

/// Finds out whose request this is when a proxy sent it.
fn find_client(
    request: &httparse::Request,
    site: &Site,
    slot: &mut Slot,
    address: &mut SocketAddr,
) -> Result<(), Full> {
    let ip = address.ip();
    if site.trusts(ip) {
        if let Some(client) = last_untrusted_hop(request, site) {
            // Which port the proxy was asked from is not known.
            *address = SocketAddr::new(client, 0);
            slot.assign(client)?;
        }
    } else if is_local(ip)
        && headers(request, "x-forwarded-for").next().is_some()
        && !site.proxy_hinted.swap(true, Ordering::Relaxed)
    {
        warn!(
            "a request from {ip} has X-Forwarded-For, so that looks like a proxy, and all of its \
             clients share one address's limits; if it is yours, add: --trust-proxy {ip}"
        );
    }
    Ok(())
}

/// The nearest hop of `X-Forwarded-For` that is not a proxy of ours: what lies beyond it, the client
/// may have made up. `None` if there is no such header, or if it is not understood up to there.
fn last_untrusted_hop(request: &httparse::Request, site: &Site) -> Option<IpAddr> {
    let mut nearest = None;
    let lines: Vec<&[u8]> = headers(request, "x-forwarded-for").collect();
    for line in lines.into_iter().rev() {
        for hop in str::from_utf8(line).ok()?.rsplit(',').map(str::trim) {
            let address = hop.parse::<SocketAddr>().map(|address| address.ip());
            let ip = address.or_else(|_| hop.trim_matches(['[', ']']).parse()).ok()?;
            nearest = Some(ip);
            if !site.trusts(ip) {
                return nearest;
            }
        }
    }
    nearest
}

/// Whether an address belongs to this machine or a private network (RFC 1918, RFC 4193).
fn is_local(ip: IpAddr) -> bool {
    match ip.to_canonical() {
        IpAddr::V4(ip) => ip.is_loopback() || ip.is_private() || ip.is_link_local(),
        IpAddr::V6(ip) => ip.is_loopback() || ip.is_unique_local() || ip.is_unicast_link_local(),
    }
}

/// The response to a whole head, `received[..head]`, and what it means.
fn answer(
    request: &httparse::Request,
    received: &[u8],
    head: usize,
    site: &Site,
) -> (Vec<u8>, Outcome) {
    if request.method == Some("GET")
        && let Some(protocol) = header(request, "upgrade")
        && protocol.eq_ignore_ascii_case("websocket")
    {
        if !may_connect(request, &site.allow_origin) {
            return refuse(403, "This page may not connect here");
        }
        let (head, rest) = received.split_at_checked(head).unwrap_or_default();
        return match upgrade_response(request, head) {
            Ok(response) => (response, Outcome::Upgraded(rest.to_vec())),
            Err(error) => refuse(400, &error.to_string()),
        };
    }
    let with_body = match request.method {
        Some("GET") => true,
        Some("HEAD") => false,
        _ => return refuse(405, "Only GET and HEAD"),
    };
    let path = request.path.unwrap_or_default().split('?').next().unwrap_or_default();
    let (status, content_type, body) = match path {
        "/healthz" => (200, TEXT, "ok\n"),
        "/config.json" => (200, JSON, site.settings.as_str()),
        path => match PAGE.iter().find(|(name, _, _)| *name == path) {
            Some((_, content_type, body)) => (200, *content_type, *body),
            None => (404, TEXT, "Not found\n"),
        },
    };
    (response(status, content_type, body, with_body), Outcome::Answered(status))
}

/// Whether the page that asks for a WebSocket may have one. Browsers say which page it is; a program
/// that is no browser says nothing, and could say anything, so it is let in (RFC 6455, section 10.2).
fn may_connect(request: &httparse::Request, allowed: &[String]) -> bool {
    allowed.is_empty()
        || headers(request, "origin").all(|origin| {
            let Ok(origin) = str::from_utf8(origin) else {
                return false;
            };
            let own = header(request, "host").unwrap_or_default();
            let host = origin.split_once("://").map(|(_, host)| host);
            host.is_some_and(|host| host.eq_ignore_ascii_case(own))
                || allowed.iter().any(|allowed| allowed.eq_ignore_ascii_case(origin))
        })
}

/// The 101 response. tungstenite checks the request (RFC 6455, section 4.2.1) and computes the
/// accept key. Of the subprotocols that a client offers the first is echoed: browsers drop the
/// connection when none is, and here they all mean the same.
fn upgrade_response(request: &httparse::Request, head: &[u8]) -> tungstenite::Result<Vec<u8>> {
    let Some((_, parsed)) = upgrade::Request::try_parse(head)? else {
        return Err(tungstenite::error::ProtocolError::HandshakeIncomplete.into());
    };
    let mut response = upgrade::create_response(&parsed)?;
    let mut offered = headers(request, "sec-websocket-protocol")
        .flat_map(|value| value.split(|byte| *byte == b','))
        .map(<[u8]>::trim_ascii);
    if let Some(first) = offered.find(|name| !name.is_empty()) {
        response.headers_mut().insert("Sec-WebSocket-Protocol", HeaderValue::from_bytes(first)?);
    }
    let mut bytes = Vec::new();
    upgrade::write_response(&mut bytes, &response)?;
    Ok(bytes)
}

/// The whole response to a connection for which there is no place.
pub fn unavailable(full: Full) -> Vec<u8> {
    response(503, TEXT, &format!("{full}\n"), true)
}

fn refuse(status: u16, reason: &str) -> (Vec<u8>, Outcome) {
    (response(status, TEXT, &format!("{reason}\n"), true), Outcome::Answered(status))
}

fn response(status: u16, content_type: &str, body: &str, with_body: bool) -> Vec<u8> {
    let reason = match status {
        200 => "OK",
        400 => "Bad Request",
        403 => "Forbidden",
        404 => "Not Found",
        405 => "Method Not Allowed",
        431 => "Request Header Fields Too Large",
        503 => "Service Unavailable",
        _ => "",
    };
    let mut text = format!(
        "HTTP/1.1 {status} {reason}\r\n\
         Content-Type: {content_type}\r\n\
         Content-Length: {}\r\n\
         Content-Security-Policy: {CONTENT_SECURITY_POLICY}\r\n\
         X-Content-Type-Options: nosniff\r\n\
         Referrer-Policy: no-referrer\r\n\
         Cache-Control: no-cache\r\n\
         Connection: close\r\n",
        body.len()
    );
    match status {
        405 => text.push_str("Allow: GET, HEAD\r\n"),
        503 => text.push_str(&format!("Retry-After: {}\r\n", RETRY_AFTER.as_secs())),
        _ => {}
    }
    text.push_str("\r\n");
    if with_body {
        text.push_str(body);
    }
    text.into_bytes()
}

/// The settings that the call page asks for: the ICE servers; where `https://` is, if anywhere, for
/// the page to name when a browser gives it no camera on plain `http://`; and whether a login needs
/// a token.
pub fn settings(ice_servers: &str, tls_port: Option<u16>, tokens: bool) -> String {
    let tls_port = tls_port.map_or("null".into(), |port| port.to_string());
    format!(r#"{{"iceServers":{ice_servers},"tlsPort":{tls_port},"tokens":{tokens}}}"#)
}

/// All values of a header.
fn headers<'r>(request: &'r httparse::Request, name: &str) -> impl Iterator<Item = &'r [u8]> {
    request
        .headers
        .iter()
        .filter(move |header| header.name.eq_ignore_ascii_case(name))
        .map(|header| header.value)
}

/// A header's text; `None` also when it is not UTF-8.
fn header<'r>(request: &'r httparse::Request, name: &str) -> Option<&'r str> {
    headers(request, name).next().and_then(|value| str::from_utf8(value).ok())
}
