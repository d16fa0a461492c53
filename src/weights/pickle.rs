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
    pub fn push(&mut self, mut chunk: &[u8], sink: &mut dyn Sink) -> Result<()> {
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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        error::Code,
        weights::collect::{self, Collect},
    };

    fn read(bytes: &[u8], size: usize) -> Result<Collect> {
        collect::read("model.bin", bytes, size)
    }

    fn text(text: &str) -> Vec<u8> {
        [b"X", &(text.len() as u32).to_le_bytes()[..], text.as_bytes()].concat()
    }

    fn int(number: i32) -> Vec<u8> {
        [b"J", &number.to_le_bytes()[..]].concat()
    }

    fn ints(numbers: &[i32]) -> Vec<u8> {
        [b"(".to_vec(), numbers.iter().flat_map(|&number| int(number)).collect(), b"t".to_vec()].concat()
    }

    /// What stands for a storage.
    fn storage(class: &str, key: &str, count: i32) -> Vec<u8> {
        let class = format!("ctorch\n{class}\n").into_bytes();
        [b"(".to_vec(), text("storage"), class, text(key), text("cpu"), int(count), b"tQ".to_vec()].concat()
    }

    /// A name and its tensor.
    fn tensor(name: &str, storage: &[u8], offset: i32, shape: &[i32], strides: &[i32]) -> Vec<u8> {
        let rebuild = b"ctorch._utils\n_rebuild_tensor_v2\n(".to_vec();
        let rest = b"\x89ccollections\nOrderedDict\n)RtR".to_vec();
        [text(name), rebuild, storage.to_vec(), int(offset), ints(shape), ints(strides), rest].concat()
    }

    fn dict(items: &[Vec<u8>]) -> Vec<u8> {
        [b"\x80\x02}(".to_vec(), items.concat(), b"u.".to_vec()].concat()
    }

    const FLAGS: u16 = 0x0808;

    /// An entry with its descriptor, sizes written nowhere else.
    fn entry(name: &str, data: &[u8]) -> Vec<u8> {
        let size = (data.len() as u32).to_le_bytes();
        let descriptor = [b"PK\x07\x08\0\0\0\0", &size[..], &size].concat();
        [header(name, FLAGS, 0, 0, b"FB\x02\0ZZ"), data.to_vec(), descriptor].concat()
    }

    fn header(name: &str, flags: u16, method: u16, size: u32, extra: &[u8]) -> Vec<u8> {
        let length = |bytes: &[u8]| (bytes.len() as u16).to_le_bytes();
        let size = size.to_le_bytes();
        [
            b"PK\x03\x04\0\0",
            &flags.to_le_bytes()[..],
            &method.to_le_bytes(),
            &[0; 8],
            &size,
            &size,
            &length(name.as_bytes()),
            &length(extra),
            name.as_bytes(),
            extra,
        ]
        .concat()
    }

    /// As good as a directory.
    fn directory() -> Vec<u8> {
        [b"PK\x01\x02 the directory ".to_vec(), b"PK\x05\x06".to_vec(), vec![0; 18]].concat()
    }

    fn file(entries: &[Vec<u8>]) -> Vec<u8> {
        [entries.concat(), directory()].concat()
    }

    fn zip(pickle: &[u8], storages: &[(&str, &[u8])]) -> Vec<u8> {
        let mut entries = vec![entry("m/data.pkl", pickle), entry("m/byteorder", b"little")];
        entries.extend(storages.iter().map(|(key, data)| entry(&format!("m/data/{key}"), data)));
        file(&entries)
    }

    fn floats(values: &[f32]) -> Vec<u8> {
        values.iter().flat_map(|value| value.to_le_bytes()).collect()
    }

    const SIX: [f32; 6] = [0.0, 1.0, 2.0, 3.0, 4.0, 5.0];

    /// One storage with all kinds of views, an empty one, and one that is not wanted and no weight.
    fn several() -> Vec<u8> {
        let (six, none) = (storage("FloatStorage", "0", 6), storage("HalfStorage", "1", 0));
        let pickle = dict(&[
            tensor("whole", &six, 0, &[2, 3], &[3, 1]),
            tensor("tied", &six, 0, &[6], &[1]),
            tensor("turned", &six, 0, &[3, 2], &[1, 3]),
            tensor("tail", &six, 4, &[2], &[1]),
            tensor("one", &six, 5, &[], &[]),
            tensor("empty", &none, 0, &[0, 4], &[4, 1]),
            tensor("skip.mask", &storage("BoolStorage", "2", 3), 0, &[3], &[1]),
            [text("steps"), int(3)].concat(),
        ]);
        zip(&pickle, &[("0", &floats(&SIX)), ("1", &[]), ("2", &[1, 0, 1])])
    }

    fn plain() -> Vec<u8> {
        dict(&[tensor("a", &storage("FloatStorage", "0", 2), 0, &[2], &[1])])
    }

    /// The pickles before the object in the old form.
    fn start() -> Vec<u8> {
        let system = [b"\x80\x02}(".to_vec(), text("little_endian"), b"\x88u.".to_vec()].concat();
        [b"\x80\x02\x8a\x0a\x6c\xfc\x9c\x46\xf9\x20\x6a\xa8\x50\x19.\x80\x02M\xe9\x03.".to_vec(), system].concat()
    }

    fn keys(keys: &[&str]) -> Vec<u8> {
        let keys: Vec<u8> = keys.iter().flat_map(|key| text(key)).collect();
        [b"\x80\x02](".to_vec(), keys, b"e.".to_vec()].concat()
    }

    fn legacy(count: u64) -> Vec<u8> {
        [start(), plain(), keys(&["0"]), count.to_le_bytes().to_vec(), floats(&SIX[..2])].concat()
    }

    /// A file of one storage, and many tensors that all lie in it in the same way.
    fn shared(numbers: i32, count: usize, shape: &[i32], strides: &[i32]) -> Vec<u8> {
        let store = storage("FloatStorage", "0", numbers);
        let tensors: Vec<_> = (0..count).map(|index| tensor(&index.to_string(), &store, 0, shape, strides)).collect();
        zip(&dict(&tensors), &[("0", &vec![0; 4 * numbers as usize])])
    }

    #[test]
    fn small_tensors_may_be_shared_by_many_and_large_ones_by_a_few() {
        assert_eq!(read(&shared(64, 1000, &[64], &[1]), 4096).expect("a valid file").tensors.len(), 1000);
        assert_eq!(read(&shared(1 << 20, 8, &[1 << 20], &[1]), 1 << 16).expect("a valid file").tensors.len(), 8);
    }

    #[test]
    fn any_chunking_gives_the_same_tensors() {
        let bytes = several();
        for size in (1..100).chain([bytes.len()]) {
            let sink = read(&bytes, size).expect("a valid file");
            assert_eq!(sink.tensors["whole"], SIX, "chunks of {size}");
            assert_eq!(sink.tensors["tied"], SIX);
            assert_eq!(sink.tensors["turned"], [0.0, 3.0, 1.0, 4.0, 2.0, 5.0]);
            assert_eq!(sink.tensors["tail"], [4.0, 5.0]);
            assert_eq!(sink.tensors["one"], [5.0]);
            assert_eq!(sink.tensors["empty"], [0f32; 0]);
            assert_eq!((sink.tensors.len(), sink.infos.len()), (6, 7));
            assert_eq!(read(&legacy(2), size).expect("a valid file").tensors["a"], [0.0, 1.0]);
        }
    }

    #[test]
    fn sizes_may_stand_in_front_or_behind_and_have_64_bits() {
        let data = floats(&SIX[..2]);
        let size = 8u64.to_le_bytes();
        let long = [b"PK\x07\x08\0\0\0\0".to_vec(), size.to_vec(), size.to_vec()].concat();
        let elsewhere = [b"\x01\0\x10\0".to_vec(), size.to_vec(), size.to_vec()].concat();
        let none = [b"PK\x07\x08\0\0\0\0".to_vec(), vec![0; 16]].concat();
        let forms = [
            [header("m/data/0", 0, 0, 8, &[]), data.clone()].concat(),
            [header("m/data/0", FLAGS, 0, 8, &[]), data.clone(), long.clone()].concat(),
            [header("m/data/0", FLAGS, 0, 0, &[]), data.clone(), long].concat(),
            [header("m/data/0", 0, 0, u32::MAX, &[b"FB\x01\0Z".to_vec(), elsewhere].concat()), data].concat(),
        ];
        for storage in forms {
            // Descriptors of nothing look the same in both forms.
            let empty = [header("m/version", FLAGS, 0, 0, &[]), none.clone()].concat();
            let bytes = file(&[entry("m/data.pkl", &plain()), empty, entry("m/none", b""), storage]);
            for size in [1, 7, 1 << 20] {
                assert_eq!(read(&bytes, size).expect("a valid file").tensors["a"], [0.0, 1.0]);
            }
        }
    }

    #[test]
    fn every_broken_rule_is_refused_by_name() {
        let two = floats(&SIX[..2]);
        let pickled = |pickle: &[u8]| zip(pickle, &[("0", &two)]);
        let viewed = |offset, shape: &[i32], strides: &[i32]| {
            pickled(&dict(&[tensor("a", &storage("FloatStorage", "0", 2), offset, shape, strides)]))
        };
        let body = |operations: &[u8]| pickled(&[b"\x80\x02".as_slice(), operations, b"."].concat());
        let good = zip(&plain(), &[("0", &two)]);
        let called = |module: &str, name: &str| body(format!("c{module}\n{name}\n(tR").as_bytes());
        let with = |entries: &[Vec<u8>]| file(&[&[entry("m/data.pkl", &plain())], entries].concat());
        let storage_entry = entry("m/data/0", &two);
        let cases: Vec<(&str, Vec<u8>)> = vec![
            ("truncated", Vec::new()),
            ("truncated", good[..3].to_vec()),
            ("truncated", good[..40].to_vec()),
            ("truncated", good[..good.len() - 1].to_vec()),
            ("truncated", good[..good.len() - 30].to_vec()),
            ("truncated", with(&[])),
            ("truncated", legacy(2)[..legacy(2).len() - 1].to_vec()),
            ("magic", b"<!doctype html><title>not here</title>".to_vec()),
            ("magic", b"\x80\x02}.".to_vec()), // a pickle, but no file of torch
            ("missing", file(&[entry("m/version", b"3")])),
            ("order", file(&[storage_entry.clone(), entry("m/data.pkl", &plain())])),
            ("duplicate", with(&[storage_entry.clone(), storage_entry.clone()])),
            ("duplicate", with(&[entry("m/data.pkl", &plain()), storage_entry.clone()])),
            ("duplicate", pickled(&dict(&[plain_tensor(), plain_tensor()]))),
            ("signature", with(&[storage_entry.clone(), b"junk and more junk".to_vec()])),
            ("compression", with(&[header("m/data/0", 0, 8, 8, &[]), two.clone()])),
            ("encryption", with(&[header("m/data/0", 1, 0, 8, &[]), two.clone()])),
            ("byteorder", with(&[entry("m/byteorder", b"big")])),
            ("byteorder", with(&[[header("m/byteorder", 0, 0, 3, &[]), b"big".to_vec()].concat()])),
            ("entry", with(&[entry("m/other", &vec![0; 1 << 17]), storage_entry.clone()])),
            ("size", with(&[[header("m/data/0", 0, 0, 7, &[]), two.clone()].concat()])),
            ("size", with(&[[header("m/data/0", 0, 0, u32::MAX, &[]), two.clone()].concat()])),
            ("size", file(&[[header("m/data.pkl", 0, 0, 20, &[]), plain()].concat()])),
            ("size", file(&[[header("m/data.pkl", 0, 0, 2000, &[]), plain(), vec![0; 2000]].concat()])),
            ("descriptor", with(&[[storage_entry[..storage_entry.len() - 4].to_vec(), vec![9; 4]].concat()])),
            ("descriptor", with(&[entry("m/data/0", &floats(&SIX))])),
            ("view", viewed(1, &[2], &[1])),
            ("view", viewed(0, &[2], &[2])),
            ("view", viewed(0, &[3], &[0])), // more values than there are
            ("view", viewed(0, &[i32::MAX; 3], &[i32::MAX; 3])),
            ("view", viewed(3, &[0], &[1])),
            ("arguments", viewed(-1, &[1], &[1])),
            ("arguments", viewed(0, &[1], &[])),
            ("arguments", viewed(0, &[1; 65], &[1; 65])),
            ("arguments", called("torch._utils", "_rebuild_tensor_v2")),
            ("arguments", body(b"ctorch._utils\n_rebuild_parameter\nK\x01\x85R")),
            ("arguments", body(b"ccollections\nOrderedDict\n](K\x01e\x85R")),
            ("global", called("os", "system")),
            ("global", called("builtins", "eval")),
            ("global", called("torch._utils", "_rebuild_tensor_v3")),
            ("global", body(b"(X\x04\0\0\0echoios\nsystem\n")),
            ("global", body(b"(cos\nsystem\nX\x04\0\0\0echoo")),
            ("global", body(b"cos\nsystem\n)\x81")),
            ("global", body(b"X\x02\0\0\0osX\x06\0\0\0system\x93)R")),
            ("global", body(&[b"c".to_vec(), vec![b'a'; 600], b"\nb\n".to_vec()].concat())),
            ("global", body(b"K\x01)R")),
            ("opcode", body(b"\x82\x01")),
            ("opcode", body(b"P0\n")),
            ("protocol", pickled(b"}.")),
            ("protocol", pickled(b"\x80\x06}.")),
            ("protocol", body(b"\x80\x02}")),
            ("state_dict", body(b"]")),
            ("stack", body(b"")),
            ("stack", body(b"K\x01\x86")),
            ("stack", body(b"K\x01(0")),
            ("stack", body(b"t")),
            ("stack", body(b"K\x01(K\x02u")),
            ("stack", body(b"}(K\x02u")),
            ("stack", body(b"}K\x01a")),
            ("memo", body(b"h\x05")),
            ("string", body(b"X\x01\0\0\0\xff")),
            ("pickle_length", body(b"X\xff\xff\xff\xff")),
            ("pickle_length", body(b"\x8d\xff\xff\xff\xff\xff\xff\xff\xff")),
            ("steps", body(&vec![b'N'; 1 << 22])),
            ("persistent_id", body(b"K\x01Q")),
            ("persistent_id", body(&storage("nn.Module", "0", 2))),
            ("persistent_id", body(&storage("FloatStorage", "0", -2))),
            ("persistent_id", body(&storage("FloatStorage", &"0".repeat(65), 2))),
            ("dtype", body(&storage("Float8Storage", "0", 2))),
            ("dtype", pickled(&dict(&[tensor("a", &storage("BoolStorage", "0", 8), 0, &[8], &[1])]))),
            ("storage", body(&[storage("FloatStorage", "0", 2), storage("HalfStorage", "0", 2)].concat())),
            ("shared", shared(1 << 12, (9 << 20) / (1 << 12), &[1 << 12], &[1])),
            ("shared", shared(1 << 14, 1100, &[16], &[1000])),
            ("trailing_bytes", [legacy(2), vec![0]].concat()),
            ("size", legacy(3)),
            ("magic", [b"\x80\x02K\x01.".to_vec(), legacy(2)].concat()),
            ("global", [b"\x80\x02cposix\nsystem\n(X\x04\0\0\0echotR.".to_vec(), legacy(2)].concat()),
            ("version", [&start()[..15], b"\x80\x02M\xe8\x03.", &start()[21..]].concat()),
            ("byteorder", [&start()[..start().len() - 3], b"\x89u.", &legacy(2)[start().len()..]].concat()),
            ("byteorder", [&start()[..21], b"\x80\x02}.", &plain()].concat()),
            ("storage", [start(), plain(), keys(&["1"])].concat()),
            ("storage", [start(), plain(), keys(&[])].concat()),
            (
                "duplicate",
                [
                    start(),
                    plain(),
                    keys(&["0", "0"]),
                    2u64.to_le_bytes().to_vec(),
                    two.clone(),
                    2u64.to_le_bytes().to_vec(),
                ]
                .concat(),
            ),
            ("persistent_id", [&start()[..21], b"\x80\x02", &storage("FloatStorage", "0", 2)].concat()),
        ];
        for (rule, bytes) in cases {
            for size in [1, 7, 1 << 20] {
                let error = read(&bytes, size).err().unwrap_or_else(|| panic!("{rule} was accepted"));
                assert_eq!(error.code(), Code::InvalidWeights, "{error}");
                assert!(error.message().starts_with(&format!("{rule}: ")), "{rule} in chunks of {size}: {error}");
            }
        }
    }

    fn plain_tensor() -> Vec<u8> {
        tensor("a", &storage("FloatStorage", "0", 2), 0, &[2], &[1])
    }

    #[test]
    fn what_is_called_is_named() {
        let pickle = b"\x80\x02cos\nsystem\n(X\x04\0\0\0echotR.";
        let error = read(&zip(pickle, &[]), 64).err().expect("refused");
        assert!(error.message().contains("os.system"), "{error}");
    }

    #[test]
    fn a_function_that_is_only_mentioned_does_no_harm() {
        let pickle = dict(&[plain_tensor(), [text("dtype"), b"ctorch\nfloat32\n".to_vec()].concat()]);
        let sink = read(&zip(&pickle, &[("0", &floats(&SIX[..2]))]), 64).expect("a valid file");
        assert_eq!(sink.tensors["a"], [0.0, 1.0]);
    }

    #[test]
    fn a_list_that_is_copied_again_and_again_does_not_fill_the_memory() {
        let pairs = b"(K\x01K\x02\x86".repeat(1000).into_iter().filter(|&byte| byte != b'(').collect::<Vec<u8>>();
        let copies = b"ccollections\nOrderedDict\nh\x00\x85R".repeat(10_000);
        let pickle = [b"\x80\x02](".to_vec(), pairs, b"eq\x00".to_vec(), copies, b".".to_vec()].concat();
        let error = read(&zip(&pickle, &[]), 1 << 20).err().expect("refused");
        assert!(error.message().starts_with("steps"), "{error}");
    }

    #[test]
    fn a_storage_as_large_as_the_address_space_is_refused_without_a_panic() {
        let long = |number: i64| [b"\x8a\x08".to_vec(), number.to_le_bytes().to_vec()].concat();
        let class = b"ctorch\nFloatStorage\n".to_vec();
        for (count, code) in [(i64::MAX, Code::InvalidWeights), (i64::MAX / 8, Code::OutOfMemory)] {
            let storage =
                [b"(".to_vec(), text("storage"), class.clone(), text("0"), text("cpu"), long(count), b"tQ".to_vec()];
            let rebuild = b"ctorch._utils\n_rebuild_tensor_v2\n(".to_vec();
            let rest = [b"K\x00".to_vec(), long(count), b"\x85K\x01\x85\x89NtR".to_vec()].concat();
            let pickle = dict(&[[text("a"), rebuild, storage.concat(), rest].concat()]);
            let error = read(&zip(&pickle, &[("0", &floats(&SIX))]), 64).err().expect("refused");
            assert_eq!(error.code(), code, "{error}");
        }
    }
}
