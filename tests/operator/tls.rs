//! Certificates: renewed, broken, expiring, and inspected by `--check`; files that can't be used; and
//! the TLS versions of the port.

use std::collections::BTreeSet;
use std::fs;
use std::io::{Read, Write};
use std::ops::Range;
use std::os::unix::fs::{PermissionsExt, symlink};
use std::path::Path;
use std::process::Command;
use std::sync::mpsc;
use std::time::{Duration, Instant, SystemTime};

use crate::common::{
    CERTIFICATE, CONNECTOR, Certificate, Link, Server, Uninterrupted, log_until, make_certificate,
    message, openssl, outcome, program, read_to_end, run, scratch, wait_until,
};
use data_encoding::HEXLOWER;
use openssl::md::Md;
use openssl::pkey::Id;
use openssl::pkey_ctx::{HkdfMode, PkeyCtx};
use openssl::ssl::{
    SslConnector, SslConnectorBuilder, SslMethod, SslOptions, SslSessionCacheMode, SslStream,
    SslVerifyMode, SslVersion,
};
use openssl::symm::{Cipher, encrypt_aead};
use openssl::{asn1::Asn1Time, hash::MessageDigest, pkey::PKey, x509::X509};
use serde_json::json;

/// native-tls shows neither dates nor whose key it is, and chooses versions and suites by itself.
const NATIVE_TLS: bool = cfg!(not(feature = "openssl"));

/// How the log says that a certificate is in use.
const IN_USE: &str = if NATIVE_TLS { "cert.pem is in use" } else { "cert.pem is valid until " };

/// A server whose certificate's files are this test's own.
fn start(pair: &Certificate) -> Server {
    Server::start_with(&pair.options())
}

/// A copy of a pair that a test may change.
fn copy(pair: &Certificate, name: &str) -> Certificate {
    let folder = scratch(name);
    let copy = Certificate { cert: folder.join("cert.pem"), key: folder.join("key.pem") };
    put(pair, &copy);
    copy
}

/// Puts one pair in the place of another.
fn put(new: &Certificate, old: &Certificate) {
    fs::copy(&new.cert, &old.cert).unwrap();
    fs::copy(&new.key, &old.key).unwrap();
}

/// The certificate that a new connection gets, DER.
fn presented(server: &Server) -> Vec<u8> {
    let socket = Uninterrupted(server.door().open_socket(Link::Tls));
    let stream = CONNECTOR.connect("localhost", socket).unwrap();
    stream.peer_certificate().unwrap().unwrap().to_der().unwrap()
}

fn der(cert: &Path) -> Vec<u8> {
    X509::from_pem(&fs::read(cert).unwrap()).unwrap().to_der().unwrap()
}

/// Connects until the server presents this certificate.
fn wait_for(server: &Server, cert: &Path) {
    let wanted = der(cert);
    wait_until("the server has taken in the certificate", || presented(server) == wanted);
}

fn mkfifo(path: &Path) -> bool {
    Command::new("mkfifo").arg(path).status().unwrap().success()
}

/// How many log lines contain this.
fn lines(server: &Server, text: &str) -> usize {
    server.log().lines().filter(|line| line.contains(text)).count()
}

#[test]
fn a_renewed_certificate_serves_new_connections_and_ends_no_old_one() {
    let pair = copy(&make_certificate("first"), "renewed");
    let server = start(&pair);
    wait_for(&server, &pair.cert);
    let mut alice = server.login(Link::Tls, "alice");
    let renewed = make_certificate("second");
    put(&renewed, &pair);
    wait_for(&server, &renewed.cert);
    let mut bob = server.login(Link::Tls, "bob");
    alice.send_json(&message("offer", "alice", "bob", json!(1)));
    assert_eq!(bob.receive_json()["payload"], 1);
    wait_until("the log says it twice", || lines(&server, IN_USE) == 2);
}

