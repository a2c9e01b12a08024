//! Reads the log back at start: drops a torn tail, refuses rot (I6). Changes nothing on disk.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use bytes::Bytes;

use super::format::{
    BATCH_HEADER, FORMAT, FoundBatch, Record, SEGMENT_HEADER, batch_at, batch_behind, records,
};
use super::index::Index;
use super::segment::{Segment, Stored, number_of, path_of, read_header};
use super::types::WalError;
use crate::fs::{Fs, FsFile as _, OpenMode};
use crate::planted::{self, Plant};
use crate::state::Position;

/// More than any number of a batch or a segment: a damaged one may say so, and one more must always fit.
const MOST: u64 = u64::MAX / 2;

/// A segment in use, and the highest entry that was ever written to it.
pub(super) struct Used<F: Fs> {
    pub(super) segment: Arc<Segment<F>>,
    pub(super) highest: Option<u64>,
    /// Bytes in use.
    pub(super) end: u64,
    /// Bytes behind the end up to the last that is not zero, as recovery found it: what a torn tail left.
    pub(super) left: usize,
}

impl<F: Fs> Used<F> {
    /// A segment without a batch.
    pub(super) fn empty(segment: Arc<Segment<F>>) -> Self {
        Self { segment, highest: None, end: SEGMENT_HEADER as u64, left: 0 }
    }
}

/// What was found.
pub(super) struct Recovered<F: Fs> {
    pub(super) index: Index<F>,
    /// Ascending; the last one is written on.
    pub(super) segments: Vec<Used<F>>,
    /// Number of the next batch.
    pub(super) next_batch: u64,
    /// Number of the next segment.
    pub(super) next_segment: u64,
    /// Files that hold nothing: a reserve, or a segment whose making was cut off.
    pub(super) unused: Vec<PathBuf>,
    /// The last batch, and where it begins in the last segment.
    pub(super) last_batch: Option<(u64, Bytes)>,
    /// Where something stands behind the last batch that is none: a torn tail, which is dropped.
    pub(super) torn: Option<(PathBuf, u64)>,
}

/// One file's contents while they are read.
struct Loaded<F: Fs> {
    segment: Arc<Segment<F>>,
    bytes: Bytes,
}

pub(super) fn recover<F: Fs>(
    fs: &F,
    dir: &Path,
    cache_bytes: usize,
) -> Result<Recovered<F>, WalError> {
    let io = |source| WalError::Io { source };
    let mut numbers: Vec<u64> =
        fs.read_dir(dir).map_err(io)?.iter().filter_map(|name| number_of(name)).collect();
    numbers.sort_unstable();
    for pair in numbers.windows(2) {
        if let [before, after] = pair
            && before + 1 != *after
        {
            let what = format!("segment {:016x} is missing", before + 1);
            return Err(WalError::Damaged { file: path_of(dir, before + 1), offset: 0, what });
        }
    }
    let mut replay = Replay::new(cache_bytes);
    let next_segment = match numbers.last() {
        None => 0,
        Some(last) => next_number(*last).ok_or_else(|| WalError::Damaged {
            file: path_of(dir, *last),
            offset: 0,
            what: "no segment can have this number".to_owned(),
        })?,
    };
    let mut unused = Vec::new();
    for number in numbers {
        if replay.cut_off {
            unused.push(path_of(dir, number));
            continue;
        }
        match load(fs, dir, number)? {
            Some(loaded) => replay.segment(loaded)?,
            None => unused.push(path_of(dir, number)),
        }
        if !unused.is_empty()
            && replay.segments.last().is_some_and(|used| used.segment.header.number == number)
        {
            let what = "its header is damaged, and later segments are in use";
            let file = unused.first().cloned().unwrap_or_default();
            return Err(WalError::Damaged { file, offset: 0, what: what.to_owned() });
        }
    }
    unused.append(&mut replay.empty);
    replay.finish(dir, next_segment, unused)
}

fn next_number(number: u64) -> Option<u64> {
    number.checked_add(1).filter(|next| *next <= MOST)
}

