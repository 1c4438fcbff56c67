//! Certificates of every kind of wrong, at both ends.

use super::*;
use rcgen::{
    BasicConstraints, CertificateParams, CertificateRevocationListParams, ExtendedKeyUsagePurpose, IsCa,
    Issuer, KeyIdMethod, KeyPair, KeyUsagePurpose, RevokedCertParams, SanType, SerialNumber, date_time_ymd,
};
use std::fs;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

/// An authority of these tests.
pub(crate) struct Authority {
    params: CertificateParams,
    pem: String,
    key: KeyPair,
    dir: PathBuf,
}

/// What a certificate is like; the default is a good one.
#[derive(Clone)]
pub(crate) struct Kind {
    pub names: Vec<&'static str>,
    /// Days from now.
    pub from: i64,
    pub until: i64,
    pub usages: Vec<ExtendedKeyUsagePurpose>,
    pub serial: u64,
}

impl Default for Kind {
    fn default() -> Kind {
        let usages = vec![ExtendedKeyUsagePurpose::ServerAuth, ExtendedKeyUsagePurpose::ClientAuth];
        Kind { names: vec!["rserpool:registrar:here"], from: -1, until: 30, usages, serial: 7 }
    }
}

impl Kind {
    pub fn called(names: &[&'static str]) -> Kind {
        Kind { names: names.to_vec(), ..Kind::default() }
    }
}

fn day(number: i64) -> time::OffsetDateTime {
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_secs() as i64;
    date_time_ymd(1970, 1, 1) + Duration::from_secs((now + number * 86_400) as u64)
}

impl Authority {
    pub fn new(name: &str) -> Authority {
        static COUNT: AtomicU32 = AtomicU32::new(0);
        let count = COUNT.fetch_add(1, Ordering::Relaxed);
        let dir = std::env::temp_dir().join(format!("rsp-tls-{}-{count}", std::process::id()));
        fs::create_dir_all(&dir).unwrap();
        let mut params = CertificateParams::default();
        params.distinguished_name.push(rcgen::DnType::CommonName, name);
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
        let key = KeyPair::generate().unwrap();
        let pem = params.self_signed(&key).unwrap().pem();
        Authority { params, pem, key, dir }
    }

    /// Another one, whose certificate this one has signed.
    fn sub(&self) -> (Authority, String) {
        let mut sub = Authority::new("below");
        sub.pem =
            sub.params.signed_by(&sub.key, &Issuer::from_params(&self.params, &self.key)).unwrap().pem();
        let pem = sub.pem.clone();
        (sub, pem)
    }

    /// Certificate and key.
    fn issue(&self, kind: &Kind) -> (String, String) {
        let key = KeyPair::generate().unwrap();
        let mut params = CertificateParams::default();
        (params.not_before, params.not_after) = (day(kind.from), day(kind.until));
        params.extended_key_usages = kind.usages.clone();
        params.serial_number = Some(SerialNumber::from(kind.serial));
        params.use_authority_key_identifier_extension = true;
        params.subject_alt_names =
            kind.names.iter().map(|name| SanType::URI((*name).try_into().unwrap())).collect();
        let certificate = params.signed_by(&key, &Issuer::from_params(&self.params, &self.key)).unwrap();
        (certificate.pem(), key.serialize_pem())
    }

    /// A directory with all files.
    pub fn files(&self, name: &str, kind: &Kind) -> Files {
        let (cert, key) = self.issue(kind);
        self.files_of(name, &cert, &key)
    }

    fn files_of(&self, name: &str, cert: &str, key: &str) -> Files {
        let dir = self.dir.join(name);
        fs::create_dir_all(&dir).unwrap();
        fs::write(dir.join("cert.pem"), cert).unwrap();
        fs::write(dir.join("key.pem"), key).unwrap();
        fs::write(dir.join("ca.pem"), &self.pem).unwrap();
        Files::in_directory(&dir)
    }

