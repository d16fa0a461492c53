// One row for each text, its poolings side by side: a thread takes a component through the text's tokens.
#import nan

struct Parameters {
    texts: u32,
    width: u32,
    // Values of a row of x, and of a row of y.
    x_stride: u32,
    y_stride: u32,
    poolings: u32,
    // The numbers of plan::pooling, in order.
    kinds: array<vec4<u32>, 2>,
}

@group(0) @binding(0) var<uniform> parameters: Parameters;
@group(0) @binding(1) var<storage, read> x: array<f32>;
// The first token of each text, and the one after its last.
@group(0) @binding(2) var<storage, read> spans: array<vec2<u32>>;
@group(0) @binding(3) var<storage, read_write> y: array<f32>;

@compute @workgroup_size(64)
fn main(
    @builtin(workgroup_id) workgroup: vec3<u32>,
    @builtin(num_workgroups) workgroups: vec3<u32>,
    @builtin(local_invocation_index) thread: u32,
) {
    let text = workgroup.y + workgroup.z * workgroups.y;
    let place = workgroup.x * 64u + thread;
    if text >= parameters.texts || place >= parameters.y_stride {
        return;
    }
    let span = spans[text];
    let pooling = place / parameters.width;
    let column = place % parameters.width;
    var result = 0.0;
    if pooling < parameters.poolings && span.x < span.y {
        let kind = parameters.kinds[pooling / 4u][pooling % 4u];
        let count = f32(span.y - span.x);
        let last = x[(span.y - 1u) * parameters.x_stride + column];
        let first = x[span.x * parameters.x_stride + column];
        var most = first;
        var sum = 0.0;
        if kind == 1u {
            for (var row = span.x; row < span.y; row++) {
                let value = x[row * parameters.x_stride + column];
                most = select(value, most, most >= value || is_nan(vec4<f32>(most)).x);
            }
        } else if kind >= 2u && kind <= 4u {
            for (var row = span.x; row < span.y; row++) {
                let weight = select(1.0, f32(row - span.x + 1u), kind == 4u);
                sum = fma(x[row * parameters.x_stride + column], weight, sum);
            }
        }
        switch kind {
            case 0u: { result = first; }
            case 1u: { result = most; }
            case 2u: { result = sum / count; }
            case 3u: { result = sum / sqrt(count); }
            case 4u: { result = sum / (count * (count + 1.0) / 2.0); }
            default: { result = last; }
        }
    }
    y[text * parameters.y_stride + place] = result;
}
