//! The authority's directory: what is in it, and how it changes.
//!
//! `ca.pem`, `ca.key`, `index`, after the first revocation `crl.pem`, and a directory per certificate with
//! `cert.pem`, `key.pem`, `ca.pem` and `crl.pem`. Everything is written beside its place and moved there.

use super::index::{Entry, Index, serial_bytes};
use super::now;
use nix::fcntl::{Flock, FlockArg};
use rcgen::{
    BasicConstraints, CertificateParams, CertificateRevocationListParams, DistinguishedName, DnType,
    ExtendedKeyUsagePurpose, IsCa, Issuer, KeyIdMethod, KeyPair, KeyUsagePurpose, RevokedCertParams, SanType,
    SerialNumber, date_time_ymd,
};
use ring::rand::{SecureRandom, SystemRandom};
use std::fs::{self, File, OpenOptions};
use std::io::{ErrorKind, Write};
use std::net::IpAddr;
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::time::Duration;
use time::OffsetDateTime;

/// How long a revocation list is believed.
const LIST_LIFE: Duration = Duration::from_secs(30 * 86_400);
/// Clocks of others may be behind by that much.
const SKEW: Duration = Duration::from_secs(3600);

/// What a certificate says of its owner.
pub struct Names {
    pub roles: Vec<String>,
    pub ip: Vec<IpAddr>,
    pub dns: Vec<String>,
}

impl Names {
    fn written(&self) -> Vec<String> {
        let dns = self.dns.iter().map(|name| format!("dns:{name}"));
        let ip = self.ip.iter().map(|ip| format!("ip:{ip}"));
        self.roles.iter().cloned().chain(dns).chain(ip).collect()
    }

    fn read(words: &[String]) -> Names {
        let mut names = Names { roles: Vec::new(), ip: Vec::new(), dns: Vec::new() };
        for word in words {
            match word.split_once(':') {
                Some(("dns", name)) => names.dns.push(name.into()),
                Some(("ip", ip)) => names.ip.extend(ip.parse::<IpAddr>()),
                _ => names.roles.push(word.clone()),
            }
        }
        names
    }
}

/// One authority, locked while it is open.
pub struct Authority {
    dir: PathBuf,
    index: Index,
    _lock: Flock<File>,
}

fn told<T, E: std::fmt::Display>(path: &Path, result: Result<T, E>) -> Result<T, String> {
    result.map_err(|error| format!("{}: {error}", path.display()))
}

fn lock(dir: &Path) -> Result<Flock<File>, String> {
    let path = dir.join("lock");
    let mut options = OpenOptions::new();
    let file = told(&path, options.create(true).truncate(false).write(true).mode(0o600).open(&path))?;
    Flock::lock(file, FlockArg::LockExclusive).map_err(|(_, error)| format!("{}: {error}", path.display()))
}

/// Writes a file as a whole or not at all, readable for its owner, or for everybody.
fn write(path: &Path, text: &str, secret: bool) -> Result<(), String> {
    let beside = path.with_extension("new");
    let _ = fs::remove_file(&beside);
    let mode = if secret { 0o600 } else { 0o644 };
    let mut file = told(&beside, OpenOptions::new().create_new(true).write(true).mode(mode).open(&beside))?;
    told(&beside, file.write_all(text.as_bytes()).and_then(|()| file.sync_all()))?;
    told(path, fs::rename(&beside, path))
}

fn directory(path: &Path) -> Result<(), String> {
    match fs::DirBuilder::new().mode(0o700).create(path) {
        Err(error) if error.kind() == ErrorKind::AlreadyExists => Ok(()),
        other => told(path, other),
    }
}

fn random() -> Result<[u8; 16], String> {
    let mut bytes = [0; 16];
    SystemRandom::new().fill(&mut bytes).map_err(|_| "no random numbers".to_string())?;
    // Positive, and always of the same length (RFC 5280 section 4.1.2.2).
    bytes[0] = bytes[0] & 0x7f | 0x40;
    Ok(bytes)
}

/// A name that is a file's name as well.
fn check_name(name: &str) -> Result<(), String> {
    let fine = |c: char| c.is_ascii_alphanumeric() || "-_.@".contains(c);
    match !name.is_empty() && name.len() <= 64 && name.chars().all(fine) && !name.starts_with('.') {
        true => Ok(()),
        false => Err(format!("\"{name}\": a name is up to 64 letters, digits, - _ . @")),
    }
}

