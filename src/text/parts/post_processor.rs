//! The special tokens around a text, and around two.

use serde_json::Value;
use tokenizers::{
    PostProcessorWrapper,
    processors::{bert::BertProcessing, roberta::RobertaProcessing, sequence::Sequence, template::TemplateProcessing},
};

use super::{Part, number, pre_tokenizer};
use crate::{error::Result, text::tokenizer::invalid};

/// By its settings, as the crate does, which asks two types only for their name.
pub fn read(value: &Value) -> Result<PostProcessorWrapper> {
    let part = Part::new("post_processor", value)?;
    match part.kind() {
        _ if part.given("sep").is_some() => roberta(part).or_else(|_| bert(part).map(Into::into)),
        "ByteLevel" => pre_tokenizer::byte_level(part).map(Into::into),
        _ if part.given("single").is_some() => template(part).map(Into::into),
        "Sequence" => {
            let each = part.list("processors")?.iter().map(read);
            Ok(Sequence::new(each.collect::<Result<_>>()?).into())
        }
        _ => part.unknown(),
    }
}

fn bert(part: Part) -> Result<BertProcessing> {
    Ok(BertProcessing::new(token(part, "sep")?, token(part, "cls")?))
}

fn roberta(part: Part) -> Result<PostProcessorWrapper> {
    let (trim_offsets, prefix) = (part.flag("trim_offsets")?, part.flag("add_prefix_space")?);
    let processing = RobertaProcessing::new(token(part, "sep")?, token(part, "cls")?);
    Ok(processing.trim_offsets(trim_offsets).add_prefix_space(prefix).into())
}

/// `["[SEP]", 102]`.
fn token(part: Part, setting: &str) -> Result<(String, u32)> {
    part.needs(setting, |value| match value.as_array()?.as_slice() {
        [token, id] => Some((token.as_str()?.to_owned(), number(id)?)),
        _ => None,
    })
}

/// Checked for what the crate panics on: a template may only name what there is.
fn template(part: Part) -> Result<TemplateProcessing> {
    let pieces = |name: &str| part.given(name).and_then(Value::as_array).into_iter().flatten();
    for piece in pieces("single").chain(pieces("pair")) {
        let special = piece["SpecialToken"]["id"].as_str();
        if let Some(id) = special.filter(|&id| part.value["special_tokens"].get(id).is_none()) {
            return Err(invalid(format!("its template names {id:?}, which is none of its special tokens")));
        }
    }
    if pieces("single").any(|piece| piece["Sequence"]["id"] == "B") {
        return Err(invalid("its template for one text names a second one"));
    }
    part.as_it_is()
}
