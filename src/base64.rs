//! Base64 in its standard alphabet (<https://www.rfc-editor.org/rfc/rfc4648#section-4>).

/// With padding.
pub fn encode(bytes: &[u8]) -> String {
    const DIGITS: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
    let mut text = String::with_capacity(bytes.len().div_ceil(3) * 4);
    for group in bytes.chunks(3) {
        let number = (0..3).fold(0, |number, at| number << 8 | group.get(at).copied().map_or(0, usize::from));
        for digit in 0..4 {
            match digit <= group.len() {
                true => text.push(char::from(DIGITS[number >> (18 - 6 * digit) & 63])),
                false => text.push('='),
            }
        }
    }
    text
}

/// With padding or without; the error says what is wrong.
pub fn decode(text: &str) -> Result<Vec<u8>, &'static str> {
    let text = text.trim_end_matches('=').as_bytes();
    if text.len() % 4 == 1 {
        return Err("is no base64: it has a wrong length");
    }
    let mut bytes = Vec::with_capacity(text.len() / 4 * 3 + 2);
    for group in text.chunks(4) {
        let mut bits = 0u32;
        for &letter in group {
            let value = match letter {
                b'A'..=b'Z' => letter - b'A',
                b'a'..=b'z' => letter - b'a' + 26,
                b'0'..=b'9' => letter - b'0' + 52,
                b'+' => 62,
                b'/' => 63,
                _ => return Err("is no base64: it has another character"),
            };
            bits = bits << 6 | u32::from(value);
        }
        bits <<= 6 * (4 - group.len());
        let [_, a, b, c] = bits.to_be_bytes();
        bytes.extend_from_slice(&[a, b, c][..group.len() - 1]);
    }
    Ok(bytes)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_length_is_written_and_read() {
        // <https://www.rfc-editor.org/rfc/rfc4648#section-10>
        let cases =
            [("", ""), ("f", "Zg=="), ("fo", "Zm8="), ("foo", "Zm9v"), ("foob", "Zm9vYg=="), ("foobar", "Zm9vYmFy")];
        for (plain, text) in cases {
            assert_eq!(encode(plain.as_bytes()), text);
            assert_eq!(decode(text).as_deref(), Ok(plain.as_bytes()), "{text}");
            assert_eq!(decode(text.trim_end_matches('=')).as_deref(), Ok(plain.as_bytes()), "{text}");
        }
        assert_eq!((encode(&[0xfb, 0xff]).as_str(), decode("+/8=").as_deref()), ("+/8=", Ok(&[0xfb, 0xff][..])));
        for bad in ["A", "AAAAA", "A-==", "é", "A A="] {
            assert!(decode(bad).is_err(), "{bad}");
        }
    }
}
