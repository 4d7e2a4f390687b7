//! What the tests share: the server as its own process, and clients of it over real sockets.
//!
//! No function sleeps to let something happen. Each waits for an event, for at most [`PATIENCE`].

#![allow(dead_code)] // Each test file uses its own part of this.

use std::io::{self, BufRead, BufReader, ErrorKind, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Output, Stdio};
use std::sync::mpsc::{self, Sender};
use std::sync::{Arc, Condvar, LazyLock, Mutex};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};
use std::{fs, thread};

use native_tls::TlsConnector;
use serde_json::{Value, json};
use signal_server::limits::Timeouts;
use signal_server::operator::files::OperatorFiles;
use signal_server::operator::{config, listen};
use signal_server::signaling::server;
use tungstenite::{Message, WebSocket};

/// How long anything may take that must happen. Generous, for slow and busy machines: a test that
/// passes never waits for it.
pub const PATIENCE: Duration = Duration::from_secs(30);

pub const OFFER: &str = include_str!("../fixtures/offer.json");
pub const ANSWER: &str = include_str!("../fixtures/answer.json");
pub const CANDIDATE: &str = include_str!("../fixtures/candidate-1.json");

/// A self-signed certificate and its key, made once for all tests of a process.
pub struct Certificate {
    pub cert: PathBuf,
    pub key: PathBuf,
}

impl Certificate {
    /// The options that name it.
    pub fn options(&self) -> [&str; 4] {
        ["--cert", self.cert.to_str().unwrap(), "--key", self.key.to_str().unwrap()]
    }
}

pub static CERTIFICATE: LazyLock<Certificate> = LazyLock::new(|| make_certificate("server"));

/// The one code block in this language of a document, such as `docs/deploy.md`.
pub fn document_block(document: &str, language: &str) -> String {
    let text = fs::read_to_string(Path::new(env!("CARGO_MANIFEST_DIR")).join(document)).unwrap();
    let start = format!("\n```{language}\n");
    let mut blocks = text.split(&start).skip(1);
    let block = blocks.next().unwrap().split("\n```\n").next().unwrap();
    assert!(blocks.next().is_none(), "which {language} block of {document}?");
    format!("{block}\n")
}

/// A folder of this test process, for files that a test makes.
pub fn scratch(name: &str) -> PathBuf {
    let folder =
        Path::new(env!("CARGO_TARGET_TMPDIR")).join(format!("{}-{name}", std::process::id()));
    fs::create_dir_all(&folder).unwrap();
    folder
}

pub fn make_certificate(name: &str) -> Certificate {
    let folder = scratch(name);
    let (cert, key) = (folder.join("cert.pem"), folder.join("key.pem"));
    openssl(&[
        "req",
        "-x509",
        "-newkey",
        "ec",
        "-pkeyopt",
        "ec_paramgen_curve:P-256",
        "-nodes",
        "-days",
        "30",
        "-subj",
        "/CN=localhost",
        "-addext",
        "subjectAltName=DNS:localhost,IP:127.0.0.1",
        "-keyout",
        key.to_str().unwrap(),
        "-out",
        cert.to_str().unwrap(),
    ]);
    Certificate { cert, key }
}

pub fn openssl(arguments: &[&str]) -> Vec<u8> {
    let output = Command::new("openssl").args(arguments).output().expect("openssl is installed");
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    output.stdout
}

/// Plain or TLS. Most behaviour is tested over both.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Link {
    Plain,
    Tls,
}

