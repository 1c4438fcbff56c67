//! An authority that makes what `rspctl ca` does not: certificates that have expired, registrars of another scope. And a
//! TLS client that shows whatever it is given, which programs of ours would not.

use crate::anybody::Anybody;
use rcgen::{
    BasicConstraints, CertificateParams, DnType, ExtendedKeyUsagePurpose, IsCa, Issuer, KeyPair,
    KeyUsagePurpose, SanType, date_time_ymd,
};
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName};
use rustls::{ClientConfig, ClientConnection, StreamOwned};
use std::io::{ErrorKind, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

pub struct Authority {
    params: CertificateParams,
    key: KeyPair,
    pem: String,
    dir: PathBuf,
}

impl Drop for Authority {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir_all(&self.dir);
    }
}

fn day(number: i64) -> time::OffsetDateTime {
    let now = SystemTime::now().duration_since(UNIX_EPOCH).expect("a clock").as_secs();
    date_time_ymd(1970, 1, 1) + Duration::from_secs(now.saturating_add_signed(number * 86_400))
}

impl Authority {
    pub fn new(name: &str) -> Authority {
        let dir =
            PathBuf::from(env!("CARGO_TARGET_TMPDIR")).join(format!("tls-{name}-{}", std::process::id()));
        let mut params = CertificateParams::default();
        params.distinguished_name.push(DnType::CommonName, name);
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
        let key = KeyPair::generate().expect("a key");
        let pem = params.self_signed(&key).expect("a certificate").pem();
        Authority { params, key, pem, dir }
    }

    /// Its own certificate.
    pub fn pem(&self) -> &str {
        &self.pem
    }

    /// A directory as `--tls-dir` takes it, for somebody who may be `role`, until so many days from now.
    pub fn issue(&self, name: &str, role: &str, until: i64) -> PathBuf {
        let key = KeyPair::generate().expect("a key");
        let mut params = CertificateParams::default();
        (params.not_before, params.not_after) = (day(-30), day(until));
        params.extended_key_usages =
            vec![ExtendedKeyUsagePurpose::ServerAuth, ExtendedKeyUsagePurpose::ClientAuth];
        params.use_authority_key_identifier_extension = true;
        params.subject_alt_names = vec![SanType::URI(role.try_into().expect("ASCII"))];
        let signed = params.signed_by(&key, &Issuer::from_params(&self.params, &self.key));
        let dir = self.dir.join(name);
        std::fs::create_dir_all(&dir).expect("folder");
        for (file, text) in [
            ("cert.pem", signed.expect("a certificate").pem()),
            ("key.pem", key.serialize_pem()),
            ("ca.pem", self.pem.clone()),
        ] {
            std::fs::write(dir.join(file), text).expect("written");
        }
        dir
    }
}

/// Shows the certificate of `dir` to whoever listens at `to`, says `question` and reads until `enough`, or the end. Errors:
/// why not, in rustls' words, which name the alert that came.
pub fn ask(
    to: SocketAddr,
    protocol: &str,
    dir: Option<&Path>,
    question: &[u8],
    enough: impl Fn(&[u8]) -> bool,
) -> Result<Vec<u8>, String> {
    let builder = ClientConfig::builder_with_provider(Arc::new(rustls::crypto::ring::default_provider()))
        .with_protocol_versions(&[&rustls::version::TLS13])
        .expect("TLS 1.3")
        .dangerous()
        .with_custom_certificate_verifier(Arc::new(Anybody));
    let mut config = match dir {
        Some(dir) => {
            let cert = CertificateDer::from_pem_file(dir.join("cert.pem")).expect("a certificate");
            let key = PrivateKeyDer::from_pem_file(dir.join("key.pem")).expect("a key");
            builder.with_client_auth_cert(vec![cert], key).expect("a key of the certificate")
        }
        None => builder.with_no_client_auth(),
    };
    config.alpn_protocols = vec![protocol.as_bytes().to_vec()];
    let name = ServerName::try_from("localhost").expect("a name");
    let connection = ClientConnection::new(Arc::new(config), name).expect("a configuration");
    let socket = TcpStream::connect(to).map_err(|error| error.to_string())?;
    socket.set_read_timeout(Some(Duration::from_secs(20))).expect("a socket");
    let mut stream = StreamOwned::new(connection, socket);
    let said = |error: std::io::Error| error.to_string();
    stream.write_all(question).and_then(|()| stream.flush()).map_err(said)?;
    let (mut all, mut buffer) = (Vec::new(), [0; 4096]);
    while !enough(&all) {
        match stream.read(&mut buffer) {
            Ok(0) => break,
            Ok(count) => all.extend_from_slice(&buffer[..count]),
            // Closed without a word.
            Err(error) if error.kind() == ErrorKind::UnexpectedEof && !all.is_empty() => break,
            Err(error) => return Err(said(error)),
        }
    }
    Ok(all)
}
