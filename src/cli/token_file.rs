//! The file that an access token is kept in between `login` and `logout`: in the user's runtime directory, which is gone when
//! they have logged out of the machine, or in that for state, and for its owner alone.

use std::io::Write as _;
use std::path::{Path, PathBuf};

use tempfile::NamedTempFile;

use super::connection::ConnectionArgs;
use super::exit::CliError;
use super::out_file::sync_directory;
use super::pki::create_private_dir;

const NAME: &str = "holdfast/access-token";

/// Where the token is, or is to be: where the command line says, else where it is by default.
pub(super) fn path(connection: &ConnectionArgs) -> Result<PathBuf, CliError> {
    let path = connection.access_token_file.clone().or_else(default_path);
    path.ok_or_else(|| {
        CliError::usage("give --access-token-file or set HOLDFAST_ACCESS_TOKEN_FILE: there is no home directory")
    })
}

/// The token that a login has left, if there is one.
pub(super) fn left_by_login() -> Option<PathBuf> {
    default_path().filter(|path| path.exists())
}

fn default_path() -> Option<PathBuf> {
    place(|name| std::env::var_os(name).map(PathBuf::from))
}

fn place(variable: impl Fn(&str) -> Option<PathBuf>) -> Option<PathBuf> {
    let absolute = |name| variable(name).filter(|path| path.is_absolute());
    absolute("XDG_RUNTIME_DIR")
        .or_else(|| absolute("XDG_STATE_HOME"))
        .or_else(|| absolute("HOME").map(|home| home.join(".local/state")))
        .map(|dir| dir.join(NAME))
}

/// Writes the token; one that was there before is replaced.
pub(super) fn write(path: &Path, token: &str) -> Result<(), CliError> {
    let failed = |error: std::io::Error| CliError::failed(format!("{}: {error}", path.display()));
    let dir = match path.parent() {
        Some(parent) if !parent.as_os_str().is_empty() => parent,
        Some(_) | None => Path::new("."),
    };
    if !dir.exists() {
        create_private_dir(dir)?;
    }
    // A temporary file has mode 0600 from the start.
    let mut file = NamedTempFile::new_in(dir).map_err(failed)?;
    file.write_all(token.as_bytes()).map_err(failed)?;
    file.as_file().sync_all().map_err(failed)?;
    file.persist(path).map_err(|error| failed(error.error))?;
    sync_directory(path).map_err(failed)
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt as _;

    use super::*;

    #[test]
    fn the_runtime_directory_comes_before_the_one_for_state_and_the_home() {
        let set = [("XDG_RUNTIME_DIR", "/run/user/7"), ("XDG_STATE_HOME", "/s"), ("HOME", "/h")];
        let from = |skip: usize| {
            let set = &set[skip..];
            place(|name| set.iter().find(|(n, _)| *n == name).map(|(_, path)| path.into()))
        };
        assert_eq!(from(0).unwrap(), Path::new("/run/user/7/holdfast/access-token"));
        assert_eq!(from(1).unwrap(), Path::new("/s/holdfast/access-token"));
        assert_eq!(from(2).unwrap(), Path::new("/h/.local/state/holdfast/access-token"));
        assert_eq!(from(3), None);
        assert_eq!(place(|_| Some("relative".into())), None);
    }

    #[test]
    fn a_token_is_for_its_owner_alone_and_replaces_the_one_before() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("holdfast/access-token");
        for token in ["first", "second"] {
            write(&path, token).unwrap();
            assert_eq!(std::fs::read_to_string(&path).unwrap(), token);
            let mode = |path: &Path| std::fs::metadata(path).unwrap().permissions().mode() & 0o777;
            assert_eq!((mode(&path), mode(path.parent().unwrap())), (0o600, 0o700));
        }
        assert_eq!(std::fs::read_dir(path.parent().unwrap()).unwrap().count(), 1);
    }
}
