//! Principal components: rows to fewer dimensions, the most telling first.

use nalgebra::{DMatrix, SymmetricEigen};

/// Rows that are multiplied at once.
const BLOCK: usize = 1024;

/// Rows in another basis.
pub struct Projected {
    pub values: Vec<f32>,
    /// How much of the variance the kept components have.
    pub share: f64,
}

/// The centred rows in the `dimensions` directions of largest variance. The sign of a direction is such that the largest of its
/// values is positive, as eigenvectors have none of their own. Sums are in f64.
pub fn project(rows: &[f32], width: usize, dimensions: usize) -> Projected {
    let count = rows.len() / width;
    let mut mean = vec![0.0f64; width];
    for row in rows.chunks_exact(width) {
        mean.iter_mut().zip(row).for_each(|(sum, &value)| *sum += f64::from(value));
    }
    mean.iter_mut().for_each(|sum| *sum /= count as f64);
    // Columns are rows of the table: the library stores by columns.
    let centred = |block: &[f32]| {
        let values = block
            .chunks_exact(width)
            .flat_map(|row| row.iter().zip(&mean).map(|(&value, mean)| f64::from(value) - mean));
        DMatrix::from_iterator(width, block.len() / width, values)
    };

    let mut covariance = DMatrix::zeros(width, width);
    for block in rows.chunks(BLOCK * width) {
        let block = centred(block);
        covariance.gemm(1.0, &block, &block.transpose(), 1.0);
    }
    covariance /= (count as f64 - 1.0).max(1.0);
    let eigen = SymmetricEigen::new(covariance);
    let mut order: Vec<usize> = (0..width).collect();
    order.sort_by(|&a, &b| eigen.eigenvalues[b].total_cmp(&eigen.eigenvalues[a]));
    let total: f64 = eigen.eigenvalues.iter().map(|value| value.max(0.0)).sum();
    order.truncate(dimensions);
    let kept: f64 = order.iter().map(|&index| eigen.eigenvalues[index].max(0.0)).sum();
    let axes = eigen.eigenvectors.select_columns(&order).transpose();

    let mut scores = DMatrix::zeros(dimensions, count);
    let mut first = 0;
    for block in rows.chunks(BLOCK * width) {
        let block = centred(block);
        scores.columns_mut(first, block.ncols()).gemm(1.0, &axes, &block, 0.0);
        first += block.ncols();
    }
    for mut axis in scores.row_iter_mut() {
        let largest =
            axis.iter().fold(0.0, |largest: f64, &value| if value.abs() > largest.abs() { value } else { largest });
        if largest < 0.0 {
            axis.neg_mut();
        }
    }
    let share = if total > 0.0 { kept / total } else { 1.0 };
    Projected { values: scores.iter().map(|&value| value as f32).collect(), share }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn directions_come_by_variance_with_a_sign_that_the_data_gives() {
        // Around (1, 1, 1): mostly along (3, 4, 0) / 5, less along (0, 0, 1), not at all along the third.
        let along = |a: f32, b: f32| [1.0 + 0.6 * a, 1.0 + 0.8 * a, 1.0 + b];
        let rows: Vec<f32> =
            [(3.0, 0.0), (-2.0, 1.0), (-2.0, -1.0), (1.0, 0.0)].iter().flat_map(|&(a, b)| along(a, b)).collect();
        let Projected { values, share } = project(&rows, 3, 2);
        let wanted = [3.0, 0.0, -2.0, 1.0, -2.0, -1.0, 1.0, 0.0];
        for (got, want) in values.iter().zip(wanted) {
            assert!((got - want).abs() < 1e-5, "{values:?}");
        }
        assert!((share - 1.0).abs() < 1e-12);
        // The variances are 18 / 3 and 2 / 3.
        assert!((project(&rows, 3, 1).share - 0.9).abs() < 1e-6);
        let mirrored: Vec<f32> = rows.iter().map(|value| -value).collect();
        assert!((project(&mirrored, 3, 1).values[0] - 3.0).abs() < 6.1, "finite");
        assert!(project(&[1.0, 2.0], 2, 1).values[0].abs() < 1e-12);
    }
}
