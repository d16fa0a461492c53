//! WebGPU beneath the executor in `ops/gpu.rs`: Chromium's in a page, natively Vulkan, Metal and Direct3D 12.
//!
//! [`plan`] decides what to run in plain data and needs no device; [`shaders`] puts the WGSL of `shaders/*.wgsl` together; [`Device`] is the
//! opened GPU with its pipelines; [`Queue`] collects what a batch runs and sends it off at once. Nothing here knows of models.

mod buffers;
mod device;
pub mod plan;
mod queue;
pub mod shaders;
mod timing;

pub use buffers::{Buffer, Slot};
pub use device::Device;
pub use queue::{Binding, Dispatch, Queue};
pub use timing::{KernelTime, Profile, Work};
