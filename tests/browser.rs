//! Two people call each other in a real browser: the page, the server and WebRTC together.
//!
//! Every trial opens fresh, separate browser contexts on the server's own page, presses what a
//! person would press, found by the words a person would read, and waits for what that person
//! would see. Cameras are Chromium's moving test pictures. Nothing here looks into the page's
//! modules, and one trial does without them.
//!
//! Without a Chromium the trials are reported as ignored; with `CI` set they fail instead. The same
//! holds for the one that needs coturn, a TURN server.

mod common;

use std::io::{BufRead, BufReader, Write};
use std::net::{TcpStream, UdpSocket};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};
use std::time::{Duration, Instant};
use std::{env, fs, thread};

use common::{PATIENCE, Server, document_block, program, scratch, wait_until};
use headless_chrome::protocol::cdp::{Page as PageDomain, Runtime};
use headless_chrome::{Browser, Tab};
use libtest_mimic::{Arguments, Trial};
use serde_json::Value;
use signal_server::limits::FILE_CHECK_INTERVAL;

/// How often a condition is looked at, in the page and here.
const POLL: Duration = Duration::from_millis(20);

/// Longer than any wait: after so much silence the connection to Chromium is given up.
const SILENCE: Duration = Duration::from_secs(120);

/// A name that is not this machine's own, so that the page is no secure context on plain http.
const ANOTHER_HOST: &str = "calls.example";

const FLAGS: &[&str] = &[
    "--headless",
    "--no-sandbox",
    "--disable-gpu",
    "--disable-dev-shm-usage",
    "--no-first-run",
    "--no-default-browser-check",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-default-apps",
    "--disable-extensions",
    "--disable-sync",
    "--disable-quic",
    // No page may be slowed down for not being the one in front.
    "--disable-background-timer-throttling",
    "--disable-backgrounding-occluded-windows",
    "--disable-renderer-backgrounding",
    "--password-store=basic",
    "--use-mock-keychain",
    "--use-fake-device-for-media-stream",
    "--use-fake-ui-for-media-stream",
    // Addresses instead of .local names, which need multicast that containers do not have.
    "--disable-features=WebRtcHideLocalIpsWithMdns",
    "--ignore-certificate-errors",
    "--host-resolver-rules=MAP calls.example 127.0.0.1",
    "--remote-debugging-port=0",
];

type Behaviour = fn(&Stage);

/// The one trial that needs coturn.
const RELAYED: &str = "a_call_goes_through_a_turn_server";

fn main() {
    let mut arguments = Arguments::from_args();
    // Each call keeps a core busy with coding video: a few at a time, unless asked.
    arguments.test_threads.get_or_insert(2);

    let chromium = find_chromium();
    let required = env::var_os("CI").is_some_and(|value| !value.is_empty());
    if chromium.is_none() && !required && !arguments.list {
        eprintln!("browser: left out, as no Chromium was found: install it, or name it in $CHROME");
    }
    let ignored = chromium.is_none() && !required;
    let no_turn = find(&["turnserver"]).is_none() && !required;
    if no_turn && !arguments.list {
        eprintln!("browser: no turnserver was found, so no call goes through it: install coturn");
    }
    let stage = Arc::new(Stage { chromium, shared: Mutex::new(None) });

    let trials: &[(&str, Behaviour)] = &[
        ("two_people_hold_a_video_call", two_people_hold_a_video_call),
        ("a_killed_browser_is_noticed", a_killed_browser_is_noticed),
        ("a_link_calls_with_one_press", a_link_calls_with_one_press),
        ("a_link_with_a_token_logs_in_by_itself", a_link_with_a_token_logs_in_by_itself),
        ("the_page_asks_for_a_token_and_keeps_it_on_request", the_page_asks_for_a_token),
        (RELAYED, a_call_goes_through_a_turn_server),
        ("a_second_caller_hears_busy", a_second_caller_hears_busy),
        ("declining_is_heard", declining_is_heard),
        ("a_caller_who_gives_up_stops_the_ringing", a_caller_who_gives_up_stops_the_ringing),
        ("calling_each_other_at_once_makes_one_call", calling_each_other_at_once_makes_one_call),
        ("a_call_outlives_a_server_restart", a_call_outlives_a_server_restart),
        ("a_lost_line_alone_does_not_end_a_call", a_lost_line_alone_does_not_end_a_call),
        ("what_went_wrong_is_said", what_went_wrong_is_said),
        ("a_refused_camera_is_said", a_refused_camera_is_said),
        ("plain_http_says_that_https_is_needed", plain_http_says_that_https_is_needed),
        ("mute_and_camera_off_reach_the_tracks", mute_and_camera_off_reach_the_tracks),
        ("malformed_messages_do_not_break_a_call", malformed_messages_do_not_break_a_call),
        ("a_bare_script_connects_through_the_server", a_bare_script_connects_through_the_server),
        ("the_documents_lines_print_what_it_says", the_documents_lines_print_what_it_says),
        (
            "everything_has_a_name_and_nothing_is_blocked",
            everything_has_a_name_and_nothing_is_blocked,
        ),
    ];
    let trials = trials.iter().map(|&(name, behaviour)| {
        let stage = Arc::clone(&stage);
        let run = move || {
            behaviour(&stage);
            Ok(())
        };
        Trial::test(name, run).with_ignored_flag(ignored || (no_turn && name == RELAYED))
    });

    let conclusion = libtest_mimic::run(&arguments, trials.collect());
    lock(&stage.shared).take();
    conclusion.exit();
}

