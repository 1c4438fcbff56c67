//! What is made in pieces, between which others are served: how long a piece may be, and JSON of which a list is
//! made so.

use serde_json::Value;

/// What a piece may cost, in elements looked at: about half a millisecond.
const WORK: usize = 100;
/// Bytes that cost as much as an element.
const BYTES: usize = 512;

/// What is left of a piece.
#[derive(Debug)]
pub struct Piece {
    left: usize,
}

impl Piece {
    pub fn new() -> Piece {
        Piece { left: WORK }
    }

    /// One thing was looked at, and so many bytes.
    pub fn spend(&mut self, bytes: usize) {
        self.left = self.left.saturating_sub(1 + bytes / BYTES);
    }

    /// Whether the rest is for the next piece.
    pub fn is_spent(&self) -> bool {
        self.left == 0
    }
}

/// The text of a list's rows.
#[derive(Debug, Default)]
pub struct Rows {
    text: String,
    count: usize,
}

impl Rows {
    pub fn add(&mut self, row: &str) {
        if self.count > 0 {
            self.text.push(',');
        }
        self.text.push_str(row);
        self.count += 1;
    }

    pub fn count(&self) -> usize {
        self.count
    }

    /// Bytes so far.
    pub fn size(&self) -> usize {
        self.text.len()
    }
}

/// An object, and behind its members these lists.
pub fn object(members: &Value, lists: &[(&str, &Rows)]) -> String {
    let mut text = members.to_string();
    for (name, rows) in lists {
        text.pop();
        open_list(&mut text, name);
        text += &rows.text;
        text += "]}";
    }
    text
}

/// An object whose last member, a list, is to be continued.
pub fn opened(members: &Value, list: &str) -> String {
    let mut text = members.to_string();
    text.pop();
    open_list(&mut text, list);
    text
}

fn open_list(text: &mut String, name: &str) {
    let comma = if text.len() > 1 { "," } else { "" };
    *text += &format!("{comma}\"{name}\":[");
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn what_is_long_costs_more() {
        let pieces = |bytes| {
            let (mut piece, mut count) = (Piece::new(), 0);
            while !piece.is_spent() {
                piece.spend(bytes);
                count += 1;
            }
            count
        };
        assert_eq!([pieces(0), pieces(BYTES), pieces(BYTES * WORK)], [WORK, WORK / 2, 1]);
    }

    #[test]
    fn lists_stand_behind_the_other_members() {
        let mut rows = Rows::default();
        assert_eq!(object(&json!({}), &[("a", &rows)]), "{\"a\":[]}");
        rows.add("1");
        rows.add("{}");
        assert_eq!((rows.count(), rows.size()), (2, 4));
        let none = Rows::default();
        let text = object(&json!({ "b": 2 }), &[("a", &rows), ("c", &none)]);
        assert_eq!(text, "{\"b\":2,\"a\":[1,{}],\"c\":[]}");
        assert_eq!(opened(&json!({ "b": 2 }), "a"), "{\"b\":2,\"a\":[");
    }
}
