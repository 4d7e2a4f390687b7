//! Arguments and environment to a [`Config`], and how a file that they name is read.
//!
//! An argument wins over the environment, and that over the default.

use std::ffi::OsString;
use std::fmt;
use std::fs;
use std::io;
use std::net::{IpAddr, Ipv6Addr, SocketAddr};
use std::path::{Path, PathBuf};
use std::str::FromStr;

use log::LevelFilter;
use serde_json::Value;

use crate::limits::{Limits, MAX_FILE, MAX_TURN_URLS};

/// The port of `ws://` and the page unless `--listen` says otherwise.
const DEFAULT_PORT: u16 = 8080;
/// The port of `wss://` and the page unless `--tls-listen` says otherwise.
const DEFAULT_TLS_PORT: u16 = 8443;
const DEFAULT_CERT: &str = "certs/cert.pem";
const DEFAULT_KEY: &str = "certs/key.pem";

/// The page that a new user's link opens unless `--url` says otherwise.
const DEFAULT_URL: &str = "https://localhost:8443/";

/// The options that take a value. The environment has each as well: `--max-rate` as `SIGNAL_MAX_RATE`.
const OPTIONS: &str = "listen tls-listen cert key ice-servers turn turn-secret users url log \
     max-connections max-per-ip max-message max-rate max-calls allow-origin trust-proxy";

/// What `--help` prints.
pub const HELP: &str = "\
A WebRTC signaling server with its own call page.

Usage: signal-server [OPTIONS]
       signal-server user add NAME --users FILE [--url URL]
       signal-server user remove NAME --users FILE
       signal-server user list --users FILE

Options:
  --listen ADDR        address and port for ws:// and http://; off for none
                       [default: [::]:8080, IPv4 as well]
  --tls-listen ADDR    address and port for wss:// and https://; off for none
                       [default: [::]:8443, if there is a certificate]
  --cert FILE          the certificate, PEM, with its chain [default: certs/cert.pem]
  --key FILE           its private key, PKCS#8 PEM [default: certs/key.pem]
  --ice-servers FILE   STUN and TURN servers for the call page: a JSON array as
                       RTCPeerConnection takes it [default: none, enough for a LAN]
  --turn URL           a TURN server, such as turn:turn.example.org:3478, for those
                       who have logged in; can be repeated [default: none]
  --turn-secret FILE   the secret that you and it share (coturn's static-auth-secret)
  --log LEVEL          off, error, warn, info, debug or trace [default: info]
  --check              read all of this as a start would, say what was found, and end

Limits; 0 is none:
  --max-connections N  connections at once [default: 1024]
  --max-per-ip N       of these from one address; an IPv6 /64 is one [default: 128]
  --max-message BYTES  size of a message [default: 65536]
  --max-rate N         messages a second from one connection, after a burst of
                       4 seconds' worth [default: 50]
  --max-calls N        calls one connection has made or answered [default: 32]
  --print-limits       print every limit, and the memory they add up to

Who may connect:
  --users FILE               who may log in, with a token each; `user add` makes one,
                             and a link to the page at --url [default: everybody]
  --allow-origin ORIGIN      a page that may connect, such as https://example.org;
                             can be repeated [default: every page may]
  --trust-proxy ADDR[/LEN]   a reverse proxy whose X-Forwarded-For counts; can be
                             repeated [default: none]

  --help               print this
  --version            print the version

Each option can also be set in the environment: --max-rate as SIGNAL_MAX_RATE, and
so on. There, --allow-origin, --trust-proxy and --turn take several, with commas.
";

/// What the command line asks for.
#[derive(Debug)]
pub enum Command {
    /// Serve.
    Run(Config),
    /// Change or show the users file.
    User(UserCommand),
    /// Say whether that would work.
    Check(Config),
    /// Print [`HELP`].
    Help,
    /// Print the version.
    Version,
    /// Print [`Limits::report`].
    PrintLimits(Config),
}

/// Everything an operator can choose.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Config {
    /// For `ws://` and `http://`.
    pub listen: Listen,
    /// For `wss://` and `https://`.
    pub tls: Tls,
    /// A JSON array, as `RTCPeerConnection` takes it.
    pub ice_servers: String,
    /// The TURN server, if there is one.
    pub turn: Option<TurnOptions>,
    /// How much clients may do.
    pub limits: Limits,
    /// Who may log in; everybody without it.
    pub users: Option<PathBuf>,
    /// Pages that may connect, besides our own; empty for all.
    pub allow_origin: Vec<String>,
    /// Proxies whose `X-Forwarded-For` counts.
    pub trust_proxy: Vec<Network>,
    /// The least important lines that are still logged.
    pub log: LevelFilter,
}

