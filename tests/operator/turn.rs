//! Credentials for a TURN server: which clients get them, and the errors for a wrong secret. The browser
//! tests use them with a real TURN server.

use std::fs;
use std::time::SystemTime;

use crate::common::{Link, Server, openssl, options, run, scratch};
use data_encoding::BASE64;
use serde_json::{Value, json};
use signal_server::limits::TURN_TTL;

fn server(name: &str) -> Server {
    let secret = scratch(name).join("secret");
    fs::write(&secret, "not to be guessed\r\n").unwrap();
    let servers = ["--turn", "turn:turn.example.org", "--turn", "turns:turn.example.org:443"];
    let options = ["--log", "trace", "--turn-secret", secret.to_str().unwrap()];
    Server::start_with(&[&servers[..], &options[..]].concat())
}

#[test]
fn a_login_gets_turn_credentials_and_nobody_else_does() {
    let server = server("given");
    let mut alice = server.connect(Link::Plain);
    let login = |name: &str| json!({"signalType": "login", "fromUser": name, "iceServers": "mine"});
    let refused = alice.ask(&login(""));
    assert_eq!(
        refused,
        json!({"signalType": "login", "fromUser": "", "success": "0", "reason": "invalid-name"})
    );
    alice.send_json(&login("al: \"ice"));
    let text = alice.receive();
    assert_eq!(text.matches("iceServers").count(), 1, "{text}");
    let reply: Value = serde_json::from_str(&text).unwrap();
    let [turn] = reply["iceServers"].as_array().unwrap().as_slice() else { panic!("{reply}") };
    assert_eq!(turn["urls"], json!(["turn:turn.example.org", "turns:turn.example.org:443"]));

    let username = turn["username"].as_str().unwrap();
    let (expiry, name) = username.split_once(':').unwrap();
    let now = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap();
    let left = expiry.parse::<u64>().unwrap() - now.as_secs();
    assert!((TURN_TTL.as_secs() - 60..=TURN_TTL.as_secs()).contains(&left), "{left}");
    assert_eq!(name, "al%3A%20%22ice");
    let file = scratch("given").join("username");
    fs::write(&file, username).unwrap();
    let hmac = ["dgst", "-sha1", "-binary", "-hmac", "not to be guessed", file.to_str().unwrap()];
    let credential = BASE64.encode(&openssl(&hmac));
    assert_eq!(turn["credential"], credential);

    let page = server.exchange(Link::Plain, b"GET /config.json HTTP/1.1\r\nHost: x\r\n\r\n");
    assert!(page.contains(r#""iceServers":[]"#), "{page}");
    let log = server.log();
    assert!(log.contains("everybody who can connect may use the TURN server"), "{log}");
    assert!(!log.contains(&credential) && !log.contains("guessed"), "{log}");
}

#[test]
fn a_turn_secret_that_cannot_be_used_is_explained() {
    let file = scratch("bad secret").join("secret");
    for (text, word) in
        [(None, "No such file"), (Some(" \n"), "must be one line"), (Some("a\nb"), "openssl rand")]
    {
        if let Some(text) = text {
            fs::write(&file, text).unwrap();
        }
        let turn = ["--turn", "turn:turn.example.org", "--turn-secret", file.to_str().unwrap()];
        let (code, said) = run(&[options(), turn.to_vec()].concat());
        assert_eq!(code, 1, "{said}");
        assert!(said.contains(word) && !said.contains("listening"), "{said}");
    }
}
