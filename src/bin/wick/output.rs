//! Where results go: standard output, a device as they come, or a file that appears whole or not at
//! all.

use std::{
    fs::{self, File, OpenOptions},
    io::{self, BufWriter, ErrorKind, Seek, StdoutLock, Write},
    path::{Path, PathBuf},
};

use wick_embed::{Code, Error, Result};

use crate::input::file_error;

/// A place for results, open for writing.
pub struct Target {
    /// As errors name it.
    at: PathBuf,
    out: Out,
    /// Where a file is written until it is whole.
    beside: Option<Beside>,
}

enum Out {
    Stdout(BufWriter<StdoutLock<'static>>),
    File(BufWriter<File>),
}

impl Target {
    /// Opens a file, or standard output. A file is written beside its place, where what was there
    /// stays until the new one is whole. What cannot be written to is an error now.
    pub fn open(path: Option<&Path>) -> Result<Self> {
        let Some(path) = path else {
            return Self::stdout();
        };
        let at = path.to_owned();
        let (file, beside) = match fs::metadata(path) {
            Ok(found) if found.is_dir() => {
                return Err(Error::new(Code::Io, path.display().to_string(), "it is a folder"));
            }
            // A device or a pipe, which nothing can be moved over.
            Ok(found) if !found.is_file() => {
                (OpenOptions::new().write(true).open(path).map_err(file_error(path))?, None)
            }
            // Through links: it is the file that is replaced, and not a link to it.
            found => {
                let place = found.and_then(|_| path.canonicalize()).unwrap_or_else(|_| at.clone());
                let (file, beside) = Beside::create(place)?;
                (file, Some(beside))
            }
        };
        Ok(Self { at, out: Out::File(BufWriter::new(file)), beside })
    }

    fn stdout() -> Result<Self> {
        let at = PathBuf::from("standard output");
        if leads_nowhere() {
            let message = "it is closed, or /dev/null opened for reading too: nothing would be kept; name --output";
            return Err(Error::new(Code::Io, at.display().to_string(), message));
        }
        Ok(Self { at, out: Out::Stdout(BufWriter::new(io::stdout().lock())), beside: None })
    }

    /// Writes a part, and hands it on at once. `false` when whoever read it has left and no more is
    /// wanted.
    pub fn write(&mut self, write: impl FnOnce(&mut dyn Write) -> io::Result<()>) -> Result<bool> {
        let out: &mut dyn Write = match &mut self.out {
            Out::Stdout(out) => out,
            Out::File(out) => out,
        };
        match write(out).and_then(|()| out.flush()) {
            Ok(()) => Ok(true),
            Err(error) if error.kind() == ErrorKind::BrokenPipe => Ok(false),
            Err(error) => Err(file_error(&self.at)(error)),
        }
    }

    /// Goes back to the beginning; an error where that cannot be.
    pub fn rewind(&mut self) -> Result<()> {
        let rewound = match &mut self.out {
            Out::Stdout(_) => Err(ErrorKind::NotSeekable.into()),
            Out::File(out) => out.rewind(),
        };
        rewound.map_err(file_error(&self.at))
    }

    /// Puts a file in its place.
    pub fn finish(self) -> Result<()> {
        match (self.out, self.beside) {
            (Out::File(out), Some(beside)) => {
                let file = out.into_inner().map_err(|error| file_error(&self.at)(error.into_error()))?;
                beside.finish(&file).map_err(file_error(&self.at))
            }
            _ => Ok(()),
        }
    }
}

/// A file under way, which goes when it is dropped before its end. A program that is killed leaves
/// it, under a name that says what it is.
struct Beside {
    place: PathBuf,
    work: PathBuf,
}

impl Beside {
    fn create(place: PathBuf) -> Result<(File, Self)> {
        let Some(name) = place.file_name() else {
            return Err(Error::new(Code::Io, place.display().to_string(), "the path ends in no name"));
        };
        let work = place.with_file_name(format!("{}.{}.part", name.to_string_lossy(), std::process::id()));
        // Of a program that was killed and had the same number.
        let _ = fs::remove_file(&work);
        let file = File::create_new(&work).map_err(file_error(&place))?;
        Ok((file, Self { place, work }))
    }

    fn finish(self, file: &File) -> io::Result<()> {
        if let Ok(found) = fs::metadata(&self.place) {
            file.set_permissions(found.permissions())?;
        }
        // Some file systems say only now that they are full.
        file.sync_all()?;
        fs::rename(&self.work, &self.place)
    }
}

impl Drop for Beside {
    fn drop(&mut self) {
        // Once it was moved there is nothing left to remove.
        let _ = fs::remove_file(&self.work);
    }
}

/// Whether standard output was closed when the program started. Rust's runtime then opens /dev/null
/// in its place, for reading and writing; a shell's `>/dev/null` is for writing alone. Known on
/// Linux; elsewhere it is never so.
fn leads_nowhere() -> bool {
    let is_null = || fs::read_link("/proc/self/fd/1").is_ok_and(|path| path == Path::new("/dev/null"));
    let is_read_too = || {
        let info = fs::read_to_string("/proc/self/fdinfo/1").ok()?;
        let flags = info.lines().find_map(|line| line.strip_prefix("flags:"))?;
        Some(i64::from_str_radix(flags.trim(), 8).ok()? & 3 == 2)
    };
    is_null() && is_read_too() == Some(true)
}

/// Prints a line for whoever reads it; nobody may.
pub fn say(line: &str) -> Result<()> {
    match writeln!(io::stdout(), "{line}") {
        Err(error) if error.kind() != ErrorKind::BrokenPipe => Err(file_error(Path::new("standard output"))(error)),
        _ => Ok(()),
    }
}
