// The product of the two halves of each row, of which one is activated: for maps whose weights lie in several buffers.
#import math

struct Parameters {
    rows: u32,
    width: u32,
    // Values of a row of x, and of a row of y.
    x_stride: u32,
    y_stride: u32,
    activation: u32,
    // 1: the first half is activated, 2: the second.
    gate: u32,
}

@group(0) @binding(0) var<uniform> parameters: Parameters;
@group(0) @binding(1) var<storage, read> x: array<f32>;
@group(0) @binding(2) var<storage, read_write> y: array<f32>;

@compute @workgroup_size(256)
fn main(
    @builtin(workgroup_id) workgroup: vec3<u32>,
    @builtin(num_workgroups) workgroups: vec3<u32>,
    @builtin(local_invocation_index) thread: u32,
) {
    let at = (workgroup.x + workgroup.y * workgroups.x) * 256u + thread;
    let row = at / parameters.y_stride;
    let column = at % parameters.y_stride;
    if row >= parameters.rows {
        return;
    }
    var value = 0.0;
    if column < parameters.width {
        let place = row * parameters.x_stride + column;
        var halves = vec4<f32>(x[place], x[place + parameters.width], 0.0, 0.0);
        if parameters.gate == 1u {
            value = activated(halves, parameters.activation).x * halves.y;
        } else {
            value = halves.x * activated(halves, parameters.activation).y;
        }
    }
    y[at] = value;
}
