//! Where who keeps a server's registration is found by that server: `rspctl register --while-listening`, and
//! `librserpool-preload.so` in the server.

/// The abstract UNIX socket (unix(7)) of the one who keeps what listens on a port in a pool, without its leading zero.
pub fn keeper_name(port: u16, pool: &[u8]) -> Vec<u8> {
    let mut name = format!("rserpool-serve-{port}-").into_bytes();
    // No zero and no more than fits: a name that is cut may stand for two pools, of which one is then not kept.
    name.extend(pool.iter().take(80).map(|&byte| if byte == 0 { b'0' } else { byte }));
    name
}
