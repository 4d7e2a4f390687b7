//! The wire contract, row by row, over real sockets, plain and TLS.

use std::io::Read;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use crate::common::{
    ANSWER, CANDIDATE, Client, Link, Local, OFFER, PATIENCE, Server, message, wait_until,
};
use serde_json::{Value, json};
use signal_server::limits::Timeouts;
use tungstenite::Message;

crate::over_plain_and_tls! {
    login_is_answered_with_the_requests_own_fields_and_success_1
    login_reply_keeps_values_that_a_parser_would_change
    login_ignores_a_success_that_the_client_sent
    a_taken_name_is_refused_while_its_holder_lives
    a_dead_holder_loses_its_name_and_its_partner_hears_it_first
    a_holder_that_answers_no_ping_but_sends_a_message_keeps_its_name
    login_again_under_the_own_name_is_refused
    rename_frees_the_old_name_and_tells_the_partners
    rename_to_a_taken_name_keeps_the_old_one
    two_users_swapping_names_both_keep_their_own
    names_that_are_no_names_are_refused
    names_of_every_kind_work
    an_integer_is_a_name
    every_kind_is_relayed_byte_for_byte_to_one_recipient
    real_offer_answer_and_candidate_arrive_byte_for_byte
    a_message_in_a_binary_frame_arrives_as_text
    order_is_kept
    a_message_to_oneself_arrives
    a_stranger_cannot_send_as_alice
    relay_before_login_is_refused
    unknown_commands_are_named
    invalid_json_is_refused_and_the_connection_stays
    nobody_there_is_an_error_but_not_for_leave
    partners_hear_leave_once_when_a_client_vanishes
    strangers_hear_nothing_when_a_client_vanishes
    leave_ends_the_partnership_on_both_sides
    candidates_make_no_partners
    a_callee_who_never_answered_hears_the_caller_vanish
    a_mesh_call_tells_every_partner
    errors_echo_what_the_message_had
    close_is_answered_with_1000
    a_ping_is_answered
}

fn login_is_answered_with_the_requests_own_fields_and_success_1(link: Link) {
    let server = Server::start();
    let mut client = server.connect(link);
    let mut request = json!({
        "msgType": "other", "signalType": "login", "fromUser": "alice", "toUser": "",
        "extra": {"nested": [1, null, true, "ä\u{1F600}"]},
    });
    let reply = client.ask(&request);
    request["success"] = json!("1");
    assert_eq!(reply, request);
}

