//! The request head on a new connection: a WebSocket upgrade, the call page, or a health check.
//!
//! tungstenite refuses a request that is no upgrade before anybody can answer it, so the head is
//! read here first. One request a connection; a request's body is never read.

use std::fmt;
use std::io::{self, Read, Write};
use std::net::{IpAddr, SocketAddr};
use std::sync::atomic::{AtomicBool, Ordering};

use httparse::Status;
use log::{debug, warn};
use tungstenite::handshake::server::{Request, create_response, write_response};
use tungstenite::http::{HeaderValue, Method, StatusCode, Version, header};

use crate::addresses::Network;
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

/// What a proxy says about where a request comes from.
const FORWARDED_FOR: &str = "x-forwarded-for";

/// The call page's files, and what monitoring asks for: path, content type, content.
const FILES: [(&str, &str, &str); 7] = [
    ("/", HTML, include_str!("../page/index.html")),
    ("/style.css", CSS, include_str!("../page/style.css")),
    ("/icon.svg", SVG, include_str!("../page/icon.svg")),
    ("/main.js", SCRIPT, include_str!("../page/main.js")),
    ("/signaling.js", SCRIPT, include_str!("../page/signaling.js")),
    ("/call.js", SCRIPT, include_str!("../page/call.js")),
    ("/healthz", TEXT, "ok\n"),
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
            Ok(Status::Complete(head)) if head <= MAX_HEAD => match for_tungstenite(&request) {
                Ok(converted) => {
                    let path = request.path.unwrap_or_default().to_string();
                    let early = received.split_off(head);
                    answer(&converted, &path, early, site, slot, address)
                }
                Err(error) => refuse(StatusCode::BAD_REQUEST, error),
            },
            Ok(_) | Err(httparse::Error::TooManyHeaders) => {
                refuse(StatusCode::REQUEST_HEADER_FIELDS_TOO_LARGE, "Request head too large")
            }
            Err(_) => refuse(StatusCode::BAD_REQUEST, "Not an HTTP request"),
        };
    };
    stream.write_all(&response)?;
    Ok(outcome)
}

/// The request as tungstenite takes it, and we too from here on. Its path is left out, since a client
/// may connect with one that is no valid URI.
fn for_tungstenite(parsed: &httparse::Request) -> Result<Request, tungstenite::http::Error> {
    let version = if parsed.version == Some(1) { Version::HTTP_11 } else { Version::HTTP_10 };
    let request = Request::builder().method(parsed.method.unwrap_or_default()).version(version);
    let headers = parsed.headers.iter();
    headers.fold(request, |request, header| request.header(header.name, header.value)).body(())
}

/// The response to a request, and what it means. `early` are the bytes that came behind it.
fn answer(
    request: &Request,
    path: &str,
    early: Vec<u8>,
    site: &Site,
    slot: &mut Slot,
    address: &mut SocketAddr,
) -> (Vec<u8>, Outcome) {
    if let Err(full) = credit_client(request, site, slot, address) {
        debug!("{address} turned away: {full}");
        return refuse(StatusCode::SERVICE_UNAVAILABLE, full);
    }
    let method = request.method();
    let upgrade = request.headers().get(header::UPGRADE);
    if method == Method::GET
        && upgrade.is_some_and(|protocol| protocol.as_bytes().eq_ignore_ascii_case(b"websocket"))
    {
        if !may_connect(request, &site.allow_origin) {
            return refuse(StatusCode::FORBIDDEN, "This page may not connect here");
        }
        return match upgrade_response(request) {
            Ok(response) => (response, Outcome::Upgraded(early)),
            Err(error) => refuse(StatusCode::BAD_REQUEST, error),
        };
    }
    if method != Method::GET && method != Method::HEAD {
        return refuse(StatusCode::METHOD_NOT_ALLOWED, "Only GET and HEAD");
    }
    let (status, content_type, body) = match path.split('?').next().unwrap_or_default() {
        "/config.json" => (StatusCode::OK, JSON, site.settings.as_str()),
        path => match FILES.iter().find(|(name, _, _)| *name == path) {
            Some((_, content_type, content)) => (StatusCode::OK, *content_type, *content),
            None => (StatusCode::NOT_FOUND, TEXT, "Not found\n"),
        },
    };
    let mut response = response(status, content_type, body);
    if method == Method::HEAD {
        response.truncate(response.len() - body.len());
    }
    (response, Outcome::Answered(status.as_u16()))
}

