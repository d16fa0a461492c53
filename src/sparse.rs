//! Sparse vectors: a few weights over a large vocabulary.

/// Weights by vocabulary index: indices ascending, every value finite and above zero.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct SparseVector {
    pub indices: Vec<u32>,
    pub values: Vec<f32>,
}

impl SparseVector {
    /// From pairs in any order. Of equal indices the larger value stays; what is not above zero is dropped.
    pub fn from_pairs(pairs: impl IntoIterator<Item = (u32, f32)>) -> Self {
        let mut pairs: Vec<(u32, f32)> = pairs.into_iter().filter(|&(_, value)| value > 0.0).collect();
        pairs.sort_unstable_by(|(a, x), (b, y)| a.cmp(b).then(y.total_cmp(x)));
        pairs.dedup_by_key(|(index, _)| *index);
        let (indices, values) = pairs.into_iter().unzip();
        Self { indices, values }
    }

    /// Index and value of each entry.
    pub fn iter(&self) -> impl ExactSizeIterator<Item = (u32, f32)> {
        self.indices.iter().copied().zip(self.values.iter().copied())
    }

    /// Entries.
    pub fn len(&self) -> usize {
        self.indices.len()
    }

    /// Whether no entry is above zero. Milvus refuses such a vector.
    pub fn is_empty(&self) -> bool {
        self.indices.is_empty()
    }

    /// Keeps the `count` largest values; of equal ones those with the smaller index.
    pub fn keep_largest(&mut self, count: usize) {
        if self.len() <= count {
            return;
        }
        let mut pairs: Vec<(u32, f32)> = self.iter().collect();
        pairs.sort_unstable_by(|(a, x), (b, y)| y.total_cmp(x).then(a.cmp(b)));
        pairs.truncate(count);
        *self = Self::from_pairs(pairs);
    }

    /// The inner product: over shared indices, the sum of the products.
    pub fn dot(&self, other: &SparseVector) -> f64 {
        let (mut left, mut right, mut sum) = (0, 0, 0.0);
        while left < self.len() && right < other.len() {
            match self.indices[left].cmp(&other.indices[right]) {
                std::cmp::Ordering::Less => left += 1,
                std::cmp::Ordering::Greater => right += 1,
                std::cmp::Ordering::Equal => {
                    sum += f64::from(self.values[left]) * f64::from(other.values[right]);
                    (left, right) = (left + 1, right + 1);
                }
            }
        }
        sum
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pairs_are_sorted_unique_and_above_zero() {
        let vector = SparseVector::from_pairs([(7, 1.0), (2, 0.5), (7, 3.0), (4, 0.0), (1, -1.0), (3, f32::NAN)]);
        assert_eq!(vector, SparseVector { indices: vec![2, 7], values: vec![0.5, 3.0] });
    }

    #[test]
    fn the_largest_stay_and_the_order_with_them() {
        let mut vector = SparseVector::from_pairs([(1, 1.0), (2, 3.0), (3, 1.0), (4, 2.0)]);
        vector.keep_largest(3);
        assert_eq!(vector.indices, [1, 2, 4]);
        vector.keep_largest(0);
        assert!(vector.is_empty());
    }

    #[test]
    fn the_inner_product_is_over_shared_indices() {
        let left = SparseVector::from_pairs([(1, 1.0), (5, 2.0), (9, 3.0)]);
        let right = SparseVector::from_pairs([(0, 9.0), (5, 4.0), (9, 0.5)]);
        assert_eq!(left.dot(&right), 9.5);
        assert_eq!(left.dot(&SparseVector::default()), 0.0);
    }
}