/// A segment's contents; `None` if the file was never used.
fn load<F: Fs>(fs: &F, dir: &Path, number: u64) -> Result<Option<Loaded<F>>, WalError> {
    let io = |source| WalError::Io { source };
    let path = path_of(dir, number);
    let file = fs.open(&path, OpenMode::ReadWrite).map_err(io)?;
    let damaged =
        |what: &str| WalError::Damaged { file: path.clone(), offset: 0, what: what.to_owned() };
    let length = u32::try_from(file.len().map_err(io)?)
        .ok()
        .and_then(|length| usize::try_from(length).ok())
        .ok_or_else(|| damaged("it is longer than any segment"))?;
    let mut bytes = vec![0; length];
    file.read_at(&mut bytes, 0).map_err(io)?;
    match read_header(&bytes) {
        Ok((_, format)) if format > FORMAT => {
            Err(WalError::NewerFormat { file: path, found: format, known: FORMAT })
        }
        Ok((header, _)) if header.number == number => {
            let segment = Arc::new(Segment { header, file, path });
            Ok(Some(Loaded { segment, bytes: Bytes::from(bytes) }))
        }
        Ok(_) => Err(damaged("its header is another segment's")),
        // A header is durable before the first batch is written, so a file without one was never used; if it was, its
        // header is damaged.
        Err(what) => {
            let used =
                bytes.get(SEGMENT_HEADER..).unwrap_or_default().iter().any(|byte| *byte != 0);
            if used { Err(damaged(what)) } else { Ok(None) }
        }
    }
}

/// What it means that batch `found` stands at `offset`, behind the place where `expected` should and does not.
///
/// Batches are written in order, each where the one before ended, and a segment is never used twice. So no torn tail explains
/// an older one further on either: only a disk that wrote to, or read from, another place than it was told. What else it
/// misplaced nobody knows, so nothing may be acknowledged in front of it.
fn misplaced(expected: u64, found: u64, offset: usize) -> String {
    if found >= expected {
        format!("batch {expected} is damaged: a later one stands at offset {offset}")
    } else {
        format!("batch {found} stands a second time at offset {offset}, behind the end of the log")
    }
}

/// The state while segments are replayed in order.
struct Replay<F: Fs> {
    index: Index<F>,
    segments: Vec<Used<F>>,
    empty: Vec<PathBuf>,
    next_batch: Option<u64>,
    /// Highest entry that was ever written before the oldest segment, if that one begins in the middle of the log.
    removed_highest: Option<u64>,
    last_batch: Option<(u64, Bytes)>,
    /// Only with [`Plant::RotCutOff`]: what follows is thrown away.
    cut_off: bool,
    torn: Option<(PathBuf, u64)>,
}

impl<F: Fs> Replay<F> {
    fn new(cache_bytes: usize) -> Self {
        Self {
            index: Index::new(cache_bytes),
            segments: Vec::new(),
            empty: Vec::new(),
            next_batch: None,
            removed_highest: None,
            last_batch: None,
            cut_off: false,
            torn: None,
        }
    }

    /// Replays one segment to the last batch that follows without a gap.
    fn segment(&mut self, loaded: Loaded<F>) -> Result<(), WalError> {
        let Loaded { segment, bytes } = loaded;
        let salt = segment.header.salt;
        let mut used = Used::empty(segment.clone());
        let mut offset = SEGMENT_HEADER;
        let mut last = None;
        while let Some(batch) = batch_at(&bytes, offset, salt) {
            let expected = *self.next_batch.get_or_insert(batch.number);
            if batch.number != expected {
                let what = format!("batch {} stands where {expected} should", batch.number);
                return Err(self.damaged_before(&segment, offset, &what));
            }
            self.batch(&mut used, &bytes, offset, batch)?;
            let Some(next) = next_number(expected) else {
                return Err(segment.damaged(offset as u64, "no batch can have this number"));
            };
            self.next_batch = Some(next);
            last = Some((offset, batch.total));
            offset = offset.saturating_add(batch.total);
            used.end = offset as u64;
        }
        if let Some((start, length)) = last {
            let end = start.saturating_add(length).min(bytes.len());
            self.last_batch = Some((
                start as u64,
                Bytes::copy_from_slice(bytes.get(start..end).unwrap_or_default()),
            ));
        }
        if let Some((at, behind)) = batch_behind(&bytes, offset, salt) {
            if planted::is(Plant::RotCutOff) {
                self.segments.push(used);
                self.cut_off = true;
                return Ok(());
            }
            let what = misplaced(self.next_batch.unwrap_or(0), behind.number, at);
            return Err(segment.damaged(offset as u64, what));
        }
        if offset > SEGMENT_HEADER && (bytes.len() as u64) < segment.header.length {
            let (is, was) = (bytes.len(), segment.header.length);
            return Err(segment.damaged(is as u64, format!("it was cut off: {is} of {was} bytes")));
        }
        let rest = bytes.get(offset..).unwrap_or_default();
        used.left =
            rest.iter().rposition(|byte| *byte != 0).map_or(0, |last| last.saturating_add(1));
        let more = used.left > 0;
        // What an older tail left in a segment that has another one behind it was told at its time.
        if more || offset > SEGMENT_HEADER {
            self.torn = more.then(|| (segment.path.clone(), offset as u64));
        }
        if offset == SEGMENT_HEADER {
            self.empty.push(segment.path.clone());
        } else if self.empty.is_empty() {
            self.segments.push(used);
        } else {
            let what = "the segment before it holds nothing".to_owned();
            return Err(segment.damaged(offset as u64, what));
        }
        Ok(())
    }

