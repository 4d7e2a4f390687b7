//! The ports: which are bound, and the errors for those that cannot be.

use std::fs;
use std::net::TcpListener;
use std::process::Command;

use crate::common::{Server, options, outcome, run};

#[test]
fn by_default_it_listens_on_both_families() {
    // Port 0 is not the default, but the address is; the port would clash with a running server.
    let server = Server::start_with(&["--listen", "[::]:0"]);
    for address in ["127.0.0.1", "::1"] {
        let ip: std::net::IpAddr = address.parse().unwrap();
        if std::net::UdpSocket::bind((ip, 0)).is_ok() {
            std::net::TcpStream::connect((ip, server.ws_port())).unwrap();
        }
    }
}

#[test]
fn a_port_in_use_is_one_clear_line_and_exit_1() {
    let taken = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = taken.local_addr().unwrap().to_string();
    let (code, said) = run(&["--log", "error", "--tls-listen", "off", "--listen", &address]);
    assert_eq!((code, said.lines().count()), (1, 1), "{said}");
    assert!(
        said.contains(&format!("cannot listen on {address}: Address already in use")),
        "{said}"
    );
    // The same when only the second port is taken.
    let (code, said) = run(&[options(), vec!["--log", "error", "--tls-listen", &address]].concat());
    assert_eq!((code, said.lines().count()), (1, 1), "{said}");
    assert!(said.contains("--tls-listen"), "{said}");
}

#[test]
fn an_address_that_cannot_be_had_is_explained() {
    // Of a network for documentation (RFC 5737), so nobody's.
    let (code, said) =
        run(&["--log", "error", "--tls-listen", "off", "--listen", "192.0.2.1:8080"]);
    assert_eq!((code, said.lines().count()), (1, 1), "{said}");
    assert!(said.contains("Cannot assign requested address"), "{said}");
    // A port for root alone, where there are such. Root without that right is like anybody else.
    let first = fs::read_to_string("/proc/sys/net/ipv4/ip_unprivileged_port_start");
    if first.is_ok_and(|port| port.trim().parse::<u16>().is_ok_and(|port| port <= 443)) {
        return;
    }
    let is_root = fs::read("/etc/shadow").is_ok();
    let mut command = Command::new(if is_root { "setpriv" } else { "env" });
    if is_root {
        command.arg("--bounding-set=-net_bind_service");
    }
    command.args([env!("CARGO_BIN_EXE_signal-server"), "--tls-listen", "off"]);
    let (_, said) = outcome(command.args(["--listen", "127.0.0.1:443"]).output().unwrap());
    assert!(said.contains("AmbientCapabilities=CAP_NET_BIND_SERVICE"), "{said}");
}
