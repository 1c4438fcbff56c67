//! Certificate, key, authority, revocation list and access file of one process, loaded and checked as a whole.

use super::der;
use ring::digest;
use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::client::{ClientConfig, Resumption};
use rustls::crypto::{CryptoProvider, verify_tls13_signature};
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{
    CertificateDer, CertificateRevocationListDer, PrivateKeyDer, ServerName, TrustAnchor, UnixTime,
};
use rustls::server::danger::{ClientCertVerified, ClientCertVerifier};
use rustls::server::{ResolvesServerCert, ServerConfig};
use rustls::sign::CertifiedKey;
use rustls::{
    CertificateError, DigitallySignedStruct, DistinguishedName, Error, KeyLog, NoKeyLog, SignatureScheme,
    version,
};
use std::fmt;
use std::path::{Path, PathBuf};
use std::sync::{Arc, OnceLock};
use webpki::{
    CertRevocationList, EndEntityCert, ExpirationPolicy, KeyUsage, OwnedCertRevocationList,
    RevocationCheckDepth, RevocationOptionsBuilder, UnknownStatusPolicy,
};

/// Bytes that a file may have; beyond that it isn't what it should be.
const LARGEST_FILE: u64 = 16 << 20;

/// What a connection carries; TLS agrees on that, so that a mix-up of ports is an error with a name.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Purpose {
    /// ASAP messages.
    Asap,
    /// ENRP messages.
    Enrp,
    /// A session between user and element.
    Session,
    /// A plain byte stream between a user and an element that need not know of pools.
    Data,
    /// The operator's page: HTTP, whose clients may be browsers without a certificate.
    Page,
}

impl Purpose {
    const ALL: [Purpose; 5] = [Purpose::Asap, Purpose::Enrp, Purpose::Session, Purpose::Data, Purpose::Page];

    /// Application protocols (RFC 7301) to offer or to take.
    fn alpn(self) -> Vec<Vec<u8>> {
        match self {
            Purpose::Asap => vec![b"rserpool-asap".to_vec()],
            Purpose::Enrp => vec![b"rserpool-enrp".to_vec()],
            Purpose::Session => vec![b"rserpool-session".to_vec()],
            Purpose::Data => Vec::new(),
            Purpose::Page => vec![b"http/1.1".to_vec()],
        }
    }
}

/// Whether TLS is spoken.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum Mode {
    /// Never.
    #[default]
    Off,
    /// With whoever can, and without with the others. Protects from nobody who can cut a line.
    Allow,
    /// With everybody; others are rejected (RFC 5355 section 2.15.3).
    Require,
}

impl std::str::FromStr for Mode {
    type Err = ();

    fn from_str(text: &str) -> Result<Mode, ()> {
        match text.trim().to_ascii_lowercase().as_str() {
            "off" => Ok(Mode::Off),
            "allow" => Ok(Mode::Allow),
            "require" => Ok(Mode::Require),
            _ => Err(()),
        }
    }
}

/// Where everything is, all in PEM.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Files {
    /// Our certificate, and what leads from it to the authority's.
    pub cert: PathBuf,
    /// Its key (PKCS #8, PKCS #1 or SEC 1).
    pub key: PathBuf,
    /// The authorities whose certificates are believed.
    pub ca: PathBuf,
    /// Their revocation lists; may be missing.
    pub crl: Option<PathBuf>,
    /// Roles of certificates that name none; may be missing.
    pub access: Option<PathBuf>,
}

impl Files {
    /// `cert.pem`, `key.pem`, `ca.pem`, and if they are there, `crl.pem` and `access`.
    pub fn in_directory(directory: &Path) -> Files {
        let file = |name: &str| directory.join(name);
        Files {
            cert: file("cert.pem"),
            key: file("key.pem"),
            ca: file("ca.pem"),
            crl: Some(file("crl.pem")),
            access: Some(file("access")),
        }
    }

    fn all(&self) -> impl Iterator<Item = &PathBuf> {
        [&self.cert, &self.key, &self.ca].into_iter().chain(&self.crl).chain(&self.access)
    }

    /// Changes whenever one of the files does.
    pub fn fingerprint(&self) -> Vec<Option<(u64, i64, i64)>> {
        use std::os::unix::fs::MetadataExt;
        let stamp = |path: &PathBuf| {
            let data = std::fs::metadata(path).ok()?;
            Some((data.ino(), data.mtime(), data.mtime_nsec()))
        };
        self.all().map(stamp).collect()
    }
}