/// Finds out whose request this is when a proxy sent it, and counts the connection as theirs.
fn credit_client(
    request: &Request,
    site: &Site,
    slot: &mut Slot,
    address: &mut SocketAddr,
) -> Result<(), Full> {
    let ip = address.ip();
    if site.trusts(ip) {
        if let Some(client) = last_untrusted_hop(request, site) {
            // Which port the proxy was asked from is not known.
            *address = SocketAddr::new(client, 0);
        }
        // If the proxy did not say, it is one of the proxy's own, or anybody could have no limit.
        slot.assign(address.ip())?;
    } else if is_local(ip)
        && request.headers().contains_key(FORWARDED_FOR)
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
/// may have made up, and it is not read. `None` if there is no such header, or the hops up to there are
/// no addresses.
fn last_untrusted_hop(request: &Request, site: &Site) -> Option<IpAddr> {
    let mut nearest = None;
    for line in request.headers().get_all(FORWARDED_FOR).iter().rev() {
        for hop in line.as_bytes().rsplit(|byte| *byte == b',') {
            let hop = str::from_utf8(hop).ok()?.trim();
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

/// Whether the page that asks for a WebSocket may have one. Browsers say which page it is; a program
/// that is no browser says nothing, and could say anything, so it is let in (RFC 6455, section 10.2).
fn may_connect(request: &Request, allowed: &[String]) -> bool {
    let own = request.headers().get(header::HOST).map_or(&b""[..], HeaderValue::as_bytes);
    let is_allowed = |origin: &HeaderValue| {
        let origin = origin.to_str().unwrap_or_default();
        allowed.iter().any(|allowed| allowed.eq_ignore_ascii_case(origin))
            || origin
                .split_once("://")
                .is_some_and(|(_, host)| own.eq_ignore_ascii_case(host.as_bytes()))
    };
    allowed.is_empty() || request.headers().get_all(header::ORIGIN).iter().all(is_allowed)
}

/// The 101 response. tungstenite checks the request (RFC 6455, section 4.2.1) and computes the
/// accept key. Of the subprotocols that a client offers the first is echoed: browsers drop the
/// connection when none is, and here they all mean the same.
fn upgrade_response(request: &Request) -> tungstenite::Result<Vec<u8>> {
    let mut response = create_response(request)?;
    let offers = request.headers().get_all(header::SEC_WEBSOCKET_PROTOCOL).iter();
    let mut offered = offers
        .flat_map(|value| value.as_bytes().split(|byte| *byte == b','))
        .map(<[u8]>::trim_ascii);
    if let Some(first) = offered.find(|name| !name.is_empty()) {
        let first = HeaderValue::from_bytes(first)?;
        response.headers_mut().insert(header::SEC_WEBSOCKET_PROTOCOL, first);
    }
    let mut bytes = Vec::new();
    write_response(&mut bytes, &response)?;
    Ok(bytes)
}

/// The whole response to a connection for which there is no place.
pub fn unavailable(full: Full) -> Vec<u8> {
    refuse(StatusCode::SERVICE_UNAVAILABLE, full).0
}

fn refuse(status: StatusCode, reason: impl fmt::Display) -> (Vec<u8>, Outcome) {
    (response(status, TEXT, &format!("{reason}\n")), Outcome::Answered(status.as_u16()))
}

fn response(status: StatusCode, content_type: &str, body: &str) -> Vec<u8> {
    let more = match status {
        StatusCode::METHOD_NOT_ALLOWED => "Allow: GET, HEAD\r\n",
        StatusCode::SERVICE_UNAVAILABLE => &format!("Retry-After: {}\r\n", RETRY_AFTER.as_secs()),
        _ => "",
    };
    format!(
        "HTTP/1.1 {status}\r\n\
         Content-Type: {content_type}\r\n\
         Content-Length: {}\r\n\
         Content-Security-Policy: {CONTENT_SECURITY_POLICY}\r\n\
         X-Content-Type-Options: nosniff\r\n\
         Referrer-Policy: no-referrer\r\n\
         Cache-Control: no-cache\r\n\
         Connection: close\r\n\
         {more}\r\n{body}",
        body.len()
    )
    .into_bytes()
}

/// The settings that the call page asks for: the ICE servers; where `https://` is, if anywhere, for
/// the page to name when a browser gives it no camera on plain `http://`; and whether a login needs
/// a token.
pub fn settings(ice_servers: &str, tls_port: Option<u16>, tokens: bool) -> String {
    let tls_port = tls_port.map_or("null".into(), |port| port.to_string());
    format!(r#"{{"iceServers":{ice_servers},"tlsPort":{tls_port},"tokens":{tokens}}}"#)
}
