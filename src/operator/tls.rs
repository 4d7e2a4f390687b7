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
/// A sentence for the operator: TLS was requested, or one of its files exists, or no other port is
/// asked for; and TLS cannot start.
pub fn open(config: &Config) -> Result<Option<CertificateFiles>, String> {
    let Config { cert, key, listen, tls_listen, tls_requested, .. } = config;
    if tls_listen.is_empty() {
        return Ok(None);
    }
    if !tls_requested && !cert.exists() && !key.exists() {
        let cert = cert.display();
        if listen.is_empty() {
            return Err(format!("--listen is off and {cert} not found: nothing to listen on"));
        }
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
    let is_valid_now = inspect(&cert.path, &cert.text, key_text)?;
    Ok(Certificate { acceptor, is_valid_now })
}

/// Logs until when the certificate is valid, and returns whether it is valid now. Refuses a key of
/// another certificate, which OpenSSL's server side ignores, so that every handshake would fail.
#[cfg(not(any(windows, target_vendor = "apple")))]
fn inspect(file: &Path, cert: &str, key: &str) -> Result<bool, String> {
    use crate::limits::EXPIRY_NOTICE;
    use log::{error, warn};
    use openssl::{asn1::Asn1Time, pkey::PKey, x509::X509};
    let file = file.display();
    let parse = || {
        let cert = X509::from_pem(cert.as_bytes())?;
        let is_its_key =
            PKey::private_key_from_pem(key.as_bytes())?.public_eq(&*cert.public_key()?);
        let now = Asn1Time::days_from_now(0)?;
        let days = now.diff(cert.not_after())?.days;
        Ok((cert, is_its_key, now, days))
    };
    let (cert, is_its_key, now, days) = parse().map_err(|error: openssl::error::ErrorStack| {
        format!("cannot read the certificate {file}: {error}")
    })?;
    if !is_its_key {
        return Err(format!("the key does not belong to the certificate {file}"));
    }
    let (start, end) = (cert.not_before(), cert.not_after());
    let is_valid_now = *start <= now && now <= *end;
    match days {
        _ if !is_valid_now => error!(
            "the certificate {file} is valid from {start} until {end}, and not now: renew it, or set \
             this machine's clock"
        ),
        ..EXPIRY_NOTICE => {
            warn!("the certificate {file} expires on {end}, in {days} days: renew it");
        }
        _ => info!("the certificate {file} is valid until {end}, {days} days"),
    }
    Ok(is_valid_now)
}

/// The TLS libraries of other systems check the key themselves, and native-tls does not show dates.
#[cfg(any(windows, target_vendor = "apple"))]
fn inspect(file: &Path, _: &str, _: &str) -> Result<bool, String> {
    info!("the certificate {} is in use", file.display());
    Ok(true)
}
