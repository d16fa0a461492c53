// A matrix as in weights_f32, in eight bits; products are multiplied by the output's scale afterwards.
@group(0) @binding(2) var<storage, read> weights: array<u32>;

fn four_weights(at: u32) -> vec4<f32> {
    let packed = weights[at];
    let shifted = vec4<u32>(packed << 24u, packed << 16u, packed << 8u, packed);
    return vec4<f32>(bitcast<vec4<i32>>(shifted) >> vec4<u32>(24u));
}
