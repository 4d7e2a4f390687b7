//! The request on a new connection: a WebSocket upgrade, a file of the call page, a health check.
//!
//! tungstenite rejects a request that is not an upgrade, and leaves no way to answer it. So the
//! request's head is read here first. A connection carries one request, whose body is never read.

use std::io::{self, Read, Write};
use std::net::{IpAddr, Shutdown, SocketAddr, TcpStream};

use httparse::Status;
use tungstenite::handshake::server::{Request, create_response, write_response};
use tungstenite::http::{HeaderMap, HeaderName, HeaderValue, Method, StatusCode, Version, header};

use crate::addresses::Network;
use crate::limits::{HEAD_CHUNK, MAX_HEAD, MAX_HEADERS, RETRY_AFTER};
use crate::peerjs;
use crate::web::page::{self, TEXT};

/// What the page may do: load from and connect to its own server, and nothing else (CSP level 3).
const CONTENT_SECURITY_POLICY: &str = "default-src 'none'; script-src 'self'; style-src 'self'; \
     img-src 'self'; connect-src 'self'; media-src 'self' blob:; base-uri 'none'; \
     form-action 'none'; frame-ancestors 'none'";

const FORWARDED_FOR: HeaderName = HeaderName::from_static("x-forwarded-for");

/// How requests are answered.
#[derive(Default)]
pub struct Site {
    /// The call page's `config.json`, as [`page::settings`] makes it.
    pub settings: String,
    /// Origins whose pages may open a WebSocket, besides the server's own; empty for all.
    pub allow_origin: Vec<String>,
    /// Proxies whose `X-Forwarded-For` is believed.
    pub trust_proxy: Vec<Network>,
    /// The key of PeerJS clients; `None` if they are not served.
    pub peerjs: Option<String>,
}

impl Site {
    /// Whether this address is a proxy whose `X-Forwarded-For` is believed.
    pub fn trusts(&self, ip: IpAddr) -> bool {
        self.trust_proxy.iter().any(|network| network.contains(ip))
    }
}

/// What a request was for.
pub enum Outcome {
    /// A WebSocket: its first bytes, which came with the request, at most [`HEAD_CHUNK`]; and the
    /// query of its URL if this is a PeerJS client's.
    Upgraded(Vec<u8>, Option<String>),
    /// Anything else, answered with this status.
    Answered(u16),
}

/// A request's head, as far as it matters here.
struct Head {
    /// Without the path, because clients may connect with one that is not a valid URI.
    request: Request,
    path: String,
    /// The path as it was sent, with the query.
    target: String,
    /// The name and port of this server, as the client knows it.
    host: String,
    length: usize,
}

/// A status and a reason in words, instead of what the client asked for.
type Refusal = (StatusCode, String);

