// Sums of products in f32.
alias Four = vec4<f32>;

// The sums of four columns, and the products of four inputs with their weights.
fn added(sum: vec4<f32>, x: Four, a: Four, b: Four, c: Four, d: Four) -> vec4<f32> {
    let with_a = fma(vec4<f32>(x.x), a, sum);
    let with_b = fma(vec4<f32>(x.y), b, with_a);
    let with_c = fma(vec4<f32>(x.z), c, with_b);
    return fma(vec4<f32>(x.w), d, with_c);
}
