//! TLS: the certificate, its renewal, and the only calls into the TLS library.

use std::path::Path;

use log::{error, info, warn};

use crate::limits::EXPIRY_NOTICE;
use crate::operator::config::Config;
use crate::operator::watched_files::{TextFile, WatchedFiles};

pub use library::{Acceptor, Stream, accept};

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
/// A sentence for the operator: an option asks for TLS or one of its files exists, but TLS cannot
/// start; or there is neither TLS nor a plain port.
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

fn load(files: &[TextFile]) -> Result<Certificate, String> {
    let [cert, key] = files else {
        return Err("a certificate is two files".into());
    };
    let (cert_file, key_file) = (cert.path.display(), key.path.display());
    // native-tls accepts only a PKCS#8 key, and only at the start of the text.
    let Some(start) = key.text.find("-----BEGIN PRIVATE KEY-----") else {
        return Err(format!(
            "{key_file} has no PKCS#8 key without a password (BEGIN PRIVATE KEY); convert a key of \
             another kind with: openssl pkcs8 -topk8 -nocrypt -in {key_file} -out key.pem"
        ));
    };
    let key_text = key.text.get(start..).unwrap_or_default();
    let acceptor = library::new_acceptor(&cert.text, key_text).map_err(|error| {
        format!("cannot use the certificate {cert_file} with the key {key_file}: {error}")
    })?;
    let validity = library::validity(&acceptor)
        .map_err(|error| format!("cannot read the certificate {cert_file}: {error}"))?;
    let is_valid_now = log_validity(&cert.path, validity);
    Ok(Certificate { acceptor, is_valid_now })
}

/// A certificate's period of validity.
struct Validity {
    start: String,
    end: String,
    is_now: bool,
    days_left: i32,
}

/// Logs until when the certificate is valid, and returns whether it is valid now.
fn log_validity(file: &Path, validity: Option<Validity>) -> bool {
    let file = file.display();
    let Some(Validity { start, end, is_now, days_left }) = validity else {
        info!("the certificate {file} is in use");
        return true;
    };
    match days_left {
        _ if !is_now => error!(
            "the certificate {file} is valid from {start} until {end}, and not now: renew it, or set \
             this machine's clock"
        ),
        ..EXPIRY_NOTICE => {
            warn!("the certificate {file} expires on {end}, in {days_left} days: renew it");
        }
        _ => info!("the certificate {file} is valid until {end}, {days_left} days"),
    }
    is_now
}

/// OpenSSL: the default on Linux and the BSDs.
#[cfg(all(feature = "openssl", not(any(windows, target_vendor = "apple"))))]
mod library {
    use std::error::Error;
    use std::io::{self, ErrorKind, Read, Write};

    use openssl::asn1::Asn1Time;
    use openssl::error::ErrorStack;
    use openssl::pkey::PKey;
    use openssl::ssl::{HandshakeError, SslAcceptor, SslMethod, SslOptions, SslSessionCacheMode};
    use openssl::x509::X509;

    use super::Validity;

    /// What a TLS handshake starts with.
    pub type Acceptor = SslAcceptor;

    /// A TLS connection over the stream `S`.
    pub type Stream<S> = openssl::ssl::SslStream<S>;

    /// TLS 1.2 and 1.3, as in Mozilla's "intermediate" recommendation. Session resumption is off:
    /// clients could fill a session cache, and a stolen ticket key would decrypt recorded
    /// connections.
    pub fn new_acceptor(cert: &str, key: &str) -> Result<Acceptor, Box<dyn Error>> {
        let key = PKey::private_key_from_pem(key.as_bytes())?;
        let mut chain = X509::stack_from_pem(cert.as_bytes())?.into_iter();
        let cert = chain.next().ok_or("there is no certificate in it")?;
        if !key.public_eq(&*cert.public_key()?) {
            return Err("the key does not belong to the certificate".into());
        }
        let mut builder = SslAcceptor::mozilla_intermediate_v5(SslMethod::tls_server())?;
        // Only cheap cipher suites and groups are allowed, because a client may offer nothing but
        // the most expensive one. DHE and OpenSSL's other groups cost the server up to 100 times as
        // much.
        builder.set_cipher_list("ECDHE+AESGCM:ECDHE+CHACHA20")?;
        builder.set_groups_list("X25519:P-256:P-384")?;
        builder.set_options(
            SslOptions::NO_TICKET
                | SslOptions::NO_RENEGOTIATION
                | SslOptions::CIPHER_SERVER_PREFERENCE,
        );
        builder.set_num_tickets(0)?;
        builder.set_session_cache_mode(SslSessionCacheMode::OFF);
        builder.set_certificate(&cert)?;
        builder.set_private_key(&key)?;
        for link in chain {
            builder.add_extra_chain_cert(link)?;
        }
        Ok(builder.build())
    }

    /// Does the server's side of a TLS handshake over a blocking stream.
    ///
    /// # Errors
    /// The client closed the connection, ran out of time, or shares no TLS version with the server.
    pub fn accept<S: Read + Write>(acceptor: &Acceptor, stream: S) -> io::Result<Stream<S>> {
        acceptor.accept(stream).map_err(|error| match error {
            HandshakeError::SetupFailure(error) => error.into(),
            HandshakeError::Failure(failed) => io::Error::other(failed.into_error()),
            // A blocking read returns without bytes only when its timeout is over.
            HandshakeError::WouldBlock(_) => ErrorKind::TimedOut.into(),
        })
    }

    /// When the certificate is valid.
    pub fn validity(acceptor: &Acceptor) -> Result<Option<Validity>, ErrorStack> {
        let Some(cert) = acceptor.context().certificate() else { return Ok(None) };
        let (start, end, now) = (cert.not_before(), cert.not_after(), Asn1Time::days_from_now(0)?);
        let days_left = now.diff(end)?.days;
        let is_now = *start <= now && now <= *end;
        Ok(Some(Validity { start: start.to_string(), end: end.to_string(), is_now, days_left }))
    }
}

/// The system's own library by native-tls: macOS, Windows, and Linux without the feature `openssl`.
#[cfg(not(all(feature = "openssl", not(any(windows, target_vendor = "apple")))))]
mod library {
    use std::io::{self, ErrorKind, Read, Write};

    use native_tls::{HandshakeError, Identity, Protocol, TlsAcceptor};

    use super::Validity;

    /// What a TLS handshake starts with.
    pub type Acceptor = TlsAcceptor;

    /// A TLS connection over the stream `S`.
    pub type Stream<S> = native_tls::TlsStream<S>;

    /// TLS 1.2 or newer, and whatever else the library offers.
    pub fn new_acceptor(cert: &str, key: &str) -> native_tls::Result<Acceptor> {
        let identity = Identity::from_pkcs8(cert.as_bytes(), key.as_bytes())?;
        TlsAcceptor::builder(identity).min_protocol_version(Some(Protocol::Tlsv12)).build()
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

    /// native-tls does not show a certificate's dates.
    pub fn validity(_: &Acceptor) -> native_tls::Result<Option<Validity>> {
        Ok(None)
    }
}
