// Products in half precision, and the sums of each four of them; what they add up to is f32.
alias Four = vec4<f16>;

// The sums of four columns, and the products of four inputs with their weights.
fn added(sum: vec4<f32>, x: Four, a: Four, b: Four, c: Four, d: Four) -> vec4<f32> {
    let with_b = fma(vec4<f16>(x.y), b, x.x * a);
    let with_c = fma(vec4<f16>(x.z), c, with_b);
    return sum + vec4<f32>(fma(vec4<f16>(x.w), d, with_c));
}
