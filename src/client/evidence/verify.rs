//! Verifying an export, with nothing but what is known from elsewhere.

use std::collections::BTreeMap;
use std::io::BufRead;

use super::export::{ExportEnd, ExportLine, WHAT};
use super::lines::Lines;
use super::{Checkpoint, EvidenceError, ExportHead, error};
use crate::client::{ChainVerifier, Receipt};
use crate::domain::{AuditPosition, ClusterId};

/// A place on the chain that is known from elsewhere.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Anchor {
    /// The record and its hash.
    pub position: AuditPosition,
    /// The cluster whose chain it is on, if that is known too.
    pub cluster: Option<ClusterId>,
    /// Where it is known from, for a person.
    pub source: String,
}

impl From<&Checkpoint> for Anchor {
    /// Of a checkpoint that was verified.
    fn from(checkpoint: &Checkpoint) -> Self {
        let time = error::when(checkpoint.facts.time);
        Self {
            position: checkpoint.facts.head,
            cluster: Some(checkpoint.cluster),
            source: format!("the checkpoint that node {} signed at {time}", checkpoint.node),
        }
    }
}

impl From<&Receipt> for Anchor {
    /// Of a receipt that was verified.
    fn from(receipt: &Receipt) -> Self {
        let facts = &receipt.facts;
        Self {
            position: AuditPosition { sequence: facts.audit_sequence, hash: facts.audit_hash },
            cluster: Some(receipt.cluster),
            source: format!(
                "the receipt of key {} that node {} signed",
                facts.protector, receipt.node
            ),
        }
    }
}

/// An export that holds.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct VerifiedExport {
    /// Its header.
    pub head: ExportHead,
    /// How many records it has.
    pub records: u64,
    /// Its last record.
    pub end: AuditPosition,
    /// How many anchors it agrees with.
    pub anchors: u64,
    /// The last record up to which an anchor shows that nothing was changed; 0 if there is no anchor.
    pub known_to: u64,
}

/// What an export that was interrupted has left: a header and records that hold.
#[derive(Debug, Clone)]
pub struct Resumable {
    /// Its header.
    pub head: ExportHead,
    /// Bytes of it that are good; what follows is a line that was not written to its end.
    pub length: u64,
    pub(super) chain: ChainVerifier,
    pub(super) records: u64,
    /// Whether the line that ends it is there already.
    pub complete: bool,
}

/// The lines of an export, each verified as it is read.
struct Scanner<R> {
    lines: Lines<R>,
    head: ExportHead,
    chain: ChainVerifier,
    records: u64,
    /// Bytes up to and with the last good line.
    length: u64,
}

enum Step {
    Record(AuditPosition),
    End,
    /// The file stops within a line, with this number.
    Cut(u64),
    Nothing,
}

impl<R: BufRead> Scanner<R> {
    /// Reads the header.
    fn open(reader: R) -> Result<Self, EvidenceError> {
        let mut lines = Lines::new(reader);
        let Some(line) = lines.next_line()? else {
            return Err(EvidenceError::Malformed { what: WHAT, fault: "it is empty".to_owned() });
        };
        let head = line.whole().and_then(parse).and_then(|parsed| match parsed {
            ExportLine::Header(head) => head.check().map(|()| head),
            ExportLine::Record(_) | ExportLine::End(_) => {
                Err(EvidenceError::Misplaced("an export must begin with its header"))
            }
        });
        let head = head.map_err(|error| error.at_line(line.number))?;
        let chain = ChainVerifier::after(head.before());
        Ok(Self { lines, head, chain, records: 0, length: line.end })
    }

    fn step(&mut self) -> Result<Step, EvidenceError> {
        let Some(line) = self.lines.next_line()? else { return Ok(Step::Nothing) };
        if !line.is_complete() {
            return Ok(Step::Cut(line.number));
        }
        let step = line.whole().and_then(parse).and_then(|parsed| self.take(parsed));
        let step = step.map_err(|error| error.at_line(line.number))?;
        self.length = line.end;
        Ok(step)
    }

    fn take(&mut self, line: ExportLine) -> Result<Step, EvidenceError> {
        match line {
            ExportLine::Header(_) => {
                Err(EvidenceError::Misplaced("a second header: two exports in one file"))
            }
            ExportLine::Record(line) => {
                let record = line.record().map_err(|error| {
                    let what = format!("record {}: {error}", line.sequence);
                    EvidenceError::Malformed { what: WHAT, fault: what }
                })?;
                self.chain.take_record(&record, line.hash).map_err(EvidenceError::Chain)?;
                self.records = self.records.saturating_add(1);
                Ok(Step::Record(self.chain.head()))
            }
            ExportLine::End(end) => self.check_end(&end).map(|()| Step::End),
        }
    }

