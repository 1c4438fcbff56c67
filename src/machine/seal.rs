//! Signed cookies (RFC 5352 section 3.8): what an element leaves with its user comes back to another element of the
//! pool unchanged, or not at all. All elements of a pool share one key; users need none, to them a cookie is bytes.
//!
//! A signed cookie is the program's bytes and behind them HMAC-SHA256 (32 bytes) of a label, the pool handle's
//! length and bytes, and the program's bytes. It does not say when it was signed or for whom: a user can still
//! give back an older cookie, or another user's.

use crate::wire::PoolHandle;
use ring::hmac;

/// Bytes that a signature takes.
pub const SIGNATURE: usize = 32;
/// The shortest key.
pub const SHORTEST_KEY: usize = 16;
/// Sets these signatures apart from others with the same key.
const LABEL: &[u8] = b"rserpool cookie 1";

/// The key that the elements of a process sign with.
#[derive(Debug, Clone)]
pub struct CookieKey(hmac::Key);

impl CookieKey {
    /// `None` with less than [`SHORTEST_KEY`] bytes.
    pub fn new(key: &[u8]) -> Option<CookieKey> {
        (key.len() >= SHORTEST_KEY).then(|| CookieKey(hmac::Key::new(hmac::HMAC_SHA256, key)))
    }

    /// The signature of a pool's element.
    pub fn seal(&self, handle: &PoolHandle) -> Seal {
        let length = (handle.as_bytes().len() as u32).to_be_bytes();
        Seal { key: self.0.clone(), before: [LABEL, &length, handle.as_bytes()].concat() }
    }
}

/// Signs and verifies the cookies of one pool.
#[derive(Clone)]
pub struct Seal {
    key: hmac::Key,
    /// What is signed before the cookie.
    before: Vec<u8>,
}

impl std::fmt::Debug for Seal {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Seal")
    }
}

impl Seal {
    /// The cookie with its signature.
    pub fn sign(&self, cookie: &[u8]) -> Vec<u8> {
        let signature = hmac::sign(&self.key, &[&self.before, cookie].concat());
        [cookie, signature.as_ref()].concat()
    }

    /// The cookie without its signature; `None` if it is not ours. Takes as long whatever differs.
    pub fn open(&self, mut signed: Vec<u8>) -> Option<Vec<u8>> {
        let length = signed.len().checked_sub(SIGNATURE)?;
        let (cookie, signature) = signed.split_at(length);
        hmac::verify(&self.key, &[&self.before, cookie].concat(), signature).ok()?;
        signed.truncate(length);
        Some(signed)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn seal(key: &[u8], pool: &str) -> Seal {
        CookieKey::new(key).unwrap().seal(&PoolHandle::new(pool.as_bytes()).unwrap())
    }

    #[test]
    fn a_cookie_comes_back_as_it_was_signed_or_not_at_all() {
        let (key, other) = ([7; 16], [8; 16]);
        for cookie in [&b""[..], b"state", &[0; 4000]] {
            let signed = seal(&key, "pool").sign(cookie);
            assert_eq!(signed.len(), cookie.len() + SIGNATURE);
            assert_eq!(seal(&key, "pool").open(signed.clone()).as_deref(), Some(cookie));
            // Another key, another pool, another pool and cookie that give the same bytes.
            assert_eq!(seal(&other, "pool").open(signed.clone()), None);
            assert_eq!(seal(&key, "poo").open([b"l", signed.as_slice()].concat()), None);
            for at in [0, signed.len() / 2, signed.len() - 1] {
                let mut changed = signed.clone();
                changed[at] ^= 1;
                assert_eq!(seal(&key, "pool").open(changed), None, "bit of byte {at}");
            }
            assert_eq!(seal(&key, "pool").open(signed[1..].to_vec()), None);
        }
        assert_eq!(seal(&key, "pool").open(vec![0; SIGNATURE - 1]), None);
        assert!(CookieKey::new(&[1; SHORTEST_KEY - 1]).is_none());
    }
}