/// The one source of cryptography, named everywhere: the process may have another default.
fn provider() -> Arc<CryptoProvider> {
    static PROVIDER: OnceLock<Arc<CryptoProvider>> = OnceLock::new();
    PROVIDER.get_or_init(|| Arc::new(rustls::crypto::ring::default_provider())).clone()
}

/// Names of roles for certificates, by what else is in them.
#[derive(Debug, Default)]
struct Access(Vec<(CertificateSubject, Vec<String>)>);

#[derive(Debug)]
enum CertificateSubject {
    Sha256(Vec<u8>),
    Dns(String),
    Uri(String),
}

impl Access {
    /// Lines of `sha256:HEX`, `dns:NAME` or `uri:NAME`, and the roles; `#` begins a comment.
    fn parse(text: &str) -> Result<Access, String> {
        let mut rules = Vec::new();
        for (number, line) in text.lines().enumerate() {
            let mut words = line.split('#').next().unwrap_or_default().split_whitespace();
            let Some(subject) = words.next() else { continue };
            let wrong = |what: &str| format!("line {}: {what}", number + 1);
            let subject = match subject.split_once(':') {
                Some(("sha256", digits)) => {
                    CertificateSubject::Sha256(hex(digits).ok_or_else(|| wrong("no SHA-256"))?)
                }
                Some(("dns", name)) => CertificateSubject::Dns(name.to_ascii_lowercase()),
                Some(("uri", name)) => CertificateSubject::Uri(name.into()),
                _ => return Err(wrong("neither sha256:, dns: nor uri:")),
            };
            let roles: Vec<String> = words.map(String::from).collect();
            if roles.is_empty() {
                return Err(wrong("no roles"));
            }
            rules.push((subject, roles));
        }
        Ok(Access(rules))
    }

    fn names(&self, der: &CertificateDer<'_>, certificate: &EndEntityCert<'_>) -> Vec<String> {
        let hash = digest::digest(&digest::SHA256, der);
        let fits = |subject: &CertificateSubject| match subject {
            CertificateSubject::Sha256(known) => known == hash.as_ref(),
            CertificateSubject::Dns(known) => {
                certificate.valid_dns_names().any(|name| name.eq_ignore_ascii_case(known))
            }
            CertificateSubject::Uri(known) => certificate.valid_uri_names().any(|name| name == known),
        };
        self.0.iter().filter(|(subject, _)| fits(subject)).flat_map(|(_, roles)| roles.clone()).collect()
    }
}

/// Sixty-four digits, colons between them or not.
fn hex(text: &str) -> Option<Vec<u8>> {
    let digits: Vec<u32> =
        text.chars().filter(|c| *c != ':').map(|c| c.to_digit(16)).collect::<Option<_>>()?;
    (digits.len() == 64).then(|| digits.chunks(2).map(|pair| (pair[0] << 4 | pair[1]) as u8).collect())
}

/// Whose certificates are believed, and what they are called. The same for both ends of a connection but for the
/// purpose (extended key usage).
struct Trust {
    anchors: Vec<CertificateDer<'static>>,
    crls: Vec<CertRevocationList<'static>>,
    access: Access,
}

/// Decides whether a peer of these names may be where it is found; if not, why. Whoever knows the roles makes it.
type Decide = dyn Fn(&[String]) -> Result<(), String> + Send + Sync;

/// Judges the names of one connection's peer before the handshake ends, so that a refusal is an alert
/// (access_denied) that the peer can tell from others.
pub struct Judge {
    decide: Box<Decide>,
    said: OnceLock<String>,
}

impl Judge {
    /// For one connection.
    pub fn new(decide: impl Fn(&[String]) -> Result<(), String> + Send + Sync + 'static) -> Arc<Judge> {
        Arc::new(Judge { decide: Box::new(decide), said: OnceLock::new() })
    }

    /// Whether a peer of these names may be there.
    pub fn accepts(&self, names: &[String]) -> bool {
        let decision = (self.decide)(names);
        decision.map_err(|why| self.said.get_or_init(|| why)).is_ok()
    }

