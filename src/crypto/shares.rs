//! The root key in shares (Shamir's secret sharing over GF(256)): some of them together give it, fewer tell nothing of it.
//!
//! A share carries what it belongs to, so that one of another cluster, of an earlier splitting, given twice or mistyped is
//! named as what it is. `docs/formats-sealing.md` lays down every byte.

use std::fmt;

use blahaj::Sharks;
use rand::CryptoRng;
use sha2::{Digest as _, Sha256};
use zeroize::Zeroizing;

use crate::domain::{ClusterId, ShareSet, ShareSetId};

use super::root::ROOT_KEY_BYTES;
use super::{CryptoError, RootKey};

/// What the text of a share begins with.
pub const SHARE_PREFIX: &str = "holdfast-share-v1:";
/// What the checksum covers before the share itself.
const LABEL: &[u8] = b"holdfast share v1\0";
const CHECKSUM_BYTES: usize = 5;
/// Cluster, set, number, shares, threshold, value.
const CONTENT_BYTES: usize = 16 + 8 + 1 + 1 + 1 + ROOT_KEY_BYTES;
const SHARE_BYTES: usize = CONTENT_BYTES + CHECKSUM_BYTES;
/// Digits between two dashes.
const GROUP: usize = 8;
/// Longest text that is looked at: the digits with a blank beside each.
const MOST_TEXT: usize = 4 * SHARE_BYTES + 64;

/// Why a text is no share.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum ShareFault {
    /// It is something else.
    #[error("must begin with holdfast-share-v1:")]
    NotAShare,
    /// A character is no hexadecimal digit.
    #[error("has a character that is no hexadecimal digit")]
    NotHexadecimal,
    /// Digits are missing, or there are too many.
    #[error("must have 128 hexadecimal digits, and has {0}")]
    Length(usize),
    /// The checksum is another one.
    #[error("is mistyped: its checksum is wrong")]
    Checksum,
    /// Its numbers contradict each other, although the checksum is right.
    #[error("is not well-formed: its number or threshold is impossible")]
    Numbers,
}

/// Which shares there are, and nothing of what is in them.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ShareLabel {
    /// The cluster whose root key it is of.
    pub cluster: ClusterId,
    /// The splitting that it is of.
    pub set: ShareSet,
    /// Its number, from 1.
    pub number: u8,
}

/// One share. Wiped from memory when dropped, never printed but by [`Share::expose_text`].
pub struct Share {
    label: ShareLabel,
    value: Zeroizing<[u8; ROOT_KEY_BYTES]>,
}

impl Share {
    /// Splits a root key: `threshold` of `shares` will open it.
    ///
    /// # Errors
    /// If these numbers make no splitting.
    pub fn split(
        root: &RootKey,
        cluster: ClusterId,
        (shares, threshold): (u8, u8),
        rng: &mut (impl CryptoRng + ?Sized),
    ) -> Result<Vec<Self>, CryptoError> {
        let mut id = [0; 8];
        rng.fill_bytes(&mut id);
        let set = ShareSet::new(ShareSetId::from_bytes(id), shares, threshold)
            .map_err(CryptoError::BadSplitting)?;
        let mut newer = NewerRng(rng);
        let dealer = Sharks(threshold).dealer_rng(root.bytes(), &mut newer);
        dealer
            .zip(1..=shares)
            .map(|(dealt, number)| Self::dealt(&dealt, cluster, set, number))
            .collect()
    }

    fn dealt(
        dealt: &blahaj::Share,
        cluster: ClusterId,
        set: ShareSet,
        number: u8,
    ) -> Result<Self, CryptoError> {
        let library = || CryptoError::Library("secret sharing");
        let bytes = Zeroizing::new(Vec::from(dealt));
        let (x, y) = bytes.split_first().ok_or_else(library)?;
        let mut value = Zeroizing::new([0; ROOT_KEY_BYTES]);
        if *x != number || y.len() != value.len() {
            return Err(library());
        }
        value.copy_from_slice(y);
        Ok(Self { label: ShareLabel { cluster, set, number }, value })
    }

    /// The root key that shares of one splitting give. Whether it is the cluster's is for [`RootKey::check`] to say: forged
    /// shares give another one.
    ///
    /// # Errors
    /// If there are too few, one is there twice, or they are not of one splitting.
    pub fn combine(shares: &[&Self]) -> Result<RootKey, CryptoError> {
        let first = shares.first().ok_or(CryptoError::SharesDontFit)?.label;
        let mut numbers: Vec<_> = shares.iter().map(|share| share.label.number).collect();
        numbers.sort_unstable();
        numbers.dedup();
        let one =
            |share: &&Self| share.label.cluster == first.cluster && share.label.set == first.set;
        if numbers.len() != shares.len()
            || numbers.len() < usize::from(first.set.threshold())
            || !shares.iter().all(one)
        {
            return Err(CryptoError::SharesDontFit);
        }
        let dealt = shares.iter().map(|share| {
            let mut bytes = Zeroizing::new([0; ROOT_KEY_BYTES + 1]);
            let [x, y @ ..] = &mut *bytes;
            *x = share.label.number;
            y.copy_from_slice(&*share.value);
            blahaj::Share::try_from(bytes.as_slice())
        });
        let library = |_| CryptoError::Library("secret sharing");
        let dealt = dealt.collect::<Result<Vec<_>, _>>().map_err(library)?;
        let sharks = Sharks(first.set.threshold());
        let secret = Zeroizing::new(sharks.recover(&dealt).map_err(library)?);
        RootKey::from_slice(&secret).ok_or(CryptoError::Library("secret sharing"))
    }

