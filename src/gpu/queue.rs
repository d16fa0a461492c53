//! Collects what a batch runs and sends it off at once.
//!
//! Commands are plain data until a result is read: then they are encoded, submitted together and the result is mapped. Small numbers (parameters,
//! spans) go through buffers that are written once for each submission, so that nothing recorded can be overwritten before it ran.

use std::{
    mem,
    sync::{Arc, Mutex, MutexGuard},
    task::{Poll, Waker},
};

use wgpu::{
    BindGroupDescriptor, BindGroupEntry, BindingResource, BufferBinding, BufferDescriptor, BufferUsages,
    CommandEncoder, ComputePass, ComputePassDescriptor, MapMode, PollType,
};

use super::{
    Device, Profile, Slot,
    buffers::{Buffer, Pool, lock},
    plan::{Grid, Kernel, MOST_WORKGROUPS},
    timing::{Clock, Work},
};
use crate::error::{Code, Error, Result};

/// Bytes of a buffer for what the host sends; larger pieces get one of their own.
const CHUNK: usize = 1 << 20;

/// Where pieces begin in it: what every device can bind at.
const ALIGNMENT: usize = 256;

/// Bytes that follow a result, and say that its commands ran.
const RECEIPT: u64 = 16;

/// A part of a buffer.
#[derive(Debug, Clone)]
pub struct Binding {
    pub buffer: Buffer,
    /// In bytes.
    pub offset: u64,
    pub size: u64,
}

impl Binding {
    /// All of a buffer.
    pub fn whole(buffer: &Buffer) -> Self {
        Self { buffer: buffer.clone(), offset: 0, size: buffer.size() }
    }

    fn resource(&self) -> BindingResource<'_> {
        let Self { buffer, offset, size } = self;
        BindingResource::Buffer(BufferBinding { buffer, offset: *offset, size: (*size).try_into().ok() })
    }

    /// The first bytes of a buffer.
    pub fn first(buffer: &Buffer, size: u64) -> Self {
        Self { buffer: buffer.clone(), offset: 0, size: size.max(16) }
    }
}

/// A kernel's start.
#[derive(Debug)]
pub struct Dispatch<'a> {
    pub kernel: Kernel,
    pub grid: Grid,
    /// The kernel's `Parameters`, word by word.
    pub parameters: &'a [u32],
    /// In the order of its bindings.
    pub buffers: &'a [Binding],
    /// Products that it adds up, for who measures.
    pub products: f64,
}

enum Command {
    Dispatch { kernel: Kernel, grid: Grid, bindings: Vec<Binding>, work: Work },
    Copy { source: Binding, target: Buffer },
}

/// A buffer for what the host sends, and what it is to hold.
struct Chunk {
    buffer: Buffer,
    bytes: Vec<u8>,
}

/// What runs next on a device, for one model.
pub struct Queue {
    device: Arc<Device>,
    pool: Arc<Pool>,
    state: Mutex<State>,
}

#[derive(Default)]
struct State {
    commands: Vec<Command>,
    chunks: Vec<Chunk>,
    /// Buffers that results are mapped in.
    landings: Vec<Buffer>,
    submissions: u32,
    is_timed: bool,
    profile: Profile,
}

/// Commands under way: what one holder records stays together.
pub struct Recorder<'a> {
    device: &'a Device,
    state: MutexGuard<'a, State>,
}

impl Queue {
    pub fn new(device: Arc<Device>) -> Self {
        Self { device, pool: Arc::default(), state: Mutex::default() }
    }

    pub fn device(&self) -> &Arc<Device> {
        &self.device
    }

    /// A buffer for `size` bytes of activations.
    pub fn slot(&self, size: u64) -> Result<Slot> {
        let limit = self.device.binding_limit();
        if size > limit {
            let message = format!("activations of {size} bytes are more than the {limit} that the device binds");
            return Err(Error::new(Code::OutOfMemory, "webgpu", message));
        }
        Ok(self.pool.take(&self.device, size))
    }

