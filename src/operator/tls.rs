//! The certificate: loading it, taking in a renewed one, and saying in plain words what is wrong.
//!
//! Never touches a client's connection. Errors here are the operator's to mend, so each names the
//! file, what is wrong, and what to run.

use std::io::ErrorKind;
use std::path::Path;
use std::time::Instant;

use log::{Level, log};
use native_tls::{Identity, Protocol, TlsAcceptor};
use parking_lot::{Mutex, MutexGuard};

use crate::limits::{CERTIFICATE_PAUSE, EXPIRY_NOTICE};
use crate::operator::config::{CertificateFiles, read_file};

/// The pair of files that handshakes use. When they change, so do the handshakes.
pub struct Certificate {
    files: CertificateFiles,
    state: Mutex<State>,
}

struct State {
    /// The last pair that was any good.
    acceptor: TlsAcceptor,
    cert: String,
    /// What the last look found: a pair, good or not, or why it can't be read. Whole files are
    /// compared, not their times: it costs no more, and nothing can slip through.
    found: Result<Pair, String>,
    /// When that was. `None` while somebody looks again: nobody else does meanwhile.
    looked: Option<Instant>,
    /// What the log was told last about the certificate's time.
    said: (Level, String),
}

#[derive(Clone, PartialEq)]
struct Pair {
    cert: String,
    key: String,
}

impl Certificate {
    /// Loads the pair, for TLS 1.2 and up.
    ///
    /// # Errors
    /// A sentence for the operator: a file is missing, unreadable, not PEM, or of another kind; the
    /// key is not PKCS#8; or the key belongs to another certificate.
    pub fn load(files: &CertificateFiles) -> Result<Certificate, String> {
        let pair = Pair::read(files)?;
        let state = State {
            acceptor: pair.acceptor(files)?,
            said: validity(&pair.cert, files),
            cert: pair.cert.clone(),
            found: Ok(pair),
            looked: Some(Instant::now()),
        };
        Ok(Certificate { files: files.clone(), state: Mutex::new(state) })
    }

    /// What to start a handshake with. At most once in [`CERTIFICATE_PAUSE`] this looks at the files
    /// first; a broken pair leaves the former one in use, and the log says why.
    pub fn acceptor(&self) -> TlsAcceptor {
        let mut state = self.state.lock();
        if state.looked.is_some_and(|looked| looked.elapsed() >= CERTIFICATE_PAUSE) {
            state.looked = None;
            // Without the lock: a disk that hangs holds up this one client.
            let found = MutexGuard::unlocked(&mut state, || Pair::read(&self.files));
            state.looked = Some(Instant::now());
            if let Some((level, news)) = state.update(found, &self.files) {
                MutexGuard::unlocked(&mut state, || log!(level, "{news}"));
            }
        }
        state.acceptor.clone()
    }

    /// The certificate and until when it is valid; at what level to log that.
    pub fn validity(&self) -> (Level, String) {
        self.state.lock().said.clone()
    }
}

impl State {
    /// Takes in what was found, and returns what to log about it: a change, a new problem, or, once
    /// a day, that the time is running out.
    fn update(
        &mut self,
        found: Result<Pair, String>,
        files: &CertificateFiles,
    ) -> Option<(Level, String)> {
        let changed = found != self.found;
        if changed {
            self.found.clone_from(&found);
            match found.and_then(|pair| Ok((pair.acceptor(files)?, pair.cert))) {
                Ok((acceptor, cert)) => (self.acceptor, self.cert) = (acceptor, cert),
                Err(problem) => {
                    let problem = format!("{problem}; the former certificate stays in use");
                    return Some((Level::Warn, problem));
                }
            }
        }
        // Within the last days this sentence counts them, and so is a new one every day.
        let validity = validity(&self.cert, files);
        let news = changed || validity != self.said;
        self.said.clone_from(&validity);
        news.then_some(validity)
    }
}

impl Pair {
    fn read(files: &CertificateFiles) -> Result<Pair, String> {
        Ok(Pair { cert: read("certificate", &files.cert)?, key: read("key", &files.key)? })
    }

    fn acceptor(&self, files: &CertificateFiles) -> Result<TlsAcceptor, String> {
        let (cert_file, key_file) = (files.cert.display(), files.key.display());
        let cert = check_certificate(&self.cert, &files.cert)?;
        let key = check_key(&self.key, &files.key)?;
        let identity = Identity::from_pkcs8(cert.as_bytes(), key.as_bytes()).map_err(|error| {
            format!("cannot load the certificate {cert_file} with the key {key_file}: {error}")
        })?;
        if !belong_together(cert, key) {
            return Err(format!(
                "the key {key_file} does not belong to the certificate {cert_file}; to see both \
                 public keys, run: openssl x509 -noout -pubkey -in {cert_file}; \
                 openssl pkey -pubout -in {key_file}"
            ));
        }
        TlsAcceptor::builder(identity)
            .min_protocol_version(Some(Protocol::Tlsv12))
            .build()
            .map_err(|error| format!("cannot use the certificate {cert_file}: {error}"))
    }
}

