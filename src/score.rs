//! How alike a query and a document are, by what was encoded of each: as BGE-M3's original code computes it
//! (FlagEmbedding's `compute_lexical_matching_score`, `colbert_score` and `compute_score`).

use crate::sparse::SparseVector;

/// Late interaction: for each token vector of the query the largest inner product with one of the document, and the mean of
/// these. Rows of `width`; zero without tokens.
pub fn colbert(query: &[f32], document: &[f32], width: usize) -> f64 {
    let rows = |values| <[f32]>::chunks_exact(values, width.max(1));
    let dot = |a: &[f32], b: &[f32]| -> f64 { a.iter().zip(b).map(|(a, b)| f64::from(*a) * f64::from(*b)).sum() };
    let (count, documents) = (rows(query).len(), rows(document).len());
    if count == 0 || documents == 0 {
        return 0.0;
    }
    let best = |token| rows(document).map(|other| dot(token, other)).fold(f64::NEG_INFINITY, f64::max);
    rows(query).map(best).sum::<f64>() / count as f64
}

/// The inner product of lexical weights.
pub fn lexical(query: &SparseVector, document: &SparseVector) -> f64 {
    query.dot(document)
}

/// The weighted mean of scores. A weight of zero leaves a score out; zero without any weight.
pub fn hybrid(scores: &[f64], weights: &[f64]) -> f64 {
    let used = || scores.iter().zip(weights).filter(|(_, weight)| **weight != 0.0);
    let total: f64 = used().map(|(_, weight)| weight).sum();
    if total == 0.0 { 0.0 } else { used().map(|(score, weight)| score * weight).sum::<f64>() / total }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_query_token_counts_its_best_match() {
        let query = [1.0, 0.0, 0.0, 1.0];
        let document = [0.5, 0.0, 0.0, 0.25, 1.0, 0.0];
        assert_eq!(colbert(&query, &document, 2), (1.0 + 0.25) / 2.0);
        assert_eq!(colbert(&[], &document, 2), 0.0);
    }

    /// The parts that BGE-M3's card prints for its first pair, and the scores it makes of them.
    #[test]
    fn weights_divide_by_their_sum_as_on_the_card() {
        let (dense, sparse, colbert) = (0.62598, 0.19556, 0.77970);
        assert!((hybrid(&[dense, sparse], &[0.4, 0.2]) - 0.4825).abs() < 5e-5);
        assert!((hybrid(&[dense, sparse, colbert], &[0.4, 0.2, 0.4]) - 0.6014).abs() < 5e-5);
        assert_eq!(hybrid(&[1.0], &[0.0]), 0.0);
    }
}
