//! Our encoder against the original Python program, on a tiny random checkpoint. Beside candle-transformers it stands where that is
//! built, in `tests/web/reference.test.mjs`.

use crate::common::{difference, json, read};
use wick_embed::{
    encoder::Encoder,
    model::{Architecture, Config, NetworkPlan, Purpose},
    ops::{Ops, candle::Candle},
    platform::native::block_on,
    text::{Batch, Encoded},
    weights::{Loader, Reader},
};

const DIR: &str = "tests/fixtures/bert-tiny";
/// The batch of `tests/fixtures/generate.py`; there the second text is padded to seven tokens.
const TEXTS: [&[u32]; 2] = [&[2, 17, 45, 9, 60, 71, 3], &[2, 33, 80, 3]];

fn encoder(ops: &Candle) -> Encoder<Candle> {
    let config = Config::from_bytes(&read(&format!("{DIR}/config.json"))).expect("config");
    let architecture = Architecture::from_config(&config).expect("supported");
    let plan = NetworkPlan { architecture: &architecture, purpose: Purpose::Embed };
    let mut loader = Loader::new("model.safetensors", ops, &plan, None);
    let mut reader = Reader::new("model.safetensors").expect("known");
    reader.push(&read(&format!("{DIR}/model.safetensors")), &mut loader).expect("valid");
    reader.finish().expect("whole");
    loader.finish().expect("complete").encoder
}

/// Hidden states of each text.
fn ours() -> Vec<Vec<f32>> {
    let ops = Candle::cpu();
    let encoded =
        TEXTS.map(|ids| Encoded { ids: ids.to_vec(), type_ids: vec![0; ids.len()], unpooled: 0, truncated: false });
    let batch = Batch::pack(&encoded);
    let hidden = encoder(&ops).forward(&ops, &batch).expect("forward");
    let values = block_on(ops.read(&hidden)).expect("read");
    let width = values.len() / batch.ids.len();
    batch.spans.iter().map(|span| values[span.start * width..span.end * width].to_vec()).collect()
}

#[test]
fn bert_equals_the_python_program() {
    let expected = json(&format!("{DIR}/expect.json"));
    let expected: Vec<f32> = expected["h"]
        .as_array()
        .expect("hidden states")
        .iter()
        .map(|value| value.as_f64().expect("a number") as f32)
        .collect();
    let padded = expected.len() / TEXTS.len();
    for (index, hidden) in ours().iter().enumerate() {
        let error = difference(hidden, &expected[index * padded..][..hidden.len()]);
        println!("text {index}: {error:e}");
        assert!(error <= 5e-6, "text {index}: {error}");
    }
}
