//! The safetensors format, written while tensors arrive in any order.
//!
//! The header comes first and holds every tensor's place, which shapes and forms decide before a value is known; so a
//! tensor is written where it belongs as soon as it is there, and no two of them are ever in memory.

use std::{
    collections::BTreeMap,
    io::{self, Seek, SeekFrom, Write},
};

use serde_json::{Map, Value, json};

use super::{Dtype, Values, scales_of};
use crate::error::{Code, Error, Result};

/// Values turned into bytes at a time.
const STEP: usize = 1 << 16;

/// A tensor that is going to be written.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Planned {
    pub name: String,
    pub shape: Vec<usize>,
    pub dtype: Dtype,
}

/// Where a planned tensor lies.
struct Place {
    dtype: Dtype,
    position: u64,
    count: usize,
    written: bool,
}

/// A file under way.
pub struct Writer<W: Write + Seek> {
    file: String,
    target: W,
    places: BTreeMap<String, Place>,
    length: u64,
}

fn name_and_bytes(dtype: Dtype) -> (&'static str, usize) {
    match dtype {
        Dtype::F32 => ("F32", 4),
        Dtype::F16 => ("F16", 2),
        Dtype::Int8 => ("I8", 1),
    }
}

impl<W: Write + Seek> Writer<W> {
    /// Writes the header. Wide types come first, so that every tensor is aligned to its type; within a type names decide, so that
    /// equal tensors make equal files.
    pub fn new(mut target: W, file: &str, mut tensors: Vec<Planned>) -> Result<Self> {
        tensors.sort_by(|a, b| {
            let wide = |planned: &Planned| std::cmp::Reverse(name_and_bytes(planned.dtype).1);
            wide(a).cmp(&wide(b)).then_with(|| a.name.cmp(&b.name))
        });
        // The Python libraries refuse a file that does not say whose tensors it holds.
        let mut header = Map::from_iter([("__metadata__".to_owned(), json!({"format": "pt"}))]);
        let mut places = BTreeMap::new();
        let mut position = 0;
        for Planned { name, shape, dtype } in tensors {
            let (type_name, bytes) = name_and_bytes(dtype);
            let count: usize = shape.iter().product();
            let end = position + count as u64 * bytes as u64;
            header.insert(name.clone(), json!({"dtype": type_name, "shape": shape, "data_offsets": [position, end]}));
            if places.insert(name.clone(), Place { dtype, position, count, written: false }).is_some() {
                return Err(Error::new(Code::InvalidWeights, name, format!("{file} would have two such tensors")));
            }
            position = end;
        }
        let mut header = Value::Object(header).to_string().into_bytes();
        header.resize(header.len().next_multiple_of(8), b' ');
        let data = 8 + header.len() as u64;
        places.values_mut().for_each(|place| place.position += data);
        let written = target.write_all(&(header.len() as u64).to_le_bytes()).and_then(|()| target.write_all(&header));
        written.map_err(|error| failed(file, &error))?;
        Ok(Self { file: file.to_owned(), target, places, length: data + position })
    }

    /// Writes a tensor, and of eight-bit rows that have scales also these, as the tensor of their name.
    pub fn tensor(&mut self, name: &str, values: &Values) -> Result<()> {
        match values {
            Values::F32(values) => self.put(name, Dtype::F32, values, f32::to_le_bytes),
            Values::F16(values) => self.put(name, Dtype::F16, values, half::f16::to_le_bytes),
            Values::Int8 { values, scales } => {
                self.put(name, Dtype::Int8, values, i8::to_le_bytes)?;
                match scales.is_empty() {
                    true => Ok(()),
                    false => self.put(&scales_of(name), Dtype::F32, scales, f32::to_le_bytes),
                }
            }
        }
    }

    fn put<T: Copy, const N: usize>(
        &mut self,
        name: &str,
        dtype: Dtype,
        values: &[T],
        bytes: impl Fn(T) -> [u8; N],
    ) -> Result<()> {
        let Some(place) = self.places.get_mut(name).filter(|place| place.dtype == dtype && place.count == values.len())
        else {
            let message = format!("{} was not planned with {} values in {}", self.file, values.len(), dtype.as_str());
            return Err(Error::new(Code::InvalidWeights, name, message));
        };
        place.written = true;
        let mut write = || {
            self.target.seek(SeekFrom::Start(place.position))?;
            let mut buffer = Vec::with_capacity(STEP.min(values.len()) * N);
            for part in values.chunks(STEP) {
                buffer.clear();
                part.iter().for_each(|&value| buffer.extend_from_slice(&bytes(value)));
                self.target.write_all(&buffer)?;
            }
            io::Result::Ok(())
        };
        write().map_err(|error| failed(&self.file, &error))
    }