    /// Why the peer was refused.
    pub(super) fn reason(&self) -> Option<&str> {
        self.said.get().map(String::as_str)
    }
}

impl fmt::Debug for Judge {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Judge").field("said", &self.said).finish_non_exhaustive()
    }
}

/// Looks at one connection's peer, or at many connections' peers without a judge of their own.
#[derive(Debug)]
struct Verifier {
    trust: Arc<Trust>,
    judge: Option<Arc<Judge>>,
    /// A client without a certificate is let in as nobody; a bad one is as bad as elsewhere.
    optional: bool,
}

impl Trust {
    fn names_of(&self, der: &CertificateDer<'_>) -> Vec<String> {
        let Ok(certificate) = EndEntityCert::try_from(der) else { return Vec::new() };
        let mut names: Vec<String> = certificate.valid_uri_names().map(String::from).collect();
        names.extend(self.access.names(der, &certificate));
        names
    }

    fn check(
        &self,
        chain: &[CertificateDer<'_>],
        now: UnixTime,
        usage: KeyUsage,
    ) -> Result<(), webpki::Error> {
        let [first, intermediates @ ..] = chain else { return Err(webpki::Error::BadDer) };
        let certificate = EndEntityCert::try_from(first)?;
        let anchors: Vec<TrustAnchor<'_>> =
            self.anchors.iter().map(webpki::anchor_from_trusted_cert).collect::<Result<_, _>>()?;
        let lists: Vec<&CertRevocationList<'_>> = self.crls.iter().collect();
        // Of an authority that gave us no list nothing is revoked; a list that is out of date says nothing.
        let revocation = RevocationOptionsBuilder::new(&lists).ok().map(|options| {
            options
                .with_depth(RevocationCheckDepth::Chain)
                .with_status_policy(UnknownStatusPolicy::Allow)
                .with_expiration_policy(ExpirationPolicy::Enforce)
                .build()
        });
        let algorithms = provider().signature_verification_algorithms;
        certificate
            .verify_for_usage(algorithms.all, &anchors, intermediates, now, usage, revocation, None)
            .map(|_| ())
    }
}

impl Verifier {
    fn verify(
        &self,
        first: &CertificateDer<'_>,
        rest: &[CertificateDer<'_>],
        now: UnixTime,
        usage: KeyUsage,
    ) -> Result<(), Error> {
        let chain: Vec<CertificateDer<'_>> =
            std::iter::once(first).chain(rest).map(|der| CertificateDer::from(der.as_ref())).collect();
        self.trust.check(&chain, now, usage).map_err(|error| Error::InvalidCertificate(reason(error)))?;
        match &self.judge {
            Some(judge) if !judge.accepts(&self.trust.names_of(first)) => {
                Err(CertificateError::ApplicationVerificationFailure.into())
            }
            _ => Ok(()),
        }
    }
}

/// What both ends' traits want to know of signatures, in the same words.
macro_rules! signatures {
    () => {
        fn verify_tls12_signature(
            &self,
            _: &[u8],
            _: &CertificateDer<'_>,
            _: &DigitallySignedStruct,
        ) -> Result<HandshakeSignatureValid, Error> {
            Err(Error::PeerIncompatible(rustls::PeerIncompatible::Tls13RequiredForQuic))
        }

        fn verify_tls13_signature(
            &self,
            message: &[u8],
            certificate: &CertificateDer<'_>,
            signature: &DigitallySignedStruct,
        ) -> Result<HandshakeSignatureValid, Error> {
            let algorithms = provider().signature_verification_algorithms;
            verify_tls13_signature(message, certificate, signature, &algorithms)
        }

        fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
            provider().signature_verification_algorithms.supported_schemes()
        }
    };
}

/// As what a refusal is told to the peer.
fn reason(error: webpki::Error) -> CertificateError {
    match error {
        webpki::Error::CertExpired { time, not_after } => {
            CertificateError::ExpiredContext { time, not_after }
        }
        webpki::Error::CertNotValidYet { time, not_before } => {
            CertificateError::NotValidYetContext { time, not_before }
        }
        webpki::Error::InvalidCertValidity => CertificateError::Expired,
        webpki::Error::CertRevoked => CertificateError::Revoked,
        webpki::Error::UnknownIssuer => CertificateError::UnknownIssuer,
        webpki::Error::BadDer | webpki::Error::BadDerTime | webpki::Error::TrailingData(_) => {
            CertificateError::BadEncoding
        }
        webpki::Error::CrlExpired { time, next_update } => {
            CertificateError::ExpiredRevocationListContext { time, next_update }
        }
        webpki::Error::InvalidSignatureForPublicKey => CertificateError::BadSignature,
        other => CertificateError::Other(rustls::OtherError(Arc::new(other))),
    }
}

impl fmt::Debug for Trust {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Trust").field("anchors", &self.anchors.len()).finish_non_exhaustive()
    }
}

