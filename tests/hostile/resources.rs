//! Resources that run out (descriptors, threads), and clients whose process or network is gone without
//! a close.
//!
//! Some of it needs root and Linux's tools (setpriv, prlimit, ip). Without them a test says so and
//! passes.

use std::fs;
use std::net::{SocketAddr, TcpStream};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use crate::common::{
    Client, Link, Local, Server, client_over, message, read_to_end, signal, wait_until,
};
use crate::scene::{HOSTILE, Scene, Usage, connect_from, program_under};
use serde_json::json;
use signal_server::limits::{LOG_BURST, Timeouts};

crate::over_plain_and_tls! {
    descriptors_run_out
    threads_run_out
        a_stopped_process_loses_its_name
}

/// Connects until the server can accept no more. Checks that the honest pair goes on meanwhile, and
/// that a client can log in after the flood.
fn survives_a_flood(scene: &Scene, connections: usize, remedy: &str) {
    let complaint = "cannot accept a connection: ";
    let start = Instant::now();
    // Who is not accepted waits in the kernel's queue, so all of these can connect.
    let flood: Vec<TcpStream> = (0..connections).map(|_| scene.socket()).collect();
    let said = scene.server.wait_for_log(complaint);
    assert!(said.contains(remedy), "{said}");
    scene.goes_on();
    let complaints = || scene.server.log().matches(complaint).count();
    wait_until("it says so again", || complaints() >= 2);
    scene.goes_on();
    // Of each line at most a burst, and then one a second.
    let most = LOG_BURST as usize + start.elapsed().as_secs() as usize + 1;
    assert!(complaints() <= most, "{} lines, not {most}", complaints());
    drop(flood);
    assert_eq!(scene.connect().log_in("after the flood")["success"], "1");
}

/// How many threads the server may have in [`threads_run_out`].
const THREADS: usize = 40;

const NO_LIMITS: [&str; 6] = ["--max-connections", "0", "--max-per-ip", "0", "--log", "info"];

fn descriptors_run_out(link: Link) {
    let command = program_under("ulimit -n 64; exec \"$@\"", &NO_LIMITS);
    let scene = Scene::around(Server::spawn(command), link);
    survives_a_flood(&scene, 100, "allow more files (LimitNOFILE=");
}

fn threads_run_out(link: Link) {
    // As a user of its own, because the system does not limit root's threads. `dac_override` lets
    // this user read the files that root's tests made.
    let user = 40_000 + std::process::id() % 20_000 * 2 + u32::from(link == Link::Tls);
    let as_user = format!(
        "setpriv --reuid {user} --regid {user} --clear-groups --bounding-set=-all,+dac_override \
         --inh-caps=-all,+dac_override --ambient-caps=-all,+dac_override prlimit --nproc={THREADS}"
    );
    let possible = Command::new("bash").args(["-c", &format!("{as_user} true")]).status();
    if !possible.is_ok_and(|status| status.success()) {
        return eprintln!("left out: needs root, setpriv and prlimit");
    }
    let command = program_under(&format!("exec {as_user} \"$@\""), &NO_LIMITS);
    let scene = Scene::around(Server::spawn(command), link);
    // Here every connection is accepted, and those who get no thread are closed.
    survives_a_flood_of_the_refused(&scene);
    survives_a_flood(&scene, 100, "threads (TasksMax=");
    the_last_thread_serves_its_client(&scene);
}

/// A new WebSocket gets a second thread. If no thread is left, the client stays on its first one.
fn the_last_thread_serves_its_client(scene: &Scene) {
    let threads = || Usage::of(scene.server.pid()).threads;
    wait_until("the flood has gone", || threads() == scene.before.threads);
    let mut clients = Vec::new();
    for number in threads() + 1..=THREADS {
        let name = format!("thread {number}");
        clients.push((scene.login(&name), name));
        wait_until("there is one thread more", || threads() == number);
    }
    let (client, name) = clients.last_mut().unwrap();
    let to_myself = message("candidate", &*name, &*name, json!(1));
    assert_eq!(client.ask(&to_myself), to_myself);
}

/// A connection for which the server can start no thread is closed at once.
fn survives_a_flood_of_the_refused(scene: &Scene) {
    let mut held: Vec<TcpStream> = (0..36).map(|_| scene.socket()).collect();
    scene.server.wait_for_log("cannot accept a connection: ");
    assert_eq!(read_to_end(&mut scene.socket()), "");
    held.clear();
    assert_eq!(scene.connect().log_in("next")["success"], "1");
}

/// A client in a process of its own: this very program, with [`alice_herself`] as its only test.
struct Alice(Child);

impl Alice {
    /// `prefix` is a command that runs another.
    fn start(prefix: &[&str], address: SocketAddr, link: Link) -> Alice {
        let program = std::env::current_exe().unwrap();
        let mut words = prefix.iter().map(Into::into).chain([program.into_os_string()]);
        let mut command = Command::new(words.next().unwrap());
        command
            .args(words)
            .args(["--exact", "resources::alice_herself"])
            .env("ALICE_CALLS", format!("{address} {link:?}"))
            .stdout(Stdio::null());
        Alice(command.spawn().unwrap())
    }

    /// Until the last of its threads has stopped, the process could still answer.
    fn stop(&self) {
        signal(self.0.id(), "STOP");
        let threads = format!("/proc/{}/task", self.0.id());
        wait_until("alice is stopped", || {
            fs::read_dir(&threads).unwrap().all(|thread| {
                let status = fs::read_to_string(thread.unwrap().path().join("status")).unwrap();
                status.contains("State:\tT")
            })
        });
    }
}

