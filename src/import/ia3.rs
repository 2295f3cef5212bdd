//! IA3: a learned factor for every output of a linear, or for every input of a feed-forward linear.
//!
//! The change is `(l - 1) W` by rows or by columns. Exact when few factors differ from 1, of full rank otherwise.

use ndarray::Axis;

use super::dequant::Matrix;
use super::error::ImportError;
use super::modules::{Module, Role};
use super::permute;
use super::update::{Change, Context, Update};

/// Most factors other than 1 for which the change is kept exact, a rank for each.
const MAX_EXACT: usize = 64;

/// What a module adds.
pub(super) fn update(context: &Context<'_>, module: &Module<'_>) -> Result<Update, ImportError> {
    let target = context.linear(module)?;
    let tensor = module.need(Role::Factors, "ia3_l")?;
    let mut factors = tensor.vector()?;
    // [1, inputs] in feed-forward modules, [outputs, 1] elsewhere.
    let by_input = match tensor.shape[..] {
        [1, inputs] if inputs == target.inputs as u64 => true,
        [outputs, 1] if outputs == target.outputs as u64 => false,
        _ => {
            let reason = format!(
                "has shape {:?}, which fits neither {} outputs nor {} inputs: another base model?",
                tensor.shape, target.outputs, target.inputs
            );
            return Err(ImportError::tensor(&tensor.name, reason));
        }
    };
    let bias = format!("{}.bias", target.tensor.trim_end_matches(".weight"));
    if !by_input && context.has(&bias) && factors.iter().any(|factor| *factor != 1.0) {
        let reason = format!("also scales '{bias}', which a LoRA file cannot carry; merge the adapter instead");
        return Err(ImportError::tensor(&module.name, reason));
    }
    if let (false, Some(head)) = (by_input, target.head) {
        factors = permute::vector(&factors, head);
    }
    let base = context.base_matrix(&target)?;
    let changed: Vec<usize> = (0..factors.len()).filter(|at| factors.get(*at) != Some(&1.0)).collect();
    let axis = if by_input { Axis(1) } else { Axis(0) };
    let change = if changed.len() <= MAX_EXACT {
        sparse(&base, &factors, &changed, axis)
    } else {
        let mut change = base;
        for (mut lane, factor) in change.axis_iter_mut(axis).zip(&factors) {
            lane *= factor - 1.0;
        }
        Change::Whole(change)
    };
    let source = tensor.dtype;
    Ok(Update { target, source, change })
}

/// The exact form: a rank for every factor other than 1.
fn sparse(base: &Matrix, factors: &[f32], changed: &[usize], axis: Axis) -> Change {
    // A change of nothing still needs a pair, of zeros.
    let rank = changed.len().max(1);
    let (mut a, mut b) = (Matrix::zeros((rank, base.ncols())), Matrix::zeros((base.nrows(), rank)));
    for (at, lane) in changed.iter().enumerate() {
        let factor = factors.get(*lane).map_or(0.0, |factor| factor - 1.0);
        let change = base.index_axis(axis, *lane).mapv(|number| number * factor);
        if axis == Axis(0) {
            a.row_mut(at).assign(&change);
            b[[*lane, at]] = 1.0;
        } else {
            b.column_mut(at).assign(&change);
            a[[at, *lane]] = 1.0;
        }
    }
    let alpha = rank as f64;
    Change::Factors { a, b, alpha }
}