impl ServerCertVerifier for Verifier {
    fn verify_server_cert(
        &self,
        first: &CertificateDer<'_>,
        rest: &[CertificateDer<'_>],
        _name: &ServerName<'_>,
        _ocsp: &[u8],
        now: UnixTime,
    ) -> Result<ServerCertVerified, Error> {
        self.verify(first, rest, now, KeyUsage::server_auth()).map(|()| ServerCertVerified::assertion())
    }

    signatures!();
}

impl ClientCertVerifier for Verifier {
    fn client_auth_mandatory(&self) -> bool {
        !self.optional
    }

    fn root_hint_subjects(&self) -> &[DistinguishedName] {
        &[]
    }

    fn verify_client_cert(
        &self,
        first: &CertificateDer<'_>,
        rest: &[CertificateDer<'_>],
        now: UnixTime,
    ) -> Result<ClientCertVerified, Error> {
        self.verify(first, rest, now, KeyUsage::client_auth()).map(|()| ClientCertVerified::assertion())
    }

    signatures!();
}

/// What one process proves itself by, and whom it believes. Immutable: what changed in the files is loaded anew.
pub struct Credentials {
    server: [Arc<ServerConfig>; 5],
    client: [Arc<ClientConfig>; 5],
    trust: Arc<Trust>,
    names: Vec<String>,
    expires: u64,
    list_due: Option<u64>,
}

/// What accepted connections have, but for what they carry.
fn server(
    verifier: Arc<Verifier>,
    resolver: Arc<dyn ResolvesServerCert>,
    key_log: Arc<dyn KeyLog>,
) -> Result<ServerConfig, Error> {
    let mut server = ServerConfig::builder_with_provider(provider())
        .with_protocol_versions(&[&version::TLS13])?
        .with_client_cert_verifier(verifier)
        .with_cert_resolver(resolver);
    // A resumed connection would carry on an identity that nobody has looked at since.
    server.send_tls13_tickets = 0;
    server.session_storage = Arc::new(rustls::server::NoServerSessionStorage {});
    server.key_log = key_log;
    Ok(server)
}

impl fmt::Debug for Credentials {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Credentials").field("names", &self.names).finish_non_exhaustive()
    }
}

impl Credentials {
    /// Reads and checks all of it. Errors, in words: a file that can't be read or isn't what it should be, a
    /// key of another certificate, a certificate that would be refused by who believes the same authority.
    pub fn load(files: &Files) -> Result<Credentials, String> {
        Credentials::load_with(files, None)
    }

    /// The same, and the secrets of all connections go to `key_log`: whoever reads it reads everything.
    pub fn load_with(files: &Files, key_log: Option<Arc<dyn KeyLog>>) -> Result<Credentials, String> {
        Credentials::read(files, key_log, true)
    }

    /// For tests of those who come with what they should not have.
    #[cfg(test)]
    pub(super) fn load_unchecked(files: &Files) -> Result<Credentials, String> {
        Credentials::read(files, None, false)
    }

