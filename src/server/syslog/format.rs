//! Messages of RFC 5424, and how they follow one another in a stream (RFC 6587, 3.4.1; RFC 5425, 4.3).

use crate::client::evidence::Checkpoint;
use crate::domain::Timestamp;

/// "Log audit" (13), "normal but significant" (5).
const PRIORITY: u8 = 13 * 8 + 5;
/// Names the elements of a checkpoint. 32473 is the enterprise number that RFC 5612 keeps for whoever has none.
const ELEMENT: &str = "holdfast@32473";

/// The header of a message, without what is the same in all of them.
#[derive(Debug, Clone, Copy)]
pub(super) struct Header<'a> {
    pub(super) priority: u8,
    /// As RFC 3339 has it.
    pub(super) time: Option<&'a str>,
    pub(super) host: &'a str,
    pub(super) program: &'a str,
    pub(super) process: &'a str,
    pub(super) kind: &'a str,
}

/// Names and values of one element of the structured data.
type Element<'a> = (&'a str, &'a [(&'a str, &'a str)]);

/// Who sends: what all messages of a server have in common.
#[derive(Debug, Clone)]
pub(in super::super) struct Origin {
    pub(in super::super) host: String,
    pub(in super::super) process: u32,
}

impl Origin {
    /// A checkpoint as a message. Its text is the very line that the file of checkpoints has, without the newline: what a
    /// collector cuts out of its log can be verified as it is.
    pub(super) fn message(&self, checkpoint: &Checkpoint) -> Result<Vec<u8>, serde_json::Error> {
        let line = checkpoint.to_line()?;
        let head = checkpoint.facts.head;
        let time = moment(checkpoint.facts.time);
        let process = self.process.to_string();
        let header = Header {
            priority: PRIORITY,
            time: time.as_deref(),
            host: &self.host,
            program: "holdfast",
            process: &process,
            kind: "checkpoint",
        };
        let (cluster, node) = (checkpoint.cluster.to_string(), checkpoint.node.to_string());
        let (sequence, hash) = (head.sequence.to_string(), hex::encode(head.hash));
        let values = [
            ("cluster", cluster.as_str()),
            ("node", node.as_str()),
            ("sequence", sequence.as_str()),
            ("hash", hash.as_str()),
        ];
        Ok(message(&header, &[(ELEMENT, &values)], line.trim_end()).into_bytes())
    }
}

/// A point in time in UTC; `None` if no calendar has it.
fn moment(time: Timestamp) -> Option<String> {
    let ms = i64::try_from(time.as_millis()).ok()?;
    Some(jiff::Timestamp::from_millisecond(ms).ok()?.to_string())
}

/// A message. Without a byte order mark before its text: that one would become part of the line that is cut out, and plain
/// ASCII needs none.
pub(super) fn message(header: &Header<'_>, data: &[Element<'_>], text: &str) -> String {
    let mut message = format!("<{}>1 {}", header.priority, header.time.unwrap_or("-"));
    let fields =
        [(header.host, 255), (header.program, 48), (header.process, 128), (header.kind, 32)];
    for (field, most) in fields {
        message.push(' ');
        push_field(&mut message, field, most);
    }
    message.push(' ');
    for (name, values) in data {
        // The names are our own; the values may be anything.
        message.push('[');
        message.push_str(name);
        for (name, value) in *values {
            message.push(' ');
            message.push_str(name);
            message.push_str("=\"");
            push_value(&mut message, value);
            message.push('"');
        }
        message.push(']');
    }
    if data.is_empty() {
        message.push('-');
    }
    if !text.is_empty() {
        message.push(' ');
        message.push_str(text);
    }
    message
}

/// A field of the header: printable ASCII without blanks, of a bounded length; "-" for none.
fn push_field(message: &mut String, field: &str, most: usize) {
    let before = message.len();
    message.extend(field.chars().filter(char::is_ascii_graphic).take(most));
    if message.len() == before {
        message.push('-');
    }
}

/// The three characters that would end a value or its element.
fn push_value(message: &mut String, value: &str) {
    for character in value.chars() {
        if matches!(character, '"' | '\\' | ']') {
            message.push('\\');
        }
        message.push(character);
    }
}

