//! Where a text is cut before the vocabulary is asked.

use serde_json::Value;
use tokenizers::{
    PreTokenizerWrapper, SplitDelimiterBehavior,
    pre_tokenizers::{
        bert::BertPreTokenizer,
        byte_level::ByteLevel,
        delimiter::CharDelimiterSplit,
        digits::Digits,
        fixed_length::FixedLength,
        metaspace::{Metaspace, PrependScheme},
        punctuation::Punctuation,
        sequence::Sequence,
        split::{Split, SplitPattern},
        unicode_scripts::UnicodeScripts,
        whitespace::{Whitespace, WhitespaceSplit},
    },
};

use super::{Part, refused};
use crate::{error::Result, text::tokenizer::invalid};

pub fn read(value: &Value) -> Result<PreTokenizerWrapper> {
    let part = Part::new("pre_tokenizer", value)?;
    Ok(match part.kind() {
        "BertPreTokenizer" => BertPreTokenizer.into(),
        "ByteLevel" => byte_level(part)?.into(),
        "CharDelimiterSplit" => CharDelimiterSplit::new(part.character("delimiter")?).into(),
        "Metaspace" => metaspace(part)?.into(),
        "Whitespace" => Whitespace.into(),
        "Sequence" => Sequence::new(part.list("pretokenizers")?.iter().map(read).collect::<Result<_>>()?).into(),
        "Split" => split(part)?.into(),
        "Punctuation" => Punctuation::new(match part.given("behavior") {
            None => SplitDelimiterBehavior::Isolated,
            Some(_) => behavior(part)?,
        })
        .into(),
        "WhitespaceSplit" => WhitespaceSplit.into(),
        "Digits" => Digits::new(part.flag("individual_digits")?).into(),
        "UnicodeScripts" => UnicodeScripts::new().into(),
        "FixedLength" => fixed_length(part)?.into(),
        _ => return part.unknown(),
    })
}

pub fn byte_level(part: Part) -> Result<ByteLevel> {
    let (prefix, trim) = (part.flag("add_prefix_space")?, part.flag("trim_offsets")?);
    Ok(ByteLevel::new(prefix, trim, part.flag_or("use_regex", true)?))
}

fn metaspace(part: Part) -> Result<Metaspace> {
    let scheme = match part.given("prepend_scheme") {
        None => PrependScheme::Always,
        Some(_) => part.needs("prepend_scheme", |scheme| match scheme.as_str()? {
            "first" => Some(PrependScheme::First),
            "never" => Some(PrependScheme::Never),
            "always" => Some(PrependScheme::Always),
            _ => None,
        })?,
    };
    if part.optional_flag("add_prefix_space")? == Some(false) && scheme != PrependScheme::Never {
        return Err(invalid("its pre_tokenizer \"Metaspace\" prepends a space and does not"));
    }
    Ok(Metaspace::new(part.character("replacement")?, scheme, part.optional_flag("split")?.unwrap_or(true)))
}

fn split(part: Part) -> Result<Split> {
    let pattern = part.pattern(SplitPattern::String, SplitPattern::Regex)?;
    Split::new(pattern, behavior(part)?, part.flag("invert")?).map_err(refused)
}

fn behavior(part: Part) -> Result<SplitDelimiterBehavior> {
    part.needs("behavior", |behavior| {
        Some(match behavior.as_str()? {
            "Removed" => SplitDelimiterBehavior::Removed,
            "Isolated" => SplitDelimiterBehavior::Isolated,
            "MergedWithPrevious" => SplitDelimiterBehavior::MergedWithPrevious,
            "MergedWithNext" => SplitDelimiterBehavior::MergedWithNext,
            "Contiguous" => SplitDelimiterBehavior::Contiguous,
            _ => return None,
        })
    })
}

fn fixed_length(part: Part) -> Result<FixedLength> {
    let length = part.given("length").map_or(Ok(5), |_| part.number("length"))?;
    // At which the crate panics.
    if length == 0 {
        return Err(invalid("its pieces have no length"));
    }
    Ok(FixedLength::new(length as usize))
}