// --- the trials -----------------------------------------------------------------------------

fn two_people_hold_a_video_call(stage: &Stage) {
    let server = Server::start();
    let (alice, bob) = pair(stage, &https(&server));
    alice.call("bob");
    bob.waits_for_status("alice is calling");
    assert_eq!(bob.eval("document.activeElement.textContent"), "Answer");
    bob.press("Answer");
    for page in [&alice, &bob] {
        page.sees_moving_pictures();
        let own = "local().srcObject.getVideoTracks()[0].id";
        assert_ne!(page.eval(own), page.eval("remote().srcObject.getVideoTracks()[0].id"));
    }
    alice.waits_for_status("In a call with bob");
    bob.waits_for_status("In a call with alice");
    let camera =
        alice.eval("globalThis.camera = local().srcObject.getVideoTracks()[0], camera.readyState");
    assert_eq!(camera, "live");

    alice.press("Hang up");
    bob.waits_for_status("alice hung up");
    alice.waits_for("local().srcObject === null && camera.readyState === 'ended'");

    bob.call("alice"); // and once more, the other way round
    alice.press("Answer");
    alice.sees_moving_pictures();
    bob.sees_moving_pictures();
}

fn a_killed_browser_is_noticed(stage: &Stage) {
    let server = Server::start();
    let alice = stage.online(&https(&server), "alice");
    let chromium = Chromium::start(stage.chromium());
    let bob = chromium.open(&https(&server));
    bob.go_online("bob");
    alice.call("bob");
    bob.press("Answer");
    alice.sees_moving_pictures();
    drop(chromium); // by SIGKILL: no time for a goodbye
    alice.waits_for_status("The connection to bob was lost");
}

fn a_link_calls_with_one_press(stage: &Stage) {
    let server = Server::start();
    let alice = stage.online(&https(&server), "älice & co");
    let link = alice.eval("document.getElementById('link').value");
    let link = link.as_str().expect("a link");
    assert!(link.ends_with("/#call=%C3%A4lice%20%26%20co"), "{link}");
    alice.press("Copy link");
    alice.waits_for_status("ink");

    let bob = stage.open(link);
    bob.fill("Your name", "bob");
    bob.press("Go online and call älice & co");
    alice.waits_for_status("bob is calling");
    alice.press("Answer");
    alice.sees_moving_pictures();
    bob.sees_moving_pictures();
    bob.press("Hang up");
    alice.waits_for_status("bob hung up");

    bob.eval("location.reload()");
    bob.waits_for("button('Go online and call älice & co') && field('Your name').value === 'bob'");
}

fn a_link_with_a_token_logs_in_by_itself(stage: &Stage) {
    let users = Users::new("link");
    let server = users.server();
    let url = https(&server);
    let (_, link) = users.add("zoë & co", &url);
    let zoe = stage.open(&link);
    zoe.waits_for_status("You are online as zoë & co");
    assert_eq!(zoe.eval("location.href"), url.as_str());
    assert_eq!(zoe.eval("history.length"), 2, "the blank page and this one");
    assert_eq!(zoe.eval("Object.keys(localStorage).join()"), "name");
    let token = "field('Your token')?.value";
    zoe.press("Go offline");
    zoe.waits_for("field('Your token')");

    // And with whom to call: the one goes, the other stays. Anybody can make such a link, or send a
    // page from one to the other, so that the camera waits for a press.
    let (secret, link) = users.add("bob", &url);
    let bob = stage.open(&format!("{url}#call=zo%C3%AB%20%26%20co"));
    bob.waits_for("button('Go online and call zoë & co')");
    bob.eval(&format!("location.href = '{link}&call=zo%C3%AB%20%26%20co'"));
    bob.waits_for_status("You are online as bob");
    assert_eq!(bob.eval("decodeURIComponent(location.hash)"), "#call=zoë+&+co");
    assert_eq!(bob.eval(token), Value::Null);
    assert_eq!(bob.eval("connections.length"), 0);
    bob.press("Call");
    bob.waits_for_status("zoë & co is not there");

    // One that is refused takes nobody's own token away.
    bob.eval(&format!("localStorage.setItem('token', '{secret}')"));
    bob.press("Go offline");
    bob.eval("location.hash = '#user=bob&token=wrong'");
    bob.waits_for_status("name and token do not belong together");
    assert_eq!(bob.eval("location.href"), url.as_str());
    assert_eq!(bob.eval("localStorage.getItem('token')"), secret.as_str());
}