    /// A list in which `serial` is revoked, valid for so many days.
    pub fn list(&self, serial: u64, days: i64) -> String {
        let params = CertificateRevocationListParams {
            this_update: day(-60),
            next_update: day(days),
            crl_number: SerialNumber::from(1),
            issuing_distribution_point: None,
            revoked_certs: vec![RevokedCertParams {
                serial_number: SerialNumber::from(serial),
                revocation_time: day(-1),
                reason_code: None,
                invalidity_date: None,
            }],
            key_identifier_method: KeyIdMethod::Sha256,
        };
        params.signed_by(&Issuer::from_params(&self.params, &self.key)).unwrap().pem().unwrap()
    }

    pub fn credentials(&self, name: &str, kind: &Kind) -> Arc<Credentials> {
        Arc::new(Credentials::load(&self.files(name, kind)).unwrap())
    }
}

impl Drop for Authority {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.dir);
    }
}

/// Two ends and the bytes between them.
struct Pair {
    client: Engine,
    server: Engine,
}

/// What each end thinks of the other in the end.
type Verdict = (Result<(), String>, Result<(), String>);

impl Pair {
    fn new(client: &Arc<Credentials>, server: &Arc<Credentials>) -> Pair {
        Pair {
            client: Engine::dialled(client, Purpose::Asap, None).unwrap(),
            server: Engine::accepted(server, Purpose::Asap, None).unwrap(),
        }
    }

    /// Carries bytes to and fro until nothing is left to say.
    fn shake(&mut self) -> Verdict {
        let (mut client, mut server) = (Ok(()), Ok(()));
        for _ in 0..20 {
            let moved = carry(&mut self.client, &mut self.server, &mut server)
                + carry(&mut self.server, &mut self.client, &mut client);
            if moved == 0 {
                break;
            }
        }
        let proved = |engine: &Engine, result: Result<(), String>| match result {
            Ok(()) if !engine.is_proved() => Err("unproved".into()),
            other => other,
        };
        (proved(&self.client, client), proved(&self.server, server))
    }
}

fn carry(from: &mut Engine, to: &mut Engine, result: &mut Result<(), String>) -> usize {
    let mut bytes = Vec::new();
    from.take_output(&mut bytes);
    let mut rest = &bytes[..];
    while !rest.is_empty() && result.is_ok() {
        // In small pieces, as a network might.
        let mut piece = &rest[..rest.len().min(700)];
        let count = match to.read_from(&mut piece).unwrap() {
            Ok(count) => count,
            Err(failure) => {
                *result = Err(failure.to_string());
                break;
            }
        };
        rest = &rest[count..];
    }
    bytes.len()
}

#[test]
fn both_know_each_other_and_messages_pass() {
    let authority = Authority::new("here");
    let client = authority.credentials("client", &Kind::called(&["rserpool:user", "rserpool:element:Echo*"]));
    let server = authority.credentials("server", &Kind::default());
    let mut pair = Pair::new(&client, &server);
    assert_eq!(pair.shake(), (Ok(()), Ok(())));
    assert_eq!(pair.server.names(), ["rserpool:user", "rserpool:element:Echo*"]);
    assert_eq!(pair.client.names(), ["rserpool:registrar:here"]);
    let long: Vec<u8> = (0..200_000u32).map(|number| number as u8).collect();
    let mut bytes = Vec::new();
    pair.server.encrypt(&long, &mut bytes).unwrap();
    pair.server.end(&mut bytes);
    let (mut rest, mut got, mut buffer) = (&bytes[..], Vec::new(), [0; 5000]);
    loop {
        match pair.client.plaintext(&mut buffer) {
            Ok(0) => break,
            Ok(count) => got.extend_from_slice(&buffer[..count]),
            Err(error) => {
                assert_eq!(error.kind(), std::io::ErrorKind::WouldBlock);
                pair.client.read_from(&mut rest).unwrap().unwrap();
            }
        }
    }
    assert_eq!(got, long);
}

