//! Clients of other projects: Python's `websockets` and Node's `ws`, over `ws://` and `wss://`.
//!
//! `interop/client.py` and `interop/client.mjs` have one function a behaviour. Each function is a test
//! here, with a server of its own. `certs/generate.sh` makes the certificate, and the clients check it.
//!
//! A test that lacks its library is reported as ignored. With `CI` set it fails instead.

mod common;

use std::env;
use std::fs;
use std::io::{BufRead, BufReader};
use std::path::Path;
use std::process::{Command, ExitCode, Stdio};
use std::sync::LazyLock;

use common::{Certificate, Link, Server};
use libtest_mimic::{Arguments, Failed, Trial};

/// What each script can do, under the same names.
const BEHAVIOURS: [&str; 10] = [
    "a_call_arrives_byte_for_byte",
    "a_taken_name_is_refused_while_its_holder_lives",
    "an_unknown_user_is_an_error_to_the_sender",
    "the_first_subprotocol_is_echoed",
    "a_partner_hears_leave_when_a_client_dies",
    "pings_are_answered",
    "a_close_is_answered_with_1000",
    "a_stopping_server_closes_with_1001",
    "a_message_of_60_kb_arrives",
    "compression_is_declined",
];

/// A library of another language, and how to run a script with it.
struct Library {
    name: &'static str,
    interpreter: String,
    script: &'static str,
    /// Arguments that end well only where the library is there.
    probe: [&'static str; 2],
    install: &'static str,
}

static LIBRARIES: LazyLock<[Library; 2]> = LazyLock::new(|| {
    [
        Library {
            name: "python_websockets",
            interpreter: env::var("PYTHON").unwrap_or("python3".into()),
            script: "client.py",
            probe: ["-c", "import websockets"],
            install: "python3 -m venv VENV && VENV/bin/pip install websockets, \
                      and set PYTHON=VENV/bin/python",
        },
        Library {
            name: "node_ws",
            interpreter: "node".into(),
            script: "client.mjs",
            probe: ["--eval", "require('ws')"],
            install: "npm ci --prefix tests/interop",
        },
    ]
});

impl Library {
    fn command(&self) -> Command {
        let mut command = Command::new(&self.interpreter);
        // Node looks for packages from here on upwards.
        command.current_dir(Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/interop"));
        command
    }

    fn is_there(&self) -> bool {
        let probe = self.command().args(self.probe).stderr(Stdio::null()).status();
        probe.is_ok_and(|status| status.success())
    }

    /// Runs one behaviour of the script against a new server.
    fn run(&self, behaviour: &str, link: Link) -> Result<(), Failed> {
        let server = Server::start_with(&GENERATED.options());
        let url = match link {
            Link::Plain => format!("ws://{}/", server.address(link)),
            Link::Tls => format!("wss://localhost:{}/", server.tls_port()),
        };
        let mut script = self
            .command()
            .args([self.script, behaviour, &url])
            .arg(&GENERATED.cert)
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .map_err(|error| format!("{}: {error}", self.interpreter))?;
        // The one thing a script can ask for: that the server stops under it. It ends by itself,
        // after 20 s at the latest.
        for line in BufReader::new(script.stdout.take().unwrap()).lines() {
            if line? == "ready" {
                server.signal("TERM");
            }
        }
        let output = script.wait_with_output()?;
        if output.status.success() {
            return Ok(());
        }
        let stderr = String::from_utf8_lossy(&output.stderr);
        Err(format!("{stderr}\n---- the server's log ----\n{}", server.log()).into())
    }
}

/// What `certs/generate.sh` makes, in a folder of this test.
static GENERATED: LazyLock<Certificate> = LazyLock::new(|| {
    let folder = common::scratch("interop");
    let script = folder.join("generate.sh");
    fs::copy(concat!(env!("CARGO_MANIFEST_DIR"), "/certs/generate.sh"), &script).unwrap();
    let output = Command::new("sh").arg(&script).arg("--force").output().unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    Certificate { cert: folder.join("cert.pem"), key: folder.join("key.pem") }
});

fn main() -> ExitCode {
    let arguments = Arguments::from_args();
    let must_run = env::var_os("CI").is_some_and(|value| !value.is_empty());
    let mut trials = Vec::new();
    for library in LIBRARIES.iter() {
        let left_out = !must_run && !library.is_there();
        if left_out {
            eprintln!("{} is left out; to install it: {}", library.name, library.install);
        }
        for behaviour in BEHAVIOURS {
            for link in [Link::Plain, Link::Tls] {
                let scheme = if link == Link::Plain { "ws" } else { "wss" };
                let name = format!("{}::{scheme}::{behaviour}", library.name);
                let trial = Trial::test(name, move || library.run(behaviour, link));
                trials.push(trial.with_ignored_flag(left_out));
            }
        }
    }
    libtest_mimic::run(&arguments, trials).exit_code()
}
