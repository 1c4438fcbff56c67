//! The small language of `rspctl watch --template`: text, values, and two blocks.
//!
//! `{{pool}}` and `{{count}}` anywhere; `{{for}}` .. `{{end}}` once for each element, by identifier, and in it `{{id}}`,
//! `{{ip}}` (an IPv6 address in brackets), `{{port}}`, `{{address}}` (both), `{{weight}}` (1 unless the policy has one),
//! `{{policy}}`, `{{number}}` (from 1); `{{if empty}}` .. `{{else}}` .. `{{end}}`. A line that has nothing but a block's
//! mark leaves no empty line. Unknown names are errors.

use rserpool::wire::{Policy, PoolElement, PoolHandle};
use std::fmt::Write;
use std::net::SocketAddr;

#[derive(Debug, Clone, PartialEq, Eq)]
enum Node {
    Text(String),
    Value(String),
    For(Vec<Node>),
    IfEmpty(Vec<Node>, Vec<Node>),
}

/// A template that was read.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Template(Vec<Node>);

const EVERYWHERE: [&str; 2] = ["pool", "count"];
const OF_ELEMENTS: [&str; 7] = ["id", "ip", "port", "address", "weight", "policy", "number"];

/// Text, and marks with the line that they are on.
enum Piece<'a> {
    Text(&'a str),
    Mark(&'a str, usize),
}

fn pieces(text: &str) -> Result<Vec<Piece<'_>>, String> {
    let mut pieces = Vec::new();
    let mut rest = text;
    let mut line = 1;
    while let Some(start) = rest.find("{{") {
        line += rest[..start].matches('\n').count();
        let Some(length) = rest[start..].find("}}") else {
            return Err(format!("line {line}: a closing }}}} is missing"));
        };
        let mark = rest[start + 2..start + length].trim();
        let before = &rest[..start];
        let behind = &rest[start + length + 2..];
        let is_block = mark.starts_with("for") || mark.starts_with("if ") || mark == "else" || mark == "end";
        let begin = before.rfind('\n').map_or(0, |at| at + 1);
        let starts_line =
            before[begin..].trim().is_empty() && (begin > 0 || pieces.is_empty() || before.is_empty());
        let alone = is_block && starts_line && behind.lines().next().unwrap_or_default().trim().is_empty();
        pieces.push(Piece::Text(if alone { &before[..begin] } else { before }));
        pieces.push(Piece::Mark(mark, line));
        rest = match behind.find('\n') {
            Some(end) if alone => {
                line += 1;
                &behind[end + 1..]
            }
            None if alone => "",
            _ => behind,
        };
    }
    pieces.push(Piece::Text(rest));
    Ok(pieces)
}

impl Template {
    /// Reads a template; the error says in which line something is wrong.
    pub fn parse(text: &str) -> Result<Template, String> {
        let mut pieces = pieces(text)?.into_iter();
        let (nodes, end) = parse_nodes(&mut pieces, false)?;
        match end {
            None => Ok(Template(nodes)),
            Some((mark, line)) => Err(format!("line {line}: {{{{{mark}}}}} without a beginning")),
        }
    }

    /// The text for a pool.
    pub fn render(&self, pool: &PoolHandle, elements: &[PoolElement]) -> String {
        let mut out = String::new();
        render(&self.0, pool, elements, None, &mut out);
        out
    }
}

type BlockEnd = Option<(String, usize)>;

fn parse_nodes<'a>(
    pieces: &mut impl Iterator<Item = Piece<'a>>,
    inside: bool,
) -> Result<(Vec<Node>, BlockEnd), String> {
    let mut nodes = Vec::new();
    while let Some(piece) = pieces.next() {
        let (mark, line) = match piece {
            Piece::Text("") => continue,
            Piece::Text(text) => {
                nodes.push(Node::Text(text.to_owned()));
                continue;
            }
            Piece::Mark(mark, line) => (mark, line),
        };
        let unended = || format!("line {line}: {{{{{mark}}}}} without {{{{end}}}}");
        match mark {
            "end" | "else" => return Ok((nodes, Some((mark.to_owned(), line)))),
            "for" if inside => return Err(format!("line {line}: {{{{for}}}} inside of another")),
            "for" => match parse_nodes(pieces, true)? {
                (body, Some((end, _))) if end == "end" => nodes.push(Node::For(body)),
                (_, Some((end, line))) => return Err(format!("line {line}: {{{{{end}}}}} in {{{{for}}}}")),
                (_, None) => return Err(unended()),
            },
            "if empty" => {
                let (then, end) = parse_nodes(pieces, inside)?;
                let (otherwise, end) = match end {
                    Some((mark, _)) if mark == "else" => parse_nodes(pieces, inside)?,
                    end => (Vec::new(), end),
                };
                match end {
                    Some((end, _)) if end == "end" => nodes.push(Node::IfEmpty(then, otherwise)),
                    _ => return Err(unended()),
                }
            }
            value if EVERYWHERE.contains(&value) || inside && OF_ELEMENTS.contains(&value) => {
                nodes.push(Node::Value(value.to_owned()));
            }
            value if OF_ELEMENTS.contains(&value) => {
                return Err(format!("line {line}: {{{{{value}}}}} only inside of {{{{for}}}}"));
            }
            unknown => return Err(format!("line {line}: unknown name {{{{{unknown}}}}}")),
        }
    }
    Ok((nodes, None))
}

