// Nothing but fused steps in registers: as many as a device can do. Eight sums of each thread do not wait for each other.

struct Parameters {
    steps: u32,
}

@group(0) @binding(0) var<uniform> parameters: Parameters;
@group(0) @binding(1) var<storage, read_write> y: array<vec4<f32>>;

@compute @workgroup_size(256)
fn main(@builtin(workgroup_id) workgroup: vec3<u32>, @builtin(local_invocation_index) thread: u32) {
    // Not known to a compiler, and never so large that sums overflow.
    let x = vec4<f32>(0.5) + vec4<f32>(f32(thread)) * 1e-4;
    var sums: array<vec4<f32>, 8>;
    for (var step = 0u; step < parameters.steps; step++) {
#repeat SUM 8
        sums[{{SUM}}] = fma(sums[{{SUM}}], x, vec4<f32>({{SUM}}.0));
#end
    }
    y[workgroup.x * 256u + thread] = ((sums[0] + sums[1]) + (sums[2] + sums[3])) + ((sums[4] + sums[5]) + (sums[6] + sums[7]));
}