/// As certbot does it: links to files whose names change.
#[test]
fn a_certificate_behind_symbolic_links_is_renewed() {
    let pairs = [make_certificate("archive 1"), make_certificate("archive 2")];
    let live = scratch("live");
    let linked = Certificate { cert: live.join("fullchain.pem"), key: live.join("privkey.pem") };
    let link = |pair: &Certificate| {
        for (file, name) in [(&pair.cert, &linked.cert), (&pair.key, &linked.key)] {
            let _ = fs::remove_file(name);
            symlink(file, name).unwrap();
        }
    };
    link(&pairs[0]);
    let server = start(&linked);
    wait_for(&server, &pairs[0].cert);
    link(&pairs[1]);
    wait_for(&server, &pairs[1].cert);
}

#[test]
fn a_broken_pair_leaves_the_former_one_in_use_and_is_logged_once() {
    if NATIVE_TLS {
        return;
    }
    let first = make_certificate("good");
    let pair = copy(&first, "broken");
    let (server, cert) = (start(&pair), &pair.cert);
    let other = make_certificate("other");
    let put_cert = |file: &Path| fs::copy(file, cert).unwrap() > 0;
    let problems: [(&dyn Fn(), &str); 5] = [
        // Half of a renewal.
        (&|| assert!(put_cert(&other.cert)), "the key does not belong to the certificate"),
        (&|| fs::write(cert, "").unwrap(), "there is no certificate in it"),
        (&|| fs::remove_file(cert).unwrap(), "No such file"),
        // A pipe that nobody writes to: opening it would never end.
        (&|| assert!(mkfifo(cert)), "not an ordinary file"),
        (
            &|| assert!(fs::remove_file(cert).is_ok() && put_cert(&first.key)),
            "there is no certificate in it",
        ),
    ];
    for (breaks, words) in problems {
        breaks();
        wait_until("the log says so", || {
            assert_eq!(presented(&server), der(&first.cert));
            lines(&server, words) > 0
        });
    }
    put(&other, &pair);
    wait_for(&server, &other.cert);
    // Between these there were dozens of handshakes and several looks at the files.
    for (_, words) in &problems[1..] {
        assert_eq!(lines(&server, words), 1, "{}", server.log());
    }
    for line in server.log().lines().filter(|line| line.contains("stays in use")) {
        assert!(line.contains(" WARN "), "{line}");
    }
}

/// A pair that is valid from so many days (and an hour) from now until so many.
fn valid_for(name: &str, days: Range<i64>) -> Certificate {
    let Certificate { key, .. } = make_certificate(name);
    let pair = PKey::private_key_from_pem(&fs::read(&key).unwrap()).unwrap();
    let now = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap().as_secs() as i64;
    let at = |days: i64| Asn1Time::from_unix(now + (days * 24 + 1) * 60 * 60).unwrap();
    let mut builder = X509::builder().unwrap();
    builder.set_not_before(&at(days.start)).unwrap();
    builder.set_not_after(&at(days.end)).unwrap();
    builder.set_pubkey(&pair).unwrap();
    builder.sign(&pair, MessageDigest::sha256()).unwrap();
    let cert = scratch(name).join("timed.pem");
    fs::write(&cert, builder.build().to_pem().unwrap()).unwrap();
    Certificate { cert, key }
}

/// Runs `--check`: exit code, and everything it printed.
fn check(pair: &Certificate, options: &[&str]) -> (i32, String) {
    run(&[&["--check"], &pair.options()[..], options].concat())
}

#[test]
fn a_certificate_out_of_its_time_is_said_at_start_and_fails_a_check() {
    if NATIVE_TLS {
        return;
    }
    for (name, days, words) in
        [("expired", -9..-2, "and not now: renew it"), ("early", 2..90, "set this machine's clock")]
    {
        let pair = valid_for(name, days);
        let line = start(&pair).wait_for_log(words);
        assert!(line.contains(" ERROR "), "{line}");
        let (code, said) = check(&pair, &[]);
        assert_eq!(code, 1, "{said}");
        assert!(said.contains(words), "{said}");
    }
}

