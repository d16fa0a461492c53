//! The opened GPU: which one, what it allows, its pipelines, and whether it is still there.

use std::{
    cell::RefCell,
    collections::BTreeMap,
    fmt,
    sync::{
        Arc, Mutex, Weak,
        atomic::{AtomicBool, Ordering},
    },
};

use wgpu::{
    BindGroupLayout, BindGroupLayoutDescriptor, BindGroupLayoutEntry, BindingType, BufferBindingType, BufferDescriptor,
    BufferUsages, ComputePipeline, ComputePipelineDescriptor, DeviceDescriptor, DeviceType, Features, Instance,
    InstanceDescriptor, Limits, PipelineCompilationOptions, PipelineLayoutDescriptor, PowerPreference,
    RequestAdapterOptions, ShaderModuleDescriptor, ShaderSource, ShaderStages,
};

use super::{
    buffers::{Buffer, lock},
    plan::Kernel,
    shaders,
};
use crate::{
    error::{Code, Error, Result},
    platform::side_by_side,
};

/// Bytes that are written at a time: the host's copy is freed between two writes.
const WRITE: usize = 16 << 20;

/// A GPU with the pipelines that were used so far.
pub struct Device {
    device: wgpu::Device,
    queue: wgpu::Queue,
    name: String,
    is_software: bool,
    pipelines: Mutex<BTreeMap<Kernel, Arc<Pipeline>>>,
    state: Arc<State>,
    /// Bound where a kernel reads what a call does not have, and where it writes what a call does not want.
    nothing: [Buffer; 2],
    /// Whether its kernels were compared with the processor's: those that every model needs, and with those for words.
    tried: [AtomicBool; 2],
}

/// What the device told, at any time and from any thread.
#[derive(Debug, Default)]
struct State {
    lost: Mutex<Option<String>>,
    failure: Mutex<Option<(Code, String)>>,
}

/// A compiled kernel.
pub struct Pipeline {
    pub pipeline: ComputePipeline,
    pub layout: BindGroupLayout,
}

impl fmt::Debug for Device {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Device").field(&self.name).finish()
    }
}

fn none(message: String) -> Error {
    Error::new(Code::NoDevice, "webgpu", message)
}

impl Drop for Device {
    fn drop(&mut self) {
        // A browser would wait for its garbage collector.
        self.device.destroy();
    }
}

thread_local! {
    /// The device of the models that this thread loaded, while there are any.
    static OPENED: RefCell<Weak<Device>> = const { RefCell::new(Weak::new()) };
}

impl Device {
    /// The GPU that is open already, or else the fastest one. Where there is none the error is `no_device`.
    pub async fn open() -> Result<Arc<Self>> {
        if let Some(device) = OPENED.with_borrow(Weak::upgrade).filter(|device| device.lost().is_none()) {
            return Ok(device);
        }
        let instance = Instance::new(InstanceDescriptor::new_without_display_handle_from_env());
        let options =
            RequestAdapterOptions { power_preference: PowerPreference::HighPerformance, ..Default::default() };
        let adapter = instance.request_adapter(&options).await.map_err(|error| none(error.to_string()))?;
        let offered = adapter.limits();
        let descriptor = DeviceDescriptor {
            label: Some("wick"),
            required_features: adapter.features() & (Features::TIMESTAMP_QUERY | Features::SHADER_F16),
            // The portable limits are enough for everything but size.
            required_limits: Limits {
                max_buffer_size: offered.max_buffer_size,
                max_storage_buffer_binding_size: offered.max_storage_buffer_binding_size,
                ..Limits::defaults()
            },
            ..Default::default()
        };
        let (device, queue) = adapter.request_device(&descriptor).await.map_err(|error| none(error.to_string()))?;

        let state = Arc::new(State::default());
        let told = state.clone();
        device.set_device_lost_callback(move |reason, message| {
            *lock(&told.lost) = Some(format!("{reason:?}: {message}"));
        });
        let told = state.clone();
        // Without a handler wgpu panics. The first failure is the cause of those that follow.
        device.on_uncaptured_error(Arc::new(move |error: wgpu::Error| {
            let code = match error {
                wgpu::Error::OutOfMemory { .. } => Code::OutOfMemory,
                _ => Code::Executor,
            };
            lock(&told.failure).get_or_insert((code, error.to_string()));
        }));
        let info = adapter.get_info();
        let nothing = [0, 1].map(|_| {
            let usage = BufferUsages::STORAGE;
            Buffer::new(
                &device,
                &BufferDescriptor { label: Some("nothing"), size: 256, usage, mapped_at_creation: false },
            )
        });
        let device = Arc::new(Self {
            device,
            queue,
            // Browsers keep it to themselves.
            name: format!("{} ({})", if info.name.is_empty() { "a GPU" } else { &info.name }, info.backend),
            is_software: info.device_type == DeviceType::Cpu,
            pipelines: Mutex::default(),
            state,
            nothing,
            tried: Default::default(),
        });
        OPENED.with_borrow_mut(|opened| *opened = Arc::downgrade(&device));
        Ok(device)
    }

    /// The adapter and what it is reached by.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// Whether it is a processor that plays a GPU.
    pub fn is_software(&self) -> bool {
        self.is_software
    }

    /// Most bytes of a buffer that a kernel reads or writes.
    pub fn binding_limit(&self) -> u64 {
        let limits = self.device.limits();
        limits.max_storage_buffer_binding_size.min(limits.max_buffer_size)
    }