/// A TURN server that believes whom we vouch for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TurnOptions {
    /// Its addresses, at most [`MAX_TURN_URLS`] bytes together.
    pub urls: Vec<String>,
    /// The file with the secret that it shares with us.
    pub secret: PathBuf,
}

/// What to do with the users file, and which it is.
#[derive(Debug, PartialEq, Eq)]
pub struct UserCommand {
    /// The users file.
    pub file: PathBuf,
    /// What to do with it.
    pub action: UserAction,
}

/// What to do with the users file.
#[derive(Debug, PartialEq, Eq)]
pub enum UserAction {
    /// Add this user, and print the token and a link to the page.
    Add {
        /// The user's name.
        name: String,
        /// Where the page is.
        url: String,
    },
    /// Remove this user.
    Remove(String),
    /// Print the users' names, a line each.
    List,
}

/// Where a listener binds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Listen {
    /// Not at all.
    Off,
    /// Every address of this machine, IPv4 alone if it has no IPv6.
    Everywhere(u16),
    /// This address only.
    At(SocketAddr),
}

/// All addresses that start with the same bits.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Network {
    address: IpAddr,
    length: u32,
}

/// Whether and how to serve TLS.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Tls {
    /// Not at all.
    Off,
    /// Asked for in any way: then without it the program does not start.
    Required(Listen, Files),
    /// Nobody said anything: with the default certificate if there is one.
    IfThere(Listen, Files),
}

/// Where a certificate and its private key lie, both PEM.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Files {
    /// The certificate, followed by the rest of its chain.
    pub cert: PathBuf,
    /// Its private key.
    pub key: PathBuf,
}

/// Why there is no [`Config`].
#[derive(Debug, PartialEq, Eq)]
pub enum ConfigError {
    /// The words of the command line or the environment are wrong (exit code 2).
    Usage(String),
    /// A file that they name is (exit code 1).
    File(String),
}

impl fmt::Display for ConfigError {
    fn fmt(&self, f: &mut fmt::Formatter) -> fmt::Result {
        match self {
            ConfigError::Usage(text) | ConfigError::File(text) => f.write_str(text),
        }
    }
}

