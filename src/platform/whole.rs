//! Files that are read whole: all but the weights.

use super::Body;
use crate::error::{Code, Error, Result};

/// Most bytes of a file, by the end of its name; the first that fits counts. What a file is parsed
/// into takes up to some sixteen times its bytes, so that a limit is a few times the largest file
/// that is known of its kind.
const LIMITS: [(&str, usize); 6] = [
    // EmbeddingGemma's has 33 MB.
    ("tokenizer.json", 64 << 20),
    // Gemma 3's has 1.2 MB, of added tokens.
    ("tokenizer_config.json", 4 << 20),
    // LaBSE's has 5 MB.
    ("vocab.txt", 16 << 20),
    // A thousand tensors take 100 kB.
    (".index.json", 4 << 20),
    // Weights are read whole for the second opinion alone, which candle-transformers computes.
    (".safetensors", 1 << 30),
    // A classifier's list of a thousand labels takes 50 kB.
    ("", 1 << 20),
];

/// Most bytes of a file of this name.
fn most_bytes(file: &str) -> usize {
    LIMITS.iter().find(|(end, _)| file.ends_with(end)).map_or(0, |&(_, most)| most)
}

/// Reads a body to its end, and tells how many bytes came each time. A file that is too large for
/// its kind is refused, where its length is known before the first byte.
pub async fn whole<B: Body>(file: &str, mut body: B, mut came: impl FnMut(usize) -> Result<()>) -> Result<Vec<u8>> {
    let most = most_bytes(file);
    let refused = || {
        let message = format!("the file has more than {most} bytes, which is more than any of its kind");
        Error::new(Code::InvalidConfig, file, message)
    };
    // Of a body that comes compressed the length is not known, or wrong.
    let length = body.length().unwrap_or(0);
    if length > most as u64 {
        return Err(refused());
    }
    let mut bytes = Vec::new();
    if bytes.try_reserve_exact(length as usize).is_err() {
        return Err(Error::new(Code::OutOfMemory, file, format!("no memory for {length} bytes")));
    }
    while let Some(chunk) = body.chunk().await? {
        if chunk.len() > most - bytes.len() {
            return Err(refused());
        }
        bytes.extend_from_slice(chunk);
        came(chunk.len())?;
    }
    Ok(bytes)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::platform::native::block_on;

    /// So many zeros, of which more or fewer may be announced.
    struct Zeros {
        announced: Option<u64>,
        left: usize,
        chunk: Vec<u8>,
    }

    impl Body for Zeros {
        fn length(&self) -> Option<u64> {
            self.announced
        }

        async fn chunk(&mut self) -> Result<Option<&[u8]>> {
            self.chunk.resize(self.left.min(1 << 16), 0);
            self.left -= self.chunk.len();
            Ok((!self.chunk.is_empty()).then_some(&self.chunk))
        }
    }

    #[test]
    fn each_kind_of_file_has_a_limit_that_holds_whatever_was_announced() {
        for (file, most) in [
            ("config.json", 1 << 20),
            ("1_Pooling/config.json", 1 << 20),
            ("modules.json", 1 << 20),
            ("tokenizer_config.json", 4 << 20),
            ("0_StaticEmbedding/tokenizer.json", 64 << 20),
            ("pytorch_model.bin.index.json", 4 << 20),
        ] {
            for announced in [None, Some(0), Some(most as u64)] {
                let mut came = 0;
                let read = |left: usize, came: &mut usize| {
                    let body = Zeros { announced, left, chunk: Vec::new() };
                    block_on(whole(file, body, |count| {
                        *came += count;
                        Ok(())
                    }))
                };
                assert_eq!(read(most, &mut came).expect("as large as it may be").len(), most);
                assert_eq!(came, most);
                let error = read(most + 1, &mut came).expect_err("too large");
                assert_eq!((error.code(), error.at()), (Code::InvalidConfig, file));
            }
            let mut body = Zeros { announced: Some(most as u64 + 1), left: 1, chunk: Vec::new() };
            assert!(block_on(whole(file, body, |_| panic!("a byte was read"))).is_err());
            body = Zeros { announced: Some(u64::MAX), left: 1, chunk: Vec::new() };
            assert!(block_on(whole(file, body, |_| panic!("a byte was read"))).is_err());
        }
    }
}