fn crypto(error: rcgen::Error) -> String {
    error.to_string()
}

impl Authority {
    /// Makes one in a new or empty directory.
    pub fn init(dir: &Path, scope: &str, life: Duration) -> Result<(), String> {
        if scope.is_empty() || scope.contains(char::is_whitespace) {
            return Err(format!("\"{scope}\": a scope's name is one word"));
        }
        directory(dir)?;
        let _lock = lock(dir)?;
        if dir.join("ca.key").exists() || dir.join("ca.pem").exists() {
            return Err(format!("{}: there is an authority already", dir.display()));
        }
        let key = KeyPair::generate().map_err(crypto)?;
        let mut params = authority_params(scope);
        (params.not_before, params.not_after) = dates(now(), life);
        params.serial_number = Some(SerialNumber::from_slice(&random()?));
        let certificate = params.self_signed(&key).map_err(crypto)?;
        write(&dir.join("ca.key"), &key.serialize_pem(), true)?;
        let index = Index { scope: scope.into(), list: 0, entries: Vec::new() };
        write(&dir.join("index"), &index.to_string(), false)?;
        write(&dir.join("ca.pem"), &certificate.pem(), false)
    }

    /// The one in `dir`.
    pub fn open(dir: &Path) -> Result<Authority, String> {
        let path = dir.join("index");
        if !path.exists() {
            return Err(format!("{}: no authority in it; \"rspctl ca init\" makes one", dir.display()));
        }
        let lock = lock(dir)?;
        let index = told(&path, told(&path, fs::read_to_string(&path))?.parse())?;
        Ok(Authority { dir: dir.into(), index, _lock: lock })
    }

    pub fn scope(&self) -> &str {
        &self.index.scope
    }

    fn key(&self) -> Result<KeyPair, String> {
        let path = self.dir.join("ca.key");
        let mode = told(&path, fs::metadata(&path))?.permissions().mode();
        if mode & 0o077 != 0 {
            return Err(format!(
                "{}: others may read it (mode {:o}); chmod 600",
                path.display(),
                mode & 0o777
            ));
        }
        told(&path, KeyPair::from_pem(&told(&path, fs::read_to_string(&path))?))
    }

