//! An access token from a file, as calls carry it.

use std::fs::File;
use std::io::Read as _;
use std::os::unix::fs::PermissionsExt as _;
use std::path::Path;

use tonic::metadata::{Ascii, MetadataValue};
use zeroize::Zeroizing;

use super::ClientError;

/// Longest file that is read: servers take shorter tokens only.
const MOST_BYTES: u64 = 16 * 1024;

/// Reads a token. The file must be for its owner alone: whoever has the token is whom it names.
pub(super) fn read(path: &Path) -> Result<MetadataValue<Ascii>, ClientError> {
    let failed = |what: String| ClientError::File { path: path.to_owned(), what };
    let file = File::open(path).map_err(|error| failed(error.to_string()))?;
    let metadata = file.metadata().map_err(|error| failed(error.to_string()))?;
    let mode = metadata.permissions().mode() & 0o7777;
    if mode & 0o077 != 0 {
        let what = format!("has mode {mode:04o}, so others may use the token: run chmod 0600");
        return Err(failed(what));
    }
    let mut text = Zeroizing::new(String::new());
    file.take(MOST_BYTES).read_to_string(&mut text).map_err(|error| failed(error.to_string()))?;
    let token = text.trim();
    if token.is_empty() || !token.bytes().all(|byte| byte.is_ascii_graphic()) {
        return Err(failed("holds no access token".to_owned()));
    }
    let value = Zeroizing::new(format!("Bearer {token}"));
    let mut value: MetadataValue<Ascii> =
        value.parse().map_err(|_| failed("holds no access token".to_owned()))?;
    value.set_sensitive(true);
    Ok(value)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn written(text: &str, mode: u32) -> Result<MetadataValue<Ascii>, ClientError> {
        use std::io::Write as _;
        let mut file = tempfile::NamedTempFile::new().unwrap();
        file.write_all(text.as_bytes()).unwrap();
        file.as_file().set_permissions(std::fs::Permissions::from_mode(mode)).unwrap();
        read(file.path())
    }

    #[test]
    fn a_token_is_read_from_a_file_of_ones_own_and_never_printed() {
        let value = written("a.b.c\n", 0o600).unwrap();
        assert_eq!(value.to_str().unwrap(), "Bearer a.b.c");
        assert_eq!(format!("{value:?}"), "Sensitive");
        for (text, mode) in [("a.b.c", 0o640), ("", 0o600), ("two words", 0o600)] {
            assert!(matches!(written(text, mode), Err(ClientError::File { .. })), "{text:?}");
        }
    }
}
