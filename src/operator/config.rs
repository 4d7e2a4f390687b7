//! The command line, parsed into a [`Config`].

use std::ffi::OsString;
use std::net::{Ipv4Addr, Ipv6Addr, SocketAddr};
use std::path::PathBuf;

use lexopt::Arg::{Long, Short};
use lexopt::ValueExt;
use log::LevelFilter;

use crate::addresses::Network;
use crate::limits::{LARGEST_MESSAGE, Limits, MAX_TURN_URLS};

const HELP: &str = include_str!("help.txt");
const VERSION: &str = concat!("signal-server ", env!("CARGO_PKG_VERSION"), "\n");

/// What the command line asks for.
#[derive(Debug)]
pub enum Command {
    /// Serve.
    Run(Config),
    /// Read all files and log what a start would log, then exit.
    Check(Config),
    /// Make a token for a user.
    NewUser {
        /// The user's name.
        name: String,
        /// The call page that the user's link opens.
        url: String,
    },
    /// Print this text.
    Print(&'static str),
}

/// Everything that an operator can choose.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Config {
    /// Addresses for `ws://` and `http://`: the first one that can be bound is used. Empty for off.
    pub listen: Vec<SocketAddr>,
    /// The same for `wss://` and `https://`.
    pub tls_listen: Vec<SocketAddr>,
    /// Whether an option asks for TLS. If so, the program does not start without it.
    pub tls_requested: bool,
    /// The certificate, followed by the rest of its chain, PEM.
    pub cert: PathBuf,
    /// The certificate's private key, PEM.
    pub key: PathBuf,
    /// File with a JSON array of ICE servers, as `RTCPeerConnection` takes it.
    pub ice_servers: Option<PathBuf>,
    /// Addresses of the TURN server for which users get credentials, at most [`MAX_TURN_URLS`] bytes
    /// together; empty if there is no TURN server.
    pub turn_urls: Vec<String>,
    /// File with the TURN server's shared secret, which makes these credentials.
    pub turn_secret: Option<PathBuf>,
    /// File with the users who may log in; without it, everybody may.
    pub users: Option<PathBuf>,
    /// Origins whose pages may connect, besides the server's own; empty for all.
    pub allow_origin: Vec<String>,
    /// Reverse proxies whose `X-Forwarded-For` is believed.
    pub trust_proxy: Vec<Network>,
    /// The key of PeerJS clients; `None` if they are not served.
    pub peerjs: Option<String>,
    /// Bounds on what clients may use.
    pub limits: Limits,
    /// The least important level that is logged.
    pub log: LevelFilter,
}

impl Default for Config {
    fn default() -> Config {
        Config {
            listen: both_families(8080),
            tls_listen: both_families(8443),
            tls_requested: false,
            cert: "certs/cert.pem".into(),
            key: "certs/key.pem".into(),
            ice_servers: None,
            turn_urls: vec![],
            turn_secret: None,
            users: None,
            allow_origin: vec![],
            trust_proxy: vec![],
            peerjs: None,
            limits: Limits::default(),
            log: LevelFilter::Info,
        }
    }
}

impl Command {
    /// Parses arguments, without the program's name. If an option is given twice, the last value
    /// counts, unless the option can be repeated.
    ///
    /// # Errors
    /// An unknown option, or a value that is empty or can't be used.
    pub fn parse(arguments: impl IntoIterator<Item = OsString>) -> Result<Command, lexopt::Error> {
        let (mut config, mut check) = (Config::default(), false);
        let (mut new_user, mut url) = (None, "https://localhost:8443/".to_string());
        let mut parser = lexopt::Parser::from_args(arguments);
        while let Some(argument) = parser.next()? {
            let option = match argument {
                Long("help") | Short('h') => return Ok(Command::Print(HELP)),
                Long("version") | Short('V') => return Ok(Command::Print(VERSION)),
                Long("check") => {
                    check = true;
                    continue;
                }
                // The help lists every option that takes a value.
                Long(option) if HELP.contains(&format!("  --{option} ")) => option.to_string(),
                unknown => return Err(unknown.unexpected()),
            };
            let value = parser.value()?.string()?;
            match option.as_str() {
                _ if value.is_empty() => {
                    return Err(format!("--{option} has an empty value").into());
                }
                "new-user" => new_user = Some(value),
                "url" => url = value,
                _ => config
                    .set(&option, &value)
                    .map_err(|expected| format!("--{option} takes {expected}, not {value:?}"))?,
            }
        }
        config.check()?;
        Ok(match new_user {
            Some(name) => Command::NewUser { name, url },
            None if check => Command::Check(config),
            None => Command::Run(config),
        })
    }
}

impl Config {
    /// Sets one option; an error says what the option takes.
    fn set(&mut self, option: &str, value: &str) -> Result<(), &'static str> {
        let limits = &mut self.limits;
        self.tls_requested |= matches!(option, "tls-listen" | "cert" | "key");
        match option {
            "listen" => self.listen = addresses(value)?,
            "tls-listen" => self.tls_listen = addresses(value)?,
            "cert" => self.cert = value.into(),
            "key" => self.key = value.into(),
            "ice-servers" => self.ice_servers = Some(value.into()),
            "turn" => self.turn_urls.push(turn_url(value)?),
            "turn-secret" => self.turn_secret = Some(value.into()),
            "users" => self.users = Some(value.into()),
            "allow-origin" => self.allow_origin.push(origin(value)?),
            "trust-proxy" => self.trust_proxy.push(value.parse()?),
            "peerjs" => (self.peerjs, limits.peerjs) = (Some(value.into()), true),
            "max-connections" => limits.max_connections = limit(value)?,
            "max-per-ip" => limits.max_per_ip = limit(value)?,
            "max-message" => limits.max_message = limit(value)?.min(LARGEST_MESSAGE),
            "max-rate" => limits.max_rate = limit(value)?,
            "max-calls" => limits.max_calls = limit(value)?,
            "log" => {
                self.log = value.parse().map_err(|_| "off, error, warn, info, debug or trace")?;
            }
            _ => return Err("no value"),
        }
        Ok(())
    }

    /// Checks the options that depend on each other.
    fn check(&self) -> Result<(), &'static str> {
        if self.listen.is_empty() && self.tls_listen.is_empty() {
            return Err("--listen and --tls-listen are both off: there is nothing to do");
        }
        if self.turn_urls.is_empty() != self.turn_secret.is_none() {
            return Err("--turn and --turn-secret need each other");
        }
        if self.turn_urls.concat().len() > MAX_TURN_URLS {
            return Err("--turn: the addresses are too long together");
        }
        Ok(())
    }
}

