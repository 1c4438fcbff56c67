//! TLS of a process: what is set, and what it proves itself by, kept up to date while it runs.

use super::complaints::Complaints;
use super::reactor::Reactor;
use crate::machine::trust::Roles;
use crate::machine::{LinkProtocol, Time};
use crate::transport::tls::{Credentials, Files, Mode};
use parking_lot::RwLock;
use rustls::KeyLogFile;
use std::io::{self, ErrorKind};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

/// How often the files are looked at.
const LOOK: Duration = Duration::from_secs(5);
/// What is about to expire is warned of when so many days are left, each once.
const WARNINGS: [u64; 4] = [7, 3, 1, 0];
const DAY: u64 = 86_400;

/// What can be set about TLS; [`Tls::set`] knows the names.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Tls {
    /// `None`: required where there is a certificate, else off.
    mode: Option<Mode>,
    dir: Option<PathBuf>,
    cert: Option<PathBuf>,
    key: Option<PathBuf>,
    ca: Option<PathBuf>,
    crl: Option<PathBuf>,
    access: Option<PathBuf>,
    scope: Option<String>,
    log_keys: bool,
}

impl Tls {
    /// The names that [`Tls::set`] knows: `RSP_TLS` with these behind it, `-tls`, `--tls-`.
    pub const NAMES: [&str; 8] = ["", "dir", "cert", "key", "ca", "crl", "access", "scope"];

    /// What the `RSP_TLS*` variables say; an empty one says nothing. Errors: `InvalidInput` if the mode is none.
    pub fn from_env() -> io::Result<Tls> {
        Tls::from_variables(&|name| std::env::var(name).ok())
    }

    pub(super) fn from_variables(variable: &dyn Fn(&str) -> Option<String>) -> io::Result<Tls> {
        let mut tls = Tls::default();
        for name in Tls::NAMES {
            let separator = if name.is_empty() { "" } else { "_" };
            let full = format!("RSP_TLS{separator}{}", name.to_ascii_uppercase());
            if let Some(value) = variable(&full).filter(|value| !value.trim().is_empty())
                && !tls.set(name, value.trim())
            {
                return Err(invalid(format!("{full}={value}: neither off, allow nor require")));
            }
        }
        Ok(tls)
    }

    /// Sets one of [`Tls::NAMES`]: the mode (off, allow, require), files, or the scope. `false`: neither a known
    /// name nor a possible value.
    pub fn set(&mut self, name: &str, value: &str) -> bool {
        let path = Some(PathBuf::from(value));
        match name {
            "" => match value.parse() {
                Ok(mode) => self.mode = Some(mode),
                Err(()) => return false,
            },
            "dir" => self.dir = path,
            "cert" => self.cert = path,
            "key" => self.key = path,
            "ca" => self.ca = path,
            "crl" => self.crl = path,
            "access" => self.access = path,
            "scope" => self.scope = Some(value.into()),
            _ => return false,
        }
        true
    }

    /// Secrets of all connections go to the file that SSLKEYLOGFILE names. For programs that say that they are
    /// unsafe then; the library never asks for it, since the variable may be another's.
    pub fn log_keys(&mut self) {
        self.log_keys = true;
    }

    /// Whether TLS is spoken, and with whom.
    pub fn mode(&self) -> Mode {
        let certificate = self.dir.is_some() || self.cert.is_some();
        self.mode.unwrap_or(if certificate { Mode::Require } else { Mode::Off })
    }

    /// The port that is usual for TLS or without.
    pub fn port(&self, plain: u16, secure: u16) -> u16 {
        if self.mode() == Mode::Require { secure } else { plain }
    }

    fn files(&self) -> Result<Files, String> {
        let base = self.dir.as_deref().map(Files::in_directory);
        let file = |own: &Option<PathBuf>, of_base: fn(&Files) -> &Path, name: &str| {
            let path = own.clone().or_else(|| base.as_ref().map(|base| of_base(base).to_path_buf()));
            path.ok_or_else(|| format!("TLS needs a certificate, its key and an authority: no {name}"))
        };
        let optional = |own: &Option<PathBuf>, of_base: Option<PathBuf>| own.clone().or(of_base);
        Ok(Files {
            cert: file(&self.cert, |base| &base.cert, "certificate (tls-dir or tls-cert)")?,
            key: file(&self.key, |base| &base.key, "key (tls-dir or tls-key)")?,
            ca: file(&self.ca, |base| &base.ca, "authority (tls-dir or tls-ca)")?,
            crl: optional(&self.crl, base.as_ref().and_then(|base| base.crl.clone())),
            access: optional(&self.access, base.as_ref().and_then(|base| base.access.clone())),
        })
    }

