//! The JSON of a LUKS2 header, as `luksDump --dump-json-metadata` prints it.
//!
//! Strict about what is needed here (a number that is none, a slot that can't be are refused), tolerant of everything else.

use std::collections::{BTreeMap, BTreeSet};

use serde::Deserialize;
use serde_json::{Map, Value};
use sha2::{Digest as _, Sha256};

use crate::agent::volume::{Fingerprint, Progress};

/// Key slots of a header.
pub(super) const SLOTS: u8 = 32;
/// Tokens of a header.
pub(super) const TOKENS: u8 = 32;
/// Stripes of the anti-forensic splitter.
const STRIPES: u64 = 4000;
/// What key slot areas are aligned to; also the binary part of the header.
const BLOCK: u64 = 4096;
/// Largest area of a slot that is read.
const MOST_AREA: u64 = 16 * 1024 * 1024;
/// Longest header with its slots that is copied.
const MOST_HEADER: usize = 128 * 1024 * 1024;
/// Segments with a flag of this beginning describe what was or will be, not what is.
const BACKUP: &str = "backup-";

/// A number that LUKS2 writes as text.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Deserialize)]
#[serde(try_from = "String")]
pub(super) struct Number(u64);

impl Number {
    pub(super) const fn get(self) -> u64 {
        self.0
    }
}

impl TryFrom<String> for Number {
    type Error = &'static str;

    fn try_from(text: String) -> Result<Self, Self::Error> {
        let digits = !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit());
        let number = digits.then(|| text.parse().ok()).flatten();
        number.map(Self).ok_or("a number is expected")
    }
}

/// A key slot.
#[derive(Debug, Deserialize)]
pub(super) struct Keyslot {
    #[serde(rename = "type")]
    pub(super) kind: String,
    pub(super) area: Area,
    pub(super) kdf: Option<Kdf>,
    /// Bytes of the key in it.
    pub(super) key_size: u32,
    /// Of the slot of a conversion: which one.
    pub(super) mode: Option<String>,
}

/// Where a slot's bytes lie.
#[derive(Debug, Clone, Copy, Deserialize)]
pub(super) struct Area {
    pub(super) offset: Number,
    pub(super) size: Number,
}

/// How a slot derives.
#[derive(Debug, Deserialize)]
pub(super) struct Kdf {
    #[serde(rename = "type")]
    pub(super) kind: String,
    pub(super) hash: Option<String>,
    pub(super) iterations: Option<u64>,
}

/// A token.
#[derive(Debug, Deserialize)]
pub(super) struct Token {
    #[serde(rename = "type")]
    pub(super) kind: String,
    pub(super) keyslots: Vec<Number>,
    #[serde(flatten)]
    pub(super) rest: Map<String, Value>,
}

impl Token {
    /// Whether it is for this slot and no other.
    pub(super) fn is_for(&self, slot: u8) -> bool {
        matches!(self.keyslots.as_slice(), [one] if one.get() == u64::from(slot))
    }
}

#[derive(Debug, Deserialize)]
struct Segment {
    #[serde(rename = "type")]
    kind: String,
    offset: Number,
    size: String,
    encryption: Option<String>,
    #[serde(default)]
    flags: Vec<String>,
}

impl Segment {
    fn flagged(&self, flag: &str) -> bool {
        self.flags.iter().any(|has| has == flag)
    }

    fn is_now(&self) -> bool {
        !self.flags.iter().any(|flag| flag.starts_with(BACKUP))
    }
}

#[derive(Debug, Deserialize)]
struct Binding {
    keyslots: Vec<Number>,
    segments: Vec<Number>,
}

#[derive(Debug, Deserialize)]
struct Config {
    json_size: Number,
    keyslots_size: Number,
    #[serde(default)]
    requirements: Requirements,
}

#[derive(Debug, Default, Deserialize)]
struct Requirements {
    #[serde(default)]
    mandatory: Vec<String>,
}

#[derive(Debug, Deserialize)]
struct Json {
    keyslots: BTreeMap<u8, Keyslot>,
    tokens: BTreeMap<u8, Token>,
    segments: BTreeMap<u32, Segment>,
    digests: BTreeMap<u32, Binding>,
    config: Config,
}

/// What a volume is being converted to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Conversion {
    /// Encrypted in place.
    Encryption,
    /// Anything else.
    Other,
}

/// Where the first part of the data lies while a volume is being encrypted.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct MovedHead {
    pub(super) offset: u64,
    pub(super) bytes: u64,
}

/// The metadata of a header.
#[derive(Debug)]
pub(super) struct Metadata {
    raw: Value,
    json: Json,
}

impl Metadata {
    /// Reads it. Only what is wrong is said, never what stands there.
    pub(super) fn parse(bytes: &[u8]) -> Result<Self, String> {
        // The words of an error may repeat what stands there.
        let place = |error: serde_json::Error| {
            let what = if error.is_data() { "a field does not fit" } else { "it is no JSON" };
            format!("{what}, at line {} column {}", error.line(), error.column())
        };
        let raw: Value = serde_json::from_slice(bytes).map_err(place)?;
        let json: Json = serde_json::from_slice(bytes).map_err(place)?;
        let past_last = json.keyslots.keys().any(|slot| *slot >= SLOTS);
        if past_last || json.tokens.keys().any(|token| *token >= TOKENS) {
            return Err("a key slot or token has a number that there is not".to_owned());
        }
        Ok(Self { raw, json })
    }

