//! 256-bit lanes (AVX2 with FMA) and 512-bit lanes (AVX-512) of x86-64.

use std::arch::x86_64::*;

use super::{Int8, Lanes, operators};

#[derive(Debug, Clone, Copy)]
pub struct Avx2(__m256);

operators!(Avx2, Add add _mm256_add_ps, Sub sub _mm256_sub_ps, Mul mul _mm256_mul_ps, Div div _mm256_div_ps);

// SAFETY of the calls below: a value of this type exists only where AVX2 and FMA do; pointers are the caller's promise.
impl Lanes for Avx2 {
    const COUNT: usize = 8;

    #[inline(always)]
    unsafe fn splat(value: f32) -> Self {
        Self(unsafe { _mm256_set1_ps(value) })
    }

    #[inline(always)]
    unsafe fn load(from: *const f32) -> Self {
        Self(unsafe { _mm256_loadu_ps(from) })
    }

    #[inline(always)]
    unsafe fn store(self, to: *mut f32) {
        unsafe { _mm256_storeu_ps(to, self.0) }
    }

    #[inline(always)]
    fn mul_add(self, factor: Self, term: Self) -> Self {
        Self(unsafe { _mm256_fmadd_ps(self.0, factor.0, term.0) })
    }

    #[inline(always)]
    fn at_least(self, limit: Self) -> Self {
        // The second operand is the result where one is NaN.
        Self(unsafe { _mm256_max_ps(limit.0, self.0) })
    }

    #[inline(always)]
    fn at_most(self, limit: Self) -> Self {
        Self(unsafe { _mm256_min_ps(limit.0, self.0) })
    }

    #[inline(always)]
    fn round(self) -> Self {
        Self(unsafe { _mm256_round_ps::<{ _MM_FROUND_TO_NEAREST_INT | _MM_FROUND_NO_EXC }>(self.0) })
    }

    #[inline(always)]
    fn exp2_of_integer(self) -> Self {
        unsafe {
            let exponents = _mm256_add_epi32(_mm256_cvtps_epi32(self.0), _mm256_set1_epi32(127));
            Self(_mm256_castsi256_ps(_mm256_slli_epi32::<23>(exponents)))
        }
    }

    #[inline(always)]
    fn zero_below(self, tested: Self, limit: Self) -> Self {
        unsafe { Self(_mm256_andnot_ps(_mm256_cmp_ps::<_CMP_LT_OQ>(tested.0, limit.0), self.0)) }
    }

    #[inline(always)]
    fn sum(self) -> f32 {
        unsafe {
            let quad = _mm_add_ps(_mm256_castps256_ps128(self.0), _mm256_extractf128_ps::<1>(self.0));
            let pair = _mm_add_ps(quad, _mm_movehl_ps(quad, quad));
            _mm_cvtss_f32(_mm_add_ss(pair, _mm_movehdup_ps(pair)))
        }
    }

    #[inline(always)]
    fn largest(self) -> f32 {
        unsafe {
            let quad = _mm_max_ps(_mm256_castps256_ps128(self.0), _mm256_extractf128_ps::<1>(self.0));
            let pair = _mm_max_ps(quad, _mm_movehl_ps(quad, quad));
            _mm_cvtss_f32(_mm_max_ss(pair, _mm_movehdup_ps(pair)))
        }
    }
}

#[derive(Debug, Clone, Copy)]
pub struct Avx512(__m512);

operators!(Avx512, Add add _mm512_add_ps, Sub sub _mm512_sub_ps, Mul mul _mm512_mul_ps, Div div _mm512_div_ps);

// SAFETY of the calls below: a value of this type exists only where AVX-512 F does; pointers are the caller's promise.
impl Lanes for Avx512 {
    const COUNT: usize = 16;

    #[inline(always)]
    unsafe fn splat(value: f32) -> Self {
        Self(unsafe { _mm512_set1_ps(value) })
    }

    #[inline(always)]
    unsafe fn load(from: *const f32) -> Self {
        Self(unsafe { _mm512_loadu_ps(from) })
    }

    #[inline(always)]
    unsafe fn store(self, to: *mut f32) {
        unsafe { _mm512_storeu_ps(to, self.0) }
    }

    #[inline(always)]
    fn mul_add(self, factor: Self, term: Self) -> Self {
        Self(unsafe { _mm512_fmadd_ps(self.0, factor.0, term.0) })
    }

    #[inline(always)]
    fn at_least(self, limit: Self) -> Self {
        Self(unsafe { _mm512_max_ps(limit.0, self.0) })
    }

    #[inline(always)]
    fn at_most(self, limit: Self) -> Self {
        Self(unsafe { _mm512_min_ps(limit.0, self.0) })
    }

    #[inline(always)]
    fn round(self) -> Self {
        Self(unsafe { _mm512_roundscale_ps::<{ _MM_FROUND_TO_NEAREST_INT | _MM_FROUND_NO_EXC }>(self.0) })
    }