    /// What it belongs to.
    pub const fn label(&self) -> &ShareLabel {
        &self.label
    }

    /// Reads a share. Blanks and dashes between digits and capitals are taken too.
    ///
    /// # Errors
    /// What is wrong with it; nothing of the text is repeated.
    pub fn parse(text: &[u8]) -> Result<Self, ShareFault> {
        let digits = text.trim_ascii();
        let digits = digits.strip_prefix(SHARE_PREFIX.as_bytes()).ok_or(ShareFault::NotAShare)?;
        if digits.len() > MOST_TEXT {
            return Err(ShareFault::Length(digits.len()));
        }
        let mut plain: Zeroizing<Vec<u8>> = Zeroizing::new(Vec::with_capacity(digits.len()));
        plain.extend(digits.iter().filter(|c| !c.is_ascii_whitespace() && **c != b'-'));
        if plain.iter().any(|c| !c.is_ascii_hexdigit()) {
            return Err(ShareFault::NotHexadecimal);
        }
        let mut bytes = Zeroizing::new([0; SHARE_BYTES]);
        hex::decode_to_slice(plain.as_slice(), bytes.as_mut())
            .map_err(|_| ShareFault::Length(plain.len()))?;
        Self::from_bytes(&bytes)
    }

    fn from_bytes(bytes: &[u8; SHARE_BYTES]) -> Result<Self, ShareFault> {
        let (content, checksum) = bytes.split_at(CONTENT_BYTES);
        if checksum != checksum_of(content) {
            return Err(ShareFault::Checksum);
        }
        let (cluster, rest) = content.split_at(16);
        let (set, rest) = rest.split_at(8);
        let [number, shares, threshold, value @ ..] = rest else {
            return Err(ShareFault::Numbers);
        };
        let cluster = ClusterId::from_slice(cluster).map_err(|_| ShareFault::Numbers)?;
        let set = ShareSetId::from_slice(set).map_err(|_| ShareFault::Numbers)?;
        let set = ShareSet::new(set, *shares, *threshold).map_err(|_| ShareFault::Numbers)?;
        if *number == 0 || *number > *shares {
            return Err(ShareFault::Numbers);
        }
        let mut own = Zeroizing::new([0; ROOT_KEY_BYTES]);
        own.copy_from_slice(value);
        Ok(Self { label: ShareLabel { cluster, set, number: *number }, value: own })
    }

    /// Its text, without a newline.
    pub fn expose_text(&self) -> Zeroizing<String> {
        let mut bytes = Zeroizing::new(Vec::with_capacity(SHARE_BYTES));
        bytes.extend_from_slice(self.label.cluster.as_bytes());
        bytes.extend_from_slice(self.label.set.id().as_bytes());
        bytes.extend([self.label.number, self.label.set.shares(), self.label.set.threshold()]);
        bytes.extend_from_slice(&*self.value);
        let checksum = checksum_of(&bytes);
        bytes.extend_from_slice(&checksum);
        let mut digits = Zeroizing::new([0; 2 * SHARE_BYTES]);
        let mut text = Zeroizing::new(String::with_capacity(SHARE_PREFIX.len() + 3 * SHARE_BYTES));
        text.push_str(SHARE_PREFIX);
        if hex::encode_to_slice(bytes.as_slice(), digits.as_mut()).is_ok() {
            for (n, group) in digits.chunks(GROUP).enumerate() {
                if n > 0 {
                    text.push('-');
                }
                text.extend(group.iter().copied().map(char::from));
            }
        }
        text
    }
}

impl fmt::Debug for Share {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Share({} of {}, [redacted])", self.label.number, self.label.set.shares())
    }
}

/// The first bytes of SHA-256 over label and content. It finds mistakes of typing; it proves nothing.
fn checksum_of(content: &[u8]) -> [u8; CHECKSUM_BYTES] {
    let digest = Sha256::new().chain_update(LABEL).chain_update(content).finalize();
    let mut checksum = [0; CHECKSUM_BYTES];
    for (to, from) in checksum.iter_mut().zip(digest) {
        *to = from;
    }
    checksum
}

/// The text of a share with this content, whatever it is, and the checksum that belongs to it.
#[cfg(any(all(test, feature = "server"), feature = "fuzzing"))]
pub(super) fn with_checksum(content: &[u8]) -> String {
    format!("{SHARE_PREFIX}{}{}", hex::encode(content), hex::encode(checksum_of(content)))
}

/// Hands our randomness to a library of another version of the `rand` traits.
struct NewerRng<'a, R: ?Sized>(&'a mut R);

impl<R: CryptoRng + ?Sized> rand_core::TryRng for NewerRng<'_, R> {
    type Error = std::convert::Infallible;

    fn try_next_u32(&mut self) -> Result<u32, Self::Error> {
        Ok(self.0.next_u32())
    }

    fn try_next_u64(&mut self) -> Result<u64, Self::Error> {
        Ok(self.0.next_u64())
    }

    fn try_fill_bytes(&mut self, out: &mut [u8]) -> Result<(), Self::Error> {
        self.0.fill_bytes(out);
        Ok(())
    }
}

impl<R: CryptoRng + ?Sized> rand_core::TryCryptoRng for NewerRng<'_, R> {}

#[cfg(test)]
mod tests;
