//! The configurations for reverse proxies, each run with the real proxy in front of the server.
//!
//! That the server's pings keep a silent connection open is tested with short times: the proxy ends
//! what is silent for [`PROXY_TIMEOUT`] instead of its default of a minute, and the server pings
//! more often than that. A server that does not ping shows that the proxy's timeout is in use. That
//! the program itself pings within a minute is a comparison of its constant with [`PROXY_DEFAULT`].

use std::fs::{self, File};
use std::io::{ErrorKind, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use libtest_mimic::Trial;
use signal_server::limits::Timeouts;
use socket2::{Domain, Socket, Type};
use tungstenite::client::IntoClientRequest;
use tungstenite::{Error, Message};

use super::common::{self, Client, Link, Local, PATIENCE, Server, Stream, document_block};
use super::test_with;

/// What nginx and Apache end a silent connection after, if nobody configures it.
const PROXY_DEFAULT: Duration = Duration::from_secs(60);

/// The same in these tests, in whole seconds.
const PROXY_TIMEOUT: Duration = Duration::from_secs(2);

/// How often the server pings in these tests.
const PING_INTERVAL: Duration = Duration::from_millis(250);

pub fn trials() -> Vec<Trial> {
    let mut trials = Vec::new();
    for proxy in &PROXIES {
        let name = |test: &str| format!("{}::{test}", proxy.name);
        trials.extend([
            test_with(proxy.program, name("a_call_goes_through"), || a_call_goes_through(proxy)),
            test_with(proxy.program, name("the_page_is_below_a_path"), || {
                the_page_is_below_a_path(proxy)
            }),
            test_with(proxy.program, name("pings_keep_a_silent_connection"), || {
                pings_keep_a_silent_connection(proxy)
            }),
        ]);
    }
    trials
}

pub fn is_there(program: &str) -> bool {
    let mut command = Command::new(program);
    command.arg("--version").stdout(Stdio::null()).stderr(Stdio::null()).status().is_ok()
}

/// Puts something else into a block, where it must be.
fn put(block: &str, old: &str, new: &str) -> String {
    assert!(block.contains(old), "no {old:?} in:\n{block}");
    block.replace(old, new)
}

/// A reverse proxy, and its configuration around what docs/deploy.md gives. `PORT` is where it listens,
/// `FOLDER` where it may write, `SECONDS` [`PROXY_TIMEOUT`].
struct Proxy {
    name: &'static str,
    program: &'static str,
    arguments: &'static [&'static str],
    around: &'static str,
    /// Whether it ends silent connections. Caddy has no such timeout.
    has_timeout: bool,
}

/// Each as one process in the foreground, without any of the system's own configuration.
const PROXIES: [Proxy; 3] = [
    Proxy {
        name: "nginx",
        program: "nginx",
        arguments: &["-e", "stderr", "-p", "FOLDER", "-c", "FOLDER/config"],
        around: "daemon off; master_process off; pid FOLDER/pid; events {}
                 http { access_log off; proxy_read_timeout SECONDSs; client_body_temp_path body; proxy_temp_path proxy;
                 fastcgi_temp_path fastcgi; uwsgi_temp_path uwsgi; scgi_temp_path scgi;
                 server { listen 127.0.0.1:PORT; BLOCK } }",
        has_timeout: true,
    },
    Proxy {
        name: "caddy",
        program: "caddy",
        arguments: &["run", "--adapter", "caddyfile", "--config", "FOLDER/config"],
        around: "{\nadmin off\n}\nBLOCK",
        has_timeout: false,
    },
    Proxy {
        name: "apache",
        program: "apache2",
        arguments: &["-X", "-d", "FOLDER", "-f", "FOLDER/config"],
        around: "Listen 127.0.0.1:PORT\nTimeout SECONDS\nServerName localhost\nPidFile FOLDER/pid\n\
                 Mutex file:FOLDER\nErrorLog /dev/stderr\n\
                 LoadModule mpm_event_module MODULES/mod_mpm_event.so\n\
                 LoadModule authz_core_module MODULES/mod_authz_core.so\n\
                 LoadModule alias_module MODULES/mod_alias.so\n\
                 LoadModule proxy_module MODULES/mod_proxy.so\n\
                 LoadModule proxy_http_module MODULES/mod_proxy_http.so\nBLOCK",
        has_timeout: true,
    },
];

