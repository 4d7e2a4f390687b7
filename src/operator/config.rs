//! Arguments and environment to a [`Config`], and how a file that they name is read.
//!
//! An argument wins over the environment, and that over the default.

use std::ffi::OsString;
use std::fmt;
use std::fs;
use std::io;
use std::net::{Ipv4Addr, Ipv6Addr, SocketAddr};
use std::path::{Path, PathBuf};
use std::slice;

use log::LevelFilter;
use serde_json::Value;

use crate::addresses::Network;
use crate::limits::{LARGEST_MESSAGE, Limits, MAX_FILE, MAX_TURN_URLS};

/// What `--help` prints. The defaults that it names are the ones below.
pub const HELP: &str = include_str!("help.txt");

const DEFAULT_PORT: u16 = 8080;
const DEFAULT_TLS_PORT: u16 = 8443;
const DEFAULT_CERT: &str = "certs/cert.pem";
const DEFAULT_KEY: &str = "certs/key.pem";

/// The page that a new user's link opens unless `--url` says otherwise.
const DEFAULT_URL: &str = "https://localhost:8443/";

/// The options that take a value. The environment has each as well: `--max-rate` as `SIGNAL_MAX_RATE`.
#[rustfmt::skip]
const OPTIONS: [&str; 17] = [
    "listen", "tls-listen", "cert", "key", "ice-servers", "turn", "turn-secret", "users", "url", "log",
    "max-connections", "max-per-ip", "max-message", "max-rate", "max-calls", "allow-origin",
    "trust-proxy",
];

/// Of these, the ones that can be repeated. In the environment they take several, with commas.
const REPEATABLE: [&str; 3] = ["turn", "allow-origin", "trust-proxy"];

/// What the command line asks for.
#[derive(Debug)]
pub enum Command {
    /// Serve.
    Run(Config),
    /// Say whether that would work.
    Check(Config),
    /// Print [`Limits::report`].
    PrintLimits(Config),
    /// Change or show this users file.
    User(PathBuf, UserAction),
    /// Print [`HELP`].
    Help,
    /// Print the version.
    Version,
}

/// Everything an operator can choose.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Config {
    /// For `ws://` and `http://`: where to listen, the first of these that can be had. None if empty.
    pub listen: Vec<SocketAddr>,
    /// The same for `wss://` and `https://`.
    pub tls_listen: Vec<SocketAddr>,
    /// Whether anybody asked for TLS in any way: then without it the program does not start.
    pub tls_required: bool,
    /// The certificate.
    pub certificate: CertificateFiles,
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

/// Where a certificate and its private key lie, both PEM.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CertificateFiles {
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

impl Command {
    /// Reads arguments (without the program's name) and environment.
    ///
    /// # Errors
    /// An unknown option, a value that cannot be used, or a bad ICE servers' file.
    pub fn parse(
        arguments: impl IntoIterator<Item = OsString>,
        environment: impl Fn(&str) -> Option<OsString>,
    ) -> Result<Command, ConfigError> {
        let mut options = Options(Vec::new());
        let mut command: fn(Config) -> Command = Command::Run;
        let mut words = Vec::new();
        let mut parser = lexopt::Parser::from_args(arguments);
        while let Some(argument) = parser.next().map_err(usage)? {
            use lexopt::prelude::*;
            match argument {
                Long("help") | Short('h') => return Ok(Command::Help),
                Long("version") | Short('V') => return Ok(Command::Version),
                Long("check") => command = Command::Check,
                Long("print-limits") => command = Command::PrintLimits,
                Long(name) if OPTIONS.contains(&name) => {
                    let (option, source) = (name.to_string(), format!("--{name}"));
                    let value = parser.value().map_err(usage)?;
                    options.0.push(Given { option, source, value });
                }
                Value(word) if word == "user" || !words.is_empty() => {
                    words.push(word.string().map_err(usage)?);
                }
                unknown => return Err(usage(unknown.unexpected())),
            }
        }
        options.add_environment(environment);
        if let [_user, words @ ..] = &words.iter().map(String::as_str).collect::<Vec<_>>()[..] {
            return user_command(words, &options);
        }
        Ok(command(Config::read(&options)?))
    }
}