fn the_page_asks_for_a_token(stage: &Stage) {
    let users = Users::new("asks");
    let server = users.server();
    let (token, _) = users.add("alice", &https(&server));
    let alice = stage.open(&https(&server));
    let stored = "localStorage.getItem('token')";
    alice.waits_for("field('Your token')?.type === 'password'");
    check(&alice);
    alice.fill("Your name", "alice");
    alice.fill("Your token", "wrong");
    alice.press("Go online");
    alice.waits_for_status("name and token do not belong together");
    assert_eq!(alice.eval("field('Your token').value"), "");
    alice.fill("Your token", &token);
    alice.press("Go online");
    alice.waits_for_status("You are online as alice");
    assert_eq!(alice.eval(stored), Value::Null);

    alice.press("Go offline");
    alice.eval("field('Remember it on this device').click()");
    alice.press("Go online");
    alice.waits_for_status("You are online as alice");
    assert_eq!(alice.eval(stored), token.as_str());
    alice.eval("location.reload()");
    alice.waits_for("field('Remember it on this device')?.checked");
    alice.press("Go online");
    alice.waits_for_status("You are online as alice");

    // Removed meanwhile: the page hears of it when its line breaks, and forgets.
    users.remove("alice");
    alice.eval("sockets.at(-1).close()");
    alice.waits_for_status("name and token do not belong together");
    assert_eq!(alice.eval(stored), Value::Null);
}

fn a_call_goes_through_a_turn_server(stage: &Stage) {
    const WAYS: &str = "(async () => {
        const stats = await connections.at(-1).getStats();
        const used = [...stats.values()].find((report) => report.selectedCandidatePairId);
        const pair = stats.get(used.selectedCandidatePairId);
        return [pair.localCandidateId, pair.remoteCandidateId]
            .map((id) => stats.get(id).candidateType).join();
    })()";
    let turn = Turn::start();
    let users = Users::new("relay");
    let server = Server::start_with(&[
        "--users",
        users.file.to_str().expect("a path"),
        "--turn",
        &turn.url,
        "--turn-secret",
        turn.secret.to_str().expect("a path"),
    ]);
    // A name with all that is not at home in a TURN user name.
    let [alice, zoe] = ["alice", "zoë: \"1\\"].map(|name| {
        let (_, link) = users.add(name, &https(&server));
        let page = stage.open(&format!("{link}&relay"));
        page.waits_for_status("You are online as");
        page
    });
    connect_as(&zoe, &alice, "alice");
    for page in [&alice, &zoe] {
        assert_eq!(page.eval(WAYS), "relay,relay");
    }

    // With no such server there is no other way that a page would take.
    drop(turn);
    for page in [&alice, &zoe] {
        page.waits_for("connections.at(-1).connectionState !== 'connected'");
    }
}

fn a_second_caller_hears_busy(stage: &Stage) {
    let server = Server::start();
    let (alice, bob) = pair(stage, &https(&server));
    let carol = stage.online(&https(&server), "carol");
    connect(&alice, &bob);
    carol.call("bob");
    carol.waits_for_status("bob is busy");
    carol.call("alice");
    carol.waits_for_status("alice is busy");
    for page in [&alice, &bob] {
        assert!(page.status().contains("In a call with"), "{}", page.status());
        page.sees_moving_pictures();
    }
}

fn declining_is_heard(stage: &Stage) {
    let server = Server::start();
    let (alice, bob) = pair(stage, &https(&server));
    alice.call("bob");
    bob.press("Decline");
    alice.waits_for_status("bob declined");
    assert_eq!(bob.eval("connections.length"), 0, "nothing is opened for an unanswered call");
}

fn a_caller_who_gives_up_stops_the_ringing(stage: &Stage) {
    let server = Server::start();
    let (alice, bob) = pair(stage, &https(&server));
    alice.call("bob");
    bob.waits_for_status("alice is calling");
    alice.press("Hang up");
    bob.waits_for_status("alice stopped calling");

    alice.call("bob");
    bob.waits_for_status("alice is calling");
    alice.eval("location.reload()");
    bob.waits_for_status("alice stopped calling");
}

fn calling_each_other_at_once_makes_one_call(stage: &Stage) {
    let server = Server::start();
    let (alice, bob) = pair(stage, &https(&server));
    // Both camera prompts are held back until both have pressed Call, and are then let go by one
    // message to both, so that the offers cross.
    for page in [&alice, &bob] {
        page.eval(
            "(() => {
                const real = navigator.mediaDevices.getUserMedia.bind(navigator.mediaDevices);
                const both = new Promise((go) => { globalThis.letGo = go; });
                navigator.mediaDevices.getUserMedia = (wish) => both.then(() => real(wish));
            })()",
        );
    }
    alice.call("bob");
    bob.call("alice");
    alice.eval("letGo()");
    bob.eval("letGo()");
    for page in [&alice, &bob] {
        page.sees_moving_pictures();
        page.waits_for_status("In a call with");
        assert_eq!(page.eval(LIVING_CONNECTIONS), 1);
    }
    bob.press("Hang up");
    alice.waits_for_status("bob hung up");
}

fn a_call_outlives_a_server_restart(stage: &Stage) {
    let server = Server::start();
    let address = format!("127.0.0.1:{}", server.ws_port());
    let url = format!("http://{address}/");
    let (alice, bob) = pair(stage, &url);
    let carol = stage.online(&url, "carol");
    connect(&alice, &bob);

    server.stop();
    for page in [&alice, &bob] {
        page.waits_for_status("The call goes on");
        page.sees_moving_pictures();
    }
    carol.waits_for_status("The connection to the server was lost");

    let _server = Server::start_with(&["--listen", &address]);
    carol.waits_for_status("You are online as carol");
    for page in [&alice, &bob] {
        page.waits_for_status("In a call with");
        // The page offers anew, which is how the server learns that the two are in a call.
        page.waits_for("connections[0].currentRemoteDescription.sdp !== firstRemoteDescription");
        page.waits_for("connections[0].signalingState === 'stable'");
        page.sees_moving_pictures();
        assert_eq!(page.eval(LIVING_CONNECTIONS), 1);
    }
    alice.press("Hang up");
    bob.waits_for_status("alice hung up");
}

