//! The request head on a new connection: a WebSocket upgrade, the call page, or a health check.
//!
//! tungstenite refuses a request that is no upgrade before anybody can answer it, so the head is
//! read here first. One request a connection; a request's body is never read.

use std::fmt::Write as _;
use std::io::{self, Read, Write};

use httparse::Status;
use tungstenite::handshake::machine::TryParse;
use tungstenite::handshake::server as upgrade;
use tungstenite::http::HeaderValue;

use crate::limits::{MAX_HEAD, MAX_HEADERS};

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

/// Reads one request and answers it. `settings` is the JSON that the call page finds at
/// `config.json`.
///
/// # Errors
/// The client went, or ran out of time.
pub fn serve(stream: &mut (impl Read + Write), settings: &str) -> io::Result<Outcome> {
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
                answer(&request, &received, head, settings)
            }
            Ok(_) | Err(httparse::Error::TooManyHeaders) => refuse(431, "Request head too large"),
            Err(_) => refuse(400, "Not an HTTP request"),
        };
    };
    stream.write_all(&response)?;
    Ok(outcome)
}

/// The response to a whole head, `received[..head]`, and what it means.
fn answer(
    request: &httparse::Request,
    received: &[u8],
    head: usize,
    settings: &str,
) -> (Vec<u8>, Outcome) {
    if let Some(protocol) = header(request, "upgrade")
        && protocol.eq_ignore_ascii_case("websocket")
    {
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
        "/config.json" => (200, JSON, settings),
        path => match PAGE.iter().find(|(name, _, _)| *name == path) {
            Some((_, content_type, body)) => (200, *content_type, *body),
            None => (404, TEXT, "Not found\n"),
        },
    };
    (response(status, content_type, body, with_body), Outcome::Answered(status))
}

/// The 101 response. tungstenite checks the request (RFC 6455, section 4.2.1) and computes the
/// accept key. Of the subprotocols that a client offers the first is echoed: browsers drop the
/// connection when none is, and here they all mean the same.
fn upgrade_response(request: &httparse::Request, head: &[u8]) -> tungstenite::Result<Vec<u8>> {
    let Some((_, parsed)) = upgrade::Request::try_parse(head)? else {
        return Err(tungstenite::error::ProtocolError::HandshakeIncomplete.into());
    };
    let mut response = upgrade::create_response(&parsed)?;
    let offered = header(request, "sec-websocket-protocol").unwrap_or_default();
    let first = offered.split(',').next().unwrap_or_default().trim();
    if !first.is_empty() {
        response.headers_mut().insert("Sec-WebSocket-Protocol", HeaderValue::from_str(first)?);
    }
    let mut bytes = Vec::new();
    upgrade::write_response(&mut bytes, &response)?;
    Ok(bytes)
}

fn refuse(status: u16, reason: &str) -> (Vec<u8>, Outcome) {
    (response(status, TEXT, &format!("{reason}\n"), true), Outcome::Answered(status))
}

fn response(status: u16, content_type: &str, body: &str, with_body: bool) -> Vec<u8> {
    let reason = match status {
        200 => "OK",
        400 => "Bad Request",
        404 => "Not Found",
        405 => "Method Not Allowed",
        431 => "Request Header Fields Too Large",
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
    if status == 405 {
        text.push_str("Allow: GET, HEAD\r\n");
    }
    text.push_str("\r\n");
    if with_body {
        text.push_str(body);
    }
    text.into_bytes()
}

/// The settings that the call page asks for: the ICE servers, and where `https://` is, if anywhere,
/// for the page to name when a browser gives it no camera on plain `http://`.
pub fn settings(ice_servers: &str, tls_port: Option<u16>) -> String {
    let mut json = format!(r#"{{"iceServers":{ice_servers},"tlsPort":"#);
    match tls_port {
        // Writing to a string cannot fail.
        Some(port) => drop(write!(json, "{port}}}")),
        None => json.push_str("null}"),
    }
    json
}

/// A header's text; `None` also when it is not UTF-8.
fn header<'a>(request: &httparse::Request<'_, 'a>, name: &str) -> Option<&'a str> {
    let found = request.headers.iter().find(|header| header.name.eq_ignore_ascii_case(name))?;
    std::str::from_utf8(found.value).ok()
}