    pub fn record(&self) -> Recorder<'_> {
        Recorder { device: &self.device, state: lock(&self.state) }
    }

    /// Whether to time kernels from here on.
    pub fn set_timing(&self, is_timed: bool) {
        lock(&self.state).is_timed = is_timed;
    }

    /// What ran since this was last asked.
    pub fn take_profile(&self) -> Profile {
        mem::take(&mut lock(&self.state).profile)
    }

    /// Sends all that was recorded, and gives the bytes of some buffers, one after the other, once it ran.
    pub async fn read(&self, sources: &[Binding]) -> Result<Vec<u8>> {
        let sent = self.send(sources);
        let answer = Answer::default();
        let answered = answer.clone();
        sent.landing.map_async(MapMode::Read, 0..sent.mapped, move |result| answered.give(result.is_ok()));
        // Natively this waits for the device; in a page the event loop does.
        let _ = self.device.device().poll(PollType::wait_indefinitely());
        let mapped = answer.await;
        let bytes = match mapped {
            true => sent.landing.get_mapped_range(0..sent.mapped).ok().map(|view| view.to_vec()),
            false => None,
        };
        // Commands that the device refused leave the buffer as it was, also where nothing else tells of it.
        let receipt = |bytes: &Vec<u8>| bytes[sent.size as usize..][..4] == sent.receipt.to_le_bytes();
        let Some(mut bytes) = bytes.filter(receipt).filter(|_| self.device.lost().is_none()) else {
            self.pool.clear();
            let mut state = lock(&self.state);
            // Another thread may be recording: what it sent along is still to be written.
            state.chunks.retain(|chunk| !chunk.bytes.is_empty());
            state.landings.clear();
            return Err(self.device.failure("webgpu"));
        };
        sent.landing.unmap();
        let mut state = lock(&self.state);
        state.landings.push(sent.landing);
        let clock = (sent.size + RECEIPT) as usize;
        state.profile.add(&sent.timed, &bytes[clock..], self.device.queue().get_timestamp_period());
        drop(state);
        bytes.truncate(sent.size as usize);
        Ok(bytes)
    }

    fn send(&self, sources: &[Binding]) -> Sent {
        let mut recorder = self.record();
        recorder.state.submissions = recorder.state.submissions.wrapping_add(1).max(1);
        let receipt = recorder.state.submissions;
        let proof = recorder.upload(&receipt.to_le_bytes());
        let state = &mut *recorder.state;
        let commands = mem::take(&mut state.commands);
        let kernels: Vec<(Kernel, Work)> = commands
            .iter()
            .filter_map(|command| match command {
                Command::Dispatch { kernel, work, .. } => Some((*kernel, *work)),
                Command::Copy { .. } => None,
            })
            .collect();
        let clock = if state.is_timed { Clock::new(&self.device, kernels.len()) } else { None };
        let size: u64 = sources.iter().map(|source| source.size).sum();
        let mapped = size + RECEIPT + clock.as_ref().map_or(0, Clock::size);
        let landing = self.landing(state, mapped);

        let mut encoder = self.device.device().create_command_encoder(&Default::default());
        self.device.compile(kernels.iter().map(|(kernel, _)| *kernel));
        self.encode(&mut encoder, &commands, clock.as_ref());
        let mut at = 0;
        for source in sources {
            encoder.copy_buffer_to_buffer(&source.buffer, source.offset, &landing, at, source.size);
            at += source.size;
        }
        encoder.copy_buffer_to_buffer(&proof.buffer, proof.offset, &landing, at, 4);
        if let Some(clock) = &clock {
            clock.resolve(&mut encoder, &landing, at + RECEIPT);
        }
        for chunk in state.chunks.iter_mut().filter(|chunk| !chunk.bytes.is_empty()) {
            self.device.queue().write_buffer(&chunk.buffer, 0, &chunk.bytes);
            // What is written for the next submission comes after this one.
            chunk.bytes.clear();
        }
        self.device.queue().submit([encoder.finish()]);
        state.profile.dispatches += kernels.len();
        state.profile.submissions += 1;
        let timed = if clock.is_some() { kernels } else { Vec::new() };
        Sent { landing, size, mapped, receipt, timed }
    }

    /// A buffer that is mapped when all is done.
    fn landing(&self, state: &mut State, size: u64) -> Buffer {
        let kept = state.landings.iter().position(|buffer| buffer.size() >= size);
        match kept {
            Some(index) => state.landings.swap_remove(index),
            None => {
                let descriptor = BufferDescriptor {
                    label: Some("results"),
                    size: super::plan::capacity(size),
                    usage: BufferUsages::MAP_READ | BufferUsages::COPY_DST,
                    mapped_at_creation: false,
                };
                Buffer::new(self.device.device(), &descriptor)
            }
        }
    }

    fn encode(&self, encoder: &mut CommandEncoder, commands: &[Command], clock: Option<&Clock>) {
        // One pass for all, but where each is timed.
        let mut pass: Option<ComputePass<'static>> = None;
        let mut index = 0;
        for command in commands {
            match command {
                Command::Copy { source, target } => {
                    pass = None;
                    encoder.copy_buffer_to_buffer(&source.buffer, source.offset, target, 0, source.size);
                }
                Command::Dispatch { kernel, grid, bindings, .. } => {
                    let pipeline = self.device.pipeline(*kernel);
                    let entries: Vec<_> = bindings
                        .iter()
                        .zip(0..)
                        .map(|(buffer, binding)| BindGroupEntry { binding, resource: buffer.resource() })
                        .collect();
                    let group = self.device.device().create_bind_group(&BindGroupDescriptor {
                        label: Some(kernel.name()),
                        layout: &pipeline.layout,
                        entries: &entries,
                    });
                    if clock.is_some() {
                        pass = None;
                    }
                    let pass = pass.get_or_insert_with(|| {
                        let timestamp_writes = clock.and_then(|clock| clock.around(index));
                        let descriptor = ComputePassDescriptor { label: None, timestamp_writes };
                        encoder.begin_compute_pass(&descriptor).forget_lifetime()
                    });
                    pass.set_pipeline(&pipeline.pipeline);
                    pass.set_bind_group(0, &group, &[]);
                    let [x, y, z] = *grid;
                    pass.dispatch_workgroups(x, y, z);
                    index += 1;
                }
            }
        }
    }
}