fn read(what: &str, path: &Path) -> Result<String, String> {
    read_file(path).map_err(|error| {
        let path = path.display();
        let remedy = match error.kind() {
            ErrorKind::InvalidData => {
                let command = if what == "key" { "pkcs8 -topk8 -nocrypt" } else { "x509" };
                &format!(
                    "so it is not PEM (text that starts with -----BEGIN); if it is DER, \
                     run: openssl {command} -inform der -in {path} -out {what}.pem"
                )
            }
            ErrorKind::PermissionDenied => "the server's user must be able to read it",
            _ => "to make a self-signed pair, run: sh certs/generate.sh",
        };
        format!("cannot read the {what} file {path}: {error}; {remedy}")
    })
}

fn check_certificate<'a>(pem: &'a str, path: &Path) -> Result<&'a str, String> {
    if pem.contains("-----BEGIN CERTIFICATE-----") {
        return Ok(pem);
    }
    let path = path.display();
    let found = if pem.contains("PRIVATE KEY-----") {
        "holds a private key (are --cert and --key swapped?)"
    } else {
        "is not PEM, or holds no certificate"
    };
    Err(format!(
        "the certificate file {path} {found}; it must have a line -----BEGIN CERTIFICATE-----; to \
         see what it is, run: openssl x509 -text -noout -in {path}"
    ))
}

/// The file from its PKCS#8 key on: native-tls takes that kind only, and only at the start.
fn check_key<'a>(pem: &'a str, path: &Path) -> Result<&'a str, String> {
    if let Some(start) = pem.find("-----BEGIN PRIVATE KEY-----") {
        return Ok(pem.get(start..).unwrap_or_default());
    }
    let path = path.display();
    let other_kinds = [
        ("RSA PRIVATE KEY", "a PKCS#1 key"),
        ("EC PRIVATE KEY", "a SEC1 key"),
        ("ENCRYPTED PRIVATE KEY", "an encrypted key"),
    ];
    let is_there = |label: &str| pem.contains(&format!("-----BEGIN {label}-----"));
    if let Some((label, kind)) = other_kinds.into_iter().find(|(label, _)| is_there(label)) {
        return Err(format!(
            "the key file {path} holds {kind} (BEGIN {label}), but PKCS#8 without a password \
             (BEGIN PRIVATE KEY) is needed; to convert it, run: \
             openssl pkcs8 -topk8 -nocrypt -in {path} -out key.pem"
        ));
    }
    let found = if is_there("CERTIFICATE") {
        "holds a certificate and no key (are --cert and --key swapped?)"
    } else {
        "is not PEM, or holds no private key"
    };
    Err(format!(
        "the key file {path} {found}; it must have a line -----BEGIN PRIVATE KEY-----; to make a \
         self-signed pair, run: sh certs/generate.sh"
    ))
}

/// What there is to say about a certificate's time, and how urgent that is.
#[cfg(not(any(windows, target_vendor = "apple")))]
fn validity(cert: &str, files: &CertificateFiles) -> (Level, String) {
    use openssl::{asn1::Asn1Time, x509::X509};
    let file = files.cert.display();
    let Ok((cert, now)) =
        X509::from_pem(cert.as_bytes()).and_then(|cert| Ok((cert, Asn1Time::days_from_now(0)?)))
    else {
        return (Level::Warn, format!("cannot tell until when the certificate {file} is valid"));
    };
    let (start, end) = (cert.not_before(), cert.not_after());
    let days = now.diff(end).map_or(i32::MAX, |left| left.days);
    let (level, what) = if *end < now {
        (Level::Error, format!("expired on {end}; renew it"))
    } else if *start > now {
        (Level::Error, format!("is valid from {start} on; is this machine's clock right?"))
    } else if days < EXPIRY_NOTICE {
        (Level::Warn, format!("expires on {end}, {days} days from now; renew it"))
    } else {
        (Level::Info, format!("is valid until {end}"))
    };
    (level, format!("the certificate {file} {what}"))
}

/// Elsewhere the system's own library keeps that to itself.
#[cfg(any(windows, target_vendor = "apple"))]
fn validity(_: &str, files: &CertificateFiles) -> (Level, String) {
    (Level::Info, format!("the certificate {} is in use", files.cert.display()))
}

/// Whether this is the certificate's key. OpenSSL's server side drops one that is not, without a
/// word, and every handshake would fail.
#[cfg(not(any(windows, target_vendor = "apple")))]
fn belong_together(cert: &str, key: &str) -> bool {
    use openssl::{pkey::PKey, x509::X509};
    let public_key = X509::from_pem(cert.as_bytes()).and_then(|cert| cert.public_key());
    match (public_key, PKey::private_key_from_pem(key.as_bytes())) {
        (Ok(public), Ok(private)) => private.public_eq(&public),
        _ => false,
    }
}

/// Elsewhere the system's own library pairs the two when it takes them in.
#[cfg(any(windows, target_vendor = "apple"))]
fn belong_together(_: &str, _: &str) -> bool {
    true
}
