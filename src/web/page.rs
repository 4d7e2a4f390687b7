//! The call page: its files, as they are in the program, and the settings that it asks for.

use std::borrow::Cow;
use std::net::IpAddr;

use serde_json::json;

use crate::qr;

const HTML: &str = "text/html; charset=utf-8";
const CSS: &str = "text/css; charset=utf-8";
const SCRIPT: &str = "text/javascript; charset=utf-8";
const SVG: &str = "image/svg+xml";
const JSON: &str = "application/json";
/// The content type of plain words.
pub const TEXT: &str = "text/plain; charset=utf-8";

/// A file of the page, by its name there.
macro_rules! page {
    ($name:literal) => {
        include_str!(concat!("page/", $name))
    };
}

/// Path, content type, content.
const FILES: [(&str, &str, &str); 24] = [
    ("/", HTML, page!("index.html")),
    ("/style.css", CSS, page!("style.css")),
    ("/icon.svg", SVG, page!("icon.svg")),
    ("/main.js", SCRIPT, page!("main.js")),
    ("/call.js", SCRIPT, page!("call.js")),
    ("/callers.js", SCRIPT, page!("callers.js")),
    ("/chat.js", SCRIPT, page!("chat.js")),
    ("/group.js", SCRIPT, page!("group.js")),
    ("/links.js", SCRIPT, page!("links.js")),
    ("/media.js", SCRIPT, page!("media.js")),
    ("/online.js", SCRIPT, page!("online.js")),
    ("/peer.js", SCRIPT, page!("peer.js")),
    ("/people.js", SCRIPT, page!("people.js")),
    ("/ring.js", SCRIPT, page!("ring.js")),
    ("/signaling.js", SCRIPT, page!("signaling.js")),
    ("/stage.js", SCRIPT, page!("stage.js")),
    ("/state.js", SCRIPT, page!("state.js")),
    ("/view.js", SCRIPT, page!("view.js")),
    ("/words.js", SCRIPT, page!("words.js")),
    ("/words/en.js", SCRIPT, page!("words/en.js")),
    ("/words/de.js", SCRIPT, page!("words/de.js")),
    ("/words/fr.js", SCRIPT, page!("words/fr.js")),
    ("/words/es.js", SCRIPT, page!("words/es.js")),
    ("/healthz", TEXT, "ok\n"), // for monitoring
];

/// The content type and the content of the file at `path`. Two kinds are made by the program:
/// `config.json`, which is `settings`, and QR codes, whose file name is their text in hex.
pub fn find<'a>(path: &str, settings: &'a str) -> Option<(&'static str, Cow<'a, str>)> {
    if path == "/config.json" {
        return Some((JSON, settings.into()));
    }
    if let Some(name) = path.strip_prefix("/qr/") {
        return Some((SVG, qr::svg(name.strip_suffix(".svg")?)?.into()));
    }
    let (_, content_type, content) = FILES.iter().find(|(name, _, _)| *name == path)?;
    Some((content_type, (*content).into()))
}

/// The page's `config.json`: the ICE servers, a JSON array; the port of `https://`, which the page
/// names where a browser allows no camera on `http://`; whether a login needs a token; and the
/// server's addresses on its networks, for a link that works on another device.
pub fn settings(
    ice_servers: &str,
    tls_port: Option<u16>,
    tokens: bool,
    addresses: &[IpAddr],
) -> String {
    let (tls_port, addresses) = (json!(tls_port), json!(addresses));
    format!(
        r#"{{"iceServers":{ice_servers},"tlsPort":{tls_port},"tokens":{tokens},"addresses":{addresses}}}"#
    )
}
