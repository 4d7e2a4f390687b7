//! What the README gives an operator to copy, as it stands there: the systemd unit, and the
//! configurations of reverse proxies, each tried with the real program; and what a student types.
//!
//! Where a program is missing its trials are reported as ignored; with `CI` set they fail instead.

mod common;

use std::env;
use std::fs::{self, File};
use std::io::{ErrorKind, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::path::PathBuf;
use std::process::{Child, Command, ExitCode, Stdio};
use std::thread;
use std::time::{Duration, Instant};

use common::{Client, Link, PATIENCE, README, Server, Stream, readme_block};
use libtest_mimic::{Arguments, Failed, Trial};
use socket2::{Domain, Socket, Type};
use tungstenite::client::IntoClientRequest;
use tungstenite::{Error, Message};

/// Puts something else into a block, where it must be.
fn put(block: &str, old: &str, new: &str) -> String {
    assert!(block.contains(old), "no {old:?} in:\n{block}");
    block.replace(old, new)
}

fn analyze(arguments: &[&str]) -> Result<String, Failed> {
    let output = Command::new("systemd-analyze").args(arguments).output()?;
    let said = String::from_utf8_lossy(&[output.stdout, output.stderr].concat()).into_owned();
    if output.status.success() { Ok(said) } else { Err(said.into()) }
}

fn the_unit_is_understood_and_scores_as_the_readme_says() -> Result<(), Failed> {
    let unit = put(
        &readme_block("ini"),
        "/usr/local/bin/signal-server",
        env!("CARGO_BIN_EXE_signal-server"),
    );
    let path = common::scratch("unit").join("signal-server.service");
    fs::write(&path, unit)?;
    let path = path.to_str().unwrap();
    // It only warns of a word that it does not know.
    assert_eq!(analyze(&["verify", path])?, "");
    let said = analyze(&["security", "--offline=true", "--no-pager", path])?;
    let number_after = |text: &str, words: &str| -> f32 {
        text.split(words).nth(1).unwrap().split_whitespace().next().unwrap().parse().unwrap()
    };
    let score = number_after(&said, "signal-server.service: ");
    let promised = number_after(README, "gives this unit ");
    // Another version of systemd may count a little differently.
    assert!(score < promised + 0.3, "it is {score}, the README says {promised}:\n{said}");
    Ok(())
}

fn the_unit_has_room_for_the_default_limits() -> Result<(), Failed> {
    let unit = readme_block("ini");
    let number = |key: &str| -> usize {
        let value = unit.lines().find_map(|line| line.strip_prefix(key)).unwrap();
        value.trim_end_matches('M').parse().unwrap()
    };
    let limits = signal_server::limits::Limits::default();
    let own = signal_server::limits::OWN_DESCRIPTORS;
    assert_eq!(number("LimitNOFILE="), limits.max_connections + own);
    assert_eq!(number("TasksMax="), 2 * limits.max_connections + own);
    assert!(number("MemoryMax=") << 20 >= limits.worst_case().unwrap());
    Ok(())
}

/// A reverse proxy, and its configuration around what the README gives. `PORT` is where it listens,
/// `FOLDER` where it may write.
struct Proxy {
    name: &'static str,
    program: &'static str,
    arguments: &'static [&'static str],
    around: &'static str,
}

/// Each as one process in the foreground, without any of the system's own configuration.
const PROXIES: [Proxy; 3] = [
    Proxy {
        name: "nginx",
        program: "nginx",
        arguments: &["-e", "stderr", "-p", "FOLDER", "-c", "FOLDER/config"],
        around: "daemon off; master_process off; pid FOLDER/pid; events {}
                 http { access_log off; client_body_temp_path body; proxy_temp_path proxy;
                 fastcgi_temp_path fastcgi; uwsgi_temp_path uwsgi; scgi_temp_path scgi;
                 server { listen 127.0.0.1:PORT; BLOCK } }",
    },
    Proxy {
        name: "caddy",
        program: "caddy",
        arguments: &["run", "--adapter", "caddyfile", "--config", "FOLDER/config"],
        around: "{\nadmin off\n}\nBLOCK",
    },
    Proxy {
        name: "apache",
        program: "apache2",
        arguments: &["-X", "-d", "FOLDER", "-f", "FOLDER/config"],
        around: "Listen 127.0.0.1:PORT\nServerName localhost\nPidFile FOLDER/pid\n\
                 Mutex file:FOLDER\nErrorLog /dev/stderr\n\
                 LoadModule mpm_event_module MODULES/mod_mpm_event.so\n\
                 LoadModule authz_core_module MODULES/mod_authz_core.so\n\
                 LoadModule alias_module MODULES/mod_alias.so\n\
                 LoadModule proxy_module MODULES/mod_proxy.so\n\
                 LoadModule proxy_http_module MODULES/mod_proxy_http.so\nBLOCK",
    },
];

