//! Names: which a user may have, and how they are written into a log and a URL.

use std::borrow::Cow;

use crate::limits::MAX_NAME;

/// Whether a user may log in as `name`: 1 to [`MAX_NAME`] bytes of UTF-8, no control character, no
/// white space at either end, and none of the invisible characters that docs/protocol.md lists.
pub fn is_valid_name(name: &str) -> bool {
    (1..=MAX_NAME).contains(&name.len())
        && name.trim() == name
        && !name.contains(|character: char| character.is_control() || is_invisible(character))
}

/// Characters that cannot be seen, or that change the direction of others, and so make two names
/// look alike. U+200C and U+200D are not among them: scripts and emoji need these.
fn is_invisible(character: char) -> bool {
    matches!(
        character,
        '\u{61c}'
            | '\u{200b}'
            | '\u{200e}'
            | '\u{200f}'
            | '\u{2028}'..='\u{202e}'
            | '\u{2060}'
            | '\u{2066}'..='\u{2069}'
            | '\u{feff}'
    )
}

/// At most the first [`MAX_NAME`] bytes of `text`, and an ellipsis where something is missing.
pub fn excerpt(text: &str) -> Cow<'_, str> {
    if text.len() <= MAX_NAME {
        return text.into();
    }
    let end = (0..=MAX_NAME).rev().find(|&end| text.is_char_boundary(end)).unwrap_or(0);
    format!("{}…", text.get(..end).unwrap_or_default()).into()
}

/// Escapes all but RFC 3986's unreserved characters, for a URL and for the user name of a TURN
/// server (coturn accepts neither spaces nor quotes there).
pub fn percent_encode(text: &str) -> String {
    let encode = |byte: u8| match byte {
        b'a'..=b'z' | b'A'..=b'Z' | b'0'..=b'9' | b'-' | b'.' | b'_' | b'~' => {
            char::from(byte).to_string()
        }
        byte => format!("%{byte:02X}"),
    };
    text.bytes().map(encode).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_is_1_to_128_bytes_that_can_be_seen() {
        for name in [
            "a",
            "a b",
            "__proto__",
            "\u{1F600}",
            "\u{1F468}\u{200d}\u{1F469}", // a family: two emoji and a joiner
            "\u{645}\u{200c}\u{647}",     // Persian needs the non-joiner
            &"x".repeat(128),
            &"é".repeat(64),
        ] {
            assert!(is_valid_name(name), "{name:?}");
        }
        for name in ["", "\n", "a\0", "\u{7f}", "\u{9f}", &"x".repeat(129), &"é".repeat(65)] {
            assert!(!is_valid_name(name), "{name:?}");
        }
    }

    #[test]
    fn a_name_has_no_white_space_at_either_end() {
        for space in [" ", "\t", "\u{a0}", "\u{2003}", "\u{3000}"] {
            for name in [space.into(), format!("{space}a"), format!("a{space}")] {
                assert!(!is_valid_name(&name), "{name:?}");
            }
        }
    }

    #[test]
    fn a_name_has_no_invisible_characters() {
        let ranges = [0x200e..=0x200f, 0x2028..=0x202e, 0x2066..=0x2069];
        for code in [0x61c, 0x200b, 0x2060, 0xfeff].into_iter().chain(ranges.into_iter().flatten())
        {
            let name = format!("ali{}ce", char::from_u32(code).unwrap());
            assert!(!is_valid_name(&name), "{name:?}");
        }
    }

    #[test]
    fn an_excerpt_ends_between_characters() {
        assert_eq!(excerpt("bob"), "bob");
        assert_eq!(excerpt(&"x".repeat(128)), "x".repeat(128));
        assert_eq!(excerpt(&"x".repeat(129)), "x".repeat(128) + "…");
        assert_eq!(
            excerpt(&("x".to_string() + &"é".repeat(64))),
            "x".to_string() + &"é".repeat(63) + "…"
        );
    }

    #[test]
    fn a_percent_encoded_name_has_only_unreserved_characters() {
        assert_eq!(percent_encode("a-Z.0_~"), "a-Z.0_~");
        assert_eq!(percent_encode("ä &+#%"), "%C3%A4%20%26%2B%23%25");
    }
}