fn a_lost_line_alone_does_not_end_a_call(stage: &Stage) {
    let server = Server::start();
    let (alice, bob) = pair(stage, &https(&server));
    connect(&alice, &bob);
    // Bob's line dies, and the server tells Alice that he left; his media goes on all the while.
    bob.eval("sockets.at(-1).close()");
    bob.waits_for_status("The call goes on");
    bob.waits_for_status("In a call with alice");
    // A change of networks: the browser says so, and the page makes its line anew.
    bob.eval("dispatchEvent(new Event('online'))");
    bob.waits_for("sockets.length === 3 && sockets[2].readyState === WebSocket.OPEN");
    bob.waits_for("heard.filter((text) => text.includes('\"success\":\"1\"')).length === 3");
    alice.waits_for("connections[0].signalingState === 'stable'");
    // Longer than Alice would wait for a sign of life.
    alice.waits_for("await frames() > 120");
    alice.sees_moving_pictures();
    bob.sees_moving_pictures();
    bob.press("Hang up");
    alice.waits_for_status("bob hung up");
}

fn what_went_wrong_is_said(stage: &Stage) {
    let server = Server::start();
    let alice = stage.online(&https(&server), "alice");
    alice.call("nobody");
    alice.waits_for_status("nobody is not there");
    alice.call("alice");
    alice.waits_for_status("your own name");

    let bob = stage.open(&https(&server));
    bob.fill("Your name", "alice");
    bob.press("Go online");
    bob.waits_for_status("This name is taken");
    bob.fill("Your name", &"x".repeat(200));
    bob.press("Go online");
    bob.waits_for_status("not a valid name");
    bob.go_online("bob");

    drop(server);
    alice.waits_for_status("The connection to the server was lost");
    alice.fill("Call", "bob");
    // In one go, as the next vain attempt to reconnect has its own words.
    let pressed = alice.eval("button('Call').click(), says()");
    assert!(pressed.as_str().is_some_and(|words| words.contains("no connection")), "{pressed}");
}

fn a_refused_camera_is_said(stage: &Stage) {
    let server = Server::start();
    let (alice, bob) = pair(stage, &https(&server));
    let fail = |page: &Page, error: &str| {
        page.eval(&format!(
            "void (navigator.mediaDevices.getUserMedia = async () => {{ throw new DOMException('', '{error}'); }})"
        ));
    };
    fail(&bob, "NotAllowedError");
    alice.call("bob");
    bob.press("Answer");
    bob.waits_for_status("refused");
    alice.waits_for_status("bob declined");
    bob.call("alice");
    bob.waits_for_status("refused");
    assert!(!alice.status().contains("is calling"));

    fail(&bob, "NotFoundError"); // no devices at all: Bob watches and listens
    bob.call("alice");
    alice.press("Answer");
    bob.sees_moving_pictures();
    bob.waits_for_status("you can only watch and listen");
    bob.press("Hang up");
    alice.waits_for_status("bob hung up");
}

fn plain_http_says_that_https_is_needed(stage: &Stage) {
    let server = Server::start();
    let page = stage.open(&format!("http://{ANOTHER_HOST}:{}/", server.ws_port()));
    page.waits_for_status("https://");
    let link = format!("https://{ANOTHER_HOST}:{}/", server.tls_port());
    assert_eq!(page.eval("document.querySelector('#status a').href"), link.as_str());
    page.go_online("alice");
    page.press("Copy link");
    page.waits_for_status("ink");
    page.call("bob");
    page.waits_for_status("https://");
}

fn mute_and_camera_off_reach_the_tracks(stage: &Stage) {
    let server = Server::start();
    let (alice, bob) = pair(stage, &https(&server));
    connect(&alice, &bob);
    for (button, tracks) in [("Mute", "getAudioTracks"), ("Camera off", "getVideoTracks")] {
        let state = format!(
            "[button('{button}').getAttribute('aria-pressed'), local().srcObject.{tracks}()[0].enabled].join()"
        );
        assert_eq!(alice.eval(&state), "false,true");
        alice.press(button);
        assert_eq!(alice.eval(&state), "true,false");
        alice.press(button);
        assert_eq!(alice.eval(&state), "false,true");
    }
    // A camera switched off is black on the other side.
    alice.press("Camera off");
    bob.eval(
        "(() => {
            const track = remote().srcObject.getVideoTracks()[0];
            globalThis.pictures = new MediaStreamTrackProcessor({ track }).readable.getReader();
            globalThis.canvas = new OffscreenCanvas(8, 8).getContext('2d');
        })()",
    );
    bob.waits_for(
        "{
            const { value: picture } = await pictures.read();
            canvas.drawImage(picture, 0, 0, 8, 8);
            picture.close();
            const pixels = canvas.getImageData(0, 0, 8, 8).data;
            return pixels.every((value, i) => i % 4 === 3 || value < 40);
        }",
    );
}

