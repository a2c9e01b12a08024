//! The search for planted keys in every byte that the servers wrote, and for panics in their logs.

use std::fs::File;
use std::io::{BufRead as _, BufReader, Read as _};
use std::path::Path;

use anyhow::Context as _;
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD_NO_PAD;
use holdfast::domain::{ProtectorKind, RecoveryKey};

use crate::env::files;
use crate::history::{Call, Event};

/// How much of a file is searched at once.
const CHUNK: usize = 1 << 20;
/// How many bytes of a form are looked up before all of it is compared.
const HEAD: usize = 8;

/// The part of a base64 text that does not depend on what stands before and after, for each way it can be aligned.
fn base64_forms(bytes: &[u8]) -> Vec<Vec<u8>> {
    let aligned = (0..3_usize).filter_map(|before| {
        let padded: Vec<u8> = vec![0; before].into_iter().chain(bytes.iter().copied()).collect();
        let text = STANDARD_NO_PAD.encode(&padded);
        let (skip, keep) = ((before * 8).div_ceil(6), padded.len() * 8 / 6);
        text.as_bytes().get(skip..keep).map(<[u8]>::to_vec)
    });
    aligned.collect()
}

/// Every form that a key could stand somewhere in.
fn forms(key: &str) -> Vec<(&'static str, Vec<u8>)> {
    let plain = key.replace('-', "");
    let mut all = Vec::new();
    for (text, names) in [
        (key, ["with dashes", "with dashes, UTF-16", "with dashes, base64"]),
        (&plain, ["without dashes", "without dashes, UTF-16", "without dashes, base64"]),
    ] {
        let [as_is, utf16, base64] = names;
        all.push((as_is, text.as_bytes().to_vec()));
        all.push((utf16, text.encode_utf16().flat_map(u16::to_le_bytes).collect()));
        all.extend(base64_forms(text.as_bytes()).into_iter().map(|form| (base64, form)));
    }
    let parsed = RecoveryKey::parse(ProtectorKind::BitLockerRecoveryPassword, key).ok();
    if let Some(raw) = parsed.as_ref().and_then(RecoveryKey::bitlocker_key) {
        all.push(("raw", raw.to_vec()));
        all.push(("raw, hexadecimal", hex::encode(raw.as_slice()).into_bytes()));
        all.extend(base64_forms(raw.as_slice()).into_iter().map(|form| ("raw, base64", form)));
    }
    all
}

/// A search for many byte strings in one pass.
///
/// A run of an hour has hundreds of thousands of keys with dozens of forms each, so that only the head of each form is kept, and whose
/// it is. Where a head stands, which is next to nowhere, the key's forms are made again.
pub(crate) struct Search {
    keys: Vec<String>,
    /// Heads of forms and the keys that they are of, in order.
    heads: Vec<([u8; HEAD], u32)>,
    /// Whether any form may begin with bytes of this hash: most places are passed over by this alone.
    begins: Vec<bool>,
    longest: usize,
}

fn hash(head: &[u8; HEAD]) -> usize {
    let mixed = u64::from_le_bytes(*head).wrapping_mul(0x9e37_79b9_7f4a_7c15) >> 40;
    usize::try_from(mixed).unwrap_or(0)
}

impl Search {
    /// For all forms of some keys.
    pub(crate) fn new(keys: Vec<String>) -> Self {
        let (mut heads, mut begins, mut longest) = (Vec::new(), vec![false; 1 << 24], 0);
        for (number, key) in (0_u32..).zip(&keys) {
            for (_, form) in forms(key) {
                let Some(head) = form.first_chunk::<HEAD>().copied() else { continue };
                if let Some(begins) = begins.get_mut(hash(&head)) {
                    *begins = true;
                }
                longest = longest.max(form.len());
                heads.push((head, number));
            }
        }
        heads.sort_unstable();
        Self { keys, heads, begins, longest }
    }

    /// The keys of which a form has this head.
    fn with_head(&self, head: &[u8; HEAD]) -> impl Iterator<Item = &String> {
        let from = self.heads.partition_point(|(known, _)| known < head);
        let known = self.heads.get(from..).unwrap_or_default().iter();
        let mut of: Vec<u32> =
            known.take_while(|(known, _)| known == head).map(|(_, key)| *key).collect();
        of.dedup();
        of.into_iter().filter_map(|key| self.keys.get(usize::try_from(key).ok()?))
    }