impl Proxy {
    /// Starts it in front of the server at `ws_port`, and returns its log file too.
    fn spawn(&self, ws_port: u16, port: u16) -> (Child, PathBuf) {
        let folder = common::scratch(&format!("{}-{port}", self.name));
        let block = put(&readme_block(self.name), ":8080", &format!(":{ws_port}"));
        let config = self
            .around
            .replace("BLOCK", &block.replace("call.example.org", "http://127.0.0.1:PORT"))
            .replace("PORT", &port.to_string())
            .replace("MODULES", "/usr/lib/apache2/modules")
            .replace("FOLDER", folder.to_str().unwrap());
        fs::write(folder.join("config"), config).unwrap();
        let arguments =
            self.arguments.iter().map(|word| word.replace("FOLDER", folder.to_str().unwrap()));
        let mut command = Command::new(self.program);
        command.args(arguments).env("HOME", &folder);
        let log = folder.join("log");
        command.stdout(Stdio::null()).stderr(File::create(&log).unwrap());
        (command.spawn().unwrap(), log)
    }
}

/// A signaling server and a proxy in front of it.
struct Site {
    server: Server,
    port: u16,
    proxy: Child,
}

impl Drop for Site {
    fn drop(&mut self) {
        let _ = self.proxy.kill();
        let _ = self.proxy.wait();
    }
}

/// The address that clients have here: any but the proxy's own.
const CLIENT: &str = "127.0.0.2";

impl Site {
    fn start(proxy: &Proxy) -> Site {
        // With this option only pages of the proxy's site may connect: it must pass on its name.
        let elsewhere = ["--allow-origin", "https://elsewhere.example"];
        let server =
            Server::start_with(&[&["--trust-proxy", "127.0.0.1"], &elsewhere[..]].concat());
        loop {
            let port = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
            let (mut child, log) = proxy.spawn(server.ws_port(), port);
            let mut ended = None;
            common::wait_until("the proxy listens", || {
                ended = child.try_wait().unwrap();
                ended.is_some() || TcpStream::connect(("127.0.0.1", port)).is_ok()
            });
            let Some(status) = ended else {
                return Site { server, port, proxy: child };
            };
            // Or somebody else took the port in between.
            let log = fs::read_to_string(log).unwrap();
            assert!(log.to_lowercase().contains("in use"), "{}: {status}\n{log}", proxy.name);
        }
    }

    fn open(&self) -> TcpStream {
        let socket = Socket::new(Domain::IPV4, Type::STREAM, None).unwrap();
        socket.bind(&format!("{CLIENT}:0").parse::<SocketAddr>().unwrap().into()).unwrap();
        socket.connect(&SocketAddr::from(([127, 0, 0, 1], self.port)).into()).unwrap();
        let socket = TcpStream::from(socket);
        socket.set_read_timeout(Some(PATIENCE)).unwrap();
        socket
    }

    fn login(&self, name: &str) -> Client {
        let socket = self.open();
        let url = format!("ws://127.0.0.1:{}/call/", self.port);
        let mut request = url.into_client_request().unwrap();
        let origin = format!("http://127.0.0.1:{}", self.port);
        request.headers_mut().insert("Origin", origin.parse().unwrap());
        // What a client makes up about itself.
        request.headers_mut().insert("X-Forwarded-For", "203.0.113.9".parse().unwrap());
        let stream: Box<dyn Stream> = Box::new(socket.try_clone().unwrap());
        let (websocket, _) = tungstenite::client(request, stream).unwrap();
        let mut client = Client { websocket, socket };
        assert_eq!(client.log_in(name)["success"], "1");
        client
    }

    fn get(&self, path: &str) -> String {
        let mut socket = self.open();
        write!(
            socket,
            "GET {path} HTTP/1.1\r\nHost: 127.0.0.1:{}\r\nConnection: close\r\n\r\n",
            self.port
        )
        .unwrap();
        common::read_to_end(&mut socket)
    }
}

/// Does nothing but answer pings until then; returns how many there were.
fn stay_silent(client: &mut Client, until: Instant) -> usize {
    let mut pings = 0;
    while let Some(left) = until.checked_duration_since(Instant::now()).filter(|l| !l.is_zero()) {
        client.socket.set_read_timeout(Some(left)).unwrap();
        match client.websocket.read() {
            Ok(Message::Ping(_)) => pings += 1,
            Err(Error::Io(error)) if error.kind() == ErrorKind::WouldBlock => {}
            other => panic!("in silence: {other:?}"),
        }
    }
    client.socket.set_read_timeout(Some(PATIENCE)).unwrap();
    pings
}

