//! Several byte strings in one, for targets that take more than one.

/// Bytes of the length before each part.
const LENGTH: usize = 2;

/// The parts of `bytes`: each has its length in front, two bytes, little-endian. The last one may be cut off.
pub(crate) fn parts(mut bytes: &[u8]) -> Vec<&[u8]> {
    let mut parts = Vec::new();
    while let Some((length, rest)) = bytes.split_first_chunk::<LENGTH>() {
        let length = usize::from(u16::from_le_bytes(*length)).min(rest.len());
        let (part, rest) = rest.split_at(length);
        parts.push(part);
        bytes = rest;
    }
    parts
}

/// Bytes with these parts. A part that is longer than its length can say is left out.
#[cfg(test)]
pub(crate) fn join<T: AsRef<[u8]>>(parts: impl IntoIterator<Item = T>) -> Vec<u8> {
    let mut bytes = Vec::new();
    for part in parts {
        if let Ok(length) = u16::try_from(part.as_ref().len()) {
            bytes.extend_from_slice(&length.to_le_bytes());
            bytes.extend_from_slice(part.as_ref());
        }
    }
    bytes
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_joined_is_parted_again_and_a_cut_part_is_as_long_as_it_is() {
        let joined = join([&b"one"[..], b"", b"three"]);
        assert_eq!(parts(&joined), [&b"one"[..], b"", b"three"]);
        assert_eq!(parts(&joined[..joined.len() - 2]), [&b"one"[..], b"", b"thr"]);
    }
}
