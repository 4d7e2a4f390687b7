//! Any bytes from a client after the handshake, in any portions: the same messages come out as if all
//! bytes had come at once.
//!
//! One side is the server's own stream, over a socket, with a portion fed at a time. The other is
//! tungstenite on a slice of memory. The messages, the error at the end and every byte that is
//! answered must be equal. The first eight bytes of the input are no part of the stream: they say
//! where it is cut.
#![no_main]

use std::io::{self, ErrorKind, Read, Write};
use std::net::{TcpListener, TcpStream};
use std::sync::{Arc, LazyLock};
use std::time::Duration;

use libfuzzer_sys::fuzz_target;
use signal_server::limits::{Limits, READ_BUFFER, RECV_BUFFER, Timeouts};
use signal_server::signaling::transport::{ClientSocket, Transport};
use tungstenite::protocol::{Role, WebSocketConfig};
use tungstenite::{Error, WebSocket};

/// What `handshake.rs` sets, but with a small limit, so that short inputs reach it.
fn config() -> WebSocketConfig {
    WebSocketConfig::default()
        .read_buffer_size(READ_BUFFER)
        .write_buffer_size(0)
        .max_message_size(Some(MAX_MESSAGE))
        .max_frame_size(Some(MAX_MESSAGE))
}

const MAX_MESSAGE: usize = 300;

/// The server's side of a connection, and the client's. Both outlive every input.
static SOCKETS: LazyLock<(Arc<ClientSocket>, TcpStream)> = LazyLock::new(|| {
    assert!(MAX_MESSAGE < Limits::default().max_message);
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let client = TcpStream::connect(listener.local_addr().unwrap()).unwrap();
    client.set_read_timeout(Some(Duration::from_secs(10))).unwrap();
    (Arc::new(ClientSocket::new(listener.accept().unwrap().0)), client)
});

struct Memory<'a> {
    bytes: &'a [u8],
    answer: Vec<u8>,
}

impl Read for Memory<'_> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        if self.bytes.is_empty() {
            Err(ErrorKind::WouldBlock.into())
        } else {
            self.bytes.read(buffer)
        }
    }
}

impl Write for Memory<'_> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.answer.extend_from_slice(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

fuzz_target!(|data: &[u8]| {
    let Some((cuts, bytes)) = data.split_at_checked(8) else { return };
    let memory = Memory { bytes, answer: Vec::new() };
    let mut reference = WebSocket::from_raw_socket(memory, Role::Server, Some(config()));
    let mut expected = Vec::new();
    read_all(&mut reference, &mut expected);

    let (server, client) = &*SOCKETS;
    let timeouts = Timeouts::default();
    let mut transport = Transport::accept(server.clone(), None, &timeouts).unwrap();
    transport.finish_handshake(&timeouts).unwrap();
    // The first cut is where the handshake ends: what came with it is given to the WebSocket.
    let mut cuts: Vec<usize> =
        cuts.iter().map(|&cut| usize::from(cut) * bytes.len() / 255).collect();
    cuts.sort_unstable();
    let (early, mut rest) = bytes.split_at(cuts[0]);
    let mut websocket =
        WebSocket::from_partially_read(transport, early.to_vec(), Role::Server, Some(config()));
    let mut heard = Vec::new();
    let mut goes_on = read_all(&mut websocket, &mut heard);
    for pair in cuts.windows(2).map(|pair| pair[1] - pair[0]).chain([rest.len()]) {
        let (portion, after) = rest.split_at(pair.min(rest.len()));
        rest = after;
        for portion in portion.chunks(RECV_BUFFER) {
            if goes_on {
                websocket.get_mut().feed(portion);
                goes_on = read_all(&mut websocket, &mut heard);
            }
        }
    }
    assert_eq!(heard, expected);

    let mut answer = vec![0; reference.get_ref().answer.len()];
    (&*client).read_exact(&mut answer).unwrap();
    assert_eq!(answer, reference.get_ref().answer);
    client.set_nonblocking(true).unwrap();
    let more = (&*client).read(&mut [0]);
    client.set_nonblocking(false).unwrap();
    assert_eq!(more.unwrap_err().kind(), ErrorKind::WouldBlock, "the server said more");
});

/// Reads until nothing is left, and returns whether more may come.
fn read_all<S: Read + Write>(websocket: &mut WebSocket<S>, heard: &mut Vec<String>) -> bool {
    loop {
        match websocket.read() {
            Ok(message) => heard.push(format!("{message:?}")),
            Err(Error::Io(error)) if error.kind() == ErrorKind::WouldBlock => return true,
            Err(error) => {
                heard.push(error.to_string());
                return false;
            }
        }
    }
}