    pub(super) fn keyslots(&self) -> &BTreeMap<u8, Keyslot> {
        &self.json.keyslots
    }

    pub(super) fn tokens(&self) -> &BTreeMap<u8, Token> {
        &self.json.tokens
    }

    /// The slots whose key opens the data.
    pub(super) fn opening_slots(&self) -> BTreeSet<u8> {
        let bound = self.json.digests.values().filter(|digest| !digest.segments.is_empty());
        let bound: BTreeSet<u64> =
            bound.flat_map(|digest| digest.keyslots.iter().map(|slot| slot.get())).collect();
        let slots = self.json.keyslots.iter().filter(|(_, slot)| slot.kind == "luks2");
        slots.map(|(number, _)| *number).filter(|n| bound.contains(&u64::from(*n))).collect()
    }

    /// The free slots that there is room for: how many, and the highest. People and other programs take the lowest, so that one that
    /// was planned is hardly ever taken by somebody else.
    pub(super) fn free_slots(&self) -> (u8, Option<u8>) {
        let free: Vec<u8> =
            (0..SLOTS).filter(|slot| !self.json.keyslots.contains_key(slot)).collect();
        let fit = usize::try_from(self.areas_that_fit()).unwrap_or(usize::MAX).min(free.len());
        let highest = free.last().copied().filter(|_| fit > 0);
        (u8::try_from(fit).unwrap_or(SLOTS), highest)
    }

    /// How many areas of a slot fit between those that are there.
    fn areas_that_fit(&self) -> u64 {
        let key = self.key_bytes().map_or(64, u64::from);
        let area = key.saturating_mul(STRIPES).next_multiple_of(BLOCK).max(BLOCK);
        let config = &self.json.config;
        let begin = config.json_size.get().saturating_add(BLOCK).saturating_mul(2);
        let end = begin.saturating_add(config.keyslots_size.get());
        let mut taken: Vec<(u64, u64)> =
            self.json.keyslots.values().map(|s| s.area.span()).collect();
        taken.push((end, end));
        taken.sort_unstable();
        let mut at = begin;
        let mut fit = 0_u64;
        for (from, to) in taken {
            fit = fit.saturating_add(from.saturating_sub(at) / area);
            at = at.max(to);
        }
        fit
    }