#[test]
fn a_certificate_that_expires_soon_is_said_at_start_and_in_a_check() {
    if NATIVE_TLS {
        return;
    }
    let pair = valid_for("soon", -9..6);
    let line = start(&pair).wait_for_log("timed.pem expires on ");
    assert!(line.contains(" WARN ") && line.contains("in 6 days: renew it"), "{line}");
    let (code, said) = check(&pair, &[]);
    assert_eq!(code, 0, "{said}");
    assert!(said.contains("in 6 days: renew it"), "{said}");
}

#[test]
fn a_check_says_what_it_found_and_opens_no_port() {
    let pair = make_certificate("fine");
    let server = start(&pair);
    let ports = [server.ws_port(), server.tls_port()].map(|port| format!("127.0.0.1:{port}"));
    let ice = scratch("fine").join("ice.json");
    fs::write(
        &ice,
        r#"[{"urls": "stun:a"}, {"urls": "turn:b", "username": "u", "credential": "c"}]"#,
    )
    .unwrap();
    let ice = ["--ice-servers", ice.to_str().unwrap()];
    let options = [&["--listen", &ports[0], "--tls-listen", &ports[1]], &ice[..]].concat();
    let (code, said) = check(&pair, &options);
    assert_eq!(code, 0, "{said}");
    for words in [IN_USE, "at most 1000 connections", "MiB"] {
        assert!(said.contains(words), "no {words:?} in: {said}");
    }
}

#[test]
fn a_check_fails_for_what_would_fail_a_start() {
    if NATIVE_TLS {
        return;
    }
    let mut pair = make_certificate("wrong");
    pair.key = make_certificate("of another").key;
    let (code, said) = check(&pair, &[]);
    assert_eq!(code, 1, "{said}");
    assert!(said.contains("the key does not belong to the certificate"), "{said}");
    assert_eq!(check(&pair, &["--ice-servers", "/nowhere/ice.json"]).0, 1);
    assert_eq!(check(&pair, &["--users", "/nowhere/users"]).0, 1);
    let turn = ["--turn", "turn:localhost", "--turn-secret", "/nowhere/secret"];
    assert_eq!(check(&pair, &turn).0, 1);
    assert_eq!(check(&pair, &["--listen", "8080"]).0, 2);
    let mut command = program();
    command.current_dir(scratch("empty")).args(["--check", "--listen", "off"]);
    let (code, said) = outcome(command.output().unwrap());
    assert!(code == 1 && said.contains("nothing to listen on"), "{said}");
}

#[test]
fn without_the_default_certificate_one_line_says_how_to_make_it() {
    let mut command = program();
    command.current_dir(scratch("empty")).args(["--listen", "127.0.0.1:0"]);
    let log = log_until(&mut command, "listening on ws://");
    assert!(
        log.contains(
            "TLS disabled: certs/cert.pem not found (create it with: sh certs/generate.sh)"
        ),
        "{log}"
    );
    assert!(!log.contains("wss://127"), "{log}");
}

#[test]
fn the_default_certificate_is_used_when_it_is_there() {
    let folder = scratch("with certs");
    fs::create_dir_all(folder.join("certs")).unwrap();
    fs::copy(&CERTIFICATE.cert, folder.join("certs/cert.pem")).unwrap();
    fs::copy(&CERTIFICATE.key, folder.join("certs/key.pem")).unwrap();
    let mut command = program();
    command.current_dir(&folder).args(["--listen", "off"]);
    // The default port may be taken on this machine; what matters is that TLS was tried.
    let log = log_until(&mut command, "8443");
    assert!(log.contains("listening on wss://") || log.contains("in use"), "{log}");

    // Half a pair is a mistake, not a wish for no TLS.
    fs::remove_file(folder.join("certs/key.pem")).unwrap();
    let mut command = program();
    command.current_dir(&folder).args(["--listen", "127.0.0.1:0"]);
    let (code, said) = outcome(command.output().unwrap());
    assert!(code == 1 && said.contains("certs/key.pem"), "{said}");
}