    /// Loads what the files say; `None`: TLS is off. Errors: `InvalidInput`, saying which file and why.
    pub fn open(&self) -> io::Result<Option<Keeper>> {
        if self.mode() == Mode::Off {
            return Ok(None);
        }
        let files = self.files().map_err(invalid)?;
        let mut named = [&self.crl, &self.access].into_iter().flatten();
        if let Some(missing) = named.find(|path| !path.exists()) {
            return Err(invalid(format!("{}: no such file", missing.display())));
        }
        let fingerprint = files.fingerprint();
        let credentials = load(&files, self.log_keys).map_err(|error| invalid(format!("TLS: {error}")))?;
        if self.log_keys {
            log::warn!("unsafe: the secrets of all connections go to SSLKEYLOGFILE");
        }
        let credentials = Arc::new(credentials);
        Ok(Some(Keeper {
            tls: self.clone(),
            files,
            fingerprint,
            sessions: SessionSecurity::new(self.mode(), Some(credentials.clone())),
            credentials,
            looked: Time::default(),
            complaints: Complaints::default(),
            warned: [u64::MAX; 2],
            failures: 0,
        }))
    }
}

/// Takes SCTP out: there is no TLS over it here, and without it nobody may come (RFC 5355 section 2.15.3).
pub(super) fn without_sctp(protocols: &mut Vec<LinkProtocol>) {
    if protocols.contains(&LinkProtocol::Sctp) {
        log::info!("TLS is required, so SCTP is not offered; tls=allow admits peers without TLS as well");
        protocols.retain(|protocol| *protocol != LinkProtocol::Sctp);
    }
}

fn invalid(text: String) -> io::Error {
    io::Error::new(ErrorKind::InvalidInput, text)
}

fn load(files: &Files, log_keys: bool) -> Result<Credentials, String> {
    match log_keys {
        true => Credentials::load_with(files, Some(Arc::new(KeyLogFile::new()))),
        false => Credentials::load(files),
    }
}

/// What the operator may want to see of it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub struct TlsStatus {
    /// When our certificate is no longer valid, seconds since 1970.
    pub certificate_expires: u64,
    /// When the revocation list is out of date, if there is one.
    pub list_expires: Option<u64>,
    /// How often new files could not be used.
    pub failures: u64,
}

/// What sessions prove themselves by, kept up to date for the callers' threads.
#[derive(Debug, Default)]
pub struct SessionSecurity {
    mode: Mode,
    credentials: RwLock<Option<Arc<Credentials>>>,
    changes: AtomicU64,
}

impl SessionSecurity {
    /// With what was loaded, or without.
    pub fn new(mode: Mode, credentials: Option<Arc<Credentials>>) -> Arc<SessionSecurity> {
        let credentials = RwLock::new(credentials);
        Arc::new(SessionSecurity { mode, credentials, changes: AtomicU64::new(0) })
    }

    /// Whether sessions over TCP are inside TLS.
    pub fn mode(&self) -> Mode {
        self.mode
    }

    /// What we prove ourselves by at present; `None` without TLS.
    pub fn credentials(&self) -> Option<Arc<Credentials>> {
        self.credentials.read().clone()
    }

    /// Counts changes of [`SessionSecurity::credentials`].
    pub fn changes(&self) -> u64 {
        self.changes.load(Ordering::Acquire)
    }

    /// From now on by these; sessions whose peers they would not let in end with their next use.
    pub fn replace(&self, credentials: Arc<Credentials>) {
        *self.credentials.write() = Some(credentials);
        self.changes.fetch_add(1, Ordering::Release);
    }
}

/// Looks after the credentials of a process.
#[derive(Debug)]
pub struct Keeper {
    tls: Tls,
    files: Files,
    fingerprint: Vec<Option<(u64, i64, i64)>>,
    credentials: Arc<Credentials>,
    /// The same for sessions.
    sessions: Arc<SessionSecurity>,
    looked: Time,
    complaints: Complaints,
    /// Days left when certificate and list were last warned of.
    warned: [u64; 2],
    failures: u64,
}

impl Keeper {
    /// Whether TLS is required or allowed.
    pub fn mode(&self) -> Mode {
        self.tls.mode()
    }

    /// What we prove ourselves by at present.
    pub fn credentials(&self) -> &Arc<Credentials> {
        &self.credentials
    }

    /// Where our key is.
    pub fn key_file(&self) -> &Path {
        &self.files.key
    }

    /// What the process's sessions prove themselves by.
    pub fn sessions(&self) -> &Arc<SessionSecurity> {
        &self.sessions
    }