/// Makes two tests, `plain::NAME` and `tls::NAME`, of each function `NAME(link: Link)`.
#[macro_export]
macro_rules! over_plain_and_tls {
    ($($name:ident)*) => {
        mod plain { $( #[test] fn $name() { super::$name($crate::common::Link::Plain) } )* }
        mod tls { $( #[test] fn $name() { super::$name($crate::common::Link::Tls) } )* }
    };
}

/// The program under test, with an environment that the test sets, and a stderr that it can read.
pub fn program() -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_signal-server"));
    command.env_clear().stderr(Stdio::piped());
    command
}

/// Runs the program with arguments that must make it end by itself: its exit code, and all it said.
pub fn run(arguments: &[&str]) -> (i32, String) {
    outcome(program().args(arguments).output().unwrap())
}

/// The exit code of a program that has ended by itself, and all it said.
pub fn outcome(Output { status, stdout, stderr }: Output) -> (i32, String) {
    (status.code().unwrap(), String::from_utf8([stdout, stderr].concat()).unwrap())
}

/// The first lines of its log, up to the one that contains `last`; then it is killed.
pub fn log_until(command: &mut Command, last: &str) -> String {
    let mut child = command.spawn().unwrap();
    let mut log = String::new();
    for line in BufReader::new(child.stderr.take().unwrap()).lines().map_while(Result::ok) {
        log.push_str(&line);
        log.push('\n');
        if line.contains(last) {
            break;
        }
    }
    let _ = child.kill();
    child.wait().unwrap();
    assert!(log.contains(last), "no {last:?} in:\n{log}");
    log
}

/// What every test's server is started with. An option that is given again wins.
pub fn options() -> Vec<&'static str> {
    let ports = ["--listen", "127.0.0.1:0", "--tls-listen", "127.0.0.1:0"];
    let rate = ["--max-rate", "0"]; // Tests are quick. Those of the rate set their own.
    [&ports[..], &rate, &CERTIFICATE.options()].concat()
}

/// The program under test, as its own process on ports of its own. Dropping it kills it.
pub struct Server {
    child: Child,
    plain: SocketAddr,
    tls: SocketAddr,
    log: Arc<Log>,
}

#[derive(Default)]
struct Log {
    lines: Mutex<Vec<String>>,
    written: Condvar,
}

impl Server {
    pub fn start() -> Server {
        Server::start_with(&[])
    }

    /// With further options, which win over those that every test's server gets.
    pub fn start_with(more: &[&str]) -> Server {
        let mut command = program();
        command.args(options()).args(["--log", "debug"]).args(more);
        Server::spawn(command)
    }

    /// From a command that will log `listening on ws://…` and `listening on wss://…` to stderr.
    pub fn spawn(mut command: Command) -> Server {
        let mut child = command.spawn().unwrap();
        let log = Arc::new(Log::default());
        let stderr = BufReader::new(child.stderr.take().unwrap());
        let writer = log.clone();
        thread::spawn(move || {
            for line in stderr.lines().map_while(Result::ok) {
                writer.lines.lock().unwrap().push(line);
                writer.written.notify_all();
            }
        });
        let nowhere = SocketAddr::from(([127, 0, 0, 1], 0));
        let mut server = Server { child, plain: nowhere, tls: nowhere, log };
        server.plain = server.listening_on("ws://");
        server.tls = server.listening_on("wss://");
        server
    }

    fn listening_on(&self, scheme: &str) -> SocketAddr {
        let start = format!("listening on {scheme}");
        let line = self.wait_for_log(&start);
        line.split(&start).nth(1).unwrap().trim().parse().unwrap()
    }

    pub fn address(&self, link: Link) -> SocketAddr {
        self.door().address(link)
    }

    pub fn ws_port(&self) -> u16 {
        self.plain.port()
    }

    pub fn tls_port(&self) -> u16 {
        self.tls.port()
    }

    pub fn pid(&self) -> u32 {
        self.child.id()
    }

    /// All of the log so far.
    pub fn log(&self) -> String {
        self.log.lines.lock().unwrap().join("\n")
    }

    /// Waits for a log line that contains `text`, and returns it.
    pub fn wait_for_log(&self, text: &str) -> String {
        let mut lines = self.log.lines.lock().unwrap();
        let deadline = Instant::now() + PATIENCE;
        loop {
            if let Some(line) = lines.iter().find(|line| line.contains(text)) {
                return line.clone();
            }
            let left = deadline.saturating_duration_since(Instant::now());
            if left.is_zero() {
                let log = lines.join("\n");
                drop(lines); // Whoever cleans up after this panic reads the log, too.
                panic!("no {text:?} in the log:\n{log}");
            }
            lines = self.log.written.wait_timeout(lines, left).unwrap().0;
        }
    }

    /// Sends a signal such as `TERM` or `STOP`.
    pub fn signal(&self, name: &str) {
        signal(self.pid(), name);
    }

    /// Waits for the process to end by itself.
    pub fn wait(&mut self) -> ExitStatus {
        self.child.wait().unwrap()
    }

    /// Stops the server as an operator does.
    pub fn stop(mut self) -> ExitStatus {
        self.signal("TERM");
        self.wait()
    }

    /// Stops the server as an operator does, and starts another on the same ports. `meanwhile` is
    /// called between the two.
    pub fn restart(self, meanwhile: impl FnOnce()) -> Server {
        let (plain, tls) = (self.plain.to_string(), self.tls.to_string());
        assert!(self.stop().success());
        meanwhile();
        Server::start_with(&["--listen", &plain, "--tls-listen", &tls])
    }

    /// Where its clients connect.
    pub fn door(&self) -> Door {
        Door { plain: self.plain, tls: self.tls }
    }

    /// As [`Door::open`].
    pub fn open(&self, link: Link) -> Box<dyn Stream> {
        self.door().open(link)
    }

    /// As [`Door::connect`].
    pub fn connect(&self, link: Link) -> Client {
        self.door().connect(link)
    }

    /// As [`Door::login`].
    pub fn login(&self, link: Link, name: &str) -> Client {
        self.door().login(link, name)
    }

    /// As [`Door::exchange`].
    pub fn exchange(&self, link: Link, request: &[u8]) -> String {
        self.door().exchange(link, request)
    }
}

/// The addresses of a server, and the ways to connect to them.
#[derive(Clone, Copy)]
pub struct Door {
    plain: SocketAddr,
    tls: SocketAddr,
}

impl Door {
    pub fn address(&self, link: Link) -> SocketAddr {
        match link {
            Link::Plain => self.plain,
            Link::Tls => self.tls,
        }
    }

    /// A connection with nothing sent on it yet, but TLS set up if that is the link.
    pub fn open(&self, link: Link) -> Box<dyn Stream> {
        secure(self.open_socket(link), link).unwrap()
    }

    pub fn open_socket(&self, link: Link) -> TcpStream {
        let socket = TcpStream::connect(self.address(link)).unwrap();
        socket.set_read_timeout(Some(PATIENCE)).unwrap();
        socket.set_nodelay(true).unwrap();
        socket
    }

    /// A WebSocket client.
    pub fn connect(&self, link: Link) -> Client {
        client_over(self.open_socket(link), link).unwrap()
    }

    /// A WebSocket client that is logged in.
    pub fn login(&self, link: Link, name: &str) -> Client {
        let mut client = self.connect(link);
        assert_eq!(client.log_in(name)["success"], "1", "login as {name}");
        client
    }

    /// Sends these bytes on a new connection, and returns all that comes back.
    pub fn exchange(&self, link: Link, request: &[u8]) -> String {
        let mut stream = self.open(link);
        stream.write_all(request).unwrap();
        read_to_end(&mut stream)
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
        if thread::panicking() {
            eprintln!("---- the server's log ----\n{}", self.log());
        }
    }
}

/// A server in this process, with timeouts of the test's own. For what must be waited for, or must
/// not end by itself.
pub struct Local {
    pub door: Door,
    stop: Option<Sender<()>>,
    thread: Option<JoinHandle<()>>,
}

impl Local {
    pub fn start(timeouts: Timeouts) -> Local {
        Local::start_with(timeouts, &[])
    }

    pub fn start_with(timeouts: Timeouts, more: &[&str]) -> Local {
        let arguments = [&options()[..], more].concat();
        let command = config::Command::parse(arguments.iter().map(Into::into));
        let Ok(config::Command::Run(config)) = command else { panic!("{command:?}") };
        let files = OperatorFiles::load(&config).unwrap();
        let listeners = listen::bind(&config, files.certificate.clone()).unwrap();
        let door = Door { plain: listeners[0].address, tls: listeners[1].address };
        let (stop, stopped) = mpsc::channel();
        let thread = thread::spawn(move || {
            server::run(listeners, files, &config, timeouts, &stopped).unwrap();
        });
        Local { door, stop: Some(stop), thread: Some(thread) }
    }
}

impl Drop for Local {
    fn drop(&mut self) {
        drop(self.stop.take());
        let ended = self.thread.take().unwrap().join();
        if !thread::panicking() {
            ended.unwrap();
        }
    }
}

/// Any byte stream, plain or TLS.
pub trait Stream: Read + Write + Send {}
impl<S: Read + Write + Send> Stream for S {}

/// A socket whose reads and writes go on after an interruption. A socket with a timeout is interrupted
/// when the process is stopped for a moment, and TLS could not go on.
#[derive(Debug)]
pub struct Uninterrupted(pub TcpStream);

impl Read for Uninterrupted {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        uninterrupted(|| self.0.read(buffer))
    }
}

impl Write for Uninterrupted {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        uninterrupted(|| self.0.write(bytes))
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

fn uninterrupted<T>(mut call: impl FnMut() -> io::Result<T>) -> io::Result<T> {
    loop {
        match call() {
            Err(error) if error.kind() == ErrorKind::Interrupted => {}
            result => return result,
        }
    }
}

/// Takes any certificate. Made once: making it reads all of the system's certificates.
pub static CONNECTOR: LazyLock<TlsConnector> =
    LazyLock::new(|| TlsConnector::builder().danger_accept_invalid_certs(true).build().unwrap());

/// TLS, if that is the link.
pub fn secure(socket: TcpStream, link: Link) -> Result<Box<dyn Stream>, String> {
    let socket = Uninterrupted(socket);
    Ok(match link {
        Link::Plain => Box::new(socket),
        Link::Tls => {
            Box::new(CONNECTOR.connect("localhost", socket).map_err(|error| error.to_string())?)
        }
    })
}

/// A WebSocket client over this socket, if the server wants one.
pub fn client_over(socket: TcpStream, link: Link) -> Result<Client, String> {
    let handle = socket.try_clone().unwrap();
    let stream = secure(socket, link)?;
    let (websocket, _) =
        tungstenite::client("ws://localhost/", stream).map_err(|error| error.to_string())?;
    Ok(Client { websocket, socket: handle })
}

/// Everything until the other side closes. A reset counts as that: TLS without a goodbye, or bytes
/// that we sent and nobody read.
pub fn read_to_end(stream: &mut impl Read) -> String {
    let mut received = Vec::new();
    let mut chunk = [0; 4096];
    while let Ok(count @ 1..) = stream.read(&mut chunk) {
        received.extend_from_slice(&chunk[..count]);
    }
    String::from_utf8_lossy(&received).into_owned()
}

pub fn signal(pid: u32, name: &str) {
    let status = Command::new("kill").args([&format!("-{name}"), &pid.to_string()]).status();
    assert!(status.unwrap().success());
}

/// A WebSocket client, tungstenite's.
pub struct Client {
    pub websocket: WebSocket<Box<dyn Stream>>,
    pub socket: TcpStream,
}

impl Client {
    pub fn send(&mut self, text: &str) {
        self.websocket.send(Message::text(text)).unwrap();
    }

    pub fn send_json(&mut self, message: &Value) {
        self.send(&message.to_string());
    }

    /// The next message; pings and pongs are answered and skipped.
    pub fn receive_message(&mut self) -> Message {
        let deadline = Instant::now() + PATIENCE;
        loop {
            assert!(Instant::now() < deadline, "nothing but pings and pongs");
            match self.websocket.read() {
                Ok(Message::Ping(_) | Message::Pong(_)) => {}
                Ok(message) => return message,
                Err(error) => panic!("instead of a message: {error}"),
            }
        }
    }

    /// The next message, which must be a text frame.
    pub fn receive(&mut self) -> String {
        match self.receive_message() {
            Message::Text(text) => text.to_string(),
            other => panic!("not a text frame: {other:?}"),
        }
    }

    pub fn receive_json(&mut self) -> Value {
        serde_json::from_str(&self.receive()).unwrap()
    }

    /// Sends, and returns the next message.
    pub fn ask(&mut self, message: &Value) -> Value {
        self.send_json(message);
        self.receive_json()
    }

    pub fn log_in(&mut self, name: &str) -> Value {
        self.ask(
            &json!({"msgType": "other", "signalType": "login", "fromUser": name, "toUser": ""}),
        )
    }

    /// The code of the close frame that must come now.
    pub fn closed_with(&mut self) -> u16 {
        match self.receive_message() {
            Message::Close(Some(frame)) => frame.code.into(),
            other => panic!("not a close frame with a code: {other:?}"),
        }
    }

    /// Checks that nothing came to this client until now. `sender`, logged in as `from`, is the one
    /// whose messages might have gone astray: what it sends arrives in order, so that the mark which
    /// it sends now would come after them.
    pub fn heard_nothing_from(&mut self, sender: &mut Client, from: &str, me: &str) {
        let mark = message("candidate", from, me, json!({"mark": from}));
        sender.send_json(&mark);
        assert_eq!(self.receive_json(), mark, "{me} heard something else first");
    }

    /// Vanishes without a WebSocket goodbye.
    pub fn kill(self) {
        self.socket.shutdown(std::net::Shutdown::Both).unwrap();
    }
}

/// A message with a payload of its own.
pub fn message(kind: &str, from: &str, to: &str, payload: Value) -> Value {
    json!({"msgType": "test", "signalType": kind, "fromUser": from, "toUser": to, "payload": payload})
}

/// A message of nearly the largest size.
pub fn big(from: &str, to: &str) -> String {
    message("candidate", from, to, json!("x".repeat(60_000))).to_string()
}

/// Waits until `condition` holds.
pub fn wait_until(what: &str, mut condition: impl FnMut() -> bool) {
    let deadline = Instant::now() + PATIENCE;
    while !condition() {
        assert!(Instant::now() < deadline, "waited in vain for: {what}");
        thread::sleep(Duration::from_millis(5));
    }
}

/// All files below a folder whose names end like this.
pub fn files_below(folder: &Path, ending: &str) -> Vec<PathBuf> {
    let mut found = Vec::new();
    for entry in fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            found.extend(files_below(&path, ending));
        } else if path.to_str().unwrap().ends_with(ending) {
            found.push(path);
        }
    }
    found.sort();
    found
}