#[test]
fn a_certificate_that_cannot_be_used_is_explained_and_never_a_plain_port() {
    if NATIVE_TLS {
        return;
    }
    let folder = scratch("bad certificates");
    let file = |name: &str, content: &[u8]| {
        let path = folder.join(name);
        fs::write(&path, content).unwrap();
        path.to_str().unwrap().to_string()
    };
    let cert = CERTIFICATE.cert.to_str().unwrap();
    let key = CERTIFICATE.key.to_str().unwrap();
    let sec1 = file("sec1.pem", &openssl(&["ec", "-in", key]));
    let rsa = file("rsa.pem", &openssl(&["genrsa", "1024"]));
    let pkcs1 = file("pkcs1.pem", &openssl(&["rsa", "-traditional", "-in", &rsa]));
    let locked =
        file("locked.pem", &openssl(&["pkcs8", "-topk8", "-in", key, "-passout", "pass:x"]));
    let other = make_certificate("another").key;
    let der = file("der.pem", &openssl(&["x509", "-in", cert, "-outform", "der"]));
    let noise = file("noise.pem", b"hello\n");
    let empty = file("empty.pem", b"");
    let cut = file("cut.pem", &fs::read(cert).unwrap()[..200]);
    let cut_key = file("cutkey.pem", &fs::read(key).unwrap()[..100]);
    let missing = folder.join("missing.pem").to_str().unwrap().to_string();

    let cases: [(&str, &str, &[&str]); 14] = [
        (&missing, key, &["missing.pem", "No such file"]),
        (cert, &missing, &["missing.pem", "No such file"]),
        (folder.to_str().unwrap(), key, &["bad certificates", "not an ordinary file"]),
        (&noise, key, &["cannot use the certificate", "noise.pem"]),
        (&empty, key, &["cannot use the certificate", "empty.pem"]),
        (&der, key, &["der.pem", "UTF-8"]),
        (cert, &noise, &["noise.pem", "openssl pkcs8 -topk8 -nocrypt -in"]),
        (cert, &sec1, &["sec1.pem", "openssl pkcs8 -topk8 -nocrypt -in"]),
        (cert, &pkcs1, &["pkcs1.pem", "openssl pkcs8 -topk8 -nocrypt -in"]),
        (cert, &locked, &["locked.pem", "openssl pkcs8 -topk8 -nocrypt -in"]),
        (key, cert, &["BEGIN PRIVATE KEY"]),
        (cert, other.to_str().unwrap(), &["does not belong to"]),
        (&cut, key, &["cut.pem"]),
        (cert, &cut_key, &["cutkey.pem"]),
    ];
    for (cert, key, words) in cases {
        let (code, said) = run(&["--listen", "127.0.0.1:0", "--cert", cert, "--key", key]);
        assert_eq!(code, 1, "{said}");
        assert!(!said.contains("listening"), "{said}");
        for word in words {
            assert!(said.contains(word), "no {word:?} in: {said}");
        }
    }
    // Asked for by address alone: then too.
    let mut command = program();
    command.current_dir(scratch("empty"));
    command.args(["--listen", "127.0.0.1:0", "--tls-listen", "127.0.0.1:0"]);
    let (code, said) = outcome(command.output().unwrap());
    assert!(code == 1 && said.contains("certs/cert.pem"), "{said}");
}

#[test]
fn an_unreadable_key_is_explained() {
    let path = scratch("unreadable").join("key.pem");
    fs::copy(&CERTIFICATE.key, &path).unwrap();
    fs::set_permissions(&path, fs::Permissions::from_mode(0o000)).unwrap();
    if fs::read(&path).is_ok() {
        return; // root reads everything
    }
    let (code, said) =
        run(&["--cert", CERTIFICATE.cert.to_str().unwrap(), "--key", path.to_str().unwrap()]);
    assert_eq!(code, 1);
    assert!(said.contains("key.pem: Permission denied"), "{said}");
}

