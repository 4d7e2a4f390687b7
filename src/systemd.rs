//! What systemd is told, and what its journal is spared. Elsewhere, and without systemd, nothing.

/// Tells systemd how far the server is, such as `READY=1` (sd_notify(3)): a datagram to the socket
/// that it named. An address that starts with `@` is not a file but a name in Linux's own list.
#[cfg(target_os = "linux")]
pub fn notify(state: &str) {
    use std::os::linux::net::SocketAddrExt;
    use std::os::unix::ffi::OsStrExt;
    use std::os::unix::net::{SocketAddr, UnixDatagram};

    let Some(socket) = std::env::var_os("NOTIFY_SOCKET") else {
        return;
    };
    let address = match socket.as_bytes().strip_prefix(b"@") {
        Some(name) => SocketAddr::from_abstract_name(name),
        None => SocketAddr::from_pathname(&socket),
    };
    let sent = address.and_then(|to| UnixDatagram::unbound()?.send_to_addr(state.as_bytes(), &to));
    if let Err(error) = sent {
        log::warn!("cannot tell systemd {state:?} at {}: {error}", socket.display());
    }
}

/// Whether stderr goes to the journal, which notes the time of each line by itself. Then the
/// environment names the device and inode of that stream (systemd.exec(5)).
#[cfg(target_os = "linux")]
pub fn journal_has_stderr() -> bool {
    use std::os::fd::AsFd;
    use std::os::unix::fs::MetadataExt;

    let stderr = std::io::stderr().as_fd().try_clone_to_owned();
    let metadata = stderr.and_then(|stderr| std::fs::File::from(stderr).metadata());
    metadata.is_ok_and(|stream| {
        let stream = format!("{}:{}", stream.dev(), stream.ino());
        std::env::var("JOURNAL_STREAM").is_ok_and(|journal| journal == stream)
    })
}

/// There is no systemd to tell.
#[cfg(not(target_os = "linux"))]
pub fn notify(_: &str) {}

/// There is no journal.
#[cfg(not(target_os = "linux"))]
pub fn journal_has_stderr() -> bool {
    false
}