fn malformed_messages_do_not_break_a_call(stage: &Stage) {
    let server = Server::start();
    let (alice, bob) = pair(stage, &https(&server));
    let mallory = stage.open(&format!("{}healthz", https(&server)));
    mallory.eval(
        "(async () => {
            globalThis.socket = new WebSocket(location.origin.replace('http', 'ws'));
            await new Promise((opened) => { socket.onopen = opened; });
            globalThis.say = (toUser, signalType, fields) => socket.send(JSON.stringify({ signalType, fromUser: 'mallory', toUser, ...fields }));
            await new Promise((answered) => { socket.onmessage = answered; say('', 'login', {}); });
        })()",
    );
    let nonsense = "
        for (const to of ['alice', 'bob']) {
            say(to, 'offer', {});
            say(to, 'offer', { sdp: null });
            say(to, 'answer', { sdp: 7 });
            say(to, 'answer', { sdp: { type: 'answer', sdp: 'v=0' } });
            say(to, 'pranswer', { sdp: [] });
            say(to, 'candidate', {});
            say(to, 'candidate', { candidate: null });
            say(to, 'candidate', { candidate: { candidate: 5 } });
            say(to, 'candidate', { candidate: { candidate: 'candidate:nonsense' } });
            say(to, 'candidate', { candidate: 'candidate:nonsense' });
            say(to, 'leave', { reason: { a: 1 } });
        }";
    mallory.eval(nonsense);
    connect(&alice, &bob);
    mallory.eval(nonsense);
    mallory.eval("say('alice', 'offer', { sdp: { type: 'offer', sdp: 'v=0' } })");
    mallory.waits_for("heard.some((text) => text.includes('busy'))");
    alice.press("Hang up");
    bob.waits_for_status("alice hung up");

    // An offer that is none, and the same from the one we are in a call with.
    mallory.eval("say('alice', 'offer', { sdp: { type: 'offer', sdp: 'v=0' } })");
    alice.press("Answer");
    alice.waits_for_status("mallory sent something");
    mallory.eval("say('bob', 'offer', { sdp: { type: 'offer', sdp: 'v=0' } })");
    mallory.eval(nonsense);
    bob.waits_for_status("mallory stopped calling");
    connect(&alice, &bob);
    for page in [&alice, &bob] {
        assert_eq!(page.eval("uncaught.join()"), "");
    }
}

/// All that a client needs, in one place, without a line of the page: two contexts log in, one
/// offers a data channel, the other answers, and a word goes across.
fn a_bare_script_connects_through_the_server(stage: &Stage) {
    const SCRIPT: &str = "
        globalThis.start = (name, peer) => {
            const socket = new WebSocket(location.origin.replace('http', 'ws'));
            const pc = new RTCPeerConnection();
            const send = (signalType, fields) =>
                socket.send(JSON.stringify({ msgType: 'other', signalType, fromUser: name, toUser: peer, ...fields }));
            const use = (channel) => {
                channel.onopen = () => channel.send('hello from ' + name);
                channel.onmessage = ({ data }) => { globalThis.received = data; };
            };
            pc.onicecandidate = ({ candidate }) => send('candidate', { candidate });
            pc.ondatachannel = ({ channel }) => use(channel);
            socket.onopen = () => send('login', { toUser: '' });
            socket.onmessage = async ({ data }) => {
                const message = JSON.parse(data);
                if (message.signalType === 'login') globalThis.loggedIn = message.success;
                if (message.signalType === 'candidate') await pc.addIceCandidate(message.candidate);
                if (message.signalType === 'leave') globalThis.left = message;
                if (message.signalType === 'answer') await pc.setRemoteDescription(message.sdp);
                if (message.signalType === 'offer') {
                    await pc.setRemoteDescription(message.sdp);
                    await pc.setLocalDescription();
                    send('answer', { sdp: pc.localDescription });
                }
            };
            globalThis.offer = async () => {
                use(pc.createDataChannel('words'));
                await pc.setLocalDescription();
                send('offer', { sdp: pc.localDescription });
            };
            globalThis.leave = () => socket.close();
        };";
    let server = Server::start();
    let url = format!("{}healthz", https(&server));
    let (alice, bob) = (stage.open(&url), stage.open(&url));
    for (page, name, peer) in [(&alice, "alice", "bob"), (&bob, "bob", "alice")] {
        page.eval(SCRIPT);
        page.eval(&format!("start('{name}', '{peer}')"));
        page.waits_for("globalThis.loggedIn === '1'");
    }
    alice.eval("offer()");
    alice.waits_for("globalThis.received === 'hello from bob'");
    bob.waits_for("globalThis.received === 'hello from alice'");
    bob.eval("leave()");
    alice.waits_for("globalThis.left?.fromUser === 'bob'");
}

/// What docs/protocol.md has for a browser's console, as somebody would paste it there.
fn the_documents_lines_print_what_it_says(stage: &Stage) {
    let server = Server::start();
    let page = stage.open(&format!("http://localhost:{}/", server.ws_port()));
    page.eval("globalThis.printed = ''; console.log = (line) => { printed += line + '\\n'; }");
    page.eval(&document_block("docs/protocol.md", "js"));
    page.waits_for("printed.split('\\n').length > 2");
    assert_eq!(page.eval("printed"), document_block("docs/protocol.md", "jsonl"));
}