    fn check_end(&self, end: &ExportEnd) -> Result<(), EvidenceError> {
        let found = self.chain.head();
        self.head.check_end(found)?;
        let differs = |what, stated: String, expected: String| {
            Err(EvidenceError::Differs { what, stated, expected })
        };
        if end.count != self.records {
            return differs("number of records", self.records.to_string(), end.count.to_string());
        }
        if (end.last, end.hash) != (found.sequence, found.hash) {
            return differs("last hash", hex::encode(found.hash), hex::encode(end.hash));
        }
        Ok(())
    }
}

/// A line must be written exactly as an export writes it, so that no byte of it can be changed without being noticed.
fn parse(line: &[u8]) -> Result<ExportLine, EvidenceError> {
    let malformed = |fault: String| EvidenceError::Malformed { what: WHAT, fault };
    let parsed: ExportLine =
        serde_json::from_slice(line).map_err(|error| malformed(error.to_string()))?;
    if serde_json::to_vec(&parsed).is_ok_and(|written| written == line) {
        Ok(parsed)
    } else {
        Err(malformed("the line is not written as an export writes it".to_owned()))
    }
}

/// Verifies an export from its first line to its last, and that it agrees with every anchor from its first record on. An
/// anchor after its last record shows that the end was cut off.
///
/// # Errors
/// Names the first bad record, or the check that failed; also if there are anchors and none is about a record of it.
pub fn verify_export(
    reader: impl BufRead,
    anchors: &[Anchor],
) -> Result<VerifiedExport, EvidenceError> {
    let mut scanner = Scanner::open(reader)?;
    let head = scanner.head.clone();
    let mut known = Known::new(anchors, &head)?;
    known.compare(head.before())?;
    loop {
        match scanner.step()? {
            Step::Record(position) => known.compare(position)?,
            Step::End => break,
            Step::Cut(line) => return Err(EvidenceError::CutLine.at_line(line)),
            Step::Nothing => {
                return Err(EvidenceError::NoEnd { last: scanner.chain.head().sequence });
            }
        }
    }
    if let Some(line) = scanner.lines.next_line()? {
        let error = EvidenceError::Misplaced("something follows the line that ends the export");
        return Err(error.at_line(line.number));
    }
    let end = scanner.chain.head();
    known.check_reached(end, &head)?;
    let (anchors, known_to) = (known.agreed, known.good);
    Ok(VerifiedExport { head, records: scanner.records, end, anchors, known_to })
}

/// Reads what an interrupted export has left, and verifies it.
///
/// # Errors
/// If what is there is no beginning of an export.
pub fn resumable(reader: impl BufRead) -> Result<Resumable, EvidenceError> {
    let mut scanner = Scanner::open(reader)?;
    let complete = loop {
        match scanner.step()? {
            Step::Record(_) => {}
            Step::End => break true,
            Step::Cut(_) | Step::Nothing => break false,
        }
    };
    let Scanner { head, chain, records, length, .. } = scanner;
    Ok(Resumable { head, length, chain, records, complete })
}

/// The anchors by the record that they are about.
struct Known<'a> {
    anchors: BTreeMap<u64, Vec<&'a Anchor>>,
    agreed: u64,
    good: u64,
}

impl<'a> Known<'a> {
    fn new(anchors: &'a [Anchor], head: &ExportHead) -> Result<Self, EvidenceError> {
        let mut by_record: BTreeMap<u64, Vec<&Anchor>> = BTreeMap::new();
        for anchor in anchors {
            if let Some(expected) = anchor.cluster.filter(|cluster| *cluster != head.cluster_id) {
                return Err(EvidenceError::Cluster { stated: head.cluster_id, expected });
            }
            by_record.entry(anchor.position.sequence).or_default().push(anchor);
        }
        Ok(Self { anchors: by_record, agreed: 0, good: 0 })
    }

    fn compare(&mut self, position: AuditPosition) -> Result<(), EvidenceError> {
        let Some(anchors) = self.anchors.get(&position.sequence) else { return Ok(()) };
        for anchor in anchors {
            if anchor.position.hash != position.hash {
                return Err(EvidenceError::Rewritten {
                    known: position.sequence,
                    source_of: anchor.source.clone(),
                    good: self.good,
                });
            }
            self.agreed = self.agreed.saturating_add(1);
        }
        self.good = position.sequence;
        Ok(())
    }

    /// Nothing that is known lies behind the end, and something lies before it.
    fn check_reached(&self, end: AuditPosition, head: &ExportHead) -> Result<(), EvidenceError> {
        let Some((known, anchors)) = self.anchors.last_key_value() else { return Ok(()) };
        let source_of = anchors.first().map(|anchor| anchor.source.clone()).unwrap_or_default();
        let known = *known;
        if known > end.sequence {
            return Err(EvidenceError::Short { last: end.sequence, known, source_of });
        }
        if self.agreed == 0 {
            return Err(EvidenceError::NotCovered { known, source_of, first: head.first });
        }
        Ok(())
    }
}