impl Command {
    /// Reads arguments (without the program's name) and environment.
    ///
    /// # Errors
    /// An unknown option, a value that cannot be used, or a bad ICE servers' file.
    pub fn parse(
        arguments: impl IntoIterator<Item = OsString>,
        environment: impl Fn(&str) -> Option<OsString>,
    ) -> Result<Command, ConfigError> {
        let mut given: Vec<(&str, OsString)> = Vec::new();
        let mut words = Vec::new();
        let (mut check, mut print_limits) = (false, false);
        let mut parser = lexopt::Parser::from_args(arguments);
        while let Some(argument) = parser.next().map_err(usage)? {
            use lexopt::prelude::*;
            match argument {
                Long("help") | Short('h') => return Ok(Command::Help),
                Long("version") | Short('V') => return Ok(Command::Version),
                Long("check") => check = true,
                Long("print-limits") => print_limits = true,
                Long(name) => match OPTIONS.split(' ').find(|option| *option == name) {
                    Some(option) => given.push((option, parser.value().map_err(usage)?)),
                    None => return Err(usage(Long(name).unexpected())),
                },
                Value(word) if word == "user" || !words.is_empty() => words.push(word),
                unknown => return Err(usage(unknown.unexpected())),
            }
        }
        // A variable that is set to nothing counts as not set, as in `SIGNAL_CERT= signal-server`.
        let variable = |option: &str| {
            let name = format!("SIGNAL_{}", option.to_uppercase().replace('-', "_"));
            environment(&name).filter(|value| !value.is_empty()).map(|value| (name, value))
        };
        let all = |option: &str| -> Vec<Given> {
            let values = given.iter().filter(|(known, _)| *known == option);
            values.map(|(known, value)| (format!("--{known}"), value.clone())).collect()
        };
        let last = |option: &str| all(option).pop().or_else(|| variable(option));
        let several = |option: &str| match all(option) {
            none if none.is_empty() => variable(option).map(split).unwrap_or_default(),
            some => some,
        };
        if !words.is_empty() {
            return user_command(&words, last("users"), last("url")).map(Command::User);
        }
        let limit = |option: &str, default: usize| match last(option) {
            None => Ok(default),
            Some(given) => match parse_value(given, "a whole number, or 0 for no limit")? {
                0 => Ok(usize::MAX),
                limit => Ok(limit),
            },
        };
        let default = Limits::default();
        let limits = Limits {
            max_connections: limit("max-connections", default.max_connections)?,
            max_per_ip: limit("max-per-ip", default.max_per_ip)?,
            max_message: limit("max-message", default.max_message)?,
            max_rate: limit("max-rate", default.max_rate)?,
            max_calls: limit("max-calls", default.max_calls)?,
        };

        let (tls_listen, cert, key) = (last("tls-listen"), last("cert"), last("key"));
        let tls_asked_for = tls_listen.is_some() || cert.is_some() || key.is_some();
        let path = |option: Option<Given>, default: &str| {
            option.map_or_else(|| PathBuf::from(default), |(_, value)| value.into())
        };
        let files = Files { cert: path(cert, DEFAULT_CERT), key: path(key, DEFAULT_KEY) };
        let tls = match listen_value(tls_listen, DEFAULT_TLS_PORT)? {
            Listen::Off => Tls::Off,
            listen if tls_asked_for => Tls::Required(listen, files),
            listen => Tls::IfThere(listen, files),
        };
        let config = Config {
            listen: listen_value(last("listen"), DEFAULT_PORT)?,
            tls,
            ice_servers: last("ice-servers").map_or_else(|| Ok("[]".into()), read_ice_servers)?,
            turn: turn_options(several("turn"), last("turn-secret"))?,
            limits,
            users: last("users").map(|(_, path)| path.into()),
            allow_origin: several("allow-origin")
                .into_iter()
                .map(origin)
                .collect::<Result<_, _>>()?,
            trust_proxy: several("trust-proxy")
                .into_iter()
                .map(|given| parse_value(given, NETWORKS))
                .collect::<Result<_, _>>()?,
            log: last("log")
                .map_or(Ok(LevelFilter::Info), |given| parse_value(given, LOG_LEVELS))?,
        };
        if print_limits {
            return Ok(Command::PrintLimits(config));
        }
        if config.listen == Listen::Off && config.tls == Tls::Off {
            return Err(ConfigError::Usage(
                "--listen and --tls-listen are both off: there is nothing to do".into(),
            ));
        }
        Ok(if check { Command::Check(config) } else { Command::Run(config) })
    }
}