/// Everything on the page can be named, touched, and seen without scrolling sideways.
fn check(page: &Page) {
    const NAMELESS: &str = "
        [...document.querySelectorAll('button, input, video, section, a')].filter((element) => {
            const labels = [...(element.labels ?? [])].map((label) => label.textContent).join('');
            const by = document.getElementById(element.getAttribute('aria-labelledby'))?.textContent ?? '';
            const name = labels || by || element.getAttribute('aria-label')
                || (element.matches('button, a') ? element.textContent : '');
            return !element.closest('[hidden]') && name.trim() === '';
        }).map((element) => element.outerHTML).join()";
    const SMALL: &str = "
        [...document.querySelectorAll('button, input')]
            .map((element) => [element, element.closest('label') ?? element])
            .map(([element, box]) => [element.textContent || element.id, box.getBoundingClientRect()])
            .filter(([, box]) => box.height > 0 && (box.height < 44 || box.width < 44))
            .map(([name]) => name).join()";
    assert_eq!(page.eval(NAMELESS), "", "without an accessible name");
    assert_eq!(page.eval(SMALL), "", "too small to touch");
    assert_eq!(page.eval("document.documentElement.scrollWidth > innerWidth"), false);
}

fn everything_has_a_name_and_nothing_is_blocked(stage: &Stage) {
    let server = Server::start();
    let (alice, bob) = pair(stage, &https(&server));
    check(&stage.open(&https(&server)));
    check(&alice);
    alice.call("bob");
    bob.waits_for_status("alice is calling");
    check(&bob);
    bob.press("Answer");
    bob.sees_moving_pictures();
    alice.sees_moving_pictures();
    for page in [&alice, &bob] {
        check(page);
        assert_eq!(page.eval("document.documentElement.lang"), "en");
        assert_ne!(page.eval("document.title"), "");
        assert_eq!(page.eval("document.getElementById('status').getAttribute('role')"), "status");
        assert_eq!(page.eval("uncaught.join()"), "");
        let log = page.eval("log.join('\\n')");
        assert!(!log.as_str().is_some_and(|log| log.contains("error:")), "{log}");
    }
}

/// A users file of a trial's own.
struct Users {
    file: PathBuf,
}

impl Users {
    fn new(name: &str) -> Users {
        let file = scratch(&format!("users-{name}")).join("users");
        fs::write(&file, "").expect("a users file");
        Users { file }
    }

    fn server(&self) -> Server {
        Server::start_with(&["--users", self.file.to_str().expect("a path")])
    }

    fn remove(&self, name: &str) {
        let text = fs::read_to_string(&self.file).expect("a users file");
        let is_other = |line: &&str| !line.starts_with(&format!("{name}:"));
        let kept: Vec<&str> = text.split_inclusive('\n').filter(is_other).collect();
        fs::write(&self.file, kept.concat()).expect("a users file");
        thread::sleep(FILE_CHECK_INTERVAL); // or the server might not have looked at it yet
    }

    /// A new user's token, and the link to the page at `url`.
    fn add(&self, name: &str, url: &str) -> (String, String) {
        let arguments = ["--new-user", name, "--url", url];
        let output = program().args(arguments).output().expect("a new user");
        let mut file = fs::OpenOptions::new().append(true).open(&self.file).expect("a users file");
        file.write_all(&output.stdout).expect("a line for it");
        thread::sleep(FILE_CHECK_INTERVAL); // or the server might not have looked at it yet
        let said = String::from_utf8(output.stderr).expect("UTF-8");
        let mut lines = said.lines().filter_map(|line| line.strip_prefix("  "));
        let token = lines.next().expect("a token");
        (token.to_string(), lines.next().expect("a link").to_string())
    }
}

/// A real TURN server on the loopback, set up as docs/turn.md says. Dropping it ends it.
struct Turn {
    process: Child,
    secret: PathBuf,
    url: String,
}

impl Turn {
    fn start() -> Turn {
        let folder = scratch("turn");
        let free = UdpSocket::bind("127.0.0.1:0").expect("a free port");
        let address = free.local_addr().expect("its address");
        drop(free);
        let (secret, config) = (folder.join("secret"), folder.join("turnserver.conf"));
        fs::write(&secret, "a shared secret\n").expect("a secret");
        let lines = format!(
            "use-auth-secret\nstatic-auth-secret=a shared secret\nrealm=call.example.org\n\
             listening-ip=127.0.0.1\nrelay-ip=127.0.0.1\nlistening-port={}\n\
             allow-loopback-peers\nno-cli\nno-tls\nno-dtls\nlog-file=stdout\n\
             pidfile={folder}/pid\nuserdb={folder}/db\n",
            address.port(),
            folder = folder.display(),
        );
        fs::write(&config, lines).expect("a configuration");
        let process = Command::new("turnserver")
            .arg("-c")
            .arg(config)
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .expect("coturn is installed");
        wait_until("coturn listens", || TcpStream::connect(address).is_ok());
        Turn { process, secret, url: format!("turn:{address}") }
    }
}