impl Config {
    fn read(options: &Options) -> Result<Config, ConfigError> {
        let limit = |option: &str, default: usize| {
            let wanted = "a whole number, or 0 for no limit";
            let limit = options.read(option, wanted, |text| text.parse().ok())?.pop();
            Ok(if limit == Some(0) { usize::MAX } else { limit.unwrap_or(default) })
        };
        let max_message = limit("max-message", Limits::default().max_message)?;
        if (LARGEST_MESSAGE + 1..usize::MAX).contains(&max_message) {
            return Err(usage(format!("--max-message takes at most {LARGEST_MESSAGE}")));
        }
        let listen = |option: &str, port: u16| {
            let everywhere =
                || vec![(Ipv6Addr::UNSPECIFIED, port).into(), (Ipv4Addr::UNSPECIFIED, port).into()];
            let wanted = "an address and a port, such as 0.0.0.0:8080 or [::1]:8080, or off";
            let addresses = options.read(option, wanted, |text| match text {
                "off" => Some(vec![]),
                address => Some(vec![address.parse().ok()?]),
            });
            Ok(addresses?.pop().unwrap_or_else(everywhere))
        };
        let default = Limits::default();
        let config = Config {
            listen: listen("listen", DEFAULT_PORT)?,
            tls_listen: listen("tls-listen", DEFAULT_TLS_PORT)?,
            tls_required: ["tls-listen", "cert", "key"].iter().any(|option| options.has(option)),
            certificate: CertificateFiles {
                cert: options.path("cert").unwrap_or_else(|| DEFAULT_CERT.into()),
                key: options.path("key").unwrap_or_else(|| DEFAULT_KEY.into()),
            },
            ice_servers: match options.path("ice-servers") {
                None => "[]".into(),
                Some(path) => read_ice_servers(&path).map_err(|problem| {
                    let path = path.display();
                    ConfigError::File(format!("cannot use the ICE servers' file {path}: {problem}"))
                })?,
            },
            turn: turn_options(options)?,
            limits: Limits {
                max_connections: limit("max-connections", default.max_connections)?,
                max_per_ip: limit("max-per-ip", default.max_per_ip)?,
                max_message: max_message.min(LARGEST_MESSAGE),
                max_rate: limit("max-rate", default.max_rate)?,
                max_calls: limit("max-calls", default.max_calls)?,
            },
            users: options.path("users"),
            allow_origin: options.read(
                "allow-origin",
                "an origin, such as https://example.org",
                origin,
            )?,
            trust_proxy: options.read(
                "trust-proxy",
                "an address or a network, such as 127.0.0.1 or 10.0.0.0/8",
                |text| text.parse().ok(),
            )?,
            log: options
                .read("log", "off, error, warn, info, debug or trace", |text| text.parse().ok())?
                .pop()
                .unwrap_or(LevelFilter::Info),
        };
        if config.listen.is_empty() && config.tls_listen.is_empty() {
            return Err(usage("--listen and --tls-listen are both off: there is nothing to do"));
        }
        Ok(config)
    }
}

/// Reads a text file of the operator's, without the byte order mark that some editors put in front.
/// A running server reads some of these again, and must neither wait for a pipe nor run out of memory.
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
    // Without a copy of what may be 1 MiB.
    Ok(if let Some(rest) = text.strip_prefix('\u{feff}') { rest.into() } else { text })
}

fn usage(problem: impl fmt::Display) -> ConfigError {
    ConfigError::Usage(problem.to_string())
}

/// All values that options were given, in order.
struct Options(Vec<Given>);

/// One of them, and where it stood: `--max-rate` or `SIGNAL_MAX_RATE`.
struct Given {
    option: String,
    source: String,
    value: OsString,
}

