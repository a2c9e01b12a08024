//! A few words of HTML. Text is escaped on its way in.

/// Text as it may stand in an element or an attribute.
pub(super) fn escape(text: &str) -> String {
    let mut escaped = String::with_capacity(text.len());
    for c in text.chars() {
        match c {
            '&' => escaped.push_str("&amp;"),
            '<' => escaped.push_str("&lt;"),
            '>' => escaped.push_str("&gt;"),
            '"' => escaped.push_str("&quot;"),
            '\'' => escaped.push_str("&#39;"),
            // Control characters have no place in HTML.
            c if c.is_control() && c != '\n' => escaped.push('\u{fffd}'),
            c => escaped.push(c),
        }
    }
    escaped
}

/// An element around markup.
pub(super) fn around(name: &str, markup: &str) -> String {
    format!("<{name}>{markup}</{name}>\n")
}

/// An element with text.
pub(super) fn element(name: &str, text: &str) -> String {
    around(name, &escape(text))
}

/// A list of texts; nothing if there are none.
pub(super) fn list<'t>(texts: impl IntoIterator<Item = &'t str>) -> String {
    let items: String = texts.into_iter().map(|text| element("li", text)).collect();
    if items.is_empty() { items } else { around("ul", &items) }
}

/// A table of texts. The first cell of each row is its heading; a row may have a class.
pub(super) fn table(caption: &str, head: &[&str], rows: &[(&str, Vec<String>)]) -> String {
    let mut markup = element("caption", caption);
    let cells: String =
        head.iter().map(|name| format!("<th scope=\"col\">{}</th>", escape(name))).collect();
    markup.push_str(&around("thead", &around("tr", &cells)));
    let mut body = String::new();
    for (class, cells) in rows {
        body.push_str(&format!("<tr class=\"{}\">", escape(class)));
        for (at, cell) in cells.iter().enumerate() {
            let cell = escape(cell);
            if at == 0 {
                body.push_str(&format!("<th scope=\"row\">{cell}</th>"));
            } else {
                body.push_str(&format!("<td>{cell}</td>"));
            }
        }
        body.push_str("</tr>\n");
    }
    markup.push_str(&around("tbody", &body));
    format!("<div class=\"wide\"><table>{markup}</table></div>\n")
}

/// A moment in UTC: `2026-11-24 22:13:20 UTC`.
pub(super) fn moment(unix_ms: u64) -> String {
    let seconds = unix_ms / 1000;
    let (days, rest) = (seconds / 86_400, seconds % 86_400);
    // Days since 1 March of the year 0: leap days come last then.
    let days = days.saturating_add(719_468);
    let (era, day) = (days / 146_097, days % 146_097);
    let year = (day - day / 1460 + day / 36_524 - day / 146_096) / 365;
    let of_year = day - (365 * year + year / 4 - year / 100);
    let shifted = (5 * of_year + 2) / 153;
    let (day, month) = (of_year - (153 * shifted + 2) / 5 + 1, (shifted + 2) % 12 + 1);
    let year = era.saturating_mul(400) + year + u64::from(month <= 2);
    let (hour, minute, second) = (rest / 3600, rest / 60 % 60, rest % 60);
    format!("{year:04}-{month:02}-{day:02} {hour:02}:{minute:02}:{second:02} UTC")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn moments_are_those_of_the_calendar() {
        for (ms, text) in [
            (0, "1970-01-01 00:00:00 UTC"),
            (951_827_696_000, "2000-02-29 12:34:56 UTC"),
            (1_798_761_599_999, "2026-12-31 23:59:59 UTC"),
            (1_709_251_200_000, "2024-03-01 00:00:00 UTC"),
        ] {
            assert_eq!(moment(ms), text);
        }
    }
}
