//! Hostile frames, messages and users.

use std::io::Read;
use std::time::Duration;

use crate::common::{Client, Link, big, message, wait_until};
use crate::scene::{Scene, frame, receive_from_all, throw, wait_for_the_end};
use serde_json::json;
use tungstenite::{Bytes, Error, Message};

crate::over_plain_and_tls! {
    half_a_frame_and_then_silence
    headers_that_announce_1_eib
    every_reserved_bit_and_opcode
    unmasked_frames
    control_frames_in_fragments_or_too_long
    endless_fragments_with_bytes
    endless_fragments_without_bytes
    a_ping_flood_that_reads_its_pongs
    a_ping_flood_that_reads_nothing
    broken_utf8_across_fragments
    json_100_000_deep
    names_of_64_kib
    nul_and_newline_in_names
    proto_as_field_and_as_name
    integers_beyond_2_to_the_53
    lone_surrogates
    duplicate_keys
    a_login_storm_on_one_name_from_100_connections
    pairs_that_log_in_under_each_others_names
    two_who_send_to_each_other_flat_out
    two_who_send_to_each_other_and_read_nothing
    one_who_sends_to_oneself_and_reads_nothing
    recipients_that_vanish_in_the_middle_of_a_relay
    recipients_that_vanish_at_the_moment_of_an_offer
    senders_that_vanish_in_the_middle_of_a_message
}

const TEXT: u8 = 0x81;
const FRAGMENT: u8 = 0x01;
const MORE: u8 = 0x00;
const LAST: u8 = 0x80;
const PING: u8 = 0x89;

/// Lets `count` clients throw these bytes at once, and checks with which code each is closed.
fn all_are_closed_with(scene: &Scene, count: usize, code: u16, bytes: &[u8]) {
    let mut clients: Vec<Client> = (0..count).map(|_| scene.connect()).collect();
    for client in &mut clients {
        throw(client, bytes);
    }
    for client in &mut clients {
        assert_eq!(client.closed_with(), code, "{:?}", &bytes[..bytes.len().min(16)]);
    }
    scene.goes_on();
}

fn half_a_frame_and_then_silence(link: Link) {
    let scene = Scene::set(link);
    let mut silent: Vec<Client> =
        (0..16).map(|number| scene.login(&format!("silent {number}"))).collect();
    // A ping before it, whose answer tells that the server has the half as well.
    let half = [&frame(PING, b"?")[..], &frame(TEXT, &[b' '; 100])[..50]].concat();
    for client in &mut silent {
        throw(client, &half);
        assert_eq!(client.websocket.read().unwrap(), Message::Pong(Bytes::from_static(b"?")));
    }
    scene.goes_on();
    // Whoever wants one of their names has it as soon as the ping to its holder finds no answer.
    let mut heirs: Vec<Client> = silent.iter().map(|_| scene.connect()).collect();
    for (number, heir) in heirs.iter_mut().enumerate() {
        let name = format!("silent {number}");
        heir.send_json(&json!({"signalType": "login", "fromUser": name}));
    }
    assert!(receive_from_all(&mut heirs).iter().all(|reply| reply["success"] == "1"));
}

fn headers_that_announce_1_eib(link: Link) {
    let scene = Scene::set(link);
    for first in [TEXT, FRAGMENT, 0x82] {
        let header = [&[first, 0x80 | 127], &(1_u64 << 60).to_be_bytes()[..], &[0; 4]].concat();
        all_are_closed_with(&scene, 32, 1009, &header);
    }
    // The highest bit must be 0, and the largest number of all is no reason to overflow.
    for length in [1 << 63, u64::MAX] {
        let header = [&[TEXT, 0x80 | 127], &u64::to_be_bytes(length)[..], &[0; 4]].concat();
        all_are_closed_with(&scene, 8, 1009, &header);
    }
}

fn every_reserved_bit_and_opcode(link: Link) {
    let scene = Scene::set(link);
    let bits = [0x40, 0x20, 0x10, 0x70].map(|bits| bits | TEXT);
    let opcodes = (3..=7).chain(0xb..=0xf).map(|opcode| 0x80 | opcode);
    for first in bits.into_iter().chain(opcodes) {
        all_are_closed_with(&scene, 4, 1002, &frame(first, b"x"));
    }
}

fn unmasked_frames(link: Link) {
    let scene = Scene::set(link);
    for bytes in [&[TEXT, 2, b'{', b'}'][..], &[TEXT, 0], &[PING, 0], &[LAST, 0]] {
        all_are_closed_with(&scene, 16, 1002, bytes);
    }
}