fn weight(policy: &Policy) -> u32 {
    match policy {
        Policy::WeightedRoundRobin { weight }
        | Policy::WeightedRandom { weight }
        | Policy::WeightedRandomDpf { weight, .. } => *weight,
        _ => 1,
    }
}

fn render(
    nodes: &[Node],
    pool: &PoolHandle,
    elements: &[PoolElement],
    current: Option<(usize, &PoolElement)>,
    out: &mut String,
) {
    for node in nodes {
        match node {
            Node::Text(text) => out.push_str(text),
            Node::Value(name) => value(name, pool, elements, current, out),
            Node::For(body) => {
                for (number, element) in elements.iter().enumerate() {
                    render(body, pool, elements, Some((number + 1, element)), out);
                }
            }
            Node::IfEmpty(then, otherwise) => {
                let branch = if elements.is_empty() { then } else { otherwise };
                render(branch, pool, elements, current, out);
            }
        }
    }
}

fn value(
    name: &str,
    pool: &PoolHandle,
    elements: &[PoolElement],
    current: Option<(usize, &PoolElement)>,
    out: &mut String,
) {
    let address = current.and_then(|(_, element)| element.transport.socket_addresses().next());
    let ip = |address: SocketAddr| match address {
        SocketAddr::V4(address) => address.ip().to_string(),
        SocketAddr::V6(address) => format!("[{}]", address.ip()),
    };
    // Writing into a string can't fail.
    let _ = match (name, current) {
        ("pool", _) => write!(out, "{pool}"),
        ("count", _) => write!(out, "{}", elements.len()),
        ("id", Some((_, element))) => write!(out, "{}", element.id),
        ("policy", Some((_, element))) => write!(out, "{}", element.policy),
        ("weight", Some((_, element))) => write!(out, "{}", weight(&element.policy)),
        ("number", Some((number, _))) => write!(out, "{number}"),
        ("ip", _) => write!(out, "{}", address.map(ip).unwrap_or_default()),
        ("port", _) => write!(out, "{}", address.map(|address| address.port()).unwrap_or_default()),
        _ => write!(out, "{}", address.map(|address| address.to_string()).unwrap_or_default()),
    };
}

#[cfg(test)]
mod tests {
    use super::*;
    use rserpool::wire::{PeId, Protocol, RegistrarId, Transport, TransportUse};

    fn element(id: u32, ip: &str) -> PoolElement {
        PoolElement {
            id: PeId(id),
            home: RegistrarId(1),
            life: 1000,
            transport: Transport::new(Protocol::Tcp, TransportUse::DataOnly, 80, vec![ip.parse().unwrap()]),
            policy: Policy::WeightedRandom { weight: 7 },
            asap: None,
        }
    }

    fn rendered(template: &str, elements: &[PoolElement]) -> String {
        let pool = PoolHandle::new(b"Web").unwrap();
        Template::parse(template).map_or_else(|error| error, |template| template.render(&pool, elements))
    }

    #[test]
    fn values_and_blocks() {
        let two = [element(1, "192.0.2.1"), element(2, "2001:db8::2")];
        let template =
            "upstream {{pool}} {\n  {{for}}\n  server {{address}} weight={{weight}};\n  {{end}}\n}\n";
        assert_eq!(
            rendered(template, &two),
            "upstream Web {\n  server 192.0.2.1:80 weight=7;\n  server [2001:db8::2]:80 weight=7;\n}\n"
        );
        assert_eq!(
            rendered("{{for}}{{number}}={{ip}}:{{port}} {{end}}", &two),
            "1=192.0.2.1:80 2=[2001:db8::2]:80 "
        );
        let choice = "{{if empty}}\nnobody\n{{else}}\n{{count}}\n{{end}}\n";
        assert_eq!((rendered(choice, &[]), rendered(choice, &two)), ("nobody\n".into(), "2\n".into()));
        assert_eq!(
            rendered("{{for}}{{id}} {{policy}}{{end}}", &two[..1]).split(' ').next(),
            Some("0x00000001")
        );
    }

    #[test]
    fn mistakes_are_found_when_it_is_read() {
        for (template, error) in [
            ("a\n{{nonsense}}", "line 2: unknown name {{nonsense}}"),
            ("{{id}}", "line 1: {{id}} only inside of {{for}}"),
            ("{{for}}", "line 1: {{for}} without {{end}}"),
            ("{{for}}{{for}}{{end}}{{end}}", "line 1: {{for}} inside of another"),
            ("x{{end}}", "line 1: {{end}} without a beginning"),
            ("{{if empty}}{{for}}{{else}}", "line 1: {{else}} in {{for}}"),
            ("\n\n{{pool", "line 3: a closing }} is missing"),
        ] {
            assert_eq!(Template::parse(template).unwrap_err(), error, "{template}");
        }
    }
}
