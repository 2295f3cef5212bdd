//! VeRA: random matrices shared by all modules, with learned factors: `diag(b) B diag(d) A`.
//!
//! Exact when the folder holds the random matrices; they cannot be made again without PyTorch's generator.

use ndarray::{Axis, s};

use super::error::ImportError;
use super::modules::{Module, Role, Shared};
use super::update::{Change, Context, Update, check_rank, check_sizes, rows};

/// What a module adds.
pub(super) fn update(context: &Context<'_>, module: &Module<'_>, shared: Shared<'_>) -> Result<Update, ImportError> {
    let target = context.linear(module)?;
    let (Some(a), Some(b)) = (shared.a, shared.b) else {
        let reason = "is off and the folder lacks vera_A and vera_B; save the adapter with save_projection=True";
        return Err(ImportError::config("save_projection", reason));
    };
    let lambda_b = module.need(Role::LambdaB, "vera_lambda_b")?;
    let lambda_d = module.need(Role::LambdaD, "vera_lambda_d")?;
    let (a, b) = (a.matrix()?, b.matrix()?);
    if a.ncols() < target.inputs || b.nrows() < target.outputs {
        let reason = format!("needs more than the shared {} columns and {} rows", a.ncols(), b.nrows());
        return Err(ImportError::tensor(&module.name, reason));
    }
    let mut a = a.slice(s![.., ..target.inputs]).to_owned();
    let mut b = b.slice(s![..target.outputs, ..]).to_owned();
    check_sizes(module, &target, &a, &b)?;
    check_rank(context.config, module, a.nrows())?;
    for (tensor, matrix) in [(lambda_d, &mut a), (lambda_b, &mut b)] {
        let factors = tensor.vector()?;
        if factors.len() != matrix.nrows() {
            let reason = format!("has {} factors for {} rows", factors.len(), matrix.nrows());
            return Err(ImportError::tensor(&tensor.name, reason));
        }
        for (mut row, factor) in matrix.axis_iter_mut(Axis(0)).zip(&factors) {
            row *= *factor;
        }
    }
    let alpha = a.nrows() as f64;
    Ok(Update { source: lambda_b.dtype, change: Change::Factors { a, b: rows(b, &target), alpha }, gain: None, target })
}
