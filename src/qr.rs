//! QR codes, which bring a phone to the call page without typing.

use std::fmt::Write;

use data_encoding::HEXLOWER;
use qrcodegen::{QrCode, QrCodeEcc};

use crate::limits::{MAX_QR_TEXT, QR_QUIET_ZONE};

/// The QR code of a text, which is given in hex, as an SVG image. `None` if the text is longer than
/// [`MAX_QR_TEXT`], or is not UTF-8 in hex.
pub fn svg(hex: &str) -> Option<String> {
    if hex.len() > 2 * MAX_QR_TEXT {
        return None;
    }
    let text = String::from_utf8(HEXLOWER.decode(hex.as_bytes()).ok()?).ok()?;
    let code = QrCode::encode_text(&text, QrCodeEcc::Low).ok()?;
    let mut dark = String::new();
    for (x, y) in (0..code.size()).flat_map(|y| (0..code.size()).map(move |x| (x, y))) {
        if code.get_module(x, y) {
            let _ = write!(dark, "M{x} {y}h1v1h-1z"); // Writing to a String cannot fail.
        }
    }
    let (start, side) = (-QR_QUIET_ZONE, code.size() + 2 * QR_QUIET_ZONE);
    Some(format!(
        r#"<svg xmlns="http://www.w3.org/2000/svg" viewBox="{start} {start} {side} {side}"><path d="{dark}"/></svg>"#
    ))
}

/// The QR code of a text for a terminal, in black on white: two rows of modules in a line. Empty if
/// the text is too long for a QR code.
pub fn terminal(text: &str) -> String {
    let Ok(code) = QrCode::encode_text(text, QrCodeEcc::Low) else { return String::new() };
    let mut lines = String::new();
    for y in (-QR_QUIET_ZONE..code.size() + QR_QUIET_ZONE).step_by(2) {
        lines += "\x1b[30;107m";
        for x in -QR_QUIET_ZONE..code.size() + QR_QUIET_ZONE {
            lines.push(match (code.get_module(x, y), code.get_module(x, y + 1)) {
                (true, true) => '█',
                (true, false) => '▀',
                (false, true) => '▄',
                (false, false) => ' ',
            });
        }
        lines += "\x1b[0m\n";
    }
    lines
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_link_becomes_an_image_of_its_modules() {
        let link = HEXLOWER.encode(b"https://192.168.1.5:8443/#call=anna");
        let image = svg(&link).unwrap();
        assert!(image.starts_with("<svg "), "{image}");
        assert!(image.contains("M0 0h1v1h-1z"), "the finder pattern's corner: {image}");
        assert_eq!(terminal("https://192.168.1.5:8443/").lines().count(), 17);
    }

    #[test]
    fn a_text_that_is_too_long_or_not_hex_has_no_image() {
        assert!(svg(&"61".repeat(MAX_QR_TEXT)).is_some());
        assert!(svg(&"61".repeat(MAX_QR_TEXT + 1)).is_none());
        assert!(svg("xyz").is_none());
        assert!(svg("ff").is_none(), "no UTF-8");
    }
}
