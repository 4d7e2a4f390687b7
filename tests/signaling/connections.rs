//! Places for connections: which one is closed when a new connection needs a place.

use std::time::Duration;

use crate::common::{Link, Server, client_over, wait_until};

crate::over_plain_and_tls! {
    an_old_connection_without_a_login_gives_way_and_users_stay
}

fn an_old_connection_without_a_login_gives_way_and_users_stay(link: Link) {
    let server = Server::start_with(&["--max-connections", "3", "--max-per-ip", "0"]);
    let mut user = server.login(link, "alice");
    let mut oldest = server.connect(link);
    let mut younger = server.connect(link);
    // Nobody gives way before 10 s.
    assert!(client_over(server.door().open_socket(link), link).is_err());
    let mut next = None;
    wait_until("there is a place", || {
        std::thread::sleep(Duration::from_millis(200)); // not as fast as possible
        next = client_over(server.door().open_socket(link), link).ok();
        next.is_some()
    });
    assert!(oldest.websocket.read().is_err());
    assert_eq!(younger.log_in("bob")["success"], "1");
    assert_eq!(user.log_in("carol")["success"], "1");
    assert_eq!(next.unwrap().log_in("dave")["success"], "1");
}