    /// Ends the file, in which every planned tensor must be by now; gives its length.
    pub fn finish(mut self) -> Result<u64> {
        if let Some((name, _)) = self.places.iter().find(|(_, place)| !place.written && place.count > 0) {
            return Err(Error::new(Code::MissingTensor, name, format!("{} ended before it", self.file)));
        }
        self.target.flush().map_err(|error| failed(&self.file, &error))?;
        Ok(self.length)
    }
}

fn failed(file: &str, error: &io::Error) -> Error {
    Error::new(Code::Io, file, error.to_string())
}

#[cfg(test)]
mod tests {
    use std::io::Cursor;

    use half::f16;

    use super::*;
    use crate::weights::{Reader, Sink, TensorInfo};

    fn planned(name: &str, shape: &[usize], dtype: Dtype) -> Planned {
        Planned { name: name.to_owned(), shape: shape.to_vec(), dtype }
    }

    #[derive(Default)]
    struct Kept(BTreeMap<String, (Vec<usize>, Option<Values>)>);

    impl Sink for Kept {
        fn begin(&mut self, tensors: &[TensorInfo]) -> Result<()> {
            self.0 = tensors.iter().map(|info| (info.name.clone(), (info.shape.clone(), None))).collect();
            Ok(())
        }

        fn wants(&self, name: &str) -> Option<Dtype> {
            Some(if name == "b" { Dtype::F16 } else { Dtype::F32 })
        }

        fn tensor(&mut self, name: &str, values: Values) -> Result<()> {
            self.0.entry(name.to_owned()).or_default().1 = Some(values);
            Ok(())
        }
    }

    /// The file of three tensors, which arrive in the order of `order`.
    fn written(order: [usize; 3]) -> Vec<u8> {
        let plan = vec![
            planned("a", &[2, 3], Dtype::Int8),
            planned("a_scale", &[2], Dtype::F32),
            planned("b", &[3], Dtype::F16),
            planned("c", &[], Dtype::F32),
            planned("empty", &[0, 4], Dtype::F32),
        ];
        let tensors = [
            ("a", Values::Int8 { values: vec![1, -2, 3, 127, 0, -127], scales: vec![0.5, 2.0] }),
            ("b", Values::F16([1.0, 0.1, -3.0].map(f16::from_f32).to_vec())),
            ("c", Values::F32(vec![0.1])),
        ];
        let mut file = Cursor::new(Vec::new());
        let mut writer = Writer::new(&mut file, "x.safetensors", plan).expect("a header");
        for index in order {
            let (name, values) = &tensors[index];
            writer.tensor(name, values).expect("planned");
        }
        let length = writer.finish().expect("complete");
        assert_eq!(length, file.get_ref().len() as u64);
        file.into_inner()
    }

    #[test]
    fn what_is_written_is_read_and_the_order_of_arrival_leaves_no_trace() {
        let file = written([0, 1, 2]);
        assert_eq!(file, written([2, 0, 1]));
        let mut kept = Kept::default();
        let mut reader = Reader::new("x.safetensors").expect("known");
        reader.push(&file, &mut kept).expect("valid");
        reader.finish().expect("whole");
        let value = |name: &str| kept.0[name].1.clone().expect(name);
        assert_eq!(value("a"), Values::Int8 { values: vec![1, -2, 3, 127, 0, -127], scales: vec![] });
        assert_eq!(value("a_scale"), Values::F32(vec![0.5, 2.0]));
        assert_eq!(value("b"), Values::F16([1.0, 0.1, -3.0].map(f16::from_f32).to_vec()));
        assert_eq!(value("c"), Values::F32(vec![0.1]));
        assert_eq!(kept.0["a"].0, [2, 3]);
        assert_eq!(kept.0["c"].0, [] as [usize; 0]);
    }

    #[test]
    fn a_plan_that_is_not_kept_is_refused() {
        let plan = || vec![planned("a", &[2], Dtype::F32)];
        let writer = || Writer::new(Cursor::new(Vec::new()), "x", plan()).expect("a header");
        let code = |result: Result<()>| result.expect_err("refused").code();
        assert_eq!(code(writer().tensor("a", &Values::F32(vec![1.0]))), Code::InvalidWeights);
        assert_eq!(code(writer().tensor("a", &Values::F16(vec![f16::ONE; 2]))), Code::InvalidWeights);
        assert_eq!(code(writer().tensor("b", &Values::F32(vec![1.0; 2]))), Code::InvalidWeights);
        assert_eq!(code(writer().finish().map(|_| ())), Code::MissingTensor);
        let twice = [plan(), plan()].concat();
        assert_eq!(code(Writer::new(Cursor::new(Vec::new()), "x", twice).map(|_| ())), Code::InvalidWeights);
    }
}