/// RFC 5355 section 2.8: nothing that was overheard says anything a second time, the whole of a connection or a record
/// within it.
#[test]
fn what_was_overheard_is_worth_nothing_when_it_comes_again() {
    let authority = Authority::new("here");
    let [client, server] = ["client", "server"].map(|name| authority.credentials(name, &Kind::default()));
    let mut pair = Pair::new(&client, &server);
    let mut overheard = Vec::new();
    let (mut at_client, mut at_server) = (Ok(()), Ok(()));
    for _ in 0..20 {
        let mut bytes = Vec::new();
        pair.client.take_output(&mut bytes);
        overheard.extend_from_slice(&bytes);
        let mut rest = &bytes[..];
        while !rest.is_empty() && at_server.is_ok() {
            at_server = pair.server.read_from(&mut rest).unwrap().map(|_| ()).map_err(|why| why.to_string());
        }
        if carry(&mut pair.server, &mut pair.client, &mut at_client) + bytes.len() == 0 {
            break;
        }
    }
    assert_eq!((at_client, at_server), (Ok(()), Ok(())));
    assert!(pair.server.is_proved());
    let mut record = Vec::new();
    pair.client.encrypt(b"deregister", &mut record).unwrap();
    overheard.extend_from_slice(&record);
    let mut buffer = [0; 100];
    assert!(pair.server.read_from(&mut &record[..]).unwrap().is_ok());
    assert_eq!(pair.server.plaintext(&mut buffer).unwrap(), 10);
    // The record again over the same connection, and all of it over a new one.
    assert!(pair.server.read_from(&mut &record[..]).unwrap().is_err());
    let mut other = Engine::accepted(&server, Purpose::Asap, None).unwrap();
    let mut rest = &overheard[..];
    let mut refused = false;
    while !rest.is_empty() && !refused {
        refused = other.read_from(&mut rest).unwrap().is_err();
    }
    assert!(refused && !other.is_proved());
    assert!(other.plaintext(&mut buffer).is_err());
}

/// Until the server has looked at the client's certificate, the client must not believe that it is in.
#[test]
fn a_client_is_in_only_when_the_server_said_so() {
    let authority = Authority::new("here");
    let [client, server] = ["client", "server"].map(|name| authority.credentials(name, &Kind::default()));
    let mut pair = Pair::new(&client, &server);
    let mut ignored = Ok(());
    carry(&mut pair.client, &mut pair.server, &mut ignored);
    carry(&mut pair.server, &mut pair.client, &mut ignored);
    // Its handshake is over; the server has not seen its certificate.
    assert!(!pair.client.is_proved() && !pair.server.is_proved());
    carry(&mut pair.client, &mut pair.server, &mut ignored);
    assert!(!pair.client.is_proved() && pair.server.is_proved());
    carry(&mut pair.server, &mut pair.client, &mut ignored);
    assert!(pair.client.is_proved());
}