/// Reads a text file of the operator's, without the mark that some editors put in front. Who serves
/// clients reads some again, and must neither wait for a pipe nor run out of memory.
///
/// # Errors
/// It can't be read, is no ordinary file, is larger than [`MAX_FILE`], or not UTF-8 (which is
/// [`io::ErrorKind::InvalidData`]).
pub fn read_file(path: &Path) -> io::Result<String> {
    let file = fs::metadata(path)?;
    if !file.is_file() {
        return Err(io::Error::other("a directory or a pipe, not an ordinary file"));
    }
    if file.len() > MAX_FILE {
        return Err(io::Error::other(format!("larger than {MAX_FILE} bytes")));
    }
    let text = fs::read_to_string(path)?;
    Ok(text.trim_start_matches('\u{feff}').into())
}

/// The option or variable that a value came from, and the value.
type Given = (String, OsString);

const LOG_LEVELS: &str = "off, error, warn, info, debug or trace";
const NETWORKS: &str = "an address or a network, such as 127.0.0.1 or 10.0.0.0/8";
const ADDRESSES: &str = "an address and a port, such as 0.0.0.0:8080 or [::1]:8080, or off";

/// What comes after the word `user`, which stands first among the words.
fn user_command(
    words: &[OsString],
    file: Option<Given>,
    url: Option<Given>,
) -> Result<UserCommand, ConfigError> {
    let wrong = |text: &str| ConfigError::Usage(text.into());
    let text = |word: OsString| word.into_string().map_err(|_| wrong("this is not UTF-8"));
    let words = words.iter().skip(1).cloned().map(text).collect::<Result<Vec<_>, _>>()?;
    let url = url.map_or_else(|| Ok(DEFAULT_URL.into()), |(_, url)| text(url))?;
    let action = match words.iter().map(String::as_str).collect::<Vec<_>>()[..] {
        ["add", _] if url.contains('#') || !url.starts_with("http") => {
            return Err(wrong("--url takes the page's address, such as https://call.example.org/"));
        }
        ["add", name] => UserAction::Add { name: name.into(), url },
        ["remove", name] => UserAction::Remove(name.into()),
        ["list"] => UserAction::List,
        _ => return Err(wrong("user takes: add NAME, remove NAME, or list")),
    };
    let file = file.ok_or_else(|| wrong("user needs the users file: --users FILE"))?.1.into();
    Ok(UserCommand { file, action })
}

fn usage(error: lexopt::Error) -> ConfigError {
    ConfigError::Usage(error.to_string())
}

fn listen_value(given: Option<Given>, default_port: u16) -> Result<Listen, ConfigError> {
    match given {
        None => Ok(Listen::Everywhere(default_port)),
        Some((_, value)) if value == "off" => Ok(Listen::Off),
        Some(given) => Ok(Listen::At(parse_value(given, ADDRESSES)?)),
    }
}

/// The values of a variable that can have several.
fn split((name, values): Given) -> Vec<Given> {
    let values = values.to_string_lossy();
    let values = values.split([',', ' ']).filter(|value| !value.is_empty());
    values.map(|value| (name.clone(), value.into())).collect()
}

/// An origin as browsers write it: scheme, host and, unless it is the usual one, port (RFC 6454).
fn origin((name, value): Given) -> Result<String, ConfigError> {
    let text = value.to_string_lossy();
    match text.split_once("://") {
        Some((scheme, host))
            if !scheme.is_empty() && !host.is_empty() && !host.contains(['/', '?', '#', '@']) =>
        {
            Ok(text.into_owned())
        }
        _ => Err(ConfigError::Usage(format!(
            "{name} takes an origin, such as https://example.org, not {value:?}"
        ))),
    }
}

fn parse_value<T: FromStr>((name, value): Given, wanted: &str) -> Result<T, ConfigError> {
    value
        .to_str()
        .and_then(|text| text.parse().ok())
        .ok_or_else(|| ConfigError::Usage(format!("{name} takes {wanted}, not {value:?}")))
}

