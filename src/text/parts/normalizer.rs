//! What is done to the characters of a text.

use serde_json::Value;
use tokenizers::{
    NormalizerWrapper,
    normalizers::{
        BertNormalizer, ByteLevel, Lowercase, NFC, NFD, NFKC, NFKD, Nmt, Precompiled, Prepend, Replace, Sequence,
        Strip, StripAccents, replace::ReplacePattern,
    },
};

use super::{Part, refused};
use crate::error::Result;

pub fn read(value: &Value) -> Result<NormalizerWrapper> {
    let part = Part::new("normalizer", value)?;
    match part.kind() {
        "Bert" => bert(part),
        "Strip" => strip(part),
        "StripAccents" => Ok(StripAccents.into()),
        "NFC" => Ok(NFC.into()),
        "NFD" => Ok(NFD.into()),
        "NFKC" => Ok(NFKC.into()),
        "NFKD" => Ok(NFKD.into()),
        "Sequence" => sequence(part),
        "Lowercase" => Ok(Lowercase.into()),
        "Nmt" => Ok(Nmt.into()),
        "Precompiled" => precompiled(part),
        "Replace" => replace(part),
        "Prepend" => prepend(part),
        "ByteLevel" => Ok(ByteLevel::new().into()),
        // The crate goes by the settings then, also for what it calls `BertNormalizer` itself.
        _ => [bert, strip, sequence, replace, prepend]
            .into_iter()
            .find_map(|read| read(part).ok())
            .map_or_else(|| part.unknown(), Ok),
    }
}

fn bert(part: Part) -> Result<NormalizerWrapper> {
    let strip_accents = part.optional_flag("strip_accents")?;
    let (clean_text, chinese) = (part.flag("clean_text")?, part.flag("handle_chinese_chars")?);
    Ok(BertNormalizer::new(clean_text, chinese, strip_accents, part.flag("lowercase")?).into())
}

fn strip(part: Part) -> Result<NormalizerWrapper> {
    Ok(Strip::new(part.flag("strip_left")?, part.flag("strip_right")?).into())
}

fn sequence(part: Part) -> Result<NormalizerWrapper> {
    let each = part.list("normalizers")?.iter().map(read);
    Ok(Sequence::new(each.collect::<Result<_>>()?).into())
}

fn precompiled(part: Part) -> Result<NormalizerWrapper> {
    part.as_it_is::<Precompiled>().map(Into::into)
}

fn replace(part: Part) -> Result<NormalizerWrapper> {
    let pattern = part.pattern(ReplacePattern::String, ReplacePattern::Regex)?;
    Replace::new(pattern, part.text("content")?).map(Into::into).map_err(refused)
}

fn prepend(part: Part) -> Result<NormalizerWrapper> {
    Ok(Prepend::new(part.text("prepend")?.to_owned()).into())
}
