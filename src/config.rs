//! Arguments and environment to a [`Config`]. Reads the ICE servers' file; opens nothing else.
//!
//! An argument wins over the environment, and that over the default.

use std::ffi::OsString;
use std::fmt;
use std::fs;
use std::net::{Ipv6Addr, SocketAddr};
use std::path::PathBuf;
use std::str::FromStr;

use log::LevelFilter;
use serde_json::Value;

/// The port of `ws://` and the page unless `--listen` says otherwise.
const DEFAULT_PORT: u16 = 8080;
/// The port of `wss://` and the page unless `--tls-listen` says otherwise.
const DEFAULT_TLS_PORT: u16 = 8443;
const DEFAULT_CERT: &str = "certs/cert.pem";
const DEFAULT_KEY: &str = "certs/key.pem";

/// What `--help` prints.
pub const HELP: &str = "\
A WebRTC signaling server with its own call page.

Usage: signal-server [OPTIONS]

Options:
  --listen ADDR        address and port for ws:// and http://; off for none
                       [default: [::]:8080, IPv4 as well]
  --tls-listen ADDR    address and port for wss:// and https://; off for none
                       [default: [::]:8443, if there is a certificate]
  --cert FILE          the TLS certificate, PEM, with its chain [default: certs/cert.pem]
  --key FILE           its private key, PKCS#8 PEM [default: certs/key.pem]
  --ice-servers FILE   STUN and TURN servers for the call page: a JSON array as
                       RTCPeerConnection takes it [default: none, enough for a LAN]
  --log LEVEL          off, error, warn, info, debug or trace [default: info]
  --help               print this
  --version            print the version

An option can also be set in the environment: SIGNAL_LISTEN, SIGNAL_TLS_LISTEN,
SIGNAL_CERT, SIGNAL_KEY, SIGNAL_ICE_SERVERS, SIGNAL_LOG.
";

/// What the command line asks for.
#[derive(Debug)]
pub enum Command {
    /// Serve.
    Run(Config),
    /// Print [`HELP`].
    Help,
    /// Print the version.
    Version,
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
    /// The least important lines that are still logged.
    pub log: LevelFilter,
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
        // A variable that is set to nothing counts as not set, as in `SIGNAL_CERT= signal-server`.
        let variable = |name: &str| {
            environment(name).filter(|value| !value.is_empty()).map(|value| (name.into(), value))
        };
        let mut listen = variable("SIGNAL_LISTEN");
        let mut tls_listen = variable("SIGNAL_TLS_LISTEN");
        let mut cert = variable("SIGNAL_CERT");
        let mut key = variable("SIGNAL_KEY");
        let mut ice_servers = variable("SIGNAL_ICE_SERVERS");
        let mut log = variable("SIGNAL_LOG");

        let mut parser = lexopt::Parser::from_args(arguments);
        while let Some(argument) = parser.next().map_err(usage)? {
            use lexopt::prelude::*;
            let (name, option) = match argument {
                Long("help") | Short('h') => return Ok(Command::Help),
                Long("version") | Short('V') => return Ok(Command::Version),
                Long("listen") => ("--listen", &mut listen),
                Long("tls-listen") => ("--tls-listen", &mut tls_listen),
                Long("cert") => ("--cert", &mut cert),
                Long("key") => ("--key", &mut key),
                Long("ice-servers") => ("--ice-servers", &mut ice_servers),
                Long("log") => ("--log", &mut log),
                unknown => return Err(usage(unknown.unexpected())),
            };
            *option = Some((name.to_string(), parser.value().map_err(usage)?));
        }

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
            listen: listen_value(listen, DEFAULT_PORT)?,
            tls,
            ice_servers: ice_servers.map_or_else(|| Ok("[]".into()), read_ice_servers)?,
            log: log.map_or(Ok(LevelFilter::Info), |given| parse_value(given, LOG_LEVELS))?,
        };
        if config.listen == Listen::Off && config.tls == Tls::Off {
            return Err(ConfigError::Usage(
                "--listen and --tls-listen are both off: there is nothing to do".into(),
            ));
        }
        Ok(Command::Run(config))
    }
}

/// The option or variable that a value came from, and the value.
type Given = (String, OsString);

const LOG_LEVELS: &str = "off, error, warn, info, debug or trace";
const ADDRESSES: &str = "an address and a port, such as 0.0.0.0:8080 or [::1]:8080, or off";

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

fn parse_value<T: FromStr>((name, value): Given, wanted: &str) -> Result<T, ConfigError> {
    value
        .to_str()
        .and_then(|text| text.parse().ok())
        .ok_or_else(|| ConfigError::Usage(format!("{name} takes {wanted}, not {value:?}")))
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

/// The file's JSON array, checked as far as `RTCPeerConnection` would refuse it: the operator
/// should hear of it at start, not every user at every call.
fn read_ice_servers((name, path): Given) -> Result<String, ConfigError> {
    let path = PathBuf::from(path);
    let wrong =
        |reason: String| ConfigError::File(format!("{name} file {}: {reason}", path.display()));
    let text = fs::read_to_string(&path).map_err(|error| wrong(error.to_string()))?;
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
    fn both_listeners_off_is_refused() {
        let arguments = ["--listen", "off", "--tls-listen", "off"].map(Into::into);
        assert!(matches!(Command::parse(arguments, |_| None), Err(ConfigError::Usage(_))));
    }
}
