//! The root key: the one secret that an operator keeps, from which everything else opens.
//!
//! It comes from a file that only its owner may read and that is not among the data, so that a copy of the data is
//! worth nothing. It wraps the private keys of the keyring; it never leaves the process.

use std::fmt;
use std::fs::{File, OpenOptions};
use std::io::Read as _;
use std::os::unix::fs::{OpenOptionsExt as _, PermissionsExt as _};
use std::path::Path;

use aws_lc_rs::aead::{AES_256_GCM, Aad, LessSafeKey, NONCE_LEN, Nonce, UnboundKey};
use aws_lc_rs::hkdf::{HKDF_SHA256, Prk};
use bytes::Bytes;
use rand::CryptoRng;
use subtle::ConstantTimeEq as _;
use zeroize::Zeroizing;

use crate::domain::{ClusterId, Epoch};

use super::{CryptoError, Secret};

/// What the text of a root key file begins with; 64 lower-case hexadecimal digits follow.
pub const ROOT_KEY_PREFIX: &str = "holdfast-root-key-v1:";
const CHECK: &[u8] = b"holdfast root check v1\0";
const WRAPPING_KEY: &[u8] = b"holdfast root wrapping key v1\0";
const WRAP: &[u8] = b"holdfast wrap v1\0";
/// First byte of what is wrapped: the version of its format.
const WRAP_VERSION: u8 = 1;
const TAG_BYTES: usize = 16;

/// Why a root key file can't be used.
#[derive(Debug, thiserror::Error)]
pub enum RootKeyFault {
    /// It can't be opened or read.
    #[error("can't be read")]
    Io(#[source] std::io::Error),
    /// It is a directory, a pipe or the like.
    #[error("is not a regular file")]
    NotAFile,
    /// Others than its owner may read it, or it may be written.
    #[error("has mode {0:04o}; only its owner may read it and nobody may write it: run chmod 0400")]
    Mode(u32),
    /// It lies among the data, so that whoever copies the data has it too.
    #[error("lies inside the data directory; keep it elsewhere, best on another device")]
    InsideDataDirectory,
    /// Its content is something else.
    #[error("must hold holdfast-root-key-v1: and 64 hexadecimal digits, and nothing else")]
    Content,
}

/// What is wrapped by the root key; bound into it, so that one can't be put in the place of another.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum WrapPurpose {
    /// Private key of the escrow signer.
    Signer,
    /// Private key of an epoch.
    Epoch(Epoch),
    /// Private key of a CA of devices, by its number.
    AgentCa(u32),
}

/// The root key. Wiped from memory when dropped, never printed.
pub struct RootKey(Zeroizing<[u8; 32]>);

impl RootKey {
    /// From its 32 bytes.
    pub fn from_bytes(bytes: [u8; 32]) -> Self {
        Self(Zeroizing::new(bytes))
    }

    /// Makes a new one.
    pub fn generate(rng: &mut (impl CryptoRng + ?Sized)) -> Self {
        let mut bytes = Zeroizing::new([0; 32]);
        rng.fill_bytes(bytes.as_mut());
        Self(bytes)
    }

    /// Reads it from a file: mode 0400, outside the data directory.
    ///
    /// # Errors
    /// [`CryptoError::RootKeyFile`] names the file and says what is wrong with it.
    pub fn load(path: &Path, data_directory: &Path) -> Result<Self, CryptoError> {
        Self::read(path, data_directory)
            .map_err(|fault| CryptoError::RootKeyFile { path: path.to_owned(), fault })
    }

    fn read(path: &Path, data_directory: &Path) -> Result<Self, RootKeyFault> {
        // O_NONBLOCK: a named pipe in its place must not hang the start.
        let nonblock = rustix::fs::OFlags::NONBLOCK.bits().cast_signed();
        let file = OpenOptions::new()
            .read(true)
            .custom_flags(nonblock)
            .open(path)
            .map_err(RootKeyFault::Io)?;
        let metadata = file.metadata().map_err(RootKeyFault::Io)?;
        if !metadata.is_file() {
            return Err(RootKeyFault::NotAFile);
        }
        let mode = metadata.permissions().mode() & 0o7777;
        if mode != 0o400 {
            return Err(RootKeyFault::Mode(mode));
        }
        // By its real place: a link from elsewhere into the data directory is no better.
        let place = path.canonicalize().map_err(RootKeyFault::Io)?;
        if let Ok(data) = data_directory.canonicalize()
            && place.starts_with(data)
        {
            return Err(RootKeyFault::InsideDataDirectory);
        }
        Self::parse(&read_short(file)?)
    }

    fn parse(content: &[u8]) -> Result<Self, RootKeyFault> {
        let line = content.strip_suffix(b"\n").unwrap_or(content);
        let digits = line.strip_prefix(ROOT_KEY_PREFIX.as_bytes()).ok_or(RootKeyFault::Content)?;
        let mut bytes = Zeroizing::new([0; 32]);
        hex::decode_to_slice(digits, bytes.as_mut()).map_err(|_| RootKeyFault::Content)?;
        Ok(Self(bytes))
    }

    /// The text of its file, with a newline.
    pub fn expose_file_text(&self) -> Zeroizing<String> {
        let mut digits = Zeroizing::new([0; 64]);
        let mut text = Zeroizing::new(String::with_capacity(96));
        text.push_str(ROOT_KEY_PREFIX);
        if hex::encode_to_slice(self.0.as_ref(), digits.as_mut()).is_ok() {
            text.extend(digits.iter().copied().map(char::from));
        }
        text.push('\n');
        text
    }