fn a_call_goes_through(proxy: &Proxy) -> Result<(), Failed> {
    let site = Site::start(proxy);
    let (mut alice, mut bob) = (site.login("alice"), site.login("bob"));
    alice.send(common::OFFER);
    assert_eq!(bob.receive(), common::OFFER);
    bob.send(common::ANSWER);
    assert_eq!(alice.receive(), common::ANSWER);
    alice.send(common::CANDIDATE);
    assert_eq!(bob.receive(), common::CANDIDATE);

    // The log and the limits know the client by its own address, whatever it says itself.
    site.server.wait_for_log(&format!("{CLIENT}:0 logged in as \"alice\""));
    assert!(!site.server.log().contains("203.0.113.9"), "{}", site.server.log());

    // A proxy ends what is silent for 60 s, so there is no way to know but to be silent for longer.
    let until = Instant::now() + Duration::from_secs(65);
    thread::scope(|scope| {
        let alice = scope.spawn(|| stay_silent(&mut alice, until));
        assert!(stay_silent(&mut bob, until) > 0);
        assert!(alice.join().unwrap() > 0);
    });
    alice.send(common::CANDIDATE);
    assert_eq!(bob.receive(), common::CANDIDATE);
    alice.kill();
    assert_eq!(bob.receive_json()["signalType"], "leave");
    Ok(())
}

fn the_page_is_below_a_path(proxy: &Proxy) -> Result<(), Failed> {
    let site = Site::start(proxy);
    let moved = site.get("/call");
    assert!(moved.contains(" 301 ") || moved.contains(" 302 "), "{moved}");
    assert!(moved.lines().any(|l| l.starts_with("Location: ") && l.ends_with("/call/")), "{moved}");
    let page = site.get("/call/");
    assert!(page.contains("<title>Video call</title>"), "{page}");
    // All that the page and its scripts name, by addresses that are relative.
    let files = ["style.css", "main.js", "icon.svg", "signaling.js", "words/en.js", "config.json"];
    for file in &files[..3] {
        assert!(page.contains(&format!("=\"{file}\"")), "{file}: {page}");
    }
    for file in files {
        let response = site.get(&format!("/call/{file}"));
        assert!(response.starts_with("HTTP/1.1 200 OK"), "{file}: {response}");
    }
    Ok(())
}

/// The lines that a student types into two terminals, and those that are printed there.
fn the_transcript_is_what_happens() -> Result<(), Failed> {
    let start = "\n```text\nalice → ";
    assert_eq!(README.split(start).count(), 2, "the transcript is not where it was");
    let transcript = README.split(start).nth(1).unwrap().split("\n```\n").next().unwrap();
    let server = Server::start();
    let [mut alice, mut bob] = [(); 2].map(|()| Some(server.connect(Link::Plain)));
    let mut lines = 0;
    for line in format!("alice → {transcript}").lines() {
        let mut words = line.splitn(2, ['→', '←']);
        let (who, text) = (words.next().unwrap().trim(), words.next().unwrap().trim());
        let terminal = if who == "alice" { &mut alice } else { &mut bob };
        match (line.contains('→'), text) {
            (true, "Ctrl+C") => *terminal = None,
            (true, text) => terminal.as_mut().unwrap().send(text),
            (false, text) => assert_eq!(terminal.as_mut().unwrap().receive(), text),
        }
        lines += 1;
    }
    assert!(lines > 10, "{transcript}");
    Ok(())
}

fn is_there(program: &str) -> bool {
    let mut command = Command::new(program);
    command.arg("--version").stdout(Stdio::null()).stderr(Stdio::null()).status().is_ok()
}

fn main() -> ExitCode {
    let mut arguments = Arguments::from_args();
    // Some of these wait for a minute, without any work: all of them at once.
    arguments.test_threads.get_or_insert(8);
    let must_run = env::var_os("CI").is_some_and(|value| !value.is_empty());
    let mut trials = vec![
        Trial::test("the_transcript_is_what_happens", the_transcript_is_what_happens),
        Trial::test(
            "the_unit_has_room_for_the_default_limits",
            the_unit_has_room_for_the_default_limits,
        ),
    ];
    let name = "the_unit_is_understood_and_scores_as_the_readme_says";
    let trial = Trial::test(name, the_unit_is_understood_and_scores_as_the_readme_says);
    let left_out = !must_run && !is_there("systemd-analyze");
    trials.push(trial.with_ignored_flag(left_out));
    for proxy in &PROXIES {
        let left_out = !must_run && !is_there(proxy.program);
        if left_out {
            eprintln!("{} is left out; to install it: apt install {}", proxy.name, proxy.program);
        }
        let call = format!("{}::a_call_goes_through", proxy.name);
        let page = format!("{}::the_page_is_below_a_path", proxy.name);
        trials.extend([
            Trial::test(call, || a_call_goes_through(proxy)).with_ignored_flag(left_out),
            Trial::test(page, || the_page_is_below_a_path(proxy)).with_ignored_flag(left_out),
        ]);
    }
    libtest_mimic::run(&arguments, trials).exit_code()
}
