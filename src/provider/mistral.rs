//! Mistral AI.
//!
//! Must agree with `/v1/embeddings` of <https://github.com/mistralai/platform-docs-public> (`openapi.yaml`). Its server lets pages
//! in only with plain headers (<https://github.com/mistralai/client-js/issues/21>): no other header is to be added here.

use super::{
    Ask, Auth, Endpoint, Fields, Limits, Model, Outgoing, Spec, as_it_comes, invalid_option, list, options::Field,
};
use crate::{call::OutputDtype, error::Result};

pub(super) const SPEC: Spec = Spec {
    name: "mistral",
    base_url: |_| Some("https://api.mistral.ai/v1"),
    auth: Auth::Bearer,
    models: &[Model { name: "mistral-embed", dimensions: 1024 }, Model { name: "codestral-embed", dimensions: 1536 }],
    dense: Some(Endpoint {
        honours: &[Field::Dimensions, Field::OutputDtype, Field::EncodingFormat],
        // Not in the description: 256 inputs were found by others, and 16,384 tokens are what its documentation said.
        limits: |_| Limits::new(256, 16_384),
        request,
        response: list::embeddings,
        normalize: as_it_comes,
    }),
    sparse: None,
    rerank: None,
};

fn request(ask: &Ask) -> Result<Outgoing> {
    let options = ask.options;
    if options.is_base64() && options.dtype() != OutputDtype::Float {
        return Err(invalid_option("encodingFormat", "mistral documents base64 for floats only"));
    }
    Fields::of_model(options)
        .with("input", ask.texts)
        .maybe("output_dimension", options.dimensions)
        .maybe("output_dtype", options.dtype_field())
        .maybe("encoding_format", options.encoding_format.map(|_| if options.is_base64() { "base64" } else { "float" }))
        .sent_to("/embeddings", ask)
}

#[cfg(test)]
mod tests {
    use super::super::{EncodingFormat, Provider, RemoteOptions, tests::*};
    use super::OutputDtype;
    use crate::call::QuantizedValues;

    fn options() -> RemoteOptions {
        RemoteOptions::new(Provider::Mistral, "codestral-embed")
    }

    #[test]
    fn the_request_holds_what_was_asked_for() {
        let request = embed(&options(), Query, &["a"]).expect("valid");
        assert_eq!(
            (request.path.as_str(), &request.body),
            ("/embeddings", &json(r#"{"model": "codestral-embed", "input": ["a"]}"#))
        );
        let mut options = options();
        options.dimensions = Some(64);
        options.output_dtype = Some(OutputDtype::Ubinary);
        options.extra = fields(r#"{"metadata": {"a": 1}}"#);
        let body = r#"{"model": "codestral-embed", "input": ["a"], "output_dimension": 64, "output_dtype": "ubinary",
            "metadata": {"a": 1}}"#;
        assert_eq!(embed(&options, Plain, &["a"]).expect("valid").body, json(body));
        options.encoding_format = Some(EncodingFormat::Base64);
        assert_eq!(refused(&options), "encodingFormat");
    }

    #[test]
    fn the_documented_answer_is_read() {
        let answer = r#"{"id": "x", "object": "list", "model": "m", "data": [
            {"embedding": [-128, 3], "index": 0, "object": "embedding"}],
            "usage": {"prompt_tokens": 15, "completion_tokens": 0, "total_tokens": 15, "prompt_audio_seconds": null}}"#;
        let mut options = options();
        options.output_dtype = Some(OutputDtype::Int8);
        options.dimensions = Some(2);
        let (vectors, tokens) = quantized(&options, 1, answer).expect("valid");
        assert_eq!((vectors.values, tokens), (QuantizedValues::Int8(vec![-128, 3]), Some(15.0)));
    }
}