    /// What tells this root key from a wrong one; public. Differs between clusters.
    ///
    /// # Errors
    /// Never expected; if the library refuses.
    pub fn check_value(&self, cluster: ClusterId) -> Result<[u8; 32], CryptoError> {
        self.derive(CHECK, cluster).map(|value| *value)
    }

    /// Compares the check value in constant time.
    ///
    /// # Errors
    /// [`CryptoError::WrongRootKey`] if this is not the cluster's root key.
    pub fn check(&self, cluster: ClusterId, recorded: &[u8; 32]) -> Result<(), CryptoError> {
        let right = self.check_value(cluster)?.ct_eq(recorded);
        if bool::from(right) { Ok(()) } else { Err(CryptoError::WrongRootKey) }
    }

    /// Encrypts a secret for its purpose: AES-256-GCM with a random nonce.
    ///
    /// # Errors
    /// Never expected; if the library refuses.
    pub fn wrap(
        &self,
        purpose: WrapPurpose,
        cluster: ClusterId,
        secret: &[u8],
        rng: &mut (impl CryptoRng + ?Sized),
    ) -> Result<Bytes, CryptoError> {
        let mut nonce = [0; NONCE_LEN];
        rng.fill_bytes(&mut nonce);
        let mut buffer = Zeroizing::new(Vec::with_capacity(secret.len().saturating_add(TAG_BYTES)));
        buffer.extend_from_slice(secret);
        self.wrapping_key(cluster)?
            .seal_in_place_append_tag(
                Nonce::assume_unique_for_key(nonce),
                Aad::from(wrap_associated_data(purpose, cluster)),
                &mut *buffer,
            )
            .map_err(|_| CryptoError::Library("AES-256-GCM"))?;
        let mut wrapped = Vec::with_capacity(buffer.len().saturating_add(1 + NONCE_LEN));
        wrapped.push(WRAP_VERSION);
        wrapped.extend_from_slice(&nonce);
        wrapped.extend_from_slice(&buffer);
        Ok(wrapped.into())
    }

    /// Decrypts what [`RootKey::wrap`] made; `None` if it is damaged or was made for something else.
    ///
    /// # Errors
    /// Never expected; if the library refuses.
    pub fn unwrap(
        &self,
        purpose: WrapPurpose,
        cluster: ClusterId,
        wrapped: &[u8],
    ) -> Result<Option<Secret>, CryptoError> {
        let Some((&WRAP_VERSION, rest)) = wrapped.split_first() else { return Ok(None) };
        let Some((nonce, ciphertext)) = rest.split_first_chunk::<NONCE_LEN>() else {
            return Ok(None);
        };
        let mut secret = Zeroizing::new(ciphertext.to_vec());
        let opened = self.wrapping_key(cluster)?.open_in_place(
            Nonce::assume_unique_for_key(*nonce),
            Aad::from(wrap_associated_data(purpose, cluster)),
            secret.as_mut_slice(),
        );
        let Ok(length) = opened.map(|plain| plain.len()) else { return Ok(None) };
        let mut secret = Secret::new(std::mem::take(&mut *secret));
        secret.truncate(length);
        Ok(Some(secret))
    }

    fn wrapping_key(&self, cluster: ClusterId) -> Result<LessSafeKey, CryptoError> {
        let key = self.derive(WRAPPING_KEY, cluster)?;
        let key = UnboundKey::new(&AES_256_GCM, key.as_ref());
        key.map(LessSafeKey::new).map_err(|_| CryptoError::Library("AES-256-GCM"))
    }

    /// HKDF-Expand (RFC 5869) with the root key as its key: the root key is uniformly random, so it needs no extraction.
    fn derive(&self, label: &[u8], cluster: ClusterId) -> Result<Zeroizing<[u8; 32]>, CryptoError> {
        let mut out = Zeroizing::new([0; 32]);
        Prk::new_less_safe(HKDF_SHA256, self.0.as_ref())
            .expand(&[label, cluster.as_bytes()], HKDF_SHA256)
            .and_then(|okm| okm.fill(out.as_mut()))
            .map_err(|_| CryptoError::Library("HKDF"))?;
        Ok(out)
    }
}

impl fmt::Debug for RootKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("RootKey([redacted])")
    }
}

/// Reads a file of a few bytes without growing the buffer, which would leave copies behind.
fn read_short(mut file: File) -> Result<Zeroizing<Vec<u8>>, RootKeyFault> {
    let mut buffer = Zeroizing::new(vec![0; 256]);
    let mut length = 0;
    while let Some(rest) = buffer.get_mut(length..).filter(|rest| !rest.is_empty()) {
        match file.read(rest).map_err(RootKeyFault::Io)? {
            0 => break,
            read => length = length.saturating_add(read),
        }
    }
    buffer.truncate(length);
    Ok(buffer)
}

fn wrap_associated_data(purpose: WrapPurpose, cluster: ClusterId) -> Vec<u8> {
    let (tag, number) = match purpose {
        WrapPurpose::Signer => (1, 0),
        WrapPurpose::Epoch(epoch) => (2, epoch.get()),
        WrapPurpose::AgentCa(number) => (3, number),
    };
    let mut bytes = Vec::with_capacity(WRAP.len().saturating_add(21));
    bytes.extend_from_slice(WRAP);
    bytes.push(tag);
    bytes.extend_from_slice(cluster.as_bytes());
    bytes.extend_from_slice(&number.to_be_bytes());
    bytes
}

#[cfg(test)]
mod tests;