/// A submission under way.
struct Sent {
    landing: Buffer,
    /// Bytes of the result, before the receipt.
    size: u64,
    /// Bytes of all that is read.
    mapped: u64,
    receipt: u32,
    timed: Vec<(Kernel, Work)>,
}

impl Recorder<'_> {
    /// Sends some numbers along; they are there for what is recorded before the recorder is dropped.
    pub fn upload(&mut self, bytes: &[u8]) -> Binding {
        let size = bytes.len().max(16).next_multiple_of(16);
        let start = |chunk: &Chunk| chunk.bytes.len().next_multiple_of(ALIGNMENT);
        let fits = |chunk: &Chunk| start(chunk) + size <= chunk.buffer.size() as usize;
        let chunks = &mut self.state.chunks;
        let index = chunks.iter().position(fits).unwrap_or_else(|| {
            let descriptor = BufferDescriptor {
                label: Some("uploads"),
                size: size.max(CHUNK).next_multiple_of(CHUNK) as u64,
                usage: BufferUsages::UNIFORM | BufferUsages::STORAGE | BufferUsages::COPY_DST | BufferUsages::COPY_SRC,
                mapped_at_creation: false,
            };
            let buffer = Buffer::new(self.device.device(), &descriptor);
            chunks.push(Chunk { buffer, bytes: Vec::new() });
            chunks.len() - 1
        });
        let chunk = &mut chunks[index];
        let offset = start(chunk);
        chunk.bytes.resize(offset, 0);
        chunk.bytes.extend_from_slice(bytes);
        chunk.bytes.resize(offset + size, 0);
        Binding { buffer: chunk.buffer.clone(), offset: offset as u64, size: size as u64 }
    }

    /// Copies to the beginning of a buffer.
    pub fn copy(&mut self, source: Binding, target: &Buffer) {
        self.state.commands.push(Command::Copy { source, target: target.clone() });
    }

    /// Starts a kernel after all that was recorded.
    pub fn dispatch(&mut self, dispatch: &Dispatch) -> Result<()> {
        let Dispatch { kernel, grid, parameters, buffers, products } = *dispatch;
        let (read, written) = kernel.bindings();
        if buffers.len() != read + written || grid.iter().any(|&count| count as usize > MOST_WORKGROUPS) {
            let message = format!("{kernel:?} of {grid:?} workgroups with {} buffers", buffers.len());
            return Err(Error::new(Code::Executor, "webgpu", message));
        }
        if grid.contains(&0) {
            return Ok(());
        }
        let bytes: Vec<u8> = parameters.iter().flat_map(|word| word.to_le_bytes()).collect();
        let mut bindings = vec![self.upload(&bytes)];
        bindings.extend_from_slice(buffers);
        let work = Work { products, bytes: buffers.iter().map(|buffer| buffer.size as f64).sum() };
        self.state.commands.push(Command::Dispatch { kernel, grid, bindings, work });
        Ok(())
    }
}

/// A callback's word, awaited.
#[derive(Clone, Default)]
struct Answer(Arc<Mutex<(Option<bool>, Option<Waker>)>>);

impl Answer {
    fn give(&self, answer: bool) {
        let mut state = lock(&self.0);
        state.0 = Some(answer);
        if let Some(waker) = state.1.take() {
            waker.wake();
        }
    }
}

impl Future for Answer {
    type Output = bool;

    fn poll(self: std::pin::Pin<&mut Self>, context: &mut std::task::Context<'_>) -> Poll<bool> {
        let mut state = lock(&self.0);
        match state.0 {
            Some(answer) => Poll::Ready(answer),
            None => {
                state.1 = Some(context.waker().clone());
                Poll::Pending
            }
        }
    }
}
