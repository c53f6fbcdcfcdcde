//! The little linear algebra that is needed, on top of `faer`.

use faer::linalg::solvers::Solve;
use faer::{Mat, Side};

/// Eigenvalues of a symmetric matrix, largest first and never negative, and their vectors as columns.
pub(super) fn eigen(matrix: &Mat<f64>) -> Option<(Vec<f64>, Mat<f64>)> {
    let found = matrix.self_adjoint_eigen(Side::Lower).ok()?;
    let (values, vectors, n) = (found.S().column_vector(), found.U(), matrix.nrows());
    let ascending: Vec<f64> = (0..n).map(|at| values[at]).collect();
    if ascending.iter().any(|value| !value.is_finite()) {
        return None;
    }
    let order = Mat::from_fn(n, n, |row, column| vectors[(row, n - 1 - column)]);
    Some((ascending.into_iter().rev().map(|value| value.max(0.0)).collect(), order))
}

/// The first columns.
pub(super) fn columns(matrix: &Mat<f64>, count: usize) -> Mat<f64> {
    Mat::from_fn(matrix.nrows(), count.min(matrix.ncols()), |row, column| matrix[(row, column)])
}

/// `b · a⁻¹` for a symmetric `a` that is positive but for rounding; directions that carry nothing get nothing.
pub(crate) fn divide(b: &Mat<f64>, a: &Mat<f64>) -> Option<Mat<f64>> {
    let n = a.nrows();
    let trace: f64 = (0..n).map(|at| a[(at, at)]).sum();
    if trace <= 0.0 {
        return Some(Mat::zeros(b.nrows(), n));
    }
    let ridge = trace / n as f64 * 1e-12;
    let raised = Mat::from_fn(n, n, |i, j| a[(i, j)] + if i == j { ridge } else { 0.0 });
    if let Ok(factor) = raised.llt(Side::Lower) {
        return Some(factor.solve(&b.transpose().to_owned()).transpose().to_owned());
    }
    let (values, vectors) = eigen(a)?;
    let floor = values.first().copied().unwrap_or(0.0) * 1e-12;
    let scaled = Mat::from_fn(n, n, |i, j| if values[j] > floor { vectors[(i, j)] / values[j] } else { 0.0 });
    Some(b * &scaled * vectors.transpose())
}

/// The symmetric square root and its inverse; eigenvalues below a millionth of the largest are raised to that.
pub(super) fn roots(matrix: &Mat<f64>) -> Option<(Mat<f64>, Mat<f64>)> {
    let (values, vectors) = eigen(matrix)?;
    let floor = values.first().copied().unwrap_or(0.0).max(f64::MIN_POSITIVE) * 1e-6;
    let power = |exponent: f64| {
        let n = values.len();
        let scaled = Mat::from_fn(n, n, |i, j| vectors[(i, j)] * values[j].max(floor).powf(exponent));
        &scaled * vectors.transpose()
    };
    Some((power(0.5), power(-0.5)))
}

/// `tr(a · bᵀ)`.
pub(super) fn inner(a: &Mat<f64>, b: &Mat<f64>) -> f64 {
    let mut sum = 0.0;
    for column in 0..a.ncols() {
        for row in 0..a.nrows() {
            sum += a[(row, column)] * b[(row, column)];
        }
    }
    sum
}

#[cfg(test)]
mod tests {
    use super::*;

    fn near(a: &Mat<f64>, b: &Mat<f64>) -> bool {
        (a.nrows(), a.ncols()) == (b.nrows(), b.ncols()) && {
            let difference = a - b;
            inner(&difference, &difference) < 1e-16 * inner(a, a).max(1.0)
        }
    }

    #[test]
    fn eigenvalues_fall_and_the_rest_is_consistent() {
        let root = Mat::from_fn(5, 5, |i, j| ((i * 7 + j * 3) % 5) as f64 - 1.7 + if i == j { 3.0 } else { 0.0 });
        let matrix = &root * root.transpose();
        let (values, vectors) = eigen(&matrix).unwrap();
        assert!(values.windows(2).all(|pair| pair[0] >= pair[1]));
        let scaled = Mat::from_fn(5, 5, |i, j| vectors[(i, j)] * values[j]);
        assert!(near(&(&scaled * vectors.transpose()), &matrix));
        let (half, back) = roots(&matrix).unwrap();
        assert!(near(&(&half * &half), &matrix) && near(&(&half * &back), &Mat::identity(5, 5)));
        assert!(near(&(&divide(&root, &matrix).unwrap() * &matrix), &root));
    }
}