impl Network {
    /// Whether `ip` is one of its addresses. An IPv4 address counts as that however it is written.
    pub fn contains(&self, ip: IpAddr) -> bool {
        match (self.address, ip.to_canonical()) {
            (IpAddr::V4(network), IpAddr::V4(ip)) => {
                (network.to_bits() ^ ip.to_bits()).leading_zeros() >= self.length
            }
            (IpAddr::V6(network), IpAddr::V6(ip)) => {
                (network.to_bits() ^ ip.to_bits()).leading_zeros() >= self.length
            }
            _ => false,
        }
    }
}

impl FromStr for Network {
    type Err = ();

    fn from_str(text: &str) -> Result<Network, ()> {
        let (address, length) = match text.split_once('/') {
            Some((address, length)) => (address, Some(length)),
            None => (text, None),
        };
        let address: IpAddr = address.parse().map_err(drop)?;
        let whole = if address.is_ipv4() { 32 } else { 128 };
        let length = length.map_or(Ok(whole), |length| length.parse().map_err(drop))?;
        if length > whole { Err(()) } else { Ok(Network { address, length }) }
    }
}

impl Listen {
    /// The addresses to try, in order.
    pub fn candidates(self) -> Vec<SocketAddr> {
        match self {
            Listen::Off => vec![],
            Listen::At(address) => vec![address],
            Listen::Everywhere(port) => {
                vec![(Ipv6Addr::UNSPECIFIED, port).into(), ([0, 0, 0, 0], port).into()]
            }
        }
    }
}

/// Both or neither: servers with a secret of ours.
fn turn_options(
    urls: Vec<Given>,
    secret: Option<Given>,
) -> Result<Option<TurnOptions>, ConfigError> {
    let urls: Vec<String> = urls.into_iter().map(turn_url).collect::<Result<_, _>>()?;
    let wrong = |text: String| Err(ConfigError::Usage(text));
    match secret {
        None if urls.is_empty() => Ok(None),
        None => wrong(
            "--turn needs --turn-secret; servers with a password go into --ice-servers".into(),
        ),
        Some(_) if urls.is_empty() => wrong("--turn-secret needs a server: --turn URL".into()),
        Some(_) if urls.iter().map(String::len).sum::<usize>() > MAX_TURN_URLS => {
            wrong(format!("all --turn together take at most {MAX_TURN_URLS} bytes"))
        }
        Some((_, secret)) => Ok(Some(TurnOptions { urls, secret: secret.into() })),
    }
}

fn turn_url((name, value): Given) -> Result<String, ConfigError> {
    let text = value.to_string_lossy();
    match text.split_once(':') {
        Some(("turn" | "turns", host))
            if !host.is_empty() && host.bytes().all(|byte| byte.is_ascii_graphic()) =>
        {
            Ok(text.into_owned())
        }
        _ => Err(ConfigError::Usage(format!(
            "{name} takes an address such as turn:turn.example.org:3478, not {value:?}"
        ))),
    }
}

/// The file's JSON array, checked as far as `RTCPeerConnection` would refuse it: the operator
/// should hear of it at start, not every user at every call.
fn read_ice_servers((name, path): Given) -> Result<String, ConfigError> {
    let path = PathBuf::from(path);
    let wrong =
        |reason: String| ConfigError::File(format!("{name} file {}: {reason}", path.display()));
    let text = read_file(&path).map_err(|error| wrong(error.to_string()))?;
    let value: Value = serde_json::from_str(&text).map_err(|error| wrong(error.to_string()))?;
    let servers = value.as_array().ok_or_else(|| wrong("must be a JSON array".into()))?;
    for (index, server) in servers.iter().enumerate() {
        check_ice_server(server).map_err(|reason| wrong(format!("entry {index} {reason}")))?;
    }
    Ok(value.to_string())
}

