//! LoKr: the Kronecker product of two small matrices, each whole or of low rank: `(alpha / r) (W1 x W2)`.
//!
//! Exact: `(P1 Q1) x (P2 Q2) = (P1 x P2) (Q1 x Q2)`, of rank `r1 r2`.

use super::dequant::Matrix;
use super::error::ImportError;
use super::modules::{Module, Role};
use super::update::{Change, Context, Update, check_sizes, rows};

/// What a module adds.
pub(super) fn update(context: &Context<'_>, module: &Module<'_>) -> Result<Update, ImportError> {
    let target = context.linear(module)?;
    let source = module.get(Role::W1).or(module.get(Role::W1A)).map(|tensor| tensor.dtype);
    let (p1, q1) = factors(module, [Role::W1, Role::W1A, Role::W1B], "lokr_w1")?;
    let (p2, q2) = factors(module, [Role::W2, Role::W2A, Role::W2B], "lokr_w2")?;
    // The sizes are those of the base matrix, so that the products below are no larger than it.
    let high = p1.nrows().checked_mul(p2.nrows()) == Some(target.outputs);
    let wide = q1.ncols().checked_mul(q2.ncols()) == Some(target.inputs);
    if !high || !wide {
        let reason = format!(
            "is a product of {} x {} and {} x {}, which does not make the {} x {} of '{}': another base model?",
            p1.nrows(),
            q1.ncols(),
            p2.nrows(),
            q2.ncols(),
            target.outputs,
            target.inputs,
            target.tensor
        );
        return Err(ImportError::tensor(&module.name, reason));
    }
    let Some(divisor) = context.config.rank(&module.name) else {
        return Err(ImportError::config("r", "is missing"));
    };
    let strength = context.config.alpha(&module.name) / divisor;
    let rank = p1.ncols().saturating_mul(p2.ncols());
    let change = if rank <= target.outputs.min(target.inputs) {
        let (a, b) = (kron(&q1, &q2), kron(&p1, &p2));
        check_sizes(module, &target, &a, &b)?;
        Change::Factors { a, b: rows(b, &target), alpha: strength * rank as f64 }
    } else {
        target.check_whole()?;
        let product = kron(&p1.dot(&q1), &p2.dot(&q2)) * strength as f32;
        Change::Whole(rows(product, &target))
    };
    Ok(Update { target, source: source.unwrap_or(super::safetensors::Dtype::F32), change, gain: None })
}

/// One of the two matrices as a product; a whole one times the identity of its smaller side.
fn factors(module: &Module<'_>, roles: [Role; 3], name: &str) -> Result<(Matrix, Matrix), ImportError> {
    let [whole, left, right] = roles;
    let Some(whole) = module.get(whole) else {
        let left = module.need(left, &format!("{name} or {name}_a"))?.matrix()?;
        let right = module.need(right, &format!("{name}_b"))?.matrix()?;
        if left.ncols() != right.nrows() {
            let reason = format!("has rank {} in {name}_a and {} in {name}_b", left.ncols(), right.nrows());
            return Err(ImportError::tensor(&module.name, reason));
        }
        return Ok((left, right));
    };
    let whole = whole.matrix()?;
    Ok(match whole.nrows() <= whole.ncols() {
        true => (Matrix::eye(whole.nrows()), whole),
        false => {
            let identity = Matrix::eye(whole.ncols());
            (whole, identity)
        }
    })
}

/// The Kronecker product.
fn kron(left: &Matrix, right: &Matrix) -> Matrix {
    let (high, wide) = right.dim();
    let shape = (left.nrows() * high, left.ncols() * wide);
    Matrix::from_shape_fn(shape, |(row, column)| left[[row / high, column / wide]] * right[[row % high, column % wide]])
}