/// A certificate is wrong in the same ways whether it is the client's or the server's.
#[test]
fn wrong_certificates_are_refused_at_either_end_with_the_reason() {
    let ours = Authority::new("here");
    let theirs = Authority::new("here");
    let good = ours.credentials("good", &Kind::default());
    let (below, below_pem) = ours.sub();

    let plain = |kind: Kind| ours.issue(&kind);
    let usage = |usage| plain(Kind { usages: vec![usage], ..Kind::default() });
    let chain = |kind: &Kind| {
        let (cert, key) = below.issue(kind);
        (cert + &below_pem, key)
    };
    let own = (ours.pem.clone(), ours.key.serialize_pem());
    // (what, certificate and key, why a server refuses it, why a client does)
    let same = |why: &'static str| (why, why);
    let cases = [
        ("good", plain(Kind::default()), same("")),
        ("expired", plain(Kind { from: -9, until: -1, ..Kind::default() }), same("has expired")),
        ("not yet valid", plain(Kind { from: 1, ..Kind::default() }), same("not valid yet")),
        ("other authority of the same name", theirs.issue(&Kind::default()), same("signature is none of")),
        ("the authority itself", own, same("authority's own")),
        ("for servers only", usage(ExtendedKeyUsagePurpose::ServerAuth), ("another end", "")),
        ("for clients only", usage(ExtendedKeyUsagePurpose::ClientAuth), ("", "another end")),
        ("a chain of three", chain(&Kind::default()), same("")),
        ("a chain without its middle", below.issue(&Kind::default()), same("another authority's")),
        ("revoked", plain(Kind { serial: 666, ..Kind::default() }), same("was revoked")),
    ];
    let files = ours.files("listed", &Kind::default());
    fs::write(files.crl.as_ref().unwrap(), ours.list(666, 10)).unwrap();
    let judge = Arc::new(Credentials::load(&files).unwrap());
    for (what, (cert, key), (by_server, by_client)) in cases {
        let files = ours.files_of("case", &cert, &key);
        let peer = Arc::new(Credentials::load_unchecked(&files).unwrap());
        let expect = |verdict: &Result<(), String>, why: &str, side: &str| match (verdict, why) {
            (Ok(()), "") => {}
            (Err(text), why) if !why.is_empty() && text.contains(why) => {}
            _ => panic!("{what}, to the {side}: {verdict:?}, expected \"{why}\""),
        };
        let mut pair = Pair::new(&peer, &judge);
        let (client, server) = pair.shake();
        expect(&server, by_server, "server");
        if !by_server.is_empty() {
            let told = client.unwrap_err();
            assert!(told.contains("refused our certificate"), "{what}: {told}");
        }
        let mut pair = Pair::new(&judge, &peer);
        let (client, server) = pair.shake();
        expect(&client, by_client, "client");
        if !by_client.is_empty() {
            assert!(server.is_err(), "{what}");
        }
        // Who would be refused says so before anybody else does.
        let loaded = Credentials::load(&files);
        let fine = by_server.is_empty() && by_client.is_empty() || what == "revoked";
        assert_eq!(loaded.is_ok(), fine, "{what}: {loaded:?}");
    }
    // What revokes is the list of whoever looks.
    assert_eq!(Pair::new(&good, &judge).shake(), (Ok(()), Ok(())));
}

#[test]
fn a_list_that_is_out_of_date_lets_nobody_in_but_ends_nothing() {
    let authority = Authority::new("here");
    let files = authority.files("judge", &Kind::default());
    let client = authority.credentials("client", &Kind::default());
    fs::write(files.crl.as_ref().unwrap(), authority.list(666, -1)).unwrap();
    let refused = Credentials::load(&files).unwrap_err();
    assert!(refused.contains("revocation list is out of date"), "{refused}");
    let judge = Arc::new(Credentials::load_unchecked(&files).unwrap());
    let mut pair = Pair::new(&client, &judge);
    let (_, server) = pair.shake();
    assert!(server.unwrap_err().contains("revocation list is out of date"));
    assert!(judge.list_due().unwrap() < judge.expires());
    // One that came while it was good stays; one that is revoked goes.
    let server = authority.credentials("server", &Kind::default());
    let mut pair = Pair::new(&client, &server);
    assert_eq!(pair.shake(), (Ok(()), Ok(())));
    assert!(pair.server.is_believed_by(&judge));
    fs::write(files.crl.as_ref().unwrap(), authority.list(Kind::default().serial, 5)).unwrap();
    let judge = Credentials::load_unchecked(&files).unwrap();
    assert!(!pair.server.is_believed_by(&judge) && !pair.client.is_believed_by(&judge));
}