impl Drop for Turn {
    fn drop(&mut self) {
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

// --- what people do and see -----------------------------------------------------------------

fn https(server: &Server) -> String {
    format!("https://localhost:{}/", server.tls_port())
}

fn pair(stage: &Stage, url: &str) -> (Page, Page) {
    thread::scope(|scope| {
        let alice = scope.spawn(|| stage.online(url, "alice"));
        let bob = stage.online(url, "bob");
        (alice.join().expect("alice is online"), bob)
    })
}

/// Alice calls Bob, and he answers.
fn connect(alice: &Page, bob: &Page) {
    connect_as(alice, bob, "bob");
}

fn connect_as(alice: &Page, bob: &Page, callee: &str) {
    alice.call(callee);
    bob.press("Answer");
    for page in [alice, bob] {
        page.sees_moving_pictures();
        page.waits_for_status("In a call with");
        page.eval(
            "globalThis.firstRemoteDescription = connections.at(-1).currentRemoteDescription.sdp",
        );
    }
}

const LIVING_CONNECTIONS: &str =
    "connections.filter((connection) => connection.connectionState !== 'closed').length";

/// The tabs that are open now, for the story of a failure.
static OPEN: Mutex<Vec<Weak<Tab>>> = Mutex::new(Vec::new());

/// What everybody sees, and what their pages logged.
fn everybody() -> String {
    let tabs: Vec<_> = lock(&OPEN).iter().filter_map(Weak::upgrade).collect();
    tabs.iter().map(|tab| format!("{:#}\n", evaluate(tab, "describe()"))).collect()
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// One person's tab, in a browser context of its own.
struct Page {
    tab: Arc<Tab>,
}

/// Runs before the page's own scripts. It keeps what a trial wants to look at and what a failing
/// one wants to show, and finds fields and buttons by their words.
const OBSERVER: &str = r#"
    globalThis.log = [];
    globalThis.uncaught = [];
    globalThis.heard = [];
    globalThis.sockets = [];
    globalThis.connections = [];
    for (const level of ['debug', 'log', 'warn', 'error']) {
        console[level] = (...words) => log.push(`${level}: ${words.join(' ')}`);
    }
    const fault = (text) => uncaught.push(text) && log.push(`error: ${text}`);
    addEventListener('error', (e) => fault(e.message ?? `not loaded: ${e.target.outerHTML}`), true);
    addEventListener('unhandledrejection', (e) => fault(`unhandled: ${e.reason}`));
    addEventListener('securitypolicyviolation', (e) => fault(`blocked: ${e.blockedURI}`));
    globalThis.WebSocket = class extends WebSocket {
        constructor(...options) {
            super(...options);
            sockets.push(this);
            this.addEventListener('message', ({ data }) => heard.push(data));
        }
    };
    globalThis.RTCPeerConnection = class extends RTCPeerConnection {
        constructor(...options) {
            super(...options);
            connections.push(this);
        }
    };
    globalThis.button = (words) => [...document.querySelectorAll('button')]
        .find((b) => b.textContent.trim() === words && b.checkVisibility() && !b.disabled);
    globalThis.field = (words) => [...document.querySelectorAll('label')]
        .find((l) => l.textContent.trim() === words && l.checkVisibility())?.control;
    globalThis.remote = () => document.getElementById('remote');
    globalThis.local = () => document.getElementById('local');
    globalThis.frames = async () => {
        const stats = [...(await connections.at(-1)?.getStats() ?? new Map()).values()];
        return stats.find((report) => report.framesDecoded !== undefined)?.framesDecoded ?? 0;
    };
    globalThis.says = () => document.querySelector('[role=status]')?.textContent ?? '';
    globalThis.describe = async () => {
        const story = { page: location.href, status: says(), log, heard: [], connections: [] };
        for (const text of heard) {
            const { signalType, fromUser, code, reason } = JSON.parse(text);
            story.heard.push([signalType, fromUser, code, reason].join(' '));
        }
        for (const connection of connections) {
            const { signalingState, iceConnectionState, connectionState } = connection;
            const inbound = [...(await connection.getStats()).values()]
                .filter(({ type }) => type === 'inbound-rtp')
                .map(({ kind, bytesReceived }) => `${bytesReceived} bytes of ${kind}`);
            const states = [signalingState, iceConnectionState, connectionState];
            story.connections.push([...states, ...inbound].join());
        }
        return story;
    };
    globalThis.until = async (condition, milliseconds, pause) => {
        const end = performance.now() + milliseconds;
        let value;
        while (!(value = await condition()) && performance.now() < end) {
            await new Promise((next) => setTimeout(next, pause));
        }
        return Boolean(value);
    };
"#;

impl Page {
    fn open(tab: Arc<Tab>, url: &str) -> Page {
        let observer = PageDomain::AddScriptToEvaluateOnNewDocument {
            source: OBSERVER.to_owned(),
            world_name: None,
            include_command_line_api: None,
            run_immediately: None,
        };
        tab.call_method(observer).expect("Chromium takes the observer");
        lock(&OPEN).push(Arc::downgrade(&tab));
        let page = Page { tab };
        page.tab.navigate_to(url).expect("Chromium takes the address");
        page.waits_for("document.readyState === 'complete'");
        page
    }

    fn go_online(&self, name: &str) {
        self.fill("Your name", name);
        self.press("Go online");
        self.waits_for_status(&format!("You are online as {name}"));
    }

    fn call(&self, peer: &str) {
        self.fill("Call", peer);
        self.press("Call");
    }

    fn fill(&self, label: &str, text: &str) {
        let (label, text) = (Value::from(label), Value::from(text));
        self.waits_for(&format!("field({label}) && (field({label}).value = {text}, true)"));
    }

    fn press(&self, words: &str) {
        let words = Value::from(words);
        self.waits_for(&format!("button({words}) && (button({words}).click(), true)"));
    }

    fn status(&self) -> String {
        self.eval("says()").as_str().unwrap_or_default().to_owned()
    }

    fn waits_for_status(&self, words: &str) {
        self.waits_for(&format!("says().includes({})", Value::from(words)));
    }

    /// Frames of the other side arrive, and go on arriving, and `#remote` plays them. (How many it
    /// has painted is no measure: Chromium paints only the window it takes for the front one.)
    fn sees_moving_pictures(&self) {
        self.waits_for("remote()?.videoWidth > 0");
        self.eval(
            "(async () => { globalThis.before = [await frames(), remote().currentTime]; })()",
        );
        self.waits_for("await frames() > before[0] + 5 && remote().currentTime > before[1]");
    }

    /// The page does the looking. It may be replaced by another meanwhile: that is no answer, and
    /// the other is asked.
    fn waits_for(&self, condition: &str) {
        let end = Instant::now() + PATIENCE;
        let (patience, pause) = (PATIENCE.as_millis(), POLL.as_millis());
        let wait = format!("globalThis.until?.(async () => {condition}, {patience}, {pause})");
        while self.eval(&wait) != true {
            assert!(Instant::now() < end, "waited in vain for: {condition}\n{}", everybody());
            thread::sleep(POLL);
        }
    }

    /// The value of an expression, which may be a promise.
    fn eval(&self, expression: &str) -> Value {
        evaluate(&self.tab, expression)
    }
}

/// A page left open would go on with its call, and take the processor from the next trial.
impl Drop for Page {
    fn drop(&mut self) {
        let _ = self.tab.close_target();
    }
}

fn evaluate(tab: &Tab, expression: &str) -> Value {
    let evaluate = Runtime::Evaluate {
        expression: expression.to_owned(),
        return_by_value: Some(true),
        await_promise: Some(true),
        user_gesture: Some(true),
        object_group: None,
        include_command_line_api: None,
        silent: None,
        context_id: None,
        generate_preview: None,
        throw_on_side_effect: None,
        timeout: None,
        disable_breaks: None,
        repl_mode: None,
        allow_unsafe_eval_blocked_by_csp: None,
        unique_context_id: None,
        serialization_options: None,
    };
    match tab.call_method(evaluate) {
        Ok(answer) => answer.result.value.unwrap_or(Value::Null),
        Err(error) => Value::from(error.to_string()),
    }
}

// --- browsers -------------------------------------------------------------------------------

/// The browser that most trials share, started when the first one needs it.
struct Stage {
    chromium: Option<PathBuf>,
    shared: Mutex<Option<Arc<Chromium>>>,
}

impl Stage {
    fn chromium(&self) -> &Path {
        self.chromium.as_deref().expect("no Chromium found: install it, or name it in $CHROME")
    }

    fn open(&self, url: &str) -> Page {
        let start = || Arc::new(Chromium::start(self.chromium()));
        let chromium = Arc::clone(lock(&self.shared).get_or_insert_with(start));
        chromium.open(url)
    }

    fn online(&self, url: &str, name: &str) -> Page {
        let page = self.open(url);
        page.go_online(name);
        page
    }
}

/// One browser process with a profile of its own. Dropping it kills it, with no time for goodbyes.
struct Chromium {
    process: Child,
    browser: Browser,
    profile: PathBuf,
}

impl Chromium {
    fn start(path: &Path) -> Chromium {
        static COUNT: AtomicUsize = AtomicUsize::new(0);
        let number = COUNT.fetch_add(1, Ordering::Relaxed);
        let profile = scratch(&format!("browser-{number}"));
        let mut process = Command::new(path)
            .args(FLAGS)
            .arg(format!("--user-data-dir={}", profile.display()))
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::piped())
            .spawn()
            .expect("Chromium starts");
        let mut lines = BufReader::new(process.stderr.take().expect("a pipe")).lines();
        let mut said = String::new();
        let url = loop {
            let Some(Ok(line)) = lines.next() else {
                panic!("Chromium ended before it listened:\n{said}")
            };
            if let Some((_, url)) = line.split_once("DevTools listening on ") {
                break url.to_owned();
            }
            said += &line;
            said += "\n";
        };
        thread::spawn(move || lines.for_each(drop)); // a full pipe would stop the browser
        let browser = Browser::connect_with_timeout(url, SILENCE).expect("Chromium listens");
        Chromium { process, browser, profile }
    }

    fn open(&self, url: &str) -> Page {
        let context = self.browser.new_context().expect("a context");
        Page::open(context.new_tab().expect("a tab"), url)
    }
}

impl Drop for Chromium {
    fn drop(&mut self) {
        let _ = self.process.kill();
        let _ = self.process.wait();
        let _ = fs::remove_dir_all(&self.profile);
    }
}

fn find_chromium() -> Option<PathBuf> {
    if let Some(path) = env::var_os("CHROME") {
        return Some(path.into());
    }
    find(&["chromium", "google-chrome", "chromium-browser", "google-chrome-stable"])
}

/// The first of these programs that is installed.
fn find(names: &[&str]) -> Option<PathBuf> {
    let path = env::var_os("PATH")?;
    names
        .iter()
        .flat_map(|name| env::split_paths(&path).map(move |folder| folder.join(name)))
        .find(|file| file.is_file())
}