/// Reads one request and answers it. `tls` says whether this server encrypts the stream.
///
/// Also returns the client's address. If `peer` is a trusted proxy, this is the address that the
/// proxy names, with port 0; `assign` is called with that address, and can refuse the connection with
/// a reason (503).
///
/// # Errors
/// The client closed the stream, or ran out of time.
pub fn serve(
    stream: &mut (impl Read + Write),
    site: &Site,
    tls: bool,
    peer: SocketAddr,
    assign: &mut dyn FnMut(IpAddr) -> Result<(), &'static str>,
) -> io::Result<(SocketAddr, Outcome)> {
    let mut client = peer;
    let (mut received, mut query) = (Vec::new(), None);
    let answered = loop {
        let mut chunk = [0; HEAD_CHUNK];
        let count = stream.read(&mut chunk)?;
        if count == 0 {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
        received.extend_from_slice(chunk.get(..count).unwrap_or_default());
        let head = match parse(&received) {
            Ok(None) => continue,
            Ok(Some(head)) => head,
            Err(refusal) => break Err(refusal),
        };
        received.drain(..head.length);
        if site.trusts(peer.ip()) {
            client = resolve_client_address(&head, site, peer);
            if let Err(reason) = assign(client.ip()) {
                break Err((StatusCode::SERVICE_UNAVAILABLE, reason.into()));
            }
        }
        query = site.peerjs.as_ref().and_then(|_| peerjs::query(&head.target));
        break answer(head, site, peer, tls);
    };
    let (status, bytes) = match answered {
        Ok(answer) => answer,
        Err((status, reason)) => (status, response(status, TEXT, &format!("{reason}\n"))),
    };
    stream.write_all(&bytes)?;
    stream.flush()?;
    match status {
        StatusCode::SWITCHING_PROTOCOLS => Ok((client, Outcome::Upgraded(received, query))),
        status => Ok((client, Outcome::Answered(status.as_u16()))),
    }
}

/// Answers 503 on a plain socket without waiting for its request. The whole response fits into the
/// empty send buffer. If the request arrives after the socket is closed, the client may see a reset
/// instead of the response.
pub fn reject(mut socket: &TcpStream, reason: &str) {
    let response = response(StatusCode::SERVICE_UNAVAILABLE, TEXT, &format!("{reason}\n"));
    let _ = socket
        .set_nonblocking(true)
        .and_then(|()| socket.write(&response))
        .and_then(|_| socket.shutdown(Shutdown::Write))
        .and_then(|()| socket.read(&mut [0; HEAD_CHUNK]));
}

/// The head that these bytes start with; `None` if it is not complete.
fn parse(received: &[u8]) -> Result<Option<Head>, Refusal> {
    let bad = |reason: &str| (StatusCode::BAD_REQUEST, reason.to_string());
    let mut headers = [httparse::EMPTY_HEADER; MAX_HEADERS];
    let mut parsed = httparse::Request::new(&mut headers);
    let length = match parsed.parse(received) {
        Ok(Status::Partial) if received.len() < MAX_HEAD => return Ok(None),
        Ok(Status::Complete(length)) if length <= MAX_HEAD => length,
        Ok(_) | Err(httparse::Error::TooManyHeaders) => {
            let reason = "Request head too large".into();
            return Err((StatusCode::REQUEST_HEADER_FIELDS_TOO_LARGE, reason));
        }
        Err(_) => return Err(bad("Not an HTTP request")),
    };
    let version = if parsed.version == Some(1) { Version::HTTP_11 } else { Version::HTTP_10 };
    let mut builder = Request::builder().method(parsed.method.unwrap_or_default()).version(version);
    for header in parsed.headers {
        builder = builder.header(header.name, header.value);
    }
    let request = builder.body(()).map_err(|error| bad(&error.to_string()))?;
    // RFC 9112, section 3.2: exactly one Host, which HTTP/1.0 may leave out.
    let mut hosts = request.headers().get_all(header::HOST).iter();
    let host = match (hosts.next(), hosts.next()) {
        (Some(host), None) => host.to_str().unwrap_or_default(),
        (None, _) if version == Version::HTTP_10 => "",
        _ => return Err(bad("A request needs one Host header")),
    };
    let target = parsed.path.unwrap_or_default().to_string();
    let (authority, path) = split_target(&target);
    let (host, path) = (authority.unwrap_or(host).to_string(), path.to_string());
    Ok(Some(Head { request, path, target, host, length }))
}

/// The authority, if the target is a whole URL (absolute-form: RFC 9112, section 3.2.2), and the path.
fn split_target(target: &str) -> (Option<&str>, &str) {
    let without_query = target.split('?').next().unwrap_or_default();
    match without_query.split_once("://") {
        Some((scheme, rest)) if !scheme.contains('/') => match rest.split_once('/') {
            Some((authority, _)) => (Some(authority), rest.get(authority.len()..).unwrap_or("/")),
            None => (Some(rest), "/"),
        },
        _ => (None, without_query),
    }
}

/// The status and the whole response.
fn answer(
    mut head: Head,
    site: &Site,
    peer: SocketAddr,
    tls: bool,
) -> Result<(StatusCode, Vec<u8>), Refusal> {
    let method = head.request.method();
    if method == Method::GET && has_token(head.request.headers(), header::UPGRADE, "websocket") {
        check_origin(&head, site, peer, tls)?;
        return Ok((StatusCode::SWITCHING_PROTOCOLS, upgrade(&mut head.request)?));
    }
    if method != Method::GET && method != Method::HEAD {
        return Err((StatusCode::METHOD_NOT_ALLOWED, "Only GET and HEAD".into()));
    }
    let endpoint = site.peerjs.as_ref().and_then(|_| peerjs::endpoint(&head.path));
    let (status, (content_type, body)) = match page::find(&head.path, &site.settings) {
        Some(file) => (StatusCode::OK, file),
        None => endpoint.unwrap_or((StatusCode::NOT_FOUND, (TEXT, "Not found\n".into()))),
    };
    let mut bytes = response(status, content_type, &body);
    if method == Method::HEAD {
        bytes.truncate(bytes.len() - body.len());
    }
    Ok((status, bytes))
}

/// Refuses a WebSocket to pages of other origins. A request without `Origin` is accepted, because
/// it does not come from a browser, and other programs can send any `Origin` (RFC 6455, section
/// 10.2).
///
/// The server's own page has the server's host and scheme. Behind a trusted proxy, which may add TLS,
/// the page may have either scheme; `X-Forwarded-Proto` is not read.
fn check_origin(head: &Head, site: &Site, peer: SocketAddr, tls: bool) -> Result<(), Refusal> {
    if site.allow_origin.is_empty() {
        return Ok(());
    }
    let mut allowed = site.allow_origin.clone();
    for (scheme, is_own) in [("http", !tls), ("https", tls)] {
        if is_own || site.trusts(peer.ip()) {
            allowed.push(format!("{scheme}://{}", head.host));
        }
    }
    let is_allowed = |origin: &HeaderValue| {
        allowed.iter().any(|allowed| allowed.as_bytes().eq_ignore_ascii_case(origin.as_bytes()))
    };
    if head.request.headers().get_all(header::ORIGIN).iter().all(is_allowed) {
        return Ok(());
    }
    Err((StatusCode::FORBIDDEN, "This page may not connect here".into()))
}

/// The 101 response. tungstenite checks the rest of the request (RFC 6455, section 4.2.1) and computes
/// the accept key. The first of the client's subprotocols is chosen: browsers close the connection if
/// none is, and this server treats all alike.
fn upgrade(request: &mut Request) -> Result<Vec<u8>, Refusal> {
    let headers = request.headers_mut();
    if headers.get(header::SEC_WEBSOCKET_VERSION).is_none_or(|version| version != "13") {
        return Err((StatusCode::UPGRADE_REQUIRED, "WebSocket version 13 is needed".into()));
    }
    // tungstenite looks at the first header line only, and expects one protocol in it.
    headers.insert(header::UPGRADE, HeaderValue::from_static("websocket"));
    if has_token(headers, header::CONNECTION, "upgrade") {
        headers.insert(header::CONNECTION, HeaderValue::from_static("upgrade"));
    }
    let make_response = || {
        let mut response = create_response(request)?;
        if let Some(first) = list(request.headers(), header::SEC_WEBSOCKET_PROTOCOL).next() {
            let first = HeaderValue::from_bytes(first)?;
            response.headers_mut().insert(header::SEC_WEBSOCKET_PROTOCOL, first);
        }
        let mut bytes = Vec::new();
        write_response(&mut bytes, &response)?;
        Ok(bytes)
    };
    make_response()
        .map_err(|error: tungstenite::Error| (StatusCode::BAD_REQUEST, error.to_string()))
}

/// The address of a trusted proxy's client: the nearest hop of `X-Forwarded-For` that is not a trusted
/// proxy. The client may have made up the hops before that one. If the header is missing, or one of the
/// hops that are read is not an address, the result is the proxy's own address.
fn resolve_client_address(head: &Head, site: &Site, proxy: SocketAddr) -> SocketAddr {
    let mut client = proxy;
    for hop in list(head.request.headers(), FORWARDED_FOR).rev() {
        let hop = str::from_utf8(hop).unwrap_or_default();
        let address = hop.parse().map(|address: SocketAddr| address.ip());
        let Ok(ip) = address.or_else(|_| hop.trim_matches(['[', ']']).parse()) else {
            return proxy;
        };
        client = SocketAddr::new(ip, 0);
        if !site.trusts(ip) {
            break;
        }
    }
    client
}

/// The elements of a header that is a list, over all of its lines (RFC 9110, section 5.6.1).
fn list(headers: &HeaderMap, name: HeaderName) -> impl DoubleEndedIterator<Item = &[u8]> {
    let lines = headers.get_all(name).iter();
    let elements = lines.flat_map(|line| line.as_bytes().split(|byte| *byte == b','));
    elements.map(<[u8]>::trim_ascii).filter(|element| !element.is_empty())
}

fn has_token(headers: &HeaderMap, name: HeaderName, token: &str) -> bool {
    list(headers, name).any(|element| element.eq_ignore_ascii_case(token.as_bytes()))
}

fn response(status: StatusCode, content_type: &str, body: &str) -> Vec<u8> {
    let (connection, more) = match status {
        StatusCode::METHOD_NOT_ALLOWED => ("close", "Allow: GET, HEAD\r\n"),
        StatusCode::UPGRADE_REQUIRED => {
            ("close, upgrade", "Upgrade: websocket\r\nSec-WebSocket-Version: 13\r\n")
        }
        StatusCode::SERVICE_UNAVAILABLE => {
            ("close", &*format!("Retry-After: {}\r\n", RETRY_AFTER.as_secs()))
        }
        _ => ("close", ""),
    };
    format!(
        "HTTP/1.1 {status}\r\n\
         Content-Type: {content_type}\r\n\
         Content-Length: {}\r\n\
         Content-Security-Policy: {CONTENT_SECURITY_POLICY}\r\n\
         Cross-Origin-Opener-Policy: same-origin\r\n\
         X-Content-Type-Options: nosniff\r\n\
         Referrer-Policy: no-referrer\r\n\
         Cache-Control: no-cache\r\n\
         Connection: {connection}\r\n\
         {more}\r\n{body}",
        body.len()
    )
    .into_bytes()
}