impl Options {
    /// Adds the variables, each unless an argument says otherwise. One that is set to nothing counts
    /// as not set, as in `SIGNAL_CERT= signal-server`.
    fn add_environment(&mut self, environment: impl Fn(&str) -> Option<OsString>) {
        for option in OPTIONS {
            if self.has(option) {
                continue;
            }
            let source = format!("SIGNAL_{}", option.to_uppercase().replace('-', "_"));
            let value = environment(&source).unwrap_or_default();
            let values = match REPEATABLE.contains(&option) {
                true => value.to_string_lossy().split([',', ' ']).map(OsString::from).collect(),
                false => vec![value],
            };
            for value in values.into_iter().filter(|value| !value.is_empty()) {
                self.0.push(Given { option: option.into(), source: source.clone(), value });
            }
        }
    }

    fn all(&self, option: &str) -> impl DoubleEndedIterator<Item = &Given> {
        self.0.iter().filter(move |given| given.option == option)
    }

    fn has(&self, option: &str) -> bool {
        self.all(option).next().is_some()
    }

    fn path(&self, option: &str) -> Option<PathBuf> {
        self.all(option).next_back().map(|given| PathBuf::from(&given.value))
    }

    /// What `parse` makes of each of an option's values. (Of one that can't be repeated, callers take
    /// the last.) If it makes nothing of one, the error says what is `wanted`.
    fn read<T>(
        &self,
        option: &str,
        wanted: &str,
        parse: impl Fn(&str) -> Option<T>,
    ) -> Result<Vec<T>, ConfigError> {
        let read = |Given { source, value, .. }: &Given| {
            let parsed = value.to_str().and_then(&parse);
            parsed.ok_or_else(|| usage(format!("{source} takes {wanted}, not {value:?}")))
        };
        self.all(option).map(read).collect()
    }
}

/// What comes after the word `user`.
fn user_command(words: &[&str], options: &Options) -> Result<Command, ConfigError> {
    let page = |url: &str| (url.starts_with("http") && !url.contains('#')).then(|| url.to_string());
    let wanted = "the page's address, such as https://call.example.org/";
    let url = options.read("url", wanted, page)?.pop().unwrap_or_else(|| DEFAULT_URL.into());
    let action = match *words {
        ["add", name] => UserAction::Add { name: name.into(), url },
        ["remove", name] => UserAction::Remove(name.into()),
        ["list"] => UserAction::List,
        _ => return Err(usage("user takes: add NAME, remove NAME, or list")),
    };
    match options.path("users") {
        Some(file) => Ok(Command::User(file, action)),
        None => Err(usage("user needs the users file: --users FILE")),
    }
}

/// An origin as browsers write it: scheme, host and, unless it is the usual one, port (RFC 6454).
fn origin(text: &str) -> Option<String> {
    let (scheme, host) = text.split_once("://")?;
    let is_origin = !scheme.is_empty() && !host.is_empty() && !host.contains(['/', '?', '#', '@']);
    is_origin.then(|| text.into())
}

fn turn_url(text: &str) -> Option<String> {
    let host = text.strip_prefix("turn:").or_else(|| text.strip_prefix("turns:"))?;
    let is_host = !host.is_empty() && host.bytes().all(|byte| byte.is_ascii_graphic());
    is_host.then(|| text.into())
}

/// Both or neither: servers with a secret of ours.
fn turn_options(options: &Options) -> Result<Option<TurnOptions>, ConfigError> {
    let wanted = "an address such as turn:turn.example.org:3478";
    let urls: Vec<String> = options.read("turn", wanted, turn_url)?;
    match options.path("turn-secret") {
        None if urls.is_empty() => Ok(None),
        None => {
            Err(usage("--turn needs --turn-secret; servers with a password go into --ice-servers"))
        }
        Some(_) if urls.is_empty() => Err(usage("--turn-secret needs a server: --turn URL")),
        Some(_) if urls.concat().len() > MAX_TURN_URLS => {
            Err(usage(format!("all --turn together take at most {MAX_TURN_URLS} bytes")))
        }
        Some(secret) => Ok(Some(TurnOptions { urls, secret })),
    }
}

