//! PeerJS with a bare client: the protocol rule by rule in `wire.rs`, attacks on it in `hostile.rs`.

#[path = "../common/mod.rs"]
mod common;
mod client;
mod hostile;
mod wire;

use std::process::ExitCode;

use libtest_mimic::Arguments;

/// A trial named for a function, for each function of this list and kind of connection.
#[macro_export]
macro_rules! trials {
    ($($name:ident)*) => {
        pub fn trials() -> Vec<libtest_mimic::Trial> {
            let mut trials = Vec::new();
            for (scheme, link) in [("plain", Link::Plain), ("tls", Link::Tls)] {
                $(
                    let name = concat!(module_path!(), "::", stringify!($name));
                    let name = name.replace("peerjs::", &format!("{scheme}::"));
                    trials.push(libtest_mimic::Trial::test(name, move || {
                        $name(link);
                        Ok(())
                    }));
                )*
            }
            trials
        }
    };
}

fn main() -> ExitCode {
    let mut trials = wire::trials();
    trials.extend(hostile::trials());
    libtest_mimic::run(&Arguments::from_args(), trials).exit_code()
}