#[test]
fn a_key_behind_other_text_is_found() {
    let folder = scratch("text before");
    let path = folder.join("key.pem");
    let key = fs::read_to_string(&CERTIFICATE.key).unwrap();
    fs::write(&path, format!("Bag Attributes: none\n\n{key}")).unwrap();
    let server = Server::start_with(&["--key", path.to_str().unwrap()]);
    server.login(Link::Tls, "alice");
}

/// All suites that the server accepts of a client that speaks this version alone, and offers all that
/// OpenSSL has, 30-year-old ones too: the client offers everything but what was accepted before.
fn accepted_suites(server: &Server, version: SslVersion) -> BTreeSet<String> {
    let mut suites = BTreeSet::new();
    let mut tls13 =
        vec!["TLS_AES_128_GCM_SHA256", "TLS_AES_256_GCM_SHA384", "TLS_CHACHA20_POLY1305_SHA256"];
    tls13.extend(["TLS_AES_128_CCM_SHA256", "TLS_AES_128_CCM_8_SHA256"]);
    loop {
        let mut builder = SslConnector::builder(SslMethod::tls_client()).unwrap();
        builder.set_verify(SslVerifyMode::NONE);
        builder.clear_options(SslOptions::NO_TLSV1 | SslOptions::NO_TLSV1_1);
        let excluded: String = suites.iter().map(|suite| format!("!{suite}:")).collect();
        builder.set_cipher_list(&format!("{excluded}ALL:COMPLEMENTOFALL:@SECLEVEL=0")).unwrap();
        tls13.retain(|suite| !suites.contains(*suite));
        builder.set_ciphersuites(&tls13.join(":")).unwrap();
        builder.set_min_proto_version(Some(version)).unwrap();
        builder.set_max_proto_version(Some(version)).unwrap();
        let socket = Uninterrupted(server.door().open_socket(Link::Tls));
        let Ok(stream) = builder.build().connect("localhost", socket) else {
            return suites;
        };
        let suite = stream.ssl().current_cipher().unwrap().name().to_string();
        assert!(suites.insert(suite.clone()), "{suite} is accepted, but was not offered");
    }
}

fn rsa_certificate() -> Certificate {
    let folder = scratch("rsa");
    let pair = Certificate { cert: folder.join("cert.pem"), key: folder.join("key.pem") };
    let [cert, key] = [&pair.cert, &pair.key].map(|path| path.to_str().unwrap());
    let fixed = ["req", "-x509", "-newkey", "rsa:2048", "-nodes", "-subj", "/CN=localhost"];
    openssl(&[&fixed[..], &["-days", "30", "-keyout", key, "-out", cert]].concat());
    pair
}

#[test]
fn versions_and_suites_are_those_of_the_documents() {
    if NATIVE_TLS {
        return;
    }
    let document = include_str!("../../docs/tls.md");
    let rows: Vec<Vec<&str>> = document
        .lines()
        .filter(|line| line.starts_with("| TLSv"))
        .map(|line| line.split('|').map(str::trim).collect())
        .collect();
    for (kind, pair) in [("ECDSA", &*CERTIFICATE), ("RSA", &rsa_certificate())] {
        let server = start(pair);
        for (name, version) in [
            ("TLSv1.3", SslVersion::TLS1_3),
            ("TLSv1.2", SslVersion::TLS1_2),
            ("TLSv1.1", SslVersion::TLS1_1),
            ("TLSv1.0", SslVersion::TLS1),
        ] {
            let of_this = |row: &&Vec<&str>| row[1] == name && ["any", kind].contains(&row[3]);
            let wanted = rows.iter().filter(of_this).map(|row| row[2].to_string()).collect();
            assert_eq!(accepted_suites(&server, version), wanted, "{name}, {kind}");
        }
    }
}

