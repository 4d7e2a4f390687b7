//! The certificate: loading it, and saying in plain words what is wrong with it.
//!
//! Never touches a client's connection. Errors here are the operator's to mend, so each names the
//! file, what is wrong, and what to run.

use std::fs;
use std::path::Path;

use native_tls::{Identity, Protocol, TlsAcceptor};

use crate::config::Files;

/// Loads the pair, for TLS 1.2 and up.
///
/// # Errors
/// A sentence for the operator: a file is missing, unreadable, not PEM, or of another kind; the
/// key is not PKCS#8; or the key belongs to another certificate.
pub fn load(files: &Files) -> Result<TlsAcceptor, String> {
    let cert = read("certificate", &files.cert)?;
    let key = read("key", &files.key)?;
    let cert = check_certificate(&cert, &files.cert)?;
    let key = check_key(&key, &files.key)?;

    let identity = Identity::from_pkcs8(cert.as_bytes(), key.as_bytes()).map_err(|error| {
        format!(
            "cannot load the certificate {} with the key {}: {error}",
            files.cert.display(),
            files.key.display()
        )
    })?;
    if !belong_together(cert, key) {
        return Err(format!(
            "the key {} does not belong to the certificate {}; to see both public keys, run: \
             openssl x509 -noout -pubkey -in {}; openssl pkey -pubout -in {}",
            files.key.display(),
            files.cert.display(),
            files.cert.display(),
            files.key.display()
        ));
    }
    TlsAcceptor::builder(identity)
        .min_protocol_version(Some(Protocol::Tlsv12))
        .build()
        .map_err(|error| format!("cannot use the certificate {}: {error}", files.cert.display()))
}

fn read(what: &str, path: &Path) -> Result<String, String> {
    let bytes = fs::read(path).map_err(|error| {
        format!(
            "cannot read the {what} file {}: {error}; to make a self-signed pair, run: \
             sh certs/generate.sh",
            path.display()
        )
    })?;
    String::from_utf8(bytes).map_err(|_| {
        format!(
            "the {what} file {} is not PEM (text that starts with -----BEGIN); if it is DER, \
             run: openssl {} -inform der -in {} -out {what}.pem",
            path.display(),
            if what == "key" { "pkcs8 -topk8 -nocrypt" } else { "x509" },
            path.display()
        )
    })
}

fn check_certificate<'a>(pem: &'a str, path: &Path) -> Result<&'a str, String> {
    if pem.contains("-----BEGIN CERTIFICATE-----") {
        return Ok(pem);
    }
    let found = if pem.contains("PRIVATE KEY-----") {
        "holds a private key (are --cert and --key swapped?)"
    } else {
        "is not PEM, or holds no certificate"
    };
    Err(format!(
        "the certificate file {} {found}; it must have a line -----BEGIN CERTIFICATE-----; to see \
         what it is, run: openssl x509 -text -noout -in {}",
        path.display(),
        path.display()
    ))
}

/// The file from its PKCS#8 key on: native-tls takes that kind only, and only at the start.
fn check_key<'a>(pem: &'a str, path: &Path) -> Result<&'a str, String> {
    if let Some(start) = pem.find("-----BEGIN PRIVATE KEY-----") {
        return Ok(pem.get(start..).unwrap_or_default());
    }
    let found = if pem.contains("-----BEGIN RSA PRIVATE KEY-----") {
        "holds a PKCS#1 key (BEGIN RSA PRIVATE KEY)"
    } else if pem.contains("-----BEGIN EC PRIVATE KEY-----") {
        "holds a SEC1 key (BEGIN EC PRIVATE KEY)"
    } else if pem.contains("-----BEGIN ENCRYPTED PRIVATE KEY-----") {
        "holds an encrypted key"
    } else if pem.contains("-----BEGIN CERTIFICATE-----") {
        return Err(format!(
            "the key file {} holds a certificate and no key (are --cert and --key swapped?); \
             it must have a line -----BEGIN PRIVATE KEY-----",
            path.display()
        ));
    } else {
        return Err(format!(
            "the key file {} is not PEM, or holds no private key; it must have a line \
             -----BEGIN PRIVATE KEY-----; to make a self-signed pair, run: sh certs/generate.sh",
            path.display()
        ));
    };
    Err(format!(
        "the key file {} {found}, but PKCS#8 without a password (BEGIN PRIVATE KEY) is needed; \
         to convert it, run: openssl pkcs8 -topk8 -nocrypt -in {} -out key.pem",
        path.display(),
        path.display()
    ))
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