    /// Whether kernels may compute in half precision.
    pub fn has_half(&self) -> bool {
        self.device.features().contains(Features::SHADER_F16)
    }

    /// Whether it tells how long kernels take.
    pub fn has_clock(&self) -> bool {
        self.device.features().contains(Features::TIMESTAMP_QUERY)
    }

    /// Whether its kernels were compared with the processor's.
    pub fn was_tried(&self, has_words: bool) -> bool {
        self.tried[usize::from(has_words)].load(Ordering::Relaxed)
    }

    pub fn set_tried(&self, has_words: bool) {
        self.tried[usize::from(has_words)].store(true, Ordering::Relaxed);
    }

    /// Ends it, as a driver may at any time.
    pub fn destroy(&self) {
        self.device.destroy();
    }

    /// Why it is gone, if it is.
    pub fn lost(&self) -> Option<String> {
        lock(&self.state.lost).clone()
    }

    /// The error of commands that did not run: what was told since the last one, the loss of the device before all.
    pub fn failure(&self, at: &str) -> Error {
        let failure = lock(&self.state.failure).take();
        if let Some(reason) = self.lost() {
            return Error::new(Code::DeviceLost, at, format!("{}: {reason}", self.name));
        }
        match failure {
            Some((code, message)) => Error::new(code, at, message),
            None => Error::new(Code::Executor, at, format!("{} did not run the commands", self.name)),
        }
    }

    pub(super) fn device(&self) -> &wgpu::Device {
        &self.device
    }

    pub(super) fn queue(&self) -> &wgpu::Queue {
        &self.queue
    }

    /// A buffer for what a kernel does not read in this call.
    pub fn unread(&self) -> &Buffer {
        &self.nothing[0]
    }

    /// A buffer for what a kernel does not write in this call.
    pub fn unwritten(&self) -> &Buffer {
        &self.nothing[1]
    }

    /// A new buffer of `size` bytes, a multiple of four, with the bytes of some pieces, one after the other.
    pub fn filled(&self, label: &str, size: usize, pieces: impl Iterator<Item = Vec<u8>>) -> Buffer {
        let descriptor = BufferDescriptor {
            label: Some(label),
            size: size.max(16) as u64,
            usage: BufferUsages::STORAGE | BufferUsages::COPY_DST | BufferUsages::COPY_SRC,
            mapped_at_creation: false,
        };
        let buffer = Buffer::new(&self.device, &descriptor);
        let mut at = 0;
        for piece in pieces {
            for bytes in piece.chunks(WRITE) {
                self.queue.write_buffer(&buffer, at, bytes);
                at += bytes.len() as u64;
                if bytes.len() == WRITE {
                    self.flush();
                }
            }
        }
        buffer
    }

    /// Sends what was written off, so that its copies in the host's memory are freed.
    pub fn flush(&self) {
        self.queue.submit([]);
        // What it tells is told to the state as well.
        let _ = self.device.poll(wgpu::PollType::Poll);
    }

    /// Compiles kernels that are not yet, side by side.
    pub fn compile(&self, kernels: impl Iterator<Item = Kernel>) {
        let mut missing = Vec::new();
        let pipelines = lock(&self.pipelines);
        for kernel in kernels {
            if !pipelines.contains_key(&kernel) && !missing.contains(&kernel) {
                missing.push(kernel);
            }
        }
        drop(pipelines);
        side_by_side(&missing, |&kernel| drop(self.pipeline(kernel)));
    }

    /// A kernel, compiled when it is first asked for.
    pub(super) fn pipeline(&self, kernel: Kernel) -> Arc<Pipeline> {
        if let Some(pipeline) = lock(&self.pipelines).get(&kernel) {
            return pipeline.clone();
        }
        // Others may be compiled meanwhile.
        let pipeline = Arc::new(self.compiled(kernel));
        lock(&self.pipelines).entry(kernel).or_insert(pipeline).clone()
    }

    fn compiled(&self, kernel: Kernel) -> Pipeline {
        let (read, written) = kernel.bindings();
        let entry = |binding: usize| BindGroupLayoutEntry {
            binding: binding as u32,
            visibility: ShaderStages::COMPUTE,
            ty: BindingType::Buffer {
                ty: match binding {
                    0 => BufferBindingType::Uniform,
                    _ => BufferBindingType::Storage { read_only: binding <= read },
                },
                has_dynamic_offset: false,
                min_binding_size: None,
            },
            count: None,
        };
        let label = Some(kernel.name());
        let entries: Vec<_> = (0..=read + written).map(entry).collect();
        let layout = self.device.create_bind_group_layout(&BindGroupLayoutDescriptor { label, entries: &entries });
        let pipeline_layout = self.device.create_pipeline_layout(&PipelineLayoutDescriptor {
            label,
            bind_group_layouts: &[Some(&layout)],
            immediate_size: 0,
        });
        let source = ShaderSource::Wgsl(shaders::source(kernel).into());
        let module = self.device.create_shader_module(ShaderModuleDescriptor { label, source });
        let pipeline = self.device.create_compute_pipeline(&ComputePipelineDescriptor {
            label,
            layout: Some(&pipeline_layout),
            module: &module,
            entry_point: Some("main"),
            compilation_options: PipelineCompilationOptions {
                // Kernels write it before they read it.
                zero_initialize_workgroup_memory: false,
                ..Default::default()
            },
            cache: None,
        });
        Pipeline { pipeline, layout }
    }
}