fn control_frames_in_fragments_or_too_long(link: Link) {
    let scene = Scene::set(link);
    for opcode in [0x8, 0x9, 0xa] {
        all_are_closed_with(&scene, 8, 1002, &frame(opcode, b""));
        all_are_closed_with(&scene, 8, 1002, &frame(0x80 | opcode, &[b'x'; 126]));
    }
}

fn endless_fragments_with_bytes(link: Link) {
    let scene = Scene::set(link);
    let mut client = scene.connect();
    throw(&mut client, &frame(FRAGMENT, b" "));
    let thousand = frame(MORE, b" ").repeat(1000);
    for _ in 0..65 {
        assert!(throw(&mut client, &thousand));
    }
    scene.goes_on();
    // One more than 64 KiB.
    throw(&mut client, &frame(MORE, b" ").repeat(536));
    assert_eq!(client.closed_with(), 1009);
}

fn endless_fragments_without_bytes(link: Link) {
    let scene = Scene::set(link);
    let mut client = scene.connect();
    throw(&mut client, &frame(FRAGMENT, b""));
    let thousand = frame(MORE, b"").repeat(1000);
    for _ in 0..50 {
        assert!(throw(&mut client, &thousand));
    }
    scene.goes_on();
    // Empty fragments are legal and take no memory. The message is handled when its last one comes.
    throw(&mut client, &frame(LAST, br#"{"signalType":"login","fromUser":"patient"}"#));
    assert_eq!(client.receive_json()["success"], "1");
}

fn a_ping_flood_that_reads_its_pongs(link: Link) {
    let scene = Scene::set(link);
    let mut client = scene.connect();
    for batch in 0..50 {
        let last = Bytes::from(format!("last of {batch}"));
        throw(&mut client, &[frame(PING, &[b'x'; 125]).repeat(99), frame(PING, &last)].concat());
        while client.websocket.read().unwrap() != Message::Pong(last.clone()) {}
    }
    assert_eq!(client.log_in("pinger")["success"], "1");
}

fn a_ping_flood_that_reads_nothing(link: Link) {
    let scene = Scene::set(link);
    let mut client = scene.login("pinger");
    let pings = frame(PING, &[b'x'; 125]).repeat(100);
    while throw(&mut client, &pings) {} // until the server is tired of it
    scene.goes_on();
    scene.login("pinger");
}

fn broken_utf8_across_fragments(link: Link) {
    let scene = Scene::set(link);
    // Half a character, and no other half; a surrogate; an overlong NUL; beyond Unicode.
    let broken: [[&[u8]; 2]; 4] =
        [[b"\xc3", b"("], [b"\xed", b"\xa0\x80"], [b"\xc0", b"\x80"], [b"\xf4", b"\x90\x80\x80"]];
    for [head, tail] in broken {
        let ping = frame(PING, b"");
        let bytes = [frame(FRAGMENT, head), ping, frame(LAST, tail)].concat();
        let mut client = scene.connect();
        throw(&mut client, &bytes);
        assert_eq!(client.closed_with(), 1007, "{head:x?} {tail:x?}");
    }
    // Cut off in the middle of a character.
    all_are_closed_with(&scene, 16, 1007, &frame(TEXT, b"\xf0\x9f\x98"));
    // A whole one, cut anywhere, is no fault.
    let mut client = scene.connect();
    let login = "{\"signalType\":\"login\",\"fromUser\":\"\u{1F600}\"}".as_bytes();
    throw(&mut client, &frame(FRAGMENT, &login[..1]));
    for byte in &login[1..login.len() - 1] {
        throw(&mut client, &frame(MORE, &[*byte]));
    }
    throw(&mut client, &frame(LAST, b"}"));
    assert_eq!(client.receive_json()["fromUser"], "\u{1F600}");
}

fn json_100_000_deep(link: Link) {
    let scene = Scene::with(link, &["--max-message", "2000000"]);
    let mut client = scene.connect();
    for (open, close) in [("[", "]"), ("{\"a\":", "}"), ("[{\"a\":", "}]"), ("[", "")] {
        let (open, close) = (open.repeat(100_000), close.repeat(100_000));
        for field in ["x", "signalType", "fromUser"] {
            client.send(&format!(r#"{{"{field}":{open}1{close}}}"#));
            assert_eq!(client.receive_json()["code"], "invalid-json");
        }
    }
    assert_eq!(client.log_in("deep")["success"], "1");
}

fn names_of_64_kib(link: Link) {
    let scene = Scene::with(link, &["--log", "debug"]);
    let name = "n".repeat(65_000);
    let mut client = scene.connect();
    // 240 of them: if each were kept, memory would tell.
    for _ in 0..60 {
        let reply = client.log_in(&name);
        assert_eq!((&reply["reason"], &reply["fromUser"]), (&json!("invalid-name"), &json!(name)));
    }
    assert_eq!(client.log_in("short")["success"], "1");
    for _ in 0..60 {
        let fault = client.ask(&message("offer", "short", &name, json!(1)));
        assert_eq!((&fault["code"], &fault["toUser"]), (&json!("user-not-found"), &json!(name)));
        let fault = client.ask(&message("offer", &name, "short", json!(1)));
        assert_eq!(fault["code"], "wrong-sender");
        let fault = client.ask(&json!({"type": name}));
        assert!(fault["message"].as_str().unwrap().len() < 200, "{fault}");
    }
    let longest = scene.server.log().lines().map(str::len).max();
    assert!(longest < Some(500), "a log line of {longest:?} bytes");
}

fn nul_and_newline_in_names(link: Link) {
    let scene = Scene::with(link, &["--log", "trace"]);
    let mut client = scene.connect();
    let names =
        ["\0", "a\0b", "a\nb", "a\r\nERROR [signal_server] forged", "\u{1b}[2J", "\u{9b}2J"];
    for name in names {
        assert_eq!(client.log_in(name)["reason"], "invalid-name");
    }
    assert_eq!(client.log_in("innocent")["success"], "1");
    // These are valid, but no terminal or log viewer should see them raw.
    for name in ["zero\u{200d}width", "no\u{a0}break"] {
        assert_eq!(client.log_in(name)["success"], "1");
        assert_eq!(client.ask(&message("offer", name, name, json!(1)))["toUser"], name);
    }
    for name in names {
        let fault = client.ask(&message("offer", "no\u{a0}break", name, json!(1)));
        assert_eq!((&fault["code"], &fault["toUser"]), (&json!("user-not-found"), &json!(name)));
        assert_eq!(client.ask(&message("offer", name, "x", json!(1)))["code"], "wrong-sender");
    }
    scene.server.wait_for_log("{a0}break");
    for line in scene.server.log().lines() {
        let time = line.split(' ').next().unwrap();
        assert!(time.ends_with('Z') && time.contains('T'), "not a line of the log: {line:?}");
        let raw = |c: char| c.is_control() || !(c.is_ascii() || c.is_alphanumeric());
        assert!(!line.contains(raw), "{line:?}");
    }
}

fn proto_as_field_and_as_name(link: Link) {
    let scene = Scene::set(link);
    let mut client = scene.connect();
    let login = r#"{"__proto__":{"signalType":"leave","success":"0"},"constructor":{"prototype":{}},"signalType":"login","fromUser":"__proto__""#;
    client.send(&format!("{login}}}"));
    assert_eq!(client.receive(), format!(r#"{login},"success":"1"}}"#));
    for name in ["hasOwnProperty", "constructor", "toString", "valueOf"] {
        let fault = client.ask(&message("offer", "__proto__", name, json!(1)));
        assert_eq!(fault["code"], "user-not-found", "{name}");
    }
    // Fields that only a prototype has are not there.
    client.send(r#"{"__proto__":{"signalType":"login","fromUser":"x"}}"#);
    assert_eq!(client.receive_json()["code"], "unknown-command");
}

fn integers_beyond_2_to_the_53(link: Link) {
    let scene = Scene::set(link);
    let mut client = scene.connect();
    let digits = "9".repeat(60_000);
    let beyond = ["9007199254740992", "-9007199254740992", "18446744073709551616"];
    for number in beyond.into_iter().chain(["1e3", "-0.0", "1e999", &digits]) {
        for field in ["signalType", "fromUser", "toUser"] {
            client.send(&format!(r#"{{"{field}":{number}}}"#));
            assert_eq!(client.receive_json()["code"], "invalid-json", "{field}: {number:.30}");
        }
    }
    // The largest and the smallest that fit are names.
    for number in ["9007199254740991", "-9007199254740991"] {
        client.send(&format!(r#"{{"signalType":"login","fromUser":{number}}}"#));
        assert_eq!(client.receive_json()["success"], "1");
        let sent = format!(r#"{{"signalType":"offer","fromUser":"{number}","toUser":{number}}}"#);
        client.send(&sent);
        assert_eq!(client.receive(), sent);
    }
    // In what is not ours, any number is carried as it is written.
    let sent = format!(
        r#"{{"signalType":"offer","fromUser":{0},"toUser":{0},"n":[1e999,-0.0,{digits}]}}"#,
        "-9007199254740991"
    );
    client.send(&sent);
    assert_eq!(client.receive(), sent);
}

fn lone_surrogates(link: Link) {
    let scene = Scene::set(link);
    let mut client = scene.login("alice");
    for half in [r"\ud800", r"\udfff", r"\ud83dx", r"\ud83d\u0041", r"\ude00\ud83d", r"\ud8"] {
        for field in ["signalType", "fromUser", "toUser"] {
            client.send(&format!(r#"{{"{field}":"{half}"}}"#));
            assert_eq!(client.receive_json()["code"], "invalid-json", "{field}: {half}");
        }
    }
    // A whole one is a character, and so the same name however it is written.
    assert_eq!(client.log_in("\u{1F600}")["success"], "1");
    let sent = r#"{"signalType":"offer","fromUser":"\ud83d\ude00","toUser":"\uD83D\uDE00"}"#;
    client.send(sent);
    assert_eq!(client.receive(), sent);
}

fn duplicate_keys(link: Link) {
    let scene = Scene::set(link);
    let mut client = scene.login("alice");
    for twice in [
        r#""signalType":"offer","signalType":"login""#,
        r#""signalType":"offer","signal\u0054ype":"login""#,
        r#""signalType":"offer","fromUser":"alice","fromUser":"bob""#,
        r#""signalType":"offer","fromUser":null,"fromUser":"alice""#,
        r#""signalType":"offer","fromUser":"alice","toUser":"alice","to\u0055ser":"honest 1""#,
    ] {
        client.send(&format!("{{{twice}}}"));
        assert_eq!(client.receive_json()["code"], "invalid-json", "{twice}");
    }
    // An object full of one key is checked as quickly as any other.
    let many = vec![r#""a":1"#; 9_000].join(",");
    client.send(&format!(r#"{{"signalType":"dance","x":{{{many}}}}}"#));
    assert_eq!(client.receive_json()["code"], "unknown-command");
}

fn a_login_storm_on_one_name_from_100_connections(link: Link) {
    let scene = Scene::set(link);
    let mut clients: Vec<Client> = (0..100).map(|_| scene.connect()).collect();
    for client in &mut clients {
        client.send_json(&json!({"signalType": "login", "fromUser": "prize"}));
    }
    let replies = receive_from_all(&mut clients);
    assert!(replies.iter().all(|reply| reply["success"] == "1" || reply["reason"] == "name-taken"));
    // One client has the name: its message to itself arrives. The others get `not-logged-in`.
    for client in &mut clients {
        client.send_json(&message("offer", "prize", "prize", json!("mine")));
    }
    let heard = receive_from_all(&mut clients);
    let winners = heard.iter().filter(|heard| heard["payload"] == "mine").count();
    let others = heard.iter().filter(|heard| heard["code"] == "not-logged-in").count();
    assert_eq!((winners, others), (1, 99));
}

fn pairs_that_log_in_under_each_others_names(link: Link) {
    let scene = Scene::set(link);
    let mut clients: Vec<Client> = (0..32).map(|number| scene.login(&number.to_string())).collect();
    for _ in 0..10 {
        for (number, client) in clients.iter_mut().enumerate() {
            client.send_json(&json!({"signalType": "login", "fromUser": number ^ 1}));
        }
        for reply in receive_from_all(&mut clients) {
            assert_eq!(reply["reason"], "name-taken");
        }
    }
    // Each still has its own.
    for (number, client) in clients.iter_mut().enumerate() {
        let name = number.to_string();
        assert_eq!(client.ask(&message("offer", &name, &name, json!(1)))["payload"], 1);
    }
}

fn two_who_send_to_each_other_flat_out(link: Link) {
    let scene = Scene::set(link);
    let talk = |me: &str, other: &str, mut client: Client| {
        for round in 0..50 {
            // As many as the sockets' buffers hold, so that neither waits to be read.
            for number in 0..20 {
                client.send_json(&message("offer", me, other, json!([round, number])));
            }
            for number in 0..20 {
                let heard = client.receive_json();
                assert_eq!(
                    (&heard["fromUser"], &heard["payload"]),
                    (&json!(other), &json!([round, number]))
                );
            }
        }
        client
    };
    let (alice, bob) = (scene.login("alice"), scene.login("bob"));
    std::thread::scope(|scope| {
        let alice = scope.spawn(|| talk("alice", "bob", alice));
        let bob = scope.spawn(|| talk("bob", "alice", bob));
        scene.goes_on();
        let _both_at_the_end = (alice.join().unwrap(), bob.join().unwrap());
    });
}

/// Sends until the server takes no more.
fn flood(client: &mut Client, text: &str) {
    client.socket.set_write_timeout(Some(Duration::from_millis(200))).unwrap();
    while client.websocket.send(Message::text(text)).is_ok() {}
}

fn two_who_send_to_each_other_and_read_nothing(link: Link) {
    let scene = Scene::set(link);
    let (mut alice, mut bob) = (scene.login("alice"), scene.login("bob"));
    // Both write buffers fill up. Then each client's thread waits for its own client to read, and
    // holds no lock meanwhile.
    std::thread::scope(|scope| {
        scope.spawn(|| flood(&mut alice, &big("alice", "bob")));
        scope.spawn(|| flood(&mut bob, &big("bob", "alice")));
        scene.goes_on();
    });
    for name in ["alice", "bob"] {
        wait_until("the name is free", || scene.connect().log_in(name)["success"] == "1");
    }
    drop((alice, bob));
}

fn one_who_sends_to_oneself_and_reads_nothing(link: Link) {
    let scene = Scene::set(link);
    let mut alice = scene.login("alice");
    flood(&mut alice, &big("alice", "alice"));
    scene.goes_on();
    wait_until("the name is free", || scene.connect().log_in("alice")["success"] == "1");
    wait_for_the_end(&mut alice);
}

fn recipients_that_vanish_in_the_middle_of_a_relay(link: Link) {
    let scene = Scene::set(link);
    let mut alice = scene.login("alice");
    let text = big("alice", "bob").replace("candidate", "offer");
    for _ in 0..10 {
        let bob = scene.login("bob");
        std::thread::scope(|scope| {
            scope.spawn(move || {
                let mut some = [0; 1000];
                (&bob.socket).read_exact(&mut some).unwrap();
                bob.kill();
            });
            for _ in 0..20 {
                alice.send(&text);
            }
        });
        hears_the_end_of_a_call(&mut alice, "bob", 20);
    }
}

fn recipients_that_vanish_at_the_moment_of_an_offer(link: Link) {
    let scene = Scene::set(link);
    let mut alice = scene.login("alice");
    for round in 0..100 {
        // Of a name of its own, so that a late `leave` is not taken for the next round's.
        let name = format!("bob {round}");
        let bob = scene.login(&name);
        let offer = message("offer", "alice", &name, json!(1));
        std::thread::scope(|scope| {
            scope.spawn(move || bob.kill());
            for _ in 0..5 {
                alice.send_json(&offer);
            }
        });
        hears_the_end_of_a_call(&mut alice, &name, 5);
    }
}

/// Of `offers` that a client has sent, each was refused, or the call ends with one `leave`. A refused
/// offer may be followed by a `leave`, too.
fn hears_the_end_of_a_call(client: &mut Client, name: &str, offers: usize) {
    client.send_json(&json!({"signalType": "mark"}));
    let (mut refused, mut leaves, mut marks) = (0, 0, 0);
    while marks < 1 || (refused < offers && leaves < 1) {
        let heard = client.receive_json();
        match (heard["signalType"].as_str(), heard["code"].as_str()) {
            (Some("leave"), None) => leaves += usize::from(heard["fromUser"] == name),
            (Some("mark"), Some("unknown-command")) => marks += 1,
            (Some("offer"), Some("user-not-found" | "user-unreachable")) => refused += 1,
            _ => panic!("{heard}"),
        }
    }
    assert!(leaves <= 1, "{leaves} times leave");
}

fn senders_that_vanish_in_the_middle_of_a_message(link: Link) {
    let scene = Scene::set(link);
    let mut bob = scene.login("bob");
    for _ in 0..10 {
        let mut alice = scene.login("alice");
        alice.send_json(&message("offer", "alice", "bob", json!(1)));
        assert_eq!(bob.receive_json()["payload"], 1);
        let whole = frame(TEXT, big("alice", "bob").as_bytes());
        throw(&mut alice, &whole[..whole.len() - 1]);
        alice.kill();
        assert_eq!(bob.receive_json()["signalType"], "leave");
    }
    assert!(matches!(read_now(&mut bob), Err(Error::Io(_))), "more than a leave");
}

/// What has come to a client already.
fn read_now(client: &mut Client) -> Result<Message, Error> {
    client.socket.set_nonblocking(true).unwrap();
    client.websocket.read()
}
