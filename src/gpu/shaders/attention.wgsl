// Dot-product attention within texts, with a running softmax: a workgroup takes some queries of a head through the text's keys, and
// scores never leave the registers. Keys come in tiles that are cut from the text's beginning, so that bits do not depend on
// what else is in the batch.
#import math

// Groups of four components of a head, rounded up.
const WIDTH = {{WIDTH}}u;
const QUERIES = 64u;
// Keys and values of a tile take 16 KiB where heads are widest.
const KEYS = 16u;
const LOWEST = -3.4e38;

struct Parameters {
    tiles: u32,
    heads: u32,
    // Components of a head, of all heads, and values of a row of qkv and of y.
    width: u32,
    inner: u32,
    stride: u32,
    y_stride: u32,
    scale: f32,
    // How far a token sees to either side.
    window: u32,
    has_rotations: u32,
    // Numbers that are added to scores go from -reach to reach, those of a head one after the other.
    has_bias: u32,
    reach: u32,
}

@group(0) @binding(0) var<uniform> parameters: Parameters;
@group(0) @binding(1) var<storage, read> qkv: array<f32>;
// The first token of a text, the text's length, and the first query of the tile.
@group(0) @binding(2) var<storage, read> tiles: array<vec4<u32>>;
// Cosine and sine by position and pair of components.
@group(0) @binding(3) var<storage, read> rotations: array<vec2<f32>>;
@group(0) @binding(4) var<storage, read> bias: array<f32>;
@group(0) @binding(5) var<storage, read_write> y: array<f32>;

var<workgroup> keys: array<vec4<f32>, KEYS * WIDTH>;
var<workgroup> values: array<vec4<f32>, KEYS * WIDTH>;

// Four components of q (part 0), k (1) or v (2) of a token of a text that begins at `start`, rotated by its position.
fn components(start: u32, position: u32, part: u32, head: u32, group: u32) -> vec4<f32> {
    let width = parameters.width;
    let place = (start + position) * parameters.stride + part * parameters.inner + head * width;
    var result = vec4<f32>();
    for (var at = 0u; at < 4u; at++) {
        let component = 4u * group + at;
        if component < width {
            var value = qkv[place + component];
            if parameters.has_rotations != 0u && part < 2u {
                let half = width / 2u;
                let in_first = component < half;
                let pair = select(component - half, component, in_first);
                let rotation = rotations[position * half + pair];
                let other = qkv[place + select(pair, pair + half, in_first)];
                value = value * rotation.x + select(other, -other, in_first) * rotation.y;
            }
            result[at] = value;
        }
    }
    return result;
}

fn total_of(x: vec4<f32>) -> f32 {
    return (x.x + x.y) + (x.z + x.w);
}

// Writes the components of a group that the head has.
fn put(place: u32, group: u32, value: vec4<f32>) {
    for (var at = 0u; at < 4u; at++) {
        if 4u * group + at < parameters.width {
            y[place + 4u * group + at] = value[at];
        }
    }
}

@compute @workgroup_size(QUERIES)
fn main(
    @builtin(workgroup_id) workgroup: vec3<u32>,
    @builtin(num_workgroups) workgroups: vec3<u32>,
    @builtin(local_invocation_index) thread: u32,
) {
    let number = workgroup.x + workgroup.z * workgroups.x;
    if number >= parameters.tiles {
        return;
    }
    let tile = tiles[number];
    let head = workgroup.y;
    let start = tile.x;
    let length = tile.y;
    let query = tile.z + thread;
    let window = parameters.window;
    var q: array<vec4<f32>, WIDTH>;
    var context: array<vec4<f32>, WIDTH>;
#repeat GROUP {{WIDTH}}
    q[{{GROUP}}] = components(start, min(query, length - 1u), 0u, head, {{GROUP}}u) * parameters.scale;
    context[{{GROUP}}] = vec4<f32>();
#end
    var most = LOWEST;
    var total = 0.0;
    // What the tile's first and last query see.
    let first = tile.z - min(tile.z, window);
    let last = min(tile.z + QUERIES, length) - 1u;
    let end = min(length - last - 1u, window) + last + 1u;
    for (var key = first / KEYS * KEYS; key < end; key += KEYS) {
        workgroupBarrier();
        for (var at = thread; at < KEYS * WIDTH; at += QUERIES) {
            // A key beyond the end is the last one, which is then not seen.
            let position = min(key + at / WIDTH, length - 1u);
            keys[at] = components(start, position, 1u, head, at % WIDTH);
            values[at] = components(start, position, 2u, head, at % WIDTH);
        }
        workgroupBarrier();
        // Four keys at a time; a thread without a query waits for the others.
        let count = select(0u, min(KEYS, end - key), query < length);
        for (var four = 0u; four < count; four += 4u) {
            let place = four * WIDTH;
            var a = vec4<f32>();
            var b = vec4<f32>();
            var c = vec4<f32>();
            var d = vec4<f32>();
#repeat GROUP {{WIDTH}}
            a = fma(q[{{GROUP}}], keys[place + {{GROUP}}u], a);
            b = fma(q[{{GROUP}}], keys[place + WIDTH + {{GROUP}}u], b);
            c = fma(q[{{GROUP}}], keys[place + 2u * WIDTH + {{GROUP}}u], c);
            d = fma(q[{{GROUP}}], keys[place + 3u * WIDTH + {{GROUP}}u], d);
#end
            let position = key + four + vec4<u32>(0u, 1u, 2u, 3u);
            var scores = vec4<f32>(total_of(a), total_of(b), total_of(c), total_of(d));
            if parameters.has_bias != 0u {
                let reach = i32(parameters.reach);
                let distance = clamp(vec4<i32>(position) - i32(query), vec4<i32>(-reach), vec4<i32>(reach));
                let place = head * (2u * parameters.reach + 1u) + vec4<u32>(distance + reach);
                scores += vec4<f32>(bias[place.x], bias[place.y], bias[place.z], bias[place.w]);
            }
            let distance = max(position, vec4<u32>(query)) - min(position, vec4<u32>(query));
            let seen = (position < vec4<u32>(length)) & (distance <= vec4<u32>(window));
            let visible = select(vec4<f32>(LOWEST), scores, seen);
            let larger = max(max(max(visible.x, visible.y), max(visible.z, visible.w)), most);
            let shrink = exponential(vec4<f32>(most - larger)).x;
            // Where nothing was seen so far the largest is the lowest, and what is not seen must still weigh nothing.
            let weights = select(vec4<f32>(), exponential(visible - larger), seen);
            total = fma(total, shrink, total_of(weights));
            most = larger;
#repeat GROUP {{WIDTH}}
            {
                var sum = context[{{GROUP}}] * shrink;
                sum = fma(vec4<f32>(weights.x), values[place + {{GROUP}}u], sum);
                sum = fma(vec4<f32>(weights.y), values[place + WIDTH + {{GROUP}}u], sum);
                sum = fma(vec4<f32>(weights.z), values[place + 2u * WIDTH + {{GROUP}}u], sum);
                context[{{GROUP}}] = fma(vec4<f32>(weights.w), values[place + 3u * WIDTH + {{GROUP}}u], sum);
            }
#end
        }
    }
    if query < length {
        let row = (start + query) * parameters.y_stride;
        let place = row + head * parameters.width;
#repeat GROUP {{WIDTH}}
        put(place, {{GROUP}}u, context[{{GROUP}}] / total);
#end
        // What fills the last group of four of a row is zero.
        if head + 1u == parameters.heads {
            for (var at = parameters.inner; at < parameters.y_stride; at++) {
                y[row + at] = 0.0;
            }
        }
    }
}