    /// A gap in the numbers shows at the later batch, but the damage lies where the earlier one ended.
    fn damaged_before(&self, segment: &Segment<F>, offset: usize, what: &str) -> WalError {
        match self.segments.last().filter(|_| offset == SEGMENT_HEADER) {
            Some(before) => {
                before.segment.damaged(before.end, format!("{what} in the next segment"))
            }
            None => segment.damaged(offset as u64, what),
        }
    }

    fn batch(
        &mut self,
        used: &mut Used<F>,
        bytes: &Bytes,
        offset: usize,
        batch: FoundBatch,
    ) -> Result<(), WalError> {
        let start = offset.saturating_add(BATCH_HEADER);
        let payload = bytes.slice(start..start.saturating_add(batch.payload));
        let located =
            records(&payload).map_err(|what| used.segment.damaged(offset as u64, what))?;
        for found in located {
            let at = start.saturating_add(found.offset);
            self.record(used, at, found.record)
                .map_err(|what| used.segment.damaged(at as u64, what))?;
        }
        Ok(())
    }

    fn record(&mut self, used: &mut Used<F>, at: usize, record: Record) -> Result<(), String> {
        match record {
            Record::Entry(mut entry) => {
                used.highest = used.highest.max(Some(entry.id.index));
                let offset = u32::try_from(at).map_err(|_| "the segment is too long".to_owned())?;
                let length = u32::try_from(entry.payload.bytes().len())
                    .map_err(|_| "the entry is too long".to_owned())?;
                let stored = Stored { segment: used.segment.clone(), offset, length };
                // The payload is a slice of the whole segment; a copy lets the segment's memory go.
                entry.payload.detach();
                self.index.restore(entry, stored)
            }
            Record::Vote(vote) => {
                self.index.vote = Some(vote);
                Ok(())
            }
            Record::Committed(at) => {
                self.index.committed = Some(at);
                Ok(())
            }
            Record::TruncateAfter(last) => self.truncate(Some(last)),
            Record::TruncateAll => self.truncate(None),
            Record::Purge(upto) => {
                self.index.purge(upto);
                Ok(())
            }
            Record::Last(last, highest) => {
                if self.segments.is_empty() {
                    // The entries before lie in segments that were removed; by the end they must have been purged.
                    if let Some(last) = last.filter(|last| {
                        self.index.last().is_none_or(|known| known.index < last.index)
                    }) {
                        self.index.begin_after(last);
                    }
                    self.removed_highest = Some(highest);
                }
                Ok(())
            }
            Record::Closed => Ok(()),
        }
    }

    fn truncate(&mut self, last: Option<Position>) -> Result<(), String> {
        self.index.truncate_after(last).map_err(|error| error.to_string())
    }

    fn finish(
        mut self,
        dir: &Path,
        next_segment: u64,
        unused: Vec<PathBuf>,
    ) -> Result<Recovered<F>, WalError> {
        let purged = self.index.purged().map(|purged| purged.index);
        if let Some(missing) =
            self.removed_highest.filter(|highest| purged.is_none_or(|purged| purged < *highest))
        {
            let first = self.segments.first().map_or(0, |used| used.segment.header.number);
            let what =
                format!("older segments are missing: entries up to {missing} are not purged");
            return Err(WalError::Damaged {
                file: path_of(dir, first.saturating_sub(1)),
                offset: 0,
                what,
            });
        }
        // Saved beside an entry that was about to be replaced, it would pass that entry off as committed.
        self.index.committed = self.index.committed.filter(|at| self.index.holds(*at));
        Ok(Recovered {
            index: self.index,
            last_batch: self.last_batch,
            torn: self.torn,
            segments: self.segments,
            next_batch: self.next_batch.unwrap_or(0),
            next_segment,
            unused,
        })
    }
}
