//! How values are written on the command line.

use std::str::FromStr;

/// An id as other programs print it: manage-bde puts GUIDs into braces.
pub(super) fn bare(text: &str) -> &str {
    let text = text.trim();
    text.strip_prefix('{').and_then(|rest| rest.strip_suffix('}')).unwrap_or(text)
}

/// Parses an id, with or without braces.
pub(super) fn guid<T: FromStr>(text: &str) -> Result<T, T::Err> {
    bare(text).parse()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::domain::ProtectorId;

    #[test]
    fn an_id_may_stand_in_braces_and_in_nothing_else() {
        let id: ProtectorId = "1854c11f-6b44-08b0-91db-121a2fbf9ac0".parse().unwrap();
        for text in
            ["1854c11f-6b44-08b0-91db-121a2fbf9ac0", "{1854C11F-6B44-08B0-91DB-121A2FBF9AC0}"]
        {
            assert_eq!(guid::<ProtectorId>(text), Ok(id), "{text}");
        }
        for text in ["{1854c11f-6b44-08b0-91db-121a2fbf9ac0", "(1854c11f)", "{}"] {
            assert!(guid::<ProtectorId>(text).is_err(), "{text}");
        }
    }
}
