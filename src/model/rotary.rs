//! Frequencies of rotary position embeddings from a configuration.

use std::sync::Arc;

use super::Config;
use crate::error::Result;

/// Radians per position for each pair of components of a head: `theta^(-2i / width)`, scaled as the configuration says.
///
/// Reads `rope_theta` and `rope_scaling`, or transformers 5's `rope_parameters`, which holds both. Known scalings: `linear` divides
/// by the factor; `ntk` is that of GTE's original code, at all lengths: the base times the factor, and each frequency divided by
/// `factor^(2 / width)`.
pub fn frequencies(config: &Config, width: usize) -> Result<Arc<[f32]>> {
    let named = |section: Config| section.renamed(&[("rope_type", "type")]);
    let parameters = config.section("rope_parameters").map(named).transpose()?;
    let (theta, scaling) = match &parameters {
        Some(parameters) => (parameters.positive("rope_theta")?, parameters.has("rope_type").then_some(parameters)),
        None => (config.positive("rope_theta")?, None),
    };
    let older = config.section("rope_scaling").map(named).transpose()?;
    let scaling = scaling.or(older.as_ref());
    let (base, divisor) = match scaling {
        None => (theta, 1.0),
        Some(scaling) => match scaling.string("rope_type")? {
            "default" => (theta, 1.0),
            "linear" => (theta, scaling.positive("factor")?),
            "ntk" => {
                let factor = scaling.positive("factor")?;
                (theta * factor, factor.powf(2.0 / width as f64))
            }
            other => return Err(scaling.unsupported("rope_type", &format!("{other:?}"))),
        },
    };
    Ok((0..width / 2).map(|pair| (base.powf(-2.0 * pair as f64 / width as f64) / divisor) as f32).collect())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::error::Code;

    fn of(json: &str) -> Result<Arc<[f32]>> {
        frequencies(&Config::from_bytes(json.as_bytes()).expect("JSON"), 8)
    }

    #[test]
    fn both_namings_of_gte_give_the_same_frequencies() {
        let original = of(r#"{"rope_theta": 20000, "rope_scaling": {"type": "ntk", "factor": 8.0}}"#).expect("known");
        let native = format!(
            r#"{{"rope_parameters": {{"rope_theta": 160000.0, "rope_type": "linear", "factor": {}}}}}"#,
            8f64.powf(2.0 / 8.0)
        );
        assert_eq!(of(&native.replace("rope_type", "type")).expect("an older key"), of(&native).expect("known"));
        for (a, b) in original.iter().zip(of(&native).expect("known").iter()) {
            assert!((a - b).abs() <= 1e-7 * a.abs(), "{a} is not {b}");
        }
        assert_eq!(of(r#"{"rope_theta": 10000.0}"#).expect("plain").as_ref(), [1.0, 0.1, 0.01, 0.001]);
    }

    #[test]
    fn a_scaling_that_is_not_known_is_refused() {
        let error = of(r#"{"rope_theta": 1e4, "rope_scaling": {"rope_type": "yarn", "factor": 4.0}}"#);
        assert_eq!(error.expect_err("unknown").code(), Code::UnsupportedModel);
        assert_eq!(of("{}").expect_err("no theta").code(), Code::InvalidConfig);
    }
}