#[test]
fn native_tls_speaks_nothing_older_than_tls_1_2() {
    if !NATIVE_TLS {
        return;
    }
    for pair in [&*CERTIFICATE, &rsa_certificate()] {
        let server = start(pair);
        assert!(!accepted_suites(&server, SslVersion::TLS1_2).is_empty());
        for old in [SslVersion::TLS1_1, SslVersion::TLS1] {
            assert!(accepted_suites(&server, old).is_empty());
        }
    }
}

/// A TLS client with settings of its own.
fn connect_with(
    server: &Server,
    set: impl FnOnce(&mut SslConnectorBuilder),
) -> Result<SslStream<Uninterrupted>, String> {
    let mut builder = SslConnector::builder(SslMethod::tls_client()).unwrap();
    builder.set_verify(SslVerifyMode::NONE);
    set(&mut builder);
    let socket = Uninterrupted(server.door().open_socket(Link::Tls));
    builder.build().connect("localhost", socket).map_err(|error| error.to_string())
}

/// A client chooses the group, and some cost the server many times what they cost the client.
#[test]
fn key_exchange_is_by_the_groups_of_the_documents() {
    if NATIVE_TLS {
        return;
    }
    let server = Server::start();
    for (group, accepted) in [
        ("X25519", true),
        ("P-256", true),
        ("P-384", true),
        ("P-521", false),
        ("X448", false),
        ("ffdhe2048", false),
        ("ffdhe8192", false),
    ] {
        let stream = connect_with(&server, |builder| {
            builder.set_min_proto_version(Some(SslVersion::TLS1_3)).unwrap();
            builder.set_groups_list(group).unwrap();
        });
        assert_eq!(stream.is_ok(), accepted, "{group}");
    }
}

/// Neither tickets nor a cache: a session that is offered again is unknown to the server.
#[test]
fn no_session_is_resumed() {
    if NATIVE_TLS {
        return;
    }
    let server = Server::start();
    for version in [SslVersion::TLS1_2, SslVersion::TLS1_3] {
        let (sender, sessions) = mpsc::channel();
        let set = |builder: &mut SslConnectorBuilder| {
            builder.set_max_proto_version(Some(version)).unwrap();
            builder.set_session_cache_mode(SslSessionCacheMode::CLIENT);
            builder.set_new_session_callback(move |_, session| sender.send(session).unwrap());
        };
        let mut stream = connect_with(&server, set).unwrap();
        // In TLS 1.3 a ticket comes after the handshake, before anything else.
        stream.write_all(b"GET /config.json HTTP/1.1\r\nHost: localhost\r\n\r\n").unwrap();
        assert!(read_to_end(&mut stream).starts_with("HTTP/1.1 200"));
        for session in sessions.try_iter() {
            assert!(session.id().is_empty(), "{version:?}");
        }
    }
}

/// Encrypts as a TLS 1.3 client with TLS_AES_128_GCM_SHA256 does (RFC 8446, section 7).
struct Writer {
    secret: Vec<u8>,
    records: u64,
}

impl Writer {
    const SUITE: &str = "TLS_AES_128_GCM_SHA256";

    fn expand(&self, label: &str, length: u8) -> Vec<u8> {
        let mut context = PkeyCtx::new_id(Id::HKDF).unwrap();
        context.derive_init().unwrap();
        context.set_hkdf_mode(HkdfMode::EXPAND_ONLY).unwrap();
        context.set_hkdf_md(Md::sha256()).unwrap();
        context.set_hkdf_key(&self.secret).unwrap();
        let label = format!("tls13 {label}");
        let info = [&[0, length, label.len() as u8], label.as_bytes(), &[0]].concat();
        context.add_hkdf_info(&info).unwrap();
        let mut derived = vec![0; usize::from(length)];
        context.derive(Some(&mut derived)).unwrap();
        derived
    }