/// The file's JSON array, checked as far as `RTCPeerConnection` would refuse it: the operator
/// should hear of it at start, not every user at every call.
fn read_ice_servers(path: &Path) -> Result<String, String> {
    let text = read_file(path).map_err(|error| error.to_string())?;
    let servers: Vec<Value> = serde_json::from_str(&text)
        .map_err(|error| format!("it must be a JSON array of servers: {error}"))?;
    for (index, server) in servers.iter().enumerate() {
        check_ice_server(server).map_err(|problem| format!("entry {index} {problem}"))?;
    }
    Ok(Value::Array(servers).to_string())
}

fn check_ice_server(server: &Value) -> Result<(), String> {
    let urls = match server.get("urls") {
        Some(Value::Array(urls)) if !urls.is_empty() => urls,
        Some(url @ Value::String(_)) => slice::from_ref(url),
        _ => return Err(r#"needs "urls": a string or an array of strings"#.into()),
    };
    for url in urls {
        let (scheme, host) = url.as_str().and_then(|url| url.split_once(':')).unwrap_or_default();
        if !matches!(scheme, "stun" | "stuns" | "turn" | "turns") || host.is_empty() {
            return Err(format!(
                "has the url {url}; it must start with stun:, stuns:, turn: or turns:"
            ));
        }
        let text = |field| server.get(field).is_some_and(Value::is_string);
        if scheme.starts_with("turn") && !(text("username") && text("credential")) {
            return Err(format!(r#"has the url {url}, which needs "username" and "credential""#));
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

    fn both_families(port: u16) -> Vec<SocketAddr> {
        ["[::]", "0.0.0.0"].map(|ip| format!("{ip}:{port}").parse().unwrap()).to_vec()
    }

    #[test]
    fn the_defaults() {
        assert_eq!(
            parse(&[], &[]),
            Config {
                listen: both_families(8080),
                tls_listen: both_families(8443),
                tls_required: false,
                certificate: CertificateFiles {
                    cert: "certs/cert.pem".into(),
                    key: "certs/key.pem".into()
                },
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
    fn any_word_about_tls_makes_it_required() {
        let required = |arguments: &[&str]| parse(arguments, &[]).tls_required;
        assert!(required(&["--cert", "c"]));
        assert!(required(&["--key", "k"]));
        assert!(required(&["--tls-listen", "[::1]:8443"]));
        assert!(!required(&["--listen", "off"]));
        assert!(parse(&["--tls-listen", "off", "--cert", "c"], &[]).tls_listen.is_empty());
        assert!(parse(&[], &[("SIGNAL_CERT", "c")]).tls_required);
    }

    #[test]
    fn an_argument_wins_over_the_environment_and_the_last_one_over_the_first() {
        let environment = [("SIGNAL_LOG", "warn"), ("SIGNAL_LISTEN", "off")];
        assert_eq!(parse(&[], &environment).log, LevelFilter::Warn);
        assert_eq!(parse(&[], &environment).listen, []);
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
        let code: String = include_str!("config.rs").split_whitespace().collect();
        for option in OPTIONS {
            assert!(HELP.contains(&format!("--{option} ")), "{option}");
            let calls = ["read", "path", "limit", "listen"];
            let is_read = |call| code.contains(&format!("{call}(\"{option}\""));
            assert!(calls.into_iter().any(is_read), "{option}");
        }
    }

    #[test]
    fn both_listeners_off_is_refused() {
        let arguments = ["--listen", "off", "--tls-listen", "off"].map(Into::into);
        assert!(matches!(Command::parse(arguments, |_| None), Err(ConfigError::Usage(_))));
    }
}
