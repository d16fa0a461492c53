// norm(x + residual) of each row, by a workgroup; where it is wanted the sum too. The variance is that of the differences from the mean.
const THREADS = 64u;

struct Parameters {
    rows: u32,
    width: u32,
    // Groups of four values of a row.
    stride: u32,
    // 0: layer norm, 1: by the root of the mean square.
    kind: u32,
    epsilon: f32,
    has_residual: u32,
    has_bias: u32,
    keeps_sum: u32,
}

@group(0) @binding(0) var<uniform> parameters: Parameters;
@group(0) @binding(1) var<storage, read> x: array<vec4<f32>>;
@group(0) @binding(2) var<storage, read> residual: array<vec4<f32>>;
@group(0) @binding(3) var<storage, read> gain: array<vec4<f32>>;
@group(0) @binding(4) var<storage, read> bias: array<vec4<f32>>;
@group(0) @binding(5) var<storage, read_write> sum: array<vec4<f32>>;
@group(0) @binding(6) var<storage, read_write> y: array<vec4<f32>>;

var<workgroup> parts: array<f32, THREADS>;

// The sum of all threads' values, always in the same order.
fn total(thread: u32, value: f32) -> f32 {
    parts[thread] = value;
    workgroupBarrier();
    for (var half = THREADS / 2u; half > 0u; half /= 2u) {
        if thread < half {
            parts[thread] += parts[thread + half];
        }
        workgroupBarrier();
    }
    let result = parts[0];
    workgroupBarrier();
    return result;
}

fn summed(at: u32) -> vec4<f32> {
    if parameters.has_residual != 0u {
        return x[at] + residual[at];
    }
    return x[at];
}

@compute @workgroup_size(THREADS)
fn main(
    @builtin(workgroup_id) workgroup: vec3<u32>,
    @builtin(num_workgroups) workgroups: vec3<u32>,
    @builtin(local_invocation_index) thread: u32,
) {
    let row = workgroup.x + workgroup.y * workgroups.x;
    if row >= parameters.rows {
        return;
    }
    let start = row * parameters.stride;
    let count = f32(parameters.width);
    var mean = 0.0;
    if parameters.kind == 0u {
        var all = vec4<f32>();
        for (var at = thread; at < parameters.stride; at += THREADS) {
            all += summed(start + at);
        }
        mean = total(thread, (all.x + all.y) + (all.z + all.w)) / count;
    }
    var squares = vec4<f32>();
    for (var at = thread; at < parameters.stride; at += THREADS) {
        // What fills the last group is no value of the row.
        let columns = 4u * at + vec4<u32>(0u, 1u, 2u, 3u);
        let difference = select(vec4<f32>(), summed(start + at) - mean, columns < vec4<u32>(parameters.width));
        squares = fma(difference, difference, squares);
    }
    let square = total(thread, (squares.x + squares.y) + (squares.z + squares.w)) / count;
    let factor = 1.0 / sqrt(square + parameters.epsilon);
    for (var at = thread; at < parameters.stride; at += THREADS) {
        let value = summed(start + at);
        if parameters.keeps_sum != 0u {
            sum[start + at] = value;
        }
        var result = (value - mean) * factor * gain[at];
        if parameters.has_bias != 0u {
            result += bias[at];
        }
        y[start + at] = result;
    }
}