    fn in_bytes(&self, bytes: &[u8], found: &mut impl FnMut(usize, &'static str)) {
        for (at, head) in bytes.windows(HEAD).enumerate() {
            let Ok(head) = <&[u8; HEAD]>::try_from(head) else { continue };
            if self.begins.get(hash(head)) != Some(&true) {
                continue;
            }
            let rest = bytes.get(at..).unwrap_or_default();
            for (name, form) in self.with_head(head).flat_map(|key| forms(key)) {
                if rest.starts_with(&form) {
                    found(at, name);
                }
            }
        }
    }

    /// Searches a file; where something was found, and how many bytes other than zeros were looked at.
    ///
    /// # Errors
    /// If it can't be read.
    pub(crate) fn in_file(&self, path: &Path) -> anyhow::Result<(Vec<String>, u64)> {
        let mut file = File::open(path).with_context(|| path.display().to_string())?;
        let (mut found, mut looked, mut offset) = (Vec::new(), 0, 0_usize);
        let mut buffer: Vec<u8> = Vec::new();
        loop {
            // What the last chunk ended with may be the beginning of a form.
            let keep = buffer.len().min(self.longest.saturating_sub(1));
            offset += buffer.len() - keep;
            buffer.drain(..buffer.len() - keep);
            let taken = (&mut file).take(u64::try_from(CHUNK)?).read_to_end(&mut buffer)?;
            if taken == 0 {
                return Ok((found, looked));
            }
            // Most of an image was never written to.
            if buffer.iter().all(|byte| *byte == 0) {
                continue;
            }
            looked += u64::try_from(taken)?;
            self.in_bytes(&buffer, &mut |at, name| {
                // What lies wholly in the part that was kept was found before.
                let length = self.longest;
                if at + length > keep || offset == 0 || keep == 0 {
                    let place = format!("{}, byte {}: a key {name}", path.display(), offset + at);
                    if !found.contains(&place) {
                        found.push(place);
                    }
                }
            });
        }
    }

    /// Some key that it knows.
    pub(crate) fn some_key(&self) -> Option<&str> {
        self.keys.first().map(String::as_str)
    }

    /// How many forms it knows.
    const fn count(&self) -> usize {
        self.heads.len()
    }
}

/// Shows that the search finds what is there: every form of a key in a file, one of them over the edge of two chunks.
///
/// # Errors
/// If it does not.
pub(crate) fn control(search: &Search, key: &str, dir: &Path) -> anyhow::Result<String> {
    let path = dir.join("planted");
    let all = forms(key);
    for (name, form) in &all {
        for before in [6, CHUNK - form.len() / 2] {
            let bytes = [&vec![b'x'; before], form.as_slice(), b"after"].concat();
            files::write(&path, &bytes)?;
            let (found, _) = search.in_file(&path)?;
            let place = format!("byte {before}: a key {name}");
            let seen = found.iter().any(|found| found.ends_with(&place));
            anyhow::ensure!(seen, "a planted key {name} was not found: {found:?}");
        }
    }
    std::fs::remove_file(&path)?;
    Ok(format!("{} forms of a planted key were found, each twice", all.len()))
}

/// The keys of a history.
///
/// # Errors
/// If it can't be read.
pub(crate) fn keys(history: &Path) -> anyhow::Result<Vec<String>> {
    let mut keys = Vec::new();
    for line in BufReader::new(File::open(history)?).lines() {
        if let Ok(Event::Invoke(invoke)) = serde_json::from_str(&line?)
            && let Call::Escrow { key, .. } = invoke.call
        {
            keys.push(key);
        }
    }
    keys.sort_unstable();
    keys.dedup();
    Ok(keys)
}

/// Searches files; what was found in each, and one line about all.
///
/// # Errors
/// If one can't be read.
pub(crate) fn search_files(
    search: &Search,
    paths: &[std::path::PathBuf],
) -> anyhow::Result<(Vec<String>, String)> {
    let (mut found, mut bytes) = (Vec::new(), 0);
    for path in paths {
        let (here, looked) = search.in_file(path)?;
        found.extend(here);
        bytes += looked;
    }
    let about =
        format!("{} files, {} MiB, {} forms of keys", paths.len(), bytes >> 20, search.count());
    Ok((found, about))
}

/// Lines of a log that tell of a panic.
pub(crate) fn panics(log: &str) -> Vec<&str> {
    let tells = |line: &&str| line.contains("panic;") || line.contains("panicked at");
    log.lines().filter(tells).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    const KEY: &str = "471207-278498-422125-177177-561902-537405-468006-693451";
    const OTHER: &str = "236808-089419-192665-495704-618299-073414-538373-542366";

    #[test]
    fn every_form_of_a_key_is_found_and_another_key_is_not() {
        let dir = tempfile::tempdir().unwrap();
        let search = Search::new(vec![KEY.to_owned()]);
        let control = control(&search, KEY, dir.path()).unwrap();
        assert!(control.starts_with("15 forms"), "{control}");
        let path = dir.path().join("other");
        files::write(&path, OTHER.as_bytes()).unwrap();
        assert_eq!(search.in_file(&path).unwrap().0, Vec::<String>::new());
        // A search that knows nothing of the key fails its control.
        let blind = Search::new(vec![OTHER.to_owned()]);
        assert!(super::control(&blind, KEY, dir.path()).is_err());
    }

    #[test]
    fn a_panic_is_found_in_a_log() {
        assert_eq!(panics("a\nERROR panic; the process ends at once\nb").len(), 1);
        assert_eq!(panics("the view's engine panics on some of this").len(), 0);
    }
}
