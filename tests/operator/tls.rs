//! Certificates: renewed, broken, expiring, and inspected by `--check`; files that can't be used; and
//! the TLS versions of the port.

use std::fs;
use std::io::Write;
use std::ops::Range;
use std::os::unix::fs::{PermissionsExt, symlink};
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::SystemTime;

use crate::common::{
    CERTIFICATE, CONNECTOR, Certificate, Link, Server, log_until, make_certificate, message,
    openssl, outcome, program, read_to_end, run, scratch, wait_until,
};
use openssl::{asn1::Asn1Time, hash::MessageDigest, pkey::PKey, x509::X509};
use serde_json::json;

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
    let stream = CONNECTOR.connect("localhost", server.door().open_socket(Link::Tls)).unwrap();
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
    assert_eq!(lines(&server, "cert.pem is valid until "), 2, "{}", server.log());
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
    let first = make_certificate("good");
    let pair = copy(&first, "broken");
    let (server, cert) = (start(&pair), &pair.cert);
    let other = make_certificate("other");
    let put_cert = |file: &Path| fs::copy(file, cert).unwrap() > 0;
    let problems: [(&dyn Fn(), &str); 5] = [
        // Half of a renewal.
        (&|| assert!(put_cert(&other.cert)), "the key does not belong to the certificate"),
        (&|| fs::write(cert, "").unwrap(), "cannot use the certificate"),
        (&|| fs::remove_file(cert).unwrap(), "No such file"),
        // A pipe that nobody writes to: opening it would never end.
        (&|| assert!(mkfifo(cert)), "not an ordinary file"),
        (
            &|| assert!(fs::remove_file(cert).is_ok() && put_cert(&first.key)),
            "cannot use the certificate",
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
    for words in ["is valid until", "at most 1000 connections", "MiB"] {
        assert!(said.contains(words), "no {words:?} in: {said}");
    }
}

#[test]
fn a_check_fails_for_what_would_fail_a_start() {
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

#[test]
fn tls_older_than_1_2_is_refused() {
    // Whether 1.3 works is for the system's library; on Linux, native-tls 0.2 leaves it out.
    let server = Server::start();
    let address = format!("127.0.0.1:{}", server.tls_port());
    for (version, works) in [("-tls1_2", true), ("-tls1_1", false), ("-tls1", false)] {
        let output = Command::new("openssl")
            .args(["s_client", "-connect", &address, version, "-cipher", "DEFAULT:@SECLEVEL=0"])
            .stdin(Stdio::null())
            .output()
            .unwrap();
        assert_eq!(output.status.success(), works, "{version}: {output:?}");
    }
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
