// A tile of x Wᵀ. Each thread keeps ROWS rows of four columns at two places, so that a tile may lie in both halves of a gated map.
// Every sum runs over the inputs in their order by the same steps, whatever the tile: a row's bits do not depend on its neighbours.
const ROWS = {{ROWS}}u;
const THREADS_X = {{THREADS_X}}u;
const THREADS_Y = {{THREADS_Y}}u;
const THREADS = THREADS_X * THREADS_Y;
const TILE_ROWS = ROWS * THREADS_Y;
// Groups of four columns.
const GROUPS = 2u * THREADS_X;
// Blocks of four inputs that are in workgroup memory at a time.
const BLOCKS = {{BLOCKS}}u;
// One more keeps threads that read at once on different banks.
const STRIDE = BLOCKS + 1u;

@group(0) @binding(1) var<storage, read> x: array<vec4<f32>>;
#import weights_{{FORM}}
#import sums_{{NUMBER}}

var<workgroup> tile_x: array<Four, TILE_ROWS * STRIDE>;
var<workgroup> tile_w: array<Four, 4u * BLOCKS * GROUPS>;

// Rows from `first` on, up to `end`; columns from `left` on up to `left_end` for the first half of the groups, and the same for
// the second. `blocks` are those of x's rows, `outputs` the columns of the matrix.
fn multiply(
    sums: ptr<function, array<vec4<f32>, 2u * ROWS>>,
    first: u32, end: u32,
    left: u32, left_end: u32, right: u32, right_end: u32,
    blocks: u32, outputs: u32, thread: u32,
) {
    let across = thread % THREADS_X;
    let down = thread / THREADS_X;
    for (var start = 0u; start < blocks; start += BLOCKS) {
        for (var at = thread; at < TILE_ROWS * BLOCKS; at += THREADS) {
            let row = at / BLOCKS;
            let block = start + at % BLOCKS;
            var value = vec4<f32>();
            if block < blocks {
                // A row beyond the end is computed with the last one, and dropped.
                value = x[min(first + row, end - 1u) * blocks + block];
            }
            tile_x[row * STRIDE + at % BLOCKS] = Four(value);
        }
        for (var at = thread; at < GROUPS * BLOCKS; at += THREADS) {
            let group = at % GROUPS;
            let block = start + at / GROUPS;
            let is_left = group < THREADS_X;
            let column = select(right + (group - THREADS_X) * 4u, left + group * 4u, is_left);
            let column_end = select(right_end, left_end, is_left);
            var a = vec4<f32>();
            var b = vec4<f32>();
            var c = vec4<f32>();
            var d = vec4<f32>();
            if block < blocks {
                let place = block * outputs + column;
                if column < column_end { a = four_weights(place); }
                if column + 1u < column_end { b = four_weights(place + 1u); }
                if column + 2u < column_end { c = four_weights(place + 2u); }
                if column + 3u < column_end { d = four_weights(place + 3u); }
            }
            let into = 4u * (at / GROUPS) * GROUPS + group;
            tile_w[into] = Four(vec4<f32>(a.x, b.x, c.x, d.x));
            tile_w[into + GROUPS] = Four(vec4<f32>(a.y, b.y, c.y, d.y));
            tile_w[into + 2u * GROUPS] = Four(vec4<f32>(a.z, b.z, c.z, d.z));
            tile_w[into + 3u * GROUPS] = Four(vec4<f32>(a.w, b.w, c.w, d.w));
        }
        workgroupBarrier();
        for (var block = 0u; block < BLOCKS; block++) {
            let place = 4u * block * GROUPS + across;
            let l0 = tile_w[place];
            let l1 = tile_w[place + GROUPS];
            let l2 = tile_w[place + 2u * GROUPS];
            let l3 = tile_w[place + 3u * GROUPS];
            let r0 = tile_w[place + THREADS_X];
            let r1 = tile_w[place + GROUPS + THREADS_X];
            let r2 = tile_w[place + 2u * GROUPS + THREADS_X];
            let r3 = tile_w[place + 3u * GROUPS + THREADS_X];
#repeat ROW {{ROWS}}
            {
                let value = tile_x[({{ROW}}u * THREADS_Y + down) * STRIDE + block];
                (*sums)[2u * {{ROW}}u] = added((*sums)[2u * {{ROW}}u], value, l0, l1, l2, l3);
                (*sums)[2u * {{ROW}}u + 1u] = added((*sums)[2u * {{ROW}}u + 1u], value, r0, r1, r2, r3);
            }
#end
        }
        workgroupBarrier();
    }
}
