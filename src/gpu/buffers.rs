//! Memory of the device, and buffers of activations, that are kept from batch to batch.
//!
//! One of those may be given back while commands that read it are recorded but not yet sent: whoever takes it next writes it by commands that are
//! recorded later, and the device runs commands in their order. The host never writes into these buffers.

use std::{
    mem,
    ops::Deref,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use wgpu::{BufferDescriptor, BufferUsages};

use super::{Device, plan};

/// What is kept is whole at every moment, also where a thread panicked that held it.
pub fn lock<T>(kept: &Mutex<T>) -> MutexGuard<'_, T> {
    kept.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Memory of the device, cloned like a pointer and freed with the last clone. By itself a browser would free it when it collects garbage, and does not
/// count it for that.
#[derive(Debug, Clone)]
pub struct Buffer(Arc<Owned>);

#[derive(Debug)]
struct Owned(wgpu::Buffer);

impl Buffer {
    pub fn new(device: &wgpu::Device, descriptor: &BufferDescriptor) -> Self {
        Self(Arc::new(Owned(device.create_buffer(descriptor))))
    }
}

impl Deref for Buffer {
    type Target = wgpu::Buffer;

    fn deref(&self) -> &wgpu::Buffer {
        &self.0.0
    }
}

impl Drop for Owned {
    fn drop(&mut self) {
        // What was submitted before still runs.
        self.0.destroy();
    }
}

/// Buffers that nobody uses.
#[derive(Debug, Default)]
pub struct Pool {
    kept: Mutex<Kept>,
}

#[derive(Debug, Default)]
struct Kept {
    buffers: Vec<Buffer>,
    /// Counts failures: buffers from before the last one may be invalid, and are not kept.
    generation: usize,
}

/// A buffer in use, which goes back when it is dropped.
#[derive(Debug)]
pub struct Slot {
    buffer: Buffer,
    generation: usize,
    pool: Arc<Pool>,
}

impl Pool {
    /// A buffer of at least `size` bytes with any content: the smallest that is large enough, or a new one.
    pub fn take(self: &Arc<Self>, device: &Device, size: u64) -> Slot {
        let mut kept = lock(&self.kept);
        let fitting = kept.buffers.iter().enumerate().filter(|(_, buffer)| buffer.size() >= size);
        let best = fitting.min_by_key(|(_, buffer)| buffer.size()).map(|(index, _)| index);
        let generation = kept.generation;
        let buffer = match best {
            Some(index) => kept.buffers.swap_remove(index),
            None => {
                drop(kept);
                let descriptor = BufferDescriptor {
                    label: Some("activations"),
                    size: plan::capacity(size),
                    usage: BufferUsages::STORAGE | BufferUsages::COPY_SRC | BufferUsages::COPY_DST,
                    mapped_at_creation: false,
                };
                Buffer::new(device.device(), &descriptor)
            }
        };
        Slot { buffer, generation, pool: self.clone() }
    }

    /// Forgets all buffers, those in use too.
    pub fn clear(&self) {
        let mut kept = lock(&self.kept);
        kept.generation += 1;
        drop(mem::take(&mut kept.buffers));
    }
}

impl Slot {
    pub fn buffer(&self) -> &Buffer {
        &self.buffer
    }
}

impl Drop for Slot {
    fn drop(&mut self) {
        let mut kept = lock(&self.pool.kept);
        if kept.generation == self.generation {
            kept.buffers.push(self.buffer.clone());
        }
    }
}
