//! The options about TLS, which both programs have.

use clap::Args;
use rserpool::runtime::Tls;

/// Each goes before its `RSP_TLS_*` variable.
#[derive(Debug, Clone, Default, Args)]
#[command(next_help_heading = "TLS")]
pub struct TlsArgs {
    /// off, allow (with whoever has TLS), or require (or RSP_TLS) [default: require with a certificate, else off]
    #[arg(long, global = true, value_name = "MODE")]
    tls: Option<String>,
    /// A directory with cert.pem, key.pem, ca.pem, and perhaps crl.pem and access, as rspctl ca makes it (or RSP_TLS_DIR)
    #[arg(long, alias = "tlsdir", global = true, value_name = "DIR")]
    tls_dir: Option<String>,
    /// Our certificate (or RSP_TLS_CERT)
    #[arg(long, alias = "tlscert", global = true, value_name = "FILE")]
    tls_cert: Option<String>,
    /// Its key (or RSP_TLS_KEY)
    #[arg(long, alias = "tlskey", global = true, value_name = "FILE")]
    tls_key: Option<String>,
    /// The authorities whose certificates are believed (or RSP_TLS_CA)
    #[arg(long, alias = "tlsca", global = true, value_name = "FILE")]
    tls_ca: Option<String>,
    /// Their revocation lists (or RSP_TLS_CRL)
    #[arg(long, alias = "tlscrl", global = true, value_name = "FILE")]
    tls_crl: Option<String>,
    /// Roles of certificates that name none (or RSP_TLS_ACCESS)
    #[arg(long, alias = "tlsaccess", global = true, value_name = "FILE")]
    tls_access: Option<String>,
    /// The scope that registrars' certificates must name (or RSP_TLS_SCOPE) [default: that of our own, or any]
    #[arg(long, alias = "tlsscope", global = true, value_name = "NAME")]
    tls_scope: Option<String>,
    /// UNSAFE: write the secrets of all connections to the file that SSLKEYLOGFILE names, to decode captures
    #[arg(long, global = true)]
    tls_unsafe_key_log: bool,
}

impl TlsArgs {
    /// What was given, over `tls`.
    pub fn apply(&self, tls: &mut Tls) -> Result<(), String> {
        let given = [
            ("", &self.tls),
            ("dir", &self.tls_dir),
            ("cert", &self.tls_cert),
            ("key", &self.tls_key),
            ("ca", &self.tls_ca),
            ("crl", &self.tls_crl),
            ("access", &self.tls_access),
            ("scope", &self.tls_scope),
        ];
        for (name, value) in given {
            if let Some(value) = value
                && !tls.set(name, value)
            {
                return Err(format!("--tls={value}: neither off, allow nor require"));
            }
        }
        if self.tls_unsafe_key_log {
            if std::env::var_os("SSLKEYLOGFILE").is_none() {
                return Err("--tls-unsafe-key-log: SSLKEYLOGFILE names no file".into());
            }
            tls.log_keys();
        }
        Ok(())
    }
}
