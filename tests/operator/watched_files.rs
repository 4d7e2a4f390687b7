//! A watched file that one thread reads while another thread asks for its value.

use std::fs;
use std::sync::{Arc, Barrier, mpsc};
use std::thread;
use std::time::{Duration, Instant};

use crate::common::{PATIENCE, scratch};
use signal_server::limits::FILE_CHECK_INTERVAL;
use signal_server::operator::watched_files::{TextFile, WatchedFiles};

static READING: Barrier = Barrier::new(2);
static GO_ON: Barrier = Barrier::new(2);

/// Parses the text "new" for as long as the test wants.
fn parse(files: &[TextFile]) -> Result<String, String> {
    if files[0].text == "new" {
        READING.wait();
        GO_ON.wait();
    }
    Ok(files[0].text.clone())
}

/// Or a user whose token was removed would be admitted while another login reads the file.
#[test]
fn who_asks_while_another_thread_reads_waits_for_the_new_value() {
    let path = scratch("being read").join("file");
    fs::write(&path, "old").unwrap();
    let opened = Instant::now();
    let files = Arc::new(WatchedFiles::open(&[&path], parse).unwrap());
    assert_eq!(*files.get(), "old");
    fs::write(&path, "new").unwrap();
    // The first one who asks after the interval reads.
    thread::sleep((opened + FILE_CHECK_INTERVAL).saturating_duration_since(Instant::now()));
    let (answer, answers) = mpsc::channel();
    let ask = || {
        let (files, answer) = (files.clone(), answer.clone());
        thread::spawn(move || answer.send(files.get().to_string()).unwrap())
    };
    let reader = ask();
    READING.wait();
    let other = ask();
    // A wrong answer comes at once.
    let early = answers.recv_timeout(Duration::from_millis(200));
    GO_ON.wait();
    assert!(early.is_err(), "got {early:?} while the file was being read");
    for thread in [reader, other] {
        assert_eq!(answers.recv_timeout(PATIENCE).unwrap(), "new");
        thread.join().unwrap();
    }
}
