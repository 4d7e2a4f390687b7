//! TLS: the certificate, its renewal, and the only calls into the TLS library.

use std::io::{self, ErrorKind, Read, Write};
use std::path::Path;

use log::info;
use native_tls::{HandshakeError, Identity, Protocol, TlsAcceptor, TlsStream};

use crate::operator::config::Config;
use crate::operator::watched_files::{TextFile, WatchedFiles};

/// What a TLS handshake starts with.
pub type Acceptor = TlsAcceptor;

/// A TLS connection over the stream `S`.
pub type Stream<S> = TlsStream<S>;

/// The certificate and its private key, read anew when their files change.
pub type CertificateFiles = WatchedFiles<Certificate>;

/// A certificate that is ready to use.
pub struct Certificate {
    /// Starts handshakes.
    pub acceptor: Acceptor,
    /// Whether the certificate was within its period of validity when it was loaded.
    pub is_valid_now: bool,
}

/// Loads the certificate that `config` names; `None` if TLS is disabled.
///
/// # Errors
/// A sentence for the operator: TLS was requested, or one of its files exists, and it cannot start.
pub fn open(config: &Config) -> Result<Option<CertificateFiles>, String> {
    let Config { cert, key, tls_listen, tls_requested, .. } = config;
    if tls_listen.is_empty() {
        return Ok(None);
    }
    if !tls_requested && !cert.exists() && !key.exists() {
        let cert = cert.display();
        info!("TLS disabled: {cert} not found (create it with: sh certs/generate.sh)");
        return Ok(None);
    }
    WatchedFiles::open(&[cert, key], load).map(Some)
}

/// Does the server's side of a TLS handshake over a blocking stream.
///
/// # Errors
/// The client closed the connection, ran out of time, or shares no TLS version with the server.
pub fn accept<S: Read + Write>(acceptor: &Acceptor, stream: S) -> io::Result<Stream<S>> {
    acceptor.accept(stream).map_err(|error| match error {
        HandshakeError::Failure(error) => io::Error::other(error),
        // A blocking read returns without bytes only when its timeout is over.
        HandshakeError::WouldBlock(_) => ErrorKind::TimedOut.into(),
    })
}

fn load(files: &[TextFile]) -> Result<Certificate, String> {
    let [cert, key] = files else {
        return Err("a certificate is two files".into());
    };
    let (cert_file, key_file) = (cert.path.display(), key.path.display());
    // native-tls accepts a PKCS#8 key only, and only at the start of the text.
    let Some(start) = key.text.find("-----BEGIN PRIVATE KEY-----") else {
        return Err(format!(
            "{key_file} has no PKCS#8 key without a password (BEGIN PRIVATE KEY); convert a key of \
             another kind with: openssl pkcs8 -topk8 -nocrypt -in {key_file} -out key.pem"
        ));
    };
    let key_text = key.text.get(start..).unwrap_or_default();
    let acceptor = Identity::from_pkcs8(cert.text.as_bytes(), key_text.as_bytes())
        .and_then(|identity| {
            TlsAcceptor::builder(identity).min_protocol_version(Some(Protocol::Tlsv12)).build()
        })
        .map_err(|error| {
            format!("cannot use the certificate {cert_file} with the key {key_file}: {error}")
        })?;
    check_key(&cert.text, key_text, &cert.path, &key.path)?;
    let is_valid_now = log_validity(&cert.text, &cert.path);
    Ok(Certificate { acceptor, is_valid_now })
}

/// OpenSSL's server side ignores a key of another certificate without an error, and then every
/// handshake fails.
#[cfg(not(any(windows, target_vendor = "apple")))]
fn check_key(cert: &str, key: &str, cert_file: &Path, key_file: &Path) -> Result<(), String> {
    use openssl::{pkey::PKey, x509::X509};
    let public_key = X509::from_pem(cert.as_bytes()).and_then(|cert| cert.public_key());
    match (public_key, PKey::private_key_from_pem(key.as_bytes())) {
        (Ok(public), Ok(private)) if private.public_eq(&public) => Ok(()),
        _ => Err(format!(
            "the key {} does not belong to the certificate {}",
            key_file.display(),
            cert_file.display()
        )),
    }
}

/// Logs until when the certificate is valid, and returns whether it is valid now.
#[cfg(not(any(windows, target_vendor = "apple")))]
fn log_validity(cert: &str, file: &Path) -> bool {
    use crate::limits::EXPIRY_NOTICE;
    use log::{error, warn};
    use openssl::{asn1::Asn1Time, x509::X509};
    let file = file.display();
    let Ok((cert, now)) =
        X509::from_pem(cert.as_bytes()).and_then(|cert| Ok((cert, Asn1Time::days_from_now(0)?)))
    else {
        warn!("the certificate {file} has no end date that can be read");
        return true;
    };
    let (start, end) = (cert.not_before(), cert.not_after());
    let days = now.diff(end).map_or(0, |left| left.days);
    if *end < now {
        error!("the certificate {file} expired on {end}; renew it");
        return false;
    }
    if *start > now {
        error!("the certificate {file} is valid from {start} on; is this machine's clock right?");
        return false;
    }
    if days < EXPIRY_NOTICE {
        warn!("the certificate {file} expires on {end}, in {days} days; renew it");
    } else {
        info!("the certificate {file} is valid until {end}, {days} days");
    }
    true
}

/// The other systems' own TLS libraries check the key when it is loaded.
#[cfg(any(windows, target_vendor = "apple"))]
fn check_key(_: &str, _: &str, _: &Path, _: &Path) -> Result<(), String> {
    Ok(())
}

/// The other systems' TLS libraries, as native-tls offers them, do not tell.
#[cfg(any(windows, target_vendor = "apple"))]
fn log_validity(_: &str, file: &Path) -> bool {
    info!("the certificate {} is in use", file.display());
    true
}