fn both_families(port: u16) -> Vec<SocketAddr> {
    vec![(Ipv6Addr::UNSPECIFIED, port).into(), (Ipv4Addr::UNSPECIFIED, port).into()]
}

fn addresses(value: &str) -> Result<Vec<SocketAddr>, &'static str> {
    match value.parse() {
        Ok(address) => Ok(vec![address]),
        Err(_) if value == "off" => Ok(vec![]),
        Err(_) => Err("an address and a port, such as 0.0.0.0:8080 or [::1]:8080, or off"),
    }
}

/// Parses a limit; 0 means no limit.
fn limit(value: &str) -> Result<usize, &'static str> {
    match value.parse() {
        Ok(0) => Ok(usize::MAX),
        Ok(limit) => Ok(limit),
        Err(_) => Err("a whole number, or 0 for no limit"),
    }
}

/// An origin as browsers write it: scheme, host and, unless it is the default, port (RFC 6454).
fn origin(value: &str) -> Result<String, &'static str> {
    match value.split_once("://") {
        Some((_, host)) if !host.is_empty() && !host.contains(['/', '?', '#', '@']) => {
            Ok(value.into())
        }
        _ => Err("an origin, such as https://example.org"),
    }
}

fn turn_url(value: &str) -> Result<String, &'static str> {
    match value.split_once(':') {
        Some(("turn" | "turns", host)) if !host.is_empty() => Ok(value.into()),
        _ => Err("an address such as turn:turn.example.org:3478"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn command(arguments: &[&str]) -> Result<Command, lexopt::Error> {
        Command::parse(arguments.iter().map(Into::into))
    }

    fn parse(arguments: &[&str]) -> Config {
        match command(arguments) {
            Ok(Command::Run(config)) => config,
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn any_option_about_tls_requests_it() {
        assert!(parse(&["--cert", "c"]).tls_requested);
        assert!(parse(&["--key", "k"]).tls_requested);
        assert!(parse(&["--tls-listen", "[::1]:8443"]).tls_requested);
        assert!(!parse(&["--listen", "off"]).tls_requested);
        assert!(parse(&["--tls-listen", "off", "--cert", "c"]).tls_listen.is_empty());
    }

    #[test]
    fn the_last_one_counts_unless_an_option_can_be_repeated() {
        let config = parse(&["--log", "off", "--log", "ERROR", "--max-calls=8", "--max-calls=7"]);
        assert_eq!((config.log, config.limits.max_calls), (LevelFilter::Error, 7));
        let config = parse(&["--allow-origin=https://c", "--allow-origin", "http://d:81"]);
        assert_eq!(config.allow_origin, ["https://c", "http://d:81"]);
        let config =
            parse(&["--turn", "turn:a", "--turn=turns:b:1?transport=tcp", "--turn-secret=s"]);
        assert_eq!(config.turn_urls, ["turn:a", "turns:b:1?transport=tcp"]);
    }

    #[test]
    fn a_limit_of_0_is_none() {
        let limits = parse(&["--max-rate", "0", "--max-message=0"]).limits;
        let default = Limits::default();
        let wanted = Limits { max_rate: usize::MAX, max_message: LARGEST_MESSAGE, ..default };
        assert_eq!(limits, wanted);
    }

    #[test]
    fn values_that_cannot_be_used_are_refused() {
        let long = format!("turn:{}", "x".repeat(MAX_TURN_URLS));
        for arguments in [
            &["--allow-origin", "a.example"][..],
            &["--allow-origin", "https://"],
            &["--allow-origin", "https://a/"],
            &["--allow-origin", "*"],
            &["--trust-proxy", "localhost"],
            &["--max-rate", "-1"],
            &["--turn", "turn:a"],
            &["--turn-secret", "s"],
            &["--turn-secret", "s", "--turn", "stun:a"],
            &["--turn-secret", "s", "--turn", "turn:"],
            &["--turn-secret", "s", "--turn", "turn.example.org"],
            &["--turn-secret", "s", "--turn", &long],
            &["--listen", "off", "--tls-listen", "off"],
        ] {
            assert!(command(arguments).is_err(), "{arguments:?}");
        }
    }

    /// The parser handles every option that the help lists, and refuses an empty value for each.
    #[test]
    fn every_option_in_the_help_is_known_and_refuses_an_empty_value() {
        let options = HELP.split_whitespace().filter(|word| word.starts_with("--"));
        let mut count = 0;
        for option in options.filter(|word| !["--help", "--version", "--check"].contains(word)) {
            let problem = command(&[option, ""]).unwrap_err().to_string();
            assert_eq!(problem, format!("{option} has an empty value"));
            let problem = command(&[option, " "]);
            assert!(!format!("{problem:?}").contains("takes no value"), "{option}");
            count += 1;
        }
        assert!(count >= 18, "{count}");
    }
}