    fn read(files: &Files, key_log: Option<Arc<dyn KeyLog>>, checked: bool) -> Result<Credentials, String> {
        let chain = certificates(&files.cert)?;
        let key = named(&files.key, PrivateKeyDer::from_pem_slice(&content(&files.key)?))?;
        let anchors = certificates(&files.ca)?;
        for anchor in &anchors {
            named(&files.ca, webpki::anchor_from_trusted_cert(anchor))?;
        }
        let (crls, list_due) = match &files.crl {
            Some(path) if path.exists() => lists(path)?,
            _ => (Vec::new(), None),
        };
        let access = match &files.access {
            Some(path) if path.exists() => {
                let text = String::from_utf8(content(path)?).map_err(|_| "not text".to_string());
                named(path, text.and_then(|text| Access::parse(&text)))?
            }
            _ => Access::default(),
        };
        let trust = Arc::new(Trust { anchors, crls, access });
        let verifier = Arc::new(Verifier { trust: trust.clone(), judge: None, optional: false });
        let anybody = Arc::new(Verifier { trust: trust.clone(), judge: None, optional: true });
        let provider = provider();
        let certified =
            CertifiedKey::from_der(chain.clone(), key, &provider).map_err(|error| match error {
                Error::InconsistentKeys(_) => {
                    format!("{} is not the key of {}", files.key.display(), files.cert.display())
                }
                other => format!("{}: {other}", files.key.display()),
            })?;
        let now = UnixTime::now();
        for usage in [KeyUsage::client_auth(), KeyUsage::server_auth()].into_iter().filter(|_| checked) {
            named(&files.cert, trust.check(&chain, now, usage).map_err(|error| describe(&reason(error))))?;
        }
        let expires = chain.iter().filter_map(|der| der::validity(der)).map(|(_, until)| until).min();

        let resolver = Arc::new(rustls::sign::SingleCertAndKey::from(certified));
        let versions = &[&version::TLS13];
        let wrong = |error: Error| error.to_string();
        let key_log = key_log.unwrap_or_else(|| Arc::new(NoKeyLog {}));
        let page = server(anybody, resolver.clone(), key_log.clone()).map_err(wrong)?;
        let server = server(verifier.clone(), resolver.clone(), key_log.clone()).map_err(wrong)?;
        let mut client = ClientConfig::builder_with_provider(provider)
            .with_protocol_versions(versions)
            .map_err(wrong)?
            .dangerous()
            .with_custom_certificate_verifier(verifier)
            .with_client_cert_resolver(resolver);
        client.resumption = Resumption::disabled();
        client.enable_sni = false;
        client.key_log = key_log;
        let mut credentials = Credentials {
            server: Purpose::ALL.map(|purpose| {
                let mut server = if purpose == Purpose::Page { page.clone() } else { server.clone() };
                server.alpn_protocols = purpose.alpn();
                Arc::new(server)
            }),
            client: Purpose::ALL.map(|purpose| {
                let mut client = client.clone();
                client.alpn_protocols = purpose.alpn();
                Arc::new(client)
            }),
            trust,
            names: Vec::new(),
            expires: expires.unwrap_or(u64::MAX),
            list_due,
        };
        credentials.names = chain.first().map(|der| credentials.names_of(der)).unwrap_or_default();
        Ok(credentials)
    }

    pub(super) fn server(
        &self,
        purpose: Purpose,
        judge: Option<Arc<Judge>>,
    ) -> Result<Arc<ServerConfig>, Error> {
        let common = &self.server[purpose as usize];
        if judge.is_none() {
            return Ok(common.clone());
        }
        let optional = purpose == Purpose::Page;
        let verifier = Arc::new(Verifier { trust: self.trust.clone(), judge, optional });
        let mut own = server(verifier, common.cert_resolver.clone(), common.key_log.clone())?;
        own.alpn_protocols = purpose.alpn();
        Ok(Arc::new(own))
    }

    pub(super) fn client(&self, purpose: Purpose, judge: Option<Arc<Judge>>) -> Arc<ClientConfig> {
        let common = &self.client[purpose as usize];
        if judge.is_none() {
            return common.clone();
        }
        let mut own = ClientConfig::clone(common);
        let verifier = Arc::new(Verifier { trust: self.trust.clone(), judge, optional: false });
        own.dangerous().set_certificate_verifier(verifier);
        Arc::new(own)
    }

    /// What a certificate is called: its URIs, and what the access file calls it.
    pub fn names_of(&self, der: &CertificateDer<'_>) -> Vec<String> {
        self.trust.names_of(der)
    }

    /// What our own certificate is called.
    pub fn names(&self) -> &[String] {
        &self.names
    }