    fn record(&mut self, kind: u8, content: &[u8]) -> Vec<u8> {
        let (key, mut nonce) = (self.expand("key", 16), self.expand("iv", 12));
        for (byte, count) in nonce[4..].iter_mut().zip(self.records.to_be_bytes()) {
            *byte ^= count;
        }
        self.records += 1;
        let (plain, mut tag) = ([content, &[kind]].concat(), [0; 16]);
        let length = (plain.len() + tag.len()) as u16;
        let header = [&[23, 3, 3], &length.to_be_bytes()[..]].concat();
        let cipher = Cipher::aes_128_gcm();
        let sealed = encrypt_aead(cipher, &key, Some(&nonce), &header, &plain, &mut tag).unwrap();
        [header, sealed, tag.to_vec()].concat()
    }

    fn key_update(&mut self) -> Vec<u8> {
        let record = self.record(22, &[24, 0, 0, 1, 0]);
        *self = Writer { secret: self.expand("traffic upd", 32), records: 0 };
        record
    }
}

/// A key update costs more than a message, in fewer bytes: each is charged as one.
#[test]
fn a_flood_of_key_updates_is_slowed_down_like_a_flood_of_messages() {
    if NATIVE_TLS {
        return;
    }
    let server = Server::start_with(&["--max-rate", "10"]);
    let (sender, key_log) = mpsc::channel();
    let mut stream = connect_with(&server, |builder| {
        builder.set_min_proto_version(Some(SslVersion::TLS1_3)).unwrap();
        builder.set_ciphersuites(Writer::SUITE).unwrap();
        builder.set_keylog_callback(move |_, line| sender.send(line.to_string()).unwrap());
    })
    .unwrap();
    let line = key_log.try_iter().find(|line| line.starts_with("CLIENT_TRAFFIC_SECRET_0 "));
    let secret = HEXLOWER.decode(line.unwrap().rsplit(' ').next().unwrap().as_bytes()).unwrap();
    let mut writer = Writer { secret, records: 0 };

    let mut socket = stream.get_ref().0.try_clone().unwrap();
    let upgrade = "GET / HTTP/1.1\r\nHost: localhost\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\
                   Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n";
    socket.write_all(&writer.record(23, upgrade.as_bytes())).unwrap();
    let mut head = Vec::new();
    while !head.ends_with(b"\r\n\r\n") {
        let mut byte = [0];
        stream.read_exact(&mut byte).unwrap();
        head.extend(byte);
    }
    // 40 at once, and then 10 a second.
    let flood: Vec<u8> = (0..60).flat_map(|_| writer.key_update()).collect();
    let start = Instant::now();
    socket.write_all(&flood).unwrap();
    // The first ping may be read together with the flood, and answered before the flood is charged.
    for _ in 0..2 {
        // With a mask of zeros.
        socket.write_all(&writer.record(23, &[0x89, 0x80, 0, 0, 0, 0])).unwrap();
        let mut pong = [0; 2];
        stream.read_exact(&mut pong).unwrap();
        assert_eq!(pong, [0x8a, 0]);
    }
    assert!(start.elapsed() > Duration::from_secs(1), "{:?}", start.elapsed());
}

#[test]
fn plain_bytes_on_the_tls_port_and_the_reverse_hurt_nobody() {
    let server = Server::start();
    let mut alice = server.login(Link::Plain, "alice");
    let mut bob = server.login(Link::Tls, "bob");
    let mut on_tls = server.door().open_socket(Link::Tls);
    on_tls.write_all(b"GET / HTTP/1.1\r\n\r\n").unwrap();
    read_to_end(&mut on_tls);
    assert!(CONNECTOR.connect("localhost", server.door().open_socket(Link::Plain)).is_err());
    alice.send_json(&message("offer", "alice", "bob", json!(1)));
    assert_eq!(bob.receive_json()["payload"], 1);
}
