// activation(x Wᵀ + b), or with a gate the product of its halves of which one is activated.
#import math
#import product

struct Parameters {
    rows: u32,
    // Groups of four values of a row of x, and of a row of y.
    blocks: u32,
    y_stride: u32,
    // Columns of this part of the matrix, and of the result.
    outputs: u32,
    width: u32,
    // The first column of the result that this part gives; a multiple of four.
    first: u32,
    activation: u32,
    // 0: none, 1: the first half is activated, 2: the second.
    gate: u32,
    has_bias: u32,
    has_scales: u32,
}

@group(0) @binding(0) var<uniform> parameters: Parameters;
// By columns of the whole matrix.
@group(0) @binding(3) var<storage, read> scales: array<f32>;
@group(0) @binding(4) var<storage, read> bias: array<f32>;
@group(0) @binding(5) var<storage, read_write> y: array<vec4<f32>>;

// Four numbers of columns from `column` on; those beyond `end` are zero.
fn four(of_bias: bool, column: u32, end: u32) -> vec4<f32> {
    var values = vec4<f32>();
    for (var at = 0u; at < 4u; at++) {
        if column + at < end {
            if of_bias { values[at] = bias[column + at]; } else { values[at] = scales[column + at]; }
        }
    }
    return values;
}

@compute @workgroup_size(THREADS)
fn main(@builtin(workgroup_id) workgroup: vec3<u32>, @builtin(local_invocation_index) thread: u32) {
    let gated = parameters.gate != 0u;
    let outputs = parameters.outputs;
    let half = 4u * THREADS_X;
    // Where this tile's columns lie in the matrix: side by side, or in its halves.
    let left = select(2u * half, half, gated) * workgroup.x;
    let left_end = select(outputs, parameters.width, gated);
    let right = left + select(half, parameters.width, gated);
    let first = workgroup.y * TILE_ROWS;
    var sums: array<vec4<f32>, 2u * ROWS>;
    multiply(&sums, first, parameters.rows, left, left_end, right, outputs, parameters.blocks, outputs, thread);

    let across = 4u * (thread % THREADS_X);
    let offset = parameters.first;
    var left_scales = vec4<f32>(1.0);
    var right_scales = vec4<f32>(1.0);
    if parameters.has_scales != 0u {
        left_scales = four(false, offset + left + across, offset + left_end);
        right_scales = four(false, offset + right + across, offset + outputs);
    }
    var left_bias = vec4<f32>();
    var right_bias = vec4<f32>();
    if parameters.has_bias != 0u {
        left_bias = four(true, offset + left + across, offset + left_end);
        right_bias = four(true, offset + right + across, offset + outputs);
    }
    // Groups of columns of y. What lies beyond the width is there to fill the last group, and zero.
    let left_group = (offset + left + across) / 4u;
    let right_group = (offset + right + across) / 4u;
    let in_left = left + across + vec4<u32>(0u, 1u, 2u, 3u) < vec4<u32>(left_end);
    let in_right = right + across + vec4<u32>(0u, 1u, 2u, 3u) < vec4<u32>(outputs);
#repeat ROW {{ROWS}}
    {
        let at = first + {{ROW}}u * THREADS_Y + thread / THREADS_X;
        if at < parameters.rows {
            var a = fma(sums[2u * {{ROW}}u], left_scales, left_bias);
            var b = fma(sums[2u * {{ROW}}u + 1u], right_scales, right_bias);
            if parameters.gate != 2u { a = activated(a, parameters.activation); }
            if parameters.gate != 1u { b = activated(b, parameters.activation); }
            let place = at * parameters.y_stride;
            if gated {
                if left + across < left_end { y[place + left_group] = select(vec4<f32>(), a * b, in_left); }
            } else {
                if left + across < outputs { y[place + left_group] = select(vec4<f32>(), a, in_left); }
                if right + across < outputs { y[place + right_group] = select(vec4<f32>(), b, in_right); }
            }
        }
    }
#end
}