fn login_reply_keeps_values_that_a_parser_would_change(link: Link) {
    let server = Server::start();
    let mut client = server.connect(link);
    client.send(
        r#" { "signalType" : "login","fromUser":"alice","big":123456789012345678901234567890,"x":1.10, "\u0061b":[1e400] } "#,
    );
    let reply = client.receive();
    for field in [r#""big":123456789012345678901234567890"#, r#""x":1.10"#, r#""ab":[1e400]"#] {
        assert!(reply.contains(field), "{reply}");
    }
    assert!(reply.ends_with(r#","success":"1"}"#), "{reply}");
}

fn login_ignores_a_success_that_the_client_sent(link: Link) {
    let server = Server::start();
    let mut client = server.connect(link);
    client.send(r#"{"success":"7","reason":"me","signalType":"login","fromUser":""}"#);
    let reply = client.receive();
    assert_eq!(
        serde_json::from_str::<Value>(&reply).unwrap(),
        json!({"signalType": "login", "fromUser": "", "success": "0", "reason": "invalid-name"})
    );
    assert_eq!(reply.matches("success").count(), 1);
}

fn a_taken_name_is_refused_while_its_holder_lives(link: Link) {
    let server = Server::start();
    let mut alice = server.login(link, "alice");
    let mut second = server.connect(link);
    let reply = while_answering_pings(&mut alice, || second.log_in("alice"));
    assert_eq!((&reply["success"], &reply["reason"]), (&json!("0"), &json!("name-taken")));

    let mut bob = server.login(link, "bob");
    bob.send_json(&message("offer", "bob", "alice", json!(1)));
    assert_eq!(alice.receive_json()["fromUser"], "bob");
    assert_eq!(second.log_in("carol")["success"], "1");
}

fn a_dead_holder_loses_its_name_and_its_partner_hears_it_first(link: Link) {
    let probe = Duration::from_millis(200);
    let Local { door, .. } = &Local::start(Timeouts { probe, ..Timeouts::default() });
    let mut dead = door.login(link, "alice"); // never reads again, so it never answers a ping
    let mut alice = door.connect(link);
    let mut bob = door.login(link, "bob");
    bob.send_json(&message("offer", "bob", "alice", json!(1)));
    assert_eq!(bob.ask(&json!({}))["code"], "unknown-command"); // the offer was sent before it

    assert_eq!(alice.log_in("alice")["success"], "1");
    alice.send_json(&message("offer", "alice", "bob", json!(2)));
    assert_eq!(bob.receive_json(), leave_of("alice", "bob"));
    assert_eq!(bob.receive_json()["payload"], 2);
    // One login sends one ping, with its number, however long it waits for the pong.
    let mut received = Vec::new();
    let _ = dead.websocket.get_mut().read_to_end(&mut received); // An error: TLS ends without a word.
    let ping = [0x89, 8, 0, 0, 0, 0, 0, 0, 0, 1];
    assert!(received.ends_with(&ping), "{received:?}");
    assert_eq!(received.windows(2).filter(|head| *head == &ping[..2]).count(), 1, "{received:?}");
}

/// The ping may be queued behind data that the holder has not read yet.
fn a_holder_that_answers_no_ping_but_sends_a_message_keeps_its_name(link: Link) {
    let probe = Duration::from_secs(1);
    let Local { door, .. } = &Local::start(Timeouts { probe, ..Timeouts::default() });
    let mut alice = door.login(link, "alice");
    let mut second = door.connect(link);
    std::thread::scope(|scope| {
        let reply = scope.spawn(|| second.log_in("alice"));
        let mut ping = [0; 10];
        alice.websocket.get_mut().read_exact(&mut ping).unwrap(); // tungstenite would answer it
        alice.send_json(&message("leave", "alice", "nobody", json!(1)));
        assert_eq!(reply.join().unwrap()["reason"], "name-taken");
    });
}

fn login_again_under_the_own_name_is_refused(link: Link) {
    let server = Server::start();
    let mut alice = server.login(link, "alice");
    alice.send_json(&json!({"signalType": "login", "fromUser": "alice"}));
    // No probe: the reply is the very next frame, not a ping.
    let Ok(Message::Text(reply)) = alice.websocket.read() else { panic!("not a text frame") };
    let reply: Value = serde_json::from_str(&reply).unwrap();
    assert_eq!((&reply["success"], &reply["reason"]), (&json!("0"), &json!("name-taken")));
    alice.send_json(&message("candidate", "alice", "alice", json!(1)));
    assert_eq!(alice.receive_json()["payload"], 1);
}

fn rename_frees_the_old_name_and_tells_the_partners(link: Link) {
    let server = Server::start();
    let (mut alice, mut bob) = (server.login(link, "alice"), server.login(link, "bob"));
    alice.send_json(&message("offer", "alice", "bob", json!(1)));
    bob.receive_json();

    assert_eq!(alice.log_in("alicia")["success"], "1");
    assert_eq!(bob.receive_json(), leave_of("alice", "bob"));
    let mut new = server.login(link, "alice");
    assert_eq!(bob.ask(&message("offer", "bob", "nobody", json!(1)))["code"], "user-not-found");
    bob.send_json(&message("offer", "bob", "alicia", json!(2)));
    assert_eq!(alice.receive_json()["payload"], 2);
    new.heard_nothing_from(&mut bob, "bob", "alice");
    // The name that is hers now, and that one only, is the one she sends as.
    assert_eq!(alice.ask(&message("offer", "alice", "bob", json!(1)))["code"], "wrong-sender");
}

fn rename_to_a_taken_name_keeps_the_old_one(link: Link) {
    let server = Server::start();
    let (mut alice, mut bob) = (server.login(link, "alice"), server.login(link, "bob"));
    let reply = while_answering_pings(&mut bob, || alice.log_in("bob"));
    assert_eq!(reply["reason"], "name-taken");
    bob.send_json(&message("candidate", "bob", "alice", json!(1)));
    assert_eq!(alice.receive_json()["payload"], 1);
}

fn two_users_swapping_names_both_keep_their_own(link: Link) {
    let server = Server::start();
    let (mut alice, mut bob) = (server.login(link, "alice"), server.login(link, "bob"));
    // Each thread probes the other's client while its own can't be heard.
    alice.send_json(&json!({"signalType": "login", "fromUser": "bob"}));
    bob.send_json(&json!({"signalType": "login", "fromUser": "alice"}));
    let answered = AtomicUsize::new(0);
    // Reading is what answers the other's ping, so both go on until both have their answer.
    let answer = |client: &mut Client| {
        let reply = client.receive_json();
        answered.fetch_add(1, Ordering::Relaxed);
        client.socket.set_read_timeout(Some(Duration::from_millis(5))).unwrap();
        while answered.load(Ordering::Relaxed) < 2 {
            let _ = client.websocket.read();
        }
        client.socket.set_read_timeout(Some(PATIENCE)).unwrap();
        reply["reason"].clone()
    };
    std::thread::scope(|scope| {
        let alice = scope.spawn(|| answer(&mut alice));
        let bob = scope.spawn(|| answer(&mut bob));
        assert_eq!(alice.join().unwrap(), "name-taken");
        assert_eq!(bob.join().unwrap(), "name-taken");
    });
    alice.send_json(&message("offer", "alice", "bob", json!(1)));
    assert_eq!(bob.receive_json()["payload"], 1);
}

fn names_that_are_no_names_are_refused(link: Link) {
    let server = Server::start();
    let mut client = server.connect(link);
    let long = "x".repeat(129);
    for name in ["", long.as_str(), "a\nb", "a\u{0}b", "\u{7f}", "\u{85}"] {
        let reply = client.log_in(name);
        assert_eq!((&reply["success"], &reply["reason"]), (&json!("0"), &json!("invalid-name")));
        assert_eq!(reply["fromUser"], name);
    }
    let missing = client.ask(&json!({"signalType": "login"}));
    assert_eq!(missing, json!({"signalType": "login", "success": "0", "reason": "invalid-name"}));
    let null = client.ask(&json!({"signalType": "login", "fromUser": null}));
    assert_eq!(null["reason"], "invalid-name");
}

fn names_of_every_kind_work(link: Link) {
    let server = Server::start();
    let mut bob = server.login(link, "bob");
    let longest = "é".repeat(64);
    for name in
        ["constructor", "__proto__", "toString", "a b", "\"", "\\", "Ünï\u{1F600}", &longest]
    {
        let mut client = server.login(link, name);
        let sent = message("offer", "bob", name, json!(1));
        bob.send_json(&sent);
        assert_eq!(client.receive_json(), sent);
        client.websocket.close(None).unwrap();
        assert_eq!(bob.receive_json(), leave_of(name, "bob"));
    }
}

fn an_integer_is_a_name(link: Link) {
    let server = Server::start();
    let mut seven = server.connect(link);
    let reply = seven.ask(&json!({"signalType": "login", "fromUser": 7}));
    assert_eq!(reply, json!({"signalType": "login", "fromUser": 7, "success": "1"}));
    let mut minus = server.login(link, "-3");

    // The number and its decimal text are one name, whichever way it is written.
    seven.send(r#"{"signalType":"offer","fromUser":"7","toUser":-3}"#);
    assert_eq!(minus.receive(), r#"{"signalType":"offer","fromUser":"7","toUser":-3}"#);
    minus.send(r#"{"signalType":"answer","fromUser":-3,"toUser":"7"}"#);
    assert_eq!(seven.receive(), r#"{"signalType":"answer","fromUser":-3,"toUser":"7"}"#);
    let error = seven.ask(&json!({"signalType": "offer", "fromUser": 7, "toUser": 8}));
    assert_eq!((&error["message"], &error["toUser"]), (&json!("User not found: 8"), &json!(8)));
    seven.kill();
    assert_eq!(minus.receive_json(), leave_of("7", "-3"));

    let mut client = server.connect(link);
    for number in ["1.5", "18446744073709551616", "true", "[7]", r#"{"a":7}"#] {
        client.send(&format!(r#"{{"signalType":"login","fromUser":{number}}}"#));
        assert_eq!(client.receive_json()["code"], "invalid-json", "{number}");
    }
}

fn every_kind_is_relayed_byte_for_byte_to_one_recipient(link: Link) {
    let server = Server::start();
    let (mut alice, mut bob) = (server.login(link, "alice"), server.login(link, "bob"));
    let mut carol = server.login(link, "carol");
    let mut silent = server.connect(link); // not logged in
    for kind in ["offer", "answer", "pranswer", "candidate", "leave"] {
        // Odd spacing, escapes and field order, all of it the clients' own.
        let text = format!(
            " {{\"sdp\" :{{\"type\":\"x\", \"sdp\":\"v=0\\r\\n\\u00e9\"}},\n\"toUser\":\"bob\",\t\
             \"fromUser\":\"al\\u0069ce\",\"signalType\":\"{kind}\",\"n\":1.0e+2}}\n"
        );
        alice.send(&text);
        assert_eq!(bob.receive(), text);
    }
    carol.heard_nothing_from(&mut alice, "alice", "carol");
    assert_eq!(silent.log_in("dave")["success"], "1"); // the first that it hears
}

fn real_offer_answer_and_candidate_arrive_byte_for_byte(link: Link) {
    let server = Server::start();
    let (mut alice, mut bob) = (server.login(link, "alice"), server.login(link, "bob"));
    alice.send(OFFER);
    assert_eq!(bob.receive(), OFFER);
    bob.send(ANSWER);
    assert_eq!(alice.receive(), ANSWER);
    let from = serde_json::from_str::<Value>(CANDIDATE).unwrap()["fromUser"].clone();
    let (sender, recipient) =
        if from == "alice" { (&mut alice, &mut bob) } else { (&mut bob, &mut alice) };
    sender.send(CANDIDATE);
    assert_eq!(recipient.receive(), CANDIDATE);
}

fn a_message_in_a_binary_frame_arrives_as_text(link: Link) {
    let server = Server::start();
    let mut alice = server.connect(link);
    let login = json!({"signalType": "login", "fromUser": "alice"}).to_string();
    alice.websocket.send(Message::binary(login.into_bytes())).unwrap();
    assert_eq!(alice.receive_json()["success"], "1");
    let mut bob = server.login(link, "bob");
    alice.websocket.send(Message::binary(OFFER.as_bytes().to_vec())).unwrap();
    assert_eq!(bob.receive(), OFFER);

    let broken = [&b"{\"signalType\":\"leave\",\"x\":\""[..], &[0xff], b"\"}"].concat();
    alice.websocket.send(Message::binary(broken)).unwrap();
    assert_eq!(alice.receive_json()["code"], "invalid-json");
    alice.websocket.send(Message::binary(vec![])).unwrap();
    assert_eq!(alice.receive_json()["code"], "invalid-json");
}

fn order_is_kept(link: Link) {
    let server = Server::start();
    let (mut alice, mut bob) = (server.login(link, "alice"), server.login(link, "bob"));
    for number in 0..200 {
        let kind = ["candidate", "offer", "leave"][number % 3];
        alice.send_json(&message(kind, "alice", "bob", json!(number)));
    }
    for number in 0..200 {
        assert_eq!(bob.receive_json()["payload"], number);
    }
}

fn a_message_to_oneself_arrives(link: Link) {
    let server = Server::start();
    let mut alice = server.login(link, "alice");
    for kind in ["offer", "answer", "candidate", "leave"] {
        let sent = message(kind, "alice", "alice", json!(kind));
        assert_eq!(alice.ask(&sent), sent);
    }
}

fn a_stranger_cannot_send_as_alice(link: Link) {
    let server = Server::start();
    let (mut alice, mut bob) = (server.login(link, "alice"), server.login(link, "bob"));
    let mut mallory = server.login(link, "mallory");
    for kind in ["offer", "answer", "pranswer", "candidate", "leave"] {
        let error = mallory.ask(&message(kind, "alice", "bob", json!("forged")));
        assert_eq!(
            error,
            json!({
                "type": "error", "code": "wrong-sender", "signalType": kind, "toUser": "bob",
                "message": "fromUser must be the name you logged in with: mallory",
            })
        );
    }
    let missing = mallory.ask(&json!({"signalType": "offer", "toUser": "bob"}));
    assert_eq!(missing["code"], "wrong-sender");
    bob.heard_nothing_from(&mut mallory, "mallory", "bob");
    alice.heard_nothing_from(&mut mallory, "mallory", "alice");
}

fn relay_before_login_is_refused(link: Link) {
    let server = Server::start();
    let mut bob = server.login(link, "bob");
    let mut stranger = server.connect(link);
    for kind in ["offer", "answer", "pranswer", "candidate", "leave"] {
        assert_eq!(
            stranger.ask(&message(kind, "alice", "bob", json!(1))),
            json!({
                "type": "error", "message": "Log in first", "code": "not-logged-in",
                "signalType": kind, "toUser": "bob",
            })
        );
    }
    assert_eq!(stranger.log_in("alice")["success"], "1");
    bob.heard_nothing_from(&mut stranger, "alice", "bob");
}

fn unknown_commands_are_named(link: Link) {
    let server = Server::start();
    let mut client = server.connect(link);
    let cases = [
        (json!({"signalType": "dance"}), "dance"),
        (json!({"signalType": "Login"}), "Login"),
        (json!({"type": "chat", "signalType": "dance"}), "chat"),
        (json!({"type": {"not": "text"}, "signalType": "dance"}), "dance"),
        (json!({"type": "chat"}), "chat"),
        (json!({"signalType": null}), "undefined"),
        (json!({}), "undefined"),
    ];
    for (request, name) in cases {
        let error = client.ask(&request);
        assert_eq!(error["code"], "unknown-command");
        assert_eq!(error["message"], format!("Command not found: {name}"));
    }
    // Logged in or not makes no difference.
    client.log_in("alice");
    let error = client.ask(&json!({"signalType": "dance", "toUser": "bob"}));
    assert_eq!(
        error,
        json!({
            "type": "error", "message": "Command not found: dance", "code": "unknown-command",
            "signalType": "dance", "toUser": "bob",
        })
    );
}

fn invalid_json_is_refused_and_the_connection_stays(link: Link) {
    let server = Server::start();
    let mut client = server.connect(link);
    let deep = |depth: usize| {
        let (open, close) = ("[".repeat(depth - 1), "]".repeat(depth - 1));
        format!(r#"{{"signalType":"login","fromUser":"alice","x":{open}{close}}}"#)
    };
    let (too_deep, abyss) = (deep(129), deep(30_000));
    let cases = [
        "",
        " ",
        "null",
        "7",
        "\"login\"",
        "[]",
        r#"["login","alice","bob"]"#,
        "{",
        "}",
        "{}{}",
        r#"{"signalType":"login","fromUser":"alice"} x"#,
        r#"{"signalType":7}"#,
        r#"{"signalType":["login"]}"#,
        r#"{"signalType":"offer","toUser":{}}"#,
        r#"{"signalType":"login","signalType":"login"}"#,
        r#"{"signalType":"login","fromUser":"alice","fromUser":"bob"}"#,
        r#"{"signalType":"offer","toUser":"a","toUser":"a"}"#,
        r#"{"signalType":"login","fromUser":"\ud800"}"#,
        r#"{"signalType":"login","fromUser":"alice","x":tru}"#,
        "\u{feff}{}",
        "{\"signalType\":\"lo\ngin\"}",
        &too_deep,
        &abyss,
    ];
    for case in cases {
        client.send(case);
        let error = client.receive_json();
        assert_eq!((&error["type"], &error["code"]), (&json!("error"), &json!("invalid-json")));
        assert!(error["message"].as_str().unwrap().starts_with("Invalid JSON: "), "{error}");
    }
    // Brackets in a string are no nesting, and the deepest that is allowed is allowed.
    let brackets = "[{\\\"".repeat(200);
    client.send(&format!(r#"{{"signalType":"login","fromUser":"","x":"{brackets}"}}"#));
    assert_eq!(client.receive_json()["reason"], "invalid-name");
    client.send(&deep(128)); // more than this test's own parser takes
    assert!(client.receive().ends_with(r#""success":"1"}"#));
}

fn nobody_there_is_an_error_but_not_for_leave(link: Link) {
    let server = Server::start();
    let mut alice = server.login(link, "alice");
    for kind in ["offer", "answer", "pranswer", "candidate"] {
        assert_eq!(
            alice.ask(&message(kind, "alice", "bob", json!(1))),
            json!({
                "type": "error", "message": "User not found: bob", "code": "user-not-found",
                "signalType": kind, "toUser": "bob",
            })
        );
    }
    alice.send_json(&message("leave", "alice", "bob", json!(1)));
    alice.send_json(&json!({"signalType": "leave", "fromUser": "alice"}));
    // Had there been an error, it would come before this.
    assert_eq!(alice.ask(&json!({"signalType": "end"}))["code"], "unknown-command");
    let missing = alice.ask(&json!({"signalType": "offer", "fromUser": "alice"}));
    assert_eq!(missing["code"], "user-not-found");
    assert!(missing.get("toUser").is_none());
}

fn partners_hear_leave_once_when_a_client_vanishes(link: Link) {
    let server = Server::start();
    let (mut alice, mut bob) = (server.login(link, "alice"), server.login(link, "bob"));
    alice.send_json(&message("offer", "alice", "bob", json!(1)));
    bob.receive_json();
    bob.send_json(&message("answer", "bob", "alice", json!(1)));
    alice.receive_json();
    alice.kill();
    // The bytes, as the contract has them.
    assert_eq!(
        bob.receive(),
        r#"{"msgType":"other","signalType":"leave","fromUser":"alice","toUser":"bob"}"#
    );
    let mut carol = server.login(link, "carol");
    bob.heard_nothing_from(&mut carol, "carol", "bob");
    // The name is free.
    assert_eq!(server.connect(link).log_in("alice")["success"], "1");
}

fn strangers_hear_nothing_when_a_client_vanishes(link: Link) {
    let server = Server::start();
    let (mut alice, mut bob) = (server.login(link, "alice"), server.login(link, "bob"));
    let mut carol = server.login(link, "carol");
    alice.send_json(&message("offer", "alice", "bob", json!(1)));
    bob.receive_json();
    alice.websocket.close(None).unwrap();
    assert_eq!(bob.receive_json(), leave_of("alice", "bob"));
    carol.heard_nothing_from(&mut bob, "bob", "carol");
}

fn leave_ends_the_partnership_on_both_sides(link: Link) {
    let server = Server::start();
    let (mut alice, mut bob) = (server.login(link, "alice"), server.login(link, "bob"));
    let mut carol = server.login(link, "carol");
    alice.send_json(&message("offer", "alice", "bob", json!(1)));
    bob.receive_json();
    bob.send_json(&message("leave", "bob", "alice", json!(1)));
    assert_eq!(alice.receive_json()["signalType"], "leave");
    alice.kill();
    server.wait_for_log("disconnected");
    bob.heard_nothing_from(&mut carol, "carol", "bob");
    bob.kill();
    carol.heard_nothing_from(&mut server.login(link, "dave"), "dave", "carol");
}

fn candidates_make_no_partners(link: Link) {
    let server = Server::start();
    let (mut alice, mut bob) = (server.login(link, "alice"), server.login(link, "bob"));
    alice.send_json(&message("candidate", "alice", "bob", json!(1)));
    bob.receive_json();
    alice.kill();
    server.wait_for_log("disconnected");
    bob.heard_nothing_from(&mut server.login(link, "carol"), "carol", "bob");
}

fn a_callee_who_never_answered_hears_the_caller_vanish(link: Link) {
    let server = Server::start();
    let (mut alice, mut bob) = (server.login(link, "alice"), server.login(link, "bob"));
    alice.send_json(&message("offer", "alice", "bob", json!(1)));
    bob.receive_json();
    alice.kill();
    assert_eq!(bob.receive_json(), leave_of("alice", "bob"));

    // And the other way round: the callee vanishes without an answer, and the caller gets `leave`.
    let mut alice = server.login(link, "alice");
    alice.send_json(&message("offer", "alice", "bob", json!(1)));
    bob.receive_json();
    bob.kill();
    assert_eq!(alice.receive_json(), leave_of("bob", "alice"));
}

fn a_mesh_call_tells_every_partner(link: Link) {
    let server = Server::start();
    let mut alice = server.login(link, "alice");
    let mut partners: Vec<(String, Client)> = (0..5)
        .map(|number| (format!("p{number}"), server.login(link, &format!("p{number}"))))
        .collect();
    for (name, partner) in &mut partners {
        alice.send_json(&message("offer", "alice", name, json!(1)));
        partner.receive_json();
    }
    alice.kill();
    for (name, partner) in &mut partners {
        assert_eq!(partner.receive_json(), leave_of("alice", name));
    }
}

fn errors_echo_what_the_message_had(link: Link) {
    let server = Server::start();
    let mut alice = server.login(link, "alice");
    let error = alice.ask(&json!({"signalType": "\"\n", "toUser": "\u{0}\\"}));
    assert_eq!((&error["signalType"], &error["toUser"]), (&json!("\"\n"), &json!("\u{0}\\")));
    // Text from the wire is echoed whole, but quoted in part.
    let name = "\u{1}".repeat(10_000);
    let error = alice.ask(&message("offer", "alice", &name, json!(1)));
    assert_eq!(error["toUser"], name);
    assert_eq!(error["message"], format!("User not found: {}…", &name[..128]));
    // The longest there can be: a message of nearly 64 KiB that is nothing but such a name.
    let name = "\u{1}".repeat(10_900);
    let error = alice.ask(&json!({"signalType": "offer", "fromUser": "alice", "toUser": name}));
    assert_eq!(error["toUser"], name);
}

fn close_is_answered_with_1000(link: Link) {
    let server = Server::start();
    let mut alice = server.login(link, "alice");
    let frame = tungstenite::protocol::CloseFrame { code: 1000.into(), reason: "bye".into() };
    alice.websocket.close(Some(frame)).unwrap();
    assert_eq!(alice.closed_with(), 1000);
    wait_until("the name is free", || server.connect(link).log_in("alice")["success"] == "1");
}

fn a_ping_is_answered(link: Link) {
    let server = Server::start();
    let mut client = server.connect(link);
    client.websocket.send(Message::Ping("hello".into())).unwrap();
    assert_eq!(client.websocket.read().unwrap(), Message::Pong("hello".into()));
}

/// Runs `action` while `client` keeps reading, because tungstenite answers pings when it reads.
fn while_answering_pings(client: &mut Client, action: impl FnOnce() -> Value + Send) -> Value {
    client.socket.set_read_timeout(Some(Duration::from_millis(5))).unwrap();
    let result = std::thread::scope(|scope| {
        let action = scope.spawn(action);
        while !action.is_finished() {
            let _ = client.websocket.read();
        }
        action.join().unwrap()
    });
    client.socket.set_read_timeout(Some(PATIENCE)).unwrap();
    result
}

fn leave_of(from: &str, to: &str) -> Value {
    json!({"msgType": "other", "signalType": "leave", "fromUser": from, "toUser": to})
}
