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

/// Names of the page's files, each with its content.
macro_rules! files {
    ($($name:literal)*) => { &[$(($name, include_str!(concat!("page/", $name)))),*] };
}

const FILES: &[(&str, &str)] = files! {
    "style.css" "icon.svg" "main.js" "call.js" "callers.js" "chat.js"
    "group.js" "links.js" "media.js" "online.js" "peer.js" "people.js"
    "ring.js" "signaling.js" "stage.js" "state.js" "view.js" "words.js"
    "words/en.js" "words/de.js" "words/fr.js" "words/es.js"
};

/// The content type and the content of the file at `path`. Two kinds are made by the program:
/// `config.json`, which is `settings`, and QR codes, whose file name is their text in hex.
pub fn find<'a>(path: &str, settings: &'a str) -> Option<(&'static str, Cow<'a, str>)> {
    let name = match path {
        "/" => return Some((HTML, include_str!("page/index.html").into())),
        "/config.json" => return Some((JSON, settings.into())),
        "/healthz" => return Some((TEXT, "ok\n".into())), // for monitoring
        _ => path.strip_prefix('/')?,
    };
    if let Some(hex) = name.strip_prefix("qr/") {
        return Some((SVG, qr::svg(hex.strip_suffix(".svg")?)?.into()));
    }
    let (_, content) = FILES.iter().find(|(file, _)| *file == name)?;
    let content_type = match name.rsplit('.').next() {
        Some("css") => CSS,
        Some("svg") => SVG,
        _ => SCRIPT,
    };
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