#[test]
fn a_mixed_up_port_and_what_is_no_tls_have_their_names() {
    let authority = Authority::new("here");
    let [client, server] = ["client", "server"].map(|name| authority.credentials(name, &Kind::default()));
    let mut pair = Pair {
        client: Engine::dialled(&client, Purpose::Enrp, None).unwrap(),
        server: Engine::accepted(&server, Purpose::Asap, None).unwrap(),
    };
    let (told, _) = pair.shake();
    assert!(told.unwrap_err().contains("serves something else"));
    for bytes in [&b"GET / HTTP/1.1\r\n"[..], &[1, 0, 0, 8, 0, 9, 0, 4], &[5]] {
        let mut engine = Engine::accepted(&server, Purpose::Asap, None).unwrap();
        let failure = engine.read_from(&mut &bytes[..]).unwrap().unwrap_err();
        assert!(matches!(failure, Failure::Plain), "{failure:?}");
        let mut engine = Engine::dialled(&client, Purpose::Asap, None).unwrap();
        let failure = engine.read_from(&mut &bytes[..]).unwrap().unwrap_err();
        assert!(matches!(failure, Failure::Plain), "{failure:?}");
    }
    let mut engine = Engine::accepted(&server, Purpose::Asap, None).unwrap();
    assert!(matches!(engine.read_from(&mut &b""[..]).unwrap(), Err(Failure::Silent)));
}

#[test]
fn a_handshake_that_never_ends_is_bounded() {
    let authority = Authority::new("here");
    let server = authority.credentials("server", &Kind::default());
    let mut engine = Engine::accepted(&server, Purpose::Asap, None).unwrap();
    // A ClientHello that says it is 60 000 bytes long, in records.
    let mut stream = vec![FIRST_BYTE, 3, 1, 0x40, 0, 1, 0, 0xea, 0x60];
    stream.resize(5 + 0x4000, 0);
    for _ in 0..3 {
        stream.extend([FIRST_BYTE, 3, 3, 0x40, 0]);
        stream.resize(stream.len() + 0x4000, 0);
    }
    let (mut rest, mut taken) = (&stream[..], 0);
    let failure = loop {
        match engine.read_from(&mut rest).unwrap() {
            Ok(0) => panic!("all of it was taken"),
            Ok(count) => taken += count,
            Err(failure) => break failure,
        }
    };
    assert!(taken <= 40_000, "{taken}: {failure}");
}

#[test]
fn keys_of_other_certificates_and_nonsense_are_not_loaded() {
    let authority = Authority::new("here");
    let files = authority.files("one", &Kind::default());
    let other = authority.files("other", &Kind::default());
    let load = |files: &Files| Credentials::load(files).unwrap_err();
    let wrong = Files { key: other.key.clone(), ..files.clone() };
    assert!(load(&wrong).contains("is not the key of"), "{}", load(&wrong));
    let wrong = Files { cert: files.key.clone(), ..files.clone() };
    assert!(load(&wrong).contains("no certificate in it"), "{}", load(&wrong));
    let wrong = Files { ca: "/nowhere/ca.pem".into(), ..files.clone() };
    assert!(load(&wrong).starts_with("/nowhere/ca.pem: "), "{}", load(&wrong));
    fs::write(files.access.as_ref().unwrap(), "dns:x\n").unwrap();
    assert!(load(&files).contains("line 1: no roles"), "{}", load(&files));
}

#[test]
fn an_access_file_names_what_certificates_do_not() {
    let authority = Authority::new("here");
    let files = authority.files("judge", &Kind::default());
    let peer = authority.files("peer", &Kind::called(&["spiffe://x/echo"]));
    let pem = fs::read(&peer.cert).unwrap();
    use rustls::pki_types::{CertificateDer, pem::PemObject};
    let der = CertificateDer::from_pem_slice(&pem).unwrap();
    let hash = ring::digest::digest(&ring::digest::SHA256, &der);
    let hash: Vec<String> = hash.as_ref().iter().map(|byte| format!("{byte:02X}")).collect();
    let text = format!(
        "# who is who\nuri:spiffe://x/echo element:Echo\nsha256:{} user # by hash\ndns:y operator\n",
        hash.join(":")
    );
    fs::write(files.access.as_ref().unwrap(), text).unwrap();
    let judge = Credentials::load(&files).unwrap();
    assert_eq!(judge.names_of(&der), ["spiffe://x/echo", "element:Echo", "user"]);
}
