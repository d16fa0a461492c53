//! Memory that begins where a cache line does, so that no vector of a panel lies on two lines.

use std::marker::PhantomData;

/// A cache line, and the widest vector.
#[derive(Debug, Clone, Copy)]
#[repr(C, align(64))]
struct Line([u8; 64]);

/// Numbers for which any bytes are a value.
///
/// # Safety
/// Implemented only for types without padding of which every bit pattern is valid, and whose alignment is at most a line's.
pub unsafe trait Number: Copy + Default + Send + Sync + 'static {}
// SAFETY: numbers of the language, and a pair of two of them of four bytes each.
unsafe impl Number for f32 {}
unsafe impl Number for i32 {}
unsafe impl Number for u16 {}
unsafe impl Number for i8 {}
unsafe impl Number for u8 {}

/// A growable array of numbers in aligned memory.
#[derive(Debug, Clone, Default)]
pub struct Aligned<T> {
    lines: Vec<Line>,
    length: usize,
    kind: PhantomData<T>,
}

impl<T: Number> Aligned<T> {
    /// Zeros, or nothing where there is no memory for them.
    pub fn zeros(length: usize) -> Option<Self> {
        let mut values = Self { lines: Vec::new(), length: 0, kind: PhantomData };
        values.resize(length).then_some(values)
    }

    /// Gives it another length; what was there beyond the old one is any numbers. Says whether there was memory for it.
    pub fn resize(&mut self, length: usize) -> bool {
        let Some(bytes) = length.checked_mul(size_of::<T>()) else { return false };
        let lines = bytes.div_ceil(size_of::<Line>());
        if lines > self.lines.len() {
            // Nothing that is there need be copied when it moves.
            if lines > self.lines.capacity() {
                self.lines = Vec::new();
                if self.lines.try_reserve_exact(lines).is_err() {
                    self.length = 0;
                    return false;
                }
            }
            self.lines.resize(lines, Line([0; 64]));
        }
        self.length = length;
        true
    }

    pub fn len(&self) -> usize {
        self.length
    }

    pub fn is_empty(&self) -> bool {
        self.length == 0
    }

    /// How many numbers there is memory for.
    pub fn capacity(&self) -> usize {
        self.lines.capacity() * size_of::<Line>() / size_of::<T>()
    }
}

impl<T: Number> std::ops::Deref for Aligned<T> {
    type Target = [T];

    fn deref(&self) -> &[T] {
        // SAFETY: the lines hold `length` numbers, of which any bytes are a value, and are aligned for them.
        unsafe { std::slice::from_raw_parts(self.lines.as_ptr().cast(), self.length) }
    }
}

impl<T: Number> std::ops::DerefMut for Aligned<T> {
    fn deref_mut(&mut self) -> &mut [T] {
        // SAFETY: as above.
        unsafe { std::slice::from_raw_parts_mut(self.lines.as_mut_ptr().cast(), self.length) }
    }
}