    /// What our certificate says that we may be.
    pub fn roles(&self) -> Roles {
        Roles::parse(self.credentials.names().iter().map(String::as_str))
    }

    /// The scope that registrars must be of: as set, or as our own certificate says.
    pub fn scope(&self) -> Option<String> {
        self.tls.scope.clone().or_else(|| self.roles().scope().map(String::from))
    }

    /// For the status page.
    pub fn status(&self) -> TlsStatus {
        TlsStatus {
            certificate_expires: self.credentials.expires(),
            list_expires: self.credentials.list_due(),
            failures: self.failures,
        }
    }

    /// When to call [`Keeper::turn`].
    pub(super) fn poll_timeout(&self) -> Time {
        self.looked + LOOK
    }

    /// Looks whether a file changed, or something is about to expire. `now`: at once, whatever the time
    /// (SIGHUP). What can't be used is complained about, and what there is stays.
    pub(super) fn turn(&mut self, reactor: &mut Reactor, forced: bool) {
        let now = reactor.now();
        if !forced && now < self.poll_timeout() {
            return;
        }
        self.looked = now;
        let fingerprint = self.files.fingerprint();
        if forced || fingerprint != self.fingerprint {
            self.fingerprint = fingerprint;
            match load(&self.files, self.tls.log_keys) {
                Ok(credentials) => {
                    log::info!("TLS: certificates were loaded anew");
                    self.credentials = Arc::new(credentials);
                    self.warned = [u64::MAX; 2];
                    self.sessions.replace(self.credentials.clone());
                    reactor.secure(self.mode(), Some(self.credentials.clone()));
                }
                Err(error) => {
                    self.failures += 1;
                    let text = format_args!("TLS: {error}; what was loaded before stays");
                    self.complaints.note(now, "load", None, text);
                }
            }
        }
        self.warn();
    }

    fn warn(&mut self) {
        let now = SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |time| time.as_secs());
        let what = [
            ("certificate", &self.files.cert, Some(self.credentials.expires())),
            (
                "revocation list",
                self.files.crl.as_ref().unwrap_or(&self.files.ca),
                self.credentials.list_due(),
            ),
        ];
        for ((name, path, end), warned) in what.into_iter().zip(&mut self.warned) {
            let Some(end) = end else { continue };
            let left = end.saturating_sub(now).div_ceil(DAY);
            let Some(level) = WARNINGS.into_iter().filter(|&level| left <= level).min() else { continue };
            if level < *warned {
                *warned = level;
                let path = path.display();
                match left {
                    0 => log::warn!("TLS: the {name} {path} is out of date: nobody will accept it"),
                    1 => log::warn!("TLS: the {name} {path} expires within one day"),
                    days => log::warn!("TLS: the {name} {path} expires in {days} days"),
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn tls(pairs: &[(&str, &str)]) -> Tls {
        let mut tls = Tls::default();
        pairs.iter().for_each(|(name, value)| assert!(tls.set(name, value), "{name}={value}"));
        tls
    }

    #[test]
    fn a_certificate_means_that_tls_is_required() {
        assert_eq!(tls(&[]).mode(), Mode::Off);
        assert_eq!(tls(&[("dir", "x")]).mode(), Mode::Require);
        assert_eq!(tls(&[("cert", "x"), ("", "allow")]).mode(), Mode::Allow);
        assert_eq!(tls(&[("dir", "x"), ("", "off")]).mode(), Mode::Off);
        assert_eq!(tls(&[("dir", "x")]).port(3863, 3864), 3864);
        assert_eq!(tls(&[("dir", "x"), ("", "allow")]).port(3863, 3864), 3863);
        assert!(!Tls::default().set("", "perhaps") && !Tls::default().set("emperor", "x"));
    }

    #[test]
    fn single_files_go_before_the_directory() {
        let files = tls(&[("dir", "/d"), ("key", "/k"), ("crl", "/l")]).files().unwrap();
        let mut expected = Files::in_directory(Path::new("/d"));
        expected.key = "/k".into();
        expected.crl = Some("/l".into());
        assert_eq!(files, expected);
    }

    #[test]
    fn what_is_missing_is_named() {
        for (pairs, missing) in [
            (&[("", "require")][..], "certificate"),
            (&[("cert", "/c")], "key"),
            (&[("cert", "/c"), ("key", "/k")], "authority"),
            (&[("cert", "/c"), ("key", "/k"), ("ca", "/a")], "/c"),
        ] {
            let error = tls(pairs).open().unwrap_err();
            assert_eq!(error.kind(), ErrorKind::InvalidInput);
            assert!(error.to_string().contains(missing), "{error}");
        }
        assert!(tls(&[]).open().unwrap().is_none());
    }
}