impl Proxy {
    /// Starts it in front of the server at `ws_port`, and returns its log file too.
    fn spawn(&self, ws_port: u16, port: u16) -> (Child, PathBuf) {
        let folder = common::scratch(&format!("{}-{port}", self.name));
        let block =
            put(&document_block("docs/deploy.md", self.name), ":8080", &format!(":{ws_port}"));
        let config = self
            .around
            .replace("BLOCK", &block.replace("call.example.org", "http://127.0.0.1:PORT"))
            .replace("PORT", &port.to_string())
            .replace("SECONDS", &PROXY_TIMEOUT.as_secs().to_string())
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

/// A proxy in front of a signaling server.
struct Site {
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
    fn start(proxy: &Proxy, ws_port: u16) -> Site {
        loop {
            let port = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
            let (mut child, log) = proxy.spawn(ws_port, port);
            let mut ended = None;
            common::wait_until("the proxy listens", || {
                ended = child.try_wait().unwrap();
                ended.is_some() || TcpStream::connect(("127.0.0.1", port)).is_ok()
            });
            let Some(status) = ended else {
                return Site { port, proxy: child };
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

/// With these options only pages of the proxy's site may connect, so that it must pass on its name.
const OPTIONS: [&str; 4] =
    ["--trust-proxy", "127.0.0.1", "--allow-origin", "https://elsewhere.example"];

fn a_call_goes_through(proxy: &Proxy) {
    let server = Server::start_with(&OPTIONS);
    let site = Site::start(proxy, server.ws_port());
    let (mut alice, mut bob) = (site.login("alice"), site.login("bob"));
    alice.send(common::OFFER);
    assert_eq!(bob.receive(), common::OFFER);
    bob.send(common::ANSWER);
    assert_eq!(alice.receive(), common::ANSWER);
    alice.send(common::CANDIDATE);
    assert_eq!(bob.receive(), common::CANDIDATE);

    // The log and the limits know the client by its own address, whatever it says itself.
    server.wait_for_log(&format!("{CLIENT}:0 logged in as \"alice\""));
    assert!(!server.log().contains("203.0.113.9"), "{}", server.log());
    alice.kill();
    assert_eq!(bob.receive_json()["signalType"], "leave");
}

/// Answers pings, and nothing else, until then. Returns how many there were, or `None` if the
/// connection ended.
fn stay_silent(client: &mut Client, until: Instant) -> Option<usize> {
    let mut pings = 0;
    while let Some(left) = until.checked_duration_since(Instant::now()).filter(|l| !l.is_zero()) {
        client.socket.set_read_timeout(Some(left)).unwrap();
        match client.websocket.read() {
            Ok(Message::Ping(_)) => pings += 1,
            Err(Error::Io(error)) if error.kind() == ErrorKind::WouldBlock => {}
            _ => return None,
        }
    }
    client.socket.set_read_timeout(Some(PATIENCE)).unwrap();
    Some(pings)
}

fn pings_keep_a_silent_connection(proxy: &Proxy) {
    assert!(Timeouts::default().idle <= PROXY_DEFAULT / 2);
    let start = |idle| {
        let server = Local::start_with(Timeouts { idle, ..Timeouts::default() }, &OPTIONS);
        let site = Site::start(proxy, server.door.address(Link::Plain).port());
        let alice = site.login("alice");
        (server, site, alice) // Dropped in the opposite order.
    };
    let (_server, _site, mut alice) = start(PING_INTERVAL);
    let pings = stay_silent(&mut alice, Instant::now() + PROXY_TIMEOUT * 2);
    assert!(pings.expect("the connection stays") > 4);
    assert_eq!(alice.log_in("bob")["success"], "1");
    drop(alice);

    if proxy.has_timeout {
        let (_server, _site, mut alice) = start(PATIENCE * 2);
        let pings = stay_silent(&mut alice, Instant::now() + PATIENCE);
        assert_eq!(pings, None, "the proxy's timeout is not in use");
    }
}

fn the_page_is_below_a_path(proxy: &Proxy) {
    let server = Server::start_with(&OPTIONS);
    let site = Site::start(proxy, server.ws_port());
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
}
