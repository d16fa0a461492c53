// Of each row its entries that are above zero or no finite number, in any order: a workgroup takes a row.
struct Parameters {
    rows: u32,
    width: u32,
    x_stride: u32,
    // Most entries that are written of a row.
    most: u32,
}

@group(0) @binding(0) var<uniform> parameters: Parameters;
@group(0) @binding(1) var<storage, read> x: array<u32>;
// For each row the number of its entries, and these: index and value.
@group(0) @binding(2) var<storage, read_write> y: array<vec2<u32>>;

var<workgroup> count: atomic<u32>;

@compute @workgroup_size(256)
fn main(
    @builtin(workgroup_id) workgroup: vec3<u32>,
    @builtin(num_workgroups) workgroups: vec3<u32>,
    @builtin(local_invocation_index) thread: u32,
) {
    let row = workgroup.x + workgroup.y * workgroups.x;
    if row >= parameters.rows {
        return;
    }
    if thread == 0u {
        atomicStore(&count, 0u);
    }
    workgroupBarrier();
    let start = row * (parameters.most + 1u);
    for (var column = thread; column < parameters.width; column += 256u) {
        // By its bits: comparisons of what is no number may be decided either way. Positive ones come after zero, with infinity and
        // what is no number; the last are the same with the sign.
        let bits = x[row * parameters.x_stride + column];
        if bits - 1u < 0x7fffffffu || bits >= 0xff800000u {
            let place = atomicAdd(&count, 1u);
            if place < parameters.most {
                y[start + 1u + place] = vec2<u32>(column, bits);
            }
        }
    }
    workgroupBarrier();
    if thread == 0u {
        y[start] = vec2<u32>(atomicLoad(&count), 0u);
    }
}
