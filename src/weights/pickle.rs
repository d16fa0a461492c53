//! What `torch.save` writes (`*.bin`, `*.pt`, `*.pth`), read while the bytes arrive: a pickle that names tensors, and their numbers.
//!
//! A pickle is a program. [`machine`] runs only the part of it that builds data, knows the four functions that a state dict
//! is made with, and refuses whatever else a pickle wants to call by its name. The rest follows the file from front to back:
//! [`zip`] for files since torch 1.6, [`legacy`] for older ones, and [`tensors`] for what the storages hold. Every refusal names
//! its rule.

mod legacy;
mod machine;
mod tensors;
mod zip;

use super::{Refusal, Sink, fill};
use crate::error::Result;

enum Form {
    /// The first bytes.
    Unknown(Vec<u8>),
    Zip(zip::Walk),
    Legacy(legacy::Walk),
}

/// A parser to push bytes into, in chunks of any size.
pub struct Reader {
    file: String,
    form: Form,
}

impl Reader {
    /// A reader for a file whose name appears in errors.
    pub fn new(file: &str) -> Self {
        Self { file: file.to_owned(), form: Form::Unknown(Vec::new()) }
    }

    /// Takes the next bytes of the file and gives each tensor that is complete to `sink`.
    pub fn push(&mut self, mut chunk: &[u8], sink: &mut impl Sink) -> Result<()> {
        if let Form::Unknown(start) = &mut self.form {
            if !fill(start, &mut chunk, 4) {
                return Ok(());
            }
            let start = std::mem::take(start);
            self.form = match start[..] {
                [b'P', b'K', 3, 4] => Form::Zip(zip::Walk::new()),
                [0x80, 2..=5, ..] => Form::Legacy(legacy::Walk::new()),
                _ => {
                    let message = "the file begins with neither a zip entry nor a pickle; torch.save did not write it";
                    return Err(Refusal::new("magic", message).at(&self.file));
                }
            };
            self.push(&start, sink)?;
        }
        match &mut self.form {
            Form::Unknown(_) => Ok(()),
            Form::Zip(walk) => walk.push(&self.file, chunk, sink),
            Form::Legacy(walk) => walk.push(&self.file, chunk, sink),
        }
    }

    /// Checks that the file was whole.
    pub fn finish(self) -> Result<()> {
        match &self.form {
            Form::Unknown(_) => Err(Refusal::new("truncated", "the file ends at its beginning").at(&self.file)),
            Form::Zip(walk) => walk.finish(&self.file),
            Form::Legacy(walk) => walk.finish(&self.file),
        }
    }
}