fn check_ice_server(server: &Value) -> Result<(), String> {
    let urls = match server.get("urls") {
        Some(Value::String(url)) => vec![url.as_str()],
        Some(Value::Array(urls)) if !urls.is_empty() => urls
            .iter()
            .map(|url| url.as_str().ok_or("has a url that is not a string"))
            .collect::<Result<_, _>>()?,
        _ => return Err(r#"needs "urls": a string or an array of strings"#.into()),
    };
    for url in urls {
        let (scheme, host) = url.split_once(':').unwrap_or((url, ""));
        if !matches!(scheme, "stun" | "stuns" | "turn" | "turns") || host.is_empty() {
            return Err(format!(
                "has the url {url:?}; it must start with stun:, stuns:, turn: or turns:"
            ));
        }
        let text = |field| server.get(field).is_some_and(Value::is_string);
        if scheme.starts_with("turn") && !(text("username") && text("credential")) {
            return Err(format!(r#"has the url {url:?}, which needs "username" and "credential""#));
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(arguments: &[&str], environment: &[(&str, &str)]) -> Config {
        let variable = |name: &str| {
            environment.iter().find(|(known, _)| *known == name).map(|(_, value)| value.into())
        };
        match Command::parse(arguments.iter().map(Into::into), variable) {
            Ok(Command::Run(config)) => config,
            other => panic!("{other:?}"),
        }
    }

    fn files(cert: &str, key: &str) -> Files {
        Files { cert: cert.into(), key: key.into() }
    }

    #[test]
    fn the_defaults() {
        assert_eq!(
            parse(&[], &[]),
            Config {
                listen: Listen::Everywhere(8080),
                tls: Tls::IfThere(
                    Listen::Everywhere(8443),
                    files("certs/cert.pem", "certs/key.pem")
                ),
                ice_servers: "[]".into(),
                turn: None,
                limits: Limits::default(),
                users: None,
                allow_origin: vec![],
                trust_proxy: vec![],
                log: LevelFilter::Info,
            }
        );
    }

    #[test]
    fn everywhere_is_both_families_first() {
        let candidates = Listen::Everywhere(8080).candidates();
        assert_eq!(candidates, ["[::]:8080".parse().unwrap(), "0.0.0.0:8080".parse().unwrap()]);
        assert!(Listen::Off.candidates().is_empty());
    }

    #[test]
    fn any_word_about_tls_makes_it_required() {
        let required = |arguments: &[&str]| matches!(parse(arguments, &[]).tls, Tls::Required(..));
        assert!(required(&["--cert", "c"]));
        assert!(required(&["--key", "k"]));
        assert!(required(&["--tls-listen", "[::1]:8443"]));
        assert!(!required(&["--listen", "off"]));
        assert_eq!(parse(&["--tls-listen", "off", "--cert", "c"], &[]).tls, Tls::Off);
        assert!(matches!(parse(&[], &[("SIGNAL_CERT", "c")]).tls, Tls::Required(..)));
    }

    #[test]
    fn an_argument_wins_over_the_environment_and_the_last_one_over_the_first() {
        let environment = [("SIGNAL_LOG", "warn"), ("SIGNAL_LISTEN", "off")];
        assert_eq!(parse(&[], &environment).log, LevelFilter::Warn);
        assert_eq!(parse(&[], &environment).listen, Listen::Off);
        assert_eq!(parse(&["--log=debug"], &environment).log, LevelFilter::Debug);
        assert_eq!(
            parse(&["--log", "off", "--log", "ERROR"], &environment).log,
            LevelFilter::Error
        );
        assert_eq!(parse(&[], &[("SIGNAL_LOG", "")]).log, LevelFilter::Info);
    }

    #[test]
    fn a_limit_of_0_is_none() {
        let limits =
            parse(&["--max-rate", "0", "--max-calls=7"], &[("SIGNAL_MAX_PER_IP", "3")]).limits;
        let default = Limits::default();
        let wanted = Limits { max_rate: usize::MAX, max_calls: 7, max_per_ip: 3, ..default };
        assert_eq!(limits, wanted);
    }

    #[test]
    fn a_network_is_all_addresses_with_the_same_first_bits() {
        let contains = |network: &str, ip: &str| {
            network.parse::<Network>().unwrap().contains(ip.parse().unwrap())
        };
        assert!(contains("127.0.0.1", "127.0.0.1") && !contains("127.0.0.1", "127.0.0.2"));
        assert!(contains("10.0.0.0/8", "10.255.0.1") && !contains("10.0.0.0/8", "11.0.0.1"));
        assert!(contains("10.0.0.0/8", "::ffff:10.1.2.3"));
        assert!(contains("0.0.0.0/0", "192.0.2.1") && !contains("0.0.0.0/0", "::1"));
        assert!(contains("2001:db8::/33", "2001:db8:7fff::1"));
        assert!(!contains("2001:db8::/33", "2001:db8:8000::1"));
        for wrong in ["", "/8", "10.0.0.0/33", "::/129", "10.0.0.0/-1", "10/8", "x"] {
            assert!(wrong.parse::<Network>().is_err(), "{wrong}");
        }
    }

    #[test]
    fn repeatable_options_add_up_and_replace_the_environment() {
        let environment = [
            ("SIGNAL_ALLOW_ORIGIN", "https://a.example, http://b.example:81"),
            ("SIGNAL_TRUST_PROXY", "127.0.0.1,::1"),
        ];
        let config = parse(&[], &environment);
        assert_eq!(config.allow_origin, ["https://a.example", "http://b.example:81"]);
        assert_eq!(config.trust_proxy.len(), 2);
        let config =
            parse(&["--allow-origin=https://c", "--allow-origin", "https://d"], &environment);
        assert_eq!(config.allow_origin, ["https://c", "https://d"]);
        for wrong in ["a.example", "https://", "https://a/", "*"] {
            let arguments = ["--allow-origin", wrong].map(Into::into);
            assert!(matches!(Command::parse(arguments, |_| None), Err(ConfigError::Usage(_))));
        }
    }

    #[test]
    fn a_turn_server_needs_a_secret_and_the_reverse() {
        let turn = parse(
            &["--turn", "turn:a", "--turn=turns:b:1?transport=tcp"],
            &[("SIGNAL_TURN_SECRET", "s"), ("SIGNAL_TURN", "turn:c")],
        )
        .turn;
        let urls = vec!["turn:a".into(), "turns:b:1?transport=tcp".into()];
        assert_eq!(turn, Some(TurnOptions { urls, secret: "s".into() }));
        let long = format!("turn:{}", "x".repeat(MAX_TURN_URLS));
        let cases: [&[&str]; 7] = [
            &["--turn", "turn:a"],
            &["--turn-secret", "s"],
            &["--turn-secret", "s", "--turn", "stun:a"],
            &["--turn-secret", "s", "--turn", "turn:"],
            &["--turn-secret", "s", "--turn", "turn.example.org"],
            &["--turn-secret", "s", "--turn", "turn:a\"b\n"],
            &["--turn-secret", "s", "--turn", &long],
        ];
        for arguments in cases {
            let parsed = Command::parse(arguments.iter().map(Into::into), |_| None);
            assert!(matches!(parsed, Err(ConfigError::Usage(_))), "{arguments:?}");
        }
    }

    #[test]
    fn every_option_is_in_the_help_and_looked_for() {
        let source = include_str!("config.rs");
        for option in OPTIONS.split(' ') {
            assert!(HELP.contains(&format!("--{option} ")), "{option}");
            let calls = ["last", "several", "limit"].map(|call| format!("{call}(\"{option}\""));
            assert!(calls.iter().any(|call| source.contains(call)), "{option}");
        }
    }

    #[test]
    fn both_listeners_off_is_refused() {
        let arguments = ["--listen", "off", "--tls-listen", "off"].map(Into::into);
        assert!(matches!(Command::parse(arguments, |_| None), Err(ConfigError::Usage(_))));
    }
}
