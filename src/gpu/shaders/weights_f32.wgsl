// A matrix by blocks of four inputs: values [blocks, outputs] of which each holds four inputs of one output.
@group(0) @binding(2) var<storage, read> weights: array<vec4<f32>>;

fn four_weights(at: u32) -> vec4<f32> {
    return weights[at];
}