impl Drop for Alice {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

#[test]
fn alice_herself() {
    // A client for the other tests, which start it in a process of its own.
    let Ok(call) = std::env::var("ALICE_CALLS") else { return };
    let (address, link) = call.split_once(' ').unwrap();
    let link = if link == "Tls" { Link::Tls } else { Link::Plain };
    let mut alice = client_over(TcpStream::connect(address).unwrap(), link).unwrap();
    assert_eq!(alice.log_in("alice")["success"], "1");
    alice.send_json(&message("offer", "alice", "bob", json!("from alice")));
    while alice.websocket.read().is_ok() {} // and answers pings
}

/// Alice, in a call with bob, vanishes without a word: somebody else gets her name, which could not
/// be had before, and bob hears that she is gone before he hears from her heir.
fn alice_loses_her_name(scene: &Scene, bob: &mut Client, vanish: impl FnOnce()) {
    assert_eq!(bob.receive_json()["payload"], "from alice");
    let mut heir = scene.connect();
    assert_eq!(heir.log_in("alice")["reason"], "name-taken");
    vanish();
    let start = Instant::now();
    // Her answer to the ping before may still be on its way, and counts.
    wait_until("her name is free", || heir.log_in("alice")["success"] == "1");
    assert!(start.elapsed() > Duration::from_secs(1), "she was not given the time to answer");
    heir.send_json(&message("offer", "alice", "bob", json!("from her heir")));
    assert_eq!(bob.receive_json()["signalType"], "leave");
    assert_eq!(bob.receive_json()["payload"], "from her heir");
}

fn a_stopped_process_loses_its_name(link: Link) {
    let scene = Scene::set(link);
    let mut bob = scene.login("bob");
    let alice = Alice::start(&[], scene.server.address(link), link);
    alice_loses_her_name(&scene, &mut bob, || alice.stop());
}

/// A network namespace, joined to this one by a cable that can be pulled. 198.18.0.0/15 is for tests
/// of this kind (RFC 2544).
struct Elsewhere {
    name: String,
    cable: String,
    here: String,
}

impl Elsewhere {
    /// `number` tells those of one test process apart.
    fn make(number: u32) -> Option<Elsewhere> {
        let id = std::process::id() * 2 + number;
        let name = format!("hostile{id}");
        let [a, b] = [(id >> 6) as u8, (id << 2) as u8];
        let (here, there) = (format!("198.18.{a}.{}", b + 1), format!("198.18.{a}.{}", b + 2));
        let cable = format!("ho{id}");
        let script = format!(
            "ip netns add {name} && ip link add {cable} type veth peer name cable netns {name} &&
             ip addr add {here}/30 dev {cable} && ip link set {cable} up &&
             ip -n {name} addr add {there}/30 dev cable && ip -n {name} link set cable up"
        );
        let elsewhere = Elsewhere { name, cable, here: format!("{here}:0") };
        let made = Command::new("sh").args(["-c", &script]).stderr(Stdio::null()).status();
        made.is_ok_and(|status| status.success()).then_some(elsewhere)
    }

    fn alice(&self, address: SocketAddr) -> Alice {
        Alice::start(&["ip", "netns", "exec", &self.name], address, Link::Plain)
    }

    /// From here on nothing arrives on either side, no FIN and no reset.
    fn pull_the_cable(&self) {
        let down = ["-n", &self.name, "link", "set", "cable", "down"];
        assert!(Command::new("ip").args(down).status().unwrap().success());
    }
}

impl Drop for Elsewhere {
    fn drop(&mut self) {
        // By itself the cable would go when the last socket there has given up, in some minutes.
        let script = format!("ip link del {}; ip netns del {}", self.cable, self.name);
        let _ = Command::new("sh").args(["-c", &script]).stderr(Stdio::null()).status();
    }
}

#[test]
fn a_client_whose_network_is_gone_loses_its_name() {
    let Some(elsewhere) = Elsewhere::make(0) else {
        return eprintln!("left out: needs root and iproute2");
    };
    let scene = Scene::with(Link::Plain, &["--listen", &elsewhere.here]);
    let mut bob = scene.login("bob");
    let _alice = elsewhere.alice(scene.server.address(Link::Plain));
    alice_loses_her_name(&scene, &mut bob, || elsewhere.pull_the_cable());
}

/// When nobody wants the name, it is the keepalive that finds out.
#[test]
fn a_client_whose_network_is_gone_is_missed_by_the_keepalive() {
    let Some(elsewhere) = Elsewhere::make(1) else {
        return eprintln!("left out: needs root and iproute2");
    };
    let (idle, pong) = (Duration::from_millis(400), Duration::from_millis(400));
    let timeouts = Timeouts { idle, pong, ..Timeouts::default() };
    let server = Local::start_with(timeouts, &["--listen", &elsewhere.here]);
    let mut bob = server.door.login(Link::Plain, "bob");
    let _alice = elsewhere.alice(server.door.address(Link::Plain));
    assert_eq!(bob.receive_json()["payload"], "from alice");
    elsewhere.pull_the_cable();
    // He answers his own pings while he waits.
    assert_eq!(bob.receive_json()["signalType"], "leave");
}

#[test]
fn hostile_clients_have_an_address_of_their_own() {
    // Other tests rely on this: their hostile clients do not share the honest pair's address.
    let scene = Scene::with(Link::Plain, &["--log", "debug"]);
    let _client =
        client_over(connect_from(HOSTILE, scene.server.address(Link::Plain)), Link::Plain).unwrap();
    scene.server.wait_for_log("127.6.6.6:");
}
