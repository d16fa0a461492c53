// Dot-product attention within texts, with a running softmax: a workgroup takes some queries of a head through the text's keys, and
// scores never leave the registers. Keys come in tiles that are cut from the text's beginning, so that bits do not depend on
// what else is in the batch.
#import math

// Groups of four components of a head, rounded up.
const WIDTH = {{WIDTH}}u;
const QUERIES = 64u;
const KEYS = {{KEYS}}u;
const LOWEST = -3.4028235e38;

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
    for (var group = 0u; group < WIDTH; group++) {
        q[group] = components(start, min(query, length - 1u), 0u, head, group) * parameters.scale;
        context[group] = vec4<f32>();
    }
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
        var scores: array<vec4<f32>, KEYS / 4u>;
        var larger = most;
        for (var at = 0u; at < KEYS; at++) {
            let position = key + at;
            var score = LOWEST;
            let distance = max(position, query) - min(position, query);
            if position < length && distance <= window {
                var sum = q[0] * keys[at * WIDTH];
                for (var group = 1u; group < WIDTH; group++) {
                    sum = fma(q[group], keys[at * WIDTH + group], sum);
                }
                score = (sum.x + sum.y) + (sum.z + sum.w);
                if parameters.has_bias != 0u {
                    let reach = i32(parameters.reach);
                    let place = clamp(i32(position) - i32(query), -reach, reach) + reach;
                    score += bias[head * (2u * parameters.reach + 1u) + u32(place)];
                }
            }
            scores[at / 4u][at % 4u] = score;
            larger = max(larger, score);
        }
        let shrink = exponential(vec4<f32>(most - larger)).x;
        most = larger;
        total *= shrink;
        for (var group = 0u; group < WIDTH; group++) {
            context[group] *= shrink;
        }
        for (var four = 0u; four < KEYS / 4u; four++) {
            // The lowest score is what is not seen, also where nothing was seen so far and it is the largest.
            let seen = scores[four] > vec4<f32>(LOWEST);
            let weights = select(vec4<f32>(), exponential(scores[four] - larger), seen | (scores[four] != scores[four]));
            total += (weights.x + weights.y) + (weights.z + weights.w);
            for (var at = 0u; at < 4u; at++) {
                for (var group = 0u; group < WIDTH; group++) {
                    let value = values[(4u * four + at) * WIDTH + group];
                    context[group] = fma(vec4<f32>(weights[at]), value, context[group]);
                }
            }
        }
    }
    if query < length {
        let row = (start + query) * parameters.y_stride;
        for (var group = 0u; group < WIDTH; group++) {
            for (var at = 0u; at < 4u; at++) {
                let component = 4u * group + at;
                if component < parameters.width {
                    y[row + head * parameters.width + component] = context[group][at] / total;
                }
            }
        }
        // What fills the last group of four of a row is zero.
        if head + 1u == parameters.heads {
            for (var at = parameters.inner; at < parameters.y_stride; at++) {
                y[row + at] = 0.0;
            }
        }
    }
}