    /// Whether a peer that came by `chain` would still be let in.
    pub fn still_believes(&self, chain: &[CertificateDer<'_>], dialled: bool) -> bool {
        let usage = if dialled { KeyUsage::server_auth() } else { KeyUsage::client_auth() };
        match self.trust.check(chain, UnixTime::now(), usage) {
            // A list that is out of date ends no connection: it is warned of.
            Ok(()) | Err(webpki::Error::CrlExpired { .. }) => true,
            Err(_) => false,
        }
    }

    /// When our certificate, or one between it and the authority, is no longer valid: seconds since 1970.
    pub fn expires(&self) -> u64 {
        self.expires
    }

    /// When the first of the revocation lists is out of date, if there are any: seconds since 1970.
    pub fn list_due(&self) -> Option<u64> {
        self.list_due
    }
}

fn named<T, E: fmt::Display>(path: &Path, result: Result<T, E>) -> Result<T, String> {
    result.map_err(|error| format!("{}: {error}", path.display()))
}

fn content(path: &Path) -> Result<Vec<u8>, String> {
    use std::io::Read;
    let mut bytes = Vec::new();
    let file = named(path, std::fs::File::open(path))?;
    named(path, file.take(LARGEST_FILE).read_to_end(&mut bytes))?;
    Ok(bytes)
}

fn certificates(path: &Path) -> Result<Vec<CertificateDer<'static>>, String> {
    let bytes = content(path)?;
    let found: Vec<_> = named(path, CertificateDer::pem_slice_iter(&bytes).collect::<Result<_, _>>())?;
    if found.is_empty() { Err(format!("{}: no certificate in it", path.display())) } else { Ok(found) }
}

type Lists = (Vec<CertRevocationList<'static>>, Option<u64>);

fn lists(path: &Path) -> Result<Lists, String> {
    let bytes = content(path)?;
    let (mut lists, mut due) = (Vec::new(), None);
    for der in CertificateRevocationListDer::pem_slice_iter(&bytes) {
        let der = named(path, der)?;
        lists.push(named(path, OwnedCertRevocationList::from_der(&der))?.into());
        due = [due, der::next_update(&der)].into_iter().flatten().min();
    }
    Ok((lists, due))
}

/// What is wrong with a certificate, as far as it makes a difference to those who look at logs.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Fault {
    /// There is none.
    Missing,
    /// Another authority's, or nobody's.
    Foreign,
    /// Its time is over, or has not come.
    Untimely,
    /// It was taken back.
    Revoked,
    /// It does not name what its owner wants to be.
    Unfit,
    /// Anything else.
    Other,
}

impl Fault {
    pub(super) fn of(error: &CertificateError) -> Fault {
        use CertificateError::{
            ApplicationVerificationFailure, BadSignature, Expired, ExpiredContext, NotValidYet,
            NotValidYetContext, Revoked, UnknownIssuer,
        };
        match error {
            UnknownIssuer | BadSignature => Fault::Foreign,
            Expired | ExpiredContext { .. } | NotValidYet | NotValidYetContext { .. } => Fault::Untimely,
            Revoked => Fault::Revoked,
            ApplicationVerificationFailure => Fault::Unfit,
            _ => Fault::Other,
        }
    }
}

/// Why a certificate is refused, in words.
pub(super) fn describe(error: &CertificateError) -> String {
    match error {
        CertificateError::Expired | CertificateError::ExpiredContext { .. } => {
            "the certificate has expired".into()
        }
        CertificateError::NotValidYet | CertificateError::NotValidYetContext { .. } => {
            "the certificate is not valid yet".into()
        }
        CertificateError::Revoked => "the certificate was revoked".into(),
        CertificateError::UnknownIssuer => "the certificate is another authority's".into(),
        CertificateError::BadEncoding => "that is no certificate".into(),
        CertificateError::BadSignature => "the certificate's signature is none of the authority's".into(),
        CertificateError::ExpiredRevocationList | CertificateError::ExpiredRevocationListContext { .. } => {
            "the authority's revocation list is out of date".into()
        }
        CertificateError::Other(other) => match other.0.downcast_ref::<webpki::Error>() {
            Some(webpki::Error::CaUsedAsEndEntity) => "an authority's own certificate is nobody's".into(),
            Some(webpki::Error::RequiredEkuNotFoundContext(_)) => {
                "the certificate is for another end (extended key usage)".into()
            }
            Some(webpki::Error::UnsupportedCertVersion) => "the certificate is not of version 3".into(),
            Some(other) => format!("the certificate: {other}"),
            None => other.to_string(),
        },
        other => other.to_string(),
    }
}
