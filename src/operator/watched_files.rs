//! A value that is parsed from the operator's files, and parsed again when these files change.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Instant;

use log::warn;
use parking_lot::Mutex;

use crate::limits::{FILE_CHECK_INTERVAL, MAX_FILE};

/// A file or a pair of files, and the value that `parse` last made from them.
pub struct WatchedFiles<T> {
    paths: Vec<PathBuf>,
    parse: fn(&[TextFile]) -> Result<T, String>,
    state: Mutex<State<T>>,
}

/// A file as it was read.
#[derive(PartialEq)]
pub struct TextFile {
    /// Where it is.
    pub path: PathBuf,
    /// All of its text.
    pub text: String,
}

struct State<T> {
    value: Arc<T>,
    /// What the last check read. Contents are compared, because times and sizes can stay equal.
    contents: Result<Vec<TextFile>, String>,
    /// When the last check began to read.
    checked: Instant,
}

impl<T> WatchedFiles<T> {
    /// Reads the files for the first time.
    ///
    /// # Errors
    /// A sentence for the operator: a file can't be read, or `parse` refuses it.
    pub fn open(
        paths: &[&Path],
        parse: fn(&[TextFile]) -> Result<T, String>,
    ) -> Result<Self, String> {
        let paths: Vec<PathBuf> = paths.iter().map(PathBuf::from).collect();
        let checked = Instant::now();
        let contents = read_all(&paths)?;
        let value = Arc::new(parse(&contents)?);
        let state = Mutex::new(State { value, contents: Ok(contents), checked });
        Ok(WatchedFiles { paths, parse, state })
    }

    /// The value of the files as they were at most [`FILE_CHECK_INTERVAL`] before this call. Files
    /// that can't be read or parsed leave the last good value in use, and the log says why.
    pub fn get(&self) -> Arc<T> {
        let asked = Instant::now();
        // One thread reads the files with the lock held, and the others wait. A thread that took the
        // old value instead could admit a user who has just been removed.
        let mut state = self.state.lock();
        if asked.saturating_duration_since(state.checked) >= FILE_CHECK_INTERVAL {
            state.checked = Instant::now();
            let contents = read_all(&self.paths);
            if contents != state.contents {
                match contents.as_deref().map_err(String::clone).and_then(self.parse) {
                    Ok(value) => state.value = Arc::new(value),
                    Err(problem) => warn!("{problem}; the last good version stays in use"),
                }
                state.contents = contents;
            }
        }
        state.value.clone()
    }
}

fn read_all(paths: &[PathBuf]) -> Result<Vec<TextFile>, String> {
    let read = |path: &PathBuf| Ok(TextFile { path: path.clone(), text: read_file(path)? });
    paths.iter().map(read).collect()
}

/// Reads a text file of the operator's, without the byte order mark that some editors put in front.
/// Refuses pipes and large files, so that a running server neither waits for ever nor runs out of
/// memory.
///
/// # Errors
/// A sentence for the operator: the file can't be read, is no ordinary file, is larger than
/// [`MAX_FILE`], or is not UTF-8.
pub fn read_file(path: &Path) -> Result<String, String> {
    let read = || {
        let file = fs::metadata(path)?;
        if !file.is_file() || file.len() > MAX_FILE {
            return Err(io::Error::other(format!(
                "not an ordinary file of at most {MAX_FILE} bytes"
            )));
        }
        fs::read_to_string(path)
    };
    let text = read().map_err(|error| format!("cannot read {}: {error}", path.display()))?;
    Ok(text.trim_start_matches('\u{feff}').into())
}