    fn issuer(&self) -> Result<Issuer<'static, KeyPair>, String> {
        Ok(Issuer::new(authority_params(&self.index.scope), self.key()?))
    }

    /// Makes the first certificate of that name.
    pub fn issue(mut self, name: &str, names: &Names, life: Duration) -> Result<(), String> {
        check_name(name)?;
        if self.dir.join(name).join("cert.pem").exists() {
            return Err(format!(
                "\"{name}\" has a certificate already; \"rspctl ca renew {name}\" replaces it"
            ));
        }
        self.make(name, names, life)
    }

    /// Makes another one with the names of the last.
    pub fn renew(mut self, name: &str, life: Duration) -> Result<(), String> {
        let last = self.index.entries.iter().rev().find(|entry| entry.name == name);
        let last = last.ok_or_else(|| format!("\"{name}\" has no certificate yet"))?;
        if last.revoked.is_some() {
            return Err(format!("the certificate of \"{name}\" was revoked; issue one by another name"));
        }
        let names = Names::read(&last.names);
        self.make(name, &names, life)
    }

    fn make(&mut self, name: &str, names: &Names, life: Duration) -> Result<(), String> {
        let issuer = self.issuer()?;
        let key = KeyPair::generate().map_err(crypto)?;
        let mut params = CertificateParams::default();
        params.distinguished_name = called(name);
        (params.not_before, params.not_after) = dates(now(), life);
        let serial = random()?;
        // Without one, rcgen takes a hash of the key.
        params.serial_number = Some(SerialNumber::from_slice(&serial));
        params.key_usages = vec![KeyUsagePurpose::DigitalSignature];
        // Registrars dial and are dialled, and so do elements.
        params.extended_key_usages =
            vec![ExtendedKeyUsagePurpose::ServerAuth, ExtendedKeyUsagePurpose::ClientAuth];
        params.use_authority_key_identifier_extension = true;
        for role in &names.roles {
            params.subject_alt_names.push(SanType::URI(told(Path::new(role), role.as_str().try_into())?));
        }
        for dns in &names.dns {
            params.subject_alt_names.push(SanType::DnsName(told(Path::new(dns), dns.as_str().try_into())?));
        }
        params.subject_alt_names.extend(names.ip.iter().map(|ip| SanType::IpAddress(*ip)));
        let certificate = params.signed_by(&key, &issuer).map_err(crypto)?;

        // Known before it is out: what is not in the index can't be taken back.
        self.index.entries.push(Entry {
            serial: serial.iter().map(|byte| format!("{byte:02x}")).collect(),
            revoked: None,
            until: now() + life.as_secs(),
            name: name.into(),
            names: names.written(),
        });
        self.save()?;
        let to = self.dir.join(name);
        directory(&to)?;
        write(&to.join("key.pem"), &key.serialize_pem(), true)?;
        write(&to.join("cert.pem"), &certificate.pem(), false)?;
        let authority = self.dir.join("ca.pem");
        write(&to.join("ca.pem"), &told(&authority, fs::read_to_string(&authority))?, false)?;
        if self.dir.join("crl.pem").exists() { self.write_list() } else { Ok(()) }
    }

    fn save(&self) -> Result<(), String> {
        write(&self.dir.join("index"), &self.index.to_string(), false)
    }

    /// Takes back all that is called so; how many that were.
    pub fn revoke(mut self, what: &str) -> Result<usize, String> {
        let serial = what.replace(':', "").to_ascii_lowercase();
        let mut count = 0;
        for entry in &mut self.index.entries {
            if (entry.name == what || entry.serial == serial) && entry.revoked.is_none() {
                entry.revoked = Some(now());
                count += 1;
            }
        }
        if count == 0 {
            return Err(format!(
                "\"{what}\" is neither the name nor the serial number of a valid certificate"
            ));
        }
        self.save()?;
        self.write_list()?;
        Ok(count)
    }

    /// Writes the revocation list, here and into the certificates' directories.
    pub fn write_list(&mut self) -> Result<(), String> {
        let issuer = self.issuer()?;
        self.index.list += 1;
        let revoked = self.index.entries.iter().filter_map(|entry| {
            Some(RevokedCertParams {
                serial_number: SerialNumber::from_slice(&serial_bytes(&entry.serial)?),
                revocation_time: date(entry.revoked?),
                reason_code: None,
                invalidity_date: None,
            })
        });
        let params = CertificateRevocationListParams {
            this_update: date(now().saturating_sub(SKEW.as_secs())),
            next_update: date(now() + LIST_LIFE.as_secs()),
            crl_number: SerialNumber::from(self.index.list),
            issuing_distribution_point: None,
            revoked_certs: revoked.collect(),
            key_identifier_method: KeyIdMethod::Sha256,
        };
        let list = params.signed_by(&issuer).and_then(|list| list.pem()).map_err(crypto)?;
        self.save()?;
        write(&self.dir.join("crl.pem"), &list, false)?;
        let mut names: Vec<&str> = self.index.entries.iter().map(|entry| entry.name.as_str()).collect();
        names.sort_unstable();
        names.dedup();
        for to in names.iter().map(|name| self.dir.join(name)).filter(|to| to.join("cert.pem").exists()) {
            write(&to.join("crl.pem"), &list, false)?;
        }
        Ok(())
    }

    /// All certificates, one line each.
    pub fn list(&self) -> Result<String, String> {
        let now = now();
        let lines = self.index.entries.iter().map(|entry| {
            let state = match entry.revoked {
                Some(_) => "revoked",
                None if entry.until <= now => "expired",
                None => "valid",
            };
            let day = date(entry.until).date();
            format!("{} {state:7} {day} {} {}\n", entry.serial, entry.name, entry.names.join(" "))
        });
        Ok(lines.collect())
    }
}

fn called(name: &str) -> DistinguishedName {
    let mut called = DistinguishedName::new();
    called.push(DnType::OrganizationName, "RSerPool");
    called.push(DnType::CommonName, name);
    called
}

fn authority_params(scope: &str) -> CertificateParams {
    let mut params = CertificateParams::default();
    params.distinguished_name = called(&format!("Authority of scope {scope}"));
    params.is_ca = IsCa::Ca(BasicConstraints::Constrained(0));
    params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
    params.key_identifier_method = KeyIdMethod::Sha256;
    params
}

fn date(seconds: u64) -> OffsetDateTime {
    date_time_ymd(1970, 1, 1) + Duration::from_secs(seconds)
}

fn dates(now: u64, life: Duration) -> (OffsetDateTime, OffsetDateTime) {
    (date(now.saturating_sub(SKEW.as_secs())), date(now + life.as_secs()))
}
