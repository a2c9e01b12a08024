//! Reading lines of bounded length, so that no file takes more memory than a line.

use std::io::{BufRead, Read as _};

use super::{EvidenceError, STATEMENT_BYTES};

/// The lines of a file.
pub(super) struct Lines<R> {
    reader: R,
    number: u64,
    end: u64,
}

/// One line.
pub(super) struct Line {
    /// Its number, from 1.
    pub(super) number: u64,
    /// Where it ends: bytes from the beginning of the file, its newline included.
    pub(super) end: u64,
    text: Vec<u8>,
    complete: bool,
}

impl Line {
    /// Its text, if it has its newline.
    pub(super) fn whole(&self) -> Result<&[u8], EvidenceError> {
        if self.complete { Ok(&self.text) } else { Err(EvidenceError::CutLine) }
    }

    /// Whether it has its newline.
    pub(super) const fn is_complete(&self) -> bool {
        self.complete
    }
}

impl<R: BufRead> Lines<R> {
    pub(super) const fn new(reader: R) -> Self {
        Self { reader, number: 0, end: 0 }
    }

    /// The next line; `None` at the end. One that is too long is an error: no line of ours is.
    pub(super) fn next_line(&mut self) -> Result<Option<Line>, EvidenceError> {
        let mut text = Vec::new();
        let most = STATEMENT_BYTES;
        let mut bounded = (&mut self.reader).take(most.saturating_add(1));
        let read = bounded.read_until(b'\n', &mut text).map_err(EvidenceError::Read)?;
        if read == 0 {
            return Ok(None);
        }
        let read = u64::try_from(read).unwrap_or(u64::MAX);
        self.number = self.number.saturating_add(1);
        self.end = self.end.saturating_add(read);
        let complete = text.pop_if(|last| *last == b'\n').is_some();
        if !complete && read > most {
            let error = EvidenceError::TooLarge { what: "line of such a file", most };
            return Err(error.at_line(self.number));
        }
        Ok(Some(Line { number: self.number, end: self.end, text, complete }))
    }
}
