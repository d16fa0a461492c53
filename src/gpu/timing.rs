//! What a queue ran, and how long each kernel took where the device has a clock.

use std::collections::BTreeMap;

use wgpu::{
    Buffer, BufferDescriptor, BufferUsages, ComputePassTimestampWrites, QuerySet, QuerySetDescriptor, QueryType,
};

use super::{Device, plan::Kernel};

/// Most dispatches of a submission that are timed; those after them are only counted.
const MOST_TIMED: usize = 2048;

/// The work of a queue since it was last asked.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Profile {
    /// Kernels that were started.
    pub dispatches: usize,
    /// How often commands were sent, each of which ends in one read.
    pub submissions: usize,
    /// By kernel, in the order of their names; empty unless times were asked for and the device tells them.
    pub kernels: BTreeMap<String, KernelTime>,
}

/// Dispatches of a kernel that were timed.
#[derive(Debug, Clone, Copy, Default, PartialEq)]
pub struct KernelTime {
    pub count: usize,
    pub milliseconds: f64,
    pub work: Work,
}

/// What a dispatch has to do, whatever the device.
#[derive(Debug, Clone, Copy, Default, PartialEq)]
pub struct Work {
    /// Products of two numbers that are added to a sum.
    pub products: f64,
    /// Bytes of the buffers that it is given, each whole: of a matrix in parts each part has all of the result.
    pub bytes: f64,
}

impl KernelTime {
    /// 1e9 floating-point operations a second, of which each product and its sum are two.
    pub fn gflops(&self) -> f64 {
        2e-6 * self.work.products / self.milliseconds.max(f64::MIN_POSITIVE)
    }

    /// 1e9 bytes a second, if nothing is read twice.
    pub fn gigabytes(&self) -> f64 {
        1e-6 * self.work.bytes / self.milliseconds.max(f64::MIN_POSITIVE)
    }
}

/// The clock's readings of a submission: before and after each dispatch.
pub struct Clock {
    queries: QuerySet,
    resolved: Buffer,
    count: usize,
}

impl Clock {
    /// For so many dispatches, where the device has a clock.
    pub fn new(device: &Device, dispatches: usize) -> Option<Self> {
        let count = dispatches.min(MOST_TIMED);
        if !device.has_clock() || count == 0 {
            return None;
        }
        let queries = device.device().create_query_set(&QuerySetDescriptor {
            label: Some("clock"),
            ty: QueryType::Timestamp,
            count: 2 * count as u32,
        });
        let resolved = device.device().create_buffer(&BufferDescriptor {
            label: Some("clock"),
            size: 16 * count as u64,
            usage: BufferUsages::QUERY_RESOLVE | BufferUsages::COPY_SRC,
            mapped_at_creation: false,
        });
        Some(Self { queries, resolved, count })
    }

    /// Bytes of the readings.
    pub fn size(&self) -> u64 {
        16 * self.count as u64
    }

    /// What a pass with dispatch `index` alone writes.
    pub fn around(&self, index: usize) -> Option<ComputePassTimestampWrites<'_>> {
        let at = 2 * index as u32;
        (index < self.count).then(|| ComputePassTimestampWrites {
            query_set: &self.queries,
            beginning_of_pass_write_index: Some(at),
            end_of_pass_write_index: Some(at + 1),
        })
    }

    /// Writes the readings to a place in a buffer.
    pub fn resolve(&self, encoder: &mut wgpu::CommandEncoder, target: &Buffer, at: u64) {
        encoder.resolve_query_set(&self.queries, 0..2 * self.count as u32, &self.resolved, 0);
        encoder.copy_buffer_to_buffer(&self.resolved, 0, target, at, self.size());
    }
}

impl Profile {
    /// Adds the readings of kernels that ran in this order, each with its work; `period` is nanoseconds of a tick.
    pub fn add(&mut self, kernels: &[(Kernel, Work)], readings: &[u8], period: f32) {
        let tick = |bytes: &[u8]| bytes.iter().rev().fold(0u64, |number, &byte| number << 8 | u64::from(byte));
        for ((kernel, work), reading) in kernels.iter().zip(readings.chunks_exact(16)) {
            let (start, end) = (tick(&reading[..8]), tick(&reading[8..]));
            let name = match kernel {
                Kernel::Linear(form, tile) | Kernel::VocabMax(form, tile) => {
                    format!("{} {} {}x{}", kernel.name(), form.name(), tile.rows(), tile.columns())
                }
                Kernel::LinearHalf(tile) => {
                    format!("{} f16 {}x{} in half", kernel.name(), tile.rows(), tile.columns())
                }
                Kernel::Attention(width) => format!("attention {width}"),
                _ => kernel.name().to_owned(),
            };
            let time = self.kernels.entry(name).or_default();
            time.count += 1;
            time.work.products += work.products;
            time.work.bytes += work.bytes;
            // Some devices' clocks run backwards between two readings.
            time.milliseconds += end.saturating_sub(start) as f64 * f64::from(period) / 1e6;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::gpu::plan::{Form, Tile};

    #[test]
    fn readings_add_up_by_kernel() {
        let linear = Kernel::Linear(Form::F16, Tile::Small);
        let readings = [[10u64, 1_000_010], [20, 500_020], [30, 20]];
        let bytes: Vec<u8> = readings.iter().flatten().flat_map(|tick| tick.to_le_bytes()).collect();
        let mut profile = Profile::default();
        let work = |products, bytes| Work { products, bytes };
        profile.add(&[(linear, work(3e9, 5e6)), (Kernel::Add, work(0.0, 1e3)), (linear, work(1e9, 1e6))], &bytes, 2.0);
        let linear = KernelTime { count: 2, milliseconds: 2.0, work: work(4e9, 6e6) };
        assert!((linear.gflops() - 4000.0).abs() < 1e-9 && (linear.gigabytes() - 3.0).abs() < 1e-9);
        assert_eq!(profile.kernels["linear f16 16x64"], linear);
        assert_eq!(profile.kernels["add"], KernelTime { count: 1, milliseconds: 1.0, work: work(0.0, 1e3) });
    }
}