/// A message with its length before it, as it stands in a stream.
pub(super) fn framed(message: &[u8]) -> Vec<u8> {
    [format!("{} ", message.len()).as_bytes(), message].concat()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::crypto::CheckpointFacts;
    use crate::domain::{AuditPosition, ClusterId, NodeId};

    const NONE: Header<'_> =
        Header { priority: 165, time: None, host: "", program: "", process: "", kind: "" };

    /// The examples of RFC 5424, 6.5, without the byte order mark, which a sender may leave out.
    #[test]
    fn the_examples_of_the_rfc_are_written_so() {
        let header = Header {
            time: Some("2003-10-11T22:14:15.003Z"),
            host: "mymachine.example.com",
            program: "evntslog",
            kind: "ID47",
            ..NONE
        };
        let first: Element<'_> = (
            "exampleSDID@32473",
            &[("iut", "3"), ("eventSource", "Application"), ("eventID", "1011")],
        );
        let second: Element<'_> = ("examplePriority@32473", &[("class", "high")]);
        assert_eq!(
            message(&header, &[first], "An application event log entry..."),
            "<165>1 2003-10-11T22:14:15.003Z mymachine.example.com evntslog - ID47 \
             [exampleSDID@32473 iut=\"3\" eventSource=\"Application\" eventID=\"1011\"] \
             An application event log entry..."
        );
        assert_eq!(
            message(&header, &[first, second], ""),
            "<165>1 2003-10-11T22:14:15.003Z mymachine.example.com evntslog - ID47 \
             [exampleSDID@32473 iut=\"3\" eventSource=\"Application\" eventID=\"1011\"]\
             [examplePriority@32473 class=\"high\"]"
        );
        let header = Header { priority: 34, program: "su", ..header };
        assert_eq!(
            message(&header, &[], "'su root' failed for lonvick on /dev/pts/8"),
            "<34>1 2003-10-11T22:14:15.003Z mymachine.example.com su - ID47 - \
             'su root' failed for lonvick on /dev/pts/8"
        );
    }

    #[test]
    fn no_value_ends_its_element_and_no_field_the_header() {
        let data: Element<'_> = ("x@1", &[("a", r#"1"2\3]4"#)]);
        assert_eq!(message(&NONE, &[data], ""), r#"<165>1 - - - - - [x@1 a="1\"2\\3\]4"]"#);
        let long = "x".repeat(300);
        let header =
            Header { host: &long, program: "a b\n<34>1", process: "\u{e9}", kind: &long, ..NONE };
        let expected = format!("<165>1 - {} ab<34>1 - {} -", "x".repeat(255), "x".repeat(32));
        assert_eq!(message(&header, &[], ""), expected);
    }

    #[test]
    fn a_frame_counts_bytes_and_not_characters() {
        assert_eq!(framed("a\u{e9}".as_bytes()), b"3 a\xc3\xa9");
    }

    #[test]
    fn a_checkpoint_says_of_which_record_it_is_and_its_text_is_the_line_of_the_file() {
        let head = AuditPosition { sequence: 40, hash: [0xa1; 32] };
        let time = Timestamp::from_millis(1_795_392_000_123);
        let checkpoint = Checkpoint {
            cluster: ClusterId::from_bytes([7; 16]),
            facts: CheckpointFacts { head, term: 3, index: 258, time },
            node: NodeId::new(2),
            signature: vec![1; 64].into(),
            signer_chain: vec![vec![2; 30].into()],
        };
        let origin = Origin { host: "keys2.example.org".to_owned(), process: 4711 };
        let message = String::from_utf8(origin.message(&checkpoint).unwrap()).unwrap();
        let (header, text) = message.split_once("] ").unwrap();
        let expected = format!(
            "<109>1 2026-11-23T00:00:00.123Z keys2.example.org holdfast 4711 checkpoint \
             [holdfast@32473 cluster=\"07070707-0707-0707-0707-070707070707\" node=\"2\" \
             sequence=\"40\" hash=\"{}\"",
            "a1".repeat(32)
        );
        assert_eq!(header, expected);
        assert_eq!(Checkpoint::from_line(text.as_bytes()).unwrap(), checkpoint);
    }
}
