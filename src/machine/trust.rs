//! What a peer may be: the roles that its certificate names, decided about as values.
//!
//! A role is a URI in the certificate's subjectAltName, or a word in the access file:
//!
//! | name | may |
//! |---|---|
//! | `rserpool:registrar:<scope>` | be a registrar of that scope; without a scope: of any |
//! | `rserpool:element:<pools>` | register, change and deregister elements of these pools, and serve their users |
//! | `rserpool:user`, `rserpool:user:<pools>` | resolve any pool handle, or these; be such a pool's user |
//! | `rserpool:operator` | resolve any pool handle, have sessions with any element |
//!
//! `<pools>` is a pool handle in which `*` stands for any bytes; `%XX` is a byte. Other names say nothing.

use crate::wire::PoolHandle;

/// A pattern of pool handles; `None` is `*`.
#[derive(Debug, Clone, PartialEq, Eq)]
struct PoolPattern(Vec<Option<u8>>);

#[derive(Debug, Clone, PartialEq, Eq)]
enum CertifiedRole {
    Registrar(Option<String>),
    Element(PoolPattern),
    User(PoolPattern),
    Operator,
}

/// Everything that one peer may be. Nothing, if its certificate names no role.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Roles(Vec<CertifiedRole>);

/// What all role names begin with.
pub const PREFIX: &str = "rserpool:";

impl Roles {
    /// The roles among `names`, with [`PREFIX`] or without.
    pub fn parse<'a>(names: impl IntoIterator<Item = &'a str>) -> Roles {
        Roles(names.into_iter().filter_map(role).collect())
    }

    /// Whether no role was named.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// Whether it may be a registrar of `scope`; `None`: of any.
    pub fn is_registrar(&self, scope: Option<&str>) -> bool {
        self.0.iter().any(|role| match role {
            CertifiedRole::Registrar(Some(own)) => scope.is_none_or(|scope| scope == own),
            CertifiedRole::Registrar(None) => true,
            _ => false,
        })
    }

    /// The scope whose registrar it is, if it names one.
    pub fn scope(&self) -> Option<&str> {
        self.0.iter().find_map(|role| match role {
            CertifiedRole::Registrar(scope) => scope.as_deref(),
            _ => None,
        })
    }

    /// Whether it may have elements in the pool.
    pub fn may_serve(&self, handle: &[u8]) -> bool {
        self.0.iter().any(|role| matches!(role, CertifiedRole::Element(pools) if pools.matches(handle)))
    }

    /// Whether it may have elements at all.
    pub fn may_serve_some(&self) -> bool {
        self.0.iter().any(|role| matches!(role, CertifiedRole::Element(_)))
    }

    /// Whether it may ask for the pool's elements: its users, its elements, registrars and operators.
    pub fn may_resolve(&self, handle: &[u8]) -> bool {
        self.0.iter().any(|role| match role {
            CertifiedRole::User(pools) | CertifiedRole::Element(pools) => pools.matches(handle),
            CertifiedRole::Registrar(_) | CertifiedRole::Operator => true,
        })
    }

    /// Whether it may have sessions with the pool's elements.
    pub fn may_use(&self, handle: &[u8]) -> bool {
        self.0.iter().any(|role| match role {
            CertifiedRole::User(pools) => pools.matches(handle),
            CertifiedRole::Operator => true,
            _ => false,
        })
    }

    /// Whether it may have sessions at all.
    pub fn may_use_some(&self) -> bool {
        self.0.iter().any(|role| matches!(role, CertifiedRole::User(_) | CertifiedRole::Operator))
    }

    /// Whether it may do what is for operators only.
    pub fn is_operator(&self) -> bool {
        self.0.contains(&CertifiedRole::Operator)
    }
}

