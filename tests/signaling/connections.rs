//! Places for connections: which one is closed when a new connection needs a place.

use std::io::Write;
use std::time::Duration;

use crate::common::{Link, Server, client_over, wait_until};

crate::over_plain_and_tls! {
    an_old_connection_without_a_login_gives_way_and_users_stay
}

fn an_old_connection_without_a_login_gives_way_and_users_stay(link: Link) {
    let limits = ["--max-connections", "3", "--max-per-ip", "0", "--max-rate", "1"];
    let server = Server::start_with(&limits);
    let mut user = server.login(link, "alice");
    let mut oldest = server.connect(link);
    // Handling these at its rate would take more than an hour. It is not kept for that long.
    oldest.websocket.get_mut().write_all(&b"\x89\x80\0\0\0\0".repeat(5000)).unwrap();
    let mut younger = server.connect(link);
    // Nobody gives way before 10 s.
    assert!(client_over(server.door().open_socket(link), link).is_err());
    let mut next = None;
    wait_until("there is a place", || {
        std::thread::sleep(Duration::from_millis(200)); // not as fast as possible
        next = client_over(server.door().open_socket(link), link).ok();
        next.is_some()
    });
    let address = oldest.socket.local_addr().unwrap();
    server.wait_for_log(&format!("{address} disconnected: connection lost"));
    assert_eq!(younger.log_in("bob")["success"], "1");
    assert_eq!(user.log_in("carol")["success"], "1");
    assert_eq!(next.unwrap().log_in("dave")["success"], "1");
}
