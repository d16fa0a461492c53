//! Puts shaders together: `{{NAME}}` becomes a constant's value, a line `#import name` the file of that name, and the lines between
//! `#repeat NAME count` and `#end` stand so many times, with `NAME` from zero on. Loops over registers are written so, because not every compiler
//! unrolls them, and registers that are indexed by a variable are none.

use super::plan::Kernel;

const FILES: [(&str, &str); 17] = [
    ("add", include_str!("shaders/add.wgsl")),
    ("attention", include_str!("shaders/attention.wgsl")),
    ("compact", include_str!("shaders/compact.wgsl")),
    ("gate", include_str!("shaders/gate.wgsl")),
    ("linear", include_str!("shaders/linear.wgsl")),
    ("math", include_str!("shaders/math.wgsl")),
    ("nan", include_str!("shaders/nan.wgsl")),
    ("norm", include_str!("shaders/norm.wgsl")),
    ("peak", include_str!("shaders/peak.wgsl")),
    ("pool", include_str!("shaders/pool.wgsl")),
    ("product", include_str!("shaders/product.wgsl")),
    ("sums_f16", include_str!("shaders/sums_f16.wgsl")),
    ("sums_f32", include_str!("shaders/sums_f32.wgsl")),
    ("vocab_max", include_str!("shaders/vocab_max.wgsl")),
    ("weights_f16", include_str!("shaders/weights_f16.wgsl")),
    ("weights_f32", include_str!("shaders/weights_f32.wgsl")),
    ("weights_int8", include_str!("shaders/weights_int8.wgsl")),
];

/// The whole source of a kernel.
pub fn source(kernel: Kernel) -> String {
    let enable = if kernel.is_half() { "enable f16;\n" } else { "" };
    enable.to_owned() + &expanded(kernel.name(), &kernel.constants())
}

fn expanded(name: &str, constants: &[(&str, String)]) -> String {
    let file = FILES.iter().find(|(file, _)| *file == name);
    let (_, text) =
        file.unwrap_or_else(|| panic!("there is no shader {name}, which the tests of this file would have found"));
    let text = constants.iter().fold((*text).to_owned(), |text: String, (name, value)| replaced(&text, name, value));
    let mut source = String::with_capacity(2 * text.len());
    let mut lines = text.lines();
    while let Some(line) = lines.next() {
        if let Some(name) = line.strip_prefix("#import ") {
            source.push_str(&expanded(name, constants));
        } else if let Some((name, count)) = line.strip_prefix("#repeat ").and_then(|rest| rest.split_once(' ')) {
            let body: String =
                lines.by_ref().take_while(|line| *line != "#end").flat_map(|line| [line, "\n"]).collect();
            let count = count.parse().unwrap_or(0);
            source.extend((0..count).map(|at: usize| replaced(&body, name, &at.to_string())));
        } else {
            source.push_str(line);
            source.push('\n');
        }
    }
    source
}

fn replaced(text: &str, name: &str, value: &str) -> String {
    text.replace(&format!("{{{{{name}}}}}"), value)
}

#[cfg(test)]
mod tests {
    use naga::{AddressSpace, StorageAccess, front::wgsl, valid};

    use super::*;

    /// Each variant is valid WGSL, asks for nothing but the core of it (of which unpacking half precision is a part) and, where its plan says so, for half precision, keeps the portable
    /// limits, and has the bindings that its plan says.
    #[test]
    fn every_kernel_is_valid_without_a_device() {
        for kernel in Kernel::all() {
            let source = source(kernel);
            assert!(!source.contains("{{") && !source.contains('#'), "{kernel:?}");
            assert_eq!(source.contains("enable "), kernel.is_half(), "{kernel:?}");
            let module = wgsl::parse_str(&source)
                .unwrap_or_else(|error| panic!("{kernel:?}: {}", error.emit_to_string(&source)));
            let half =
                if kernel.is_half() { valid::Capabilities::SHADER_FLOAT16 } else { valid::Capabilities::empty() };
            let core = valid::Capabilities::SHADER_FLOAT16_IN_FLOAT32 | half;
            let mut validator = valid::Validator::new(valid::ValidationFlags::all(), core);
            let info = validator.validate(&module);
            info.unwrap_or_else(|error| panic!("{kernel:?}: {}", error.emit_to_string(&source)));

            let [entry] = module.entry_points.as_slice() else { panic!("{kernel:?}: entry points") };
            let threads: u32 = entry.workgroup_size.iter().product();
            assert!(entry.name == "main" && threads <= 256, "{kernel:?} has {threads} threads");
            let mut layouter = naga::proc::Layouter::default();
            layouter.update(module.to_ctx()).expect("a layout");
            let (mut reads, mut writes, mut uniforms, mut workgroup) = (Vec::new(), Vec::new(), Vec::new(), 0);
            for (_, variable) in module.global_variables.iter() {
                let binding = variable.binding.as_ref().map(|binding| binding.binding as usize);
                match variable.space {
                    AddressSpace::Uniform => uniforms.extend(binding),
                    AddressSpace::Storage { access } if access.contains(StorageAccess::STORE) => writes.extend(binding),
                    AddressSpace::Storage { .. } => reads.extend(binding),
                    AddressSpace::WorkGroup => workgroup += layouter[variable.ty].size,
                    other => panic!("{kernel:?}: {other:?}"),
                }
            }
            assert!(workgroup <= 16_384, "{kernel:?} has {workgroup} bytes for its workgroup");
            reads.sort_unstable();
            writes.sort_unstable();
            let (read, written) = kernel.bindings();
            assert!(read + written <= 8, "{kernel:?}");
            assert_eq!(uniforms, [0], "{kernel:?}");
            assert_eq!(reads, (1..=read).collect::<Vec<_>>(), "{kernel:?} reads");
            assert_eq!(writes, (read + 1..=read + written).collect::<Vec<_>>(), "{kernel:?} writes");
        }
    }
}