impl std::fmt::Display for Roles {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        if self.0.is_empty() {
            return f.write_str("nothing");
        }
        for (number, role) in self.0.iter().enumerate() {
            let separator = if number > 0 { ", " } else { "" };
            match role {
                CertifiedRole::Registrar(None) => write!(f, "{separator}registrar")?,
                CertifiedRole::Registrar(Some(scope)) => write!(f, "{separator}registrar of {scope}")?,
                CertifiedRole::Element(pools) => write!(f, "{separator}element of {pools}")?,
                CertifiedRole::User(pools) => write!(f, "{separator}user of {pools}")?,
                CertifiedRole::Operator => write!(f, "{separator}operator")?,
            }
        }
        Ok(())
    }
}

fn role(name: &str) -> Option<CertifiedRole> {
    let name = name.strip_prefix(PREFIX).unwrap_or(name);
    let (kind, detail) = match name.split_once(':') {
        Some((kind, detail)) => (kind, Some(detail)),
        None => (name, None),
    };
    match (kind, detail) {
        ("registrar", None) => Some(CertifiedRole::Registrar(None)),
        ("registrar", Some(scope)) => {
            let scope = String::from_utf8(bytes(scope)?).ok()?;
            (!scope.is_empty()).then_some(CertifiedRole::Registrar(Some(scope)))
        }
        ("element", Some(pools)) => Some(CertifiedRole::Element(PoolPattern::parse(pools)?)),
        ("user", None) => Some(CertifiedRole::User(PoolPattern(vec![None]))),
        ("user", Some(pools)) => Some(CertifiedRole::User(PoolPattern::parse(pools)?)),
        ("operator", None) => Some(CertifiedRole::Operator),
        _ => None,
    }
}

/// Whether `name` is the name of a role: what `rspctl ca issue` and the access file may write.
pub fn is_role(name: &str) -> bool {
    role(name).is_some()
}

/// The URI of a role of a pool, as it goes into a certificate. `kind`: element or user.
pub fn pool_role(kind: &str, pools: &str) -> String {
    let mut name = format!("{PREFIX}{kind}:");
    for byte in pools.bytes() {
        match byte {
            b'a'..=b'z' | b'A'..=b'Z' | b'0'..=b'9' | b'-' | b'.' | b'_' | b'~' | b'*' => {
                name.push(char::from(byte));
            }
            _ => name += &format!("%{byte:02X}"),
        }
    }
    name
}

/// With `%XX` made the bytes that they stand for; `None` if one is broken.
fn bytes(text: &str) -> Option<Vec<u8>> {
    symbols(text)?.into_iter().map(|symbol| Some(symbol.unwrap_or(b'*'))).collect()
}

fn symbols(text: &str) -> Option<Vec<Option<u8>>> {
    let mut rest = text.as_bytes();
    let mut symbols = Vec::with_capacity(rest.len());
    while let [first, tail @ ..] = rest {
        rest = tail;
        symbols.push(match first {
            b'*' => None,
            b'%' => {
                let (digits, tail) = rest.split_at_checked(2)?;
                rest = tail;
                let digits = std::str::from_utf8(digits).ok().filter(|text| !text.starts_with('+'))?;
                Some(u8::from_str_radix(digits, 16).ok()?)
            }
            byte => Some(*byte),
        });
    }
    Some(symbols)
}

impl PoolPattern {
    fn parse(text: &str) -> Option<PoolPattern> {
        let mut symbols = symbols(text).filter(|symbols| !symbols.is_empty())?;
        // Two stars are one: what a pattern costs to match is bounded by one backtrack.
        symbols.dedup_by(|a, b| a.is_none() && b.is_none());
        Some(PoolPattern(symbols))
    }

    fn matches(&self, handle: &[u8]) -> bool {
        let pattern = &self.0;
        let (mut at, mut next) = (0, 0);
        // Where the last star was, and what it has swallowed so far.
        let mut star: Option<(usize, usize)> = None;
        while next < handle.len() {
            match pattern.get(at) {
                Some(None) => {
                    star = Some((at, next));
                    at += 1;
                }
                Some(Some(byte)) if *byte == handle[next] => (at, next) = (at + 1, next + 1),
                _ => {
                    let Some((position, swallowed)) = star else { return false };
                    star = Some((position, swallowed + 1));
                    (at, next) = (position + 1, swallowed + 1);
                }
            }
        }
        pattern[at..].iter().all(Option::is_none)
    }
}