    #[inline(always)]
    fn exp2_of_integer(self) -> Self {
        unsafe {
            let exponents = _mm512_add_epi32(_mm512_cvtps_epi32(self.0), _mm512_set1_epi32(127));
            Self(_mm512_castsi512_ps(_mm512_slli_epi32::<23>(exponents)))
        }
    }

    #[inline(always)]
    fn zero_below(self, tested: Self, limit: Self) -> Self {
        unsafe { Self(_mm512_maskz_mov_ps(!_mm512_cmp_ps_mask::<_CMP_LT_OQ>(tested.0, limit.0), self.0)) }
    }

    #[inline(always)]
    fn sum(self) -> f32 {
        unsafe { _mm512_reduce_add_ps(self.0) }
    }

    #[inline(always)]
    fn largest(self) -> f32 {
        unsafe { _mm512_reduce_max_ps(self.0) }
    }
}

/// Pairwise sums in 16 bits, which seven-bit activations cannot saturate, then in 32.
#[derive(Debug, Clone, Copy)]
pub struct Avx2Int8;

// SAFETY of the calls below: the constructors' promise holds for what follows.
impl Int8 for Avx2Int8 {
    type Lanes = Avx2;
    type Sums = __m256i;
    type Weights = __m256i;
    type Activations = __m256i;
    type Activation = u8;
    const GROUP: usize = 4;

    #[inline(always)]
    unsafe fn start(zero_point: i32, column_sums: *const i32) -> __m256i {
        unsafe { _mm256_mullo_epi32(_mm256_set1_epi32(-zero_point), _mm256_loadu_si256(column_sums.cast())) }
    }

    #[inline(always)]
    unsafe fn weights(from: *const i8) -> __m256i {
        unsafe { _mm256_loadu_si256(from.cast()) }
    }

    #[inline(always)]
    unsafe fn activations(from: *const u8) -> __m256i {
        unsafe { _mm256_set1_epi32(from.cast::<i32>().read_unaligned()) }
    }

    #[inline(always)]
    fn dot(sums: __m256i, weights: __m256i, activations: __m256i) -> __m256i {
        unsafe {
            let pairs = _mm256_maddubs_epi16(activations, weights);
            _mm256_add_epi32(sums, _mm256_madd_epi16(pairs, _mm256_set1_epi16(1)))
        }
    }

    #[inline(always)]
    fn to_f32(sums: __m256i) -> Avx2 {
        Avx2(unsafe { _mm256_cvtepi32_ps(sums) })
    }

    #[inline(always)]
    unsafe fn store_activations(values: Avx2, to: *mut u8) {
        unsafe {
            let bounded = _mm256_min_ps(_mm256_max_ps(values.0, _mm256_setzero_ps()), _mm256_set1_ps(127.0));
            let integers = _mm256_cvtps_epi32(bounded);
            let words = _mm_packus_epi32(_mm256_castsi256_si128(integers), _mm256_extracti128_si256::<1>(integers));
            _mm_storel_epi64(to.cast(), _mm_packus_epi16(words, words));
        }
    }
}

/// One instruction for four products per lane (VNNI).
#[derive(Debug, Clone, Copy)]
pub struct Avx512Int8;

// SAFETY of the calls below: the constructors' promise holds for what follows.
impl Int8 for Avx512Int8 {
    type Lanes = Avx512;
    type Sums = __m512i;
    type Weights = __m512i;
    type Activations = __m512i;
    type Activation = u8;
    const GROUP: usize = 4;

    #[inline(always)]
    unsafe fn start(zero_point: i32, column_sums: *const i32) -> __m512i {
        unsafe { _mm512_mullo_epi32(_mm512_set1_epi32(-zero_point), _mm512_loadu_si512(column_sums.cast())) }
    }

    #[inline(always)]
    unsafe fn weights(from: *const i8) -> __m512i {
        unsafe { _mm512_loadu_si512(from.cast()) }
    }

    #[inline(always)]
    unsafe fn activations(from: *const u8) -> __m512i {
        unsafe { _mm512_set1_epi32(from.cast::<i32>().read_unaligned()) }
    }

    #[inline(always)]
    fn dot(sums: __m512i, weights: __m512i, activations: __m512i) -> __m512i {
        unsafe { _mm512_dpbusd_epi32(sums, activations, weights) }
    }

    #[inline(always)]
    fn to_f32(sums: __m512i) -> Avx512 {
        Avx512(unsafe { _mm512_cvtepi32_ps(sums) })
    }

    #[inline(always)]
    unsafe fn store_activations(values: Avx512, to: *mut u8) {
        unsafe {
            let bounded = _mm512_min_ps(_mm512_max_ps(values.0, _mm512_setzero_ps()), _mm512_set1_ps(127.0));
            _mm_storeu_si128(to.cast(), _mm512_cvtepi32_epi8(_mm512_cvtps_epi32(bounded)));
        }
    }
}
