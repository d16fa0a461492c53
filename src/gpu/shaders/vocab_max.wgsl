// For each text and word the largest product with a token of the text, plus the word's bias. [tokens, words] never exists: a
// workgroup takes all tokens of a text through its words and keeps the maxima.
#import nan
#import product

struct Parameters {
    texts: u32,
    blocks: u32,
    // Words of this part of the table, and values of a row of y.
    outputs: u32,
    y_stride: u32,
    // The first word of this part.
    first: u32,
    has_bias: u32,
    has_scales: u32,
}

@group(0) @binding(0) var<uniform> parameters: Parameters;
@group(0) @binding(3) var<storage, read> scales: array<f32>;
@group(0) @binding(4) var<storage, read> bias: array<f32>;
// The first token of each text, and the one after its last.
@group(0) @binding(5) var<storage, read> spans: array<vec2<u32>>;
@group(0) @binding(6) var<storage, read_write> y: array<f32>;

var<workgroup> most: array<vec4<f32>, THREADS_Y * GROUPS>;

// Component-wise the larger, and what is not a number where either is not.
fn larger(a: vec4<f32>, b: vec4<f32>) -> vec4<f32> {
    return select(b, a, (a >= b) | is_nan(a));
}

@compute @workgroup_size(THREADS)
fn main(
    @builtin(workgroup_id) workgroup: vec3<u32>,
    @builtin(num_workgroups) workgroups: vec3<u32>,
    @builtin(local_invocation_index) thread: u32,
) {
    let text = workgroup.y + workgroup.z * workgroups.y;
    if text >= parameters.texts {
        return;
    }
    let span = spans[text];
    let outputs = parameters.outputs;
    let left = 4u * GROUPS * workgroup.x;
    let right = left + 4u * THREADS_X;
    let across = thread % THREADS_X;
    let down = thread / THREADS_X;
    var left_scales = vec4<f32>(1.0);
    var right_scales = vec4<f32>(1.0);
    if parameters.has_scales != 0u {
        for (var at = 0u; at < 4u; at++) {
            left_scales[at] = scales[parameters.first + min(left + 4u * across + at, outputs - 1u)];
            right_scales[at] = scales[parameters.first + min(right + 4u * across + at, outputs - 1u)];
        }
    }
    var most_left = vec4<f32>(-3.4e38);
    var most_right = most_left;
    var sums: array<vec4<f32>, 2u * ROWS>;
    for (var first = span.x; first < span.y; first += TILE_ROWS) {
        // By hand: SwiftShader does it only once for a variable that is declared in the loop.
#repeat ROW {{ROWS}}
        sums[2u * {{ROW}}u] = vec4<f32>();
        sums[2u * {{ROW}}u + 1u] = vec4<f32>();
#end
        multiply(&sums, first, span.y, left, outputs, right, outputs, parameters.blocks, outputs, thread);
        // Rows beyond the end are the last one again, which changes no maximum.
#repeat ROW {{ROWS}}
        most_left = larger(most_left, sums[2u * {{ROW}}u] * left_scales);
        most_right = larger(most_right, sums[2u * {{ROW}}u + 1u] * right_scales);
#end
    }
    most[down * GROUPS + across] = most_left;
    most[down * GROUPS + THREADS_X + across] = most_right;
    workgroupBarrier();
    for (var column = thread; column < 4u * GROUPS; column += THREADS) {
        let word = left + column;
        if word < outputs {
            var value = most[column / 4u];
            for (var row = 1u; row < THREADS_Y; row++) {
                value = larger(value, most[row * GROUPS + column / 4u]);
            }
            var largest = value[column % 4u];
            if parameters.has_bias != 0u {
                largest += bias[parameters.first + word];
            }
            y[text * parameters.y_stride + parameters.first + word] = largest;
        }
    }
}