impl std::fmt::Display for PoolPattern {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let text: Vec<u8> = self.0.iter().map(|symbol| symbol.unwrap_or(b'*')).collect();
        match PoolHandle::new(&text) {
            Some(handle) => write!(f, "\"{handle}\""),
            None => f.write_str("\"\""),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_become_roles_and_others_say_nothing() {
        let roles = Roles::parse([
            "rserpool:registrar:prod",
            "rserpool:element:Echo*",
            "rserpool:user:%45cho",
            "https://example.org/",
            "rserpool:element:",
            "rserpool:registrar:",
            "rserpool:emperor",
            "rserpool:user:%4",
            "rserpool:user:%+1",
        ]);
        assert_eq!(roles.to_string(), "registrar of prod, element of \"Echo*\", user of \"Echo\"");
        assert_eq!(roles.scope(), Some("prod"));
        assert!(roles.is_registrar(Some("prod")) && roles.is_registrar(None));
        assert!(!roles.is_registrar(Some("test")));
        assert!(roles.may_serve(b"Echo") && roles.may_serve(b"Echo7") && !roles.may_serve(b"echo"));
        assert!(roles.may_use(b"Echo") && !roles.may_use(b"Echo7"));
        assert!(!roles.is_operator());
        assert!(Roles::parse(["operator"]).is_operator());
        assert!(Roles::parse([]).is_empty());
    }

    #[test]
    fn who_may_do_what() {
        for (name, serve, resolve, user, registrar) in [
            ("rserpool:registrar", false, true, false, true),
            ("rserpool:element:P", true, true, false, false),
            ("rserpool:element:Q", false, false, false, false),
            ("rserpool:user", false, true, true, false),
            ("rserpool:user:Q*", false, false, false, false),
            ("rserpool:operator", false, true, true, false),
            ("rserpool:nobody", false, false, false, false),
        ] {
            let roles = Roles::parse([name]);
            let found = (
                roles.may_serve(b"P"),
                roles.may_resolve(b"P"),
                roles.may_use(b"P"),
                roles.is_registrar(Some("s")),
            );
            assert_eq!(found, (serve, resolve, user, registrar), "{name}");
        }
    }

    #[test]
    fn stars_stand_for_any_bytes() {
        for (pattern, yes, no) in [
            ("*", &["", "x", "*"][..], &[][..]),
            ("a*c", &["ac", "abc", "abcc"], &["a", "abcd", "bac"]),
            ("**a**b", &["ab", "xaxb", "aab"], &["ba", "a"]),
            ("a%2Ac", &["a*c"], &["abc"]),
            ("%00*", &["\0", "\0x"], &["x\0"]),
        ] {
            let pools = PoolPattern::parse(pattern).unwrap();
            yes.iter().for_each(|text| assert!(pools.matches(text.as_bytes()), "{pattern} {text}"));
            no.iter().for_each(|text| assert!(!pools.matches(text.as_bytes()), "{pattern} {text}"));
        }
        let hard = PoolPattern::parse(&"*a".repeat(100)).unwrap();
        assert!(!hard.matches(&[b'a'; 60_000][..99]));
        assert!(hard.matches(&[b'a'; 60_000]));
    }

    #[test]
    fn what_is_written_is_read() {
        for pools in ["Echo", "a b/c:d", "*", "ünï*"] {
            let name = pool_role("element", pools);
            assert!(name.bytes().all(|byte| byte.is_ascii_graphic()), "{name}");
            assert!(Roles::parse([name.as_str()]).may_serve(pools.replace('*', "x").as_bytes()), "{name}");
            assert!(is_role(&name));
        }
        assert!(!is_role("rserpool:element"));
    }
}