    pub(super) fn free_tokens(&self) -> impl Iterator<Item = u8> + '_ {
        (0..TOKENS).filter(|token| !self.json.tokens.contains_key(token))
    }

    /// The conversion that is under way.
    pub(super) fn conversion(&self) -> Option<Conversion> {
        let mandatory = &self.json.config.requirements.mandatory;
        let under_way = mandatory.iter().any(|one| is_conversion(one));
        let mode = |slot: &&Keyslot| slot.kind == "reencrypt";
        let mode = self.json.keyslots.values().find(mode).and_then(|slot| slot.mode.as_deref());
        under_way.then_some(match mode {
            Some("encrypt") => Conversion::Encryption,
            _ => Conversion::Other,
        })
    }

    /// A requirement that is not known here.
    pub(super) fn unknown_requirement(&self) -> Option<&str> {
        let mut mandatory = self.json.config.requirements.mandatory.iter();
        mandatory.find(|one| !is_conversion(one)).map(String::as_str)
    }

    /// How far an encryption has come. What is in the works counts as not done.
    pub(super) fn progress(&self, volume_bytes: u64) -> Progress {
        let (mut done, mut total) = (0_u64, 0_u64);
        for segment in self.json.segments.values().filter(|segment| segment.is_now()) {
            let rest = volume_bytes.saturating_sub(segment.offset.get());
            let bytes = segment.size.parse().unwrap_or(rest);
            total = total.saturating_add(bytes);
            if segment.kind == "crypt" && !segment.flagged("in-reencryption") {
                done = done.saturating_add(bytes);
            }
        }
        Progress { done, total }
    }

    /// Whether nothing of the data is encrypted, or was being encrypted.
    pub(super) fn is_all_plain(&self) -> bool {
        let mut now = self.json.segments.values().filter(|segment| segment.is_now());
        now.all(|segment| segment.kind == "linear" && !segment.flagged("in-reencryption"))
    }

    /// Of an encryption that has encrypted everything: the JSON of a header that says so, and how long header and slots are.
    pub(super) fn finished(&self) -> Option<(String, usize)> {
        let mut now = self.json.segments.iter().filter(|(_, segment)| segment.is_now());
        let (number, only) = now.next().filter(|_| now.next().is_none())?;
        let is_whole = only.kind == "crypt" && only.size == "dynamic" && only.flags.is_empty();
        if !is_whole || *number != 0 || self.conversion() != Some(Conversion::Encryption) {
            return None;
        }
        let mut raw = self.raw.clone();
        let fields = raw.as_object_mut()?;
        fields.get_mut("segments")?.as_object_mut()?.retain(|number, _| number == "0");
        fields
            .get_mut("keyslots")?
            .as_object_mut()?
            .retain(|_, slot| slot.get("type").and_then(Value::as_str) != Some("reencrypt"));
        let digests = fields.get_mut("digests")?.as_object_mut()?;
        // The digest of the conversion itself belongs to no segment.
        digests.retain(|_, digest| {
            digest.get("segments").and_then(Value::as_array).is_some_and(|of| !of.is_empty())
        });
        let mut digests = digests.values_mut();
        let digest = digests.next().filter(|_| digests.next().is_none())?;
        *digest.get_mut("segments")? = serde_json::json!(["0"]);
        fields.get_mut("config")?.as_object_mut()?.remove("requirements");
        Some((
            raw.to_string(),
            usize::try_from(only.offset.get()).ok().filter(|b| *b <= MOST_HEADER)?,
        ))
    }

    /// Where the first part of the data lies while the volume is being encrypted.
    pub(super) fn moved_head(&self) -> Option<MovedHead> {
        let mut segments = self.json.segments.values();
        let segment = segments.find(|segment| segment.flagged("backup-moved-segment"))?;
        Some(MovedHead { offset: segment.offset.get(), bytes: segment.size.parse().ok()? })
    }

    /// Cipher and mode of the data, or what they will be.
    pub(super) fn cipher(&self) -> Option<&str> {
        self.json.segments.values().find_map(|segment| segment.encryption.as_deref())
    }

    /// Bytes of the volume key.
    pub(super) fn key_bytes(&self) -> Option<u32> {
        let opening = self.opening_slots();
        opening.first().and_then(|slot| self.json.keyslots.get(slot)).map(|slot| slot.key_size)
    }

    /// Where the bytes of a slot lie, if it is there and its area can be one.
    pub(super) fn area(&self, slot: u8) -> Option<(u64, usize)> {
        let area = self.json.keyslots.get(&slot)?.area;
        let bytes = Some(area.size.get()).filter(|bytes| *bytes <= MOST_AREA)?;
        Some((area.offset.get(), usize::try_from(bytes).ok()?))
    }

    /// What a slot holds: its description but for its priority (which says only in which order slots are tried), the digest of the
    /// volume key that it opens, and the bytes of its area.
    pub(super) fn fingerprint(&self, slot: u8, area: &[u8]) -> Option<Fingerprint> {
        let mut described = self.raw.get("keyslots")?.get(slot.to_string())?.as_object()?.clone();
        described.remove("priority");
        let of_slot = |binding: &&Binding| {
            !binding.segments.is_empty()
                && binding.keyslots.iter().any(|one| one.get() == u64::from(slot))
        };
        let (digest, _) = self.json.digests.iter().find(|(_, binding)| of_slot(binding))?;
        let mut digest = self.raw.get("digests")?.get(digest.to_string())?.as_object()?.clone();
        // Which other slots and segments belong to it.
        digest.remove("keyslots");
        digest.remove("segments");
        let mut hash = Sha256::new();
        hash.update(b"holdfast luks2 slot v1\0");
        hash.update([slot]);
        absorb(&mut hash, &Value::Object(described));
        absorb(&mut hash, &Value::Object(digest));
        absorb_bytes(&mut hash, b'a', area);
        Some(Fingerprint::new(hash.finalize().into()))
    }
}

impl Area {
    fn span(self) -> (u64, u64) {
        (self.offset.get(), self.offset.get().saturating_add(self.size.get()))
    }
}

fn is_conversion(requirement: &str) -> bool {
    requirement.starts_with("online-reencrypt") || requirement == "offline-reencrypt"
}

fn absorb_bytes(hash: &mut Sha256, tag: u8, bytes: &[u8]) {
    hash.update([tag]);
    hash.update((bytes.len() as u64).to_be_bytes());
    hash.update(bytes);
}

/// Hashes a value so that two values hash alike only if they are alike, in whatever order their fields stand.
fn absorb(hash: &mut Sha256, value: &Value) {
    match value {
        Value::Null => hash.update(b"n"),
        Value::Bool(value) => hash.update([b'b', u8::from(*value)]),
        Value::Number(number) => absorb_bytes(hash, b'd', number.to_string().as_bytes()),
        Value::String(text) => absorb_bytes(hash, b's', text.as_bytes()),
        Value::Array(items) => {
            absorb_bytes(hash, b'l', &(items.len() as u64).to_be_bytes());
            items.iter().for_each(|item| absorb(hash, item));
        }
        Value::Object(fields) => {
            absorb_bytes(hash, b'o', &(fields.len() as u64).to_be_bytes());
            for (name, field) in fields.iter().collect::<BTreeMap<_, _>>() {
                absorb_bytes(hash, b's', name.as_bytes());
                absorb(hash, field);
            }
        }
    }
}

#[cfg(test)]
mod tests;
